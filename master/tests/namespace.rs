//! Each operation of the namespace, asked by message.

#[path = "namespace/acl.rs"]
mod acl;
#[path = "namespace/attributes.rs"]
mod attributes;
#[path = "namespace/clones.rs"]
mod clones;
#[path = "namespace/contents.rs"]
mod contents;
#[path = "namespace/entries.rs"]
mod entries;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "namespace/make.rs"]
mod make;
#[path = "namespace/mend.rs"]
mod mend;
#[path = "namespace/rename.rs"]
mod rename;
#[path = "support/stores.rs"]
mod stores;
#[path = "namespace/xattrs.rs"]
mod xattrs;
