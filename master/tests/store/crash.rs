//! Ends that come in the middle of something.

use crate::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

const HISTORY: u64 = 14;

/// A history in a journal only: what the namespace was after each batch, and how long the journal was.
fn history(world: &World, dir: &Path) -> Vec<(u64, Vec<String>)> {
    let master = open(world, dir, LAZY);
    let journal = journals(dir).pop().unwrap();
    let state = |master: &Master| (std::fs::metadata(&journal).unwrap().len(), dump(master));
    let mut states = vec![state(&master)];
    for i in 0..HISTORY {
        step(world, &master, i);
        states.push(state(&master));
    }
    states
}

#[test]
fn a_journal_cut_anywhere_gives_back_every_whole_change() {
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    let states = history(&world, &dir);
    let journal = journals(&dir).pop().unwrap();
    let name = journal.file_name().unwrap().to_owned();
    let whole = std::fs::read(&journal).unwrap();
    let first = states[0].0 as usize;
    for len in first..=whole.len() {
        let cut = home.path().join("cut");
        copy(&dir, &cut);
        std::fs::write(cut.join(&name), &whole[..len]).unwrap();
        let expected = states.iter().rev().find(|(end, _)| *end <= len as u64).unwrap();
        let master = open(&world, &cut, LAZY);
        assert_eq!(dump(&master), expected.1, "cut at {len}");
        assert_eq!(master.recovery().repairs, Vec::<String>::new());
        drop(master);
        std::fs::remove_dir_all(&cut).unwrap();
    }
}

#[test]
fn a_journal_cut_before_the_first_change_is_a_new_file_system() {
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    history(&world, &dir);
    let journal = journals(&dir).pop().unwrap();
    for len in [0, 1, 39, 40, 41] {
        let cut = home.path().join(len.to_string());
        copy(&dir, &cut);
        let journal = cut.join(journal.file_name().unwrap());
        std::fs::OpenOptions::new().write(true).open(journal).unwrap().set_len(len).unwrap();
        assert_eq!(dump(&open(&world, &cut, LAZY)).len(), 1);
    }
}

#[test]
fn damage_before_the_end_is_refused_and_nothing_is_touched() {
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    let states = history(&world, &dir);
    let journal = journals(&dir).pop().unwrap();
    let whole = std::fs::read(&journal).unwrap();
    for (end, _) in &states[..states.len() - 2] {
        let mut damaged = whole.clone();
        damaged[*end as usize + 20] ^= 1;
        std::fs::write(&journal, &damaged).unwrap();
        let why = try_open(&world, &dir, LAZY).err().unwrap().to_string();
        assert!(why.contains("journal") && why.contains("restore"), "{why}");
        assert_eq!(std::fs::read(&journal).unwrap(), damaged);
    }
    std::fs::write(&journal, &whole).unwrap();
    assert_eq!(dump(&open(&world, &dir, LAZY)), states.last().unwrap().1);
}

#[test]
fn a_missing_change_is_refused() {
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    let states = history(&world, &dir);
    let journal = journals(&dir).pop().unwrap();
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.drain(states[0].0 as usize..states[1].0 as usize);
    std::fs::write(&journal, bytes).unwrap();
    let why = try_open(&world, &dir, LAZY).err().unwrap().to_string();
    assert!(why.contains("does not follow"), "{why}");
}

#[test]
fn a_journal_that_the_database_has_already_changes_nothing() {
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    history(&world, &dir);
    let old = journals(&dir).pop().unwrap();
    let bytes = std::fs::read(&old).unwrap();
    let master = open(&world, &dir, LAZY);
    ask(&master, MetaRequest::Unlink { parent: Ino::ROOT, name: b"fifo".into() }).unwrap();
    let after = dump(&master);
    drop(master);
    std::fs::write(&old, bytes).unwrap();
    assert_eq!(journals(&dir).len(), 2);
    assert_eq!(dump(&open(&world, &dir, LAZY)), after);
}

