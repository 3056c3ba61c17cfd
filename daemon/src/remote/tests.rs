//! Direct IO, references and heat over several racks.

use super::testing::{Fate, LONG, Plan, Racks, at, image_of, until};
use pool::addr::{PageId, RackId};
use pool::proto::page::{ACCESS_MAX, PageError, PageReply, PageRequest};
use pool::proto::peer::{PeerReply, PeerRequest};
use pool::proto::{NodeId, Request};
use pool::swap::Watermark;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

fn peer(request: &Request) -> Option<&PeerRequest> {
    if let Request::Peer(request) = request { Some(request) } else { None }
}

fn is_write(request: &Request) -> bool {
    matches!(peer(request), Some(PeerRequest::WriteAt { .. }))
}

#[test]
fn a_page_of_another_rack_is_read_and_written_where_it_is() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    assert_eq!(a.read(page, 0, 4096), Ok(image_of(page)));
    a.write(page, 4090, b"sixsix").unwrap();
    a.write(page, 8, &7u64.to_ne_bytes()).unwrap();
    assert_eq!(b.read(page, 4090, 6), Ok(b"sixsix".to_vec()));
    assert_eq!(a.cas(page, 8, 7, 9), Ok(7));
    assert_eq!(a.cas(page, 8, 7, 10), Ok(9));
    assert_eq!(b.read_word(page, 8), Ok(9));
    assert_eq!(a.ask(PageRequest::Read { at: at(a.alloc(1)[0], 0), len: 8 }), Ok(PageReply::Here));
    assert!(!a.holds(page) && b.holds(page));
    let counters = &a.context.counters;
    assert_eq!((counters.misses.get(), counters.direct.get()), (5, 5));
    assert_eq!(b.context.counters.bytes_in.get(), 4096 + 6 + 8 + 8 + 8);
}

#[test]
fn a_client_of_another_rack_reads_what_is_here_and_is_told_what_is_not() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    let read = |at, len| {
        let (sender, receiver) = channel();
        let answer = move |reply| sender.send(reply).unwrap();
        b.remote.serve_peer(PeerRequest::Read { at, len }, Box::new(answer));
        receiver.recv_timeout(LONG).unwrap()
    };
    assert_eq!(read(at(page, 0), 4096), Ok(PeerReply::Data(image_of(page))));
    a.write(page, 10, b"abc").unwrap();
    assert_eq!(read(at(page, 9), 5), b.read(page, 9, 5).map(PeerReply::Data));
    assert_eq!(read(at(a.alloc(1)[0], 0), 8), Ok(PeerReply::NotHere));
    for (at, len) in [(at(page, 4090), 7), (at(page, 0), ACCESS_MAX as u32 + 1)] {
        assert!(matches!(read(at, len), Err(PageError::Invalid(_))), "{at:?}, {len}");
    }
}

#[test]
fn many_requests_are_under_way_at_once_and_ask_for_a_reference_once() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let pages = b.alloc(20);
    let (sender, receiver) = channel();
    for i in 0..1000u64 {
        let sender = sender.clone();
        let page = pages[i as usize % pages.len()];
        let answer = move |reply| sender.send((page, reply)).unwrap();
        a.remote.serve_page(PageRequest::Read { at: at(page, 16), len: 8 }, Box::new(answer));
    }
    for _ in 0..1000 {
        let (page, reply) = receiver.recv_timeout(LONG).unwrap();
        assert_eq!(reply, Ok(PageReply::Data(page.raw().to_ne_bytes().to_vec())));
    }
    let acquires = racks.net.count(|_, _, r| matches!(peer(r), Some(PeerRequest::Acquire { .. })));
    assert_eq!(acquires, 20);
    let questions = racks.net.count(|_, to, _| to == NodeId::Master);
    assert!(questions < 20, "{questions} questions to the master about 20 pages");
}

