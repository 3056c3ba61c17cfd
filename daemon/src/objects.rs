//! Small objects of one rack: up to a quarter of a page, several in a page.
//!
//! A page of kind [`PageKind::Objects`] holds objects of one size and says itself, in its
//! [header](header::Header), which are used. That is the only truth, and so an object is freed where its page
//! is, in any rack, and after a restart of the daemon. What is kept here is found again from it:
//!
//! - the pages that have room, by the size of their objects (one that is not listed is full, or has not
//!   been looked at yet: it is listed when an object in it is freed);
//! - *spare* pages, which have no objects and are for objects of any size: one that is emptied is kept if there
//!   is no other, so that who allocates and frees one object again and again does not allocate and free pages;
//! - pages that are *retired*: they had no objects left, will never have any again, and are for the caller
//!   of [`Objects::free`] to give back, since that waits.
//!
//! # Invariants
//!
//! - A header is read and written by the daemon of the rack where its page is, under the lock, and while the
//!   page is published as a client publishes what it touches: it neither moves nor is freed in between. A
//!   page that is being moved is passed over by allocations, and [`FreeFault::Busy`] for a free.
//! - An object is given out after the store that marks it as used. Who is killed in between, and a client
//!   that does not hear the answer, lose that object to the pool; none is given out twice. A new page whose
//!   daemon is killed, or which is moved away, before its header is begun is lost as well.
//! - A page is freed only if it is retired, which no page comes back from.
//! - A page with a damaged header is reported and left alone: nothing is allocated in it, and what can be
//!   told to be an object by the undamaged part can be freed.
//!
//! # Locks
//!
//! The lock is taken before that of the frames ([`FrameTable::alloc`]) and after those that are held where
//! pages come and go; no client is waited for, and no message sent, under it.

mod class;
mod header;
#[cfg(test)]
mod tests;

use crate::frames::FrameTable;
use class::Class;
use header::{Damaged, Fault, Found, Header};
use parking_lot::Mutex;
use pool::addr::{FrameNo, GAddr, PageId, PageSize};
use pool::cxl::frames::{Content, Frames, kind_in};
use pool::cxl::layout::AT_FRAMES_USED;
use pool::cxl::protocol::SharedWord;
use pool::cxl::region::Region;
use pool::in_place::{InPlace, Stretch, Why};
use pool::proto::page::{PageError, PageKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// New pages that one allocation tries: each may be on its way to another rack at once.
const ATTEMPTS: usize = 4;

/// Why an object was not freed here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FreeFault {
    /// Its page is not in this rack.
    Elsewhere,
    /// Its page is being moved or freed.
    Busy(PageId),
    /// There is no such object, or its page is damaged.
    Page(PageError),
}

/// Pages with room, and the first word of their map that may have some.
type Roomy = BTreeMap<PageId, u64>;

/// What can be found again from the headers.
#[derive(Default)]
struct State {
    /// By the size of the objects. Those with the lowest ids are filled first, so that others empty.
    roomy: BTreeMap<u64, Roomy>,
    /// Pages without objects; some may be new, without a header. More than one only if they were being moved
    /// when they were wanted.
    spare: BTreeSet<PageId>,
    /// Pages that could not be looked at yet, since they were being moved.
    unread: BTreeSet<PageId>,
    retired: BTreeSet<PageId>,
}

impl State {
    /// The page is listed nowhere from now on.
    fn forget(&mut self, page: PageId) {
        for pages in self.roomy.values_mut() {
            pages.remove(&page);
        }
        self.unread.remove(&page);
        self.retired.remove(&page);
        self.spare.remove(&page);
    }

    /// The page, which is listed nowhere, has become empty.
    fn emptied(&mut self, page: PageId, retired: bool) {
        let pages = if retired { &mut self.retired } else { &mut self.spare };
        pages.insert(page);
    }

    /// The page has room in word `index` of its map.
    fn has_room(&mut self, page: PageId, class: Class, index: u64) {
        self.unread.remove(&page);
        let pages = self.roomy.entry(class.size()).or_default();
        // Of one that was not listed, it is not known where else there is some.
        pages.entry(page).and_modify(|from| *from = index.min(*from)).or_insert(0);
    }
}

/// The small objects of a rack.
pub(crate) struct Objects {
    frames: Arc<FrameTable>,
    in_place: InPlace,
    /// See the module about what it is taken before and after.
    state: Mutex<State>,
}

impl Objects {
    /// The objects in the pages that `frames` has.
    pub fn new(frames: Arc<FrameTable>, in_place: InPlace) -> Self {
        let objects = Self { frames, in_place, state: Mutex::default() };
        for page in pages_of_objects(objects.frames.region()) {
            objects.arrived(page);
        }
        objects
    }

