//! A process that does what it reads, one command a line, and answers each with `ok RESULT` or
//! `err ERRNO`. It has one file open and one mapping. Used by the end-to-end suites.
//!
//! ```text
//! open PATH                         opens for reading and writing
//! append PATH                       opens for appending
//! close
//! read OFFSET LEN                   the bytes in hexadecimal
//! write OFFSET LEN BYTE             LEN times BYTE; the number written
//! fsync
//! flock sh|ex|un [wait]
//! posix|ofd r|w|u START LEN [wait]  record locks
//! map LEN shared|private
//! peek OFFSET                       a byte of the mapping
//! poke OFFSET BYTE
//! msync
//! unmap
//! fsize LIMIT                       RLIMIT_FSIZE
//! ignore-xfsz                       ignores SIGXFSZ
//! ```

use e2e::lock::{self, Lock, Owner};
use e2e::map::Map;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, Result, pread, pwrite};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::io::{BufRead, Write, stdin, stdout};

#[derive(Default)]
struct State {
    file: Option<File>,
    map: Option<Map>,
}

fn main() {
    let mut state = State::default();
    for line in stdin().lock().lines() {
        let line = line.expect("commands are text");
        let words: Vec<&str> = line.split(' ').collect();
        let reply = match state.obey(&words) {
            Ok(result) => format!("ok {result}"),
            Err(errno) => format!("err {}", errno.raw_os_error()),
        };
        let mut out = stdout().lock();
        writeln!(out, "{reply}").and_then(|()| out.flush()).expect("somebody listens");
    }
}

impl State {
    fn obey(&mut self, words: &[&str]) -> Result<String> {
        match words {
            ["open", path] => self.open(File::options().read(true).write(true).open(path)),
            ["append", path] => self.open(File::options().append(true).open(path)),
            ["close"] => {
                self.file = None;
                done()
            }
            ["read", offset, len] => self.read(number(offset), number(len)),
            ["write", offset, len, byte] => {
                let bytes = vec![number::<u8>(byte); number(len)];
                Ok(pwrite(self.file(), &bytes, number(offset))?.to_string())
            }
            ["fsync"] => unit(rustix::fs::fsync(self.file())),
            ["flock", how, wait @ ..] => unit(flock(self.file(), flock_operation(how, !wait.is_empty()))),
            [who @ ("posix" | "ofd"), how, start, len, wait @ ..] => {
                let owner = if *who == "posix" { Owner::Process } else { Owner::Description };
                let set = if wait.is_empty() { lock::set } else { lock::set_waiting };
                unit(set(self.file(), owner, record_lock(how), number(start), number(len)))
            }
            ["map", len, how] => {
                self.map = Some(Map::new(self.file(), 0, number(len), *how == "shared")?);
                done()
            }
            ["peek", offset] => Ok(self.map().get(number(offset)).to_string()),
            ["poke", offset, byte] => {
                self.map().set(number(offset), number(byte));
                done()
            }
            ["msync"] => unit(self.map().sync()),
            ["unmap"] => {
                self.map = None;
                done()
            }
            ["fsize", limit] => {
                let limit = Some(number(limit));
                unit(setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit }))
            }
            ["ignore-xfsz"] => {
                // SAFETY: ignoring a signal runs no code of ours.
                unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
                done()
            }
            _ => panic!("unknown command {words:?}"),
        }
    }

    fn open(&mut self, opened: std::io::Result<File>) -> Result<String> {
        match opened {
            Ok(file) => {
                self.file = Some(file);
                done()
            }
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    fn read(&self, offset: u64, len: usize) -> Result<String> {
        let mut bytes = vec![0; len];
        let count = pread(self.file(), &mut bytes, offset)?;
        Ok(bytes[..count].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("a file is open")
    }

    fn map(&mut self) -> &mut Map {
        self.map.as_mut().expect("something is mapped")
    }
}

fn done() -> Result<String> {
    Ok(String::new())
}

fn unit(result: Result<()>) -> Result<String> {
    result.and_then(|()| done())
}

fn number<N: std::str::FromStr>(word: &str) -> N {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is not a number"))
}

fn record_lock(how: &str) -> Lock {
    match how {
        "r" => Lock::Read,
        "w" => Lock::Write,
        "u" => Lock::Unlock,
        _ => panic!("no such lock: {how}"),
    }
}

fn flock_operation(how: &str, wait: bool) -> FlockOperation {
    match (how, wait) {
        ("sh", true) => FlockOperation::LockShared,
        ("sh", false) => FlockOperation::NonBlockingLockShared,
        ("ex", true) => FlockOperation::LockExclusive,
        ("ex", false) => FlockOperation::NonBlockingLockExclusive,
        ("un", _) => FlockOperation::Unlock,
        _ => panic!("no such lock: {how}"),
    }
}
