//! The home's side of a swap.

use super::{FINISH_PATIENCE, Halt, MOST_GUESTS, Step};
use crate::frames::{Arriving, Departing};
use crate::remote::{PeerAnswer, Remote};
use pool::addr::{PageId, RackId};
use pool::proto::cluster::SwapToken;
use pool::proto::peer::{Image, PeerReply, Refusal};
use std::sync::Arc;
use std::time::Instant;

/// A swap that another rack asks for.
pub(super) enum Guest {
    /// Being prepared.
    Preparing {
        /// The requester has given up in the meantime.
        cancelled: bool,
    },
    /// Waits for its end.
    Ready(Prepared),
    /// Its end is being carried out.
    Ending,
}

/// Pages that are held ready.
pub(super) struct Prepared {
    page: Departing,
    victim: Option<Arriving>,
}

impl Prepared {
    fn pages(&self) -> Vec<PageId> {
        let victim = self.victim.as_ref().map(Arriving::page);
        [Some(self.page.page()), victim].into_iter().flatten().collect()
    }
}

/// Why there is nothing to answer, or that.
enum Not {
    Refused(Refusal),
    Halted,
}

impl From<Refusal> for Not {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Halt> for Not {
    fn from(_: Halt) -> Self {
        Self::Halted
    }
}

impl Remote {
    pub(crate) fn serve_prepare(
        self: &Arc<Self>,
        token: SwapToken,
        page: PageId,
        heat: f64,
        victim: Option<Image>,
        lend: bool,
        answer: PeerAnswer,
    ) {
        {
            let mut guests = self.swaps.guests.lock();
            if guests.len() >= MOST_GUESTS || guests.contains_key(&token) {
                drop(guests);
                return answer(Ok(PeerReply::Refused(Refusal::Busy)));
            }
            guests.insert(token, Guest::Preparing { cancelled: false });
        }
        let remote = Arc::clone(self);
        self.context.workers.run(move || match remote.prepare(token, page, heat, victim, lend) {
            Ok(image) => {
                let incarnation = remote.context.incarnation;
                answer(Ok(PeerReply::Ready { image, incarnation }));
            }
            Err(Not::Refused(refusal)) => {
                remote.swaps.guests.lock().remove(&token);
                answer(Ok(PeerReply::Refused(refusal)));
            }
            Err(Not::Halted) => {}
        });
    }

    /// Holds `page` and `victim` ready. On a refusal all is as it was.
    fn prepare(
        self: &Arc<Self>,
        token: SwapToken,
        page: PageId,
        heat: f64,
        victim: Option<Image>,
        lend: bool,
    ) -> Result<Image, Not> {
        let sound = |image: &Image| image.is_sound(self.page_size().bytes()) && image.page != page;
        if !victim.as_ref().is_none_or(sound) || heat.is_nan() {
            return Err(Refusal::BadImage.into());
        }
        let context = &self.context;
        let here = self.holders.heat(&context.frames, page, context.now(), context.half_life);
        if !context.policy.lets_go(here, heat) {
            return Err(Refusal::Hotter.into());
        }
        self.claim(page, victim.as_ref())?;
        let release = |refusal: Refusal| {
            self.disclaim([Some(page), victim.as_ref().map(|image| image.page)]);
            Not::Refused(refusal)
        };
        let departing = context.frames.freeze(page).map_err(release)?;
        self.swaps.at(Step::PageFrozen)?;
        self.revoke(&[page]);
        self.swaps.at(Step::PageRevoked)?;
        let arriving = match victim.as_ref().map(|image| self.take_image(token.rack, image)).transpose() {
            Ok(arriving) => arriving,
            Err(refusal) => {
                context.frames.thaw(departing);
                return Err(release(refusal));
            }
        };
        self.swaps.at(Step::VictimReceived)?;
        let image =
            if lend { context.frames.image_to_fetch(&departing) } else { context.frames.image(&departing) };
        self.hold(token, Prepared { page: departing, victim: arriving })?;
        self.swaps.at(Step::Ready)?;
        Ok(image)
    }

