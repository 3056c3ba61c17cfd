//! The map of one file: which of its pages are which pages of the pool.
//!
//! Invariants: runs are disjoint and in order; runs that follow each other both in the file and in the
//! pool are one run (unless its length would not fit). A plan says what would change and touches nothing.

use pool::addr::PageRun;
use pool::proto::meta::{Extent, MetaError};
use std::collections::BTreeMap;

/// Up to so many runs are kept in a plain list.
const FEW: usize = 16;

/// The runs of a file. Most files have none or one.
#[derive(Clone, Debug)]
pub(crate) enum Extents {
    /// In order, at most [`FEW`].
    Few(Vec<Extent>),
    /// By the first page of the file.
    Many(BTreeMap<u64, PageRun>),
}

/// What must be done to a map, in this order: removals, then additions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MapPlan {
    /// Runs that go, by the first page of the file.
    pub remove: Vec<u64>,
    /// Runs that come.
    pub add: Vec<Extent>,
    /// Pages that the file no longer has there.
    pub freed: Vec<PageRun>,
    /// Pages of a file that this one gets too, or gets once more.
    pub shared: Vec<PageRun>,
    /// How many pages the file gets, not counting those it had at the same place.
    pub gained: u64,
}

impl MapPlan {
    /// How many pages the file loses.
    pub(crate) fn lost(&self) -> u64 {
        self.freed.iter().map(|run| u64::from(run.count)).sum()
    }
}

impl Extents {
    /// A map of nothing.
    pub(crate) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    /// The runs that map page `from` of the file or a later one, whole and in order.
    pub(crate) fn iter_from(&self, from: u64) -> Box<dyn Iterator<Item = Extent> + '_> {
        match self {
            Self::Few(list) => {
                let start = list.partition_point(|e| e.end() <= from);
                Box::new(list[start..].iter().copied())
            }
            Self::Many(map) => {
                let first = map.range(..=from).next_back().map(|(&at, &run)| Extent { at, run });
                let first = first.filter(|e| e.end() > from && e.at < from);
                Box::new(first.into_iter().chain(map.range(from..).map(|(&at, &run)| Extent { at, run })))
            }
        }
    }

    /// All runs in order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = Extent> + '_> {
        self.iter_from(0)
    }

    /// Puts a run, in the place of one that begins at the same page of the file.
    pub(crate) fn put(&mut self, extent: Extent) {
        match self {
            Self::Many(map) => {
                map.insert(extent.at, extent.run);
            }
            Self::Few(list) => match list.binary_search_by_key(&extent.at, |e| e.at) {
                Ok(i) => list[i] = extent,
                Err(_) if list.len() == FEW => {
                    let all = list.iter().copied().chain([extent]);
                    *self = Self::Many(all.map(|e| (e.at, e.run)).collect());
                }
                Err(i) => {
                    if list.is_empty() {
                        list.reserve_exact(1);
                    }
                    list.insert(i, extent);
                }
            },
        }
    }

    /// Removes the run that begins at this page of the file.
    pub(crate) fn remove(&mut self, at: u64) {
        match self {
            Self::Few(list) => {
                if let Ok(i) = list.binary_search_by_key(&at, |e| e.at) {
                    list.remove(i);
                }
                if list.is_empty() {
                    *list = Vec::new();
                }
            }
            Self::Many(map) => {
                map.remove(&at);
                if map.len() <= FEW / 2 {
                    *self = Self::Few(map.iter().map(|(&at, &run)| Extent { at, run }).collect());
                }
            }
        }
    }

    /// Plans to unmap the pages `from..to` of the file.
    pub(crate) fn plan_cut(&self, from: u64, to: u64) -> MapPlan {
        let mut plan = MapPlan::default();
        for old in self.iter_from(from).take_while(|e| e.at < to) {
            plan.freed.extend(part(old, from, to).map(|e| e.run));
            if old.at >= from {
                plan.remove.push(old.at);
            }
            plan.add.extend(part(old, 0, from));
            plan.add.extend(part(old, to, u64::MAX));
        }
        plan
    }

    /// Plans to map `new`, in the place of whatever is mapped there.
    ///
    /// # Errors
    /// `Invalid` if `new` is not in order, overlaps itself, or brings a page that the file already has at
    /// another place among those that are replaced or next to them (all of a map is not searched).
    pub(crate) fn plan_put(&self, new: &[Extent]) -> Result<MapPlan, MetaError> {
        check_new(new)?;
        let mut plan = MapPlan::default();
        let mut rest = new;
        while let Some(first) = rest.first() {
            let mut reach = first.end();
            let mut taken = 1;
            let mut old: Vec<Extent> = Vec::new();
            let mut around = self.iter_from(first.at.saturating_sub(1)).peekable();
            loop {
                while let Some(e) = around.next_if(|e| e.at <= reach) {
                    old.push(e);
                }
                let touched = reach.max(old.last().map_or(0, |e| e.end()));
                match rest.get(taken).filter(|e| e.at <= touched) {
                    Some(next) => reach = next.end(),
                    None => break,
                }
                taken += 1;
            }
            plan_cluster(&mut plan, &old, &rest[..taken])?;
            rest = &rest[taken..];
        }
        no_page_twice(&plan.freed, new)?;
        Ok(plan)
    }

    /// Plans to map pages `from..to` of the file as `shared` says, which is in order and lies in them, and has pages
    /// that are in a file already; what it leaves out becomes a hole.
    pub(crate) fn plan_share(&self, from: u64, to: u64, shared: &[Extent]) -> MapPlan {
        let old: Vec<Extent> = self.iter_from(from.saturating_sub(1)).take_while(|e| e.at <= to).collect();
        let outside = old.iter().flat_map(|&o| [part(o, 0, from), part(o, to, u64::MAX)]).flatten();
        let pieces = merged(outside.chain(shared.iter().copied()).collect());
        let begins =
            |list: &[Extent], at: u64| list.binary_search_by_key(&at, |e| e.at).ok().map(|i| list[i]);
        MapPlan {
            remove: old.iter().map(|o| o.at).filter(|&at| begins(&pieces, at).is_none()).collect(),
            add: pieces.iter().filter(|p| begins(&old, p.at) != Some(**p)).copied().collect(),
            freed: old.iter().filter_map(|&o| part(o, from, to)).map(|e| e.run).collect(),
            gained: shared.iter().map(|e| u64::from(e.run.count)).sum(),
            shared: shared.iter().map(|e| e.run).collect(),
        }
    }

    /// The pages `from..to` of the file, moved to begin at `at`, in order.
    pub(crate) fn moved(&self, from: u64, to: u64, at: u64) -> Vec<Extent> {
        let parts = self.iter_from(from).take_while(|e| e.at < to).filter_map(|e| part(e, from, to));
        parts.filter_map(|e| Some(Extent { at: at.checked_add(e.at - from)?, run: e.run })).collect()
    }
}

