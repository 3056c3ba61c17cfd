//! Verbs as owned, safe objects. This module and its own are alone in knowing rdma-sys.
//!
//! | owner | keeps alive |
//! | --- | --- |
//! | [`Device`] | nothing: an open device, with the port and the address that are used |
//! | [`Pd`], [`Channel`] | the device |
//! | [`Cq`] | its channel |
//! | [`Mr`] | the protection domain, and the memory that is registered |
//! | [`Qp`] | the domain, its completion queues, and all memory that its requests may name |
//!
//! So whatever order they are dropped in, the system sees them end in the one it wants; and a device never
//! accesses memory that has been given back, because a queue pair is destroyed before it lets go of the
//! memory, and a queue pair that has been destroyed accesses nothing.

mod device;
mod library;

pub(super) use device::Device;

use device::{PORT, Port};
use library::Library;
use rdma_sys::*;
use std::any::Any;
use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// How a queue pair is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Address {
    /// Global address of the port.
    pub gid: [u8; 16],
    /// Its local address, on InfiniBand.
    pub lid: u16,
    /// Number of the queue pair.
    pub qpn: u32,
    /// The packet number that it starts with.
    pub psn: u32,
    /// The largest packet (a verbs code, 1 for 256 bytes to 5 for 4096).
    pub mtu: u8,
}

fn last(what: &str) -> String {
    format!("{what}: {}", io::Error::last_os_error())
}

fn code(what: &str, code: i32) -> Result<(), String> {
    match code {
        0 => Ok(()),
        // Some calls return the error, others -1 and set errno.
        -1 => Err(last(what)),
        code => Err(format!("{what}: {}", io::Error::from_raw_os_error(code))),
    }
}

fn nonblocking(fd: RawFd) -> Result<(), String> {
    // SAFETY: no operands in memory.
    let done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    };
    if done { Ok(()) } else { Err(last("fcntl")) }
}

macro_rules! shared {
    ($($owner:ident)*) => {$(
        // SAFETY: verbs objects may be used by any threads at once; the library locks each.
        unsafe impl Send for $owner {}
        // SAFETY: as above.
        unsafe impl Sync for $owner {}
    )*};
}
shared!(Pd Channel Cq Mr Qp);

/// A protection domain: what belongs together.
pub(super) struct Pd {
    pd: NonNull<ibv_pd>,
    device: Arc<Device>,
}

impl Pd {
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, String> {
        // SAFETY: the context is open, and kept so.
        let pd = unsafe { (device.library.alloc_pd)(device.context.as_ptr()) };
        let pd = NonNull::new(pd).ok_or_else(|| last("cannot make a protection domain"))?;
        Ok(Arc::new(Self { pd, device: Arc::clone(device) }))
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: made by us; all that is in it has kept it alive, and is gone.
        unsafe { (self.device.library.dealloc_pd)(self.pd.as_ptr()) };
    }
}

/// Where completion queues say that something has come.
pub(super) struct Channel {
    channel: NonNull<ibv_comp_channel>,
    device: Arc<Device>,
}

impl Channel {
    pub fn new(device: &Arc<Device>) -> Result<Arc<Self>, String> {
        // SAFETY: the context is open, and kept so.
        let channel = unsafe { (device.library.create_comp_channel)(device.context.as_ptr()) };
        let channel = NonNull::new(channel).ok_or_else(|| last("cannot make a completion channel"))?;
        let this = Self { channel, device: Arc::clone(device) };
        nonblocking(this.fd())?;
        Ok(Arc::new(this))
    }

    /// Readable when there is something to [`clear`](Self::clear).
    pub fn fd(&self) -> RawFd {
        // SAFETY: the channel lives.
        unsafe { (*self.channel.as_ptr()).fd }
    }

    /// Takes what has been said so far.
    pub fn clear(&self) {
        let (mut cq, mut context) = (null_mut(), null_mut());
        // SAFETY: the channel lives, both results are ours to write. Destroying a queue waits until its events
        // are acknowledged, which is done at once, so the queue of an event that was got is there.
        unsafe {
            while (self.device.library.get_cq_event)(self.channel.as_ptr(), &mut cq, &mut context) == 0 {
                (self.device.library.ack_cq_events)(cq, 1);
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: made by us; its queues have kept it alive, and are gone.
        unsafe { (self.device.library.destroy_comp_channel)(self.channel.as_ptr()) };
    }
}

/// What has come of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// The request's number.
    pub id: u64,
    /// Bytes of what was received; an error's code.
    pub result: Result<u32, u32>,
}

/// A completion queue.
pub(super) struct Cq {
    cq: NonNull<ibv_cq>,
    channel: Arc<Channel>,
}

impl Cq {
    /// What [`poll`](Self::poll) takes at most; if it takes less, there is no more.
    pub const MOST: usize = 16;

