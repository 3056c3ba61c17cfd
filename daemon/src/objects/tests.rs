//! Objects over real frames, without a cluster around them: racks in memfds, whose pages are carried from
//! one to the other by hand.

use super::*;
use crate::frames::Departing;
use crate::recover::{Origin, recover};
use pool::addr::{PageRun, RackId};
use pool::cxl::frames::{State as Frame, word_of};
use pool::cxl::region::{Found as FoundRegion, RegionSource, Spec};
use proptest::prelude::*;
use std::collections::HashSet;

const PAGE: u64 = 4096;

/// A rack, without the daemon's other parts.
struct Rack {
    frames: Arc<FrameTable>,
    in_place: InPlace,
    objects: Objects,
}

/// A rack of so many pages, whose ids begin at `block` million.
fn rack_of(block: u64, pages: u64, page_size: PageSize) -> Rack {
    let size = pages * page_size.bytes();
    let spec = Spec { rack: RackId(0), page_size, size, cluster: None, channels: 0 };
    let (region, found) = Region::open(&RegionSource::Memfd, &spec).unwrap();
    let rack = Rack::over(Arc::new(region), found);
    rack.frames.add_ids(block);
    rack
}

fn rack(pages: u64) -> Rack {
    rack_of(0, pages, PageSize::MIN)
}

impl Rack {
    fn over(region: Arc<Region>, found: FoundRegion) -> Self {
        let (state, _) = recover(&region, found, Origin::Cluster);
        let in_place = InPlace::new(Arc::clone(&region));
        let frames = Arc::new(FrameTable::new(region, state));
        let objects = Objects::new(Arc::clone(&frames), in_place.clone());
        Self { frames, in_place, objects }
    }

    /// A new daemon for the same memory.
    fn restarted(self) -> Self {
        let region = Arc::clone(self.frames.region());
        drop(self);
        Self::over(region, FoundRegion::Region)
    }

    /// As the daemon frees.
    fn free(&self, at: GAddr) -> Result<(), FreeFault> {
        for page in self.objects.free(at)? {
            assert_eq!(self.frames.free(&[PageRun { first: page, count: 1 }], &|_| {}), Ok(1));
        }
        Ok(())
    }

    fn alloc(&self, size: u64) -> GAddr {
        self.objects.alloc(size).unwrap()
    }

    fn page(&self, at: GAddr) -> PageId {
        at.page(self.objects.page_size()).unwrap()
    }

    /// Pages that hold something.
    fn used(&self) -> u64 {
        let stat = self.frames.stat();
        stat.total - stat.free
    }

    fn read(&self, at: GAddr, len: u64) -> Vec<u8> {
        let mut bytes = vec![0xEE; len as usize];
        self.in_place.read(at, &mut bytes).unwrap();
        bytes
    }

    fn word(&self, page: PageId, offset: u64) -> u64 {
        let at = GAddr::new(page, offset, self.objects.page_size()).unwrap();
        u64::from_le_bytes(self.read(at, 8).try_into().unwrap())
    }

    fn set_word(&self, page: PageId, offset: u64, value: u64) {
        let at = GAddr::new(page, offset, self.objects.page_size()).unwrap();
        self.in_place.write(at, &value.to_le_bytes()).unwrap();
    }

    fn freeze(&self, page: PageId) -> Departing {
        self.frames.freeze(page).unwrap()
    }

    /// Takes as many objects of `size` as are in one page.
    fn fill(&self, size: u64) -> Vec<GAddr> {
        let count = Class::of(size, self.objects.page_size()).unwrap().count();
        (0..count).map(|_| self.alloc(size)).collect()
    }
}

/// Carries a page to another rack.
fn carry(page: PageId, from: &Rack, to: &Rack) {
    let departing = from.freeze(page);
    let arriving = to.frames.receive(&from.frames.image(&departing)).unwrap();
    to.frames.arrive(arriving);
    to.objects.arrived(page);
    from.frames.depart(departing);
    from.objects.departed(page);
}

fn none(at: GAddr) -> Result<(), FreeFault> {
    Err(FreeFault::Page(PageError::NoSuchObject(at)))
}

