//! Making a region, opening one that exists, and all the reasons not to.

use super::Region;
use super::backing::{self, Kind};
use super::dax;
use crate::addr::{PageSize, RackId};
use crate::cxl::layout::{self, Geometry, SUPERBLOCK_FIXED, Superblock, SuperblockError};
use crate::cxl::protocol::SharedWord;
use crate::cxl::slots::ClientId;
use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::RwLock;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use thiserror::Error;

/// Where the memory of a region comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionSource {
    /// Memory of this process alone.
    Memfd,
    /// A file (made if it is not there) or a devdax device.
    Path(PathBuf),
}

/// What a region shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The rack whose memory it is.
    pub rack: RackId,
    /// The size of its pages.
    pub page_size: PageSize,
    /// Bytes of page data that it can hold. 0: what the device, or the region that is there, has.
    pub size: u64,
    /// The cluster that it is part of: the pool id that a new region gets, and that one that is there
    /// must have. `None`: a new one gets a random id, and one that is there may have any.
    pub cluster: Option<u128>,
    /// Channels of a new region, for messages of clients in other processes; a region that is there keeps
    /// what it has. At most [`CHANNELS_MAX`](layout::CHANNELS_MAX).
    pub channels: u32,
}

/// What was at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing; the region is new.
    Nothing,
    /// A region.
    Region,
}

/// Why there is no region.
#[derive(Debug, Error)]
pub enum RegionError {
    /// The file cannot be opened.
    #[error("cannot open {name}: {source}")]
    Open {
        /// The region.
        name: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process owns the region.
    #[error("{name} is in use by {holder}; stop that first, or use another file")]
    InUse {
        /// The region.
        name: String,
        /// Who has it.
        holder: String,
    },
    /// A devdax device that cannot be used as it is, or what could become one.
    #[error("{name} {reason}")]
    Device {
        /// The device.
        name: String,
        /// Why not, and what to type.
        reason: String,
    },
    /// A directory, a pipe, a device that is not devdax.
    #[error("{name} is neither a file nor a devdax device")]
    WrongType {
        /// The region.
        name: String,
    },
    /// The file has other contents.
    #[error("{name} holds something that is not a pool; name another, or {}", give_up(name))]
    NotAPool {
        /// The region.
        name: String,
    },
    /// Another version of the software made the region.
    #[error(
        "{name} has version {found} of the layout and this program knows version {known}; \
             use the program that made it, or {} to start empty",
        give_up(name)
    )]
    Version {
        /// The region.
        name: String,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The superblock's checksum is wrong.
    #[error(
        "the superblock of {name} is damaged; restore it from a copy, or {} to start empty",
        give_up(name)
    )]
    Damaged {
        /// The region.
        name: String,
    },
    /// The file is shorter than its superblock says.
    #[error(
        "{name} is cut short: {found} bytes of {needed}; restore it from a copy, or {} to start empty",
        give_up(name)
    )]
    CutShort {
        /// The region.
        name: String,
        /// Bytes there are.
        found: u64,
        /// Bytes there were.
        needed: u64,
    },
    /// The region has pages of another size.
    #[error(
        "{name} was made with pages of {found}, not {wanted}; give page_size={found}, or {} to start empty",
        give_up(name)
    )]
    PageSize {
        /// The region.
        name: String,
        /// The size it has.
        found: PageSize,
        /// The size asked for.
        wanted: PageSize,
    },
    /// The region has another size.
    #[error(
        "{name} was made for {found} bytes, not {wanted}; give size={found}, or {} to start empty",
        give_up(name)
    )]
    Size {
        /// The region.
        name: String,
        /// The size it has, in bytes of page data.
        found: u64,
        /// The size asked for.
        wanted: u64,
    },
    /// The region is another rack's.
    #[error(
        "{name} belongs to rack {found}, not {wanted}; name that rack's own, or {} to start empty",
        give_up(name)
    )]
    Rack {
        /// The region.
        name: String,
        /// Its rack.
        found: RackId,
        /// The rack asked for.
        wanted: RackId,
    },
    /// The region is another cluster's.
    #[error(
        "{name} belongs to cluster {found:032x}, not {wanted:032x}; join that one, name another, \
             or {} to start empty",
        give_up(name)
    )]
    OtherCluster {
        /// The region.
        name: String,
        /// Its pool id.
        found: u128,
        /// The pool id asked for.
        wanted: u128,
    },
    /// A region cannot have that many channels.
    #[error("{wanted} channels are not possible: give at most {max}", max = layout::CHANNELS_MAX)]
    Channels {
        /// The number asked for.
        wanted: u32,
    },
    /// There is no such size of a pool.
    #[error("a pool of {size} bytes in pages of {page_size} is not possible; give a size of at least one page and at most {max} pages", max = layout::FRAMES_MAX)]
    Impossible {
        /// Bytes of page data asked for, or of the device.
        size: u64,
        /// The size of pages.
        page_size: PageSize,
    },
    /// The file system or device is too small.
    #[error(
        "{name} needs {needed} bytes and there is room for {available}; give a smaller size{}",
        or_larger(name)
    )]
    NoRoom {
        /// The region.
        name: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The operating system failed.
    #[error("{name}: cannot {what}: {source}")]
    Os {
        /// The region.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl Region {
    /// The region at `source`, made as `spec` says if there is none, with this process as its one owner.
    /// It is marked as in use, to be marked as left in order by [`set_clean`](Self::set_clean).
    ///
    /// # Errors
    /// [`RegionError`], with what to do about it. Nothing that was there is changed then.
    pub fn open(source: &RegionSource, spec: &Spec) -> Result<(Self, Found), RegionError> {
        if spec.channels > layout::CHANNELS_MAX {
            return Err(RegionError::Channels { wanted: spec.channels });
        }
        let (region, found) = match source {
            RegionSource::Memfd => (in_memory(spec)?, Found::Nothing),
            RegionSource::Path(path) => at_path(path, spec)?,
        };
        region.word(layout::AT_OWNER).store(ClientId::this_process().raw(), Ordering::Relaxed);
        Ok((region, found))
    }

    /// The region at `path` as a client of its rack maps it: somebody else owns it.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn join(path: &Path) -> Result<Self, RegionError> {
        let place = Place::open(path, false)?;
        let superblock =
            place.read_superblock()?.ok_or_else(|| RegionError::NotAPool { name: place.name() })?;
        place.map(superblock)
    }

    /// Whether the last owner ended in order; false in a region that has an owner now.
    pub fn is_clean(&self) -> bool {
        self.word(layout::AT_CLEAN).load(Ordering::Acquire) == 1
    }

    /// Says whether the owner has ended in order.
    pub fn set_clean(&self, clean: bool) {
        self.word(layout::AT_CLEAN).store(clean.into(), Ordering::Release);
    }
}

