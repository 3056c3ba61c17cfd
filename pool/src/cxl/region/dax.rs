//! devdax devices, as sysfs describes them, and what to type when a path is not one that can be used.
//!
//! Such a device has no length and no contents for read(2): its size is in sysfs, a mapping begins and ends at
//! multiples of its alignment (2 MiB, or 1 GiB), and touching what is beyond its end is a SIGBUS, so nothing is
//! mapped there. It is neither truncated nor synced. Whether its contents last is up to the device.

use super::RegionError;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// A device in the mode `devdax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dax {
    /// Bytes.
    pub size: u64,
    /// What mappings are aligned to, in bytes.
    pub align: u64,
}

impl Dax {
    /// The device with this number; `None` if it is no such device.
    pub fn of(rdev: u64) -> Option<Self> {
        let dir = PathBuf::from(format!("/sys/dev/char/{}:{}", libc::major(rdev), libc::minor(rdev)));
        let bus = fs::read_link(dir.join("subsystem")).ok()?;
        if bus.file_name()? != "dax" { None } else { Self::in_sysfs(&dir) }
    }

    fn in_sysfs(dir: &Path) -> Option<Self> {
        let number = |name| fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok();
        // Old kernels tell no alignment, and have but one.
        let align = number("align").unwrap_or(super::layout::HUGE);
        let this = Self { size: number("size")?, align };
        (this.size > 0 && align > 0).then_some(this)
    }

    /// How much to map to reach `len` bytes.
    pub fn mapping(&self, len: u64) -> u64 {
        len.next_multiple_of(self.align)
    }

    /// How much of it can be mapped.
    pub fn usable(&self) -> u64 {
        self.size / self.align * self.align
    }
}

/// The name of the device that `path` would be: `daxX.Y`.
fn device_name(path: &Path) -> Option<&str> {
    let name = path.strip_prefix("/dev").ok()?.to_str()?;
    let rest = name.strip_prefix("dax")?;
    let (x, y) = rest.split_once('.')?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (number(x) && number(y)).then_some(name)
}

/// Whether `path` names a devdax device.
pub fn is_device(path: &str) -> bool {
    device_name(Path::new(path)).is_some()
}

/// Refuses what must not be opened: a devdax device that is not there, for which a file would be made; memory
/// that is used as ordinary memory (mode system-ram); a block device (mode fsdax).
pub fn refuse(path: &Path) -> Result<(), RegionError> {
    refuse_in(path, Path::new("/sys"))
}

fn refuse_in(path: &Path, sys: &Path) -> Result<(), RegionError> {
    let name = path.display().to_string();
    let refused = |reason: String| Err(RegionError::Device { name: name.clone(), reason });
    let meta = fs::metadata(path);
    if meta.as_ref().is_ok_and(|meta| meta.file_type().is_block_device()) {
        let device = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The block device is that of a namespace, or of what was laid on one, which names it.
        let parent = sys.join("class/block").join(device).join("device");
        let named = fs::read_to_string(parent.join("namespace")).ok().map(|name| name.trim().to_owned());
        let linked = || Some(fs::read_link(&parent).ok()?.file_name()?.to_str()?.to_owned());
        let namespace = named.or_else(linked);
        let text = "is a block device (mode fsdax), not a devdax device";
        return match namespace
            .filter(|name| name.starts_with("namespace") && !name.contains(char::is_whitespace))
        {
            Some(namespace) => refused(format!(
                "{text}; this makes it one, and destroys what is on it: ndctl create-namespace -f -e {namespace} -m devdax"
            )),
            None => refused(format!("{text}; `ndctl list` shows what could become one")),
        };
    }
    let Some(device) = device_name(path) else { return Ok(()) };
    let dir = sys.join("bus/dax/devices").join(device);
    let driver = fs::read_link(dir.join("driver")).ok();
    // A device that was disabled may have left its node behind.
    match driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()) {
        Some("kmem") => refused(format!(
            "is used as ordinary memory (mode system-ram); this gives it back: \
             daxctl reconfigure-device --mode=devdax --force {device}"
        )),
        Some(_) => Ok(()),
        None if dir.exists() => refused(format!(
            "is not enabled; this enables it: daxctl reconfigure-device --mode=devdax {device}"
        )),
        None if meta.is_err() => refused("is not there; `daxctl list` shows the devices there are".into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_of_devices_are_told_from_others() {
        for name in ["/dev/dax0.0", "/dev/dax12.3"] {
            assert!(is_device(name), "{name}");
        }
        for name in
            ["/dev/dax", "/dev/dax0", "/dev/dax0.", "/dev/daxa.b", "/tmp/dax0.0", "/dev/shm/dax0.0", "dax0.0"]
        {
            assert!(!is_device(name), "{name}");
        }
    }

    #[test]
    fn a_mapping_is_aligned_and_within_the_device() {
        let dax = Dax { size: (3 << 30) + (512 << 20), align: 1 << 30 };
        assert_eq!((dax.mapping(1), dax.mapping(1 << 30), dax.usable()), (1 << 30, 1 << 30, 3 << 30));
    }

    fn reason(path: &str, sys: &Path) -> String {
        refuse_in(Path::new(path), sys).unwrap_err().to_string()
    }

    #[test]
    fn a_device_in_another_mode_is_refused_with_what_to_type() {
        let sys = std::env::temp_dir().join(format!("rchfs-dax-test.{}", std::process::id()));
        let devices = sys.join("bus/dax/devices");
        for device in ["dax77.0", "dax77.1"] {
            fs::create_dir_all(devices.join(device)).unwrap();
        }
        symlink("../../drivers/kmem", devices.join("dax77.0/driver")).unwrap();
        let ram = reason("/dev/dax77.0", &sys);
        assert!(ram.contains("daxctl reconfigure-device --mode=devdax --force dax77.0"), "{ram}");
        let off = reason("/dev/dax77.1", &sys);
        assert!(off.contains("daxctl reconfigure-device --mode=devdax dax77.1"), "{off}");
        let missing = reason("/dev/dax78.0", &sys);
        assert!(missing.contains("daxctl list"), "{missing}");
        assert!(refuse_in(&sys.join("new-file"), &sys).is_ok());
        fs::remove_dir_all(&sys).unwrap();
    }

    #[test]
    fn sizes_come_from_sysfs() {
        let dir = std::env::temp_dir().join(format!("rchfs-dax-size.{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(Dax::in_sysfs(&dir), None);
        fs::write(dir.join("size"), "262144000\n").unwrap();
        assert_eq!(Dax::in_sysfs(&dir), Some(Dax { size: 262_144_000, align: 2 << 20 }));
        fs::write(dir.join("align"), "1073741824\n").unwrap();
        assert_eq!(Dax::in_sysfs(&dir).map(|dax| dax.usable()), Some(0));
        fs::remove_dir_all(&dir).unwrap();
    }
}
