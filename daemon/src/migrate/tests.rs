//! Swaps over several racks: that they happen, that they are refused, and that one that is interrupted
//! anywhere leaves one copy of each page.

use super::Step;
use crate::remote::testing::{Fate, LONG, Node, Plan, Racks, at, image_of, until};
use pool::addr::{PageId, RackId};
use pool::cxl::frames::{Frames, State, TOUCHES_SHIFT};
use pool::cxl::protocol::SharedWord;
use pool::proto::cluster::ClusterRequest;
use pool::proto::page::{PageReply, PageRequest};
use pool::proto::peer::PeerRequest;
use pool::proto::{NodeId, Request};
use pool::swap::Watermark;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const REQUESTER: [Step; 8] = [
    Step::VictimFrozen,
    Step::VictimRevoked,
    Step::Prepared,
    Step::Received,
    Step::Committed,
    Step::Arrived,
    Step::VictimGone,
    Step::Finished,
];
const HOME: [Step; 7] = [
    Step::PageFrozen,
    Step::PageRevoked,
    Step::VictimReceived,
    Step::Ready,
    Step::Finishing,
    Step::PageGone,
    Step::VictimArrived,
];

fn peer(request: &Request) -> Option<&PeerRequest> {
    if let Request::Peer(request) = request { Some(request) } else { None }
}

fn is_prepare(request: &Request) -> bool {
    matches!(peer(request), Some(PeerRequest::Prepare { .. }))
}

fn is_commit(request: &Request) -> bool {
    matches!(request, Request::Cluster(ClusterRequest::Commit { .. }))
}

/// Two racks, of which both are full but for the reserve, or rack 0 is not.
fn two_racks(full: bool) -> (Racks, Vec<PageId>, Vec<PageId>) {
    let plan = Plan { frames: 16, reserve: 2, ..Plan::swapping(2.5) };
    let racks = Racks::new(2, plan);
    let ours = racks.node(0).alloc(if full { 14 } else { 5 });
    let theirs = racks.node(1).alloc(14);
    (racks, ours, theirs)
}

/// Reads `page` in rack 0 until a swap for it has begun. A daemon may die of it.
fn heat_up(racks: &Racks, page: PageId) {
    let start = Instant::now();
    while racks.nodes.iter().flatten().all(|node| node.crash.steps.lock().is_empty()) {
        assert!(start.elapsed() < LONG, "page {page} is not asked for");
        heat(racks, page);
    }
}

/// Heats `page` unless that has done what it was for: a swap may be refused, if this thread was kept from
/// going on with it.
fn heated_until(racks: &Racks, page: PageId, done: bool) -> bool {
    if !done && !racks.net.is_dead(NodeId::Daemon(RackId(0))) {
        heat(racks, page);
    }
    done
}

