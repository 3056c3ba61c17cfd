//! rchfs

pub mod cli;
pub mod embed;
pub mod run;
