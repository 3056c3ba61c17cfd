//! A full pool: who gets the last pages, who is told, and that all of it comes back.

use super::rig::{CACHE, PROGRAM, RESERVE, rig};
use parking_lot::Mutex;
use pool::proto::meta::{Attr, Ino, Time};
use rchfs::fs::errno::errno;
use rchfs::fs::ranges::Falloc;
use rchfs::fs::{FsError, Kernel, Settled};
use std::sync::Arc;

const PAGE: [u8; 4096] = [5; 4096];

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Ino>>>);

impl Kernel for Told {
    fn forget_attributes(&self, ino: Ino) {
        self.0.lock().push(ino);
    }

    fn set_mtime(&self, _: Ino, _: Time) {}

    fn drop_pages(&self, _ino: Ino) {}

    fn attributes_changed(&self, _ino: Ino) {}

    fn names_changed(&self, _ino: Ino) {}

    fn about_to_wait(&self) {}

    fn drop_name(&self, _dir: Ino, _name: &[u8]) {}

    fn forget_names(&self) {}

    fn limit_dirty(&self, _: u64) {}

    fn ask_for_size(&self, _: &Attr) {}

    fn believed_size(&self, _: Ino) -> Option<u64> {
        None
    }

    fn correct(&self, _: &Attr, _: u64) -> Settled {
        Settled::NotNow
    }

    fn shorten(&self, _: &Attr, _: u64) {}

    fn write_back_soon(&self, _: Ino) {}
}

#[test]
fn a_program_stops_at_the_reserve_and_the_cache_may_use_it() {
    let rig = rig(64, 4096);
    let told = Told::default();
    rig.fs.set_kernel(Box::new(told.clone()));
    let (ino, handle) = rig.create("f");
    let mut at = 0;
    let error = loop {
        match rig.fs.write(handle, at, &PAGE, PROGRAM) {
            Ok(()) => at += 4096,
            Err(e) => break e,
        }
    };
    assert_eq!(errno(&error), libc::ENOSPC);
    assert_eq!(rig.fs.space().unwrap().available, 0);
    assert_eq!(at, (64 - RESERVE) * 4096);
    assert!(rig.fs.getattr(ino, Some(handle)).is_ok());

    rig.fs.write(handle, at, &PAGE, CACHE).unwrap();
    assert_eq!(*told.0.lock(), [ino], "the kernel is made to ask before the next buffered write");
    assert!(matches!(rig.fs.getattr(ino, Some(handle)), Err(FsError::Full)));
    assert!(rig.fs.getattr(ino, None).is_ok(), "stat still works");
    rig.fs.write(handle, 0, &PAGE, PROGRAM).unwrap();

    for _ in 1..RESERVE {
        at += 4096;
        rig.fs.write(handle, at, &PAGE, CACHE).unwrap();
    }
    assert!(matches!(rig.fs.write(handle, at + 4096, &PAGE, CACHE), Err(FsError::Full)));
    assert_eq!(rig.read_all(handle).len() as u64, at + 4096);
}

#[test]
fn space_of_an_unlinked_file_is_there_for_the_next_write() {
    let rig = rig(64, 4096);
    let room = (64 - RESERVE) as usize * 4096;
    for round in 0..3 {
        let (_, handle) = rig.create("f");
        rig.fs.write(handle, 0, &vec![round; room], PROGRAM).unwrap();
        rig.fs.release(handle).unwrap();
        rig.fs.unlink(Ino::ROOT, b"f").unwrap();
        // The kernel has not said that it forgot it: it counts as free all the same.
        assert_eq!(rig.used(), 0);
    }
}

#[test]
fn fallocate_takes_all_or_nothing() {
    let rig = rig(64, 4096);
    let (_, handle) = rig.create("f");
    let what = Falloc::Allocate { keep_size: false };
    assert!(matches!(rig.fs.fallocate(handle, 0, 100 * 4096, what, false), Err(FsError::Full)));
    assert_eq!(rig.used(), 0);
    rig.fs.fallocate(handle, 0, 48 * 4096, what, false).unwrap();
    assert_eq!(rig.used(), 48);
    assert_eq!(rig.read_all(handle), vec![0; 48 * 4096]);
}

#[test]
fn holes_cost_nothing() {
    let rig = rig(64, 4096);
    let (_, handle) = rig.create("f");
    for i in 0..8 {
        rig.fs.write(handle, i << 40, &[1], PROGRAM).unwrap();
    }
    assert_eq!(rig.used(), 8);
}
