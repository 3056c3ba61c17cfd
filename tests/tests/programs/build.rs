//! Compilers and build systems, which look at times, map files and run what they wrote.

use e2e::run::{ok, script};
use e2e::{Actor, on_fs};

#[test]
fn make_builds_what_is_old_and_nothing_else() {
    on_fs("size=128M", |fs| {
        ok(&mut script(
            fs.dir(),
            r#"for i in $(seq 1 8); do printf '#include "all.h"\nint f%d(void) { return %d; }\n' $i $i > f$i.c; done
               for i in $(seq 1 8); do echo "int f$i(void);"; done > all.h
               printf '#include "all.h"\nint main(void) { return f1()+f2()+f3()+f4()+f5()+f6()+f7()+f8() - 36; }\n' > main.c
               printf 'OBJ=$(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: libf.a main.o\n\tgcc -o $@ main.o -L. -lf\nlibf.a: $(filter-out main.o,$(OBJ))\n\tar rcs $@ $^\n%%.o: %%.c all.h\n\tgcc -g -O1 -c -o $@ $<\n' > Makefile
               make -j2 > first && ./prog
               make | grep -q 'up to date'
               sleep 0.02; touch f3.c; make > second && ./prog
               test $(grep -c 'gcc.* -c' second) = 1
               sleep 0.02; touch all.h; make -j2 > third && ./prog
               test $(grep -c 'gcc.* -c' third) = 9"#,
        ));
    });
}

#[test]
fn cargo_builds_and_tests_a_crate() {
    on_fs("size=512M", |fs| {
        let mut build = script(
            fs.dir(),
            r#"cargo new -q --lib --vcs none tiny && cd tiny
               export CARGO_TARGET_DIR=$PWD/target CARGO_NET_OFFLINE=true
               cargo test -q
               echo 'pub fn more() -> u32 { 5 }' >> src/lib.rs
               cargo build -q
               cargo build 2>&1 | grep -q Finished"#,
        );
        // The settings of the build that runs this test are not for that one.
        for (name, _) in std::env::vars() {
            if name.starts_with("CARGO_") && name != "CARGO_HOME" || name == "RUSTFLAGS" {
                build.env_remove(name);
            }
        }
        ok(&mut build);
    });
}

#[test]
fn two_processes_share_a_counter_in_a_mapping() {
    on_fs("size=16M", |fs| {
        fs.file("shared", &[0; 4096]);
        let mut actors: Vec<_> = (0..2).map(|_| Actor::with_file(&fs.path("shared"))).collect();
        for actor in &mut actors {
            actor.ok("map 4096 shared");
        }
        // A token goes to and fro; who has it adds one.
        for turn in 0..100usize {
            let value = actors[turn % 2].ok("peek 7");
            assert_eq!(value, turn.to_string());
            actors[turn % 2].ok(&format!("poke 7 {}", turn + 1));
        }
        actors[0].ok("msync");
        assert_eq!(std::fs::read(fs.path("shared")).unwrap()[7], 100);
    });
}
