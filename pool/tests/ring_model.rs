//! The protocol of the rings (`pool::cxl::ring::protocol`), run under a model checker: every interleaving and
//! every reordering that the memory model allows, of one client and the daemon's poller.
//!
//! The message is a cell that the checker watches: touching it while the other side does, without an order
//! between the two, fails the model. Sleeping is a condition variable; who sleeps on while the other
//! waits is a deadlock, which the checker finds. Each step of the protocol is left out in turn, to show
//! that the checker notices.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, fence};
use loom::sync::{Condvar, Mutex};
use pool::cxl::protocol::SharedWord;
use pool::cxl::ring::protocol::{self, Kind, RingWord, Use};
use std::sync::atomic::Ordering;

/// The checker knows sequential consistency of fences only, so a full barrier is one with fences.
struct Word {
    value: AtomicU64,
    sleepers: Mutex<()>,
    woken: Condvar,
}

impl Word {
    fn new() -> Self {
        Self { value: AtomicU64::new(0), sleepers: Mutex::new(()), woken: Condvar::new() }
    }

    /// As `region::Word::sleep`, without a limit.
    fn sleep(&self, expected: u64) {
        let guard = self.sleepers.lock().unwrap();
        if self.value.load(Ordering::Acquire) as u32 == expected as u32 {
            drop(self.woken.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.sleepers.lock().unwrap();
        self.woken.notify_all();
    }

    fn full<T>(&self, act: impl FnOnce(&AtomicU64) -> T) -> T {
        fence(Ordering::SeqCst);
        let result = act(&self.value);
        fence(Ordering::SeqCst);
        result
    }
}

impl SharedWord for Word {
    fn load(&self, order: Ordering) -> u64 {
        self.value.load(if order == Ordering::SeqCst { Ordering::Acquire } else { order })
    }
    fn store(&self, value: u64, order: Ordering) {
        self.value.store(value, order);
    }
    fn swap_if(&self, old: u64, new: u64) -> bool {
        self.value.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    fn store_first(&self, value: u64) {
        self.full(|word| word.store(value, Ordering::Release));
    }
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

impl RingWord for Word {
    fn swap(&self, value: u64) -> u64 {
        self.full(|word| word.swap(value, Ordering::AcqRel))
    }
    fn set(&self, mask: u64) {
        self.full(|word| word.fetch_or(mask, Ordering::AcqRel));
    }
    fn clear(&self, mask: u64) {
        self.full(|word| word.fetch_and(!mask, Ordering::AcqRel));
    }
    fn add(&self, n: u64) {
        self.full(|word| word.fetch_add(n, Ordering::AcqRel));
    }
}

/// One channel with one entry.
struct Memory {
    state: Word,
    message: UnsafeCell<u64>,
    watched: Word,
    submitted: Word,
    bell: Word,
    poller: Word,
}

/// What a side leaves out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Omit {
    Nothing,
    // The client.
    SubmissionBarrier,
    Doorbell,
    Rousing,
    Rung,
    Dozing,
    Taking,
    Withdrawal,
    // The daemon.
    Unwatching,
    SecondLook,
    LyingDown,
    LookAtBells,
    Waking,
    LastTicket,
    BitsAfterBell,
}

/// Leaked, since a model that has failed cannot be taken down without another panic.
fn new_memory() -> &'static Memory {
    Box::leak(Box::new(Memory {
        state: Word::new(),
        message: UnsafeCell::new(0),
        watched: Word::new(),
        submitted: Word::new(),
        bell: Word::new(),
        poller: Word::new(),
    }))
}

impl Memory {
    fn put(&self, value: u64) {
        self.message.with_mut(|message| {
            // SAFETY: the checker fails the test if the other side touches the message meanwhile.
            unsafe { *message = value }
        });
    }

    fn get(&self) -> u64 {
        self.message.with(|message| {
            // SAFETY: as in `put`.
            unsafe { *message }
        })
    }

    /// A client: one request, and the wait for its answer.
    fn call(&self, this: Use, request: u64, omit: Omit) -> u64 {
        self.send(this, request, omit);
        if omit != Omit::Taking {
            self.wait(this, omit);
        }
        self.get()
    }

    fn send(&self, this: Use, request: u64, omit: Omit) {
        self.put(request);
        match omit {
            Omit::SubmissionBarrier => {
                self.state.store(this.state(Kind::Submitted), Ordering::Release);
            }
            _ => protocol::submit(&self.state, this),
        }
        if protocol::is_watched(&self.watched, 0) {
            return;
        }
        match omit {
            Omit::Doorbell => self.submitted.set(1),
            Omit::BitsAfterBell => {
                self.bell.set(1);
                self.submitted.set(1);
            }
            _ => protocol::ring(&self.submitted, 1, &self.bell, 1),
        }
        let rouse = match omit {
            Omit::Rousing => false,
            Omit::Rung => self.poller.load(Ordering::SeqCst) & 1 != 0,
            _ => protocol::rouse(&self.poller),
        };
        if rouse {
            self.poller.wake();
        }
    }

    fn wait(&self, this: Use, omit: Omit) {
        let asleep = this.state(Kind::Asleep);
        if omit == Omit::Dozing {
            // Sleeps without saying so.
            while !protocol::is_done(&self.state, this) {
                self.state.sleep(this.state(Kind::Submitted));
            }
            return;
        }
        if protocol::doze(&self.state, this) {
            while !protocol::is_done(&self.state, this) {
                self.state.sleep(asleep);
            }
        }
        assert!(protocol::is_done(&self.state, this));
    }

    /// A poller: serves until it has answered `count` requests, and returns their sum. Sleeps whenever it
    /// finds nothing.
    fn poll(&self, count: u32, watching: bool, omit: Omit) -> u64 {
        let mut poller = Poller { memory: self, last: Use::default(), served: 0, sum: 0, watching };
        while poller.served < count {
            if !poller.pass(omit) {
                poller.rest(omit);
            }
        }
        assert_eq!(poller.served, count);
        poller.sum
    }
}

struct Poller<'m> {
    memory: &'m Memory,
    last: Use,
    served: u32,
    sum: u64,
    watching: bool,
}

impl Poller<'_> {
    fn take(&mut self, omit: Omit) -> bool {
        let last = if omit == Omit::LastTicket { Use::default() } else { self.last };
        let Some((this, kind)) = protocol::look(&self.memory.state, last) else { return false };
        self.last = this;
        self.served += 1;
        if kind != Kind::Withdrawn {
            let request = self.memory.get();
            assert!(protocol::is_held(&self.memory.state, this));
            self.sum += request;
            self.memory.put(request + 100);
        }
        let wake = protocol::finish(&self.memory.state, this);
        if wake && omit != Omit::Waking {
            self.memory.state.wake();
        }
        true
    }