#[test]
fn a_page_that_was_freed_or_never_was_is_an_error() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    a.read(page, 0, 8).unwrap();
    b.free(page);
    assert_eq!(a.read(page, 0, 8), Err(PageError::NoSuchPage(page)));
    assert_eq!(a.write(page, 0, &[1; 8]), Err(PageError::NoSuchPage(page)));
    assert_eq!(a.cas(page, 0, 0, 1), Err(PageError::NoSuchPage(page)));
    // Of a block that nobody has; of another's block, but never given out; of our own block.
    for raw in [500 << 20, page.raw() + 9000, 4711] {
        let never = PageId::new(raw).unwrap();
        assert_eq!(a.read(never, 0, 8), Err(PageError::NoSuchPage(never)));
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    let bad = [
        PageRequest::Read { at: at(page, 4090), len: 8 },
        PageRequest::Read { at: at(page, 0), len: 1 << 20 },
        PageRequest::Write { at: at(page, 4095), data: vec![0; 2] },
        PageRequest::Cas { at: at(page, 4), old: 0, new: 0 },
        PageRequest::Stat,
    ];
    for request in bad {
        assert!(matches!(a.ask(request.clone()), Err(PageError::Invalid(_))), "{request:?}");
    }
}

/// A client of rack 0 uses a page while a reference to it is on its way, and the page is freed.
#[test]
fn no_mapping_is_used_after_its_revocation() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    let once = AtomicUsize::new(0);
    racks.net.set_rule(move |_, _, request| match peer(request) {
        Some(PeerRequest::Acquire { .. }) if once.fetch_add(1, Ordering::SeqCst) == 0 => Fate::HoldReply,
        _ => Fate::Deliver,
    });
    let (sender, receiver) = channel();
    let write = PageRequest::Write { at: at(page, 0), data: vec![0xEE; 8] };
    a.remote.serve_page(write, Box::new(move |reply| sender.send(reply).unwrap()));
    until("the reference is on its way", || racks.net.kept() == 1);
    b.free(page);
    let next = b.alloc(60);
    racks.net.release();
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), Err(PageError::NoSuchPage(page)));
    assert_eq!(racks.net.count(|_, _, request| is_write(request)), 0, "the reference was used");
    for page in next {
        assert_eq!(b.read(page, 0, 4096), Ok(image_of(page)), "a write hit another page");
    }
}

/// A holder that does not acknowledge is fenced: what it sent before and arrives after has no effect.
#[test]
fn a_silent_holder_is_fenced_and_its_late_write_has_no_effect() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    a.read(page, 0, 8).unwrap();
    racks.net.set_rule(|_, _, request| if is_write(request) { Fate::Hold } else { Fate::Deliver });
    let (sender, receiver) = channel();
    let write = PageRequest::Write { at: at(page, 0), data: vec![0xEE; 8] };
    a.remote.serve_page(write, Box::new(move |reply| sender.send(reply).unwrap()));
    until("the write is under way", || racks.net.kept() == 1);
    b.free(page);
    let next = b.alloc(60);
    racks.net.clear_rule();
    racks.net.release();
    assert_eq!(receiver.recv_timeout(LONG).unwrap(), Err(PageError::NoSuchPage(page)));
    for page in &next {
        assert_eq!(b.read(*page, 0, 4096), Ok(image_of(*page)), "the late write hit another page");
    }
    a.write_word(next[0], 0, 5).unwrap();
    assert_eq!(b.read_word(next[0], 0), Ok(5), "the holder has a new key");
}

#[test]
fn a_holder_that_is_gone_does_not_keep_a_page_from_being_freed() {
    let mut racks = Racks::new(3, Plan::default());
    let page = racks.node(1).alloc(1)[0];
    racks.node(0).read(page, 0, 8).unwrap();
    racks.node(2).read(page, 0, 8).unwrap();
    racks.kill(0);
    racks.node(1).free(page);
    assert_eq!(racks.node(2).read(page, 0, 8), Err(PageError::NoSuchPage(page)));
}

