//! A memory pool that reaches past one machine.

pub mod addr;
pub mod proto;
pub mod transport;
