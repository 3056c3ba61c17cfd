//! The daemon of a rack: owns the rack's frames, and gives pages out and takes them back.
#![forbid(unsafe_code)]

pub mod cli;
mod cluster;
mod config;
mod context;
mod counters;
mod extents;
mod far;
mod frames;
mod give;
mod holders;
mod ids;
mod member;
mod migrate;
mod objects;
mod pulse;
mod racks;
pub mod reach;
mod recover;
mod remote;
mod rings;
mod server;
mod take;
mod takers;
mod trim;

pub use cluster::ClusterDaemon;
pub use config::{CLIENTS_MAX, ClusterConfig, DaemonConfig, DaemonError, SwapConfig};
pub use pool::cxl::region::{RegionError, RegionSource};
pub use recover::{BadFrame, BadWhy, Opened};

use frames::FrameTable;
use objects::{FreeFault, Objects};
use pool::addr::{GAddr, PageRun};
use pool::cxl::layout::SUPERBLOCK_LEN;
use pool::cxl::region::{Region, Spec};
use pool::in_place::InPlace;
use pool::proto::page::{PageError, PageReply, PageRequest};
use pool::proto::{Reply, Request};
use pool::transport::Handler;
use std::sync::Arc;
use trim::Trimmer;

/// A running daemon. Ends in order when it is dropped.
pub struct Daemon {
    frames: Arc<FrameTable>,
    objects: Objects,
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
        let spec = Spec { rack, page_size, size, cluster: None, channels: 0 };
        let (region, found) = Region::open(&source, &spec)?;
        let (state, opened) = recover::recover(&region, found, recover::Origin::Here);
        // Else a region that loses power would claim that it was left in order.
        region.sync(0..SUPERBLOCK_LEN).map_err(DaemonError::Superblock)?;
        report(&region, &opened);
        let frames = Arc::new(FrameTable::new(Arc::new(region), state));
        let trimmer = Trimmer::start(&frames).map_err(DaemonError::Thread)?;
        let objects = Objects::new(Arc::clone(&frames), InPlace::new(Arc::clone(frames.region())));
        Ok(Self { frames, objects, opened, trimmer })
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
            PageRequest::Alloc { pages, leave, kind } => {
                frames.alloc(pages, leave, kind).map(|runs| PageReply::Runs { runs, zeroed: 0 })
            }
            PageRequest::Free { runs } => frames.free(&runs, &|_| {}).map(PageReply::Freed),
            PageRequest::Stat => Ok(PageReply::Stat(frames.stat())),
            PageRequest::Reconcile { held, ids: _, free: true } => {
                frames.reconcile(&held).map(PageReply::Reconciled)
            }
            PageRequest::Sync { runs } => frames.sync(&runs).map(|()| PageReply::Done),
            PageRequest::AllocObject { size } => self.objects.alloc(size).map(PageReply::Object),
            PageRequest::FreeObject { at } => self.free_object(at).map(|()| PageReply::Done),
            // What is not in this rack is nowhere.
            PageRequest::Read { at, .. } | PageRequest::Write { at, .. } | PageRequest::Cas { at, .. } => {
                let page = at.page(frames.region().geometry().page_size);
                Err(page.map_or(PageError::Invalid("no such address".into()), PageError::NoSuchPage))
            }
            _ => Err(PageError::Invalid("there is only one rack".into())),
        }
    }
}

impl Daemon {
    fn free_object(&self, at: GAddr) -> Result<(), PageError> {
        let empty = self.objects.free(at).map_err(|fault| match fault {
            FreeFault::Elsewhere => PageError::NoSuchObject(at),
            FreeFault::Busy(page) => PageError::Busy(page),
            FreeFault::Page(error) => error,
        })?;
        for page in empty {
            if let Err(error) = self.frames.free(&[PageRun { first: page, count: 1 }], &|_| {}) {
                log::warn!("page {page}, which has no objects any more, is not free yet: {error}");
                self.objects.not_freed(page);
            }
        }
        Ok(())
    }
}

impl Handler for Daemon {
    fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Page(request) => Reply::Page(self.page_request(request)),
            Request::Meta(_)
            | Request::Mount(_)
            | Request::Peer(_)
            | Request::Cluster(_)
            | Request::Far(_) => Reply::Unsupported,
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
