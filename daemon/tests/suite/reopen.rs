//! What a region gives back when it is opened again, after an orderly end and otherwise.

use crate::common::{Embedded, RACK, config, file};
use daemon::{BadWhy, Daemon, DaemonConfig, DaemonError, Opened, RegionError, RegionSource};
use pool::addr::{FrameNo, PageRun, RackId};
use pool::proto::page::{PageReply, PageRequest, Reconciled};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use pool::{Fill, PoolError};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("region");
    (dir, path)
}

/// Writes `bytes` over a file at `offset`, as a stray write would.
fn damage(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn refusal(path: &Path, change: impl FnOnce(&mut DaemonConfig)) -> String {
    let mut config = config(RegionSource::Path(path.to_owned()), 64 * 4096, 4096);
    change(&mut config);
    Daemon::start(config).map(|_| ()).unwrap_err().to_string()
}

pub fn reconcile(e: &Embedded, held: &[PageRun]) -> Reconciled {
    let request = Request::Page(PageRequest::Reconcile {
        held: held.to_vec(),
        ids: 0..pool::addr::PageId::LIMIT,
        free: true,
    });
    match e.transport.call(NodeId::Daemon(RACK), request).unwrap() {
        Reply::Page(Ok(PageReply::Reconciled(found))) => found,
        other => panic!("{other:?}"),
    }
}

fn read(e: &Embedded, run: PageRun) -> Result<Vec<u8>, PoolError> {
    let mut bytes = Vec::new();
    let len = run.count as usize * e.pool.page_size().bytes() as usize;
    e.pool.read_into(e.at(run.first, 0), len, &mut bytes).map(|()| bytes)
}

#[test]
fn pages_are_there_after_an_orderly_end_and_ids_go_on() {
    for dir in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        let path = dir.path().join("region");
        let e = file(&path, 64, 4096);
        assert_eq!(*e.daemon.opened(), Opened::Created);
        let (id, run) = (e.daemon.pool_id(), e.pool.alloc_runs(5, 0, Fill::Zeroed).unwrap()[0]);
        let gone = e.pool.alloc_page().unwrap();
        e.pool.write(e.at(run.first, 0), &[5; 5 * 4096]).unwrap();
        e.pool.free_page(gone).unwrap();
        e.pool.sync_runs(&[run]).unwrap();
        drop(e);

        let e = file(&path, 64, 4096);
        assert_eq!(*e.daemon.opened(), Opened::Reopened { clean: true, pages: 5, bad: vec![] });
        assert_eq!(e.daemon.pool_id(), id);
        assert_eq!(read(&e, run).unwrap(), [5; 5 * 4096]);
        assert_eq!(e.pool.stat().unwrap().free, 59);
        let next = e.pool.alloc_page().unwrap();
        assert_eq!(next.raw(), gone.raw() + 1, "an orderly end skips no ids, and repeats none");
        assert_eq!(e.pool.free_runs(&[run]), Ok(5));
    }
}

#[test]
fn a_region_of_another_size_page_size_or_rack_is_refused_with_what_to_do() {
    let (_dir, path) = place();
    drop(file(&path, 64, 4096));
    let size = refusal(&path, |c| c.size = 128 * 4096);
    assert!(size.contains("was made for 262144 bytes, not 524288; give size=262144"), "{size}");
    let page_size = refusal(&path, |c| c.page_size = pool::addr::PageSize::MAX);
    assert!(page_size.contains("pages of 4K, not 2M; give page_size=4K"), "{page_size}");
    let rack = refusal(&path, |c| c.rack = RackId(3));
    assert!(rack.contains("belongs to rack 0, not 3"), "{rack}");
    // Zero takes what there is.
    let e = crate::common::start(config(RegionSource::Path(path), 0, 4096));
    assert_eq!(e.pool.stat().unwrap().total, 64);
}

