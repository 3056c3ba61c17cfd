//! Clients by the rings of a rack, and those that die.

use crate::racks::{Racks, rack, until};
use pool::addr::PageRun;
use pool::cxl::protocol::SharedWord;
use pool::cxl::slots::{ClientId, Slots};
use pool::proto::cluster::ClientName;
use pool::proto::far::{FarReply, FarRequest};
use pool::proto::page::{PageKind, PageReply, PageRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Handler, RingTransport, Transport};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A process that there is not: no system has so many.
fn dead() -> ClientId {
    ClientId::from_raw((1 << 22) - 1).unwrap()
}

#[test]
fn requests_by_the_rings_are_answered_as_others_are() {
    let racks = Racks::new(&[4, 4]);
    let rings = RingTransport::new(racks.daemons[0].region(), rack(0), Duration::from_secs(20)).unwrap();
    let ask = |request| match rings.call(NodeId::Daemon(rack(0)), Request::Page(request)) {
        Ok(Reply::Page(result)) => result.unwrap(),
        other => panic!("{other:?}"),
    };
    let alloc = PageRequest::Alloc { pages: 6, leave: 0, kind: PageKind::Plain };
    let PageReply::Runs { runs, zeroed: 1 } = ask(alloc) else { panic!("not spread") };
    let at = crate::racks::at(runs.last().unwrap().first, 0);
    assert_eq!(ask(PageRequest::Write { at, data: vec![3; 4096] }), PageReply::Done);
    assert_eq!(ask(PageRequest::Read { at, len: 4096 }), PageReply::Data(vec![3; 4096]));
    assert_eq!(ask(PageRequest::Free { runs }), PageReply::Freed(6));
}

#[test]
fn clients_are_counted() {
    let racks = Racks::new(&[4]);
    let clients = || racks.master.rack(rack(0)).map(|rack| rack.stats.clients);
    let rings = RingTransport::new(racks.daemons[0].region(), rack(0), Duration::from_secs(20)).unwrap();
    until("one", || clients() == Some(1));
    drop(rings);
    until("none", || clients() == Some(0));
}

#[test]
fn the_slots_of_a_dead_client_are_freed_without_anyone_asking() {
    let racks = Racks::new(&[4]);
    let region = racks.daemons[0].region();
    let slots = Slots::new(&region);
    let slot = slots.claim(dead()).unwrap();
    slots.hazard(slot).unwrap().store(1, Ordering::Release);
    until("freed", || slots.hazard(slot).unwrap().load(Ordering::Acquire) == 0);
}

#[test]
fn what_a_client_took_and_no_file_has_is_freed_in_all_racks_when_it_goes_and_others_keep_theirs() {
    let racks = Racks::new(&[4, 4]);
    let connection = || Arc::clone(&racks.daemons[0]).for_connection().unwrap();
    let (one, other) = (connection(), connection());
    let ask = |connection: &Arc<dyn Handler>, request| match connection.handle(Request::Far(request)) {
        Reply::Far(result) => result.unwrap(),
        other => panic!("{other:?}"),
    };
    let enter = |connection: &Arc<dyn Handler>, client| {
        let enter = FarRequest::Enter { by: "a test".into(), client, replaces: 0, age: 0 };
        let FarReply::Entered { ticket, .. } = ask(connection, enter) else { panic!("no session") };
        ticket
    };
    let take = |connection: &Arc<dyn Handler>, ticket, pages| {
        let alloc = FarRequest::Alloc { ticket, pages, leave: 0, kind: PageKind::File };
        let FarReply::Runs { runs, .. } = ask(connection, alloc) else { panic!("no pages") };
        runs
    };
    let (going, staying) = (enter(&one, 1), enter(&other, 2));
    let (kept, taken) = (take(&other, staying, 1), take(&one, going, 6));
    assert_eq!(racks.room(), [0, 1], "they are of both racks");
    racks.master.own(taken[0].first);
    assert_eq!(ask(&one, FarRequest::Leave { session: going.session }), FarReply::Done);
    until("freed", || racks.room().iter().sum::<u64>() == 6);
    assert_eq!(racks.master.died(), [ClientName::Far(1)]);
    // What is left is a file's, and the other client's.
    assert_eq!(racks.free(0, &kept), Ok(1));
    assert_eq!(racks.free(0, &[PageRun { count: 1, ..taken[0] }]), Ok(1));
}

#[test]
fn a_request_that_makes_no_sense_is_answered_and_the_daemon_goes_on() {
    let racks = Racks::new(&[4]);
    let rings = RingTransport::new(racks.daemons[0].region(), rack(0), Duration::from_secs(20)).unwrap();
    let node = NodeId::Daemon(rack(0));
    let odd = Request::Cluster(pool::proto::cluster::ClusterRequest::Describe);
    assert_eq!(rings.call(node, odd), Ok(Reply::Unsupported));
    let stat = rings.call(node, Request::Page(PageRequest::Stat));
    assert!(matches!(stat, Ok(Reply::Page(Ok(PageReply::Stat(_))))), "{stat:?}");
}