#[test]
fn a_store_that_is_dropped_at_any_moment_comes_back_whole() {
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    let mut master = open(&world, &dir, EAGER);
    for i in 0..400 {
        step(&world, &master, i);
        if i % 37 == 36 {
            let before = dump(&master);
            drop(master);
            master = open(&world, &dir, EAGER);
            assert_eq!(dump(&master), before, "after {i}");
        }
    }
    let before = dump(&master);
    master.shutdown().unwrap();
    let closed = ask(&master, request(&world, 1000));
    assert!(matches!(closed, Err(MetaError::Io(_))), "{closed:?}");
    assert_eq!(dump(&master), before);
    drop(master);
    assert!(journals(&dir).iter().all(|path| std::fs::metadata(path).unwrap().len() == 40));
    assert_eq!(dump(&open(&world, &dir, EAGER)), before);
}

/// Not a test by itself: the process that the next test kills. It makes files and says so.
#[test]
fn helper_process_that_makes_files_until_it_is_killed() {
    let Ok(dir) = std::env::var("MASTER_STORE_VICTIM") else { return };
    let world = World::new();
    let master = open(&world, Path::new(&dir), EAGER);
    let start = dump(&master).len() as u64;
    for i in start.. {
        let name = format!("file{i}").into();
        let node = NewNode::File;
        let make = MetaRequest::Make { parent: Ino::ROOT, name, caller: ROOT, node, perm: 0o644, umask: 0 };
        let made = ask(&master, make);
        let mut out = std::io::stdout().lock();
        writeln!(out, "made {i} {}", made.is_ok()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_answered_survives_a_killed_process() {
    let home = scratch();
    let dir = home.path().join("state");
    for round in 1..=12u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::helper_process_that_makes_files_until_it_is_killed", "--nocapture"])
            .env("MASTER_STORE_VICTIM", &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut made = lines.filter(|line| line.contains("made ")).take(round as usize * 97);
        let mut last = made.by_ref().last().unwrap();
        victim.kill().unwrap();
        // What it still said before it was dead counts as well.
        last = made.last().unwrap_or(last);
        victim.wait().unwrap();
        let last: u64 = last.split(' ').rev().nth(1).unwrap().parse().unwrap();
        let world = World::new();
        let master = open(&world, &dir, LAZY);
        for i in 1..=last {
            let name = format!("file{i}").into();
            let found = ask(&master, MetaRequest::Lookup { parent: Ino::ROOT, name });
            assert!(found.is_ok(), "file{i} of {last} is lost in round {round}");
        }
        assert_eq!(master.check(), Vec::<String>::new());
        assert_eq!(master.recovery().repairs, Vec::<String>::new());
    }
}

#[test]
fn a_big_batch_comes_to_the_database_in_its_place_among_small_ones() {
    const CLOSING: Tuning = Tuning { patience: Duration::from_secs(60), ..LAZY };
    let world = World::new();
    let home = scratch();
    let dir = home.path().join("state");
    let master = open(&world, &dir, CLOSING);
    let make = |parent, name: &str, node| {
        let request =
            MetaRequest::Make { parent, name: name.into(), caller: ROOT, node, perm: 0o755, umask: 0 };
        match ask(&master, request) {
            Ok(MetaReply::Attr(attr)) => attr.ino,
            other => panic!("{other:?}"),
        }
    };
    let tree = make(Ino::ROOT, "tree", NewNode::Dir);
    for file in 0..1000 {
        make(tree, &file.to_string(), NewNode::File);
    }
    // More records than are put together with others; before and after it, some of the same.
    for clone in ["one", "two"] {
        let to = make(Ino::ROOT, clone, NewNode::Dir);
        ask(&master, MetaRequest::CloneTree { from: tree, to, caller: ROOT }).unwrap();
        make(to, "more", NewNode::File);
        ask(&master, MetaRequest::Unlink { parent: to, name: b"7".into() }).unwrap();
        let set = SetAttr { perm: Some(0o700), ..SetAttr::default() };
        ask(&master, MetaRequest::SetAttr { ino: to, caller: ROOT, set }).unwrap();
    }
    let before = dump(&master);
    let journal = journals(&dir).pop().unwrap();
    master.shutdown().unwrap();
    drop(master);
    assert!(!journal.exists(), "the database has all that was in it");
    let master = open(&world, &dir, LAZY);
    assert_eq!(dump(&master), before);
    assert_eq!((master.check(), &master.recovery().repairs), (vec![], &vec![]));
}