#[test]
fn a_damaged_superblock_is_refused_and_the_file_left_alone() {
    let (_dir, path) = place();
    drop(file(&path, 64, 4096));
    let whole = std::fs::read(&path).unwrap();
    let cases: [(u64, &[u8], &str); 4] = [
        (33, &[0xFF], "is damaged"),
        (8, &[9], "version 9"),
        (0, &[0], "not a pool"),
        (127, &[0xFF, 0], "is damaged"),
    ];
    for (offset, bytes, what) in cases {
        damage(&path, offset, bytes);
        let before = std::fs::read(&path).unwrap();
        let reason = refusal(&path, |_| ());
        assert!(reason.contains(what) && reason.contains("remove"), "{reason}");
        assert!(std::fs::read(&path).unwrap() == before);
        damage(&path, 0, &whole[..4096]);
    }
    OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    let reason = refusal(&path, |_| ());
    assert!(reason.contains("is cut short"), "{reason}");
}

#[test]
fn other_files_are_never_overwritten() {
    let (dir, path) = place();
    for contents in [vec![b'x'; 10], vec![b'x'; 100_000], vec![0; 100], vec![0; 100_000]] {
        std::fs::write(&path, &contents).unwrap();
        let reason = refusal(&path, |_| ());
        assert!(reason.contains("holds something that is not a pool"), "{reason}");
        assert_eq!(std::fs::read(&path).unwrap(), contents);
    }
    let reason = refusal(dir.path(), |_| ());
    assert!(reason.contains("neither a file nor a devdax device"), "{reason}");
    let reason = refusal(Path::new("/dev/null"), |_| ());
    assert!(reason.contains("neither a file nor a devdax device"), "{reason}");
    let reason = refusal(&dir.path().join("no/such/place"), |_| ());
    assert!(reason.contains("cannot open"), "{reason}");
}

#[test]
fn an_empty_or_sparse_file_becomes_a_region() {
    let (_dir, path) = place();
    for len in [0, 1 << 20, 1 << 30] {
        std::fs::File::create(&path).unwrap().set_len(len).unwrap();
        let e = file(&path, 64, 4096);
        assert_eq!(*e.daemon.opened(), Opened::Created);
        e.pool.alloc_page().unwrap();
    }
}

#[test]
fn impossible_sizes_are_refused_and_leave_no_file() {
    let (_dir, path) = place();
    let reason = refusal(&path, |c| c.size = 1024);
    assert!(reason.contains("a pool of 1024 bytes in pages of 4K is not possible"), "{reason}");
    let reason = refusal(&path, |c| c.size = 1 << 42);
    assert!(reason.contains("there is room for"), "{reason}");
    let reason = refusal(&path, |c| c.size = u64::MAX);
    assert!(reason.contains("not possible"), "{reason}");
    assert!(!path.exists());
}

#[test]
fn a_region_has_one_owner_and_the_second_is_told_who() {
    let (_dir, path) = place();
    let e = file(&path, 64, 4096);
    let reason = refusal(&path, |_| ());
    let me = format!("in use by process {} (", std::process::id());
    assert!(reason.contains(&me), "{reason}");
    drop(e);
    assert!(Daemon::start(config(RegionSource::Path(path), 64 * 4096, 4096)).is_ok());
}