/// The sizes that there are.
fn sizes(page: PageSize) -> Vec<u64> {
    let mut sizes: Vec<u64> =
        (1..=page.bytes() / 4).filter_map(|size| Class::of(size, page)).map(Class::size).collect();
    sizes.dedup();
    sizes
}

#[test]
fn objects_of_every_size_are_aligned_within_their_page_and_apart() {
    for shift in [12, 16] {
        let page_size = PageSize::from_shift(shift).unwrap();
        for size in sizes(page_size) {
            let rack = rack_of(0, 4, page_size);
            let mut objects = rack.fill(size);
            objects.push(rack.alloc(size));
            let align = if size < 64 { 8 } else { 64 };
            for at in &objects {
                let offset = at.offset(page_size);
                assert!(offset > 0 && at.raw().is_multiple_of(align), "{size} at {at:?}");
                assert!(offset + size <= page_size.bytes(), "{size} at {at:?}");
            }
            objects.sort_by_key(|at| at.raw());
            assert!(objects.windows(2).all(|pair| pair[0].raw() + size <= pair[1].raw()), "{size}");
            assert_eq!(rack.used(), 2, "{size}");
            objects.into_iter().for_each(|at| assert_eq!(rack.free(at), Ok(())));
            assert_eq!(rack.used(), 1, "{size}: the spare page");
        }
    }
}

#[test]
fn objects_that_are_not_small_are_refused() {
    let rack = rack(4);
    for size in [0, PAGE / 4 + 1, PAGE, u64::MAX] {
        assert!(matches!(rack.objects.alloc(size), Err(PageError::Invalid(_))), "{size}");
    }
    assert_eq!(rack.used(), 0);
}

#[test]
fn a_full_page_is_followed_by_the_next_until_there_is_none() {
    let rack = rack(2);
    let (first, second) = (rack.fill(100), rack.fill(100));
    let pages = |objects: &[GAddr]| objects.iter().map(|at| rack.page(*at)).collect::<HashSet<_>>();
    assert_eq!((pages(&first).len(), pages(&second).len()), (1, 1));
    assert!(pages(&first).is_disjoint(&pages(&second)));
    assert!(matches!(rack.objects.alloc(100), Err(PageError::OutOfMemory { .. })));
    assert_eq!(rack.free(first[3]), Ok(()));
    assert_eq!(rack.objects.alloc(100), Ok(first[3]));
}

#[test]
fn an_object_is_freed_once() {
    let rack = rack(4);
    let (at, other) = (rack.alloc(48), rack.alloc(48));
    assert_eq!(rack.free(at), Ok(()));
    assert_eq!(rack.free(at), none(at));
    assert_eq!(rack.free(other), Ok(()));
    assert_eq!(rack.free(other), none(other));
}

#[test]
fn only_the_address_of_an_object_frees_it() {
    let rack = rack(4);
    let objects: HashSet<GAddr> = [rack.alloc(64), rack.alloc(64)].into();
    let page = rack.page(*objects.iter().next().unwrap());
    for at in (0..PAGE).map(|offset| GAddr::new(page, offset, PageSize::MIN).unwrap()) {
        if !objects.contains(&at) {
            assert_eq!(rack.free(at), none(at));
        }
    }
    objects.into_iter().for_each(|at| assert_eq!(rack.free(at), Ok(())));
}

#[test]
fn in_other_pages_there_are_no_objects() {
    let rack = rack(4);
    let at = rack.alloc(64);
    let plain = rack.frames.alloc(1, 0, PageKind::Plain).unwrap()[0].first;
    let same = |page| GAddr::new(page, at.offset(PageSize::MIN), PageSize::MIN).unwrap();
    assert_eq!(rack.free(same(plain)), none(same(plain)));
    // Not even if it holds a header.
    let image = rack.read(GAddr::new(rack.page(at), 0, PageSize::MIN).unwrap(), PAGE);
    rack.in_place.write(GAddr::new(plain, 0, PageSize::MIN).unwrap(), &image).unwrap();
    rack.set_word(plain, 8, plain.raw());
    assert_eq!(rack.free(same(plain)), none(same(plain)));
    let nowhere = same(PageId::new(1 << 30).unwrap());
    assert_eq!(rack.free(nowhere), Err(FreeFault::Elsewhere));
}

