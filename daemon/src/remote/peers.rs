//! What daemons of other racks ask: for references to pages of this rack and accesses by them, for
//! references of ours to be given up, and for swaps.
//!
//! Accesses by reference are plain copies under the holder's right, with no look at the page: that the
//! reference is valid as long as the page is there is the business of who takes the page away.

use super::Remote;
use super::access::Op;
use super::table::{Link, Revoked};
use crate::holders::{Grant, within_a_frame};
use pool::addr::{GAddr, PageId, RackId};
use pool::in_place::Why;
use pool::proto::page::PageError;
use pool::proto::peer::{PeerReply, PeerRequest, RemoteAt};
use pool::proto::{NodeId, Request};
use std::sync::Arc;

/// Takes the answer to another daemon's request.
pub(crate) type PeerAnswer = Box<dyn FnOnce(Result<PeerReply, PageError>) + Send>;

impl Remote {
    /// Acquire, Release, Revoke, ReadAt, WriteAt, Read, Cas, Prepare, Finish of other daemons. Never blocks.
    pub fn serve_peer(self: &Arc<Self>, request: PeerRequest, answer: PeerAnswer) {
        match request {
            PeerRequest::Acquire { holder, page } => answer(self.serve_acquire(holder, page)),
            PeerRequest::Release { holder, key, pages } => {
                answer(Ok(self.serve_release(holder, key, &pages)))
            }
            PeerRequest::Revoke { home, pages } => self.serve_revoke(home, &pages, answer),
            PeerRequest::ReadAt { at, len } => answer(self.serve_read(at, len)),
            PeerRequest::WriteAt { at, data } => answer(self.serve_write(at, &data)),
            PeerRequest::Read { at, len } => answer(self.serve_read_of_page(at, len)),
            PeerRequest::Cas { at, old, new } => answer(self.serve_cas(at, old, new)),
            PeerRequest::Prepare { token, page, heat, victim, lend } => {
                self.serve_prepare(token, page, heat, victim, lend, answer);
            }
            PeerRequest::Finish { token, committed } => self.serve_finish(token, committed, answer),
            PeerRequest::Unlink { home, key } => {
                self.context.transport.unlink(NodeId::Daemon(home), Some(key));
                answer(Ok(PeerReply::Done));
            }
            _ => answer(Err(PageError::Invalid("not a request about references or swaps".into()))),
        }
    }

    fn serve_acquire(&self, holder: RackId, page: PageId) -> Result<PeerReply, PageError> {
        if holder == self.context.rack {
            return Err(PageError::Invalid(format!("rack {holder} needs no references to its own pages")));
        }
        // In this order: a page that arrives in between is seen in the frames, one that leaves again is
        // remembered.
        let moving = self.swaps.is_moving(page);
        let elsewhere = || moving || self.swaps.has_left(page) || self.swaps.is_moving(page);
        let now = self.context.now();
        Ok(match self.holders.acquire(&self.context.frames, holder, page, now, elsewhere) {
            Grant::Given(reference) => PeerReply::Reference(reference),
            Grant::Moving => PeerReply::Moving,
            Grant::Absent => PeerReply::NotHere,
        })
    }

    fn serve_release(&self, holder: RackId, key: u64, pages: &[PageId]) -> PeerReply {
        if pages.is_empty() {
            self.fence(holder, Some(key));
        }
        pages.iter().for_each(|page| self.holders.release(holder, key, *page));
        PeerReply::Done
    }

    fn serve_revoke(self: &Arc<Self>, home: RackId, pages: &[PageId], answer: PeerAnswer) {
        // Each page counts once, and one more is for what follows.
        let remote = Arc::clone(self);
        let revoked = Revoked::new(pages.len() + 1, Box::new(move || answer(remote.given_up(home))));
        for page in pages {
            let mut shard = self.table.shard(*page);
            let waits = shard.get_mut(page).is_some_and(|entry| {
                match &mut entry.link {
                    Link::Asking { spoiled } => *spoiled = true,
                    Link::Held(_) => entry.link = Link::Idle,
                    _ => {}
                }
                if entry.in_flight > 0 {
                    entry.revoked.push(Arc::clone(&revoked));
                }
                entry.in_flight > 0
            });
            drop(shard);
            if !waits {
                revoked.one_less();
            }
        }
        revoked.one_less();
    }