/// The first write is lost on its way and its caller told so; it arrives after the second.
#[test]
fn a_write_of_unknown_fate_does_not_overwrite_a_later_one() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    a.read(page, 0, 8).unwrap();
    racks.net.set_rule(|_, _, request| if is_write(request) { Fate::Late } else { Fate::Deliver });
    assert!(matches!(a.write_word(page, 0, 1), Err(PageError::Unreachable(_))));
    racks.net.clear_rule();
    assert_eq!(racks.net.kept(), 1);
    a.write_word(page, 0, 2).unwrap();
    racks.net.release();
    assert_eq!(a.read_word(page, 0), Ok(2));
    assert_eq!(b.read_word(page, 0), Ok(2));
}

#[test]
fn a_write_of_unknown_fate_does_not_hit_a_page_that_comes_later() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    a.read(page, 0, 8).unwrap();
    // Nor can the home be asked to withdraw the key.
    racks.net.set_rule(|_, _, request| match peer(request) {
        Some(PeerRequest::WriteAt { .. }) => Fate::Late,
        Some(PeerRequest::Release { .. }) => Fate::Lose,
        _ => Fate::Deliver,
    });
    assert!(matches!(a.write_word(page, 0, 1), Err(PageError::Unreachable(_))));
    b.free(page);
    let next = b.alloc(60);
    racks.net.clear_rule();
    racks.net.release();
    for page in next {
        assert_eq!(b.read(page, 0, 4096), Ok(image_of(page)));
    }
}

#[test]
fn a_compare_and_swap_of_unknown_fate_is_not_repeated() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    b.write_word(page, 0, 0).unwrap();
    let is_cas = |request: &Request| matches!(peer(request), Some(PeerRequest::Cas { .. }));
    racks.net.set_rule(move |_, _, request| if is_cas(request) { Fate::LoseReply } else { Fate::Deliver });
    assert!(matches!(a.cas(page, 0, 0, 1), Err(PageError::Unreachable(_))));
    assert_eq!(b.read_word(page, 0), Ok(1));
    assert_eq!(racks.net.count(|_, _, request| is_cas(request)), 1);
}

#[test]
fn a_read_whose_answer_is_lost_is_repeated() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    let once = AtomicUsize::new(0);
    racks.net.set_rule(move |_, _, request| match peer(request) {
        Some(PeerRequest::ReadAt { .. }) if once.fetch_add(1, Ordering::SeqCst) == 0 => Fate::LoseReply,
        _ => Fate::Deliver,
    });
    assert_eq!(a.read(page, 0, 4096), Ok(image_of(page)));
}

#[test]
fn a_rack_that_does_not_answer_is_an_error_in_time() {
    let plan = Plan { deadline: Duration::from_millis(50), ..Plan::default() };
    let mut racks = Racks::new(2, plan);
    let page = racks.node(1).alloc(1)[0];
    racks.net.set_rule(|_, to, _| if to == NodeId::Master { Fate::Deliver } else { Fate::Hold });
    assert!(matches!(racks.node(0).read(page, 0, 8), Err(PageError::Unreachable(_))));
    racks.net.clear_rule();
    racks.net.release();
    racks.kill(1);
    assert!(matches!(racks.node(0).read(page, 0, 8), Err(PageError::Unreachable(_))));
    racks.restart(1);
    assert_eq!(racks.node(0).read(page, 0, 4096), Ok(image_of(page)));
}

#[test]
fn a_home_that_started_anew_is_used_again() {
    let mut racks = Racks::new(2, Plan::default());
    let pages = racks.node(1).alloc(3);
    racks.node(0).write_word(pages[0], 0, 77).unwrap();
    racks.restart(1);
    assert_eq!(racks.node(0).read_word(pages[0], 0), Ok(77));
    racks.node(0).write_word(pages[1], 0, 78).unwrap();
    assert_eq!(racks.node(1).read_word(pages[1], 0), Ok(78));
}