    /// Both pages take part in this swap alone, and the victim is not here in any state.
    fn claim(self: &Arc<Self>, page: PageId, victim: Option<&Image>) -> Result<(), Refusal> {
        if !self.swaps.set_moving(page) {
            return Err(Refusal::Busy);
        }
        let Some(victim) = victim.map(|image| image.page) else { return Ok(()) };
        if !self.swaps.set_moving(victim) {
            self.disclaim([Some(page), None]);
            return Err(Refusal::Busy);
        }
        if self.context.frames.frame_of(victim).is_some() {
            self.disclaim([Some(page), Some(victim)]);
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn disclaim(self: &Arc<Self>, pages: [Option<PageId>; 2]) {
        for page in pages.into_iter().flatten() {
            self.swaps.unset_moving(page);
            self.wake(page);
        }
    }

    /// From here on it is up to the requester, and if that is not heard of, to the master.
    fn hold(self: &Arc<Self>, token: SwapToken, prepared: Prepared) -> Result<(), Not> {
        let mut guests = self.swaps.guests.lock();
        if !matches!(guests.get(&token), Some(Guest::Preparing { cancelled: false })) {
            guests.remove(&token);
            drop(guests);
            let here = self.context.rack;
            self.end_guest(prepared, here, token.rack)?;
            return Err(Refusal::Busy.into());
        }
        guests.insert(token, Guest::Ready(prepared));
        drop(guests);
        let remote = Arc::clone(self);
        self.timer.at(Instant::now() + FINISH_PATIENCE, move || remote.overdue(token));
        Ok(())
    }

    pub(crate) fn serve_finish(self: &Arc<Self>, token: SwapToken, committed: bool, answer: PeerAnswer) {
        let Some(prepared) = self.take_guest(token, true) else {
            // It has been settled by asking the master, or is about to be undone.
            return answer(Ok(PeerReply::Done));
        };
        let remote = Arc::clone(self);
        self.context.workers.run(move || {
            let (here, there) = (remote.context.rack, token.rack);
            let (page, victim) = if committed { (there, here) } else { (here, there) };
            if remote.end_guest(prepared, page, victim).is_ok() {
                remote.swaps.guests.lock().remove(&token);
                answer(Ok(PeerReply::Done));
            }
        });
    }

    /// Takes what is held ready for a swap, to end it. `cancel`: if it is still being prepared, that is in
    /// vain.
    fn take_guest(&self, token: SwapToken, cancel: bool) -> Option<Prepared> {
        let mut guests = self.swaps.guests.lock();
        let guest = guests.get_mut(&token)?;
        match std::mem::replace(guest, Guest::Ending) {
            Guest::Ready(prepared) => Some(prepared),
            Guest::Preparing { cancelled } => {
                *guest = Guest::Preparing { cancelled: cancelled || cancel };
                None
            }
            Guest::Ending => None,
        }
    }

    /// The requester has not said how the swap ended: asks the master.
    fn overdue(self: &Arc<Self>, token: SwapToken) {
        let Some(prepared) = self.take_guest(token, false) else { return };
        let remote = Arc::clone(self);
        self.context.workers.run(move || {
            let pages = prepared.pages();
            let Ok(found) = remote.resolve(token, &pages) else { return };
            let home_of = |i: usize, before| found.get(i).copied().flatten().unwrap_or(before);
            let (page, victim) = (home_of(0, remote.context.rack), home_of(1, token.rack));
            if remote.end_guest(prepared, page, victim).is_ok() {
                remote.swaps.guests.lock().remove(&token);
            }
        });
    }

    /// Does with the copies here what the outcome is: where the pages are.
    fn end_guest(self: &Arc<Self>, prepared: Prepared, page: RackId, victim: RackId) -> Result<(), Halt> {
        self.swaps.at(Step::Finishing)?;
        let here = self.context.rack;
        let pages = prepared.pages();
        if page == here {
            self.context.frames.thaw(prepared.page);
        } else {
            self.depart(prepared.page, page);
        }
        self.swaps.at(Step::PageGone)?;
        match prepared.victim {
            Some(arriving) if victim == here => self.arrive(arriving),
            Some(arriving) => self.context.frames.abandon(arriving),
            None => {}
        }
        self.swaps.at(Step::VictimArrived)?;
        for page in pages {
            self.swaps.unset_moving(page);
            self.wake(page);
        }
        Ok(())
    }

    /// The other daemon is gone: swaps that wait for it are settled now.
    pub(crate) fn settle_swaps_of(self: &Arc<Self>, rack: RackId) {
        let tokens: Vec<SwapToken> =
            self.swaps.guests.lock().keys().filter(|token| token.rack == rack).copied().collect();
        tokens.into_iter().for_each(|token| self.overdue(token));
    }
}
