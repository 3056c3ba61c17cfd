//! The pages that are measured: some in this rack, the rest in another, evenly mixed.

use super::args::PoolArgs;
use crate::addr::{GAddr, PageId, PageRun, PageSize, RackId};
use crate::client::{Fill, Pool};
use crate::error::PoolError;
use crate::tool::ToolError;
use std::fs;
use std::path::Path;

/// Pages in the order of the offsets that they stand for.
pub(crate) struct Data {
    pages: Vec<PageId>,
    /// Those that go when this ends, and by which client; a list from outside belongs to others.
    owned: Vec<(Pool, Vec<PageRun>)>,
    size: PageSize,
}

impl Data {
    /// Pages for `span` bytes. They are zero, and all of them have been touched.
    pub fn make(pool: &Pool, arguments: &PoolArgs, span: u64) -> Result<Self, ToolError> {
        if !(0.0..=1.0).contains(&arguments.remote) {
            return Err(ToolError::Usage(format!("--remote {}: from 0 to 1", arguments.remote)));
        }
        let size = pool.page_size();
        let total = size.pages_for(span);
        let away = (total as f64 * arguments.remote).round() as u64;
        let mut data = Self { pages: Vec::new(), owned: Vec::new(), size };
        if let Err(error) = data.fill(pool, arguments, total - away, away) {
            data.free()?;
            return Err(error);
        }
        Ok(data)
    }

    fn fill(&mut self, pool: &Pool, arguments: &PoolArgs, here: u64, away: u64) -> Result<(), ToolError> {
        let here = self.own(pool, here)?;
        let away = match &arguments.pages {
            _ if away == 0 => Vec::new(),
            Some(list) => read_list(list, away)?,
            None => {
                let rack = RackId(arguments.remote_rack);
                if rack == pool.rack() {
                    return Err(ToolError::Usage(format!("--remote-rack {rack} is this client's own rack")));
                }
                self.own(&arguments.master.pool(rack)?, away)?
            }
        };
        self.pages = mix(here, away);
        Ok(())
    }

    fn own(&mut self, pool: &Pool, pages: u64) -> Result<Vec<PageId>, ToolError> {
        let runs = allocate(pool, pages * self.size.bytes())?;
        let pages = runs.iter().flat_map(|run| run.iter()).collect();
        self.owned.push((pool.clone(), runs));
        Ok(pages)
    }

    /// The address that stands for the offset `at`.
    pub fn address(&self, at: u64) -> u64 {
        let page = self.pages[self.size.page_of(at) as usize % self.pages.len()];
        // Checked when the pages were given out.
        (page.raw() << self.size.shift()) | self.size.offset_of(at)
    }

    /// Gives back what was allocated.
    pub fn free(self) -> Result<(), ToolError> {
        for (pool, runs) in self.owned {
            pool.free_runs(&runs)?;
        }
        Ok(())
    }
}

/// Pages for `span` bytes, zero, touched.
pub(crate) fn allocate(pool: &Pool, span: u64) -> Result<Vec<PageRun>, ToolError> {
    let size = pool.page_size();
    let count = size.pages_for(span);
    if count == 0 {
        return Ok(Vec::new());
    }
    let runs = pool.alloc_runs(count, 0, Fill::Zeroed)?;
    for run in &runs {
        // What is known to be zero has not been touched, and the first touch costs more than any other.
        let bytes = u64::from(run.count) * size.bytes();
        let at = GAddr::new(run.first, 0, size);
        let at = at.ok_or(PoolError::BadAddress { at: run.first.raw(), len: bytes })?;
        pool.zero(at, bytes)?;
    }
    Ok(runs)
}

fn read_list(path: &Path, count: u64) -> Result<Vec<PageId>, ToolError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ToolError::Io(name.clone(), error))?;
    let page = |line: &str| line.trim().parse().ok().and_then(PageId::new);
    let pages: Option<Vec<_>> = text.lines().map(page).collect();
    let pages =
        pages.ok_or_else(|| ToolError::Usage(format!("{name} is no list of page ids, one a line")))?;
    if (pages.len() as u64) < count {
        return Err(ToolError::Usage(format!("{name} has {} pages, and {count} are needed", pages.len())));
    }
    Ok(pages.into_iter().take(count as usize).collect())
}

/// Both lists in one, evenly spread.
fn mix(here: Vec<PageId>, away: Vec<PageId>) -> Vec<PageId> {
    let (total, remote) = (here.len() + away.len(), away.len());
    let (mut here, mut away) = (here.into_iter(), away.into_iter());
    let is_away = |i: usize| (i + 1) * remote / total > i * remote / total;
    (0..total).filter_map(|i| if is_away(i) { away.next() } else { here.next() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(from: u64, count: u64) -> Vec<PageId> {
        (from..from + count).filter_map(PageId::new).collect()
    }

    #[test]
    fn remote_pages_lie_between_the_others() {
        let raw =
            |here, away| mix(pages(1, here), pages(100, away)).iter().map(|p| p.raw()).collect::<Vec<_>>();
        assert_eq!(raw(2, 2), [1, 100, 2, 101]);
        assert_eq!(raw(3, 1), [1, 2, 3, 100]);
        assert_eq!(raw(0, 2), [100, 101]);
        assert_eq!(raw(2, 0), [1, 2]);
    }
}
