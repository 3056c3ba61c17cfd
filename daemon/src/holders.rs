//! Who holds references to pages of this rack, and what those references are worth.
//!
//! Invariants:
//! - A reference is given out only while its page is stable, and is then in the list. Who takes a page
//!   away first changes the page's state and then takes the list, so no reference is missed.
//! - A holder accesses this rack's memory only with its key ([`Session`]); a key is withdrawn only while
//!   no access by it is under way. All that a withdrawn key was listed for is worthless, and skipped.
//! - Accesses by messages hold the key's lock; one-sided ones go by a link that is for one key
//!   ([`fabric`](pool::transport::fabric)), made under that lock, and destroyed before another key takes its place.
//!
//! Knows nothing of how references are asked for or taken back by messages.
//!
//! Locks: a shard of the list, within it the state of the frames; a key. Nothing waits under them,
//! except a withdrawal for copies that are under way.

use crate::frames::FrameTable;
use parking_lot::{Mutex, RwLock};
use pool::addr::{PageId, RackId};
use pool::cxl::frames::State;
use pool::cxl::layout::Geometry;
use pool::heat::HalfLife;
use pool::proto::peer::{Reference, RemoteAt};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

const SHARDS: usize = 64;

/// What came of asking for a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Here it is.
    Given(Reference),
    /// Not now.
    Moving,
    /// There is no such page here.
    Absent,
}

/// A rack's right to access the memory of this one.
#[derive(Debug)]
pub(crate) struct Session {
    /// Held for reading while an access is under way.
    key: RwLock<u64>,
}

/// How much a page had been used when that was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    touches: u64,
    at: u64,
    heat: f64,
}

#[derive(Debug, Default)]
struct Listed {
    /// Racks, each with the key that it held when it got its reference.
    racks: Vec<(RackId, u64)>,
    sample: Option<Sample>,
}

/// The holders of references to pages of this rack.
pub(crate) struct Holders {
    list: Vec<Mutex<HashMap<PageId, Listed>>>,
    sessions: RwLock<HashMap<RackId, Arc<Session>>>,
    random: RandomState,
}

impl Default for Holders {
    fn default() -> Self {
        let list = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { list, sessions: RwLock::default(), random: RandomState::new() }
    }
}

impl Holders {
    fn shard(&self, page: PageId) -> &Mutex<HashMap<PageId, Listed>> {
        &self.list[(self.random.hash_one(page.raw()) as usize) % SHARDS]
    }

    /// Gives `holder` a reference to `page`. `elsewhere`: whether a page that is not in the frames is on
    /// its way here, or has just left.
    pub fn acquire(
        &self,
        frames: &FrameTable,
        holder: RackId,
        page: PageId,
        now: u64,
        elsewhere: impl FnOnce() -> bool,
    ) -> Grant {
        let session = self.session(holder);
        let mut shard = self.shard(page).lock();
        match frames.frame_of(page) {
            Some((frame, State::Stable)) => {
                let Some(offset) = frames.offset_of(frame) else { return Grant::Absent };
                let key = *session.key.read();
                let Listed { racks, sample } = shard.entry(page).or_default();
                if let (None, Some(touches)) = (*sample, frames.touches(page)) {
                    *sample = Some(Sample { touches, at: now, heat: 0.0 });
                }
                racks.retain(|(rack, _)| *rack != holder);
                racks.push((holder, key));
                Grant::Given(Reference { offset, key })
            }
            Some(_) => Grant::Moving,
            None if elsewhere() => Grant::Moving,
            None => Grant::Absent,
        }
    }

    /// `holder` does not use its reference to `page` any more, if it is one by this key.
    pub fn release(&self, holder: RackId, key: u64, page: PageId) {
        let mut shard = self.shard(page).lock();
        if let Some(listed) = shard.get_mut(&page) {
            listed.racks.retain(|racks| *racks != (holder, key));
            if listed.racks.is_empty() {
                shard.remove(&page);
            }
        }
    }

    /// Takes the list of those who hold references to `page`, which must not be stable any more.
    pub fn take(&self, page: PageId) -> Vec<RackId> {
        let listed = self.shard(page).lock().remove(&page).unwrap_or_default();
        listed.racks.into_iter().filter(|(rack, key)| self.is_valid(*rack, *key)).map(|held| held.0).collect()
    }

    /// The heat that clients of this rack have given `page` since this, or a reference to the page, was
    /// last asked for; that is, its mean over that time. 0 when it is asked for the first time.
    pub fn heat(&self, frames: &FrameTable, page: PageId, now: u64, half_life: HalfLife) -> f64 {
        let Some(touches) = frames.touches(page) else { return 0.0 };
        let mut shard = self.shard(page).lock();
        let sample = &mut shard.entry(page).or_default().sample;
        let before = sample.unwrap_or(Sample { touches, at: now, heat: 0.0 });
        let (count, elapsed) = (touches.saturating_sub(before.touches), now.saturating_sub(before.at));
        let heat = half_life.after(before.heat, count, elapsed);
        *sample = Some(Sample { touches, at: now, heat });
        heat
    }