/// Reads `page` in rack 0 some times, close together.
fn heat(racks: &Racks, page: PageId) {
    for _ in 0..4 {
        let request = PageRequest::Read { at: at(page, 0), len: 8 };
        racks.node(0).remote.serve_page(request, Box::new(|_| {}));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn await_page(node: &Node, page: PageId) {
    let start = Instant::now();
    while !node.holds(page) {
        assert!(start.elapsed() < LONG, "page {page} does not come");
        node.read(page, 0, 8).unwrap();
    }
}

/// Each page has one copy, which can be used, in the rack that the master says, and holds what it should.
fn check_all(racks: &Racks, pages: &[PageId]) {
    for page in pages {
        let home = racks.net.home_of(*page).unwrap();
        for node in racks.nodes.iter().flatten() {
            let copies = node.copies(*page);
            let wanted: &[State] = if node.rack == home { &[State::Stable] } else { &[] };
            assert_eq!(copies, wanted, "page {page} of rack {home} in rack {}", node.rack);
        }
    }
    for node in racks.nodes.iter().flatten() {
        for page in pages {
            assert_eq!(node.read(*page, 0, 4096), Ok(image_of(*page)));
        }
    }
}

fn is_settled(racks: &Racks, pages: &[PageId]) -> bool {
    pages.iter().all(|page| {
        let copies: Vec<State> = racks.nodes.iter().flatten().flat_map(|node| node.copies(*page)).collect();
        copies == [State::Stable]
    })
}

fn settle_and_check(racks: &Racks, pages: &[PageId]) {
    until("all pages are at rest", || is_settled(racks, pages));
    check_all(racks, pages);
}

#[test]
fn a_one_way_migration_into_a_free_frame_keeps_the_page() {
    let (racks, ours, theirs) = two_racks(false);
    let (a, b) = (racks.node(0), racks.node(1));
    await_page(a, theirs[3]);
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
    assert_eq!(racks.net.home_of(theirs[3]), Some(RackId(0)));
    assert_eq!((a.context.counters.swaps_in.get(), a.context.counters.swaps_out.get()), (1, 0));
    assert_eq!((b.context.counters.swaps_in.get(), b.context.counters.swaps_out.get()), (0, 1));
    // It is as good as any: written where it is now, and taken back.
    a.write_word(theirs[3], 8, 1).unwrap();
    await_page(b, theirs[3]);
    assert_eq!(b.read_word(theirs[3], 8), Ok(1));
    assert_eq!(racks.net.home_of(theirs[3]), Some(RackId(1)));
}

#[test]
fn a_victim_is_a_page_of_ours() {
    let (racks, ours, theirs) = two_racks(true);
    let (a, b) = (racks.node(0), racks.node(1));
    await_page(a, theirs[0]);
    until("the other rack has its page", || ours.iter().any(|page| b.holds(*page)));
    let gone: Vec<PageId> = ours.iter().copied().filter(|page| !a.holds(*page)).collect();
    assert_eq!(gone.len(), 1);
    assert_eq!(racks.net.home_of(gone[0]), Some(RackId(1)));
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
    for _ in 0..3 {
        for page in &theirs {
            await_page(a, *page);
            std::thread::sleep(super::RESIDENCE / 4);
        }
    }
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
}

#[test]
fn a_page_that_is_used_more_at_home_stays_and_the_refusal_cools() {
    let cooling = Duration::from_millis(100);
    let policy = Arc::new(Watermark { watermark: 2.5, cooling });
    let racks = Racks::new(2, Plan { policy, ..Plan::default() });
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    a.read(page, 0, 8).unwrap();
    let (frame, _) = b.context.frames.frame_of(page).unwrap();
    let hints = Frames::new(b.context.in_place.region()).hints(frame).unwrap();
    hints.store(hints.load(Ordering::Relaxed) + (1_000_000_000 << TOUCHES_SHIFT), Ordering::Relaxed);
    let start = Instant::now();
    let refused = || a.context.counters.swaps_refused.get();
    until("it is refused", || {
        a.read(page, 0, 8).unwrap();
        refused() == 1
    });
    while start.elapsed() < cooling / 2 {
        a.read(page, 0, 8).unwrap();
    }
    let asked = racks.net.count(|_, _, request| is_prepare(request));
    if start.elapsed() < cooling {
        assert_eq!(asked, 1, "it was asked for again at once");
    }
    assert!(b.holds(page));
    until("it is asked for again", || {
        a.read(page, 0, 8).unwrap();
        refused() == 2
    });
}

/// The latch fails in several ways: a client of the home does not let go of the page, the request or the
/// answer is lost, the image is damaged on its way. Afterwards the page moves as if nothing had been.
#[test]
fn a_refused_or_failed_swap_can_be_tried_again() {
    for fate in [Fate::Lose, Fate::LoseReply] {
        for full in [false, true] {
            let (racks, ours, theirs) = two_racks(full);
            let a = racks.node(0);
            let lost = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&lost);
            racks.net.set_rule(move |_, _, request| {
                let lose = is_prepare(request) && count.fetch_add(1, Ordering::SeqCst) < 3;
                if lose { fate } else { Fate::Deliver }
            });
            await_page(a, theirs[5]);
            assert!(lost.load(Ordering::SeqCst) > 3);
            settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
        }
    }
}

#[test]
fn a_page_that_a_client_does_not_let_go_of_stays_and_moves_later() {
    let (racks, ours, theirs) = two_racks(true);
    let (a, b) = (racks.node(0), racks.node(1));
    let (entered, leave) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            b.context.in_place.stretches(at(theirs[0], 0), 0..8, &mut |_| {
                entered.store(true, Ordering::SeqCst);
                until("the swap was refused", || leave.load(Ordering::SeqCst));
            })
        });
        until("the client is in the page", || entered.load(Ordering::SeqCst));
        heat_up(&racks, theirs[0]);
        until("the swap is refused", || a.context.counters.swaps_refused.get() > 0);
        leave.store(true, Ordering::SeqCst);
    });
    await_page(a, theirs[0]);
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
}