    /// No access is under way, as far as is known.
    fn given_up(&self, home: RackId) -> Result<PeerReply, PageError> {
        if self.doubts.concern(home) {
            let error = "an access may still be carried out: withdraw the key of this rack";
            return Err(PageError::Unreachable(error.into()));
        }
        Ok(PeerReply::Done)
    }

    /// Lets another rack access this one's memory one-sided, by the key that it has now. May take long.
    pub fn serve_link(&self, holder: RackId, offer: &[u8]) -> Result<PeerReply, PageError> {
        let accept = |key| match self.context.transport.accept_link(NodeId::Daemon(holder), offer) {
            Ok(answer) => Ok(PeerReply::Linked { key, answer }),
            Err(why) => Err(PageError::Unreachable(why)),
        };
        self.holders.with_key(holder, accept)
    }

    /// Withdraws the key of `holder`; if `only` is given, only that one. When this returns no access by it is
    /// under way.
    pub(super) fn fence(&self, holder: RackId, only: Option<u64>) {
        let (node, transport) = (NodeId::Daemon(holder), &self.context.transport);
        let withdrawn = self.holders.fence(holder, only, || transport.cut(node));
        if let (Some(key), None) = (withdrawn, only) {
            // It did not ask for that, and would find out late.
            let request = PeerRequest::Unlink { home: self.context.rack, key };
            transport.start(node, Request::Peer(request), Box::new(|_| {}));
        }
    }

    fn check_at(&self, at: RemoteAt, len: u64) -> Result<(), PageError> {
        if within_a_frame(self.context.in_place.region().geometry(), at.offset, len) {
            return Ok(());
        }
        Err(PageError::Invalid(format!("{len} bytes at offset {} are not within a frame", at.offset)))
    }

    fn serve_read(&self, at: RemoteAt, len: u32) -> Result<PeerReply, PageError> {
        self.check_at(at, len as u64)?;
        let region = self.context.in_place.region();
        let mut data = Vec::with_capacity(len as usize);
        let read = self.holders.with_right(at, || region.append(at.offset, len as usize, &mut data));
        Ok(match read {
            Some(()) => {
                self.context.counters.bytes_in.add(len as u64);
                PeerReply::Data(data)
            }
            None => PeerReply::Fenced,
        })
    }

    fn serve_write(&self, at: RemoteAt, data: &[u8]) -> Result<PeerReply, PageError> {
        self.check_at(at, data.len() as u64)?;
        let region = self.context.in_place.region();
        Ok(match self.holders.with_right(at, || region.write(at.offset, data)) {
            Some(()) => {
                self.context.counters.bytes_in.add(data.len() as u64);
                PeerReply::Done
            }
            None => PeerReply::Fenced,
        })
    }

    /// Of a page, wherever it lies, as this rack's own clients do it.
    fn serve_read_of_page(&self, at: GAddr, len: u32) -> Result<PeerReply, PageError> {
        self.check(at, &Op::Read(len))?;
        let mut data = vec![0; len as usize];
        match self.context.in_place.read(at, &mut data) {
            Ok(()) => {
                self.context.counters.bytes_in.add(len as u64);
                Ok(PeerReply::Data(data))
            }
            Err(stopped) => not_touched(stopped.why, at),
        }
    }

    /// By the processor of this rack, as its own clients do it.
    fn serve_cas(&self, at: GAddr, old: u64, new: u64) -> Result<PeerReply, PageError> {
        match self.context.in_place.cas(at, old, new) {
            Ok(was) => {
                self.context.counters.bytes_in.add(8);
                Ok(PeerReply::Was(was))
            }
            Err(stopped) => not_touched(stopped.why, at),
        }
    }
}

fn not_touched(why: Why, at: GAddr) -> Result<PeerReply, PageError> {
    match why {
        Why::Absent => Ok(PeerReply::NotHere),
        Why::Moving | Why::NoSlot => Ok(PeerReply::Moving),
        Why::BadAddress => Err(PageError::Invalid(format!("{at:?} is not a word of this pool"))),
    }
}