/// Three racks count up the same words, and write others beside them.
#[test]
fn cas_and_write_of_one_word_are_done_by_one_kind_of_writer() {
    let racks = Racks::new(3, Plan::default());
    let page = racks.node(1).alloc(1)[0];
    let b = racks.node(1);
    b.write(page, 0, &[0; 64]).unwrap();
    std::thread::scope(|scope| {
        for number in 0..3 {
            let node = racks.node(number);
            scope.spawn(move || {
                for i in 0..200 {
                    increment(node, page, 0);
                    node.write_word(page, 8 + 8 * number as u64, i).unwrap();
                    assert_eq!(node.read_word(page, 8 + 8 * number as u64), Ok(i));
                }
            });
        }
    });
    assert_eq!(b.read_word(page, 0), Ok(600));
    let of_words = racks.net.count(|_, _, request| match peer(request) {
        Some(PeerRequest::WriteAt { at, .. }) => at.offset.is_multiple_of(4096),
        _ => false,
    });
    assert_eq!(of_words, 0, "a compare-and-swap was done by reference");
}

fn increment(node: &super::testing::Node, page: PageId, offset: u64) {
    let mut old = node.read_word(page, offset).unwrap();
    loop {
        let was = node.cas(page, offset, old, old + 1).unwrap();
        if was == old {
            return;
        }
        old = was;
    }
}

#[test]
fn read_heat_counts_reads() {
    let racks = Racks::new(2, Plan::swapping(4.5));
    let (a, b) = (racks.node(0), racks.node(1));
    let pages = b.alloc(2);
    let heat = |page| match a.ask(PageRequest::Where { page }) {
        Ok(PageReply::Place(place)) => (place.rack, place.heat.round()),
        other => panic!("{other:?}"),
    };
    for n in 1..5 {
        a.read(pages[0], 0, 8).unwrap();
        assert_eq!(heat(pages[0]), (RackId(1), n as f64));
    }
    a.write_word(pages[1], 0, 1).unwrap();
    a.cas(pages[1], 0, 1, 2).unwrap();
    assert_eq!(heat(pages[1]), (RackId(1), 2.0));
    assert!(b.holds(pages[0]) && b.holds(pages[1]), "below the watermark no page moves");
    a.read(pages[0], 0, 8).unwrap();
    until("the page that was read often has come", || a.holds(pages[0]));
    assert!(b.holds(pages[1]));
}

#[test]
fn references_that_are_not_used_are_given_back() {
    let racks = Racks::new(2, Plan::default());
    let (a, b) = (racks.node(0), racks.node(1));
    let page = b.alloc(1)[0];
    a.read(page, 0, 8).unwrap();
    let key = match racks.net.count(|_, _, _| true) {
        0 => unreachable!(),
        _ => a.remote.table.shard(page).get(&page).map(|entry| entry.link),
    };
    let Some(super::table::Link::Held(reference)) = key else { panic!("{key:?}") };
    if let Some(entry) = a.remote.table.shard(page).get_mut(&page) {
        entry.link = super::table::Link::Releasing;
    }
    let surplus = super::table::Surplus { page, home: RackId(1), key: reference.key };
    a.remote.give_back(vec![surplus]);
    assert_eq!(a.read(page, 0, 4096), Ok(image_of(page)), "the page is asked for again");
    b.free(page);
    assert_eq!(a.read(page, 0, 8), Err(PageError::NoSuchPage(page)));
}

#[test]
fn where_a_page_is_is_known_here_or_at_the_master() {
    let racks = Racks::new(3, Plan { policy: Arc::new(Watermark::NEVER), ..Plan::default() });
    let pages: Vec<PageId> = (0..3).map(|rack| racks.node(rack).alloc(1)[0]).collect();
    racks.node(0).read(pages[1], 0, 8).unwrap();
    let unknown = PageId::new(900 << 20).unwrap();
    let found = racks.node(0).remote.locate(&[pages[0], pages[1], pages[2], unknown]);
    assert_eq!(found, Ok(vec![Some(RackId(0)), Some(RackId(1)), Some(RackId(2)), None]));
    racks.net.set_rule(|_, _, _| Fate::Lose);
    assert_eq!(racks.node(0).remote.locate(&pages[..2]), Ok(vec![Some(RackId(0)), Some(RackId(1))]));
    assert!(matches!(racks.node(0).remote.locate(&pages), Err(PageError::Unreachable(_))));
}