fn in_memory(spec: &Spec) -> Result<Region, RegionError> {
    let os = |what| move |source| RegionError::Os { name: "memfd".into(), what, source };
    let geometry = geometry_for(spec)?;
    let file = backing::memfd(geometry.len).map_err(os("make a memfd of that size"))?;
    let place = Place { path: PathBuf::from("memfd"), kind: Kind::Memfd, made: false, file };
    place.make(spec, geometry)
}

fn at_path(path: &Path, spec: &Spec) -> Result<(Region, Found), RegionError> {
    let place = Place::open(path, true)?;
    place.lock()?;
    let made = place.made;
    let result = at_place(place, spec);
    if made && result.is_err() {
        let _ = std::fs::remove_file(path);
    }
    result
}

fn at_place(place: Place, spec: &Spec) -> Result<(Region, Found), RegionError> {
    if let Some(found) = place.read_superblock()? {
        place.compare(&found, spec)?;
        if place.kind == Kind::DiskFile {
            // A crash while the file was made may have left it without its blocks.
            backing::reserve(&place.file, found.geometry.len).map_err(place.os("reserve blocks"))?;
        }
        return Ok((place.map(found)?, Found::Region));
    }
    let geometry = match place.kind {
        Kind::Devdax(dax) => place.geometry_on_device(dax.usable(), spec)?,
        _ => geometry_for(spec)?,
    };
    Ok((place.make(spec, geometry)?, Found::Nothing))
}

fn geometry_for(spec: &Spec) -> Result<Geometry, RegionError> {
    Geometry::for_frames(spec.page_size, spec.page_size.page_of(spec.size), spec.channels)
        .ok_or(RegionError::Impossible { size: spec.size, page_size: spec.page_size })
}

/// How to give up the pool there.
fn give_up(name: &str) -> String {
    if dax::is_device(name) {
        format!("give it up with `rcmp wipe {name}`")
    } else {
        "remove the file".into()
    }
}

fn or_larger(name: &str) -> &'static str {
    if dax::is_device(name) { ", or a larger device (`daxctl list` shows their sizes)" } else { "" }
}

/// An open file or device, before it is a region.
pub(super) struct Place {
    path: PathBuf,
    pub(super) kind: Kind,
    /// Whether the file was not there before.
    made: bool,
    file: File,
}

