//! The requester's side of a swap.

use super::{Halt, Step};
use crate::frames::{Arriving, Departing};
use crate::remote::Remote;
use pool::addr::{PageId, RackId};
use pool::proto::cluster::{ClusterReply, ClusterRequest, Move, SwapToken};
use pool::proto::peer::{Image, PeerReply, PeerRequest, Refusal};
use pool::proto::{NodeId, Reply, Request};
use std::sync::Arc;
use std::time::Instant;

/// A swap that this rack asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    token: SwapToken,
    page: PageId,
    home: RackId,
    heat: f64,
}

/// Where the pages are, when that can change no more.
#[derive(Clone, Copy, Debug)]
struct Homes {
    page: RackId,
    victim: RackId,
}

/// How far a swap has come.
enum State {
    /// Nothing has been done.
    Begun,
    /// The page of ours that goes in return, if any, is frozen, and this is what it holds.
    Offering(Option<(Departing, Image)>),
    /// The home is ready: the page's image, and the incarnation of the home.
    Prepared(Option<Departing>, Image, u64),
    /// The page is here, but not to be used.
    Received(Option<Departing>, Arriving, u64),
    /// It is known whether the pages have moved.
    Decided(Option<Departing>, Arriving, Homes),
    /// Nothing was committed, nor will be.
    Undone(Option<Departing>, Refusal),
    /// All is done here.
    Over(bool),
}

impl Remote {
    /// Swaps of ours with lower numbers are over.
    pub fn oldest_swap(&self) -> u64 {
        self.swaps.oldest()
    }

    /// Begins to move `page` here from `home`, unless it, or too much, is being moved already. Under a lock.
    pub(crate) fn begin_swap(&self, page: PageId, home: RackId, heat: f64) -> Option<Swap> {
        let number = self.swaps.begin()?;
        if !self.swaps.set_moving(page) {
            self.swaps.end(number);
            return None;
        }
        let (rack, incarnation) = (self.context.rack, self.context.incarnation);
        let token = SwapToken { rack, incarnation, term: self.context.cluster.read().term, number };
        Some(Swap { token, page, home, heat })
    }

    /// Carries it out. Waits; for a worker thread.
    pub(crate) fn run_swap(self: &Arc<Self>, swap: Swap) {
        let mut state = State::Begun;
        let moved = loop {
            state = match self.advance(&swap, state) {
                Ok(State::Over(moved)) => break moved,
                Ok(state) => state,
                // All stays as it is: for the next daemon of this rack to settle.
                Err(Halt) => return,
            };
        };
        self.swaps.end(swap.token.number);
        self.swaps.unset_moving(swap.page);
        self.swap_over(swap.page, !moved);
    }

    fn advance(self: &Arc<Self>, swap: &Swap, state: State) -> Result<State, Halt> {
        match state {
            State::Begun => self.offer(swap.home),
            State::Offering(offer) => self.prepare_at_home(swap, offer),
            State::Prepared(offer, image, home) => self.take_in(swap, offer, &image, home),
            State::Received(offer, arriving, home) => self.decide(swap, offer, arriving, home),
            State::Decided(offer, arriving, homes) => self.carry_out(swap, offer, arriving, homes),
            State::Undone(offer, refusal) => Ok(self.undo(swap, offer, refusal)),
            State::Over(moved) => Ok(State::Over(moved)),
        }
    }

    /// Freezes a page that goes in return, if there is no room without.
    fn offer(self: &Arc<Self>, home: RackId) -> Result<State, Halt> {
        if self.context.frames.has_room() {
            return Ok(State::Offering(None));
        }
        let unfit = |page: PageId| self.swaps.is_moving(page) || self.swaps.has_come(page);
        // The first search may have found all pages in use, and the second begins with a clean slate.
        let search = || self.context.frames.victim(&unfit);
        let Some(victim) = search().or_else(search) else {
            return Ok(State::Undone(None, Refusal::Full));
        };
        if !self.swaps.set_moving(victim) {
            return Ok(State::Undone(None, Refusal::Busy));
        }
        let departing = match self.context.frames.freeze(victim) {
            Ok(departing) => departing,
            Err(refusal) => {
                self.swaps.unset_moving(victim);
                self.wake(victim);
                return Ok(State::Undone(None, refusal));
            }
        };
        self.swaps.at(Step::VictimFrozen)?;
        self.revoke(&[victim]);
        self.swaps.at(Step::VictimRevoked)?;
        let image = self.image_for(home, &departing);
        Ok(State::Offering(Some((departing, image))))
    }

    fn prepare_at_home(&self, swap: &Swap, offer: Option<(Departing, Image)>) -> Result<State, Halt> {
        let (offer, victim) = offer.unzip();
        let Swap { token, page, home, heat } = *swap;
        let lend = self.context.transport.can_fetch(NodeId::Daemon(home));
        let request = PeerRequest::Prepare { token, page, heat, victim, lend };
        let reply = self.context.transport.call(NodeId::Daemon(home), Request::Peer(request));
        match reply {
            Ok(Reply::Peer(Ok(PeerReply::Ready { image, incarnation }))) => {
                self.swaps.at(Step::Prepared)?;
                Ok(State::Prepared(offer, image, incarnation))
            }
            Ok(Reply::Peer(Ok(PeerReply::Refused(refusal)))) => Ok(State::Undone(offer, refusal)),
            // Only we could commit it, and will not: the home may come to know that as late as it likes.
            _ => Ok(State::Undone(offer, Refusal::Busy)),
        }
    }

