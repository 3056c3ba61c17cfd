//! Pages to which something happened a moment ago.

use pool::addr::PageId;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Remembers pages for some time.
pub(super) struct Recent {
    keep: Duration,
    last: HashMap<PageId, Instant>,
    order: VecDeque<(Instant, PageId)>,
}

impl Recent {
    /// Remembers each page for `keep`.
    pub fn new(keep: Duration) -> Self {
        Self { keep, last: HashMap::new(), order: VecDeque::new() }
    }

    /// It happened to `page` at `now`.
    pub fn note(&mut self, page: PageId, now: Instant) {
        while let Some((at, old)) = self.order.front().copied().filter(|(at, _)| now - *at >= self.keep) {
            self.order.pop_front();
            if self.last.get(&old) == Some(&at) {
                self.last.remove(&old);
            }
        }
        self.last.insert(page, now);
        self.order.push_back((now, page));
    }

    /// Whether it happened to `page` a moment before `now`.
    pub fn has(&self, page: PageId, now: Instant) -> bool {
        self.last.get(&page).is_some_and(|at| now.saturating_duration_since(*at) < self.keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_remembered_for_a_while_and_then_takes_no_room() {
        let (one, two) = (PageId::new(1).unwrap(), PageId::new(2).unwrap());
        let (start, keep) = (Instant::now(), Duration::from_millis(100));
        let mut recent = Recent::new(keep);
        recent.note(one, start);
        recent.note(one, start + keep / 2);
        assert!(recent.has(one, start + keep), "it happened again in between");
        assert!(!recent.has(one, start + 2 * keep) && !recent.has(two, start));
        recent.note(two, start + 2 * keep);
        assert_eq!((recent.last.len(), recent.order.len()), (1, 1));
    }
}
