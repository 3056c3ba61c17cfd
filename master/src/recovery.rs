//! Opening: loads the namespace, makes it a tree again if it is not one and may be mended, and compares
//! it with the pages that the daemon has.
//!
//! Invariant: nothing is committed, and no page is freed, before it is clear that the namespace will be
//! served.

use crate::config::MasterConfig;
use crate::error::MasterError;
use crate::namespace::check::{self, Loader, Mended};
use crate::namespace::{Limits, Namespace};
use crate::reclaim::Reclaimer;
use crate::store::Store;
use pool::addr::PageRun;
use pool::proto::meta::{Extent, Ino, Time};

/// What opening found, and did about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Inodes there are.
    pub inodes: u64,
    /// Inodes without a link that were removed, with their pages: files that were unlinked but still
    /// open when the master ended.
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

/// Loads the namespace from `store`, or makes a new one.
pub(crate) fn recover(
    config: &MasterConfig,
    store: &dyn Store,
    reclaimer: &Reclaimer,
    now: Time,
) -> Result<(Namespace, Recovery), MasterError> {
    let limits = Limits { page_size: config.page_size, max_inodes: config.max_inodes };
    let mut loader = Loader::new(limits);
    store.load(&mut |change| loader.add(change))?;
    let (mut ns, loaded) = loader.finish();
    let fixed = check::mend(&mut ns, loaded, config.root, now)?;
    if !config.repair {
        refuse_damage(config, &fixed)?;
    }
    store.begin()?;
    fixed.batches.iter().try_for_each(|changes| store.commit(changes))?;
    let found = reclaimer.reconcile(held(&ns))?;
    let recovery = Recovery {
        inodes: ns.len() as u64,
        orphans: fixed.orphans,
        leaked: found.leaked,
        missing: missing(&ns, &found.missing),
        repairs: fixed.repairs.iter().map(ToString::to_string).collect(),
    };
    Ok((ns, recovery))
}

/// An error if anything had to be mended that the end of a process cannot have done.
fn refuse_damage(config: &MasterConfig, fixed: &Mended) -> Result<(), MasterError> {
    let Some(first) = fixed.repairs.first() else { return Ok(()) };
    let state = config.store.as_ref().map_or_else(|| "the store".into(), |dir| dir.display().to_string());
    Err(MasterError::Damaged { state, count: fixed.repairs.len(), first: first.wrong.clone() })
}

/// Every page that a file has.
fn held(ns: &Namespace) -> Vec<PageRun> {
    let maps = ns.iter().filter_map(|(_, inode)| inode.extents());
    maps.flat_map(|map| map.iter()).map(|e| e.run).collect()
}

/// The parts of files that are among these pages.
fn missing(ns: &Namespace, pages: &[PageRun]) -> Vec<MissingPages> {
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