    fn take_in(
        &self,
        swap: &Swap,
        offer: Option<Departing>,
        image: &Image,
        home: u64,
    ) -> Result<State, Halt> {
        let received = if image.page == swap.page && image.is_sound(self.page_size().bytes()) {
            self.take_image(swap.home, image)
        } else {
            Err(Refusal::BadImage)
        };
        match received {
            Ok(arriving) => {
                self.swaps.at(Step::Received)?;
                Ok(State::Received(offer, arriving, home))
            }
            Err(refusal) => Ok(State::Undone(offer, refusal)),
        }
    }

    /// Asks the master to commit, and if it does not say that it has, what came of it.
    fn decide(
        &self,
        swap: &Swap,
        offer: Option<Departing>,
        arriving: Arriving,
        home: u64,
    ) -> Result<State, Halt> {
        let (here, there) = (self.context.rack, swap.home);
        let victim = offer.as_ref().map(Departing::page);
        let mut moves = vec![Move { page: swap.page, from: there, to: here }];
        moves.extend(victim.map(|page| Move { page, from: here, to: there }));
        let request = ClusterRequest::Commit { token: swap.token, home, moves };
        let reply = self.context.transport.call(NodeId::Master, Request::Cluster(request));
        let halted = self.swaps.at(Step::Committed);
        let homes = if matches!(reply, Ok(Reply::Cluster(Ok(ClusterReply::Done)))) {
            Homes { page: here, victim: there }
        } else {
            halted?;
            let pages: Vec<PageId> = [Some(swap.page), victim].into_iter().flatten().collect();
            let found = self.resolve(swap.token, &pages)?;
            let home_of = |i: usize, before| found.get(i).copied().flatten().unwrap_or(before);
            Homes { page: home_of(0, there), victim: home_of(1, here) }
        };
        halted?;
        Ok(State::Decided(offer, arriving, homes))
    }

    /// Does with the copies here what the master says, and tells the home.
    fn carry_out(
        self: &Arc<Self>,
        swap: &Swap,
        offer: Option<Departing>,
        arriving: Arriving,
        homes: Homes,
    ) -> Result<State, Halt> {
        let here = self.context.rack;
        let moved = homes.page == here;
        if moved {
            self.arrive(arriving);
        } else {
            self.context.frames.abandon(arriving);
        }
        self.swaps.at(Step::Arrived)?;
        if let Some(offer) = offer {
            let page = offer.page();
            if homes.victim == here {
                self.context.frames.thaw(offer);
            } else {
                self.depart(offer, homes.victim);
            }
            self.swaps.unset_moving(page);
            self.wake(page);
        }
        self.swaps.at(Step::VictimGone)?;
        self.tell_home(swap, moved);
        self.swaps.at(Step::Finished)?;
        Ok(State::Over(moved))
    }

    fn undo(self: &Arc<Self>, swap: &Swap, offer: Option<Departing>, refusal: Refusal) -> State {
        log::debug!("page {} stays in rack {}: {refusal:?}", swap.page, swap.home);
        self.context.counters.swaps_refused.add(1);
        if let Some(offer) = offer {
            let page = offer.page();
            self.context.frames.thaw(offer);
            self.swaps.unset_moving(page);
            self.wake(page);
        }
        self.tell_home(swap, false);
        State::Over(false)
    }

    /// The home need not be reached: it asks the master if it hears nothing.
    fn tell_home(&self, swap: &Swap, committed: bool) {
        let request = Request::Peer(PeerRequest::Finish { token: swap.token, committed });
        self.context.transport.start(NodeId::Daemon(swap.home), request, Box::new(|_| {}));
    }

    /// What a page of ours that is to go to `rack` holds, or where that can be fetched.
    fn image_for(&self, rack: RackId, departing: &Departing) -> Image {
        if self.context.transport.can_lend(NodeId::Daemon(rack)) {
            self.context.frames.image_to_fetch(departing)
        } else {
            self.context.frames.image(departing)
        }
    }

    /// Puts a page that `rack` sends into a frame.
    pub(super) fn take_image(&self, rack: RackId, image: &Image) -> Result<Arriving, Refusal> {
        let (from, size) = (NodeId::Daemon(rack), self.page_size().bytes());
        let fetch = |at, into| match self.context.transport.fetch(from, at, into, size) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("page {} was not fetched: {error}", image.page);
                false
            }
        };
        self.context.frames.receive_by(image, fetch)
    }

    /// A page that was on its way is here.
    pub(super) fn arrive(&self, arriving: Arriving) {
        let (page, kind) = (arriving.page(), arriving.kind());
        self.swaps.came.lock().note(page, Instant::now());
        self.context.frames.arrive(arriving);
        self.context.counters.swaps_in.add(1);
        if let Some(hooks) = &*self.hooks.read() {
            (hooks.arrived)(page, kind);
        }
    }

    /// A page of ours is in the rack `to` now. Who asks for it is told that it is being moved for a while,
    /// from before it is gone.
    pub(super) fn depart(&self, departing: Departing, to: RackId) {
        let (page, kind) = (departing.page(), departing.kind());
        self.swaps.left.lock().note(page, Instant::now());
        self.context.frames.depart(departing);
        self.context.counters.swaps_out.add(1);
        self.set_home(page, to);
        if let Some(hooks) = &*self.hooks.read() {
            (hooks.departed)(page, kind);
        }
    }
}