    fn session(&self, holder: RackId) -> Arc<Session> {
        if let Some(session) = self.sessions.read().get(&holder) {
            return Arc::clone(session);
        }
        let mut sessions = self.sessions.write();
        let new = || Arc::new(Session { key: RwLock::new(random_key(0)) });
        Arc::clone(sessions.entry(holder).or_insert_with(new))
    }

    fn is_valid(&self, holder: RackId, key: u64) -> bool {
        self.sessions.read().get(&holder).is_some_and(|session| *session.key.read() == key)
    }

    /// Withdraws the key of `holder`, once no access by it is under way. `only`: if that is its key. `cut` ends
    /// the accesses that this list does not see, and comes before the key counts as withdrawn.
    /// Returns what was withdrawn.
    pub fn fence(&self, holder: RackId, only: Option<u64>, cut: impl FnOnce()) -> Option<u64> {
        let session = self.sessions.read().get(&holder).cloned()?;
        let mut key = session.key.write();
        if only.is_some_and(|only| only != *key) {
            return None;
        }
        cut();
        let new = random_key(*key);
        Some(std::mem::replace(&mut *key, new))
    }

    /// Calls `with` with the key of `holder`, which remains that for as long as it takes.
    pub fn with_key<T>(&self, holder: RackId, with: impl FnOnce(u64) -> T) -> T {
        let session = self.session(holder);
        let key = session.key.read();
        with(*key)
    }

    /// Calls `access` if `at` is a right that is valid, which it remains for as long as that takes.
    /// `None` if it is not.
    pub fn with_right<T>(&self, at: RemoteAt, access: impl FnOnce() -> T) -> Option<T> {
        let session = self.sessions.read().get(&at.holder).cloned()?;
        let key = session.key.read();
        (*key == at.key).then(access)
    }
}

/// A key that is not `last`, and not easily met by accident.
fn random_key(last: u64) -> u64 {
    loop {
        let key = RandomState::new().hash_one(last);
        if key != last && key != 0 {
            return key;
        }
    }
}

/// Whether `len` bytes at `offset` are within one frame of a region.
pub(crate) fn within_a_frame(g: &Geometry, offset: u64, len: u64) -> bool {
    let Some(into) = offset.checked_sub(g.frames_at).filter(|into| *into < g.data_bytes()) else {
        return false;
    };
    g.page_size.offset_of(into).checked_add(len).is_some_and(|end| end <= g.page_size.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::PageSize;

    const PEER: RackId = RackId(7);

    #[test]
    fn a_withdrawn_key_opens_nothing() {
        let holders = Holders::default();
        let session = holders.session(PEER);
        let key = *session.key.read();
        let at = RemoteAt { offset: 0, key, holder: PEER };
        assert_eq!(holders.with_right(at, || 5), Some(5));
        holders.fence(PEER, Some(key ^ 1), || panic!("another key was meant"));
        assert_eq!(holders.with_right(at, || 5), Some(5), "another key was meant");
        holders.fence(PEER, Some(key), || ());
        assert_eq!(holders.with_right(at, || 5), None);
        assert_eq!(holders.with_right(RemoteAt { holder: RackId(8), ..at }, || 5), None);
    }

    #[test]
    fn a_key_is_not_withdrawn_while_an_access_by_it_is_under_way() {
        let holders = Holders::default();
        let key = *holders.session(PEER).key.read();
        let at = RemoteAt { offset: 0, key, holder: PEER };
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let fenced = holders.with_right(at, || {
                let fence = scope.spawn(|| {
                    holders.fence(PEER, None, || ());
                    done.load(std::sync::atomic::Ordering::SeqCst)
                });
                std::thread::sleep(std::time::Duration::from_millis(20));
                done.store(true, std::sync::atomic::Ordering::SeqCst);
                fence
            });
            assert!(fenced.unwrap().join().unwrap(), "the fence came in the middle of the access");
        });
    }

    #[test]
    fn an_access_is_within_one_frame() {
        let g = Geometry::for_frames(PageSize::MIN, 10, 0).unwrap();
        let (first, end) = (g.frames_at, g.frames_at + g.data_bytes());
        assert!(within_a_frame(&g, first, 4096) && within_a_frame(&g, end - 8, 8));
        for (offset, len) in
            [(0, 8), (first - 1, 1), (first, 4097), (first + 4090, 8), (end - 4, 8), (end, 0)]
        {
            assert!(!within_a_frame(&g, offset, len), "{offset} {len}");
        }
        assert!(!within_a_frame(&g, u64::MAX, u64::MAX) && !within_a_frame(&g, first, u64::MAX));
    }
}
