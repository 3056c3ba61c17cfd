//! A load on a mount that writes down, outside of it, what it was promised.

use crate::expect::{Expect, Node, State};
use e2e::rustix::fs::{FallocateFlags, XattrFlags, fallocate, setxattr, statvfs};
use e2e::{Rng, pattern};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file that a writer makes.
const MOST: u64 = 60_000;

/// One writer, with a directory of its own.
pub struct Writer {
    dir: PathBuf,
    rng: Rng,
    /// What it knows.
    pub expect: Expect,
    /// Operations that returned.
    pub done: u64,
}

impl Writer {
    /// A writer in `dir`, whose operations follow from `seed`.
    pub fn new(dir: &Path, seed: u64) -> Self {
        Self { dir: dir.into(), rng: Rng::new(seed), expect: Expect::default(), done: 0 }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Works until something fails, which is the mount's death: whatever else fails is told as it is.
    pub fn work_until_it_fails(&mut self) -> io::Error {
        // An unlinked open file that has pages: those must come back after the crash.
        let orphan = self.orphan();
        loop {
            if let Err(error) = self.step() {
                drop(orphan);
                return error;
            }
            self.done += 1;
        }
    }

    fn orphan(&mut self) -> io::Result<File> {
        let path = self.dir.with_extension("orphan");
        let mut file = File::create(&path)?;
        file.write_all(&pattern(1, 100_000))?;
        fs::remove_file(&path)?;
        file.sync_all()?;
        Ok(file)
    }

    fn step(&mut self) -> io::Result<()> {
        let name = format!("f{}", self.rng.below(12));
        let is_file = matches!(self.expect.before.get(&name), Some(Node::File { .. }));
        match self.rng.below(14) {
            0..=2 => self.replace(&name),
            3 if self.expect.before.len() < 40 => self.make_dir_or_link(),
            4 => self.remove_any(),
            5..=6 if is_file => self.overwrite_and_sync(&name),
            7..=8 if is_file => self.append_and_close(&name),
            9 if is_file => self.set_mode_and_version(&name),
            10 if is_file => self.cut(&name),
            11 if is_file => self.punch(&name),
            12 if is_file => self.rename_or_link(&name),
            13 if is_file => self.rewrite_shorter(&name),
            _ => self.write_whole(&name),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn data(&mut self) -> Vec<u8> {
        let len = if self.rng.one_in(3) { self.rng.below(200) } else { self.rng.below(MOST) };
        pattern(self.rng.next(), len as usize)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        match self.expect.before.get(name) {
            Some(Node::File { bytes, .. }) => bytes.to_vec(),
            _ => vec![],
        }
    }

    /// The state in which `name` has other contents and else is as it is.
    fn with_bytes(&self, name: &str, new: Vec<u8>) -> State {
        let mut after = self.expect.before.clone();
        match after.get_mut(name) {
            Some(Node::File { bytes, .. }) => *bytes = Arc::new(new),
            _ => drop(after.insert(name.into(), Node::file(new))),
        }
        after
    }

    fn write_whole(&mut self, name: &str) -> io::Result<()> {
        if !matches!(self.expect.before.get(name), None | Some(Node::File { .. })) {
            return Ok(());
        }
        // Opening makes or empties the file, which is promised as soon as it returns.
        self.expect.begin(self.with_bytes(name, vec![]));
        let mut file = File::create(self.path(name))?;
        self.expect.done();
        let new = self.data();
        self.expect.begin_data(name, self.with_bytes(name, new.clone()));
        file.write_all(&new)?;
        close(file, &self.dir)?;
        self.expect.done();
        Ok(())
    }

    /// As editors and databases do: never a moment without the old or the new contents.
    fn replace(&mut self, name: &str) -> io::Result<()> {
        self.write_whole("new")?;
        if !self.expect.before.contains_key("new") || matches!(self.expect.before.get(name), Some(Node::Dir))
        {
            return Ok(());
        }
        let mut after = self.expect.before.clone();
        let new = after.remove("new").expect("just made");
        after.insert(name.into(), new);
        self.expect.begin(after);
        fs::rename(self.path("new"), self.path(name))?;
        self.expect.done();
        Ok(())
    }

    fn overwrite_and_sync(&mut self, name: &str) -> io::Result<()> {
        let (mut new, patch) = (self.bytes(name), self.data());
        let at = self.rng.below(MOST) as usize;
        new.resize(new.len().max(at + patch.len()), 0);
        new[at..at + patch.len()].copy_from_slice(&patch);
        if patch.is_empty() {
            return Ok(());
        }
        self.expect.begin_data(name, self.with_bytes(name, new.clone()));
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.write_all_at(&patch, at as u64)?;
        if self.rng.one_in(2) {
            file.sync_all()?
        } else {
            file.sync_data()?
        }
        self.expect.done();
        close(file, &self.dir)
    }

    fn append_and_close(&mut self, name: &str) -> io::Result<()> {
        let (mut new, tail) = (self.bytes(name), self.data());
        if new.len() as u64 > 4 * MOST {
            return self.cut(name);
        }
        new.extend_from_slice(&tail);
        self.expect.begin_data(name, self.with_bytes(name, new.clone()));
        let mut file = OpenOptions::new().append(true).open(self.path(name))?;
        for piece in tail.chunks(7000) {
            file.write_all(piece)?;
        }
        close(file, &self.dir)?;
        self.expect.done();
        Ok(())
    }

    /// Data in the cache beyond a cut that returns before the data was written.
    fn rewrite_shorter(&mut self, name: &str) -> io::Result<()> {
        let new = self.data();
        let keep = new.len() / 2;
        self.expect.begin_data_over(name, self.with_bytes(name, new[..keep].to_vec()), new.clone(), true);
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        file.set_len(0)?;
        file.write_all_at(&new, 0)?;
        file.set_len(keep as u64)?;
        close(file, &self.dir)?;
        self.expect.done();
        Ok(())
    }

    fn cut(&mut self, name: &str) -> io::Result<()> {
        let mut new = self.bytes(name);
        new.resize(self.rng.below(MOST) as usize, 0);
        let len = new.len() as u64;
        // The zeros of a page's rest are written before the size is changed, hence not all at once.
        self.expect.begin_data(name, self.with_bytes(name, new));
        OpenOptions::new().write(true).open(self.path(name))?.set_len(len)?;
        self.expect.done();
        Ok(())
    }

    fn punch(&mut self, name: &str) -> io::Result<()> {
        let mut new = self.bytes(name);
        if new.len() < 2 {
            return Ok(());
        }
        let at = self.rng.below(new.len() as u64 - 1) as usize;
        let len = 1 + self.rng.below((new.len() - at) as u64 - 1 + 1) as usize;
        let end = (at + len).min(new.len());
        new[at..end].fill(0);
        self.expect.begin_data(name, self.with_bytes(name, new.clone()));
        let file = OpenOptions::new().write(true).open(self.path(name))?;
        fallocate(
            &file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            at as u64,
            (end - at) as u64,
        )?;
        // The ends of the range are data; what fsync returns for is promised.
        file.sync_all()?;
        self.expect.done();
        Ok(())
    }

    fn set_mode_and_version(&mut self, name: &str) -> io::Result<()> {
        let new_mode = self.rng.pick(&[0o600, 0o644, 0o755, 0o1640]);
        let value = self.rng.next().to_string().into_bytes();
        let mut after = self.expect.before.clone();
        let Some(Node::File { mode, .. }) = after.get_mut(name) else { return Ok(()) };
        *mode = new_mode;
        self.expect.begin(after.clone());
        fs::set_permissions(self.path(name), Permissions::from_mode(new_mode))?;
        self.expect.done();
        let Some(Node::File { version, .. }) = after.get_mut(name) else { return Ok(()) };
        *version = Some(value.clone());
        self.expect.begin(after);
        setxattr(self.path(name), "user.version", &value, XattrFlags::empty())?;
        self.expect.done();
        Ok(())
    }

    fn make_dir_or_link(&mut self) -> io::Result<()> {
        let name = format!("x{}", self.rng.below(1000));
        if self.expect.before.contains_key(&name) {
            return Ok(());
        }
        let mut after = self.expect.before.clone();
        if self.rng.one_in(2) {
            after.insert(name.clone(), Node::Dir);
            self.expect.begin(after);
            fs::create_dir(self.path(&name))?;
        } else {
            after.insert(name.clone(), Node::Link("anywhere".into()));
            self.expect.begin(after);
            symlink("anywhere", self.path(&name))?;
        }
        self.expect.done();
        Ok(())
    }

    fn remove_any(&mut self) -> io::Result<()> {
        let names: Vec<_> = self.expect.before.keys().cloned().collect();
        if names.is_empty() {
            return Ok(());
        }
        let name = self.rng.pick(&names);
        let mut after = self.expect.before.clone();
        let node = after.remove(&name);
        self.expect.begin(after);
        match node {
            Some(Node::Dir) => fs::remove_dir(self.path(&name))?,
            _ => fs::remove_file(self.path(&name))?,
        }
        self.expect.done();
        Ok(())
    }

    /// The other name gets the file; with a link it is copied in all but the inode, so it goes again at
    /// once, before the two could change together.
    fn rename_or_link(&mut self, name: &str) -> io::Result<()> {
        let other = format!("f{}", self.rng.below(12));
        if matches!(self.expect.before.get(&other), Some(Node::Dir)) || other == name {
            return Ok(());
        }
        let mut after = self.expect.before.clone();
        let node = after.get(name).cloned().expect("it is a file");
        if self.rng.one_in(2) && !after.contains_key(&other) {
            after.insert(other.clone(), node);
            self.expect.begin(after.clone());
            fs::hard_link(self.path(name), self.path(&other))?;
            self.expect.done();
            after.remove(name);
            self.expect.begin(after);
            fs::remove_file(self.path(name))?;
        } else {
            after.remove(name);
            after.insert(other.clone(), node);
            self.expect.begin(after);
            fs::rename(self.path(name), self.path(&other))?;
        }
        self.expect.done();
        Ok(())
    }
}

/// Closes and tells the error, which dropping a file does not. A close promises something only if the
/// mount's process lived at its end: of one that is dead already the kernel drops the data without a word.
fn close(file: File, dir: &Path) -> io::Result<()> {
    // SAFETY: the descriptor is the file's own, which gives it up here, and is not used again.
    let closed = unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(file)) };
    if closed != 0 {
        return Err(io::Error::last_os_error());
    }
    // Only the process can answer that.
    statvfs(dir)?;
    Ok(())
}
