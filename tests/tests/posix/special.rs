//! Pipes, sockets and devices that live in the file system.

use e2e::rustix::fs::{CWD, FileType, Mode, major, makedev, minor, mknodat};
use e2e::rustix::io::Errno;
use e2e::user::{NOBODY, as_id};
use e2e::{assert_errno, assert_os_error, on_fs, on_fs_as_root};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread;

#[test]
fn a_fifo_connects_two_processes() {
    on_fs("size=16M", |fs| {
        let path = fs.path("p");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
        let mut writer = e2e::run::command("sh", ["-c", "echo through the pipe > p"]);
        let mut writer = writer.current_dir(fs.dir()).spawn().unwrap();
        let mut said = String::new();
        File::open(&path).unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "through the pipe\n");
        assert!(writer.wait().unwrap().success());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    });
}

#[test]
fn a_stream_socket_accepts_connections() {
    on_fs("size=16M", |fs| {
        // sun_path has 108 bytes, hence from within the directory.
        let path = fs.path("s");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&said).unwrap();
        });
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
        server.join().unwrap();
        // Nobody listens any more; the name is still there and is in the way of another bind.
        assert_os_error(UnixStream::connect(&path), Errno::CONNREFUSED);
        assert_os_error(UnixListener::bind(&path), Errno::ADDRINUSE);
        fs::remove_file(&path).unwrap();
        UnixDatagram::bind(&path).unwrap();
    });
}

#[test]
fn a_socket_is_not_opened_as_a_file() {
    on_fs("size=16M", |fs| {
        mknodat(CWD, fs.path("s"), FileType::Socket, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_os_error(File::open(fs.path("s")), Errno::NXIO);
    });
}

#[test]
fn device_nodes_keep_their_numbers() {
    on_fs_as_root("size=16M", |fs| {
        let numbers = [(1, 3), (8, 255), (259, 1_048_575), (4095, 7)];
        for (i, (major_number, minor_number)) in numbers.into_iter().enumerate() {
            for (kind, name) in [(FileType::CharacterDevice, "c"), (FileType::BlockDevice, "b")] {
                let path = fs.path(&format!("{name}{i}"));
                mknodat(CWD, &path, kind, Mode::RUSR, makedev(major_number, minor_number)).unwrap();
                let meta = fs::metadata(&path).unwrap();
                assert_eq!(meta.file_type().is_char_device(), kind == FileType::CharacterDevice);
                assert_eq!(meta.file_type().is_block_device(), kind == FileType::BlockDevice);
                assert_eq!((major(meta.rdev()), minor(meta.rdev())), (major_number, minor_number));
            }
        }
    });
}

#[test]
fn a_device_node_opens_the_device_where_the_mount_allows_it() {
    on_fs_as_root("size=16M", |fs| {
        let path = fs.path("null");
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap();
        match File::options().read(true).write(true).open(&path) {
            Ok(mut null) => {
                null.write_all(b"gone").unwrap();
                assert_eq!(null.read(&mut [0; 10]).unwrap(), 0);
            }
            // mount(8): nodev, the default of FUSE mounts.
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::ACCESS.raw_os_error()), "{error}"),
        }
    });
}

#[test]
fn devices_are_made_by_root_only() {
    on_fs_as_root("size=16M", |fs| {
        let dir = fs.subdir("d", 0o777);
        as_id(NOBODY, || {
            let made = mknodat(CWD, dir.join("c"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3));
            assert_errno(made, Errno::PERM);
            mknodat(CWD, dir.join("p"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            mknodat(CWD, dir.join("s"), FileType::Socket, Mode::RUSR, 0).unwrap();
            mknodat(CWD, dir.join("f"), FileType::RegularFile, Mode::RUSR, 0).unwrap();
        });
        assert_errno(mknodat(CWD, dir.join("f"), FileType::Fifo, Mode::RUSR, 0), Errno::EXIST);
    });
}
