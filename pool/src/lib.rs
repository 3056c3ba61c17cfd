//! A memory pool that reaches past one machine.

pub mod addr;
mod client;
pub mod cxl;
mod error;
pub mod proto;
pub mod transport;

pub use client::{Fill, Pool};
pub use error::PoolError;
