//! What opening a pool found, in lines for people. Details go to the log, which the daemon and the master
//! do not write by themselves where this does.

use daemon::Opened;
use master::{MissingPages, Recovery};

/// Files named in a line; the log names them all.
const NAMED: usize = 3;

/// The lines; none if the pool was new, or left in order and complete.
pub fn notices(opened: &Opened, recovery: &Recovery) -> Vec<String> {
    let mut lines = Vec::new();
    if let Opened::Reopened { clean, bad, .. } = opened {
        if !clean {
            lines.push(unclean(recovery));
        }
        if !bad.is_empty() {
            lines.push(format!("{} damaged frames of the pool are not used any more", bad.len()));
        }
    }
    for repair in &recovery.repairs {
        log::warn!("repaired: {repair}");
    }
    if !recovery.repairs.is_empty() {
        lines.push(format!("the directory tree was damaged: {} repairs", recovery.repairs.len()));
    }
    if !recovery.missing.is_empty() {
        lines.push(missing(&recovery.missing));
    }
    lines
}

fn unclean(recovery: &Recovery) -> String {
    let Recovery { inodes, orphans, leaked, .. } = recovery;
    format!(
        "the pool was not unmounted last time; recovered {inodes} inodes, freed {leaked} pages that no file had \
         and {orphans} files that were unlinked"
    )
}

fn missing(missing: &[MissingPages]) -> String {
    let mut paths: Vec<&str> = missing.iter().map(|m| m.path.as_str()).collect();
    for m in missing {
        let (at, count) = (m.extent.at, m.extent.run.count);
        log::error!("{} (inode {}): {count} pages from page {at} on are lost", m.path, m.ino.0);
    }
    paths.dedup();
    let more = if paths.len() > NAMED { ", ..." } else { "" };
    let named = paths[..paths.len().min(NAMED)].join(", ");
    format!("{} files have lost data, and reading it fails: {named}{more}", paths.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::{PageId, PageRun};
    use pool::proto::meta::{Extent, Ino};

    fn lost(path: &str) -> MissingPages {
        let run = PageRun::new(PageId::FIRST, 2).unwrap();
        MissingPages { ino: Ino(2), path: path.into(), extent: Extent { at: 0, run } }
    }

    #[test]
    fn a_pool_in_order_says_nothing() {
        let recovery = Recovery { inodes: 5, ..Recovery::default() };
        assert!(notices(&Opened::Created, &recovery).is_empty());
        let clean = Opened::Reopened { clean: true, pages: 7, bad: vec![] };
        assert!(notices(&clean, &recovery).is_empty());
    }

    #[test]
    fn what_a_crash_left_and_what_is_lost_is_said() {
        let recovery = Recovery {
            inodes: 5,
            orphans: 1,
            leaked: 9,
            missing: ["/a", "/a", "/b", "/c", "/d"].map(lost).to_vec(),
            repairs: vec!["/x had no parent".into()],
        };
        let lines = notices(&Opened::Reopened { clean: false, pages: 7, bad: vec![] }, &recovery);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("not unmounted") && lines[0].contains("freed 9 pages"), "{}", lines[0]);
        assert!(lines[1].contains("1 repairs"), "{}", lines[1]);
        assert!(lines[2].contains("4 files") && lines[2].contains("/a, /b, /c, ..."), "{}", lines[2]);
    }
}