    /// One that holds `entries`.
    pub fn new(channel: &Arc<Channel>, entries: u32) -> Result<Arc<Self>, String> {
        let (library, context) = (channel.device.library, channel.device.context.as_ptr());
        let entries = entries.min(channel.device.limits().completions) as i32;
        // SAFETY: context and channel live, and are kept alive.
        let cq = unsafe { (library.create_cq)(context, entries, null_mut(), channel.channel.as_ptr(), 0) };
        let cq = NonNull::new(cq).ok_or_else(|| last("cannot make a completion queue"))?;
        Ok(Arc::new(Self { cq, channel: Arc::clone(channel) }))
    }

    /// The next completion makes the channel readable. Must be followed by another [`poll`](Self::poll):
    /// what came before this call says nothing.
    pub fn arm(&self) -> Result<(), String> {
        // SAFETY: the queue lives.
        code("cannot ask for completion events", unsafe { ibv_req_notify_cq(self.cq.as_ptr(), 0) })
    }

    /// Takes some of what has come, and hands it over; how much that was.
    pub fn poll(&self, mut each: impl FnMut(Completion)) -> Result<usize, String> {
        // Not cleared: most looks find nothing.
        let mut found = [const { std::mem::MaybeUninit::<ibv_wc>::uninit() }; Self::MOST];
        // SAFETY: the queue lives; there is room for that many.
        let count = unsafe { ibv_poll_cq(self.cq.as_ptr(), Self::MOST as i32, found.as_mut_ptr().cast()) };
        let count = usize::try_from(count).map_err(|_| last("cannot poll a completion queue"))?;
        for wc in &found[..count.min(Self::MOST)] {
            // SAFETY: the call has written the first `count`.
            let wc = unsafe { wc.assume_init_ref() };
            let good = wc.status == ibv_wc_status::IBV_WC_SUCCESS;
            each(Completion { id: wc.wr_id, result: if good { Ok(wc.byte_len) } else { Err(wc.status) } });
        }
        Ok(count)
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: made by us; its queue pairs have kept it alive, and are gone.
        unsafe { (self.channel.device.library.destroy_cq)(self.cq.as_ptr()) };
    }
}

/// What a completion's error code means.
pub(super) fn meaning(code: u32) -> String {
    let Ok(library) = Library::get() else { return format!("error {code}") };
    // SAFETY: a static C string, for any number.
    unsafe { CStr::from_ptr((library.wc_status_str)(code)) }.to_string_lossy().into_owned()
}

/// Memory that devices can access.
///
/// # Safety
/// The range must be mapped, for reading and writing, for as long as the value lives, and no reference into it may
/// exist while a device may access it.
pub(super) unsafe trait Memory: Any + Send + Sync {
    /// Where it begins, as a number, and its length.
    fn range(&self) -> (usize, usize);
}

/// Registered memory.
pub(super) struct Mr {
    mr: NonNull<ibv_mr>,
    start: usize,
    len: usize,
    pd: Arc<Pd>,
    _memory: Arc<dyn Memory>,
}

impl Mr {
    /// Registers the part `range` of `memory`; `shared`: other hosts may read and write it.
    pub fn new(
        pd: &Arc<Pd>,
        memory: &Arc<dyn Memory>,
        range: Range<usize>,
        shared: bool,
    ) -> Result<Arc<Self>, String> {
        let (start, all) = memory.range();
        assert!(range.start <= range.end && range.end <= all, "a part of the memory");
        let (start, len) = (start + range.start, range.end - range.start);
        use ibv_access_flags as Flags;
        let far = Flags::IBV_ACCESS_REMOTE_READ.0 | Flags::IBV_ACCESS_REMOTE_WRITE.0;
        let access = Flags::IBV_ACCESS_LOCAL_WRITE.0 | if shared { far } else { 0 };
        let library = pd.device.library;
        // SAFETY: the memory is mapped for as long as it lives (its contract), and kept alive.
        let mr = unsafe { (library.reg_mr)(pd.pd.as_ptr(), start as *mut _, len, access as i32) };
        let mr = NonNull::new(mr).ok_or_else(|| {
            last("cannot register memory")
                + "; the limit on locked memory (ulimit -l) must allow for all of the pool"
        })?;
        Ok(Arc::new(Self { mr, start, len, pd: Arc::clone(pd), _memory: Arc::clone(memory) }))
    }

    /// What other hosts need to access it: address and key.
    pub fn remote(&self) -> (u64, u32) {
        // SAFETY: the registration lives.
        (self.start as u64, unsafe { (*self.mr.as_ptr()).rkey })
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        // SAFETY: made by us; the queue pairs that may name it have kept it alive, and are gone.
        unsafe { (self.pd.device.library.dereg_mr)(self.mr.as_ptr()) };
    }
}

/// Some bytes of the registered memory `mr` (a number in a queue pair's list).
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    pub mr: usize,
    pub at: usize,
    pub len: usize,
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Put a message into the next buffer of the other side.
    Send,
    /// Write to the other side's memory.
    Write { addr: u64, rkey: u32 },
    /// Read from there.
    Read { addr: u64, rkey: u32 },
}

