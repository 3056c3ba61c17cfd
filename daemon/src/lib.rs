//! The daemon of a rack: owns the rack's frames, and gives pages out and takes them back.
#![forbid(unsafe_code)]

mod extents;
mod frames;
mod recover;
mod trim;

pub use pool::cxl::region::{RegionError, RegionSource};
pub use recover::{BadFrame, BadWhy, Opened};

use frames::FrameTable;
use pool::addr::{PageSize, RackId};
use pool::cxl::layout::SUPERBLOCK_LEN;
use pool::cxl::region::{Region, Spec};
use pool::proto::page::{PageError, PageReply, PageRequest};
use pool::proto::{Reply, Request};
use pool::transport::Handler;
use std::sync::Arc;
use thiserror::Error;
use trim::Trimmer;

/// What a daemon is to manage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The rack.
    pub rack: RackId,
    /// Where its memory comes from.
    pub source: RegionSource,
    /// Bytes of page data that it can hold. 0: what the device, or the region that is there, has.
    pub size: u64,
    /// The size of a page.
    pub page_size: PageSize,
}

/// Why a daemon does not start.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// There is no region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The region cannot be marked as in use.
    #[error("cannot write the superblock: {0}")]
    Superblock(std::io::Error),
    /// The operating system failed.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// A running daemon. Ends in order when it is dropped.
pub struct Daemon {
    frames: Arc<FrameTable>,
    opened: Opened,
    trimmer: Trimmer,
}

impl Daemon {
    /// Opens or makes the region and takes it over.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub fn start(config: DaemonConfig) -> Result<Self, DaemonError> {
        let DaemonConfig { rack, source, size, page_size } = config;
        let (region, found) = Region::open(&source, &Spec { rack, page_size, size })?;
        let (state, opened) = recover::recover(&region, found);
        // Else a region that loses power would claim that it was left in order.
        region.sync(0..SUPERBLOCK_LEN).map_err(DaemonError::Superblock)?;
        report(&region, &opened);
        let frames = Arc::new(FrameTable::new(Arc::new(region), state));
        let trimmer = Trimmer::start(&frames).map_err(DaemonError::Thread)?;
        Ok(Self { frames, opened, trimmer })
    }

    /// The region, for clients in this process.
    pub fn region(&self) -> Arc<Region> {
        Arc::clone(self.frames.region())
    }

    /// Tells two pools apart.
    pub fn pool_id(&self) -> u128 {
        self.frames.region().pool_id()
    }

    /// What was there at the start.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Ends in order: refuses requests from now on, and writes the region out. Clients may go on to read
    /// and write the pages there are.
    pub fn shutdown(&self) {
        self.frames.close();
        self.trimmer.join();
    }

    fn page_request(&self, request: PageRequest) -> Result<PageReply, PageError> {
        let frames = &self.frames;
        match request {
            PageRequest::Alloc { pages, leave } => frames.alloc(pages, leave).map(PageReply::Runs),
            PageRequest::Free { runs } => frames.free(&runs).map(PageReply::Freed),
            PageRequest::Stat => Ok(PageReply::Stat(frames.stat())),
            PageRequest::Reconcile { held } => frames.reconcile(&held).map(PageReply::Reconciled),
            PageRequest::Sync { runs } => frames.sync(&runs).map(|()| PageReply::Done),
        }
    }
}

impl Handler for Daemon {
    fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Page(request) => Reply::Page(self.page_request(request)),
            Request::Meta(_) => Reply::Unsupported,
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn report(region: &Region, opened: &Opened) {
    let name = region.name();
    match opened {
        Opened::Created => log::info!("{name}: new pool of {} bytes", region.geometry().data_bytes()),
        Opened::Reopened { clean, pages, bad } => {
            log::info!(
                "{name}: {pages} pages, {}",
                if *clean { "left in order" } else { "not left in order" }
            );
            for bad in bad {
                log::error!("{name}: frame {} is damaged and not used: {bad:?}", bad.frame.0);
            }
        }
    }
}