#[test]
fn an_object_is_zero_whatever_was_there() {
    let rack = rack(4);
    let size = 200;
    let objects = rack.fill(size);
    for at in &objects {
        rack.in_place.write(*at, &vec![7; size as usize]).unwrap();
    }
    let (again, keep) = (objects[2], objects[3]);
    assert_eq!(rack.free(again), Ok(()));
    assert_eq!(rack.objects.alloc(size), Ok(again));
    assert_eq!(rack.read(again, size), vec![0; size as usize]);
    assert_eq!(rack.read(keep, size), vec![7; size as usize]);
}

#[test]
fn pages_go_back_when_they_are_empty_but_one() {
    let rack = rack(8);
    let pages: Vec<Vec<GAddr>> = (0..3).map(|_| rack.fill(1000)).collect();
    assert_eq!(rack.used(), 3);
    for (freed, left) in pages.iter().zip([3, 2, 1]) {
        freed.iter().for_each(|at| assert_eq!(rack.free(*at), Ok(())));
        assert_eq!(rack.used(), left);
    }
    // Of any size.
    assert_eq!(rack.page(rack.alloc(8)), rack.page(pages[0][0]));
    assert_eq!(rack.used(), 1);
}

#[test]
fn allocating_and_freeing_one_object_again_and_again_takes_no_new_page() {
    let rack = rack(8);
    let page = rack.page(rack.alloc(8));
    for _ in 0..100 {
        let at = rack.alloc(512);
        assert_eq!(rack.free(at), Ok(()));
        assert_eq!(rack.used(), 2);
    }
    assert_ne!(rack.page(rack.alloc(512)), page);
}

#[test]
fn a_page_that_could_not_be_freed_is_returned_again_and_never_used() {
    let rack = rack(16);
    let pages: Vec<Vec<GAddr>> = (0..3).map(|_| rack.fill(1024)).collect();
    let free_all = |at: usize| -> Vec<PageId> {
        pages[at].iter().flat_map(|at| rack.objects.free(*at).unwrap()).collect()
    };
    let page = rack.page(pages[1][0]);
    assert_eq!((free_all(0), free_all(1)), (vec![], vec![page]));
    rack.objects.not_freed(page);
    assert_eq!(rack.free(pages[1][0]), none(pages[1][0]));
    let used: HashSet<PageId> = (0..20).map(|_| rack.page(rack.alloc(1024))).collect();
    assert!(!used.contains(&page));
    assert!(free_all(2).contains(&page));
}

#[test]
fn objects_are_known_after_a_restart() {
    let rack = rack(8);
    let (full, some) = (rack.fill(300), rack.alloc(300));
    let gone = rack.alloc(300);
    assert_eq!(rack.free(gone), Ok(()));
    rack.in_place.write(some, &[9; 300]).unwrap();
    let rack = rack.restarted();
    assert_eq!(rack.read(some, 300), [9; 300]);
    assert_eq!(rack.free(gone), none(gone));
    assert_eq!(rack.objects.alloc(300), Ok(gone));
    assert_eq!(rack.free(full[1]), Ok(()));
    assert_eq!(rack.objects.alloc(300), Ok(full[1]));
    assert_eq!(rack.used(), 2);
}

#[test]
fn empty_pages_are_found_by_a_restart() {
    let rack = rack(8);
    let pages: Vec<Vec<GAddr>> = (0..3).map(|_| rack.fill(1000)).collect();
    for at in pages[..2].iter().flatten() {
        // Killed before the second page is given back.
        rack.objects.free(*at).unwrap();
    }
    let rack = rack.restarted();
    assert_eq!(rack.used(), 3);
    pages[2].iter().for_each(|at| assert_eq!(rack.free(*at), Ok(())));
    assert_eq!(rack.used(), 1);
}

#[test]
fn objects_go_along_with_their_page() {
    let (here, there) = (rack_of(0, 4, PageSize::MIN), rack_of(1, 4, PageSize::MIN));
    let (at, free) = (here.alloc(500), here.alloc(500));
    let page = here.page(at);
    here.in_place.write(at, &[5; 500]).unwrap();
    assert_eq!(here.free(free), Ok(()));
    carry(page, &here, &there);
    assert_eq!(here.free(at), Err(FreeFault::Elsewhere));
    assert_ne!(here.page(here.alloc(500)), page);
    assert_eq!(there.objects.alloc(500), Ok(free));
    assert_eq!(there.read(at, 500), [5; 500]);
    assert_eq!(there.free(at), Ok(()));
    carry(page, &there, &here);
    assert_eq!(here.free(at), none(at));
    assert_eq!(here.free(free), Ok(()));
}

