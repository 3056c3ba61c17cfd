//! The table from handle numbers to open files.

use super::error::{FsError, Result};
use super::file::Handle;
use parking_lot::RwLock;
use slab::Slab;
use std::sync::Arc;

/// All handles of a mount. The lock is a leaf.
#[derive(Default)]
pub struct Handles(RwLock<Slab<Arc<Handle>>>);

impl Handles {
    /// Gives `handle` a number.
    pub fn add(&self, handle: Handle) -> u64 {
        self.0.write().insert(Arc::new(handle)) as u64
    }

    /// The handle with this number.
    pub fn get(&self, number: u64) -> Result<Arc<Handle>> {
        self.0.read().get(number as usize).cloned().ok_or(FsError::BadHandle(number))
    }

    /// Takes the handle out of the table.
    pub fn remove(&self, number: u64) -> Result<Arc<Handle>> {
        self.0.write().try_remove(number as usize).ok_or(FsError::BadHandle(number))
    }
}
