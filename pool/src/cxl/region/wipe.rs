//! Giving up the pool in a file or on a device, so that another can be made there.

use super::backing::Kind;
use super::open::Place;
use super::{Region, RegionError, layout};
use crate::cxl::slots::Slots;
use std::path::Path;

/// What was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wiped {
    /// There was a pool, of this rack, with room for so many bytes.
    Pool(crate::addr::RackId, u64),
    /// There was something on the device that no pool of this version is.
    Other,
    /// There was nothing.
    Nothing,
}

/// Gives up what is at `path`: all pages in it are lost. With `really` unset only says what that would be. A file
/// that holds no pool is left alone; of a device the superblock is set to zero, whatever is there.
///
/// # Errors
/// [`RegionError`]: somebody uses it, or it is no place for a pool.
pub fn wipe(path: &Path, really: bool) -> Result<Wiped, RegionError> {
    let place = Place::open(path, false)?;
    place.lock()?;
    let wiped = match place.read_superblock() {
        Ok(None) => return Ok(Wiped::Nothing),
        Ok(Some(found)) => {
            unused(path)?;
            Wiped::Pool(found.rack, found.geometry.data_bytes())
        }
        // What is not a pool may be worth something. A device is for pools only.
        Err(error @ RegionError::NotAPool { .. }) if !matches!(place.kind, Kind::Devdax(_)) => {
            return Err(error);
        }
        Err(RegionError::NotAPool { .. } | RegionError::Version { .. } | RegionError::Damaged { .. }) => {
            Wiped::Other
        }
        Err(RegionError::CutShort { .. }) => Wiped::Other,
        Err(error) => return Err(error),
    };
    if really {
        place.clear(layout::SUPERBLOCK_LEN)?;
    }
    Ok(wiped)
}

/// Refuses a region that clients still use, whose daemon has ended.
fn unused(path: &Path) -> Result<(), RegionError> {
    let region = Region::join(path)?;
    match Slots::new(&region).release_dead() {
        0 => Ok(()),
        _ => Err(RegionError::InUse {
            name: path.display().to_string(),
            holder: "a client of its rack".into(),
        }),
    }
}
