//! What a server makes of what it finds in the shared memory: after a restart, and after accidents.

use super::*;
use crate::addr::{PageSize, RackId};
use crate::cxl::region::{RegionSource, Spec};
use crate::proto::page::PageRequest;
use crate::proto::{Reply, Request};
use std::sync::Arc;

fn region(channels: u32) -> Arc<Region> {
    let (rack, page_size, size) = (RackId(0), PageSize::MIN, 1 << 20);
    let spec = Spec { rack, page_size, size, cluster: None, channels };
    Arc::new(Region::open(&RegionSource::Memfd, &spec).unwrap().0)
}

fn claim(region: &Region) -> (Channel<'_>, u32) {
    Rings::new(region).unwrap().claim(ClientId::this_process()).unwrap()
}

/// Puts a request in an entry; with its bit and doorbell if `announced`.
fn submit(channel: Channel<'_>, entry: u32, this: Use, bytes: &[u8], announced: bool) {
    let cell = channel.entry(entry).unwrap();
    cell.put(Status::Reply, bytes);
    protocol::submit(&cell.state(), this);
    if announced {
        let (bell, bit) = channel.bell();
        protocol::ring(&channel.submitted(), 1 << entry, &bell, bit);
    }
}

fn stat() -> Vec<u8> {
    postcard::to_allocvec(&Request::Page(PageRequest::Stat)).unwrap()
}

/// The kind of answer in an entry; `None` if there is no answer to that use.
fn status(channel: Channel<'_>, entry: u32, this: Use) -> Option<Status> {
    let cell = channel.entry(entry).unwrap();
    if protocol::is_done(&cell.state(), this) { cell.get(|status, _| status) } else { None }
}

fn serve(server: &Server) -> usize {
    let mut served = 0;
    server.poll(|call| {
        served += 1;
        call.reply.answer(&Reply::Unsupported);
    });
    served
}

#[test]
fn a_restarted_daemon_serves_what_was_submitted_and_says_what_was_lost() {
    let region = region(2);
    let (channel, generation) = claim(&region);
    let this = Use::first(generation).next();
    let first = Server::new(Arc::clone(&region)).unwrap();
    submit(channel, 0, this, &stat(), true);
    let mut taken = Vec::new();
    first.poll(|call| taken.push(call));
    assert_eq!(taken.len(), 1);
    // The first life ends as if it were killed: what it took is never answered.
    taken.into_iter().for_each(|call| std::mem::forget(call.reply));
    drop(first);
    region.end_service();
    submit(channel, 1, this, &stat(), true);
    // Submitted to a poller that had said it watched.
    submit(channel, 2, this, &stat(), false);
    // Submitted, then given up.
    submit(channel, 3, this, &stat(), true);
    let withdrawn = channel.entry(3).unwrap();
    assert!(protocol::doze(&withdrawn.state(), this) && protocol::withdraw(&withdrawn.state(), this));

    let second = Server::new(Arc::clone(&region)).unwrap();
    assert_eq!(status(channel, 0, this), Some(Status::Lost));
    assert_eq!(status(channel, 2, this), Some(Status::Lost));
    assert_eq!(serve(&second), 1);
    assert_eq!(status(channel, 1, this), Some(Status::Reply));
    assert_eq!(status(channel, 3, this), Some(Status::Dropped), "let go of, not carried out");
    assert_eq!(serve(&second), 0);
}

#[test]
fn a_request_is_taken_once_however_often_its_bell_rings() {
    let region = region(1);
    let (channel, generation) = claim(&region);
    let this = Use::first(generation).next();
    let server = Server::new(Arc::clone(&region)).unwrap();
    submit(channel, 5, this, &stat(), true);
    let mut taken = Vec::new();
    for _ in 0..3 {
        server.poll(|call| taken.push(call));
        let (bell, bit) = channel.bell();
        protocol::ring(&channel.submitted(), 1 << 5, &bell, bit);
    }
    assert_eq!(taken.len(), 1);
    taken.into_iter().for_each(|call| call.reply.answer(&Reply::Unsupported));
    assert_eq!(serve(&server), 0);
    submit(channel, 5, this.next(), &stat(), true);
    assert_eq!(serve(&server), 1);
}

#[test]
fn a_reply_to_a_use_that_is_over_is_dropped() {
    let region = region(1);
    let (channel, generation) = claim(&region);
    let this = Use::first(generation).next();
    let server = Server::new(Arc::clone(&region)).unwrap();
    submit(channel, 0, this, &stat(), true);
    let mut taken = None;
    server.poll(|call| taken = Some(call));
    // Somebody who does not keep to the protocol uses the entry meanwhile.
    submit(channel, 0, this.next(), b"untouched", false);
    taken.unwrap().reply.answer(&Reply::Unsupported);
    let cell = channel.entry(0).unwrap();
    assert_eq!(cell.state().load(Ordering::Relaxed), this.next().state(Kind::Submitted));
    assert_eq!(cell.get(|_, message| message.to_vec()).unwrap(), b"untouched");
}

#[test]
fn what_is_no_request_is_answered_as_such() {
    let region = region(1);
    let (channel, generation) = claim(&region);
    let this = Use::first(generation).next();
    let server = Server::new(Arc::clone(&region)).unwrap();
    let mut with_more = stat();
    with_more.push(0);
    let bad: [&[u8]; 4] = [b"", &[0xff; 40], &[0xff; 20_000], &with_more];
    for (entry, bytes) in (0..).zip(bad) {
        submit(channel, entry, this, bytes, true);
    }
    assert_eq!(serve(&server), 0);
    assert!((0..4).all(|entry| status(channel, entry, this) == Some(Status::Malformed)));
    // A length that is none.
    submit(channel, 9, this, &stat(), true);
    let cell = channel.entry(9).unwrap();
    region.word(cell.cell + CELL_BODY_LEN).store(u64::MAX, Ordering::Relaxed);
    assert_eq!(serve(&server), 0);
    assert_eq!(status(channel, 9, this), Some(Status::Malformed));
}

#[test]
fn whatever_is_in_the_shared_memory_the_server_goes_on() {
    let region = region(3);
    let g = *region.geometry();
    let server = Server::new(Arc::clone(&region)).unwrap();
    let mut random = 7u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        random ^ random >> 29
    };
    let cells = g.cell_at(0, 0).unwrap()..g.buffer_at(0, 0).unwrap();
    for round in 0..3000 {
        let zone = if round % 2 == 0 { g.rings_at..cells.start } else { cells.clone() };
        for _ in 0..200 {
            let at = zone.start + next() % ((zone.end - zone.start) / 8) * 8;
            // Small numbers are the ones that mean something.
            let value = if next() % 2 == 0 { next() } else { next() % 9 };
            region.word(at).store(value, Ordering::Relaxed);
        }
        serve(&server);
        server.sweep();
    }
    for at in (g.rings_at..cells.end).step_by(8) {
        region.word(at).store(0, Ordering::Relaxed);
    }
    drop(server);
    let server = Server::new(Arc::clone(&region)).unwrap();
    let (channel, generation) = claim(&region);
    let this = Use::first(generation).next();
    submit(channel, 0, this, &stat(), true);
    assert_eq!(serve(&server), 1);
    assert_eq!(status(channel, 0, this), Some(Status::Reply));
}
