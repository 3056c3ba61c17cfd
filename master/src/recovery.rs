//! Opening: loads the namespace and the cluster, makes a tree of it again if it is not one and may be
//! mended, and begins a new term. And which files the pages are of that do not exist.
//!
//! Invariant: nothing is committed, and no page is freed, before it is clear that the namespace will be
//! served.

use crate::change::{Change, ClusterChange};
use crate::cluster;
use crate::config::{MasterConfig, Pages};
use crate::directory::Directory;
use crate::error::MasterError;
use crate::namespace::check::{self, Loader, Mended, Repair};
use crate::namespace::{Limits, Namespace};
use crate::racks::Racks;
use crate::store::{Store, StoreError};
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::NodeId;
use pool::proto::cluster::{ClientName, Cluster};
use pool::proto::meta::{Extent, Ino, Time};
use std::collections::BTreeMap;

/// What opening found, and did about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Inodes there are.
    pub inodes: u64,
    /// Inodes without a link that were removed, with their pages: files that were unlinked but still
    /// open when the master ended, unless a mount may come back that has them open.
    pub orphans: u64,
    /// Pages that no file had and that returned to the pool.
    pub leaked: u64,
    /// Pages that files have but the pool has not. They stay in their files, where reading them fails.
    pub missing: Vec<MissingPages>,
    /// What was wrong with the tree, and what was done about it; a sentence each.
    pub repairs: Vec<String>,
}

/// Pages of a file that do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPages {
    /// The file.
    pub ino: Ino,
    /// One of its names, from the root, with what is no UTF-8 replaced.
    pub path: String,
    /// Where in the file, and which pages.
    pub extent: Extent,
}

/// What was loaded, and is served from now on.
pub(crate) struct Recovered {
    pub ns: Namespace,
    /// Without what comparing pages finds.
    pub recovery: Recovery,
    pub holders: Holders,
    /// Sessions of mounts that may come back, and which clients those are.
    pub mounts: BTreeMap<u64, (RackId, ClientName)>,
    /// Inodes without a link that those may have open.
    pub nameless: Vec<Ino>,
}

/// Who holds the pages, with what was loaded about them.
pub(crate) enum Holders {
    /// One daemon.
    One(NodeId),
    /// A cluster, in its new term.
    Cluster(Cluster, (Racks, Directory)),
}

/// Loads everything from `store`, or makes a new namespace in a new cluster.
pub(crate) fn recover(config: &MasterConfig, store: &dyn Store, now: Time) -> Result<Recovered, MasterError> {
    let limits = Limits { page_size: config.page_size, max_inodes: config.max_inodes };
    let (mut names, mut cluster) = (Loader::new(limits), cluster::Loader::new(config.page_size));
    store.load(&mut |change| match change {
        Change::Cluster(change) => cluster.add(change),
        change => names.add(change),
    })?;
    let (mut ns, loaded) = names.finish();
    let mounts = std::mem::take(&mut cluster.mounts);
    let mut fixed = check::mend(&mut ns, loaded, config.root, now, !mounts.is_empty())?;
    let done = "those pages are nowhere until their blocks are known again";
    let lost = cluster.wrong.drain(..).map(|wrong| Repair { wrong, done: done.into() });
    fixed.repairs.extend(lost);
    let term = next_term(config, &cluster)?;
    if !config.repair {
        refuse_damage(config, &fixed)?;
    }
    store.begin()?;
    fixed.batches.iter().try_for_each(|changes| store.commit(changes))?;
    let holders = match config.pages {
        Pages::Daemon(node) => Holders::One(node),
        Pages::Cluster => Holders::Cluster(begin_term(store, term)?, cluster.begin(term.term)),
    };
    let recovery = Recovery {
        inodes: ns.len() as u64,
        orphans: fixed.orphans,
        leaked: 0,
        missing: Vec::new(),
        repairs: fixed.repairs.iter().map(ToString::to_string).collect(),
    };
    Ok(Recovered { ns, recovery, holders, mounts, nameless: fixed.nameless })
}

/// The cluster that `config` describes, in the term after the last that is in the store.
fn next_term(config: &MasterConfig, loaded: &cluster::Loader) -> Result<Cluster, MasterError> {
    let (id, page_size) = (config.pool_id, config.page_size);
    let last = match loaded.was() {
        Some(was) if was.id != id || was.page_size != page_size => {
            return Err(MasterError::Store(StoreError::Mismatch(format!(
                "the state is that of cluster {:032x} with pages of {}, and this is {id:032x} with pages of \
                 {page_size}; give another state directory",
                was.id, was.page_size
            ))));
        }
        Some(was) => was.term,
        None => 0,
    };
    Ok(Cluster { id, page_size, term: last.saturating_add(1) })
}

