//! The access slots: what each thread of each client is touching at the moment.
//!
//! A thread claims a slot once and keeps it. From then on it alone writes the slot's hazard word; the
//! daemon reads all of them when it takes frames away ([`protocol`](super::protocol)). A slot whose
//! owner is dead protects nothing and is freed by the daemon.

use super::layout::{AT_SLOTS_USED, SLOT_HAZARD, SLOT_HITS, SLOT_OWNER, SLOTS};
use super::protocol::SharedWord;
use super::region::{Region, Word};
use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// A process on a booted host: process id (22 bits), start time of the process in clock ticks
/// (26 bits), and a hash of the boot (16 bits), from the lowest bit up. A process that later gets the
/// same process id has another start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientId(u64);

const PID_BITS: u32 = 22;
const START_BITS: u32 = 26;

impl ClientId {
    /// The calling process.
    pub fn this_process() -> Self {
        let pid = std::process::id();
        Self::compose(pid, start_time(pid).unwrap_or(0))
    }

    fn compose(pid: u32, start: u64) -> Self {
        let start = start & ((1 << START_BITS) - 1);
        Self(boot_hash() << (PID_BITS + START_BITS) | start << PID_BITS | pid as u64)
    }

    /// The process with this number; `None` for zero.
    pub fn from_raw(raw: u64) -> Option<Self> {
        (raw != 0).then_some(Self(raw))
    }

    /// The number; not zero.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The process id.
    pub fn pid(self) -> u32 {
        (self.0 & ((1 << PID_BITS) - 1)) as u32
    }

    /// Whether the process still runs. One of an earlier boot does not. (One of another host would seem
    /// not to either: only hosts that share a kernel may share a region in this version.)
    pub fn is_alive(self) -> bool {
        start_time(self.pid()).is_some_and(|start| Self::compose(self.pid(), start) == self)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::fs::read_to_string(format!("/proc/{}/comm", self.pid())) {
            Ok(name) if self.is_alive() => write!(f, "process {} ({})", self.pid(), name.trim_end()),
            _ => write!(f, "process {}", self.pid()),
        }
    }
}

/// When a process started, in clock ticks since boot; `None` if it has ended.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields after it start with the third.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(start)
}

fn boot_hash() -> u64 {
    static HASH: OnceLock<u64> = OnceLock::new();
    *HASH.get_or_init(|| {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        (crc32fast::hash(&boot) & 0xFFFF) as u64
    })
}

/// The slots of a region.
#[derive(Clone, Copy)]
pub struct Slots<'r>(&'r Region);

impl<'r> Slots<'r> {
    /// The slots of `region`.
    pub fn new(region: &'r Region) -> Self {
        Self(region)
    }

    fn owner(self, slot: u32) -> Option<Word<'r>> {
        Some(self.0.word(self.0.geometry().slot_at(slot)? + SLOT_OWNER))
    }

    /// The word by which the owner of `slot` says what it touches; `None` if there is no such slot.
    #[inline(always)]
    pub fn hazard(self, slot: u32) -> Option<Word<'r>> {
        Some(self.0.word(self.0.geometry().slot_at(slot)? + SLOT_HAZARD))
    }

    /// How many accesses were made by way of `slot`; `None` if there is no such slot. Its owner alone
    /// writes that, by plain stores.
    #[inline(always)]
    pub fn count(self, slot: u32) -> Option<Word<'r>> {
        Some(self.0.word(self.0.geometry().slot_at(slot)? + SLOT_HITS))
    }

    /// How many accesses there have been in all slots since the region was made. A slot keeps its count
    /// when its owner goes; the next one goes on from there.
    pub fn hits(self) -> u64 {
        self.used()
            .filter_map(|(slot, _)| self.count(slot))
            .fold(0, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
    }

    /// Claims a free slot; `None` if there is none. Low numbers first, so that scans stay short.
    pub fn claim(self, client: ClientId) -> Option<u32> {
        let slot = (0..SLOTS).find(|slot| {
            self.owner(*slot)
                .is_some_and(|owner| owner.load(Ordering::Relaxed) == 0 && owner.swap_if(0, client.raw()))
        })?;
        // Before the first publication, so that no scan that must see that one ends short of it.
        self.0.word(AT_SLOTS_USED).fetch_max(slot as u64 + 1);
        Some(slot)
    }

    /// Gives a slot back; only by its owner, or for a dead one.
    pub fn release(self, slot: u32) {
        if let (Some(hazard), Some(owner)) = (self.hazard(slot), self.owner(slot)) {
            hazard.store(0, Ordering::Release);
            owner.store(0, Ordering::Release);
        }
    }

    /// The slots that have ever been used, with what they name now.
    pub fn used(self) -> impl Iterator<Item = (u32, Word<'r>)> {
        let used = self.0.word(AT_SLOTS_USED).load(Ordering::Acquire).min(SLOTS as u64) as u32;
        (0..used).filter_map(move |slot| Some((slot, self.hazard(slot)?)))
    }

    /// Frees `slot` if its owner is dead. True if it was.
    pub fn release_if_dead(self, slot: u32) -> bool {
        let owner = self.owner(slot).and_then(|owner| ClientId::from_raw(owner.load(Ordering::Acquire)));
        let dead = owner.is_some_and(|owner| !owner.is_alive());
        if dead {
            self.release(slot);
        }
        dead
    }

    /// Frees the slots of all dead owners. Returns how many slots the living have.
    pub fn release_dead(self) -> usize {
        // Each process is looked up once, however many slots its threads have.
        let mut alive = HashMap::new();
        let mut is_alive = |client: ClientId| *alive.entry(client.raw()).or_insert_with(|| client.is_alive());
        let mut living = 0;
        for (slot, _) in self.used() {
            let owner = self.owner(slot).and_then(|owner| ClientId::from_raw(owner.load(Ordering::Acquire)));
            match owner {
                Some(client) if is_alive(client) => living += 1,
                Some(_) => living += usize::from(!self.release_if_dead(slot)),
                None => {}
            }
        }
        living
    }
}
