//! The CXL memory of a rack: one region of memory that the daemon and all clients of the rack map.
//!
//! | module | owns |
//! | --- | --- |
//! | [`layout`] | where every byte is: arithmetic only |
//! | [`region`] | the mapping, and the only raw pointers into it |
//! | [`slots`] | what each client thread is touching at the moment |
//! | [`frames`] | which page each frame holds |
//! | [`index`] | which frame holds a page |
//! | [`ring`] | the channels by which clients in other processes talk to the daemon |
//! | [`protocol`] | the order of loads, stores and fences by which accesses and the freeing of frames exclude each other |

pub mod frames;
pub mod index;
pub mod layout;
pub mod protocol;
pub mod region;
pub mod ring;
pub mod slots;
