//! The store that keeps nothing.

use super::{Store, StoreError};
use crate::change::Change;

/// Keeps nothing: the namespace lives as long as the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volatile;

impl Store for Volatile {
    fn commit(&self, _: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn load(&self, _: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        Ok(())
    }

    fn begin(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
