//! Taking pages back over several racks: the count is exact.

use crate::racks::{Racks, count, rack, until};
use pool::addr::{PageId, PageRun};
use pool::proto::page::{PageError, PageReply, PageRequest};
use pool::proto::peer::PeerRequest;
use pool::proto::{NodeId, Request};
use pool::transport::fault::Fate;

#[test]
fn pages_of_all_racks_are_freed_by_any_and_each_is_counted_once() {
    let racks = Racks::new(&[10, 20, 30]);
    let (runs, _) = racks.alloc(0, 60, 0).unwrap();
    let first = [PageRun { first: runs[0].first, count: 3 }];
    assert_eq!(racks.free(2, &first), Ok(3));
    assert_eq!(racks.free(1, &runs), Ok(57), "those that are there");
    assert_eq!(racks.room(), [10, 20, 30]);
    assert_eq!(racks.free(1, &runs), Ok(0));
}

#[test]
fn pages_that_never_were_are_skipped() {
    let racks = Racks::new(&[8, 8]);
    let (runs, _) = racks.alloc(1, 8, 0).unwrap();
    let last = runs.last().unwrap();
    let beyond = PageRun { first: last.first, count: last.count + 1000 };
    let nobodys = PageRun { first: PageId::new(PageId::LIMIT / 2).unwrap(), count: 100 };
    assert_eq!(racks.free(0, &[nobodys, beyond]), Ok(last.count as u64));
}

#[test]
fn a_page_named_twice_is_counted_once() {
    let racks = Racks::new(&[4, 4]);
    let (runs, _) = racks.alloc(0, 8, 0).unwrap();
    let twice = [runs.clone(), runs].concat();
    assert_eq!(racks.free(0, &twice), Ok(8));
    assert_eq!(racks.room(), [4, 4]);
}

#[test]
fn a_rack_that_does_not_answer_is_an_error_and_asking_again_frees_the_rest() {
    let racks = Racks::new(&[4, 4]);
    let (runs, _) = racks.alloc(0, 8, 0).unwrap();
    racks.fate(|_, _, request| match request {
        Request::Peer(PeerRequest::Free { .. }) => Fate::DropReply,
        _ => Fate::Deliver,
    });
    assert!(matches!(racks.free(0, &runs), Err(PageError::Unreachable(_))));
    racks.fate(|_, _, _| Fate::Deliver);
    assert_eq!(racks.free(0, &runs), Ok(0), "all were freed, only the answer was lost");
    assert_eq!(racks.room(), [4, 4]);
}

#[test]
fn pages_of_other_racks_need_the_master_and_those_here_do_not() {
    let racks = Racks::new(&[4, 4]);
    let (here, _) = racks.alloc(0, 4, 0).unwrap();
    let (there, _) = racks.alloc(1, 4, 0).unwrap();
    racks.fate(|_, to, _| if to == NodeId::Master { Fate::DropRequest } else { Fate::Deliver });
    assert_eq!(racks.free(0, &here), Ok(4));
    assert!(matches!(racks.free(0, &there), Err(PageError::Unreachable(_))));
    assert_eq!(racks.room(), [4, 0]);
    assert_eq!(count(&racks.alloc(0, 4, 0).unwrap().0), 4);
}

#[test]
fn a_reference_to_a_freed_page_is_worthless() {
    let racks = Racks::new(&[1, 4]);
    let (runs, _) = racks.alloc(0, 2, 0).unwrap();
    let page = runs.last().unwrap().first;
    let read = || racks.ask(0, PageRequest::Read { at: crate::racks::at(page, 0), len: 8 });
    assert_eq!(read(), Ok(PageReply::Data(vec![0; 8])));
    assert_eq!(racks.free(1, &runs), Ok(2));
    assert_eq!(read(), Err(PageError::NoSuchPage(page)));
}

#[test]
fn the_master_hears_of_freed_pages_that_were_made_elsewhere() {
    let mut racks = Racks::new(&[8]);
    let dir = tempfile::tempdir().unwrap();
    let mut config = crate::racks::config(1, 8);
    config.source = daemon::RegionSource::Path(dir.path().join("region"));
    racks.start(config.clone()).unwrap();
    let (runs, _) = racks.alloc(1, 2, 0).unwrap();
    // A daemon that is started anew does not know where pages were made.
    racks.stop(1);
    racks.start(config).unwrap();
    assert_eq!(racks.free(1, &runs), Ok(2));
    until("told", || racks.master.gone().len() == 2);
    assert_eq!(racks.free(0, &runs), Ok(0));
    assert_eq!(racks.master.rack(rack(1)).map(|rack| rack.alive), Some(true));
}

#[test]
fn sync_reaches_every_rack() {
    let racks = Racks::new(&[4, 4]);
    let (runs, _) = racks.alloc(0, 8, 0).unwrap();
    assert_eq!(racks.ask(0, PageRequest::Sync { runs: runs.clone() }), Ok(PageReply::Done));
    racks.fate(|_, _, request| match request {
        Request::Peer(PeerRequest::Sync { .. }) => Fate::DropRequest,
        _ => Fate::Deliver,
    });
    let unsure = racks.ask(0, PageRequest::Sync { runs });
    assert!(matches!(unsure, Err(PageError::Unreachable(_))), "{unsure:?}");
}
