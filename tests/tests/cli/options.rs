//! What is refused, and with what words.

use crate::{Place, refused};
use e2e::binary;
use e2e::mount::{is_mounted, mount_options, mount_source, mount_type};
use e2e::run::ok;
use std::fs;
use std::process::Command;

fn mount_rchfs(args: &[&str]) -> Command {
    let mut command = Command::new(binary::mount_rchfs());
    command.args(args);
    command
}

#[test]
fn help_and_version_are_printed() {
    if Place::new().is_none() {
        return;
    }
    let help = ok(&mut mount_rchfs(&["--help"]));
    for word in ["size", "page_size", "cxl", "state", "--foreground"] {
        assert!(help.contains(word), "{word} is not in the help");
    }
    assert!(ok(&mut mount_rchfs(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn unknown_options_are_named() {
    let Some(place) = Place::new() else { return };
    assert!(refused(&mut place.command("sise=64M"), 32).contains("sise"));
    assert!(refused(&mut place.command("size=64M,cash=none"), 32).contains("cash"));
    assert!(refused(place.command("size=64M").arg("--nonsense"), 1).contains("nonsense"));
    assert!(!is_mounted(place.dir()));
}

#[test]
fn impossible_sizes_are_refused_with_what_would_do() {
    let Some(place) = Place::new() else { return };
    for options in [
        "size=1K",
        "size=0",
        "size=banana",
        "size=-5M",
        "size=",
        "size",
        "size=99999999999999999999G",
        "size=64M,page_size=3K",
        "size=64M,page_size=4M",
        "size=64M,page_size=1",
        "size=64K,page_size=2M",
    ] {
        let said = refused(&mut place.command(options), 32);
        assert!(said.contains("size"), "{options}: {said}");
    }
    assert!(!is_mounted(place.dir()));
}

#[test]
fn one_kibibyte_of_memory_is_told_the_least_that_works() {
    let Some(place) = Place::new() else { return };
    let said = refused(&mut place.command("size=1K"), 32);
    // The size it names does work.
    let least = said.split_whitespace().rev().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let least = least.expect("a size is named").trim_end_matches(['.', ',', ';', ')']);
    ok(&mut place.command(&format!("size={least}")));
    fs::write(place.dir().join("a"), b"fits").unwrap();
    place.unmount();
}

#[test]
fn a_missing_directory_and_a_file_are_told_apart() {
    let Some(place) = Place::new() else { return };
    let missing = place.beside("missing").display().to_string();
    let said = refused(&mut mount_rchfs(&[&missing, "-o", "size=64M"]), 32);
    assert!(said.contains(&missing) && said.contains("mkdir"), "{said}");
    let file = place.beside("file");
    fs::write(&file, b"").unwrap();
    let said = refused(&mut mount_rchfs(&[file.to_str().unwrap(), "-o", "size=64M"]), 32);
    assert!(said.contains("not a directory"), "{said}");
    refused(&mut mount_rchfs(&[]), 1);
}

#[test]
fn one_of_cxl_and_state_alone_is_refused() {
    let Some(place) = Place::new() else { return };
    let cxl = format!("size=64M,cxl={}", place.beside("pool").display());
    assert!(refused(&mut place.command(&cxl), 32).contains("state"));
    let state = format!("size=64M,state={}", place.beside("state").display());
    assert!(refused(&mut place.command(&state), 32).contains("cxl"));
}

#[test]
fn paths_that_cannot_be_written_are_named() {
    let Some(place) = Place::new() else { return };
    let options = format!("size=64M,cxl=/proc/pool,state={}", place.beside("state").display());
    assert!(refused(&mut place.command(&options), 32).contains("/proc/pool"));
    fs::write(place.beside("file"), b"text").unwrap();
    let file = place.beside("file").display().to_string();
    let options = format!("size=64M,cxl={},state={file}", place.beside("pool").display());
    assert!(refused(&mut place.command(&options), 32).contains(&file));
    assert_eq!(fs::read(place.beside("file")).unwrap(), b"text");
}

#[test]
fn a_machine_without_fuse_is_told_so() {
    let Some(place) = Place::new() else { return };
    if !e2e::rustix::process::geteuid().is_root() {
        return e2e::fixture::skipped("needs root");
    }
    // /dev without fuse, for this one process.
    let bin = binary::mount_rchfs().display();
    let script = format!("mount -t tmpfs none /dev && exec {bin} {} -o size=64M", place.dir().display());
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
    assert!(refused(&mut command, 32).contains("/dev/fuse"));
}

#[test]
fn options_for_others_are_ignored_and_fake_mounts_nothing() {
    let Some(place) = Place::new() else { return };
    let options = "size=64M,_netdev,nofail,noauto,user,x-systemd.automount,x-gvfs-hide,comment=x,rw,defaults";
    ok(place.command(options).arg("-f"));
    assert!(!is_mounted(place.dir()));
    ok(place.command(options).args(["-n", "-v", "-s"]));
    assert!(is_mounted(place.dir()));
    place.unmount();
}

#[test]
fn the_table_of_mounts_shows_source_type_and_flags() {
    let Some(place) = Place::new() else { return };
    let mut command = Command::new(binary::mount_rchfs());
    ok(command.arg("embedded").arg(place.dir()).args(["-o", "size=64M,nosuid,nodev,noexec"]));
    assert_eq!(mount_type(place.dir()).as_deref(), Some("fuse.rchfs"));
    // As given, or mount -a would mount it twice.
    assert_eq!(mount_source(place.dir()).as_deref(), Some("embedded"));
    assert!(mount_options(place.dir()).unwrap().contains("user_id="));
    let findmnt = ok(e2e::run::command("findmnt", ["-no", "OPTIONS"]).arg(place.dir()));
    for flag in ["nosuid", "nodev", "noexec"] {
        assert!(findmnt.contains(flag), "{flag} is not in {findmnt}");
    }
    place.unmount();
}

#[test]
fn a_read_only_mount_refuses_writes() {
    let Some(place) = Place::new() else { return };
    let storage =
        format!("size=64M,cxl={},state={}", place.beside("p").display(), place.beside("s").display());
    ok(&mut place.command(&storage));
    fs::write(place.dir().join("a"), b"text").unwrap();
    place.unmount();
    ok(&mut place.command(&format!("{storage},ro")));
    assert_eq!(fs::read(place.dir().join("a")).unwrap(), b"text");
    let error = fs::write(place.dir().join("b"), b"").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::remove_file(place.dir().join("a")).unwrap_err().raw_os_error(), Some(libc::EROFS));
    place.unmount();
}

#[test]
fn sizes_are_read_with_units() {
    let Some(place) = Place::new() else { return };
    for (size, bytes) in [
        ("67108864", 64u64 << 20),
        ("65536K", 64 << 20),
        ("64m", 64 << 20),
        ("64MiB", 64 << 20),
        ("1G", 1 << 30),
    ] {
        ok(&mut place.command(&format!("size={size}")));
        let stat = e2e::rustix::fs::statvfs(place.dir()).unwrap();
        let total = stat.f_blocks * stat.f_frsize;
        assert!(total <= bytes && total > bytes * 9 / 10, "{size}: {total}");
        place.unmount();
    }
}

#[test]
fn mounting_takes_no_longer_for_a_large_pool() {
    let Some(place) = Place::new() else { return };
    let time = |size: &str| {
        let start = std::time::Instant::now();
        ok(&mut place.command(&format!("size={size}")));
        let taken = start.elapsed();
        place.unmount();
        taken
    };
    let small = time("64M").min(time("64M"));
    // More than is in the machine would be refused, so what is there is half used.
    let large = time("8G").min(time("8G"));
    assert!(large < small * 3 + std::time::Duration::from_millis(200), "{large:?} against {small:?}");
}