#[test]
fn a_page_that_is_retired_is_so_in_every_rack() {
    let (here, there) = (rack_of(0, 8, PageSize::MIN), rack_of(1, 8, PageSize::MIN));
    let spare = here.alloc(8);
    let objects = here.fill(1000);
    let page = here.page(objects[0]);
    assert_eq!(here.free(spare), Ok(()));
    let retired: Vec<PageId> = objects.iter().flat_map(|at| here.objects.free(*at).unwrap()).collect();
    assert_eq!(retired, [page]);
    carry(page, &here, &there);
    let other = there.alloc(1000);
    assert_ne!(there.page(other), page);
    assert_eq!(there.free(objects[0]), none(objects[0]));
    assert_eq!(there.used(), 2);
    assert_eq!(there.free(other), Ok(()));
    assert_eq!(there.used(), 1);
}

#[test]
fn a_page_that_is_being_moved_is_passed_over_and_may_come_back() {
    let rack = rack(4);
    let (at, free) = (rack.alloc(800), rack.alloc(800));
    assert_eq!(rack.free(free), Ok(()));
    let departing = rack.freeze(rack.page(at));
    assert_eq!(rack.free(at), Err(FreeFault::Busy(rack.page(at))));
    let other = rack.alloc(800);
    assert_ne!(rack.page(other), rack.page(at));
    rack.frames.thaw(departing);
    assert_eq!(rack.objects.alloc(800), Ok(free));
    assert_eq!(rack.free(at), Ok(()));
}

#[test]
fn a_spare_page_that_is_being_moved_is_not_lost() {
    let rack = rack(4);
    let at = rack.alloc(800);
    assert_eq!(rack.free(at), Ok(()));
    let departing = rack.freeze(rack.page(at));
    let other = rack.alloc(800);
    assert_ne!(rack.page(other), rack.page(at));
    rack.frames.thaw(departing);
    assert_eq!(rack.page(rack.fill(800)[3]), rack.page(at));
    assert_eq!(rack.used(), 2);
}

#[test]
fn pages_that_are_being_moved_at_the_start_are_looked_at_later() {
    let rack = rack(4);
    let (at, free) = (rack.alloc(800), rack.alloc(800));
    assert_eq!(rack.free(free), Ok(()));
    let page = rack.page(at);
    let _ = rack.freeze(page);
    let rack = rack.restarted();
    let (mut departing, _) = rack.frames.limbo();
    assert_eq!(rack.free(at), Err(FreeFault::Busy(page)));
    rack.frames.thaw(departing.remove(0));
    assert_eq!(rack.objects.alloc(800), Ok(free));
}

#[test]
fn a_page_that_is_gone_without_a_word_is_not_used() {
    let rack = rack(4);
    let at = rack.alloc(800);
    let departing = rack.freeze(rack.page(at));
    rack.frames.depart(departing);
    assert_ne!(rack.page(rack.alloc(800)), rack.page(at));
    assert_eq!(rack.free(at), Err(FreeFault::Elsewhere));
}

#[test]
fn a_damaged_header_is_an_error_and_its_page_is_left_alone() {
    for (offset, flip) in [(0, 1), (8, 4), (16, 8), (16, 1 << 32), (24, 1), (32, 1 << 20), (32, 1)] {
        let rack = rack(8);
        let at = rack.alloc(100);
        let page = rack.page(at);
        let right = rack.word(page, offset);
        rack.set_word(page, offset, right ^ flip);
        let image = rack.read(GAddr::new(page, 0, PageSize::MIN).unwrap(), PAGE);
        assert!(matches!(rack.free(at), Err(FreeFault::Page(PageError::Invalid(_)))), "{offset}");
        assert_ne!(rack.page(rack.alloc(100)), page, "{offset}");
        rack.objects.arrived(page);
        let rack = rack.restarted();
        rack.frames.add_ids(1);
        assert!((0..64).all(|_| rack.page(rack.alloc(100)) != page), "{offset}");
        assert_eq!(rack.read(GAddr::new(page, 0, PageSize::MIN).unwrap(), PAGE), image, "{offset}");
        rack.set_word(page, offset, right);
        assert_eq!(rack.free(at), Ok(()), "{offset}");
    }
}

