//! A disk that fills up. Needs the right to mount a small tmpfs, and says so where it is missing.

use crate::*;
use std::process::Command;

/// A tmpfs of one size, unmounted at the end.
struct Small(TempDir);

impl Small {
    fn new(size: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let options = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).output();
        match mount {
            Ok(done) if done.status.success() => Some(Self(dir)),
            _ => {
                eprintln!("not run: no right to mount a tmpfs");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn make(master: &Master, i: u64) -> Result<MetaReply, MetaError> {
    let name = format!("{i:0>200}").into();
    let node = NewNode::File;
    ask(master, MetaRequest::Make { parent: Ino::ROOT, name, caller: ROOT, node, perm: 0o644, umask: 0 })
}

/// Makes files until that fails; how many there are then.
fn fill(master: &Master) -> u64 {
    for i in 0..1_000_000 {
        match make(master, i) {
            Ok(_) => {}
            Err(MetaError::NoSpace(_)) => return i,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("it never filled up")
}

#[test]
fn a_full_disk_refuses_changes_and_loses_nothing() {
    let Some(disk) = Small::new("3m") else { return };
    let world = World::new();
    let dir = disk.path().join("state");
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let master = open(&world, &dir, LAZY);
    let made = fill(&master);
    assert!(made > 100, "{made}");
    let full = dump(&master);
    assert!(matches!(make(&master, made), Err(MetaError::NoSpace(_))));
    assert_eq!(dump(&master), full, "what was refused has not happened");
    std::fs::remove_file(&ballast).unwrap();
    make(&master, made).unwrap();
    let after = dump(&master);
    drop(master);
    assert_eq!(dump(&open(&world, &dir, LAZY)), after);
}

#[test]
fn a_full_disk_under_the_database_loses_nothing() {
    let Some(disk) = Small::new("12m") else { return };
    let world = World::new();
    let dir = disk.path().join("state");
    let [small, large] = ["small", "large"].map(|name| disk.path().join(name));
    std::fs::write(&small, vec![1; 1 << 20]).unwrap();
    std::fs::write(&large, vec![1; 8 << 20]).unwrap();
    let tuning = Tuning { backlog: 1 << 30, ..EAGER };
    let master = open(&world, &dir, tuning);
    let made = fill(&master);
    assert!(made > 100, "{made}");
    let full = dump(&master);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(dump(&master), full);
    std::fs::remove_file(&small).unwrap();
    make(&master, made).unwrap();
    let after = dump(&master);
    drop(master);
    std::fs::remove_file(&large).unwrap();
    assert_eq!(dump(&open(&world, &dir, LAZY)), after);
}