/// One daemon dies after a step, the other lives on.
fn interrupt(rack: u16, step: Step, full: bool, told: bool) {
    let (mut racks, ours, theirs) = two_racks(full);
    racks.node(rack).crash.at(Some(step));
    // References from both sides to all that may move.
    for page in &theirs {
        racks.node(0).read(*page, 0, 8).unwrap();
    }
    for page in &ours {
        racks.node(1).read(*page, 0, 8).unwrap();
    }
    heat_up(&racks, theirs[7]);
    let crash = Arc::clone(&racks.node(rack).crash);
    until("the step is reached", || heated_until(&racks, theirs[7], crash.steps.lock().contains(&step)));
    if told {
        racks.restart(rack);
    } else {
        // The other side finds out by itself.
        racks.kill(rack);
        let (other, pages) = (1 - rack, [&ours[..], &theirs[..]].concat());
        until("the survivor has settled it", || {
            let moving = |page: &PageId| racks.node(other).copies(*page).iter().any(|s| *s != State::Stable);
            !pages.iter().any(moving)
        });
        racks.restart(rack);
    }
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
    // And all can still move.
    await_page(racks.node(0), theirs[7]);
    await_page(racks.node(0), theirs[8]);
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
}

#[test]
fn a_swap_whose_requester_dies_after_any_step_leaves_one_copy() {
    for step in REQUESTER {
        interrupt(0, step, true, true);
        if !matches!(step, Step::VictimFrozen | Step::VictimRevoked) {
            interrupt(0, step, false, true);
        }
    }
}

#[test]
fn a_swap_whose_home_dies_after_any_step_leaves_one_copy() {
    for step in HOME {
        interrupt(1, step, true, true);
        interrupt(1, step, false, true);
    }
}

#[test]
fn a_home_settles_a_swap_whose_requester_is_not_heard_of() {
    for step in [Step::Prepared, Step::Committed] {
        interrupt(0, step, true, false);
    }
}

#[test]
fn a_requester_settles_a_swap_whose_home_is_not_heard_of() {
    for step in [Step::VictimReceived, Step::Ready, Step::Finishing] {
        interrupt(1, step, true, false);
    }
}

#[test]
fn a_swap_in_which_both_daemons_die_leaves_one_copy() {
    for (step, other) in [
        (Step::Prepared, Step::Ready),
        (Step::Received, Step::Ready),
        (Step::Committed, Step::Ready),
        (Step::Finished, Step::Finishing),
        (Step::Finished, Step::PageGone),
    ] {
        for first in [0, 1] {
            let (mut racks, ours, theirs) = two_racks(true);
            racks.node(0).crash.at(Some(step));
            heat_up(&racks, theirs[2]);
            let steps = [Arc::clone(&racks.node(0).crash), Arc::clone(&racks.node(1).crash)];
            until("the steps are reached", || {
                let reached = steps[0].steps.lock().contains(&step) && steps[1].steps.lock().contains(&other);
                heated_until(&racks, theirs[2], reached)
            });
            racks.kill(0);
            racks.kill(1);
            racks.restart(first);
            racks.restart(1 - first);
            settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
        }
    }
}

/// The master hears of the commit or not, its answer is lost, and for a while it answers nothing at all.
#[test]
fn a_commit_whose_answer_is_lost_is_settled_by_asking() {
    for fate in [Fate::Lose, Fate::LoseReply, Fate::Late] {
        for full in [false, true] {
            let (racks, ours, theirs) = two_racks(full);
            let a = racks.node(0);
            a.read(theirs[1], 0, 8).unwrap();
            let silent = Arc::new(AtomicU64::new(5));
            racks.net.set_rule(move |_, to, request| {
                let resolve = matches!(request, Request::Cluster(ClusterRequest::Resolve { .. }));
                let down = resolve
                    && silent
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                        .is_ok();
                if to == NodeId::Master && is_commit(request) {
                    fate
                } else if down {
                    Fate::Lose
                } else {
                    Fate::Deliver
                }
            });
            heat_up(&racks, theirs[1]);
            until("the swap is over", || a.remote.oldest_swap() == 2);
            // A commit that comes late has no effect.
            racks.net.clear_rule();
            racks.net.release();
            settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
            let home = if fate == Fate::LoseReply { RackId(0) } else { RackId(1) };
            assert_eq!(racks.net.home_of(theirs[1]), Some(home), "{fate:?}");
        }
    }
}

/// The home dies when it is ready, and is back before the requester commits: it has let the page go on as
/// its own, so the commit must fail.
#[test]
fn a_swap_that_an_earlier_daemon_of_the_home_prepared_cannot_be_committed() {
    let (mut racks, ours, theirs) = two_racks(true);
    racks.node(0).read(theirs[4], 0, 8).unwrap();
    racks.net.set_rule(|_, _, request| if is_commit(request) { Fate::Hold } else { Fate::Deliver });
    heat_up(&racks, theirs[4]);
    until("the commit is under way", || racks.net.kept() == 1);
    racks.restart(1);
    racks.net.clear_rule();
    racks.net.release();
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
    assert_eq!(racks.net.home_of(theirs[4]), Some(RackId(1)));
}

