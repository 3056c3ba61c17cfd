//! Each operation of the namespace, asked by message.

#[path = "namespace/contents.rs"]
mod contents;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "namespace/rename.rs"]
mod rename;
