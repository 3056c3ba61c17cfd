//! An open device: what it can do, how it is reached, and what happens to it.

use super::library::Library;
use super::{code, last, nonblocking};
use parking_lot::Mutex;
use rdma_sys::*;
use std::ffi::CStr;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::ptr::{NonNull, addr_of_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The one port of a device that is used.
pub(super) const PORT: u8 = 1;

/// What a device can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Limits {
    /// The most bytes of one registration.
    pub mr_bytes: u64,
    /// The most requests in a queue.
    pub queue: u32,
    /// Entries of a completion queue.
    pub completions: u32,
    /// Reads that a queue pair has under way at once.
    pub reads: u8,
    /// The longest single transfer.
    pub message: u32,
    /// With whose operations its atomic ones are atomic: see [`Fabric::atomics`](super::super::Fabric::atomics).
    pub atomics: &'static str,
}

/// How its port is reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub gid_index: u8,
    pub gid: [u8; 16],
    pub lid: u16,
    pub mtu: u8,
}

/// An open device.
pub(in super::super) struct Device {
    pub(super) library: &'static Library,
    pub(super) context: NonNull<ibv_context>,
    name: String,
    limits: Limits,
    infiniband: bool,
    near: Option<IpAddr>,
    port: Mutex<Port>,
    /// What sysfs has for as long as the device is there, if it has.
    presence: Option<PathBuf>,
    lost: AtomicBool,
}

