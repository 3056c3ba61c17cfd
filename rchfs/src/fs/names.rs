//! Operations on names, attributes and whole files: each is one message to the master, and what this
//! mount remembers about it.

use super::Fs;
use super::clone::CLONE_XATTR;
use super::error::{FsError, Result};
use super::file::{Access, File, Handle, Held, State};
use super::known::{Name, is_dot};
use super::space::Origin;
use pool::proto::meta::{
    Attr, Caller, DirEntry, FILE_SIZE_MAX, Ino, MetaError, MetaReply, MetaRequest, NAME_MAX, NewNode,
    RenameMode, SetAttr, XattrMode,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The extended attribute, of every inode of a mount that shares its files with others, that says how many messages
/// about files the mount has sent to the master. It is not listed.
pub const MESSAGES: &[u8] = b"trusted.rchfs.messages";

/// Name, owner and mode of something to make.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// Directory.
    pub parent: Ino,
    /// Name in it.
    pub name: &'a [u8],
    /// Who makes it.
    pub caller: Caller,
    /// Permission bits asked for.
    pub perm: u16,
    /// Bits that the caller's umask clears.
    pub umask: u16,
}

impl Fs {
    /// The inode called `name`. Counts as one lookup, which [`forget`](Self::forget) takes back.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        let attr = match self.lookup_known(parent, name) {
            Some(known) => known?,
            None => self.meta_attr(MetaRequest::Lookup { parent, name: name.to_vec() })?,
        };
        self.inodes.looked_up(attr.ino);
        Ok(self.as_kept(attr))
    }

    /// What is known of the name under a lease, if anything is.
    fn lookup_known(&self, parent: Ino, name: &[u8]) -> Option<Result<Attr>> {
        let shared = self.shared.as_ref().filter(|shared| shared.session.is_valid())?;
        if name.len() > NAME_MAX {
            // Not to be had anywhere: which error that is the master knows.
            return None;
        }
        match shared.known.name(parent, name) {
            Name::Is(ino) => shared.known.attr(ino).map(Ok),
            Name::Free => Some(Err(MetaError::NotFound.into())),
            Name::Unknown => None,
        }
    }

    /// Attributes, without a message if they are known under a lease.
    pub(super) fn getattr_known(&self, ino: Ino) -> Result<Attr> {
        let shared = self.shared.as_ref().filter(|shared| shared.session.is_valid());
        match shared.and_then(|shared| shared.known.attr(ino)) {
            Some(attr) => Ok(attr),
            None => self.meta_attr(MetaRequest::GetAttr { ino }),
        }
    }

    /// The kernel takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: Ino, count: u64) {
        if self.inodes.forget(ino, count) {
            self.forget_at_master(vec![ino]);
        }
    }

    /// Attributes. With the handle of a writer (as the kernel asks before a buffered write) the answer
    /// is [`FsError::Full`] when that write would find no space.
    pub fn getattr(&self, ino: Ino, handle: Option<u64>) -> Result<Attr> {
        if let Some(file) = self.inodes.live(ino) {
            if let Some(number) = handle
                && self.handles.get(number).is_ok_and(|h| h.access.write)
                && self.is_squeezed(&file)?
            {
                return Err(FsError::Full);
            }
            self.flush_times(&file)?;
        }
        self.getattr_known(ino).map(|attr| self.as_kept(attr))
    }

    /// Whether the attributes of `ino` may change without the kernel's doing.
    pub fn is_volatile(&self, ino: Ino) -> bool {
        self.inodes.live(ino).is_some_and(|f| f.squeezed.load(Ordering::Acquire))
    }

    /// Sets attributes.
    pub fn setattr(&self, ino: Ino, caller: Caller, set: SetAttr) -> Result<Attr> {
        match set.size {
            Some(size) if size > FILE_SIZE_MAX => Err(FsError::TooBig),
            Some(size) => {
                let file = self.inodes.open(ino);
                let result = self.resize(&file, caller, set, size);
                self.close_file(&file);
                result
            }
            None => {
                if let Some(shared) = self.shared.as_ref().filter(|_| set.atime.is_some()) {
                    shared.forget_atime(ino);
                }
                if let Some(file) = self.inodes.live(ino) {
                    if let Some(attr) = self.set_later(&file, set)? {
                        return Ok(attr);
                    }
                    // What was written before must not move a time that is set after it.
                    self.flush_times(&file)?;
                    file.atime_good_until.store(i64::MIN, Ordering::Relaxed);
                }
                if set.mtime.is_some() {
                    self.inodes.correct_mtime(ino, None);
                }
                self.meta_attr(MetaRequest::SetAttr { ino, caller, set })
            }
        }
    }

    fn resize(&self, file: &File, caller: Caller, set: SetAttr, size: u64) -> Result<Attr> {
        let _no_clone = self.clones.read();
        let request = MetaRequest::SetAttr { ino: file.ino, caller, set };
        let mut state = match self.exclusive(file) {
            Ok(state) => state,
            // Not a regular file: the master knows which error that is.
            Err(_) => return self.meta_attr(request),
        };
        self.tell_locked(file, &mut state)?;
        if size > state.size {
            let tail = state.size..size;
            self.zero_mapped(file, &mut state, tail, Origin::Program)?;
        }
        // What became the file's own by that must be told before its size, and is by the time.
        self.tell_locked(file, &mut state)?;
        let attr = self.meta_held(request)?;
        state.map.remove(self.size.pages_for(size)..u64::MAX);
        state.size = size;
        file.wrote(false);
        Ok(attr)
    }

    /// Asks the master for size and map.
    pub(super) fn load(&self, file: &File, state: &mut State) -> Result<()> {
        let mut fresh = State { held: Held::Exclusive, ..State::default() };
        let mut from = Some(0);
        while let Some(page) = from {
            let request = MetaRequest::Map { ino: file.ino, from: page, limit: 4096 };
            let MetaReply::Map { attr, extents, mut shared, next } = self.meta(request)? else {
                return Err(Self::bad_reply());
            };
            shared.sort_unstable_by_key(|run| run.first);
            for extent in extents {
                fresh.map.insert(extent);
                fresh.map.share_pages(extent, &shared);
            }
            fresh.size = attr.size;
            from = next;
        }
        *state = fresh;
        Ok(())
    }

    /// Makes an inode. Counts as one lookup.
    pub fn make(&self, what: Making<'_>, node: NewNode) -> Result<Attr> {
        let Making { parent, name, caller, perm, umask } = what;
        let request = MetaRequest::Make { parent, name: name.to_vec(), caller, node, perm, umask };
        let attr = self.meta_attr(request)?;
        self.inodes.looked_up(attr.ino);
        Ok(attr)
    }

    /// Makes a regular file and opens it.
    pub fn create(&self, what: Making<'_>, access: Access) -> Result<(Attr, u64)> {
        let attr = self.make(what, NewNode::File)?;
        let file = self.inodes.open(attr.ino);
        if self.shared.is_none() {
            file.state.write().held = Held::Exclusive;
            return Ok((attr, self.new_handle(file, access)));
        }
        match self.opened(file.clone(), access) {
            Ok(handle) => Ok((attr, handle)),
            Err(why) => {
                self.close_file(&file);
                Err(why)
            }
        }
    }

    /// A handle of a file that was just opened. Whoever may write must hold it exclusively to begin with.
    fn opened(&self, file: Arc<File>, access: Access) -> Result<u64> {
        if self.shared.is_some() && access.write {
            let _held = self.loaded(&file, Held::Exclusive)?;
            file.writers.fetch_add(1, Ordering::SeqCst);
            file.at_work.fetch_add(1, Ordering::SeqCst);
        }
        Ok(self.new_handle(file, access))
    }

    /// Opens a regular file.
    pub fn open(&self, ino: Ino, access: Access) -> Result<u64> {
        let file = self.inodes.open(ino);
        self.opened(file.clone(), access).inspect_err(|_| self.close_file(&file))
    }

    fn new_handle(&self, file: Arc<File>, access: Access) -> u64 {
        if access.write && !access.direct {
            file.cached_writers.fetch_add(1, Ordering::Relaxed);
        }
        self.handles.add(Handle { file, access, idle: AtomicBool::new(false) })
    }

    /// Closes a handle.
    pub fn release(&self, handle: u64) -> Result<()> {
        let handle = self.handles.remove(handle)?;
        if handle.access.write && !handle.access.direct {
            handle.file.cached_writers.fetch_sub(1, Ordering::Relaxed);
        }
        if self.shared.is_some() {
            if handle.access.write {
                self.ends_work(&handle);
                handle.file.writers.fetch_sub(1, Ordering::SeqCst);
            }
            self.close_file(&handle.file);
            return Ok(());
        }
        let flushed = self.flush_times(&handle.file);
        self.close_file(&handle.file);
        flushed
    }

    /// A descriptor of the file is closed by this owner of locks: what was written is told to the master, and the
    /// owner's locks go. Nothing to do if no other mount uses the files.
    pub fn closing(&self, handle: u64, owner: u64) -> Result<()> {
        if self.shared.is_none() {
            return Ok(());
        }
        let handle = self.handles.get(handle)?;
        let file = &handle.file;
        let unlocked = self.closed_by(file.ino, owner);
        if handle.access.write {
            self.ends_work(&handle);
            self.check_lost(file)?;
            if file.state.read().dirty {
                self.tell(file)?;
            }
        }
        unlocked
    }

    fn close_file(&self, file: &File) {
        if self.inodes.close(file.ino) {
            self.forget_at_master(vec![file.ino]);
        }
    }

    /// Adds a name. Counts as one lookup.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let attr = self.meta_attr(MetaRequest::Link { ino, parent, name: name.to_vec() })?;
        self.inodes.looked_up(attr.ino);
        Ok(self.as_kept(attr))
    }

    /// Removes a name of something that is not a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let attr = self.meta_attr(MetaRequest::Unlink { parent, name: name.to_vec() })?;
        self.lost_a_name(&attr);
        Ok(())
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let attr = self.meta_attr(MetaRequest::Rmdir { parent, name: name.to_vec() })?;
        self.lost_a_name(&attr);
        Ok(())
    }

    /// Renames.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<()> {
        let reply = self.meta(MetaRequest::Rename {
            parent: from.0,
            name: from.1.to_vec(),
            new_parent: to.0,
            new_name: to.1.to_vec(),
            mode,
        })?;
        let MetaReply::Renamed { replaced } = reply else { return Err(Self::bad_reply()) };
        if let Some(attr) = replaced {
            self.lost_a_name(&attr);
        }
        Ok(())
    }

    fn lost_a_name(&self, attr: &Attr) {
        if attr.nlink == 0 && self.inodes.orphaned(attr.ino, attr.blocks * 512) {
            self.forget_at_master(vec![attr.ino]);
        }
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.meta_bytes(MetaRequest::ReadLink { ino })
    }

    /// Entries of a directory after `after`, at most `limit`. With `plus` each has attributes; the
    /// caller counts the lookups of those it passes on ([`looked_up`](Self::looked_up)).
    pub fn readdir(&self, ino: Ino, after: u64, limit: u32, plus: bool) -> Result<Vec<DirEntry>> {
        if after == 0 {
            self.dir_was_read(ino)?;
        }
        if let Some(known) = self.list_known(ino, after, limit, plus) {
            return Ok(known);
        }
        match self.meta(MetaRequest::ReadDir { ino, after, limit, plus })? {
            MetaReply::Entries(mut entries) => {
                for entry in &mut entries {
                    entry.attr = entry.attr.map(|attr| self.as_kept(attr));
                }
                Ok(entries)
            }
            _ => Err(Self::bad_reply()),
        }
    }

    /// The same of what is known under leases, if all of it is.
    fn list_known(&self, dir: Ino, after: u64, limit: u32, plus: bool) -> Option<Vec<DirEntry>> {
        let shared = self.shared.as_ref().filter(|shared| shared.session.is_valid())?;
        let mut entries = shared.known.list(dir, after, limit)?;
        for entry in entries.iter_mut().filter(|entry| plus && entry.attr.is_none()) {
            let attr = shared
                .known
                .attr(entry.ino)
                .or_else(|| shared.known.attr(dir).filter(|_| is_dot(&entry.name)))?;
            entry.attr = Some(self.as_kept(attr));
        }
        Some(entries)
    }

    /// The kernel was told of `ino` in a directory listing.
    pub fn looked_up(&self, ino: Ino) {
        self.inodes.looked_up(ino);
    }

    /// Value of an extended attribute. [`MESSAGES`] is one of the mount's own.
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        if name == MESSAGES && self.shared.is_some() {
            return Ok(self.messages().to_string().into_bytes());
        }
        let shared = self.shared.as_ref().filter(|shared| shared.session.is_valid());
        match shared.and_then(|shared| shared.known.xattr(ino, name)) {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(MetaError::NoAttribute.into()),
            None => self.meta_bytes(MetaRequest::GetXattr { ino, name: name.to_vec() }),
        }
    }

    /// Names of the extended attributes, each ended by a zero byte. Only root sees those that only root
    /// can read (xattr(7)).
    pub fn listxattr(&self, ino: Ino, caller: Caller) -> Result<Vec<u8>> {
        let shared = self.shared.as_ref().filter(|shared| shared.session.is_valid());
        let names = match shared.and_then(|shared| shared.known.xattr_list(ino)) {
            Some(names) => names,
            None => self.meta_bytes(MetaRequest::ListXattr { ino })?,
        };
        if caller.uid == 0 {
            return Ok(names);
        }
        let each = names.split_inclusive(|&b| b == 0).filter(|n| !n.starts_with(b"trusted."));
        Ok(each.flatten().copied().collect())
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &self,
        ino: Ino,
        caller: Caller,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        if name == CLONE_XATTR {
            return self.clone_tree(ino, caller, value);
        }
        if self.set_acl_later(ino, caller, name, value)? {
            return Ok(());
        }
        self.tell_before_xattr(ino)?;
        let (name, value) = (name.to_vec(), value.to_vec());
        self.meta_attr(MetaRequest::SetXattr { ino, caller, name, value, mode }).map(drop)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.tell_before_xattr(ino)?;
        self.meta_attr(MetaRequest::RemoveXattr { ino, name: name.to_vec() }).map(drop)
    }

    /// An access control list and a mode change each other, in the order in which they are set.
    fn tell_before_xattr(&self, ino: Ino) -> Result<()> {
        let file = self.shared.as_ref().and_then(|_| self.inodes.live(ino));
        file.map_or(Ok(()), |file| self.tell(&file))
    }

    fn meta_bytes(&self, request: MetaRequest) -> Result<Vec<u8>> {
        match self.meta(request)? {
            MetaReply::Bytes(bytes) => Ok(bytes),
            _ => Err(Self::bad_reply()),
        }
    }
}