#[test]
fn a_damaged_descriptor_is_reported_and_its_frame_never_given_out() {
    let (_dir, path) = place();
    let e = file(&path, 64, 4096);
    let run = e.pool.alloc_runs(10, 0, Fill::Zeroed).unwrap()[0];
    let g = *e.daemon.region().geometry();
    drop(e);
    let word = |frame: u32| {
        let mut bytes = [0; 8];
        let file = std::fs::File::open(&path).unwrap();
        file.read_exact_at(&mut bytes, g.descriptor_at(FrameNo(frame)).unwrap()).unwrap();
        u64::from_le_bytes(bytes)
    };
    let at = |frame: u32| g.descriptor_at(FrameNo(frame)).unwrap();
    // Frame 3: a flipped bit. Frame 5: a copy of frame 6's. Frame 7: wiped.
    damage(&path, at(3) + 2, &[(word(3) >> 16) as u8 ^ 4]);
    damage(&path, at(5), &word(6).to_le_bytes());
    damage(&path, at(7), &[0; 8]);

    let e = file(&path, 64, 4096);
    let Opened::Reopened { clean: true, pages: 7, bad } = e.daemon.opened() else {
        panic!("{:?}", e.daemon.opened())
    };
    let frames: Vec<(u32, BadWhy)> = bad.iter().map(|bad| (bad.frame.0, bad.why)).collect();
    assert_eq!(frames, [(3, BadWhy::Check), (5, BadWhy::Check)]);
    assert_eq!((e.pool.stat().unwrap().total, e.pool.stat().unwrap().free), (62, 55));
    for lost in [3, 5, 7] {
        let page = run.get(lost).unwrap();
        assert_eq!(read(&e, PageRun { first: page, count: 1 }), Err(PoolError::NoSuchPage(page)));
    }
    let missing: Vec<u64> = reconcile(&e, &[run]).missing.iter().map(|run| run.first.raw()).collect();
    assert_eq!(missing, [3, 5, 7].map(|i| run.get(i).unwrap().raw()));
    assert_eq!(e.pool.alloc_runs(55, 0, Fill::Zeroed).unwrap()[0].count, 55);
    assert!(e.pool.alloc_page().is_err());
    // What is in quarantined frames was not touched.
    assert_eq!(word(3) >> 20, run.get(3).unwrap().raw() >> 8);
}

#[test]
fn a_descriptor_of_a_page_that_was_never_given_out_is_reported() {
    use pool::cxl::frames::{State, word_of};
    let (_dir, path) = place();
    let e = file(&path, 64, 4096);
    e.pool.alloc_runs(4, 0, Fill::Zeroed).unwrap();
    let g = *e.daemon.region().geometry();
    drop(e);
    let forge = |page, frame| {
        let word = word_of(pool::addr::PageId::new(page).unwrap(), State::Stable, FrameNo(frame));
        damage(&path, g.descriptor_at(FrameNo(frame)).unwrap(), &word.to_le_bytes());
    };
    forge(1 << 40, 0);
    forge(2, 3);
    let e = file(&path, 64, 4096);
    let Opened::Reopened { pages: 2, bad, .. } = e.daemon.opened() else { panic!("{:?}", e.daemon.opened()) };
    let frames: Vec<(u32, BadWhy)> = bad.iter().map(|bad| (bad.frame.0, bad.why)).collect();
    assert_eq!(frames, [(0, BadWhy::NeverGivenOut), (3, BadWhy::Twice)]);
}

#[test]
fn a_damaged_page_index_is_made_anew() {
    let (_dir, path) = place();
    let e = file(&path, 1000, 4096);
    let run = e.pool.alloc_runs(900, 0, Fill::Zeroed).unwrap()[0];
    e.pool.write(e.at(run.first, 899 * 4096), b"the end").unwrap();
    let g = *e.daemon.region().geometry();
    drop(e);
    let nonsense: Vec<u8> = (0..g.index_entries * 4).map(|i| (i * 13 + 7) as u8).collect();
    damage(&path, g.index_at, &nonsense);
    let e = file(&path, 1000, 4096);
    assert_eq!(&read(&e, PageRun { first: run.get(899).unwrap(), count: 1 }).unwrap()[..7], b"the end");
    assert_eq!(e.pool.free_runs(&[run]), Ok(900));
}

