//! Telling the kernel things it did not ask for.
//!
//! A notification about an inode waits for requests about that inode, so it must never be sent by a
//! thread that answers requests: threads of their own do nothing else. Correcting a time is a system call
//! on the mount, which waits for the lock of the inode; whoever holds that lock may be waiting for a
//! write-back (lseek(2) does). So times have a thread to themselves, and nothing ever waits for that one.

use super::by_handle::{self, Place};
use super::sizes::Sizes;
use super::tune::Settings;
use super::uring::{self, wire};
use crate::fs::{Kernel, Settled};
use fuser::{INodeNo, Notifier};
use pool::proto::meta::{Attr, Ino, Time};
use pool::workers::Workers;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// How long dropping a name is waited for.
const NAME_WAIT: Duration = Duration::from_millis(50);
/// Names that are dropped at once.
const NAMES_AT_ONCE: usize = 64;

/// Something to tell the kernel.
enum Task {
    /// Its attributes of the inode are out of date.
    ForgetAttributes(Ino),
    /// It may hold this many bytes of dirty data.
    LimitDirty(u64),
    /// Write back, and drop, what it holds of the inode; then go on.
    WriteBack(Ino, Then),
}

/// What waits for the kernel. Called on the thread that talks to it; dropped uncalled if the mount is on its
/// way down.
type Then = Box<dyn FnOnce() + Send>;

/// The way to the threads that talk to the kernel.
#[derive(Clone)]
pub struct Notify {
    tasks: Sender<Task>,
    times: Sender<(Ino, Time)>,
    /// The thread that corrects times; 0 before it starts.
    times_thread: Arc<AtomicU32>,
    /// Where names are dropped, which may wait for requests.
    names: Workers,
    /// Where it is told of lengths, if it keeps its own idea of those that other mounts change.
    pub sizes: Arc<Sizes>,
    /// For what is done by whoever asks for it.
    direct: Arc<OnceLock<Direct>>,
}

/// The kernel, for messages that are written at once.
struct Direct {
    notifier: Notifier,
    device: OwnedFd,
    /// It can be told that no name is to be believed without asking.
    epochs: bool,
}

impl Notify {
    /// A way to nowhere yet, and the end that [`serve`] wants.
    pub fn new() -> (Self, Tasks) {
        let (tasks, tasks_end) = channel();
        let (times, times_end) = channel();
        let times_thread = Arc::new(AtomicU32::new(0));
        let ends = Tasks { tasks: tasks_end, times: times_end, times_thread: times_thread.clone() };
        (
            Self {
                tasks,
                times,
                times_thread,
                names: Workers::new("names", NAMES_AT_ONCE),
                sizes: Sizes::new(),
                direct: Arc::default(),
            },
            ends,
        )
    }

    /// Says how to reach the kernel: by `notifier`, and by messages to `device`. The first call counts.
    pub fn set_notifier(&self, notifier: Notifier, device: OwnedFd) {
        // Nothing is believed yet, so this does no harm.
        let epochs = tell(&device, &wire::next_epoch()).is_ok();
        log::debug!("the kernel can be told to ask for names anew: {epochs}");
        if self.direct.set(Direct { notifier, device, epochs }).is_err() {
            log::debug!("the kernel is known already");
        }
    }

    /// Whether the kernel can be made to ask for names anew without waiting for anything (Linux 6.16). Where it cannot it
    /// must be told nothing about names that it may believe.
    pub fn can_revoke_names(&self) -> bool {
        self.direct.get().is_some_and(|direct| direct.epochs)
    }

    /// Makes the kernel write back what it holds of `ino`, then calls `then`, on another thread.
    pub fn write_back(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        self.send(Task::WriteBack(ino, Box::new(then)));
    }

    /// Whether a request of this thread comes from our own correction of a time.
    pub fn is_correction(&self, pid: u32) -> bool {
        pid == self.times_thread.load(Ordering::Relaxed)
    }

    fn send(&self, task: Task) {
        if self.tasks.send(task).is_err() {
            log::debug!("the kernel is not listening any more");
        }
    }
}

impl Kernel for Notify {
    fn forget_attributes(&self, ino: Ino) {
        self.send(Task::ForgetAttributes(ino));
    }

    fn set_mtime(&self, ino: Ino, time: Time) {
        if self.times.send((ino, time)).is_err() {
            log::debug!("the kernel is not listening any more");
        }
    }

    fn limit_dirty(&self, bytes: u64) {
        self.send(Task::LimitDirty(bytes));
    }

    fn drop_pages(&self, ino: Ino) {
        if let Some(direct) = self.direct.get() {
            direct.invalidate(ino, 0);
        }
    }

    fn attributes_changed(&self, ino: Ino) {
        if let Some(direct) = self.direct.get() {
            direct.invalidate(ino, -1);
        }
    }

