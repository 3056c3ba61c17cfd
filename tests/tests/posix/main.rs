//! What POSIX and Linux promise about files, by real system calls on a real mount.
//!
//! Each test gets a file system of its own. With `RCHFS_E2E_REFERENCE=tmpfs` all of them run on tmpfs;
//! the few places where tmpfs differs say so.

mod acl;
mod clone;
mod copy;
mod descriptors;
mod directories;
mod limits;
mod links;
mod locks;
mod mapping;
mod open;
mod ownership;
mod readdir;
mod rename;
mod size;
mod space;
mod sparse;
mod special;
mod statfs;
mod times;
mod xattr;