// SAFETY: verbs objects may be used by any threads at once (man ibv_open_device and others).
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens the device of that name, else the one that has the address `near`, else the first whose port is
    /// up.
    ///
    /// # Errors
    /// A sentence, if there is none.
    pub fn open(name: Option<&str>, near: Option<IpAddr>) -> Result<Arc<Self>, String> {
        let library = Library::get()?;
        let mut why = Vec::new();
        let mut found: Vec<Self> = Vec::new();
        let mut count = 0;
        // SAFETY: the count is ours to write; the list is given back below.
        let list = unsafe { (library.get_device_list)(&mut count) };
        if list.is_null() {
            let none = last("no RDMA devices");
            return Err(format!("{none}; load the driver of one (rdma link shows those there are)"));
        }
        for at in 0..count.max(0) as usize {
            // SAFETY: the list has `count` entries, and its devices live until it is freed.
            match unsafe { Self::open_one(library, *list.add(at), name, near) } {
                Ok(device) => found.push(device),
                Err(reason) => why.push(reason),
            }
        }
        // SAFETY: from get_device_list, and not used any more.
        unsafe { (library.free_device_list)(list) };
        let wanted = near.map(gid_of);
        let best = found.iter().position(|device| Some(device.port().gid) == wanted).unwrap_or(0);
        if best < found.len() {
            return Ok(Arc::new(found.swap_remove(best)));
        }
        let named = name.map_or(String::new(), |name| format!(" called {name}"));
        let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) };
        Err(format!("no RDMA device{named} that could be used{why}; `rdma link` shows those there are"))
    }

    /// # Safety
    /// `device` must be one of a device list that has not been freed.
    unsafe fn open_one(
        library: &'static Library,
        device: *mut ibv_device,
        wanted: Option<&str>,
        near: Option<IpAddr>,
    ) -> Result<Self, String> {
        // SAFETY: by the caller; the name is a C string within the device.
        let name = unsafe { CStr::from_ptr((library.get_device_name)(device)) };
        let name = name.to_string_lossy().into_owned();
        if wanted.is_some_and(|wanted| wanted != name) {
            return Err(format!("{name} is not it"));
        }
        // SAFETY: by the caller.
        let context = unsafe { (library.open_device)(device) };
        let context = NonNull::new(context).ok_or_else(|| last(&format!("cannot open {name}")))?;
        // SAFETY: by the caller; the path is a C string within the device.
        let presence = unsafe { CStr::from_ptr((*device).dev_path.as_ptr()) };
        let mut this = Self {
            library,
            context,
            name,
            limits: Limits { mr_bytes: 0, queue: 0, completions: 0, reads: 1, message: 0, atomics: "none" },
            infiniband: false,
            near,
            port: Mutex::new(Port { gid_index: 0, gid: [0; 16], lid: 0, mtu: 1 }),
            presence: Some(PathBuf::from(&*presence.to_string_lossy())).filter(|path| path.exists()),
            lost: AtomicBool::new(false),
        };
        let port = this.active_port()?;
        const LINK_LAYER_INFINIBAND: u8 = 1;
        this.infiniband = port.link_layer == LINK_LAYER_INFINIBAND;
        this.find_limits(&port)?;
        this.look_at_port()?;
        Ok(this)
    }

    fn active_port(&self) -> Result<ibv_port_attr, String> {
        let (library, name) = (self.library, &self.name);
        // SAFETY: plain data for which zero is a value.
        let mut port: ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open; what is written is the beginning of the attributes.
        code(name, unsafe { (library.query_port)(self.context.as_ptr(), PORT, addr_of_mut!(port).cast()) })?;
        if port.state != ibv_port_state::IBV_PORT_ACTIVE {
            return Err(format!("the port of {name} is down"));
        }
        Ok(port)
    }

    fn find_limits(&mut self, port: &ibv_port_attr) -> Result<(), String> {
        let (library, name) = (self.library, self.name.clone());
        // SAFETY: plain data for which zero is a value.
        let mut device: ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open; the attributes are ours to write.
        code(&name, unsafe { (library.query_device)(self.context.as_ptr(), &mut device) })?;
        self.limits = Limits {
            mr_bytes: device.max_mr_size,
            queue: device.max_qp_wr.max(1) as u32,
            completions: device.max_cqe.max(1) as u32,
            reads: device.max_qp_rd_atom.min(device.max_qp_init_rd_atom).clamp(1, 16) as u8,
            message: port.max_msg_sz,
            atomics: match device.atomic_cap {
                ibv_atomic_cap::IBV_ATOMIC_GLOB => "GLOB",
                ibv_atomic_cap::IBV_ATOMIC_HCA => "HCA",
                _ => "none",
            },
        };
        Ok(())
    }

    /// Finds out how the port is reached now, which may have changed while it was down.
    ///
    /// # Errors
    /// A sentence: it is down, or has no address, or the device is gone.
    pub fn look_at_port(&self) -> Result<(), String> {
        if self.is_lost() {
            return Err(format!("{} has been removed", self.name));
        }
        let port = self.active_port()?;
        let gids = (0..port.gid_tbl_len.clamp(0, 256)).filter_map(|index| self.gid(index));
        let usable: Vec<(u8, [u8; 16])> = gids.collect();
        let wanted = self.near.map(gid_of);
        let is_v4 = |gid: &[u8; 16]| gid[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let by_address = usable.iter().find(|(_, gid)| Some(*gid) == wanted);
        let best = by_address.or_else(|| usable.iter().find(|(_, gid)| is_v4(gid))).or(usable.first());
        let (gid_index, gid) = match best {
            Some(best) => *best,
            None if self.infiniband => (0, [0; 16]),
            None => {
                return Err(format!("{} has no RoCE v2 address: give its network interface one", self.name));
            }
        };
        *self.port.lock() = Port { gid_index, gid, lid: port.lid, mtu: port.active_mtu as u8 };
        Ok(())
    }

    /// The address at `index`, if it is one that can be used. A RoCE port has two entries for an
    /// address, of which the one for version 2 can be routed.
    fn gid(&self, index: i32) -> Option<(u8, [u8; 16])> {
        let mut gid = ibv_gid { raw: [0; 16] };
        // SAFETY: the context is open; the address is ours to write.
        let found = unsafe { (self.library.query_gid)(self.context.as_ptr(), PORT, index, &mut gid) } == 0;
        // SAFETY: all of the union is initialised.
        let raw = unsafe { gid.raw };
        if !found || raw == [0; 16] {
            return None;
        }
        let kind = format!("/sys/class/infiniband/{}/ports/{PORT}/gid_attrs/types/{index}", self.name);
        let kind = std::fs::read_to_string(kind).unwrap_or_default();
        (self.infiniband || kind.trim() == "RoCE v2").then_some((u8::try_from(index).ok()?, raw))
    }

    /// Its name and what kind it is, for people.
    pub fn describe(&self) -> String {
        format!("{} ({})", self.name, if self.infiniband { "InfiniBand" } else { "RoCE v2" })
    }

    /// Whether the kernel emulates it.
    pub fn is_emulated(&self) -> bool {
        !std::path::Path::new(&format!("/sys/class/infiniband/{}/device", self.name)).exists()
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// As last looked at.
    pub(super) fn port(&self) -> Port {
        *self.port.lock()
    }

    /// Whether it has been removed, as far as known: it must be closed then, and may be opened again when it is
    /// back.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Finds out whether it has been removed since the last time. Not every driver says so: some wait until
    /// all who have the device open let go of it.
    pub fn is_newly_lost(&self) -> bool {
        let gone = self.presence.as_ref().is_some_and(|path| !path.exists());
        gone && !self.lost.swap(true, Ordering::AcqRel)
    }

    /// What [`next_event`](Self::next_event) comes from, for poll(2).
    pub fn event_fd(&self) -> RawFd {
        // SAFETY: the context is open.
        unsafe { (*self.context.as_ptr()).async_fd }
    }

    /// Does not make [`next_event`](Self::next_event) wait.
    pub fn dont_wait(&self) -> Result<(), String> {
        nonblocking(self.event_fd())
    }

    /// Something that has happened to the device: what, and whether it is of no use any more, or for now.
    pub fn next_event(&self) -> Option<(String, bool)> {
        // SAFETY: plain data for which zero is a value.
        let mut event: ibv_async_event = unsafe { std::mem::zeroed() };
        // SAFETY: the context is open; the event is ours to write.
        if unsafe { (self.library.get_async_event)(self.context.as_ptr(), &mut event) } != 0 {
            return None;
        }
        // As a number: a newer library may know more kinds than the enumeration.
        // SAFETY: an initialised number of that size.
        let kind = unsafe { std::ptr::addr_of!(event.event_type).cast::<u32>().read() };
        let lost = ibv_event_type::IBV_EVENT_DEVICE_FATAL as u32 == kind;
        if lost {
            self.lost.store(true, Ordering::Release);
        }
        let fatal = lost || ibv_event_type::IBV_EVENT_PORT_ERR as u32 == kind;
        // SAFETY: a static C string, for any number.
        let name = unsafe { CStr::from_ptr((self.library.event_type_str)(kind)) };
        let name = name.to_string_lossy().into_owned();
        // SAFETY: an event that was got, acknowledged once.
        unsafe { (self.library.ack_async_event)(&mut event) };
        Some((name, fatal))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: opened by us; whatever was made of it has kept it alive, and is gone.
        unsafe { (self.library.close_device)(self.context.as_ptr()) };
    }
}

fn gid_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
