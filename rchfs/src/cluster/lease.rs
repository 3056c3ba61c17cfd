//! That this mount alone has the cluster's file system: said to the master every second.
//!
//! The caches of a mount assume that nobody else changes files. A mount that the master takes for gone, because it
//! was stopped or cut off, and that then finds that another has the file system, ends its process at once: whatever
//! it still holds would overwrite what the other has done.

use parking_lot::{Condvar, Mutex};
use pool::proto::cluster::{ClusterError, ClusterReply, ClusterRequest, MOUNT_LEASE};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time between two words to the master.
const PERIOD: Duration = Duration::from_secs(1);
/// The pause before the file system is asked for again while another mount has it.
const RETRY: Duration = Duration::from_millis(200);

/// This mount's right to the file system.
pub struct MountLease {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    transport: Arc<dyn Transport>,
    mount: u64,
    by: String,
    ended: Mutex<bool>,
    woken: Condvar,
}

/// What the master says.
enum Said {
    Granted,
    Refused(ClusterError),
    Nothing(String),
}

impl MountLease {
    /// Asks for the file system. If another mount has it, waits as long as it takes to see that that one is dead.
    ///
    /// # Errors
    /// A sentence that says who has it, or that the master does not answer.
    pub fn take(transport: Arc<dyn Transport>) -> Result<Self, String> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let pid = std::process::id();
        let by = format!("process {pid} on {}", host.trim());
        let mount = RandomState::new().hash_one(pid);
        let (ended, woken) = (Mutex::new(false), Condvar::new());
        let shared = Arc::new(Shared { transport, mount, by, ended, woken });
        let until = Instant::now() + MOUNT_LEASE + RETRY;
        loop {
            match shared.say() {
                Said::Granted => break,
                Said::Refused(ClusterError::Mounted { .. }) if Instant::now() < until => {
                    std::thread::sleep(RETRY);
                }
                Said::Refused(error) => return Err(error.to_string()),
                Said::Nothing(why) => return Err(why),
            }
        }
        let saying = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("mount-lease".into()).spawn(move || saying.keep());
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The mount is over.
    pub fn end(&self) {
        if std::mem::replace(&mut *self.shared.ended.lock(), true) {
            return;
        }
        self.shared.woken.notify_all();
        let request = ClusterRequest::Unmount { mount: self.shared.mount };
        if let Err(error) = self.shared.transport.call(NodeId::Master, Request::Cluster(request)) {
            log::warn!("the master will know only in {MOUNT_LEASE:?} that this mount is over: {error}");
        }
    }
}

impl Drop for MountLease {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that keeps the mount's lease has panicked");
        }
    }
}

impl Shared {
    fn say(&self) -> Said {
        let request = ClusterRequest::Mount { mount: self.mount, by: self.by.clone() };
        match self.transport.call(NodeId::Master, Request::Cluster(request)) {
            Ok(Reply::Cluster(Ok(ClusterReply::Done))) => Said::Granted,
            Ok(Reply::Cluster(Err(error))) => Said::Refused(error),
            Ok(_) => Said::Nothing("the master's answer fits no question; is it of this version?".into()),
            Err(error) => Said::Nothing(error.to_string()),
        }
    }

    fn keep(&self) {
        let mut silent = false;
        let mut ended = self.ended.lock();
        while !*ended {
            if !self.woken.wait_for(&mut ended, PERIOD).timed_out() {
                continue;
            }
            drop(ended);
            match self.say() {
                Said::Granted => silent = false,
                Said::Refused(error) => {
                    let over = *self.ended.lock();
                    if !over {
                        log::error!("this mount was not heard of for too long, and ends: {error}");
                        std::process::exit(1);
                    }
                }
                Said::Nothing(why) if !silent => {
                    log::warn!("the master does not answer: {why}");
                    silent = true;
                }
                Said::Nothing(_) => {}
            }
            ended = self.ended.lock();
        }
    }
}
