//! Channels between clients and a daemon, in a region that both map.

mod clients;
mod daemon;
mod rig;