/// Replaces the runs `old`, all that touch `new`, by runs that also map `new`.
fn plan_cluster(plan: &mut MapPlan, old: &[Extent], new: &[Extent]) -> Result<(), MetaError> {
    let mut kept: Vec<Extent> = Vec::new();
    plan.gained += new.iter().map(|n| u64::from(n.run.count)).sum::<u64>();
    for &o in old {
        let mut from = o.at;
        let first = new.partition_point(|n| n.end() <= o.at);
        for n in new[first..].iter().take_while(|n| n.at < o.end()) {
            kept.extend(part(o, from, n.at));
            from = n.end();
            if let (Some(was), Some(is)) = (part(o, n.at, n.end()), part(*n, o.at, o.end())) {
                if was == is {
                    plan.gained -= u64::from(is.run.count);
                } else {
                    plan.freed.push(was.run);
                }
            }
        }
        kept.extend(part(o, from, u64::MAX));
    }
    no_page_twice(&kept.iter().map(|e| e.run).collect::<Vec<_>>(), new)?;
    let pieces = merged([&kept, new].concat());
    let begins = |list: &[Extent], at: u64| list.binary_search_by_key(&at, |e| e.at).ok().map(|i| list[i]);
    plan.remove.extend(old.iter().map(|o| o.at).filter(|&at| begins(&pieces, at).is_none()));
    plan.add.extend(pieces.iter().filter(|p| begins(old, p.at) != Some(**p)));
    Ok(())
}

/// The part of a run within the pages `from..to` of the file.
fn part(e: Extent, from: u64, to: u64) -> Option<Extent> {
    let at = e.at.max(from);
    let count = e.end().min(to).checked_sub(at)?;
    let first = e.run.first.checked_add(at - e.at)?;
    Some(Extent { at, run: PageRun::new(first, count.try_into().ok()?)? })
}

/// In order, with runs joined where they can be.
fn merged(mut pieces: Vec<Extent>) -> Vec<Extent> {
    pieces.sort_unstable_by_key(|e| e.at);
    let mut out: Vec<Extent> = Vec::with_capacity(pieces.len());
    for e in pieces {
        match out.last_mut().and_then(|last| joined(*last, e).map(|both| (last, both))) {
            Some((last, both)) => *last = both,
            None => out.push(e),
        }
    }
    out
}

fn joined(a: Extent, b: Extent) -> Option<Extent> {
    if a.end() != b.at || a.run.end() != b.run.first.raw() {
        return None;
    }
    let count = a.run.count.checked_add(b.run.count)?;
    Some(Extent { at: a.at, run: PageRun::new(a.run.first, count)? })
}

fn check_new(new: &[Extent]) -> Result<(), MetaError> {
    let bad = |what: &str| Err(MetaError::Invalid(what.into()));
    if new.iter().any(|e| PageRun::new(e.run.first, e.run.count).is_none()) {
        return bad("a run of pages is empty or leaves the id space");
    }
    if new.iter().any(|e| e.at.checked_add(u64::from(e.run.count)).is_none()) {
        return bad("a run of pages leaves the file");
    }
    if new.windows(2).any(|w| w[0].end() > w[1].at) {
        return bad("runs of pages are not in order, or overlap");
    }
    no_id_twice(new)
}

/// These runs of one file must not have a page in common.
fn no_id_twice(extents: &[Extent]) -> Result<(), MetaError> {
    let ids = id_ranges(extents);
    match ids.windows(2).find(|w| w[0].1 > w[1].0) {
        Some(w) => Err(MetaError::Invalid(format!("page {:x} is given to two places of the file", w[1].0))),
        None => Ok(()),
    }
}

/// First id and one past the last of each run, in the order of ids.
fn id_ranges(extents: &[Extent]) -> Vec<(u64, u64)> {
    let mut ids: Vec<(u64, u64)> = extents.iter().map(|e| (e.run.first.raw(), e.run.end())).collect();
    ids.sort_unstable();
    ids
}

/// A page that is mapped by `new` must not be among these, which the file has or had in another place.
fn no_page_twice(others: &[PageRun], new: &[Extent]) -> Result<(), MetaError> {
    if others.is_empty() {
        return Ok(());
    }
    let ids = id_ranges(new);
    for run in others {
        let i = ids.partition_point(|&(_, end)| end <= run.first.raw());
        if ids.get(i).is_some_and(|&(first, _)| first < run.end()) {
            return Err(MetaError::Invalid(format!(
                "page {} is already in another place of the file",
                run.first
            )));
        }
    }
    Ok(())
}
