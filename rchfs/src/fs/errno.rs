//! The one table from errors to errno numbers.

use super::error::FsError;
use pool::PoolError;
use pool::proto::meta::MetaError;

/// The errno (as in errno(3)) that a system call returns for `error`.
pub fn errno(error: &FsError) -> i32 {
    match error {
        FsError::Meta(e) => meta(e),
        FsError::Pool(e) => pool(e),
        FsError::Transport(_) | FsError::BadReply(_) | FsError::TooFewPages => libc::EIO,
        FsError::Mount(_) | FsError::NoSession | FsError::Lost => libc::EIO,
        FsError::Deadlock => libc::EDEADLK,
        FsError::Locked => libc::EAGAIN,
        FsError::TooManyLocks => libc::ENOLCK,
        FsError::BadHandle(_) | FsError::WrongAccess => libc::EBADF,
        FsError::BadRange => libc::EINVAL,
        FsError::TooBig => libc::EFBIG,
        FsError::Full => libc::ENOSPC,
        FsError::Overtaken => libc::EAGAIN,
        FsError::NothingThere(_) => libc::ENXIO,
        FsError::NotSupported => libc::EOPNOTSUPP,
    }
}

fn meta(error: &MetaError) -> i32 {
    match error {
        MetaError::NotFound => libc::ENOENT,
        MetaError::Stale(_) => libc::ESTALE,
        MetaError::Exists => libc::EEXIST,
        MetaError::NotDir => libc::ENOTDIR,
        MetaError::IsDir => libc::EISDIR,
        MetaError::NotEmpty => libc::ENOTEMPTY,
        MetaError::NameTooLong => libc::ENAMETOOLONG,
        MetaError::Invalid(_) => libc::EINVAL,
        MetaError::TooManyLinks => libc::EMLINK,
        MetaError::TooBig => libc::EFBIG,
        MetaError::NoSpace(_) => libc::ENOSPC,
        MetaError::NotPermitted => libc::EPERM,
        MetaError::NoAttribute => libc::ENODATA,
        MetaError::ValueTooBig => libc::E2BIG,
        MetaError::NotSupported => libc::EOPNOTSUPP,
        MetaError::Busy => libc::EBUSY,
        MetaError::ReadOnly => libc::EROFS,
        MetaError::Io(_) => libc::EIO,
    }
}

fn pool(error: &PoolError) -> i32 {
    match error {
        PoolError::OutOfMemory { .. } => libc::ENOSPC,
        _ => libc::EIO,
    }
}
