//! `mdbench DIR [THREADS] [FILES]`: metadata operations a second, each thread in a directory of its own.
//! Prints a line per operation: name, threads, operations a second, microseconds of one operation.
//!
//! `mdbench fill DIR FILES BYTES`: makes FILES files of BYTES bytes each in DIR, to see what they take.
//!
//! `mdbench read DIR FILES`: opens, reads and closes each of those once, and prints microseconds of one.
//!
//! `mdbench worst DIR FILES`: looks at one of those after the other, about a thousand a second, until its standard input
//! ends, and prints how many milliseconds the longest look took, the median, and how many there were.
//!
//! Knows nothing of rchfs: it measures whatever file system DIR is on.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is done to each of a thread's files. In this order each finds what it needs.
#[derive(Clone, Copy, PartialEq)]
enum Op {
    Create,
    FirstStat,
    Stat,
    Write,
    Read,
    Rename,
    Readdir,
    ReaddirStat,
    Unlink,
    Mkdir,
    Rmdir,
}

/// `stat` is of files that have been looked at since they were closed: what a program sees that asks again.
/// `stat-after-close` is the first look, for which a FUSE file system with writeback caching is asked how
/// many blocks there are.
const OPS: [(Op, &str); 11] = [
    (Op::Create, "create+close"),
    (Op::FirstStat, "stat-after-close"),
    (Op::Stat, "stat"),
    (Op::Write, "open+write4k+close"),
    (Op::Read, "open+read4k+close"),
    (Op::Rename, "rename"),
    (Op::Readdir, "readdir(entries)"),
    (Op::ReaddirStat, "readdir+stat"),
    (Op::Unlink, "unlink"),
    (Op::Mkdir, "mkdir"),
    (Op::Rmdir, "rmdir"),
];
/// Listings of a directory that count as one measurement: one is over too quickly.
const LISTINGS: usize = 5;

/// Between two looks that are to show how long one may take.
const PACE: Duration = Duration::from_millis(1);

/// Beginning, end and number of operations of one thread's share.
type Share = (Instant, Instant, usize);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mdbench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Box<dyn Error>> {
    match *words {
        ["fill", dir, files, bytes] => Ok(fill(Path::new(dir), files.parse()?, bytes.parse()?)?),
        ["read", dir, files] => Ok(read(Path::new(dir), files.parse()?)?),
        ["worst", dir, files] => Ok(worst(Path::new(dir), files.parse()?)?),
        [dir] => bench(Path::new(dir), 1, 10_000),
        [dir, threads] => bench(Path::new(dir), threads.parse()?, 10_000),
        [dir, threads, files] => bench(Path::new(dir), threads.parse()?, files.parse()?),
        _ => Err(
            "usage: mdbench DIR [THREADS] [FILES] | mdbench fill DIR FILES BYTES | mdbench read DIR FILES \
             | mdbench worst DIR FILES"
                .into(),
        ),
    }
}

fn fill(dir: &Path, files: usize, bytes: usize) -> io::Result<()> {
    let data = vec![b'x'; bytes];
    fs::create_dir_all(dir)?;
    (0..files).try_for_each(|i| fs::write(dir.join(format!("f{i}")), &data))
}

fn read(dir: &Path, files: usize) -> io::Result<()> {
    let (start, mut data) = (Instant::now(), Vec::new());
    for i in 0..files {
        data.clear();
        File::open(dir.join(format!("f{i}")))?.read_to_end(&mut data)?;
    }
    println!("{:.3}", start.elapsed().as_secs_f64() * 1e6 / files as f64);
    Ok(())
}

fn worst(dir: &Path, files: usize) -> io::Result<()> {
    let over = AtomicBool::new(false);
    let mut looks = std::thread::scope(|scope| {
        scope.spawn(|| {
            // However it ends, it is over.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            over.store(true, Ordering::Release);
        });
        let mut looks = Vec::with_capacity(files);
        for i in 0..files {
            if over.load(Ordering::Acquire) {
                return Ok(looks);
            }
            let start = Instant::now();
            fs::metadata(dir.join(format!("f{i}")))?;
            looks.push(start.elapsed());
            std::thread::sleep(PACE);
        }
        Err(io::Error::other(format!("{files} files were not enough")))
    })?;
    looks.sort_unstable();
    let ms = |look: Option<&Duration>| look.map_or(0.0, |look| look.as_secs_f64() * 1e3);
    println!("{:.3} {:.3} {}", ms(looks.last()), ms(looks.get(looks.len() / 2)), looks.len());
    Ok(())
}

