//! The program that shows how to use a cluster (`pool/examples/cluster.rs`) works on one.

use e2e::cluster::Shape;
use e2e::{binary, run};
use std::path::PathBuf;
use std::process::Command;

/// The example, built into where the programs under test are.
fn example() -> PathBuf {
    let dir = binary::rcmp().parent().expect("a file lies in a directory");
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "pool", "--example", "cluster", "--profile", profile]);
    cargo.arg("--target-dir").arg(dir.parent().expect("the profile's directory lies in a target directory"));
    run::ok(cargo.current_dir(binary::workspace()));
    dir.join("examples/cluster")
}

#[test]
fn what_the_example_leaves_in_one_rack_is_read_from_the_other() {
    let example = example();
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
