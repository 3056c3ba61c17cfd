//! Having the kernel take over how long a file is, and when it was modified, where it collects what is written and
//! goes by its own idea of both (see [`crate::fs`]'s `sizes`).
//!
//! A system call on our own mount, on a thread of ours, makes the kernel ask; that thread's requests are recognized
//! ([`Sizes::of`]) and answered with what it was sent out with, without asking anybody. Such a call may wait for the
//! lock of the inode, so whoever sends a thread out waits for it only for a while.
//!
//! The table of those threads is a leaf.

use super::by_handle::{self, Inode, Place};
use crate::fs::Settled;
use parking_lot::Mutex;
use pool::proto::meta::{Attr, Ino};
use pool::workers::Workers;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The top directory.
const TOP: Ino = Ino::ROOT;
/// Threads that are out at once.
const AT_ONCE: usize = 32;
/// How long a call is waited for by somebody who keeps a page, for which whoever has the lock of the inode may be waiting.
const MOMENT: Duration = Duration::from_millis(250);
/// How long one is waited for otherwise: much less than a mount may take to acknowledge a revocation.
const WHILE: Duration = Duration::from_secs(1);

/// How often the length is looked at that a thread has the kernel take over.
const LOOK: Duration = Duration::from_micros(50);

/// What a thread is out for.
#[derive(Clone, Debug)]
struct Errand {
    attr: Option<Attr>,
    /// Where the inode is found, and how long it was believed to be when it was decided to correct that.
    believed: Option<(CString, u64)>,
}

/// The threads.
pub struct Sizes {
    place: OnceLock<Place>,
    workers: Workers,
    out: Mutex<HashMap<u32, Errand>>,
    /// What the top directory was when the kernel asked last: it asks again on the way of a thread to an inode.
    top: Mutex<Option<Attr>>,
}

thread_local! {
    /// This thread has descriptors of its own.
    static APART: Cell<bool> = const { Cell::new(false) };
}

impl Sizes {
    /// Threads that know of no mount yet.
    pub fn new() -> Arc<Self> {
        let (place, out, top) = Default::default();
        Arc::new(Self { place, workers: Workers::new("sizes", AT_ONCE), out, top })
    }

    /// Says where the mount is. The first call counts.
    pub fn set_place(&self, place: Place) {
        if self.place.set(place).is_err() {
            log::debug!("where the mount is is known already");
        }
    }

    /// Whether a request of this thread is one of those made here.
    pub fn is_out(&self, thread: u32) -> bool {
        self.out.lock().contains_key(&thread)
    }

    /// What to answer when this thread asks for attributes of the inode, if it is one of those made here.
    pub fn of(&self, thread: u32, ino: Ino) -> Option<Attr> {
        let attr = self.out.lock().get(&thread)?.attr;
        if ino == TOP { *self.top.lock() } else { attr.filter(|attr| attr.ino == ino) }
    }

    /// These are the attributes that the kernel is told of an inode: the top directory may be on the way to another.
    pub fn note(&self, attr: &Attr) {
        if attr.ino == TOP {
            *self.top.lock() = Some(*attr);
        }
    }

    /// What to answer when such a thread sets attributes; with `size`, the length. Refused if a program has written to
    /// the file since that was decided: the kernel keeps others from doing so now.
    ///
    /// # Errors
    /// `EAGAIN`
    pub fn taken_over(&self, thread: u32, ino: Ino, size: bool) -> Option<Result<Attr, i32>> {
        let errand = self.out.lock().get(&thread)?.clone();
        let attr = errand.attr.filter(|attr| attr.ino == ino)?;
        let same = match &errand.believed {
            Some((path, believed)) if size => {
                by_handle::believed_size(path).is_ok_and(|now| now == *believed)
            }
            _ => !size,
        };
        Some(if same { Ok(attr) } else { Err(libc::EAGAIN) })
    }

    /// The kernel asks before it goes by the length of the file again, of which it was told this last.
    pub fn ask(self: &Arc<Self>, told: &Attr) {
        let asked = self.send_out(told, WHILE, |_, inode| inode.ask());
        report(told.ino, asked);
    }

    /// How long the kernel believes it to be.
    pub fn believed(self: &Arc<Self>, ino: Ino) -> Option<u64> {
        let (sender, receiver) = channel();
        let sizes = self.clone();
        self.workers.run(move || {
            let found = sizes.out_to(ino, None, |_, inode| inode.believed());
            if sender.send(found).is_err() {
                log::debug!("inode {}: nobody waits for its length any more", ino.0);
            }
        });
        let (size, _) = report(ino, receiver.recv_timeout(WHILE).map_err(|_| ()))?;
        Some(size)
    }