impl Place {
    pub(super) fn open(path: &Path, make: bool) -> Result<Self, RegionError> {
        dax::refuse(path)?;
        let error = |source| RegionError::Open { name: path.display().to_string(), source };
        let made = make && !path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(make)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        let file = match file {
            Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {
                return Err(RegionError::WrongType { name: path.display().to_string() });
            }
            other => other.map_err(error)?,
        };
        let kind = backing::kind_of(&file).map_err(error)?;
        let kind = kind.ok_or_else(|| RegionError::WrongType { name: path.display().to_string() })?;
        Ok(Self { path: path.to_owned(), kind, made, file })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn os(&self, what: &'static str) -> impl FnOnce(io::Error) -> RegionError + use<> {
        let name = self.name();
        move |source| RegionError::Os { name, what, source }
    }

    fn len(&self) -> Result<u64, RegionError> {
        match self.kind {
            Kind::Devdax(dax) => Ok(dax.usable()),
            _ => Ok(self.file.metadata().map_err(self.os("stat"))?.len()),
        }
    }

    pub(super) fn lock(&self) -> Result<(), RegionError> {
        if backing::lock(&self.file).map_err(self.os("lock"))? {
            return Ok(());
        }
        let owner = self.first_block().ok().flatten().map(|map| map_word(&map, layout::AT_OWNER));
        let holder = match owner.map(ClientId::from_raw) {
            Some(Some(id)) => id.to_string(),
            _ => "another process".into(),
        };
        Err(RegionError::InUse { name: self.name(), holder })
    }

    /// A mapping of the beginning, since a device cannot be read otherwise; `None` if there is not even
    /// a superblock's length.
    fn first_block(&self) -> Result<Option<MmapRaw>, RegionError> {
        if self.len()? < layout::SUPERBLOCK_LEN {
            return Ok(None);
        }
        let len = self.mapping(layout::SUPERBLOCK_LEN);
        MmapOptions::new().len(len as usize).map_raw(&self.file).map(Some).map_err(self.os("map"))
    }

    /// The superblock; `None` if this is a place to make a region in: a file that is empty or was never
    /// written to, or a device that begins with zeroes.
    pub(super) fn read_superblock(&self) -> Result<Option<Superblock>, RegionError> {
        let name = self.name();
        let Some(map) = self.first_block()? else {
            return if self.len()? == 0 { Ok(None) } else { Err(RegionError::NotAPool { name }) };
        };
        let mut bytes = [0; SUPERBLOCK_FIXED];
        for (at, word) in bytes.chunks_mut(8).enumerate() {
            word.copy_from_slice(&map_word(&map, at as u64 * 8).to_ne_bytes());
        }
        match Superblock::decode(&bytes) {
            Ok(found) => {
                let len = self.len()?;
                if len < found.geometry.len {
                    return Err(RegionError::CutShort { name, found: len, needed: found.geometry.len });
                }
                Ok(Some(found))
            }
            Err(SuperblockError::Magic) if self.is_blank(&map)? => Ok(None),
            Err(SuperblockError::Magic) => Err(RegionError::NotAPool { name }),
            Err(SuperblockError::Version(found)) => {
                Err(RegionError::Version { name, found, known: layout::VERSION })
            }
            Err(SuperblockError::Damaged) => Err(RegionError::Damaged { name }),
        }
    }

    /// How much to map to reach `len` bytes.
    fn mapping(&self, len: u64) -> u64 {
        if let Kind::Devdax(dax) = self.kind { dax.mapping(len) } else { len }
    }

    /// Makes this a place where nothing is: a file without contents, a device that begins with `len` zeroes.
    pub(super) fn clear(&self, len: u64) -> Result<(), RegionError> {
        if !matches!(self.kind, Kind::Devdax(_)) {
            return self.file.set_len(0).map_err(self.os("empty"));
        }
        if let Some(map) = self.first_block()? {
            (0..len / 8).for_each(|at| map_atomic(&map, at * 8).store(0, Ordering::Release));
        }
        Ok(())
    }

    fn is_blank(&self, map: &MmapRaw) -> Result<bool, RegionError> {
        if (0..layout::SUPERBLOCK_LEN / 8).any(|at| map_word(map, at * 8) != 0) {
            return Ok(false);
        }
        // Looking made the first block of a file in memory exist.
        let one_block = layout::SUPERBLOCK_LEN / 512;
        let blocks = self.file.metadata().map_err(self.os("stat"))?.blocks();
        Ok(matches!(self.kind, Kind::Devdax(_)) || blocks <= one_block)
    }

    fn compare(&self, found: &Superblock, spec: &Spec) -> Result<(), RegionError> {
        let (name, g) = (self.name(), &found.geometry);
        if let Some(wanted) = spec.cluster.filter(|wanted| *wanted != found.pool_id) {
            return Err(RegionError::OtherCluster { name, found: found.pool_id, wanted });
        }
        if found.rack != spec.rack {
            return Err(RegionError::Rack { name, found: found.rack, wanted: spec.rack });
        }
        if g.page_size != spec.page_size {
            return Err(RegionError::PageSize { name, found: g.page_size, wanted: spec.page_size });
        }
        if spec.size != 0 && spec.page_size.page_of(spec.size) != g.frames as u64 {
            return Err(RegionError::Size { name, found: g.data_bytes(), wanted: spec.size });
        }
        Ok(())
    }

    fn geometry_on_device(&self, device: u64, spec: &Spec) -> Result<Geometry, RegionError> {
        if spec.size == 0 {
            let impossible = RegionError::Impossible { size: device, page_size: spec.page_size };
            return Geometry::for_len(spec.page_size, device, spec.channels).ok_or(impossible);
        }
        let geometry = geometry_for(spec)?;
        if geometry.len > device {
            return Err(RegionError::NoRoom { name: self.name(), needed: geometry.len, available: device });
        }
        Ok(geometry)
    }

    /// Makes a region here.
    fn make(self, spec: &Spec, geometry: Geometry) -> Result<Region, RegionError> {
        match self.kind {
            Kind::Memfd | Kind::Devdax(_) => {}
            Kind::MemoryFile | Kind::DiskFile => self.make_file(geometry.len)?,
        }
        let random = || backing::random_id().map_err(self.os("find a random number"));
        let pool_id = spec.cluster.map_or_else(random, Ok)?;
        let region_id = random()? as u64 | 1;
        let superblock = Superblock { pool_id, region_id, rack: spec.rack, geometry };
        let zeroed = self.kind.starts_zero();
        let region = self.map(superblock)?;
        if !zeroed {
            region.zero(SUPERBLOCK_FIXED as u64, geometry.frames_at - SUPERBLOCK_FIXED as u64);
        }
        // The magic number last: a region half made has none.
        let bytes = superblock.encode();
        region.write(8, &bytes[8..]);
        std::sync::atomic::fence(Ordering::SeqCst);
        region.write(0, &bytes[..8]);
        let os = |source| RegionError::Os { name: region.name.clone(), what: "write", source };
        region.sync(0..layout::SUPERBLOCK_LEN).map_err(os)?;
        Ok(region)
    }

    fn make_file(&self, len: u64) -> Result<(), RegionError> {
        let available = backing::available(&self.file).map_err(self.os("find how much room there is"))?;
        if available < len {
            return Err(RegionError::NoRoom { name: self.name(), needed: len, available });
        }
        self.file.set_len(len).map_err(self.os("set the length"))?;
        if self.kind == Kind::DiskFile {
            backing::reserve(&self.file, len).map_err(self.os("reserve blocks"))?;
        }
        Ok(())
    }

    fn map(self, superblock: Superblock) -> Result<Region, RegionError> {
        let name = self.name();
        let len = self.mapping(superblock.geometry.len);
        let map = MmapOptions::new().len(len as usize).map_raw(&self.file);
        let map = map.map_err(self.os("map"))?;
        // Where huge pages are not to be had this is refused, or accepted without effect.
        match map.advise(Advice::HugePage) {
            Ok(()) => log::debug!("{name}: huge pages asked for"),
            Err(e) => log::debug!("{name}: no huge pages: {e}"),
        }
        // A forked child would share its parent's slots, and so have no protection.
        if let Err(e) = map.advise(Advice::DontFork) {
            log::debug!("{name}: stays mapped in children: {e}");
        }
        let (file, kind, served) = (self.file, self.kind, AtomicBool::new(false));
        let gives_back = RwLock::new(kind.returns_memory());
        Ok(Region { map, file, kind, superblock, name, gives_back, served })
    }
}

/// The word at `at` of a mapping that is longer than that.
fn map_word(map: &MmapRaw, at: u64) -> u64 {
    map_atomic(map, at).load(Ordering::Acquire)
}

fn map_atomic(map: &MmapRaw, at: u64) -> &AtomicU64 {
    assert!(at.is_multiple_of(8) && at + 8 <= map.len() as u64);
    // SAFETY: in bounds and aligned (asserted; a mapping starts at a page), for as long as the mapping lives; shared
    // memory is accessed by atomic operations.
    unsafe { AtomicU64::from_ptr(map.as_mut_ptr().add(at as usize).cast()) }
}
