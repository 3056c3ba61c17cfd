//! fio writes with checksums and reads them back, in each way there is to reach a file.

use e2e::on_fs;
use e2e::run::{command, ok};

/// One verified job of random writes over the whole file, then of reads.
fn verified(options: &'static [&'static str]) {
    on_fs("size=256M", |fs| {
        let mut fio = command("fio", ["--name=verify", "--rw=randwrite", "--size=48M", "--verify=crc32c"]);
        fio.args(["--verify_fatal=1", "--do_verify=1", "--randrepeat=0", "--output-format=terse"]);
        ok(fio.arg(format!("--directory={}", fs.dir().display())).args(options).current_dir(fs.dir()));
    });
}

#[test]
fn buffered_writes_verify() {
    verified(&["--bs=4k", "--ioengine=psync"]);
}

#[test]
fn buffered_writes_of_all_lengths_verify() {
    verified(&["--bsrange=512-200k", "--bs_unaligned=0", "--ioengine=psync", "--numjobs=2"]);
}

#[test]
fn direct_writes_verify() {
    verified(&["--bs=4k", "--ioengine=psync", "--direct=1"]);
}

#[test]
fn asynchronous_direct_writes_verify() {
    verified(&["--bs=16k", "--ioengine=libaio", "--iodepth=16", "--direct=1"]);
}

#[test]
fn mapped_writes_verify() {
    verified(&["--bs=4k", "--ioengine=mmap"]);
}

#[test]
fn writes_synced_now_and_then_verify() {
    verified(&["--bs=8k", "--ioengine=psync", "--fsync=64", "--fallocate=none"]);
}

#[test]
fn mixed_reads_and_writes_of_four_jobs_verify() {
    verified(&["--rw=randrw", "--bs=4k", "--ioengine=psync", "--numjobs=4", "--size=16M"]);
}
