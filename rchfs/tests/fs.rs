//! The file system without FUSE: a master, a daemon and a pool in this process, and `Fs` above them.

#[path = "fs/clones.rs"]
mod clones;
#[path = "fs/contents.rs"]
mod contents;
#[path = "fs/faults.rs"]
mod faults;
#[path = "fs/rig.rs"]
mod rig;
#[path = "fs/space.rs"]
mod space;