#[test]
fn damage_is_never_a_panic() {
    let rack = rack(8);
    let at = rack.alloc(16);
    let page = rack.page(at);
    for offset in (0..64).step_by(8) {
        let right = rack.word(page, offset);
        for value in (0..64).map(|bit| right ^ 1 << bit).chain([0, u64::MAX]) {
            rack.set_word(page, offset, value);
            assert!(rack.free(GAddr::new(page, 4000, PageSize::MIN).unwrap()).is_err());
            rack.objects.arrived(page);
        }
        rack.set_word(page, offset, right);
    }
    assert_eq!(rack.free(at), Ok(()));
}

#[test]
fn a_page_of_which_the_header_was_being_made_is_found_by_a_restart() {
    let rack = rack(8);
    let page = rack.page(rack.alloc(8));
    rack.set_word(page, 0, u64::from_le_bytes(*b"retired."));
    let rack = rack.restarted();
    rack.frames.add_ids(1);
    assert_ne!(rack.page(rack.alloc(8)), page);
    let at = rack.fill(1000);
    assert_eq!(rack.used(), 3);
    at.into_iter().for_each(|at| assert_eq!(rack.free(at), Ok(())));
    assert_eq!(rack.used(), 2);
}

#[test]
fn threads_never_get_the_same_object() {
    const THREADS: u64 = 4;
    let rack = rack(512);
    std::thread::scope(|scope| {
        for thread in 1..=THREADS {
            let rack = &rack;
            scope.spawn(move || {
                let mut held: Vec<(GAddr, u64)> = Vec::new();
                let mut random = thread;
                for round in 0..4000 {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(thread);
                    let pick = (random >> 33) as usize;
                    if held.len() < 60 && (round < 3000 && pick % 5 < 3 || held.is_empty()) {
                        let size = [8, 24, 64, 200, 1024][pick / 8 % 5];
                        let at = rack.alloc(size);
                        assert_eq!(rack.read(at, size), vec![0; size as usize]);
                        rack.in_place.write(at, &vec![thread as u8; size as usize]).unwrap();
                        held.push((at, size));
                    } else {
                        let (at, size) = held.swap_remove(pick % held.len());
                        assert_eq!(rack.read(at, size), vec![thread as u8; size as usize]);
                        rack.free(at).unwrap();
                    }
                }
                held.into_iter().for_each(|(at, _)| rack.free(at).unwrap());
            });
        }
    });
    assert!(rack.used() <= 1);
}

#[test]
fn objects_are_allocated_and_freed_while_their_pages_move() {
    let racks = [rack_of(0, 64, PageSize::MIN), rack_of(1, 64, PageSize::MIN)];
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut held: Vec<GAddr> = Vec::new();
            for round in 0..64 * 300usize {
                if round % 64 < 32 {
                    let at = racks[round % 2].alloc(700);
                    assert!(!held.contains(&at));
                    held.push(at);
                } else {
                    let at = held.swap_remove(round * 7 % held.len());
                    free_anywhere(&racks, at);
                }
            }
            held
        });
        for round in 0.. {
            if worker.is_finished() {
                break;
            }
            move_some(&racks[round % 2], &racks[(round + 1) % 2]);
        }
        assert!(worker.join().unwrap().is_empty());
    });
    // All that is left are the spare pages, and such as were being moved when they were to be freed.
    let sum: u64 = racks.iter().map(Rack::used).sum();
    let listed = |rack: &Rack| {
        let state = rack.objects.state.lock();
        state.spare.len()
            + state.retired.len()
            + state.unread.len()
            + state.roomy.values().map(BTreeMap::len).sum::<usize>()
    };
    assert_eq!(sum, racks.iter().map(|rack| listed(rack) as u64).sum::<u64>());
}

