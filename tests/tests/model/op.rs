//! The operations, as data: so that a sequence can be made from a seed, run twice and cut down.

use e2e::Rng;

/// A name: one of few, so that operations meet. Directories nest by being named one in another.
pub type Name = &'static str;

const NAMES: [Name; 12] = [
    "a",
    "b",
    "c",
    "d",
    "d/a",
    "d/b",
    "d/e",
    "d/e/a",
    "d/e/b",
    "d/e/g",
    "link/a",
    "a very much longer name than the others",
];

/// An operation.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Op {
    Open {
        slot: usize,
        name: Name,
        create: bool,
        truncate: bool,
        exclusive: bool,
        append: bool,
        direct: bool,
    },
    Close {
        slot: usize,
    },
    Write {
        slot: usize,
        at: u64,
        len: usize,
        seed: u64,
    },
    Read {
        slot: usize,
        at: u64,
        len: usize,
    },
    Truncate {
        slot: usize,
        size: u64,
    },
    Allocate {
        slot: usize,
        at: u64,
        len: u64,
        keep: bool,
    },
    Punch {
        slot: usize,
        at: u64,
        len: u64,
    },
    Zero {
        slot: usize,
        at: u64,
        len: u64,
        keep: bool,
    },
    Copy {
        from: usize,
        to: usize,
        read: u64,
        write: u64,
        len: usize,
    },
    Map {
        slot: usize,
        at: u64,
        len: usize,
        seed: u64,
    },
    Sync {
        slot: usize,
    },
    Forget {
        slot: usize,
    },
    Mkdir {
        name: Name,
        mode: u32,
    },
    Mkfifo {
        name: Name,
    },
    Symlink {
        target: Name,
        name: Name,
    },
    Link {
        from: Name,
        to: Name,
    },
    Rename {
        from: Name,
        to: Name,
        flags: u32,
    },
    Unlink {
        name: Name,
    },
    Rmdir {
        name: Name,
    },
    Chmod {
        name: Name,
        mode: u32,
    },
    Chown {
        name: Name,
        uid: u32,
        gid: u32,
    },
    SetTimes {
        name: Name,
        seconds: i64,
    },
    SetXattr {
        name: Name,
        attribute: u8,
        len: usize,
        flags: u32,
    },
    RemoveXattr {
        name: Name,
        attribute: u8,
    },
    PathTruncate {
        name: Name,
        size: u64,
    },
    Stat {
        name: Name,
    },
    List {
        name: Name,
    },
}

/// How many files are open at most.
pub const SLOTS: usize = 5;

impl Op {
    /// Makes an open that would pass the kernel's cache one that does not.
    pub fn through_the_cache(&mut self) {
        if let Self::Open { direct, .. } = self {
            *direct = false;
        }
    }

    /// Any operation.
    pub fn random(rng: &mut Rng) -> Self {
        // Data and names in equal parts; opening often enough that most slots are in use.
        match rng.below(10) {
            0..=1 => Self::open(rng),
            2..=5 => Self::on_data(rng),
            _ => Self::on_names(rng),
        }
    }

    fn open(rng: &mut Rng) -> Self {
        let slot = rng.below(SLOTS as u64) as usize;
        if rng.one_in(6) {
            return Op::Close { slot };
        }
        Op::Open {
            slot,
            name: rng.pick(&NAMES),
            create: !rng.one_in(4),
            truncate: rng.one_in(8),
            exclusive: rng.one_in(10),
            append: rng.one_in(8),
            direct: rng.one_in(6),
        }
    }

    fn on_data(rng: &mut Rng) -> Self {
        let slot = rng.below(SLOTS as u64) as usize;
        let (at, len) = (offset(rng), length(rng));
        match rng.below(18) {
            0..=4 => Op::Write { slot, at, len, seed: rng.next() },
            5..=8 => Op::Read { slot, at, len },
            9..=10 => Op::Truncate { slot, size: at },
            11 => Op::Allocate { slot, at, len: len as u64, keep: rng.one_in(2) },
            12 => Op::Punch { slot, at, len: len as u64 },
            13 => Op::Copy {
                from: slot,
                to: rng.below(SLOTS as u64) as usize,
                read: at,
                write: offset(rng),
                len,
            },
            16 => Op::Forget { slot },
            15 => Op::Zero { slot, at, len: len as u64, keep: rng.one_in(2) },
            14 => Op::Map { slot, at, len: len.max(1), seed: rng.next() },
            _ => Op::Sync { slot },
        }
    }

    fn on_names(rng: &mut Rng) -> Self {
        let name = rng.pick(&NAMES);
        let other = rng.pick(&NAMES);
        match rng.below(20) {
            0..=2 => Op::Mkdir {
                name: rng.pick(&["d", "d/e", "d/e/g", "c", "b"]),
                mode: rng.pick(&[0o755, 0o2750, 0o1777]),
            },
            3 => Op::Mkfifo { name },
            4 => Op::Symlink {
                target: rng.pick(&["a", "d", "d/e", "link", "../b"]),
                name: rng.pick(&["link", "b", "d/b"]),
            },
            5..=6 => Op::Link { from: name, to: other },
            7..=9 => Op::Rename { from: name, to: other, flags: rng.pick(&[0, 0, 0, 1, 2]) },
            10..=11 => Op::Unlink { name },
            12 => Op::Rmdir { name },
            13 => Op::Chmod { name, mode: rng.pick(&[0o644, 0o6755, 0o2644, 0o000, 0o1777]) },
            14 => Op::Chown { name, uid: rng.pick(&[0, 1, 65534]), gid: rng.pick(&[0, 7]) },
            15 => Op::SetTimes { name, seconds: rng.below(1 << 33) as i64 - (1 << 31) },
            16 => Op::SetXattr {
                name,
                attribute: rng.below(3) as u8,
                len: rng.below(300) as usize,
                flags: rng.pick(&[0, 0, 1, 2]),
            },
            17 => Op::RemoveXattr { name, attribute: rng.below(3) as u8 },
            18 => Op::PathTruncate { name, size: offset(rng) },
            _ if rng.one_in(2) => Op::Stat { name },
            _ => Op::List { name: rng.pick(&["d", "d/e", "link", "."]) },
        }
    }
}

/// Mostly within some pages, often at their borders, seldom far out.
fn offset(rng: &mut Rng) -> u64 {
    match rng.below(8) {
        0..=3 => rng.below(40_000),
        4..=5 => rng.below(12) * 4096,
        6 => (rng.below(8) * 65_536).saturating_sub(rng.below(3)),
        _ => rng.below(3_000_000),
    }
}

fn length(rng: &mut Rng) -> usize {
    (match rng.below(6) {
        0 => rng.below(10),
        1 => rng.below(4) * 4096,
        5 => rng.below(300_000),
        _ => rng.below(20_000),
    }) as usize
}