    fn pass(&mut self, omit: Omit) -> bool {
        let mut served = self.watching && self.take(omit);
        if protocol::take_bits(&self.memory.bell) != 0 && protocol::take_bits(&self.memory.submitted) != 0 {
            served |= self.take(omit);
            if !self.watching {
                protocol::watch(&self.memory.watched, 0);
                self.watching = true;
            }
        }
        served
    }

    fn rest(&mut self, omit: Omit) {
        let memory = self.memory;
        if self.watching {
            match omit {
                Omit::Unwatching => {}
                _ => protocol::unwatch(&memory.watched),
            }
            self.watching = false;
            if omit != Omit::SecondLook && protocol::look(&memory.state, self.last).is_some() {
                protocol::ring(&memory.submitted, 1, &memory.bell, 1);
            }
        }
        let expected = match omit {
            Omit::LyingDown => memory.poller.load(Ordering::Relaxed),
            _ => protocol::lie_down(&memory.poller),
        };
        if omit == Omit::LookAtBells || memory.bell.load(Ordering::Relaxed) == 0 {
            memory.poller.sleep(expected);
        }
        protocol::get_up(&memory.poller);
    }
}

fn builder(preemptions: usize) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder
}

/// A client that calls twice with the same entry; a poller that sleeps whenever it finds nothing. With
/// `watched` the poller watches the entry from the beginning.
fn check(watched: bool, omit: Omit) {
    builder(3).check(move || {
        let memory = new_memory();
        if watched {
            protocol::watch(&memory.watched, 0);
        }
        let poller = loom::thread::spawn(move || {
            assert_eq!(memory.poll(2, watched, omit), 3, "each request is served once");
        });
        let first = Use::first(1).next();
        assert_eq!(memory.call(first, 1, omit), 101);
        assert_eq!(memory.call(first.next(), 2, omit), 102);
        poller.join().unwrap();
    });
}

