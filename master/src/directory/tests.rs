//! The directory against a model, with swaps that are repeated, resolved and late, daemons and masters that
//! are restarted, and ends between the store and the answer.

use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const RACKS: u16 = 3;

fn page(raw: u64) -> PageId {
    PageId::new(raw).unwrap()
}

/// A page of one of the first blocks; few, so that they meet.
fn some_page() -> impl Strategy<Value = PageId> {
    (0..4u64, 1..4u64).prop_map(|(block, i)| page(block * BLOCK + i))
}

fn some_rack() -> impl Strategy<Value = RackId> {
    (0..RACKS).prop_map(RackId)
}

/// What can happen. Numbers of terms and incarnations are counted back from the present ones.
#[derive(Clone, Debug)]
enum Step {
    Join { rack: RackId, back: u64 },
    TakeBlock { rack: RackId },
    Commit { token: Back, moves: Vec<(PageId, RackId, Option<RackId>)>, ends: bool },
    Resolve { token: Back },
    Prune { rack: RackId, oldest: u64 },
    Gone { rack: RackId, pages: Vec<PageId> },
    Restart,
}

/// A token, in present terms.
#[derive(Clone, Copy, Debug)]
struct Back {
    rack: RackId,
    incarnation: u64,
    term: u64,
    number: u64,
}

fn token() -> impl Strategy<Value = Back> {
    let mostly_now = || prop_oneof![8 => Just(0u64), 1 => Just(1u64), 1 => Just(2u64)];
    (some_rack(), mostly_now(), mostly_now(), 1..6u64).prop_map(|(rack, incarnation, term, number)| Back {
        rack,
        incarnation,
        term,
        number,
    })
}

fn step() -> impl Strategy<Value = Step> {
    // Mostly from where the page is (`None`), else from anywhere.
    let moves =
        prop::collection::vec((some_page(), some_rack(), prop::option::weighted(0.1, some_rack())), 1..3);
    prop_oneof![
        2 => (some_rack(), 0..2u64).prop_map(|(rack, back)| Step::Join { rack, back }),
        2 => some_rack().prop_map(|rack| Step::TakeBlock { rack }),
        12 => (token(), moves, prop::bool::weighted(0.05))
            .prop_map(|(token, moves, ends)| Step::Commit { token, moves, ends }),
        4 => token().prop_map(|token| Step::Resolve { token }),
        1 => (some_rack(), 0..6u64).prop_map(|(rack, oldest)| Step::Prune { rack, oldest }),
        1 => (some_rack(), prop::collection::vec(some_page(), 1..3))
            .prop_map(|(rack, pages)| Step::Gone { rack, pages }),
        1 => Just(Step::Restart),
    ]
}

/// What must be true, kept in the plainest way.
struct World {
    directory: Directory,
    /// What a store has.
    blocks: Vec<ClusterChange>,
    moved: HashMap<PageId, RackId>,
    term: u64,
    /// The newest incarnation of each rack, and the one that has joined in this term.
    newest: HashMap<RackId, u64>,
    joined: HashMap<RackId, u64>,
    oldest: HashMap<RackId, u64>,
    homes: HashMap<PageId, RackId>,
    resolved: HashSet<SwapToken>,
    done: HashSet<SwapToken>,
}

impl World {
    fn new() -> Self {
        Self {
            directory: Directory::new(1, PageSize::MIN),
            blocks: Vec::new(),
            moved: HashMap::new(),
            term: 1,
            newest: HashMap::new(),
            joined: HashMap::new(),
            oldest: HashMap::new(),
            homes: HashMap::new(),
            resolved: HashSet::new(),
            done: HashSet::new(),
        }
    }

    fn token(&self, back: Back) -> SwapToken {
        let newest = self.newest.get(&back.rack).copied().unwrap_or(10);
        SwapToken {
            rack: back.rack,
            incarnation: newest - back.incarnation,
            term: self.term.saturating_sub(back.term),
            number: back.number,
        }
    }

