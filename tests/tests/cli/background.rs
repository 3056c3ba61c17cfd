//! Going into the background: returning when the mount answers, and holding nothing of the caller's.

use crate::{Place, alive, wait_for};
use e2e::mount::is_mounted;
use e2e::run::ok;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn it_returns_when_the_mount_answers() {
    let Some(place) = Place::new() else { return };
    for _ in 0..5 {
        let status = place.command("size=64M").stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
        // Not a moment later: what follows is the next line of a script.
        assert!(is_mounted(place.dir()));
        fs::write(place.dir().join("at once"), b"text").unwrap();
        place.unmount();
    }
}

#[test]
fn command_substitution_does_not_wait_for_the_mount_to_end() {
    let Some(place) = Place::new() else { return };
    let bin = e2e::binary::mount_rchfs().display();
    let script = format!("said=$({bin} {} -o size=64M 2>&1); echo \"[$said]\"", place.dir().display());
    let start = Instant::now();
    let said = ok(&mut e2e::run::script(&place.beside(""), &script));
    assert!(start.elapsed() < Duration::from_secs(10));
    // One line that the contents are lost with the mount; see the next test.
    assert!(said.trim().lines().count() <= 1, "{said}");
    assert!(is_mounted(place.dir()));
    place.unmount();
}

#[test]
fn a_volatile_mount_says_so_once_and_a_lasting_one_does_not() {
    let Some(place) = Place::new() else { return };
    let output = place.command("size=64M").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert_eq!(
        said.matches("volatile").count().max(said.matches("gone").count()).max(said.matches("lost").count()),
        1,
        "{said}"
    );
    place.unmount();
    let storage =
        format!("size=64M,cxl={},state={}", place.beside("p").display(), place.beside("s").display());
    let output = place.command(&storage).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    place.unmount();
}

#[test]
fn the_process_leaves_session_directory_and_descriptors_of_its_caller() {
    let Some(place) = Place::new() else { return };
    ok(place.command("size=64M").current_dir(place.beside("")));
    let pid = place.server().expect("somebody serves it");
    assert_ne!(
        fs::read_link(format!("/proc/{pid}/cwd")).unwrap(),
        fs::canonicalize(place.beside("")).unwrap()
    );
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let session: u32 = fields[3].parse().unwrap();
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let own: u32 = own.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert_ne!(session, own, "it is in the session of its caller");
    place.unmount();
}

#[test]
fn a_failure_is_told_by_the_process_that_was_started() {
    let Some(place) = Place::new() else { return };
    ok(&mut place.command("size=64M"));
    // Mounted twice on one directory: refused, and the first is not harmed.
    fs::write(place.dir().join("a"), b"first").unwrap();
    let said = crate::refused(&mut place.command("size=64M"), 32);
    assert!(said.contains("already mounted"), "{said}");
    assert_eq!(fs::read(place.dir().join("a")).unwrap(), b"first");
    place.unmount();
    assert!(!is_mounted(place.dir()));
}

#[test]
fn umount_ends_the_process() {
    let Some(place) = Place::new() else { return };
    ok(&mut place.command("size=64M"));
    let pid = place.server().expect("somebody serves it");
    ok(e2e::run::command("umount", [""; 0]).arg(place.dir()));
    wait_for(|| !alive(pid), "the process ends");
}

#[test]
fn ten_mounts_at_once_do_not_disturb_each_other() {
    let places: Vec<_> = (0..10).map_while(|_| Place::new()).collect();
    let mut mounting: Vec<_> =
        places.iter().map(|place| place.command("size=32M").spawn().unwrap()).collect();
    for child in &mut mounting {
        assert!(child.wait().unwrap().success());
    }
    for (i, place) in places.iter().enumerate() {
        fs::write(place.dir().join("a"), vec![i as u8; 100_000]).unwrap();
    }
    for (i, place) in places.iter().enumerate() {
        assert!(fs::read(place.dir().join("a")).unwrap() == vec![i as u8; 100_000]);
        place.unmount();
    }
}
