//! Stand-in.
use crate::frames::FrameTable;
use pool::addr::{GAddr, PageId, PageRun};
use pool::in_place::InPlace;
use pool::proto::page::{PageError, PageKind};
use std::sync::Arc;
pub(crate) struct Objects {
    frames: Arc<FrameTable>,
    set: parking_lot::Mutex<std::collections::HashSet<GAddr>>,
}
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) enum FreeFault {
    Elsewhere,
    Busy(PageId),
    Page(PageError),
}
impl Objects {
    pub fn new(frames: Arc<FrameTable>, _: InPlace) -> Self {
        Self { frames, set: Default::default() }
    }
    pub fn alloc(&self, _: u64) -> Result<GAddr, PageError> {
        let runs = self.frames.alloc(1, 0, PageKind::Objects)?;
        let at = GAddr::new(runs[0].first, 64, self.frames.region().geometry().page_size).unwrap();
        self.set.lock().insert(at);
        Ok(at)
    }
    pub fn free(&self, at: GAddr) -> Result<(), FreeFault> {
        let page = at.page(self.frames.region().geometry().page_size).unwrap();
        if self.frames.frame_of(page).is_none() {
            return Err(FreeFault::Elsewhere);
        }
        if !self.set.lock().remove(&at) {
            return Err(FreeFault::Page(PageError::NoSuchObject(at)));
        }
        self.frames.free(&[PageRun { first: page, count: 1 }], &|_| {}).map(drop).map_err(FreeFault::Page)
    }
    pub fn arrived(&self, _: PageId) {}
    pub fn departed(&self, _: PageId) {}
}
