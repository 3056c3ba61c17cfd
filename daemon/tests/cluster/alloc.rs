//! Giving pages out over several racks.

use crate::racks::{Racks, at, config, count, rack};
use pool::proto::Request;
use pool::proto::page::{PageError, PageKind, PageReply, PageRequest};
use pool::proto::peer::PeerRequest;
use pool::transport::fault::Fate;

#[test]
fn pages_come_from_the_own_rack_while_they_fit() {
    let racks = Racks::new(&[64, 64]);
    let (runs, zeroed) = racks.alloc(0, 64, 0).unwrap();
    assert_eq!((count(&runs), zeroed), (64, 0));
    assert_eq!(racks.room(), [0, 64]);
}

#[test]
fn what_does_not_fit_comes_from_the_rack_with_the_most_room() {
    let racks = Racks::new(&[16, 32, 64]);
    let (runs, zeroed) = racks.alloc(0, 40, 0).unwrap();
    assert_eq!((count(&runs), zeroed), (40, 1));
    assert_eq!(racks.room(), [0, 32, 40]);
    let (runs, zeroed) = racks.alloc(0, 50, 0).unwrap();
    assert_eq!((count(&runs), zeroed), (50, 2));
    assert_eq!(racks.room(), [0, 22, 0]);
}

#[test]
fn pages_of_another_rack_are_zero_whatever_was_in_their_frames() {
    let racks = Racks::new(&[1, 8]);
    let (dirty, _) = racks.alloc(1, 8, 0).unwrap();
    for page in dirty.iter().flat_map(|run| run.iter()) {
        racks.daemons[1].region().write(frame_at(&racks, 1, page), &[0xAB; 4096]);
    }
    assert_eq!(racks.free(1, &dirty), Ok(8));
    racks.settle();
    let (runs, zeroed) = racks.alloc(0, 9, 0).unwrap();
    let given = &runs[runs.len() - zeroed as usize..];
    assert_eq!(count(given), 8);
    for page in given.iter().flat_map(|run| run.iter()) {
        let mut bytes = [1; 4096];
        racks.daemons[1].region().read(frame_at(&racks, 1, page), &mut bytes);
        assert_eq!(bytes, [0; 4096]);
    }
}

fn frame_at(racks: &Racks, id: usize, page: pool::addr::PageId) -> u64 {
    let region = racks.daemons[id].region();
    let frame = pool::cxl::index::Index::new(&region).lookup(page).ok().flatten().unwrap();
    region.geometry().frame_at(frame).unwrap()
}

#[test]
fn a_full_cluster_is_out_of_memory_and_says_how_full_it_is() {
    let racks = Racks::new(&[8, 8]);
    let full = PageError::OutOfMemory { wanted: 17, free: 16 };
    assert_eq!(racks.alloc(0, 17, 0), Err(full));
    assert_eq!(racks.room(), [8, 8], "all or nothing");
    assert_eq!(count(&racks.alloc(0, 16, 0).unwrap().0), 16);
    assert_eq!(racks.alloc(1, 1, 0), Err(PageError::OutOfMemory { wanted: 1, free: 0 }));
}

#[test]
fn a_lone_rack_that_is_full_says_so() {
    let racks = Racks::new(&[8]);
    assert_eq!(racks.alloc(0, 9, 0), Err(PageError::OutOfMemory { wanted: 9, free: 8 }));
    assert_eq!(racks.alloc(0, 8, 1), Err(PageError::OutOfMemory { wanted: 9, free: 8 }));
}

#[test]
fn what_must_stay_free_may_be_in_any_rack() {
    let racks = Racks::new(&[8, 8]);
    assert_eq!(count(&racks.alloc(0, 8, 8).unwrap().0), 8);
    assert_eq!(racks.alloc(0, 1, 8), Err(PageError::OutOfMemory { wanted: 9, free: 8 }));
    assert_eq!(count(&racks.alloc(0, 1, 7).unwrap().0), 1);
    assert_eq!(racks.room(), [0, 7]);
}

#[test]
fn if_a_rack_does_not_answer_everything_goes_back() {
    let racks = Racks::new(&[8, 8, 9]);
    racks.fate(|_, _, request| match request {
        Request::Peer(PeerRequest::Alloc { pages, .. }) if *pages < 10 => Fate::DropRequest,
        _ => Fate::Deliver,
    });
    let refused = racks.alloc(0, 20, 0);
    assert!(matches!(refused, Err(PageError::Unreachable(_))), "{refused:?}");
    assert_eq!(racks.room(), [8, 8, 9]);
}

#[test]
fn a_rack_that_does_not_answer_is_no_matter_if_others_have_room() {
    let racks = Racks::new(&[8, 8, 9]);
    racks.fate(|_, to, request| match request {
        Request::Peer(PeerRequest::Alloc { .. }) if to == pool::proto::NodeId::Daemon(rack(2)) => {
            Fate::DropRequest
        }
        _ => Fate::Deliver,
    });
    assert_eq!(count(&racks.alloc(0, 16, 0).unwrap().0), 16);
    assert_eq!(racks.room(), [0, 0, 9]);
}

#[test]
fn no_id_is_given_out_twice_over_blocks_and_racks() {
    let racks = Racks::new(&[4, 4]);
    let mut seen = std::collections::HashSet::new();
    for round in 0..50 {
        let (runs, _) = racks.alloc(round % 2, 8, 0).unwrap();
        for page in runs.iter().flat_map(|run| run.iter()) {
            assert!(seen.insert(page), "{page} was given out before");
        }
        assert_eq!(racks.free((round + 1) % 2, &runs), Ok(8));
    }
}

#[test]
fn the_swap_reserve_is_not_given_out() {
    let mut racks = Racks::none();
    let mut small = config(0, 16);
    small.swap.reserve = Some(4 * 4096);
    racks.start(small).unwrap();
    assert_eq!(racks.alloc(0, 13, 0), Err(PageError::OutOfMemory { wanted: 13, free: 12 }));
    assert_eq!(count(&racks.alloc(0, 12, 0).unwrap().0), 12);
}

#[test]
fn pages_for_objects_cannot_be_asked_for() {
    let racks = Racks::new(&[8]);
    let refused = racks.ask(0, PageRequest::Alloc { pages: 1, leave: 0, kind: PageKind::Objects });
    assert!(matches!(refused, Err(PageError::Invalid(_))), "{refused:?}");
}

#[test]
fn pages_of_other_racks_are_read_written_and_swapped_through_the_own_daemon() {
    let racks = Racks::new(&[1, 8]);
    let (runs, zeroed) = racks.alloc(0, 4, 0).unwrap();
    assert_eq!(zeroed, 1);
    let page = runs.last().unwrap().first;
    let write = PageRequest::Write { at: at(page, 100), data: b"over there".to_vec() };
    assert_eq!(racks.ask(0, write), Ok(PageReply::Done));
    let read = PageRequest::Read { at: at(page, 100), len: 10 };
    assert_eq!(racks.ask(0, read), Ok(PageReply::Data(b"over there".to_vec())));
    let cas = |old| PageRequest::Cas { at: at(page, 8), old, new: 5 };
    assert_eq!(racks.ask(0, cas(0)), Ok(PageReply::Was(0)));
    assert_eq!(racks.ask(0, cas(0)), Ok(PageReply::Was(5)));
}