    /// Gives out an object of `size` bytes, all zero; aligned to 8 or, from 64 bytes on, to 64.
    pub fn alloc(&self, size: u64) -> Result<GAddr, PageError> {
        let class = Class::of(size, self.page_size())
            .ok_or_else(|| PageError::Invalid(format!("no small object has {size} bytes")))?;
        let state = &mut *self.state.lock();
        if let Some(at) = self.in_listed(state, class)? {
            return Ok(at);
        }
        if !state.unread.is_empty() {
            std::mem::take(&mut state.unread).into_iter().for_each(|page| self.adopt(state, page));
            if let Some(at) = self.in_listed(state, class)? {
                return Ok(at);
            }
        }
        match self.in_spare(state, class)? {
            Some(at) => Ok(at),
            None => self.in_new(state, class),
        }
    }

    /// Takes the object at `at` back. Returns pages to be freed, of which this daemon knows that there are no
    /// objects in them and never will be again; if that fails, [`not_freed`](Self::not_freed) is to be told.
    pub fn free(&self, at: GAddr) -> Result<Vec<PageId>, FreeFault> {
        let none = || FreeFault::Page(PageError::NoSuchObject(at));
        let (page, offset) = (at.page(self.page_size()).ok_or_else(none)?, at.offset(self.page_size()));
        let state = &mut *self.state.lock();
        let keep = state.spare.is_empty();
        let freed = self.at_page(page, |there| match find(there, page) {
            Found::Header(header) => give(&header, offset, keep),
            Found::Retired | Found::Nothing => Err(Fault::NoSuchObject),
            Found::Damaged => Err(Fault::Damaged),
        });
        match freed {
            Ok(Ok(Freed { class, index, empty: false })) => {
                state.has_room(page, class, index);
                Ok(Vec::new())
            }
            Ok(Ok(Freed { .. })) => {
                state.forget(page);
                state.emptied(page, !keep);
                Ok(std::mem::take(&mut state.retired).into_iter().collect())
            }
            Ok(Err(Fault::NoSuchObject)) | Err(Why::BadAddress) => Err(none()),
            Ok(Err(Fault::Damaged)) => Err(FreeFault::Page(damaged(page))),
            Err(Why::Moving) => Err(FreeFault::Busy(page)),
            Err(Why::Absent) => Err(FreeFault::Elsewhere),
            Err(Why::NoSlot) => Err(FreeFault::Page(no_slot())),
        }
    }

    /// A page that [`free`](Self::free) returned could not be freed; it will be returned again.
    pub fn not_freed(&self, page: PageId) {
        self.state.lock().retired.insert(page);
    }

    /// A page of objects has come.
    pub fn arrived(&self, page: PageId) {
        self.adopt(&mut self.state.lock(), page);
    }

    /// A page of objects has gone.
    pub fn departed(&self, page: PageId) {
        self.state.lock().forget(page);
    }

    /// Looks at a page, and lists it.
    fn adopt(&self, state: &mut State, page: PageId) {
        state.forget(page);
        let keep = state.spare.is_empty();
        let found = self.at_page(page, |there| match find(there, page) {
            Found::Header(header) => {
                let survey = header.survey()?;
                if survey.empty && !keep {
                    header.retire();
                }
                Ok(Some((header.class(), survey)))
            }
            Found::Retired => Ok(None),
            Found::Nothing | Found::Damaged => Err(Damaged),
        });
        match found {
            Ok(Ok(None)) => state.emptied(page, true),
            Ok(Ok(Some((_, survey)))) if survey.empty => state.emptied(page, !keep),
            Ok(Ok(Some((class, survey)))) if survey.room => state.has_room(page, class, 0),
            Ok(Ok(Some(_))) => {}
            Ok(Err(Damaged)) => report(page),
            Err(Why::Moving | Why::NoSlot) => {
                state.unread.insert(page);
            }
            Err(Why::Absent | Why::BadAddress) => {}
        }
    }

    /// An object in a page that has some already.
    fn in_listed(&self, state: &mut State, class: Class) -> Result<Option<GAddr>, PageError> {
        let Some(pages) = state.roomy.get_mut(&class.size()) else { return Ok(None) };
        let mut after = PageId::FIRST;
        while let Some((&page, from)) = pages.range_mut(after..).next() {
            match self.take(page, class, from) {
                Ok(Some(at)) => return Ok(Some(at)),
                // It may come back to where it was.
                Err(Why::Moving) => {}
                Err(Why::NoSlot) => return Err(no_slot()),
                Ok(None) | Err(Why::Absent | Why::BadAddress) => {
                    pages.remove(&page);
                }
            }
            let Some(next) = page.checked_add(1) else { break };
            after = next;
        }
        Ok(None)
    }

    /// Takes an object in `page`; `None` if it has none of that class.
    fn take(&self, page: PageId, class: Class, from: &mut u64) -> Result<Option<GAddr>, Why> {
        let taken = self.at_page(page, |there| match find(there, page) {
            Found::Header(header) if header.class() == class => header.take(from),
            Found::Header(_) | Found::Retired | Found::Nothing => Ok(None),
            Found::Damaged => Err(Damaged),
        })?;
        let offset = taken.unwrap_or_else(|Damaged| {
            report(page);
            None
        });
        Ok(offset.and_then(|offset| GAddr::new(page, offset, self.page_size())))
    }

