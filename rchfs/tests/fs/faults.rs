//! Messages that get lost are errors, and nothing is lost with them.

use super::rig::{PROGRAM, rig_with};
use pool::proto::meta::MetaRequest;
use pool::proto::{NodeId, Request};
use pool::transport::fault::{Fate, Faulty};
use rchfs::fs::errno::errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_write_whose_commit_is_lost_fails_and_the_file_stays_usable() {
    for fate in [Fate::DropRequest, Fate::DropReply] {
        let broken = Arc::new(AtomicBool::new(false));
        let rule = broken.clone();
        let rig = rig_with(64, 4096, |inner| {
            Arc::new(Faulty::new(inner, move |_, request: &Request| match request {
                Request::Meta(MetaRequest::Commit { .. }) if rule.load(Ordering::Relaxed) => fate,
                _ => Fate::Deliver,
            }))
        });
        let (_, handle) = rig.create("f");
        rig.fs.write(handle, 0, &[1; 5000], PROGRAM).unwrap();
        broken.store(true, Ordering::Relaxed);
        let error = rig.fs.write(handle, 5000, &[2; 10_000], PROGRAM).unwrap_err();
        assert_eq!(errno(&error), libc::EIO);
        broken.store(false, Ordering::Relaxed);
        let all = rig.read_all(handle);
        assert_eq!(all[..5000], [1; 5000]);
        assert!(all.len() == 5000 || all[5000..] == [2; 10_000], "{fate:?}");
        rig.fs.write(handle, 5000, &[3; 10_000], PROGRAM).unwrap();
        assert_eq!(rig.read_all(handle)[5000..], [3; 10_000]);
    }
}

#[test]
fn without_pages_a_write_fails_and_reading_goes_on() {
    let gone = Arc::new(AtomicBool::new(false));
    let rule = gone.clone();
    let rig = rig_with(64, 4096, |inner| {
        Arc::new(Faulty::new(inner, move |to, _: &Request| {
            if matches!(to, NodeId::Daemon(_)) && rule.load(Ordering::Relaxed) {
                Fate::DropRequest
            } else {
                Fate::Deliver
            }
        }))
    });
    let (_, handle) = rig.create("f");
    rig.fs.write(handle, 0, &[1; 4096], PROGRAM).unwrap();
    gone.store(true, Ordering::Relaxed);
    assert_eq!(errno(&rig.fs.write(handle, 4096, &[2; 4096], PROGRAM).unwrap_err()), libc::EIO);
    rig.fs.write(handle, 100, &[3; 100], PROGRAM).unwrap();
    let all = rig.read_all(handle);
    assert_eq!((all.len(), all[99], all[100]), (4096, 1, 3));
}