/// A request to a queue pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub id: u64,
    pub what: What,
    pub local: Local,
    /// Whether its completion is told of if it is good.
    pub signalled: bool,
}

/// A queue pair of the reliable connected kind.
pub(super) struct Qp {
    qp: NonNull<ibv_qp>,
    psn: u32,
    inline: usize,
    pd: Arc<Pd>,
    _cq: Arc<Cq>,
    mrs: Vec<Arc<Mr>>,
}

impl Qp {
    /// One that completes into `cq`, holds `sends` and `receives` requests, and may name these memories. It
    /// takes at least `inline` bytes into a request if the device does.
    pub fn new(
        pd: &Arc<Pd>,
        cq: &Arc<Cq>,
        (sends, receives): (u32, u32),
        inline: u32,
        mrs: Vec<Arc<Mr>>,
    ) -> Result<Self, String> {
        let library = pd.device.library;
        let make = |inline: u32| {
            // SAFETY: plain data for which zero is a value.
            let mut init: ibv_qp_init_attr = unsafe { std::mem::zeroed() };
            (init.send_cq, init.recv_cq) = (cq.cq.as_ptr(), cq.cq.as_ptr());
            init.qp_type = ibv_qp_type::IBV_QPT_RC;
            let (max_send_wr, max_recv_wr) = (sends, receives);
            let (max_send_sge, max_recv_sge, max_inline_data) = (1, 1, inline);
            init.cap = ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data };
            // SAFETY: domain and queue live, and are kept alive.
            let qp = unsafe { (library.create_qp)(pd.pd.as_ptr(), &mut init) };
            NonNull::new(qp).map(|qp| (qp, init.cap.max_inline_data))
        };
        let made = make(inline).or_else(|| make(0));
        let (qp, inline) = made.ok_or_else(|| last("cannot make a queue pair"))?;
        let psn = crate::cxl::region::random_id().map_err(|e| e.to_string())? as u32 & 0xff_ffff;
        let this = Self { qp, psn, inline: inline as usize, pd: Arc::clone(pd), _cq: Arc::clone(cq), mrs };
        use ibv_access_flags as Flags;
        let access = Flags::IBV_ACCESS_REMOTE_READ.0
            | Flags::IBV_ACCESS_REMOTE_WRITE.0
            | Flags::IBV_ACCESS_LOCAL_WRITE.0;
        use ibv_qp_attr_mask as M;
        let mask = M::IBV_QP_STATE.0 | M::IBV_QP_PKEY_INDEX.0 | M::IBV_QP_PORT.0 | M::IBV_QP_ACCESS_FLAGS.0;
        this.modify("INIT", mask, |attr| {
            attr.qp_state = ibv_qp_state::IBV_QPS_INIT;
            attr.port_num = PORT;
            attr.qp_access_flags = access;
        })?;
        Ok(this)
    }

    fn modify(&self, what: &str, mask: u32, set: impl FnOnce(&mut ibv_qp_attr)) -> Result<(), String> {
        // SAFETY: plain data for which zero is a value.
        let mut attr: ibv_qp_attr = unsafe { std::mem::zeroed() };
        set(&mut attr);
        let library = self.pd.device.library;
        // SAFETY: the queue pair lives; the attributes are valid for those that the mask names.
        code(what, unsafe { (library.modify_qp)(self.qp.as_ptr(), &mut attr, mask as i32) })
    }

    /// How the other side reaches it.
    pub fn address(&self) -> Address {
        let device = &self.pd.device;
        // SAFETY: the queue pair lives.
        let qpn = unsafe { (*self.qp.as_ptr()).qp_num };
        let Port { gid, lid, mtu, .. } = device.port();
        Address { gid, lid, qpn, psn: self.psn, mtu }
    }

    /// Connects it. `timeout`: how long an acknowledgement may take before a packet is sent again, seven
    /// times: 4 us times two to this power.
    pub fn connect(&self, to: &Address, timeout: u8) -> Result<(), String> {
        use ibv_qp_attr_mask as M;
        let device = &self.pd.device;
        let port = device.port();
        let mask = M::IBV_QP_STATE.0
            | M::IBV_QP_AV.0
            | M::IBV_QP_PATH_MTU.0
            | M::IBV_QP_DEST_QPN.0
            | M::IBV_QP_RQ_PSN.0
            | M::IBV_QP_MAX_DEST_RD_ATOMIC.0
            | M::IBV_QP_MIN_RNR_TIMER.0;
        self.modify("cannot connect a queue pair", mask, |attr| {
            attr.qp_state = ibv_qp_state::IBV_QPS_RTR;
            attr.path_mtu = port.mtu.min(to.mtu).into();
            (attr.dest_qp_num, attr.rq_psn) = (to.qpn, to.psn);
            (attr.max_dest_rd_atomic, attr.min_rnr_timer) = (device.limits().reads, 12);
            attr.ah_attr.port_num = PORT;
            attr.ah_attr.dlid = to.lid;
            if to.gid != [0; 16] {
                attr.ah_attr.is_global = 1;
                attr.ah_attr.grh.dgid = ibv_gid { raw: to.gid };
                attr.ah_attr.grh.sgid_index = port.gid_index;
                attr.ah_attr.grh.hop_limit = 64;
            }
        })?;
        let mask = M::IBV_QP_STATE.0
            | M::IBV_QP_TIMEOUT.0
            | M::IBV_QP_RETRY_CNT.0
            | M::IBV_QP_RNR_RETRY.0
            | M::IBV_QP_SQ_PSN.0
            | M::IBV_QP_MAX_QP_RD_ATOMIC.0;
        self.modify("cannot start a queue pair", mask, |attr| {
            attr.qp_state = ibv_qp_state::IBV_QPS_RTS;
            (attr.timeout, attr.retry_cnt, attr.rnr_retry) = (timeout, 7, 7);
            (attr.sq_psn, attr.max_rd_atomic) = (self.psn, device.limits().reads);
        })
    }

    /// Makes it do nothing more: what has been asked of it completes with an error.
    pub fn fail(&self) {
        let failed = self.modify("cannot stop a queue pair", ibv_qp_attr_mask::IBV_QP_STATE.0, |attr| {
            attr.qp_state = ibv_qp_state::IBV_QPS_ERR;
        });
        if let Err(why) = failed {
            log::debug!("{why}");
        }
    }

    fn sge(&self, local: Local) -> ibv_sge {
        let mr = &self.mrs[local.mr];
        let end = local.at.checked_add(local.len);
        assert!(end.is_some_and(|end| end <= mr.len), "a request names memory outside of its registration");
        // SAFETY: the registration lives.
        let lkey = unsafe { (*mr.mr.as_ptr()).lkey };
        ibv_sge { addr: (mr.start + local.at) as u64, length: local.len as u32, lkey }
    }

    /// Asks for one thing.
    pub fn post(&self, work: &Work) -> Result<(), String> {
        let mut sge = self.sge(work.local);
        // SAFETY: plain data for which zero is a value.
        let mut wr: ibv_send_wr = unsafe { std::mem::zeroed() };
        (wr.wr_id, wr.sg_list, wr.num_sge) = (work.id, &mut sge, 1);
        let inlined = match work.what {
            What::Send => {
                wr.opcode = ibv_wr_opcode::IBV_WR_SEND;
                work.local.len <= self.inline
            }
            What::Write { addr, rkey } => {
                wr.opcode = ibv_wr_opcode::IBV_WR_RDMA_WRITE;
                wr.wr.rdma = rdma_t { remote_addr: addr, rkey };
                work.local.len <= self.inline
            }
            What::Read { addr, rkey } => {
                wr.opcode = ibv_wr_opcode::IBV_WR_RDMA_READ;
                wr.wr.rdma = rdma_t { remote_addr: addr, rkey };
                false
            }
        };
        let signalled = if work.signalled { ibv_send_flags::IBV_SEND_SIGNALED.0 } else { 0 };
        wr.send_flags = signalled | if inlined { ibv_send_flags::IBV_SEND_INLINE.0 } else { 0 };
        let mut bad = null_mut();
        // SAFETY: the queue pair lives; request and element are copied by the call; the memory they name is
        // registered, and both are kept alive by this queue pair, which is destroyed first.
        code("cannot post a request", unsafe { ibv_post_send(self.qp.as_ptr(), &mut wr, &mut bad) })
    }

    /// Gives a buffer for a message of the other side.
    pub fn post_receive(&self, id: u64, local: Local) -> Result<(), String> {
        let mut sge = self.sge(local);
        // SAFETY: plain data for which zero is a value.
        let mut wr: ibv_recv_wr = unsafe { std::mem::zeroed() };
        (wr.wr_id, wr.sg_list, wr.num_sge) = (id, &mut sge, 1);
        let mut bad = null_mut();
        // SAFETY: as in `post`.
        code("cannot give a buffer", unsafe { ibv_post_recv(self.qp.as_ptr(), &mut wr, &mut bad) })
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: made by us, and not used any more. It is destroyed before what it keeps alive is let go of.
        unsafe { (self.pd.device.library.destroy_qp)(self.qp.as_ptr()) };
    }
}