    /// Has the kernel take over length and modification time, if it believed the file to be so long.
    pub fn correct(self: &Arc<Self>, attr: &Attr, believed: u64) -> Settled {
        let wanted = *attr;
        let corrected = self.send_out(attr, WHILE, move |sizes, inode| {
            let (size, mtime) = inode.believed()?;
            if size != believed {
                return Ok(Settled::Overtaken);
            }
            if size != wanted.size {
                sizes.go_on(|errand| errand.believed = Some((inode.path(), believed)));
                match inode.set_size(wanted.size) {
                    Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => return Ok(Settled::Overtaken),
                    done => done?,
                }
            }
            if size != wanted.size || mtime != wanted.mtime {
                inode.set_mtime(wanted.mtime)?;
            }
            Ok(Settled::Done)
        });
        report(attr.ino, corrected).unwrap_or(Settled::NotNow)
    }

    /// Has the kernel take over the length, if it believed the file to be so long. It sets it before it drops the pages beyond,
    /// one of which may be kept until this returns: so it is the length that is waited for.
    pub fn shorten(self: &Arc<Self>, attr: &Attr, believed: u64) {
        let (wanted, (sender, receiver)) = (attr.size, channel());
        let begin = move |sizes: &Self, inode: &Inode| {
            if inode.believed()?.0 != believed {
                return Ok(());
            }
            let path = inode.path();
            sizes.go_on(|errand| errand.believed = Some((path.clone(), believed)));
            if sender.send(path).is_err() {
                return Ok(());
            }
            inode.set_size(wanted)
        };
        self.begin(attr, begin, |ino, done| {
            report(ino, Ok(done));
        });
        let deadline = Instant::now() + MOMENT;
        let Ok(path) = receiver.recv_timeout(MOMENT) else { return };
        // The kernel has no way to say so. Once the thread is back, the path leads nowhere.
        while by_handle::believed_size(&path).is_ok_and(|size| size != wanted) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }

    /// Has a thread do this with the inode, and waits for that for a while. Its requests are answered with `attr`.
    fn send_out<T: Send + 'static>(
        self: &Arc<Self>,
        attr: &Attr,
        wait: Duration,
        what: impl FnOnce(&Self, &Inode) -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>, ()> {
        let (sender, receiver) = channel();
        self.begin(attr, what, move |ino, done| {
            if sender.send(done).is_err() {
                log::debug!("inode {}: its length took long", ino.0);
            }
        });
        receiver.recv_timeout(wait).map_err(|_| ())
    }

    /// Likewise, and goes on; `then` is called with what came of it.
    fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        attr: &Attr,
        what: impl FnOnce(&Self, &Inode) -> io::Result<T> + Send + 'static,
        then: impl FnOnce(Ino, io::Result<T>) + Send + 'static,
    ) {
        let (sizes, attr) = (self.clone(), *attr);
        self.workers.run(move || {
            let done = sizes.out_to(attr.ino, Some(attr), what);
            then(attr.ino, done);
        });
    }

    /// Goes out to the inode.
    fn out_to<T>(
        &self,
        ino: Ino,
        attr: Option<Attr>,
        what: impl FnOnce(&Self, &Inode) -> io::Result<T>,
    ) -> io::Result<T> {
        let thread = by_handle::thread_id();
        self.out.lock().insert(thread, Errand { attr, believed: None });
        let done = self.open(ino).and_then(|inode| what(self, &inode));
        self.out.lock().remove(&thread);
        done
    }

    /// Changes what this thread is out for.
    fn go_on(&self, change: impl FnMut(&mut Errand)) {
        self.out.lock().get_mut(&by_handle::thread_id()).into_iter().for_each(change);
    }

    fn open(&self, ino: Ino) -> io::Result<Inode> {
        let place = self.place.get().ok_or(io::ErrorKind::NotConnected)?;
        if !APART.replace(true)
            && let Err(e) = by_handle::own_descriptors()
        {
            log::debug!("a thread that corrects lengths shares its descriptors: {e}");
        }
        Inode::open(place, ino)
    }
}

/// What was done, if it was; otherwise why not goes into the log.
fn report<T>(ino: Ino, done: Result<io::Result<T>, ()>) -> Option<T> {
    match done {
        Ok(Ok(done)) => return Some(done),
        // It has forgotten the inode.
        Ok(Err(e)) if e.raw_os_error() == Some(libc::ESTALE) => {}
        Ok(Err(e)) => log::warn!("the kernel keeps its own idea of the length of inode {}: {e}", ino.0),
        Err(()) => log::debug!("inode {}: somebody keeps it locked", ino.0),
    }
    None
}
