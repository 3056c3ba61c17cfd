//! Joining, staying, leaving.

use crate::racks::{Racks, config, count, rack, until};
use daemon::{Opened, RegionSource};
use pool::addr::{PageSize, RackId};
use pool::cxl::region::{Region, Spec};
use pool::proto::NodeId;
use pool::transport::fault::Fate;
use std::path::Path;

fn on_disk(id: usize, pages: u64, path: &Path) -> daemon::ClusterConfig {
    daemon::ClusterConfig { source: RegionSource::Path(path.to_owned()), ..config(id, pages) }
}

fn refusal(racks: &mut Racks, config: daemon::ClusterConfig) -> String {
    let error = racks.start(config).err().expect("refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn a_rack_that_is_served_gets_no_second_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let mut racks = Racks::new(&[4]);
    let other = dir.path().join("other");
    let error = refusal(&mut racks, on_disk(0, 4, &other));
    assert!(error.contains("rack 0 is served"), "{error}");
    assert!(!other.exists(), "no region is left behind");
    assert_eq!(count(&racks.alloc(0, 1, 0).unwrap().0), 1);
}

#[test]
fn regions_that_do_not_fit_the_cluster_are_refused_and_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region");
    let mut racks = Racks::none();
    let mut make = |cluster: u128, page_size: u64| {
        let _ = std::fs::remove_file(&path);
        let page_size = PageSize::from_bytes(page_size).unwrap();
        let spec = Spec { rack: RackId(0), page_size, size: 64 << 10, cluster: Some(cluster), channels: 1 };
        drop(Region::open(&RegionSource::Path(path.clone()), &spec).unwrap());
        let before = std::fs::read(&path).unwrap();
        let error = refusal(&mut racks, on_disk(0, 16, &path));
        assert!(std::fs::read(&path).unwrap() == before, "nothing was changed");
        error
    };
    let error = make(0xBAD, 4096);
    assert!(error.contains("cluster") && error.contains("bad"), "{error}");
    let error = make(0xC0FFEE, 8192);
    assert!(error.contains("pages of"), "{error}");
}

#[test]
fn a_daemon_ends_without_a_master_and_says_what_to_do() {
    let mut racks = Racks::none();
    racks.fate(|_, _, _| Fate::DropRequest);
    let error = refusal(&mut racks, config(0, 4));
    assert!(error.contains("--master"), "{error}");
}

#[test]
fn a_master_that_comes_a_little_later_is_waited_for() {
    let mut racks = Racks::none();
    let calls = std::sync::atomic::AtomicUsize::new(0);
    racks.fate(move |_, _, _| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0..3 => Fate::DropRequest,
        _ => Fate::Deliver,
    });
    let patient = daemon::ClusterConfig { patience: std::time::Duration::from_secs(30), ..config(0, 4) };
    racks.start(patient).unwrap();
    assert_eq!(count(&racks.alloc(0, 4, 0).unwrap().0), 4);
}

#[test]
fn a_master_that_forgot_a_daemon_gets_it_back() {
    let racks = Racks::new(&[4, 4]);
    racks.master.forget();
    until("both joined again", || {
        (0..2).all(|id| racks.master.rack(rack(id)).is_some_and(|rack| rack.alive))
    });
    assert_eq!(racks.master.joins(), 4);
    assert_eq!(count(&racks.alloc(0, 8, 0).unwrap().0), 8);
}

#[test]
fn a_rack_goes_on_while_the_master_is_away() {
    let racks = Racks::new(&[4, 4]);
    racks.fate(|_, to, _| if to == NodeId::Master { Fate::DropRequest } else { Fate::Deliver });
    let (runs, _) = racks.alloc(0, 4, 0).unwrap();
    assert_eq!(racks.free(0, &runs), Ok(4));
    assert_eq!(count(&racks.alloc(0, 8, 0).unwrap().0), 8, "also with the other rack");
    racks.fate(|_, _, _| Fate::Deliver);
    until("the master hears of it", || racks.master.rack(rack(1)).is_some_and(|rack| rack.stats.free == 0));
}

#[test]
fn a_daemon_that_ends_leaves_the_cluster_and_its_region_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("region");
    let mut racks = Racks::none();
    racks.start(on_disk(0, 8, &path)).unwrap();
    let (runs, _) = racks.alloc(0, 3, 0).unwrap();
    racks.stop(0);
    assert!(racks.master.rack(rack(0)).is_some_and(|rack| !rack.alive));
    let daemon = racks.start(on_disk(0, 8, &path)).unwrap();
    assert_eq!(*daemon.opened(), Opened::Reopened { clean: true, pages: 3, bad: vec![] });
    let (more, _) = racks.alloc(0, 5, 0).unwrap();
    assert!(more[0].first.raw() > runs[0].first.raw(), "ids are not given out again");
    assert_eq!(racks.free(0, &runs), Ok(3));
}

#[test]
fn racks_that_have_gone_are_not_counted() {
    let mut racks = Racks::new(&[4, 4]);
    assert_eq!(racks.stat(0).total, 8);
    racks.stop(1);
    until("gone", || racks.stat(0).total == 4);
    let refused = racks.alloc(0, 5, 0);
    assert_eq!(refused, Err(pool::proto::page::PageError::OutOfMemory { wanted: 5, free: 4 }));
}
