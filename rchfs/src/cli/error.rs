//! What can be wrong with a command line. Every message is one line that says what to do.

use super::units::Bytes;
use std::path::PathBuf;
use thiserror::Error;

/// Why a command line is refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CliError {
    /// The words do not fit the grammar.
    #[error("{0}; see mount.rchfs --help")]
    Usage(String),
    /// A path that is no UTF-8 where one is needed.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(PathBuf),
    /// A quote or backslash at the end of the options.
    #[error("the options {0:?} end in a quote that does not end, or a backslash")]
    Unfinished(String),
    /// A type other than `rchfs`.
    #[error("-t {0}: this mounts file systems of type rchfs only")]
    WrongType(String),
    /// `-N`.
    #[error("-N is not supported; enter the namespace first, with nsenter --mount=...")]
    Namespace,
    /// A source of no kind.
    #[error(
        "{0:?} is no source: leave it out or say 'embedded', or give HOST:PORT of a cluster's master; the directory comes last"
    )]
    UnknownSource(String),
    /// An option nobody knows.
    #[error("unknown option {name:?}{}; see mount.rchfs --help", near.map(|n| format!(", did you mean {n:?}?")).unwrap_or_default())]
    UnknownOption {
        /// As written.
        name: String,
        /// What it resembles.
        near: Option<&'static str>,
    },
    /// An option without its value.
    #[error("{name} needs a value, as in {name}={example}")]
    NeedsValue {
        /// The option.
        name: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A value where none belongs.
    #[error("{name} takes no value, but was given {value:?}")]
    TakesNoValue {
        /// The option.
        name: String,
        /// The value.
        value: String,
    },
    /// A value that is not one.
    #[error("{name}={value} is not {want}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// As written.
        value: String,
        /// What it should be.
        want: &'static str,
    },
    /// `remount`.
    #[error("remount is not supported; umount {}, then mount it with the new options", .0.display())]
    Remount(PathBuf),
    /// A page size out of range.
    #[error("page_size={} is not possible; it must be a power of two from 4K to 2M", Bytes(*.0))]
    PageSize(u64),
    /// Less than the smallest pool.
    #[error("size={} is too small; a pool with pages of {} needs at least {}", Bytes(*.size), Bytes(*.page), Bytes(*.least))]
    TooSmall {
        /// Bytes asked for.
        size: u64,
        /// Bytes of a page.
        page: u64,
        /// Bytes that would do.
        least: u64,
    },
    /// A volatile pool larger than memory.
    #[error("size={} is more than the {} of memory this machine has; give at most that, or cxl=PATH,state=DIR", Bytes(*.size), Bytes(*.memory))]
    TooLarge {
        /// Bytes asked for; `u64::MAX` if even more.
        size: u64,
        /// Bytes of memory.
        memory: u64,
    },
    /// `cxl=` alone.
    #[error(
        "cxl={} keeps the data, but without state=DIR the names that belong to it would be lost; give both or neither", .0.display()
    )]
    CxlWithoutState(PathBuf),
    /// `state=` alone.
    #[error(
        "state={} keeps the names, but without cxl=PATH the data that belongs to them would be lost; give both or neither", .0.display()
    )]
    StateWithoutCxl(PathBuf),
    /// One path for two things.
    #[error("{name}={} and {other} are the same; give them different paths", path.display())]
    SamePath {
        /// An option.
        name: &'static str,
        /// What it is the same as.
        other: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// Storage under the mount point.
    #[error("{name}={} lies under the mount point, which will hide it; put it elsewhere", path.display())]
    UnderMountPoint {
        /// The option.
        name: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// An option that needs a cluster.
    #[error(
        "{0}= belongs to a pool in a cluster; leave it out, or give HOST:PORT of the master as the source"
    )]
    ClusterOption(&'static str),
    /// An option that shapes an embedded pool.
    #[error(
        "{0}= shapes a pool in this process; leave it out: rcmp-master and rcmp-daemon have it for a cluster"
    )]
    EmbeddedOption(&'static str),
    /// `transport=rdma`.
    #[error("transport=rdma: this version has no RDMA; leave it out, or say transport=tcp")]
    NoRdma,
    /// `allow_other` by a user who may not.
    #[error(
        "allow_other is not allowed to ordinary users here; put a line 'user_allow_other' in /etc/fuse.conf or leave it out"
    )]
    AllowOther,
    /// `dev` or `suid` by a user.
    #[error("{0} is for root only; leave it out or mount as root")]
    RootOnly(&'static str),
    /// `cache=writeback` of a cluster by a user.
    #[error("cache=writeback with a cluster is for root only; leave it out or mount as root")]
    WritebackByUser,
    /// A relative path where there is no current directory.
    #[error("{}: {}", .path.display(), .reason)]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl CliError {
    /// The exit status that mount(8) defines for it: 1 for wrong usage, 32 for a failed mount.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Usage(_)) { 1 } else { 32 }
    }
}
