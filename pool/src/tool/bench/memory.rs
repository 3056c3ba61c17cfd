//! What can be measured: something that is read, written and compared-and-swapped at numbers.

use crate::addr::GAddr;
use crate::client::Pool;
use crate::error::PoolError;

/// Memory of one kind or another. The same loops run on all of them.
pub(crate) trait Memory: Sync {
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), PoolError>;
    fn write(&self, at: u64, from: &[u8]) -> Result<(), PoolError>;
    fn cas(&self, at: u64, old: u64, new: u64) -> Result<u64, PoolError>;
    /// Asks whoever keeps the memory a question, and waits for the answer.
    fn message(&self) -> Result<(), PoolError>;
}

impl Memory for Pool {
    #[inline]
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), PoolError> {
        Self::read(self, address(self, at)?, to)
    }

    #[inline]
    fn write(&self, at: u64, from: &[u8]) -> Result<(), PoolError> {
        Self::write(self, address(self, at)?, from)
    }

    #[inline]
    fn cas(&self, at: u64, old: u64, new: u64) -> Result<u64, PoolError> {
        Self::cas(self, address(self, at)?, old, new)
    }

    fn message(&self) -> Result<(), PoolError> {
        self.stat().map(|_| ())
    }
}

#[inline]
fn address(pool: &Pool, at: u64) -> Result<GAddr, PoolError> {
    GAddr::from_raw(at, pool.page_size()).ok_or(PoolError::BadAddress { at, len: 0 })
}