fn bench(base: &Path, threads: usize, files: usize) -> Result<(), Box<dyn Error>> {
    let barrier = Barrier::new(threads);
    let shares: Vec<io::Result<Vec<Share>>> = std::thread::scope(|scope| {
        let start = |t| {
            let (dir, barrier) = (base.join(format!("mdbench.{t}")), &barrier);
            scope.spawn(move || worker(&dir, files / threads, barrier))
        };
        let workers: Vec<_> = (0..threads).map(start).collect();
        workers.into_iter().map(|w| w.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))).collect()
    });
    let shares = shares.into_iter().collect::<io::Result<Vec<_>>>()?;
    for (i, (_, name)) in OPS.iter().enumerate() {
        let of_op = || shares.iter().map(|s| &s[i]);
        let (Some(start), Some(end)) = (of_op().map(|s| s.0).min(), of_op().map(|s| s.1).max()) else {
            break;
        };
        let (count, time) = (of_op().map(|s| s.2).sum::<usize>() as f64, (end - start).as_secs_f64());
        println!("{name} {threads} {:.0} {:.3}", count / time, time * 1e6 * threads as f64 / count);
    }
    Ok(())
}

/// A thread that fails keeps going through the barriers, or the others would wait for ever.
fn worker(dir: &Path, files: usize, barrier: &Barrier) -> io::Result<Vec<Share>> {
    let mut result = fs::create_dir_all(dir).map(|()| Vec::new());
    for (op, name) in OPS {
        barrier.wait();
        let start = Instant::now();
        let done = match &result {
            Ok(_) => share(op, dir, files),
            Err(_) => Ok(0),
        };
        let end = Instant::now().max(start + Duration::from_nanos(1));
        barrier.wait();
        match done {
            Ok(count) => {
                result = result.map(|mut r| {
                    r.push((start, end, count));
                    r
                })
            }
            Err(e) => result = Err(io::Error::new(e.kind(), format!("{name} in {}: {e}", dir.display()))),
        }
    }
    fs::remove_dir(dir).and(result)
}

/// One thread's share of an operation; how many operations it was.
fn share(op: Op, dir: &Path, files: usize) -> io::Result<usize> {
    match op {
        Op::Readdir => (0..LISTINGS).map(|_| list(dir, false, files)).sum(),
        Op::ReaddirStat => list(dir, true, files),
        _ => {
            let mut data = [b'x'; 4096];
            (0..files).try_for_each(|i| one(op, dir, i, &mut data)).map(|()| files)
        }
    }
}

fn one(op: Op, dir: &Path, i: usize, data: &mut [u8; 4096]) -> io::Result<()> {
    let path = |letter: char| -> PathBuf { dir.join(format!("{letter}{i}")) };
    match op {
        Op::Create => OpenOptions::new().write(true).create_new(true).open(path('f')).map(drop),
        Op::FirstStat | Op::Stat => fs::metadata(path('f')).map(drop),
        Op::Write => OpenOptions::new().write(true).open(path('f'))?.write_all(data),
        Op::Read => File::open(path('f'))?.read_exact(data),
        Op::Rename => fs::rename(path('f'), path('g')),
        Op::Unlink => fs::remove_file(path('g')),
        Op::Mkdir => fs::create_dir(path('d')),
        Op::Rmdir => fs::remove_dir(path('d')),
        Op::Readdir | Op::ReaddirStat => Ok(()),
    }
}

fn list(dir: &Path, stat: bool, expected: usize) -> io::Result<usize> {
    let mut seen = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if stat {
            entry.metadata()?;
        }
        seen += 1;
    }
    if seen == expected { Ok(seen) } else { Err(io::Error::other(format!("{seen} entries of {expected}"))) }
}
