//! `mdbench DIR [THREADS] [FILES] [COUNTER]`: metadata operations a second, each thread in a directory of its own.
//! Prints a line per operation: name, threads, operations a second, microseconds of one operation. With COUNTER, which is an
//! extended attribute of DIR that is a number, also by how much it grows an operation.
//!
//! `mdbench fill DIR FILES BYTES`: makes FILES files of BYTES bytes each in DIR, to see what they take.
//!
//! `mdbench read DIR FILES [THREADS] [COUNTER]`: opens, reads and closes each of those once, and prints microseconds of one;
//! and by how much COUNTER grows for one.
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

/// One thread's share of an operation.
struct Share {
    start: Instant,
    end: Instant,
    count: usize,
    /// By how much the counter grew, of all threads together; 0 without one.
    counted: f64,
}

/// What is done, and where.
struct Run<'a> {
    base: &'a Path,
    files: usize,
    counter: Option<&'a str>,
    barrier: Barrier,
}

/// Between two looks that are to show how long one may take.
const PACE: Duration = Duration::from_millis(1);

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
        ["read", dir, files] => read(Path::new(dir), files.parse()?, 1, None),
        ["read", dir, files, threads] => read(Path::new(dir), files.parse()?, threads.parse()?, None),
        ["read", dir, files, threads, counter] => {
            read(Path::new(dir), files.parse()?, threads.parse()?, Some(counter))
        }
        ["worst", dir, files] => Ok(worst(Path::new(dir), files.parse()?)?),
        [dir] => bench(Path::new(dir), 1, 10_000, None),
        [dir, threads] => bench(Path::new(dir), threads.parse()?, 10_000, None),
        [dir, threads, files] => bench(Path::new(dir), threads.parse()?, files.parse()?, None),
        [dir, threads, files, counter] => {
            bench(Path::new(dir), threads.parse()?, files.parse()?, Some(counter))
        }
        _ => Err("usage: mdbench DIR [THREADS] [FILES] [COUNTER] | mdbench fill DIR FILES BYTES | \
                  mdbench read DIR FILES [THREADS] [COUNTER] | mdbench worst DIR FILES"
            .into()),
    }
}

/// What the extended attribute `counter` of `dir` says; 0 without one.
fn count(dir: &Path, counter: Option<&str>) -> io::Result<f64> {
    let Some(counter) = counter else { return Ok(0.0) };
    let mut digits = [0; 32];
    let len = rustix::fs::getxattr(dir, counter, &mut digits)?;
    let number = std::str::from_utf8(&digits[..len]).ok().and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("{counter} of {} is not a number", dir.display())))
}

fn fill(dir: &Path, files: usize, bytes: usize) -> io::Result<()> {
    let data = vec![b'x'; bytes];
    fs::create_dir_all(dir)?;
    (0..files).try_for_each(|i| fs::write(dir.join(format!("f{i}")), &data))
}

fn read(dir: &Path, files: usize, threads: usize, counter: Option<&str>) -> Result<(), Box<dyn Error>> {
    let share = |first: usize| -> io::Result<()> {
        let mut data = Vec::new();
        for i in (first..files).step_by(threads) {
            data.clear();
            File::open(dir.join(format!("f{i}")))?.read_to_end(&mut data)?;
        }
        Ok(())
    };
    let (before, start) = (count(dir, counter)?, Instant::now());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|first| scope.spawn(move || share(first))).collect();
        readers.into_iter().try_for_each(joined)
    })?;
    let time = start.elapsed();
    print!("{:.3}", time.as_secs_f64() * 1e6 * threads as f64 / files as f64);
    println!("{}", grown(counter, count(dir, counter)? - before, files as f64));
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

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}

/// By how much a counter grew an operation, if there is one.
fn grown(counter: Option<&str>, by: f64, operations: f64) -> String {
    counter.map_or_else(String::new, |_| format!(" {:.3}", by / operations))
}

fn bench(base: &Path, threads: usize, files: usize, counter: Option<&str>) -> Result<(), Box<dyn Error>> {
    let run = Run { base, files: files / threads, counter, barrier: Barrier::new(threads) };
    let shares: io::Result<Vec<Vec<Share>>> = std::thread::scope(|scope| {
        let run = &run;
        let workers: Vec<_> = (0..threads).map(|t| scope.spawn(move || run.worker(t))).collect();
        workers.into_iter().map(joined).collect()
    });
    let shares = shares?;
    for (i, (_, name)) in OPS.iter().enumerate() {
        let of_op = || shares.iter().map(|s| &s[i]);
        let (Some(start), Some(end)) = (of_op().map(|s| s.start).min(), of_op().map(|s| s.end).max()) else {
            break;
        };
        let (count, time) = (of_op().map(|s| s.count).sum::<usize>() as f64, (end - start).as_secs_f64());
        let counted = grown(counter, of_op().map(|s| s.counted).fold(0.0, f64::max), count);
        println!("{name} {threads} {:.0} {:.3}{counted}", count / time, time * 1e6 * threads as f64 / count);
    }
    Ok(())
}

impl Run<'_> {
    /// A thread that fails keeps going through the barriers, or the others would wait for ever.
    fn worker(&self, thread: usize) -> io::Result<Vec<Share>> {
        let dir = &self.base.join(format!("mdbench.{thread}"));
        let mut result = fs::create_dir_all(dir).map(|()| Vec::new());
        for (op, name) in OPS {
            self.barrier.wait();
            let before = count(self.base, self.counter);
            self.barrier.wait();
            let start = Instant::now();
            let done = match &result {
                Ok(_) => share(op, dir, self.files),
                Err(_) => Ok(0),
            };
            let end = Instant::now().max(start + Duration::from_nanos(1));
            self.barrier.wait();
            let after = count(self.base, self.counter);
            let done = done.and_then(|count| Ok(Share { start, end, count, counted: after? - before? }));
            match done {
                Ok(share) => {
                    result = result.map(|mut r| {
                        r.push(share);
                        r
                    })
                }
                Err(e) => result = Err(io::Error::new(e.kind(), format!("{name} in {}: {e}", dir.display()))),
            }
        }
        fs::remove_dir(dir).and(result)
    }
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
