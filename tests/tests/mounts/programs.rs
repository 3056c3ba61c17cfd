//! Real programs that use the files from several mounts.

use crate::{on_mounts, tool};
use e2e::binary::workspace;
use e2e::run::{ok, script};
use std::fs;
use std::thread::scope;

#[test]
fn pjdfstest_passes_in_two_mounts_at_once() {
    on_mounts(&["", ""], |m| {
        let suite = |mount: usize| {
            let dir = m.at(mount, &format!("suite{mount}"));
            fs::create_dir(&dir).unwrap();
            let mut pjdfstest = tool("pjdfstest");
            pjdfstest.arg("-c").arg(workspace().join("tests/conformance/pjdfstest.toml"));
            ok(pjdfstest.arg("-p").arg(&dir).arg("-s").arg("/dev/shm"))
        };
        scope(|scope| {
            for said in [scope.spawn(|| suite(0)), scope.spawn(|| suite(1))] {
                let said = said.join().expect("all pass");
                let summary = said.lines().find(|line| line.starts_with("Summary:")).unwrap_or_default();
                println!("{summary}");
            }
        });
    });
}

#[test]
fn one_file_is_used_by_fsx_from_two_mounts_in_turn() {
    on_mounts(&["", ""], |m| {
        for turn in 0..6_u32 {
            let mount = (turn % 2) as usize;
            let mut fsx = tool("fsx");
            fsx.args(["-q", "-f"]).arg(workspace().join("tests/conformance/fsx-plain.toml"));
            fsx.arg("-P").arg(m.cluster_dir()).args(["-S", &turn.to_string(), "-N", "700"]);
            ok(fsx.arg(m.at(mount, "file")));
            assert_eq!(fs::read(m.at(0, "file")).unwrap(), fs::read(m.at(1, "file")).unwrap());
        }
    });
}

#[test]
fn git_and_sqlite_are_used_in_turn() {
    on_mounts(&["", ""], |m| {
        let git = "git -c user.name=n -c user.email=e@x -c init.defaultBranch=main";
        ok(&mut script(
            m.dir(0),
            &format!("{git} init -q repo && cd repo && seq 1000 > f && {git} add f && {git} commit -qm 0"),
        ));
        for turn in 1..6 {
            let change = format!(
                "cd repo && seq {turn} 1000 > f && seq {turn} > g{turn} && {git} add -A && \
                {git} commit -qm {turn} && {git} fsck --strict && test -z \"$({git} status --porcelain)\""
            );
            ok(&mut script(m.dir(turn % 2), &change));
        }
        let python = |n: u32| {
            format!(
                "python3 -c \"
import sqlite3
db = sqlite3.connect('db', timeout=20)
db.execute('create table if not exists t (n integer)')
for i in range(20):
    with db: db.execute('insert into t values (?)', ({n} * 100 + i,))
assert db.execute('pragma integrity_check').fetchone()[0] == 'ok'\""
            )
        };
        // In turn, and then both at once, which only their locks keep apart.
        ok(&mut script(m.dir(0), &python(1)));
        ok(&mut script(m.dir(1), &python(2)));
        scope(|scope| {
            let at = |mount: usize| m.dir(mount).to_path_buf();
            let (a, b) = (at(0), at(1));
            let one = scope.spawn(move || ok(&mut script(&a, &python(3))));
            ok(&mut script(&b, &python(4)));
            one.join().expect("it works");
        });
        let count = "python3 -c \"import sqlite3; print(sqlite3.connect('db').execute('select count(*), count(distinct n) from t').fetchone())\"";
        assert_eq!(ok(&mut script(m.dir(0), count)).trim(), "(80, 80)");
    });
}

#[test]
fn a_parallel_build_has_its_steps_on_different_mounts() {
    on_mounts(&["", "", ""], |m| {
        let rules: String = (0..60)
            .map(|i| {
                let (here, from) = (i % 3, (i + 1) % 3);
                format!(
                    "$(M{here})/o/{i}: $(M{from})/s/{i}\n\tcat $(M{from})/s/{i} $(M{here})/s/common > $@\n"
                )
            })
            .collect();
        let all: String = (0..60).map(|i| format!(" $(M{})/o/{i}", i % 3)).collect();
        let mounts: String = (0..3).map(|i| format!("M{i} = {}\n", m.dir(i).display())).collect();
        let make = format!(
            "{mounts}$(M0)/all:{all}\n\tcat{} > $@\n{rules}",
            (0..60).map(|i| format!(" $(M{})/o/{i}", (i + 2) % 3)).collect::<String>()
        );
        fs::write(m.at(0, "Makefile"), make).unwrap();
        ok(&mut script(
            m.dir(1),
            "mkdir s o && for i in $(seq 0 59); do echo source $i > s/$i; done; echo common > s/common",
        ));
        ok(&mut script(m.dir(2), &format!("make -s -j6 -f Makefile {}/all", m.dir(0).display())));
        let expected: String = (0..60).map(|i| format!("source {i}\ncommon\n")).collect();
        assert_eq!(fs::read_to_string(m.at(1, "all")).unwrap(), expected);
        // All is up to date, also by the times that another mount shows.
        let all = format!("{}/all", m.dir(0).display());
        let check = format!(
            "make -s -q -f Makefile {all} || {{ make -n -f Makefile {all}; ls -l --full-time o s all; exit 1; }}"
        );
        ok(&mut script(m.dir(1), &check));
    });
}
