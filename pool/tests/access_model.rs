//! The protocol of accesses and freeing (`pool::cxl::protocol`), run under a model checker: every
//! interleaving and every reordering that the memory model allows, of one client and one daemon.
//!
//! The frame's contents are a cell that the checker watches: touching it while the other does, without
//! an order between the two, fails the model, as does a client that sees another page's contents.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};
use pool::cxl::protocol::{self, SharedWord};
use std::sync::atomic::Ordering;

const OLD: u64 = 1;
const MARKED: u64 = 2;
const NEW: u64 = 3;
const RANGE: u64 = protocol::range(0, 1);

struct Word(AtomicU64);

impl SharedWord for Word {
    fn load(&self, order: Ordering) -> u64 {
        // The checker knows sequential consistency of fences only; an acquire load is weaker.
        self.0.load(if order == Ordering::SeqCst { Ordering::Acquire } else { order })
    }
    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }
    fn swap_if(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    fn store_first(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// One frame, one client's slot.
struct Memory {
    slot: Word,
    descriptor: Word,
    contents: UnsafeCell<u64>,
}

/// What a client or a daemon leaves out.
#[derive(Clone, Copy, PartialEq)]
enum Omit {
    Nothing,
    Check,
    Publication,
    PublicationFence,
    Settling,
    Waiting,
}

fn client(memory: &Memory, omit: Omit) {
    let found = protocol::check(&memory.descriptor, OLD);
    match omit {
        Omit::Publication => {}
        Omit::PublicationFence => memory.slot.store(RANGE, Ordering::Relaxed),
        _ => protocol::publish(&memory.slot, RANGE),
    }
    if found && (omit == Omit::Check || protocol::check(&memory.descriptor, OLD)) {
        let seen = memory.contents.with(|contents| {
            // SAFETY: the checker fails the test if the daemon writes meanwhile.
            unsafe { *contents }
        });
        assert_eq!(seen, OLD, "another page's contents");
    }
    protocol::retract(&memory.slot);
}

fn daemon(memory: &Memory, omit: Omit) {
    assert!(protocol::mark(&memory.descriptor, OLD, MARKED));
    if omit != Omit::Settling {
        protocol::settle::<Word>();
    }
    while omit != Omit::Waiting && protocol::named(protocol::observe(&memory.slot)).1 != 0 {
        loom::thread::yield_now();
    }
    memory.contents.with_mut(|contents| {
        // SAFETY: the checker fails the test if the client reads meanwhile.
        unsafe { *contents = NEW }
    });
    protocol::release(&memory.descriptor, NEW);
}

fn check(omit: Omit) {
    loom::model(move || {
        let memory = Arc::new(Memory {
            slot: Word(AtomicU64::new(0)),
            descriptor: Word(AtomicU64::new(OLD)),
            contents: UnsafeCell::new(OLD),
        });
        let thread = loom::thread::spawn({
            let memory = Arc::clone(&memory);
            move || client(&memory, omit)
        });
        daemon(&memory, omit);
        thread.join().unwrap();
    });
}

#[test]
fn a_client_never_touches_a_frame_that_was_given_away() {
    check(Omit::Nothing);
}

#[test]
#[should_panic]
fn without_the_second_look_it_would() {
    check(Omit::Check);
}

#[test]
#[should_panic]
fn without_the_publication_it_would() {
    check(Omit::Publication);
}

#[test]
#[should_panic]
fn without_the_clients_fence_it_would() {
    check(Omit::PublicationFence);
}

#[test]
#[should_panic]
fn without_the_daemons_fence_it_would() {
    check(Omit::Settling);
}

#[test]
#[should_panic]
fn without_waiting_it_would() {
    check(Omit::Waiting);
}