#[test]
fn reconciling_frees_what_nobody_holds_and_names_what_is_missing() {
    let (_dir, path) = place();
    let e = file(&path, 64, 4096);
    let run = e.pool.alloc_runs(20, 0, Fill::Zeroed).unwrap()[0];
    let page = |i| run.get(i).unwrap();
    e.pool.free_page(page(4)).unwrap();
    let held = [
        PageRun { first: page(2), count: 5 },
        PageRun { first: page(12), count: 2 },
        PageRun { first: page(13), count: 3 },
        // More than there has ever been.
        PageRun { first: page(0).checked_add(5_000_000).unwrap(), count: u32::MAX },
    ];
    let found = reconcile(&e, &held);
    assert_eq!(found.leaked, 19 - 8);
    assert_eq!(found.missing, [PageRun { first: page(4), count: 1 }, held[3]]);
    assert_eq!(e.pool.stat().unwrap().free, 64 - 8);
    assert!(read(&e, PageRun { first: page(5), count: 2 }).is_ok());
    // An id that somebody holds is never given to another page.
    assert!(e.pool.alloc_page().unwrap().raw() >= held[3].end());
    assert_eq!(reconcile(&e, &[]).leaked, 9);
    assert_eq!(e.pool.stat().unwrap().free, 64);
}

#[test]
fn after_the_end_requests_are_refused() {
    let (_dir, path) = place();
    let e = file(&path, 64, 4096);
    let page = e.pool.alloc_page().unwrap();
    e.daemon.shutdown();
    assert!(matches!(e.pool.alloc_page(), Err(PoolError::Os(_))));
    assert!(matches!(e.pool.free_page(page), Err(PoolError::Os(_))));
    assert_eq!(e.pool.read(e.at(page, 0), &mut [1]), Ok(()));
    drop(e);
    assert_eq!(
        *file(&path, 64, 4096).daemon.opened(),
        Opened::Reopened { clean: true, pages: 1, bad: vec![] }
    );
}

#[test]
fn making_a_region_takes_no_time_or_memory_for_its_size() {
    let (_dir, path) = place();
    let start = Instant::now();
    let e = file(&path, (8 << 30) / 4096, 4096);
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    e.pool.alloc_page().unwrap();
    drop(e);
    assert!(path.metadata().unwrap().blocks() * 512 < 1 << 20);
    let start = Instant::now();
    let _e = file(&path, (8 << 30) / 4096, 4096);
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
}

#[test]
fn freed_memory_goes_back_to_the_system_and_comes_again_zeroed() {
    let (_dir, path) = place();
    let e = file(&path, 16 << 8, 4096);
    let used = || path.metadata().unwrap().blocks() * 512;
    let run = e.pool.alloc_runs(15 << 8, 0, Fill::Zeroed).unwrap()[0];
    e.pool.write(e.at(run.first, 0), &vec![9; 15 << 20]).unwrap();
    assert!(used() > 15 << 20);
    e.pool.free_runs(&[run]).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while used() > 4 << 20 {
        assert!(Instant::now() < end, "{} bytes still used", used());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(e.pool.stat().unwrap().free, 16 << 8);
    let run = e.pool.alloc_runs(16 << 8, 0, Fill::Zeroed).unwrap()[0];
    assert!(used() < 5 << 20, "zeroed again what was zero");
    assert!(read(&e, run).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn what_was_in_a_frame_of_an_earlier_run_is_not_taken_for_zero() {
    for dir in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
        let path = dir.path().join("region");
        let e = file(&path, 64, 4096);
        let run = e.pool.alloc_runs(64, 0, Fill::Zeroed).unwrap()[0];
        e.pool.write(e.at(run.first, 0), &[9; 64 * 4096]).unwrap();
        e.pool.free_runs(&[run]).unwrap();
        drop(e);
        let e = file(&path, 64, 4096);
        let run = e.pool.alloc_runs(64, 0, Fill::Zeroed).unwrap()[0];
        assert!(read(&e, run).unwrap().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn the_reason_is_an_error_of_its_own_kind() {
    let (_dir, path) = place();
    let _e = file(&path, 64, 4096);
    let again = Daemon::start(config(RegionSource::Path(path), 64 * 4096, 4096)).map(|_| ());
    assert!(matches!(again, Err(DaemonError::Region(RegionError::InUse { .. }))));
}
