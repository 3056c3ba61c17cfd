//! The programs that show how to use a cluster, in each of the three ways, work on one.

use e2e::cluster::Shape;
use e2e::{binary, run};
use std::path::PathBuf;
use std::process::Command;

/// An example of `pool`, built into where the programs under test are.
fn example(name: &str) -> PathBuf {
    let dir = binary::rcmp().parent().expect("a file lies in a directory");
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "pool", "--example", name, "--profile", profile]);
    cargo.arg("--target-dir").arg(dir.parent().expect("the profile's directory lies in a target directory"));
    run::ok(cargo.current_dir(binary::workspace()));
    dir.join("examples").join(name)
}

#[test]
fn what_the_example_leaves_in_one_rack_is_read_from_the_other() {
    let example = example("cluster");
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        let with = |words: &[&str]| {
            let mut command = Command::new(&example);
            command.arg(cluster.master()).args(words);
            command
        };
        let said = run::ok(&mut with(&["0"]));
        assert!(said.contains("is in rack 0") && said.contains("4 pages freed"), "{said}");
        let said = run::ok(with(&["1"]).env("KEEP", "1"));
        let (_, at) = said.trim().rsplit_once("left at ").expect("it says where");
        assert_eq!(run::ok(&mut with(&["0", at])), "written through the pool\n");
        let (code, said) = run::fails(&mut with(&["5"]));
        assert_eq!(
            (code, said.as_str()),
            (Some(1), "cluster: there is no rack 5 in this cluster; there are 0, 1\n")
        );
    });
}

#[test]
fn the_example_of_the_hash_table_counts_right_in_each_rack() {
    let example = example("table");
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        for rack in ["0", "1"] {
            let said = run::ok(Command::new(&example).args([cluster.master(), rack]));
            assert!(said.contains("counted to Some(4000)") && said.contains("4002 keys"), "{said}");
        }
    });
    run::ok(&mut Command::new(&example));
}

#[test]
fn the_example_of_the_mount_works_on_a_cluster_and_without_one() {
    let script = binary::workspace().join("scripts/examples/mounted.sh");
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        for (source, options) in [(cluster.master(), "rack=1"), ("embedded", "quiet,size=64M")] {
            let dir = tempfile::tempdir().expect("a directory can be made");
            let mut command = Command::new(&script);
            command.arg(dir.path()).args([source, options]).env("MOUNT", binary::mount_rchfs());
            assert_eq!(run::ok(&mut command), "3\nnote 1\n");
        }
    });
}
