//! sqlite3 with a write-ahead log, whose shared memory is a mapping of a file.

use e2e::on_fs;
use e2e::run::{command, ok, script};
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

fn sqlite(db: &std::path::Path, sql: &str) -> String {
    ok(command("sqlite3", ["-batch"]).arg(db).arg(sql)).trim().to_owned()
}

#[test]
fn a_database_survives_kill_9_of_its_writer() {
    on_fs("size=128M", |fs| {
        let db = fs.path("db");
        assert_eq!(
            sqlite(&db, "PRAGMA journal_mode=WAL; CREATE TABLE t(i INTEGER PRIMARY KEY, v BLOB);"),
            "wal"
        );
        let mut last = 0;
        for round in 0..10u64 {
            let mut writer = Command::new("sqlite3");
            writer.arg("-batch").arg(&db).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut writer = writer.spawn().expect("sqlite3 is installed");
            let mut input = writer.stdin.take().expect("piped");
            let feeder = std::thread::spawn(move || {
                let statement = "INSERT INTO t(v) VALUES(randomblob(3000));\n".repeat(10);
                while input.write_all(format!("BEGIN;{statement}COMMIT;").as_bytes()).is_ok() {}
            });
            sleep(Duration::from_millis(60 + round * 17));
            writer.kill().expect("a child can be killed");
            writer.wait().expect("a child can be waited for");
            feeder.join().expect("the feeder ends");
            assert_eq!(sqlite(&db, "PRAGMA integrity_check;"), "ok", "round {round}");
            let count: u64 = sqlite(&db, "SELECT count(*) FROM t;").parse().expect("a count");
            assert!(
                count >= last && count.is_multiple_of(10),
                "{count} rows after {last}: half a transaction"
            );
            last = count;
        }
        assert!(last > 0, "nothing was ever committed");
    });
}

#[test]
fn readers_and_writers_in_several_processes_agree() {
    on_fs("size=128M", |fs| {
        ok(&mut script(
            fs.dir(),
            r#"sqlite3 db 'PRAGMA journal_mode=WAL; CREATE TABLE t(w INT, i INT);' > /dev/null
               for w in 1 2 3; do
                   ( for i in $(seq 1 40); do sqlite3 -cmd '.timeout 20000' db "INSERT INTO t VALUES($w, $i);"; done ) &
               done
               for r in $(seq 1 20); do sqlite3 -cmd '.timeout 20000' db 'SELECT count(*) FROM t;' > /dev/null; done
               wait
               test "$(sqlite3 db 'SELECT count(*), count(DISTINCT w * 1000 + i) FROM t;')" = '120|120'
               test "$(sqlite3 db 'PRAGMA integrity_check;')" = ok"#,
        ));
    });
}

#[test]
fn a_rollback_journal_works_too() {
    on_fs("size=128M", |fs| {
        let db = fs.path("db");
        sqlite(
            &db,
            "PRAGMA journal_mode=DELETE; CREATE TABLE t(v); BEGIN; INSERT INTO t SELECT randomblob(2000) FROM generate_series(1,2000); ROLLBACK;",
        );
        sqlite(&db, "INSERT INTO t SELECT randomblob(2000) FROM generate_series(1,500);");
        sqlite(&db, "DELETE FROM t WHERE rowid % 2; VACUUM;");
        assert_eq!(sqlite(&db, "PRAGMA integrity_check; SELECT count(*) FROM t;"), "ok\n250");
    });
}