#[test]
fn a_finish_that_is_lost_is_made_up_for() {
    let (racks, ours, theirs) = two_racks(true);
    racks.net.set_rule(|_, _, request| match peer(request) {
        Some(PeerRequest::Finish { .. }) => Fate::Lose,
        _ => Fate::Deliver,
    });
    await_page(racks.node(0), theirs[1]);
    settle_and_check(&racks, &[&ours[..], &theirs[..]].concat());
}

#[test]
fn pages_that_come_and_go_are_told_of() {
    let (racks, _, theirs) = two_racks(true);
    let seen: Arc<parking_lot::Mutex<Vec<(u16, bool, PageId)>>> = Arc::default();
    for rack in 0..2 {
        let (come, gone) = (Arc::clone(&seen), Arc::clone(&seen));
        racks.node(rack).remote.set_page_hooks(crate::remote::PageHooks {
            arrived: Box::new(move |page, _| come.lock().push((rack, true, page))),
            departed: Box::new(move |page, _| gone.lock().push((rack, false, page))),
        });
    }
    await_page(racks.node(0), theirs[1]);
    until("all is told", || seen.lock().len() == 4);
    let seen = seen.lock();
    for expected in [(0, true, theirs[1]), (1, false, theirs[1])] {
        assert!(seen.contains(&expected), "{seen:?}");
    }
    assert_eq!(seen.iter().filter(|(_, _, page)| *page != theirs[1]).count(), 2);
}

fn increment(node: &Node, page: PageId, offset: u64) {
    let mut old = node.read_word(page, offset).unwrap();
    loop {
        let was = node.cas(page, offset, old, old + 1).unwrap();
        if was == old {
            return;
        }
        old = was;
    }
}

/// Pages hardly ever rest. Each thread has a word in each page that only it writes, and all count up one.
#[test]
fn no_write_and_no_increment_is_lost_while_pages_move() {
    const ROUNDS: u64 = 60;
    let policy = Arc::new(Watermark { watermark: 1.5, cooling: Duration::ZERO });
    let plan =
        Plan { frames: 12, reserve: 3, policy, half_life: Duration::from_millis(5), ..Plan::default() };
    let racks = Racks::new(3, plan);
    let pages: Vec<PageId> = (0..3).flat_map(|rack| racks.node(rack).alloc(8)).collect();
    for page in &pages {
        racks.node(0).write(*page, 0, &[0; 128]).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let (node, pages) = (racks.node(thread as u16 % 3), &pages);
            scope.spawn(move || {
                let mut last = vec![0; pages.len()];
                let mut random = thread + 1;
                for round in 1..=ROUNDS {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let i = (random >> 33) as usize % pages.len();
                    for _ in 0..3 {
                        let own = 8 + 8 * thread;
                        assert_eq!(node.read_word(pages[i], own), Ok(last[i]), "a write was lost");
                        last[i] = round << 8 | thread;
                        node.write_word(pages[i], own, last[i]).unwrap();
                    }
                    increment(node, pages[i], 0);
                }
            });
        }
    });
    let total: u64 = pages.iter().map(|page| racks.node(1).read_word(*page, 0).unwrap()).sum();
    assert_eq!(total, 6 * ROUNDS);
    let moved: u64 = (0..3).map(|rack| racks.node(rack).context.counters.swaps_in.get()).sum();
    assert!(moved > 10, "pages moved {moved} times");
    until("all pages are at rest", || is_settled(&racks, &pages));
}

/// Pages are freed while they move and are used: what comes is an error, never another page's bytes.
#[test]
fn a_page_that_is_freed_while_pages_move_is_an_error_to_all() {
    let policy = Arc::new(Watermark { watermark: 1.5, cooling: Duration::ZERO });
    let plan =
        Plan { frames: 32, reserve: 4, policy, half_life: Duration::from_millis(5), ..Plan::default() };
    let racks = Racks::new(2, plan);
    for _ in 0..10 {
        let pages: Vec<PageId> = (0..2).flat_map(|rack| racks.node(rack).alloc(6)).collect();
        std::thread::scope(|scope| {
            for rack in 0..2 {
                let (node, pages) = (racks.node(rack), &pages);
                scope.spawn(move || {
                    for i in 0..60 {
                        let page = pages[(i * 7) % pages.len()];
                        match node.ask(PageRequest::Read { at: at(page, 512), len: 8 }) {
                            Ok(PageReply::Data(data)) => assert_eq!(data, page.raw().to_ne_bytes()),
                            Ok(PageReply::Here) | Err(pool::proto::page::PageError::NoSuchPage(_)) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
            scope.spawn(|| {
                for page in &pages {
                    // Wherever it is; it may move on before it is caught.
                    until("it is freed", || racks.nodes.iter().flatten().any(|node| node.try_free(*page)));
                    racks.net.forget(*page);
                }
            });
        });
    }
}