/// As the daemon does: where the page is now, and again while it is moved.
fn free_anywhere(racks: &[Rack; 2], at: GAddr) {
    for round in 0.. {
        assert!(round < 10_000_000, "not freed");
        let rack = &racks[round % 2];
        match rack.objects.free(at) {
            Ok(empty) => {
                for page in empty {
                    if rack.frames.free(&[PageRun { first: page, count: 1 }], &|_| {}) == Ok(0) {
                        rack.frames.frame_of(page).is_some().then(|| rack.objects.not_freed(page));
                    }
                }
                return;
            }
            Err(FreeFault::Elsewhere | FreeFault::Busy(_)) => std::thread::yield_now(),
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn move_some(from: &Rack, to: &Rack) {
    // A page that is moved before it has a header would be lost.
    let has_header = |page: &PageId| {
        let at = GAddr::new(*page, 8, PageSize::MIN).unwrap();
        let mut id = [0; 8];
        from.in_place.read(at, &mut id).is_ok() && u64::from_le_bytes(id) == page.raw()
    };
    let Some(page) = from.frames.victim(&|_| false).filter(has_header) else { return };
    let Ok(departing) = from.frames.freeze(page) else { return };
    match to.frames.receive(&from.frames.image(&departing)) {
        Ok(arriving) => {
            to.frames.arrive(arriving);
            to.objects.arrived(page);
            from.frames.depart(departing);
            from.objects.departed(page);
        }
        Err(_) => from.frames.thaw(departing),
    }
}

#[test]
fn a_page_that_is_being_freed_is_not_used() {
    let rack = rack(4);
    let at = rack.alloc(800);
    let (frame, _) = rack.frames.frame_of(rack.page(at)).unwrap();
    let word = Frames::new(rack.frames.region()).word(frame).unwrap();
    word.store(word_of(rack.page(at), Frame::Freeing, frame), Ordering::Release);
    assert_eq!(rack.free(at), Err(FreeFault::Busy(rack.page(at))));
    assert_ne!(rack.page(rack.alloc(800)), rack.page(at));
}

#[derive(Clone, Debug)]
enum Action {
    Alloc(u64),
    Free(usize),
    FreeAgain(usize),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        20 => (1..=PAGE / 4).prop_map(Action::Alloc),
        5 => (1..=64u64).prop_map(Action::Alloc),
        20 => any::<usize>().prop_map(Action::Free),
        2 => any::<usize>().prop_map(Action::FreeAgain),
        1 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_rack_gives_and_takes_as_a_list_of_objects_does(actions in prop::collection::vec(action(), 1..200)) {
        let mut rack = rack(16);
        let mut blocks = 1..;
        let (mut held, mut freed): (BTreeMap<GAddr, u64>, BTreeSet<GAddr>) = Default::default();
        for action in actions {
            match action {
                Action::Alloc(size) => {
                    let Ok(at) = rack.objects.alloc(size) else {
                        prop_assert_eq!(rack.frames.stat().free, 0);
                        continue;
                    };
                    let before = held.range(..=at).next_back();
                    prop_assert!(before.is_none_or(|(start, size)| start.raw() + size <= at.raw()));
                    let after = held.range(at..).next();
                    prop_assert!(after.is_none_or(|(next, _)| at.raw() + size <= next.raw()));
                    prop_assert_eq!(rack.read(at, size), vec![0; size as usize]);
                    rack.in_place.write(at, &vec![0xA5; size as usize]).unwrap();
                    freed.remove(&at);
                    held.insert(at, size);
                }
                Action::Free(pick) if !held.is_empty() => {
                    let (&at, &size) = held.iter().nth(pick % held.len()).unwrap();
                    prop_assert_eq!(rack.read(at, size), vec![0xA5; size as usize]);
                    prop_assert_eq!(rack.free(at), Ok(()));
                    held.remove(&at);
                    freed.insert(at);
                }
                Action::FreeAgain(pick) if !freed.is_empty() => {
                    let at = *freed.iter().nth(pick % freed.len()).unwrap();
                    prop_assert!(rack.free(at).is_err());
                }
                Action::Restart => {
                    rack = rack.restarted();
                    rack.frames.add_ids(blocks.next().unwrap());
                }
                Action::Free(_) | Action::FreeAgain(_) => {}
            }
        }
        held.keys().for_each(|at| rack.free(*at).unwrap());
        prop_assert!(rack.used() <= 1);
    }
}
