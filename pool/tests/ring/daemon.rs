//! What becomes of clients when the daemon is slow, stops, dies or comes back; and what an idle one costs.

use crate::rig::*;
use pool::cxl::region::{Region, RegionError, RegionSource, Spec};
use pool::cxl::ring::{Call, ServeError, Server};
use pool::proto::Request;
use pool::proto::page::PageRequest;
use pool::transport::{Transport, TransportError};
use std::sync::{Arc, mpsc};
use std::time::Duration;

#[test]
fn an_answer_that_does_not_come_is_a_time_out_and_its_entry_comes_back_later() {
    let home = Home::new();
    let (queue, calls) = mpsc::channel::<Call>();
    let running = Running::new(home.open(1), move |call| match call.request {
        Request::Page(PageRequest::Stat) => queue.send(call).unwrap(),
        _ => at_once(call),
    });
    let client = home.client(Duration::from_millis(20));
    let requests = vec![Request::Page(PageRequest::Stat); 40];
    let replies = client.call_all(NODE, requests);
    assert!(replies.iter().all(|reply| *reply == Err(TransportError::TimedOut(NODE))));
    // All entries are the daemon's.
    assert_eq!(client.call(NODE, ask(1, 1)), Err(TransportError::TimedOut(NODE)));
    let late: Vec<Call> = calls.try_iter().collect();
    assert_eq!(late.len(), 32);
    late.into_iter().for_each(at_once);
    let patient = || client.call(NODE, ask(1, 9));
    let reply = (0..100).map(|_| patient()).find(|reply| *reply != Err(TransportError::TimedOut(NODE)));
    assert_eq!(reply, Some(Ok(answer(&ask(1, 9)))));
    drop(client);
    assert_eq!(running.server.sweep(), 0);
}

#[test]
fn a_client_that_leaves_before_its_answer_frees_its_channel_when_that_is_given() {
    let home = Home::new();
    let (queue, calls) = mpsc::channel::<Call>();
    let running = Running::new(home.open(1), move |call| queue.send(call).unwrap());
    let client = home.client(Duration::from_millis(1));
    assert_eq!(stat(&client), Err(TransportError::TimedOut(NODE)));
    drop(client);
    let region = Arc::new(Region::join(&home.path).unwrap());
    let next = || pool::transport::RingTransport::new(Arc::clone(&region), RACK, LONG);
    let outstanding = calls.recv().unwrap();
    assert_eq!(running.server.sweep(), 0);
    assert!(next().is_err());
    at_once(outstanding);
    assert_eq!(running.server.sweep(), 0);
    assert!(next().is_ok());
}

#[test]
fn a_request_that_is_let_go_of_without_an_answer_is_an_error() {
    let home = Home::new();
    let _running = Running::new(home.open(1), drop);
    assert!(matches!(stat(&home.client(LONG)), Err(TransportError::Broken(NODE, _))));
}

#[test]
fn clients_learn_that_the_daemon_has_stopped_and_go_on_with_the_next() {
    let home = Home::new();
    let region = home.open(1);
    let (queue, calls) = mpsc::channel::<Call>();
    let running = Running::new(Arc::clone(&region), move |call| queue.send(call).unwrap());
    let client = home.client(LONG);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| stat(&client));
        let taken = calls.recv().unwrap();
        drop(running);
        // Long before the deadline.
        assert!(matches!(waiting.join().unwrap(), Err(TransportError::Broken(NODE, _))));
        assert!(matches!(stat(&client), Err(TransportError::Broken(NODE, _))));
        let refused = Server::new(Arc::clone(&region)).map(drop);
        assert!(matches!(refused, Err(ServeError::Served(_))));
        drop(taken);
    });
    let _running = Running::new(region, at_once);
    assert!(stat(&client).is_ok());
}

#[test]
fn a_poller_that_is_stopped_while_it_sleeps_ends() {
    let home = Home::new();
    let running = Running::new(home.open(1), at_once);
    assert!(stat(&home.client(LONG)).is_ok());
    std::thread::sleep(Duration::from_millis(5));
    drop(running);
}

fn voluntary_switches() -> i64 {
    // SAFETY: rusage is plain data for which zero is a value; the call writes at most one.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nvcsw
    }
}

#[test]
fn an_idle_poller_sleeps() {
    let home = Home::new();
    let (report, switches) = mpsc::channel();
    let _running = Running::new(home.open(4), move |call| {
        report.send(voluntary_switches()).unwrap();
        at_once(call);
    });
    let client = home.client(LONG);
    stat(&client).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    stat(&client).unwrap();
    // One that looked every millisecond would have slept 500 times.
    let idle = -switches.recv().unwrap() + switches.recv().unwrap();
    assert!(idle < 50, "slept {idle} times");
}

#[test]
fn a_region_keeps_its_channels_and_its_cluster() {
    let home = Home::new();
    let source = RegionSource::Path(home.path.clone());
    let open = |spec: Spec| Region::open(&source, &spec).map(|(region, _)| region);
    let first = open(Spec { cluster: Some(7), ..Home::spec(5) }).unwrap();
    let (id, geometry) = (first.region_id(), *first.geometry());
    assert_eq!((first.pool_id(), geometry.channels), (7, 5));
    drop(first);
    let again = open(Home::spec(9)).unwrap();
    assert_eq!((again.pool_id(), again.region_id(), *again.geometry()), (7, id, geometry));
    drop(again);
    let error = open(Spec { cluster: Some(8), ..Home::spec(5) }).unwrap_err();
    assert!(matches!(error, RegionError::OtherCluster { found: 7, wanted: 8, .. }), "{error}");
    assert!(open(Spec { cluster: Some(7), ..Home::spec(5) }).is_ok());
    let error = open(Home::spec(513)).unwrap_err();
    assert!(matches!(error, RegionError::Channels { wanted: 513 }), "{error}");
}