    fn store(&mut self, changes: &[ClusterChange]) {
        for change in changes {
            match change {
                ClusterChange::PutBlock(..) => self.blocks.push(change.clone()),
                ClusterChange::PutMoved(page, rack) => drop(self.moved.insert(*page, *rack)),
                ClusterChange::DelMoved(page) => drop(self.moved.remove(page)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn apply(&mut self, changes: &[ClusterChange]) {
        changes.iter().for_each(|change| self.directory.apply(change));
    }

    fn restart(&mut self) {
        self.term += 1;
        self.directory = Directory::new(self.term, PageSize::MIN);
        for block in &self.blocks {
            assert_eq!(self.directory.objection(block), None);
            self.directory.apply(block);
        }
        for (page, rack) in &self.moved {
            self.directory.apply(&ClusterChange::PutMoved(*page, *rack));
        }
        self.joined.clear();
        self.oldest.clear();
    }

    fn join(&mut self, rack: RackId, back: u64) {
        let newest = self.newest.entry(rack).or_insert(10);
        let incarnation = if back == 0 {
            *newest += 1;
            *newest
        } else {
            *newest
        };
        if self.directory.joined(rack, incarnation).is_ok() {
            if self.joined.insert(rack, incarnation) != Some(incarnation) {
                self.oldest.remove(&rack);
            }
        } else {
            assert_ne!(self.joined.get(&rack), Some(&incarnation), "the present daemon was refused");
        }
    }

    fn take_block(&mut self, rack: RackId) {
        let number = self.blocks.len() as u64;
        match (self.joined.get(&rack), number < 4) {
            (Some(&incarnation), true) => {
                assert!(self.directory.plan_block(rack, incarnation + 1).is_err());
                let change = self.directory.plan_block(rack, incarnation).unwrap();
                self.store(std::slice::from_ref(&change));
                self.apply(&[change]);
                self.homes.extend((1..4).map(|i| (page(number * BLOCK + i), rack)));
            }
            (None, _) => assert!(self.directory.plan_block(rack, 10).is_err()),
            _ => {}
        }
    }

    fn may_commit(&self, token: SwapToken, moves: &[Move]) -> bool {
        let distinct: HashSet<_> = moves.iter().map(|m| m.page).collect();
        token.term == self.term
            && self.joined.get(&token.rack) == Some(&token.incarnation)
            && token.number >= self.oldest.get(&token.rack).copied().unwrap_or(0)
            && !self.resolved.contains(&token)
            && distinct.len() == moves.len()
            && moves.iter().all(|m| {
                self.homes.get(&m.page) == Some(&m.from)
                    && m.from != m.to
                    && (m.from == token.rack || m.to == token.rack)
                    && self.joined.contains_key(&m.to)
            })
    }

    fn commit(&mut self, token: SwapToken, moves: &[(PageId, RackId, Option<RackId>)], ends: bool) {
        let from = |page: &PageId| self.homes.get(page).copied().unwrap_or(RackId(0));
        let moves: Vec<_> = moves
            .iter()
            .map(|(page, to, wrong)| Move { page: *page, from: wrong.unwrap_or(from(page)), to: *to })
            .collect();
        let may = self.may_commit(token, &moves);
        match self.directory.plan_commit(token, &moves) {
            Ok(changes) if changes.is_empty() => {
                assert!(self.done.contains(&token), "{token:?} has not been committed")
            }
            Ok(changes) => {
                assert!(may && !self.done.contains(&token), "{token:?} {moves:?}");
                self.store(&changes);
                self.homes.extend(moves.iter().map(|m| (m.page, m.to)));
                self.done.insert(token);
                if ends {
                    return self.restart();
                }
                self.apply(&changes);
                self.directory.committed(token);
            }
            Err(why) => assert!(!may, "{token:?} {moves:?}: {why}"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join { rack, back } => self.join(rack, back),
            Step::TakeBlock { rack } => self.take_block(rack),
            Step::Commit { token, moves, ends } => self.commit(self.token(token), &moves, ends),
            Step::Resolve { token } => {
                let token = self.token(token);
                self.directory.resolve(token).unwrap();
                self.resolved.insert(token);
            }
            Step::Prune { rack, oldest } => {
                if let Some(&incarnation) = self.joined.get(&rack) {
                    self.directory.prune(rack, incarnation + 1, u64::MAX);
                    self.directory.prune(rack, incarnation, oldest);
                    let known = self.oldest.entry(rack).or_default();
                    *known = oldest.max(*known);
                }
            }
            Step::Gone { rack, pages } => {
                let changes = self.directory.plan_gone(rack, &pages);
                self.store(&changes);
                self.apply(&changes);
                for gone in pages {
                    if self.homes.get(&gone) == Some(&rack) {
                        let Some(ClusterChange::PutBlock(_, own)) =
                            self.blocks.get((gone.raw() / BLOCK) as usize)
                        else {
                            panic!("{gone} has a home and no block")
                        };
                        self.homes.insert(gone, *own);
                    }
                }
            }
            Step::Restart => self.restart(),
        }
    }

    /// Every page has the home that it must have, asked for in any way.
    fn check(&self) {
        for block in 0..4 {
            for i in 1..4 {
                let page = page(block * BLOCK + i);
                assert_eq!(self.directory.home(page), self.homes.get(&page).copied(), "{page}");
            }
            let run = PageRun::new(page(block * BLOCK + 1), 3).unwrap();
            let mut parts = Vec::new();
            self.directory.split(run, &mut |home, part| parts.push((home, part)));
            let each: Vec<_> =
                parts.iter().flat_map(|(home, part)| part.iter().map(|p| (*home, p))).collect();
            let expected: Vec<_> = run.iter().map(|p| (self.homes.get(&p).copied(), p)).collect();
            assert_eq!(each, expected);
            assert!(parts.windows(2).all(|two| two[0].0 != two[1].0), "{parts:?}");
        }
        let away = self.homes.iter().filter(|(page, rack)| {
            let ClusterChange::PutBlock(_, own) = self.blocks[(page.raw() / BLOCK) as usize] else {
                panic!("no block")
            };
            **rack != own
        });
        assert_eq!(self.directory.moved().0, away.count() as u64, "a page that came home is remembered");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn homes_change_by_swaps_that_may_only_once_and_never_after_they_were_resolved(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut world = World::new();
        for rack in 0..RACKS {
            world.join(RackId(rack), 0);
            world.take_block(RackId(rack));
        }
        for step in steps {
            world.step(step);
            world.check();
        }
    }
}

fn two_racks() -> Directory {
    let mut directory = Directory::new(5, PageSize::MIN);
    for rack in 0..2 {
        directory.joined(RackId(rack), 1).unwrap();
        let block = directory.plan_block(RackId(rack), 1).unwrap();
        directory.apply(&block);
    }
    directory
}

fn swap(number: u64) -> SwapToken {
    SwapToken { rack: RackId(0), incarnation: 1, term: 5, number }
}

#[test]
fn a_daemon_that_was_succeeded_never_comes_back() {
    let mut directory = two_racks();
    directory.resolve(swap(1)).unwrap();
    directory.joined(RackId(0), 2).unwrap();
    assert!(directory.joined(RackId(0), 1).is_err(), "the fence of its swap is forgotten");
    // Nor does one that was asked about before it came.
    directory.resolve(SwapToken { incarnation: 9, ..swap(1) }).unwrap();
    assert!(directory.joined(RackId(0), 9).is_err());
    directory.joined(RackId(0), 2).unwrap();
}

#[test]
fn a_swap_of_a_term_to_come_cannot_be_resolved() {
    let mut directory = two_racks();
    let why = directory.resolve(SwapToken { term: 6, ..swap(1) }).unwrap_err().to_string();
    assert!(why.contains("old copy"), "{why}");
}

#[test]
fn a_run_over_blocks_of_one_rack_is_one_part() {
    let mut directory = Directory::new(1, PageSize::MIN);
    for rack in [0, 0, 1, 0] {
        directory.joined(RackId(rack), 1).unwrap();
        let block = directory.plan_block(RackId(rack), 1).unwrap();
        directory.apply(&block);
    }
    let parts = |directory: &Directory, first: u64, count: u64| {
        let mut parts = Vec::new();
        let run = PageRun::new(page(first), count as u32).unwrap();
        directory.split(run, &mut |home, part| {
            parts.push((home.map(|rack| rack.0), part.first.raw(), part.count))
        });
        parts
    };
    let block = BLOCK as u32;
    let found = parts(&directory, 1, 5 * BLOCK);
    let third = (Some(0), 3 * BLOCK, block);
    assert_eq!(
        found,
        [(Some(0), 1, 2 * block - 1), (Some(1), 2 * BLOCK, block), third, (None, 4 * BLOCK, block + 1)]
    );
    directory.apply(&ClusterChange::PutMoved(page(BLOCK + 7), RackId(1)));
    let found = parts(&directory, BLOCK + 6, 3);
    assert_eq!(found, [(Some(0), BLOCK + 6, 1), (Some(1), BLOCK + 7, 1), (Some(0), BLOCK + 8, 1)]);
}

#[test]
fn lost_records_of_blocks_are_noticed_and_leave_no_wrong_homes() {
    let mut directory = Directory::new(1, PageSize::MIN);
    directory.apply(&ClusterChange::PutBlock(0, RackId(4)));
    let gap = ClusterChange::PutBlock(2, RackId(4));
    assert!(directory.objection(&gap).is_some());
    directory.apply(&gap);
    assert_eq!(directory.home(page(BLOCK)), None);
    assert_eq!(directory.home(page(2 * BLOCK)), Some(RackId(4)));
    directory.apply(&ClusterChange::PutBlock(u64::MAX, RackId(4)));
    assert_eq!(directory.home(page(2 * BLOCK)), Some(RackId(4)));
    directory.joined(RackId(4), 1).unwrap();
    assert_eq!(directory.plan_block(RackId(4), 1), Ok(ClusterChange::PutBlock(3, RackId(4))));
}