    fn names_changed(&self, ino: Ino) {
        if let Some(direct) = self.direct.get() {
            direct.next_epoch();
            direct.invalidate(ino, -1);
        }
    }

    fn drop_name(&self, dir: Ino, name: &[u8]) {
        let Some(notifier) = self.direct.get().map(|direct| direct.notifier.clone()) else { return };
        let (sender, receiver) = channel();
        let name = OsStr::from_bytes(name).to_os_string();
        self.names.run(move || {
            match notifier.inval_entry(INodeNo(dir.0), &name) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => log::debug!("telling the kernel about a name in inode {}: {e}", dir.0),
            }
            if sender.send(()).is_err() {
                log::debug!("dropping a name took long");
            }
        });
        if receiver.recv_timeout(NAME_WAIT).is_err() {
            log::debug!("a directory is in use while a name in it is revoked");
        }
    }

    fn forget_names(&self) {
        if let Some(direct) = self.direct.get() {
            direct.next_epoch();
        }
    }

    fn ask_for_size(&self, told: &Attr) {
        self.sizes.ask(told);
    }

    fn believed_size(&self, ino: Ino) -> Option<u64> {
        self.sizes.believed(ino)
    }

    fn correct(&self, attr: &Attr, believed: u64) -> Settled {
        self.sizes.correct(attr, believed)
    }

    fn shorten(&self, attr: &Attr, believed: u64) {
        self.sizes.shorten(attr, believed);
    }

    fn write_back_soon(&self, ino: Ino) {
        let direct = self.direct.clone();
        self.names.run(move || {
            if let Some(direct) = direct.get() {
                direct.invalidate(ino, 0);
            }
        });
    }

    fn about_to_wait(&self) {
        // If there can be no more lanes, what waits is served when one is done.
        let _ = uring::about_to_wait();
    }
}

impl Direct {
    /// Makes the kernel ask for all names anew.
    fn next_epoch(&self) {
        if self.epochs
            && let Err(e) = tell(&self.device, &wire::next_epoch())
        {
            log::debug!("telling the kernel to ask for names anew: {e}");
        }
    }

    /// Drops what the kernel caches of `ino`: attributes, and data if `offset` is not negative. If it does not know
    /// the inode, an answer about it may be on its way: then the kernel is made to ask for names anew, which brings
    /// newer attributes along.
    fn invalidate(&self, ino: Ino, offset: i64) {
        match tell(&self.device, &wire::invalidate(ino, offset)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.next_epoch(),
            Err(e) => log::debug!("telling the kernel about inode {}: {e}", ino.0),
        }
    }
}

/// Writes a message to the kernel.
fn tell(device: &OwnedFd, message: &[u8]) -> io::Result<()> {
    Ok(nix::unistd::write(device, message).map(drop)?)
}

/// Tasks that wait to be carried out.
pub struct Tasks {
    tasks: Receiver<Task>,
    times: Receiver<(Ino, Time)>,
    times_thread: Arc<AtomicU32>,
}

/// Starts the threads that carry out `tasks` for the mount at `place` until every [`Notify`] is gone.
pub fn serve(tasks: Tasks, kernel: Notifier, place: Place, settings: Settings) -> io::Result<()> {
    let correct = move || {
        tasks.times_thread.store(by_handle::thread_id(), Ordering::Relaxed);
        if let Err(e) = by_handle::own_descriptors() {
            log::debug!("the thread that corrects times shares its descriptors: {e}");
        }
        tasks.times.iter().for_each(|(ino, time)| set_mtime(&place, ino, time));
    };
    thread::Builder::new().name("times".into()).spawn(correct)?;
    let run = move || {
        settings.begin();
        for task in tasks.tasks {
            match task {
                Task::ForgetAttributes(ino) => invalidate(&kernel, ino, -1),
                Task::LimitDirty(bytes) => settings.limit_dirty(bytes),
                Task::WriteBack(ino, then) => {
                    invalidate(&kernel, ino, 0);
                    then();
                }
            }
        }
    };
    thread::Builder::new().name("kernel".into()).spawn(run).map(drop)
}

fn set_mtime(place: &Place, ino: Ino, time: Time) {
    match by_handle::Inode::open(place, ino).and_then(|inode| inode.set_mtime(time)) {
        Ok(()) => {}
        // It has forgotten the inode, or a program was quicker to set the time.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESTALE | libc::EAGAIN)) => {}
        Err(e) => log::debug!("the kernel keeps an old modification time of inode {}: {e}", ino.0),
    }
}

/// Drops what the kernel caches of `ino`: attributes, and from `offset` on data if that is not negative.
fn invalidate(kernel: &Notifier, ino: Ino, offset: i64) {
    match kernel.inval_inode(INodeNo(ino.0), offset, 0) {
        Ok(()) => {}
        // It does not know the inode any more.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => log::debug!("telling the kernel about inode {}: {e}", ino.0),
    }
}
