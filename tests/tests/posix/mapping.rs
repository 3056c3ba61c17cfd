//! Files mapped into memory, alone and by two processes.

use e2e::map::Map;
use e2e::rustix::fs::{Mode, OFlags, open};
use e2e::rustix::io::Errno;
use e2e::rustix::mm::{MapFlags, ProtFlags};
use e2e::{Actor, assert_errno, on_fs, pattern};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

#[test]
fn a_shared_mapping_reads_and_writes_the_file() {
    on_fs("size=16M", |fs| {
        let data = pattern(1, 100_000);
        let file = fs.file("a", &data);
        let mut map = Map::new(&file, 0, 100_000, true).unwrap();
        assert!(map.read(0, 100_000) == data);
        map.write(5000, b"through the mapping");
        let mut got = [0; 19];
        file.read_exact_at(&mut got, 5000).unwrap();
        assert_eq!(&got, b"through the mapping");
        file.write_all_at(b"through the file", 70_000).unwrap();
        assert_eq!(map.read(70_000, 16), b"through the file");
        map.sync().unwrap();
        drop((map, file));
        assert_eq!(fs::read(fs.path("a")).unwrap()[5000..5019], *b"through the mapping");
    });
}

#[test]
fn a_private_mapping_keeps_its_changes_to_itself() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &[1; 8192]);
        let mut map = Map::new(&file, 0, 8192, false).unwrap();
        map.write(0, &[2; 100]);
        assert_eq!(map.read(0, 100), [2; 100]);
        assert_eq!(fs::read(fs.path("a")).unwrap(), [1; 8192]);
    });
}

#[test]
fn two_processes_see_each_others_stores() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &[0; 65_536]);
        let mut map = Map::new(&file, 0, 65_536, true).unwrap();
        let mut other = Actor::with_file(&fs.path("a"));
        other.ok("map 65536 shared");
        for i in 0..16usize {
            map.set(i * 4096, i as u8 + 1);
            assert_eq!(other.ok(&format!("peek {}", i * 4096)), (i + 1).to_string());
            other.ok(&format!("poke {} {}", i * 4096 + 1, i + 100));
            assert_eq!(map.get(i * 4096 + 1), i as u8 + 100);
        }
        other.ok("msync");
        other.kill();
        map.sync().unwrap();
        drop((map, file));
        let bytes = fs::read(fs.path("a")).unwrap();
        assert!((0..16).all(|i| bytes[i * 4096..i * 4096 + 2] == [i as u8 + 1, i as u8 + 100]));
    });
}

#[test]
fn a_mapping_outlives_close_and_unlink() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &pattern(2, 20_000));
        let mut map = Map::new(&file, 0, 20_000, true).unwrap();
        drop(file);
        fs::remove_file(fs.path("a")).unwrap();
        assert!(map.read(0, 20_000) == pattern(2, 20_000));
        map.write(100, b"still here");
        map.sync().unwrap();
        assert_eq!(map.read(100, 10), b"still here");
    });
}

#[test]
fn what_lies_between_the_end_and_the_page_end_never_reaches_the_file() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &[7; 100]);
        let mut map = Map::new(&file, 0, 4096, true).unwrap();
        assert!(map.read(100, 3996).iter().all(|byte| *byte == 0));
        map.write(100, &[9; 1000]);
        map.sync().unwrap();
        drop(map);
        assert_eq!(file.metadata().unwrap().len(), 100);
        if e2e::fixture::is_reference() {
            return; // tmpfs shows the stores when the file grows over them; POSIX leaves it open.
        }
        file.set_len(2000).unwrap();
        let mut got = vec![1; 2000];
        file.read_exact_at(&mut got, 0).unwrap();
        assert!(got[..100] == [7; 100] && got[100..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn stores_into_a_hole_allocate_it() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", b"");
        file.set_len(1 << 20).unwrap();
        let mut map = Map::new(&file, 0, 1 << 20, true).unwrap();
        for page in [3, 100, 255] {
            map.set(page * 4096 + 17, page as u8);
        }
        map.sync().unwrap();
        drop((map, file));
        let bytes = fs::read(fs.path("a")).unwrap();
        for (at, byte) in bytes.iter().enumerate() {
            let stored = [3, 100, 255].contains(&(at / 4096)) && at % 4096 == 17;
            assert_eq!(*byte, if stored { (at / 4096) as u8 } else { 0 }, "at {at}");
        }
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(fs.path("a")).unwrap().blocks(), 3 * 8);
    });
}

#[test]
fn a_mapping_needs_the_rights_of_the_descriptor() {
    on_fs("size=16M", |fs| {
        fs.file("a", &[0; 4096]);
        let reader = File::open(fs.path("a")).unwrap();
        assert_errno(Map::new(&reader, 0, 4096, true), Errno::ACCESS);
        Map::new(&reader, 0, 4096, false).unwrap();
        let dir = open(fs.dir(), OFlags::RDONLY, Mode::empty()).unwrap();
        assert_errno(Map::new(&dir, 0, 4096, false), Errno::NODEV);
    });
}

#[test]
fn programs_run_from_the_file_system() {
    on_fs("size=64M", |fs| {
        fs::copy("/bin/true", fs.path("true")).unwrap();
        e2e::run::ok(&mut e2e::run::command(fs.path("true").to_str().unwrap(), [""; 0]));
        let busy = File::options().write(true).open(fs.path("true")).unwrap();
        let error = std::process::Command::new(fs.path("true")).spawn().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::TXTBSY.raw_os_error()));
        drop(busy);
        let exec = Map::with(
            File::open(fs.path("true")).unwrap(),
            0,
            4096,
            ProtFlags::READ | ProtFlags::EXEC,
            MapFlags::PRIVATE,
        );
        assert_eq!(exec.unwrap().read(1, 3), b"ELF");
    });
}

#[test]
fn direct_reads_and_writes_agree_with_a_mapping() {
    on_fs("size=16M", |fs| {
        #[repr(align(4096))]
        struct Page([u8; 4096]);
        let file = fs.file("a", &[1; 16_384]);
        let mut map = Map::new(&file, 0, 16_384, true).unwrap();
        let direct = OFlags::RDWR | OFlags::DIRECT;
        let direct: File = open(fs.path("a"), direct, Mode::empty()).unwrap().into();
        let mut page = Box::new(Page([0; 4096]));
        map.write(4096, &[2; 4096]);
        direct.read_exact_at(&mut page.0, 4096).unwrap();
        assert_eq!(page.0, [2; 4096]);
        page.0 = [3; 4096];
        direct.write_all_at(&page.0, 8192).unwrap();
        assert_eq!(map.read(8192, 4096), [3; 4096]);
    });
}