    /// An object in a page that has none.
    fn in_spare(&self, state: &mut State, class: Class) -> Result<Option<GAddr>, PageError> {
        let spare: Vec<PageId> = state.spare.iter().copied().collect();
        for page in spare {
            match self.at_page(page, |there| cut(there, page, class)) {
                Ok(Ok(())) => {
                    state.spare.remove(&page);
                    state.has_room(page, class, 0);
                    if let Some(at) = self.in_listed(state, class)? {
                        return Ok(Some(at));
                    }
                }
                Err(Why::Moving) => {}
                Err(Why::NoSlot) => return Err(no_slot()),
                Ok(Err(Damaged)) => {
                    report(page);
                    state.spare.remove(&page);
                }
                Err(Why::Absent | Why::BadAddress) => {
                    state.spare.remove(&page);
                }
            }
        }
        Ok(None)
    }

    /// An object in a new page.
    fn in_new(&self, state: &mut State, class: Class) -> Result<GAddr, PageError> {
        let mut last = PageId::FIRST;
        for _ in 0..ATTEMPTS {
            for run in self.frames.alloc(1, 0, PageKind::Objects)? {
                state.spare.extend(run.iter());
                last = run.first;
            }
            if let Some(at) = self.in_spare(state, class)? {
                return Ok(at);
            }
        }
        Err(PageError::Busy(last))
    }

    /// Calls `act` with where `page` is in the region, while it is kept there.
    fn at_page<T>(&self, page: PageId, act: impl FnOnce(&Stretch<'_>) -> T) -> Result<T, Why> {
        let size = self.page_size();
        let start = GAddr::new(page, 0, size).ok_or(Why::BadAddress)?;
        let (mut act, mut result) = (Some(act), None);
        let touched = self.in_place.stretches(start, 0..size.bytes(), &mut |stretch| {
            result = act.take().map(|act| act(stretch));
        });
        touched.map_err(|stopped| stopped.why)?;
        result.ok_or(Why::Absent)
    }

    fn page_size(&self) -> PageSize {
        self.in_place.region().geometry().page_size
    }
}

/// An object was given back.
struct Freed {
    class: Class,
    /// The word of the map that has room now.
    index: u64,
    /// The page has no objects left.
    empty: bool,
}

/// Gives an object back; if it was the last one and its page is not to be kept, the page is retired.
fn give(header: &Header<'_>, offset: u64, keep: bool) -> Result<Freed, Fault> {
    let index = header.give(offset)?;
    let empty = header.is_empty(index);
    if empty && !keep {
        header.retire();
    }
    Ok(Freed { class: header.class(), index, empty })
}

/// Cuts a page without objects into those of `class`.
fn cut(there: &Stretch<'_>, page: PageId, class: Class) -> Result<(), Damaged> {
    match Header::find(there.region, there.offset, page) {
        Found::Header(header) if !header.survey()?.empty => Err(Damaged),
        Found::Header(header) if header.class() == class => Ok(()),
        Found::Header(_) | Found::Nothing => {
            Header::make(there.region, there.offset, page, class);
            Ok(())
        }
        Found::Retired | Found::Damaged => Err(Damaged),
    }
}

/// Looks at the header of `page`, which should have one if it is a page of objects.
fn find<'r>(there: &Stretch<'r>, page: PageId) -> Found<'r> {
    if !there.frames().all(|frame| is_of_objects(there.region, frame)) {
        return Found::Nothing;
    }
    match Header::find(there.region, there.offset, page) {
        Found::Nothing => Found::Damaged,
        found => found,
    }
}

fn is_of_objects(region: &Region, frame: FrameNo) -> bool {
    let hints = Frames::new(region).hints(frame);
    hints.is_some_and(|hints| kind_in(hints.load(Ordering::Relaxed)) == PageKind::Objects)
}

/// The pages of objects that are in a region.
fn pages_of_objects(region: &Region) -> impl Iterator<Item = PageId> {
    let used = region.word(AT_FRAMES_USED).load(Ordering::Acquire).min(region.geometry().frames as u64);
    (0..used).map(|frame| FrameNo(frame as u32)).filter(|frame| is_of_objects(region, *frame)).filter_map(
        |frame| match Frames::new(region).content(frame) {
            Content::Page(page, _) => Some(page),
            Content::Free | Content::Bad(_) => None,
        },
    )
}

fn report(page: PageId) {
    log::error!("{}; it is left alone", damaged(page));
}

fn damaged(page: PageId) -> PageError {
    PageError::Invalid(format!("what page {page} says about the objects in it is damaged"))
}

fn no_slot() -> PageError {
    PageError::Os("all access slots of the rack are in use".into())
}
