//! Many threads at once.

use crate::*;

/// Each thread works in a directory of its own, and all of them move a file through a common one.
fn work(world: &World, master: &Master, thread: u64) {
    let make = |parent, name: &str, node| {
        let request =
            MetaRequest::Make { parent, name: name.into(), caller: ROOT, node, perm: 0o755, umask: 0 };
        match ask(master, request).unwrap() {
            MetaReply::Attr(attr) => attr.ino,
            other => panic!("{other:?}"),
        }
    };
    let own = make(Ino::ROOT, &format!("own{thread}"), NewNode::Dir);
    for i in 0..300 {
        let name = format!("f{i}");
        let ino = make(own, &name, if i % 3 == 0 { NewNode::Dir } else { NewNode::File });
        if i % 3 != 0 {
            let extents = vec![Extent { at: 0, run: world.daemon.alloc(2) }];
            ask(
                master,
                MetaRequest::Commit { ino, extents, size: 1, touch: true, kill_suid: false, set: None },
            )
            .unwrap();
        }
        let common = || (Ino::ROOT, format!("common{}", i % 7).into_bytes());
        let mode = if i % 5 == 0 { RenameMode::Exchange } else { RenameMode::Replace };
        let (parent, name) = (own, name.into_bytes());
        let (new_parent, new_name) = common();
        let moved = ask(master, MetaRequest::Rename { parent, name, new_parent, new_name, mode });
        if let Ok(MetaReply::Renamed { replaced: Some(gone) }) = moved {
            ask(master, MetaRequest::Forget { inos: vec![gone.ino] }).unwrap();
        }
        let (parent, name) = common();
        let _ = ask(master, MetaRequest::Rmdir { parent, name });
        let list = MetaRequest::ReadDir { ino: Ino::ROOT, after: 0, limit: 50, plus: true };
        assert!(ask(master, list).is_ok());
        if i % 50 == 0 {
            ask(master, MetaRequest::Sync).unwrap();
        }
    }
}

#[test]
fn threads_leave_a_sound_tree_and_the_store_has_it() {
    let world = World::new();
    let home = scratch();
    let master = open(&world, home.path(), EAGER);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (world, master) = (&world, &master);
            scope.spawn(move || work(world, master, thread));
        }
    });
    assert_eq!(master.check(), Vec::<String>::new());
    assert_eq!(world.daemon.freed_twice(), Vec::<u64>::new());
    let before = dump(&master);
    drop(master);
    let master = open(&world, home.path(), EAGER);
    assert_eq!(dump(&master), before);
    assert_eq!((master.recovery().leaked, master.recovery().repairs.len()), (0, 0));
}