/// A client that withdraws its request as soon as it can, and uses the entry again when it is done.
fn check_withdrawal(omit: Omit) {
    builder(3).check(move || {
        let memory = new_memory();
        let poller = loom::thread::spawn(move || memory.poll(2, false, Omit::Nothing));
        let first = Use::first(1).next();
        memory.send(first, 1, omit);
        let withdrawn = protocol::doze(&memory.state, first) && protocol::withdraw(&memory.state, first);
        if omit != Omit::Withdrawal {
            while !protocol::is_done(&memory.state, first) {
                loom::thread::yield_now();
            }
        }
        assert_eq!(memory.call(first.next(), 2, omit), 102);
        let sum = poller.join().unwrap();
        assert!(sum == 3 || withdrawn && sum == 2);
    });
}

#[test]
fn every_request_is_served_once_and_nobody_sleeps_through_it() {
    check(false, Omit::Nothing);
}

#[test]
fn a_watched_entry_needs_no_doorbell() {
    check(true, Omit::Nothing);
}

#[test]
fn an_entry_that_was_given_up_is_used_again_only_when_it_is_done() {
    check_withdrawal(Omit::Nothing);
}

/// The model without a step, which must fail.
macro_rules! without {
    ($($name:ident: $check:expr;)*) => {$(
        #[test]
        #[should_panic]
        fn $name() {
            $check
        }
    )*};
}

without! {
    without_a_barrier_after_the_submission_the_poller_sleeps_on: check(true, Omit::SubmissionBarrier);
    without_the_doorbell_it_does: check(false, Omit::Doorbell);
    without_the_bit_set_before_the_doorbell_it_does: check(false, Omit::BitsAfterBell);
    without_rousing_it_does: check(false, Omit::Rousing);
    without_a_changed_word_it_does: check(false, Omit::Rung);
    without_lying_down_first_it_does: check(false, Omit::LyingDown);
    without_a_look_at_the_bells_it_does: check(false, Omit::LookAtBells);
    without_the_end_of_the_watch_it_does: check(true, Omit::Unwatching);
    without_a_second_look_at_what_was_watched_it_does: check(true, Omit::SecondLook);
    without_dozing_the_client_sleeps_on: check(false, Omit::Dozing);
    without_waking_it_does: check(false, Omit::Waking);
    without_waiting_for_the_answer_the_message_is_torn: check(false, Omit::Taking);
    without_the_last_ticket_a_request_is_served_twice: check_ticket(Omit::LastTicket);
    without_waiting_for_what_was_given_up_the_message_is_torn: check_withdrawal(Omit::Withdrawal);
}

/// A daemon that answers later, from another thread: the poller sees the bit of a request that it took by
/// watching the entry, before the answer is there.
fn check_ticket(omit: Omit) {
    builder(3).check(move || {
        let memory = new_memory();
        let this = Use::first(1).next();
        let client = loom::thread::spawn(move || memory.send(this, 1, Omit::Nothing));
        let mut last = Use::default();
        let mut taken = 0;
        for _ in 0..3 {
            let known = if omit == Omit::LastTicket { Use::default() } else { last };
            if let Some((found, _)) = protocol::look(&memory.state, known) {
                last = found;
                taken += 1;
            }
        }
        assert!(taken <= 1, "taken twice");
        client.join().unwrap();
    });
}

#[test]
fn a_request_that_was_taken_is_not_taken_again_before_its_answer() {
    check_ticket(Omit::Nothing);
}
