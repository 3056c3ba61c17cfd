//! rchfs
