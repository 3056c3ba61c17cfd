//! What a name of a directory entry may be.

use pool::proto::meta::{MetaError, NAME_MAX};

/// A name, as an operation must tell names apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// Any other.
    Plain(&'a [u8]),
}

impl<'a> Name<'a> {
    /// Sorts a name.
    ///
    /// # Errors
    /// `NameTooLong`; `Invalid` if it is empty or has a `/` or a zero byte in it.
    pub(crate) fn parse(name: &'a [u8]) -> Result<Self, MetaError> {
        match name {
            b"" => Err(MetaError::Invalid("a name cannot be empty".into())),
            b"." => Ok(Self::Dot),
            b".." => Ok(Self::DotDot),
            _ if name.len() > NAME_MAX => Err(MetaError::NameTooLong),
            _ if name.iter().any(|&b| b == b'/' || b == 0) => {
                Err(MetaError::Invalid("a name cannot have a slash or a zero byte in it".into()))
            }
            _ => Ok(Self::Plain(name)),
        }
    }

    /// The name of an entry that exists or is made; `.` and `..` are `otherwise`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and `otherwise`.
    pub(crate) fn plain(name: &'a [u8], otherwise: MetaError) -> Result<&'a [u8], MetaError> {
        match Self::parse(name)? {
            Self::Plain(name) => Ok(name),
            Self::Dot | Self::DotDot => Err(otherwise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_up_to_255_bytes_without_slash_or_zero() {
        assert_eq!(Name::parse(&[b'a'; 255]), Ok(Name::Plain(&[b'a'; 255])));
        assert_eq!(Name::parse(&[b'a'; 256]), Err(MetaError::NameTooLong));
        for bad in [&b""[..], b"a/b", b"a\0"] {
            assert!(matches!(Name::parse(bad), Err(MetaError::Invalid(_))), "{bad:?}");
        }
        assert_eq!(Name::parse(b"..."), Ok(Name::Plain(b"...")));
        assert_eq!(Name::parse(b"\xff\n"), Ok(Name::Plain(b"\xff\n")));
    }
}