/// Makes a term the present one, for good: it must not come again after loss of power, for what was given
/// up in it could then be committed.
fn begin_term(store: &dyn Store, cluster: Cluster) -> Result<Cluster, MasterError> {
    store.commit(&[Change::Cluster(ClusterChange::PutCluster(cluster))])?;
    store.sync()?;
    Ok(cluster)
}

/// An error if anything had to be mended that the end of a process cannot have done.
fn refuse_damage(config: &MasterConfig, fixed: &Mended) -> Result<(), MasterError> {
    let Some(first) = fixed.repairs.first() else { return Ok(()) };
    let state = config.store.as_ref().map_or_else(|| "the store".into(), |dir| dir.display().to_string());
    Err(MasterError::Damaged { state, count: fixed.repairs.len(), first: first.wrong.clone() })
}

/// Every page that a file has, once, in the order of ids.
pub(crate) fn held(ns: &Namespace) -> Vec<PageRun> {
    let mut runs: Vec<PageRun> = ns.runs().collect();
    runs.sort_unstable_by_key(|run| run.first);
    let mut end = 0;
    runs.retain_mut(|run| {
        // Pages that several files have were named before.
        let first = run.first.raw().max(end);
        let rest = run.end().checked_sub(first).and_then(|count| u32::try_from(count).ok());
        end = end.max(run.end());
        let rest = PageId::new(first).zip(rest).and_then(|(first, count)| PageRun::new(first, count));
        rest.is_some_and(|rest| {
            *run = rest;
            true
        })
    });
    runs
}

/// The parts of `asked`, which are in the order of ids, that no file has. One look at every run of every file.
pub(crate) fn unowned(ns: &Namespace, asked: &[PageRun]) -> Vec<PageRun> {
    let mut owned: Vec<(u64, u64)> = Vec::new();
    for run in ns.runs() {
        let (first, end) = (run.first.raw(), run.end());
        let from = asked.partition_point(|asked| asked.end() <= first);
        let met = asked[from..].iter().take_while(|asked| asked.first.raw() < end);
        owned.extend(met.map(|asked| (first.max(asked.first.raw()), end.min(asked.end()))));
    }
    owned.sort_unstable();
    let (mut owned, mut found) = (owned.into_iter().peekable(), Vec::new());
    for asked in asked {
        let mut at = asked.first.raw();
        // Pages that several files have come several times.
        while let Some((first, end)) = owned.next_if(|(first, _)| *first < asked.end()) {
            found.extend(run(at, first));
            at = at.max(end);
        }
        found.extend(run(at, asked.end()));
    }
    found
}

/// The pages from this id to that.
fn run(first: u64, end: u64) -> Option<PageRun> {
    PageRun::new(PageId::new(first)?, end.checked_sub(first)?.try_into().ok()?)
}

/// The parts of files that are among these pages.
pub(crate) fn missing(ns: &Namespace, pages: &[PageRun]) -> Vec<MissingPages> {
    if pages.is_empty() {
        return Vec::new();
    }
    let mut gone = pages.to_vec();
    gone.sort_unstable_by_key(|run| run.first);
    let mut found: Vec<(Ino, Extent)> = Vec::new();
    for (ino, inode) in ns.iter() {
        for extent in inode.extents().into_iter().flat_map(|map| map.iter()) {
            found.extend(common(extent, &gone).map(|part| (ino, part)));
        }
    }
    found.sort_unstable_by_key(|(ino, e)| (*ino, e.at));
    let paths = check::paths(ns, found.iter().map(|(ino, _)| *ino));
    let path = |ino: &Ino| paths.get(ino).cloned().unwrap_or_else(|| format!("(inode {})", ino.0));
    found.iter().map(|(ino, extent)| MissingPages { ino: *ino, path: path(ino), extent: *extent }).collect()
}

/// The parts of a run of a file that are among `gone`, which is in order.
fn common(extent: Extent, gone: &[PageRun]) -> impl Iterator<Item = Extent> {
    let (first, end) = (extent.run.first.raw(), extent.run.end());
    let from = gone.partition_point(move |run| run.end() <= first);
    gone[from..].iter().take_while(move |run| run.first.raw() < end).filter_map(move |run| {
        let start = run.first.max(extent.run.first);
        let count = (run.end().min(end) - start.raw()).try_into().ok()?;
        Some(Extent { at: extent.at + (start.raw() - first), run: PageRun::new(start, count)? })
    })
}
