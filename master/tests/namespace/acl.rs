//! Access control lists, as acl(5) has them.

use crate::fixture::*;
use pool::proto::meta::*;

const R: Ino = Ino::ROOT;
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Owner, a named user, group, mask and others.
fn list(owner: u8, named: u8, group: u8, mask: u8, others: u8) -> Vec<u8> {
    let entries = [(1, owner, !0), (2, named, 1000), (4, group, !0), (16, mask, !0), (32, others, !0)];
    bytes(&entries)
}

fn bytes(entries: &[(u8, u8, u32)]) -> Vec<u8> {
    let entries =
        entries.iter().flat_map(|(tag, perm, id)| [&[*tag, 0, *perm, 0][..], &id.to_le_bytes()].concat());
    [2, 0, 0, 0].into_iter().chain(entries).collect()
}

fn set_as(f: &Fixture, caller: Caller, ino: Ino, name: &str, value: &[u8]) -> Result<Attr> {
    let (name, value) = (name.into(), value.to_vec());
    f.attr_of(MetaRequest::SetXattr { ino, caller, name, value, mode: XattrMode::Any })
}

fn get(f: &Fixture, ino: Ino, name: &str) -> Result<MetaReply> {
    f.ask(MetaRequest::GetXattr { ino, name: name.into() })
}

#[test]
fn an_access_list_sets_the_mode_and_chmod_sets_the_list() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    assert_eq!(set_as(&f, ROOT, a, ACCESS, &list(7, 6, 5, 4, 1)).unwrap().perm, 0o741);
    f.setattr(a, SetAttr { perm: Some(0o4620), ..SetAttr::default() }).unwrap();
    assert_eq!(get(&f, a, ACCESS), Ok(MetaReply::Bytes(list(6, 6, 5, 2, 0))));
    assert_eq!(f.attr(a).perm, 0o4620);
}

#[test]
fn a_list_that_says_no_more_than_the_mode_is_not_kept() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    set_as(&f, ROOT, a, ACCESS, &list(7, 6, 5, 4, 1)).unwrap();
    let minimal = bytes(&[(1, 6, !0), (4, 5, !0), (32, 0, !0)]);
    assert_eq!(set_as(&f, ROOT, a, ACCESS, &minimal).unwrap().perm, 0o650);
    assert_eq!(get(&f, a, ACCESS), Err(MetaError::NoAttribute));
}

#[test]
fn a_default_list_is_inherited_instead_of_the_umask() {
    let f = Fixture::new();
    let d = f.dir(R, "d");
    set_as(&f, ROOT, d, DEFAULT, &list(7, 7, 5, 7, 4)).unwrap();
    assert_eq!(f.attr(d).perm, 0o755, "a default list does not change the mode");
    let file = f.make_as(USER, d, "f", NewNode::File, 0o666, 0o077).unwrap();
    assert_eq!(file.perm, 0o664);
    assert_eq!(get(&f, file.ino, ACCESS), Ok(MetaReply::Bytes(list(6, 7, 5, 6, 4))));
    assert_eq!(get(&f, file.ino, DEFAULT), Err(MetaError::NoAttribute));
    let sub = f.make_as(USER, d, "s", NewNode::Dir, 0o750, 0o077).unwrap();
    assert_eq!(sub.perm, 0o750);
    assert_eq!(get(&f, sub.ino, ACCESS), Ok(MetaReply::Bytes(list(7, 7, 5, 5, 0))));
    assert_eq!(get(&f, sub.ino, DEFAULT), Ok(MetaReply::Bytes(list(7, 7, 5, 7, 4))));
    let link = f.make_as(USER, d, "l", NewNode::Symlink(b"x".into()), 0o777, 0).unwrap();
    assert_eq!((link.perm, get(&f, link.ino, ACCESS)), (0o777, Err(MetaError::NoAttribute)));
}

#[test]
fn lists_are_checked_and_only_where_they_belong() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    let l = f.make(R, "l", NewNode::Symlink(b"x".into())).unwrap().ino;
    let good = list(7, 6, 5, 4, 1);
    assert!(matches!(set_as(&f, ROOT, a, ACCESS, &good[..12]), Err(MetaError::Invalid(_))));
    assert_eq!(set_as(&f, ROOT, a, DEFAULT, &good), Err(MetaError::NotPermitted));
    assert_eq!(set_as(&f, ROOT, l, ACCESS, &good), Err(MetaError::NotSupported));
    assert_eq!(set_as(&f, USER, a, ACCESS, &good), Err(MetaError::NotPermitted));
    assert_eq!(f.attr(a).perm, 0o644);
}

#[test]
fn who_is_not_of_the_group_cannot_leave_set_group_id_behind() {
    let f = Fixture::new();
    let a = f.make_as(USER, R, "a", NewNode::File, 0o2755, 0).unwrap().ino;
    let other = Caller { uid: USER.uid, gid: 7 };
    assert_eq!(set_as(&f, USER, a, ACCESS, &list(7, 6, 5, 5, 1)).unwrap().perm, 0o2751);
    assert_eq!(set_as(&f, other, a, ACCESS, &list(7, 6, 5, 5, 1)).unwrap().perm, 0o751);
}

#[test]
fn removing_or_emptying_a_list_leaves_the_mode() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    set_as(&f, ROOT, a, ACCESS, &list(7, 6, 5, 4, 1)).unwrap();
    f.attr_of(MetaRequest::RemoveXattr { ino: a, name: ACCESS.into() }).unwrap();
    assert_eq!((f.attr(a).perm, get(&f, a, ACCESS)), (0o741, Err(MetaError::NoAttribute)));
    assert!(f.attr_of(MetaRequest::RemoveXattr { ino: a, name: ACCESS.into() }).is_ok());
    set_as(&f, ROOT, R, DEFAULT, &list(7, 6, 5, 4, 1)).unwrap();
    set_as(&f, ROOT, R, DEFAULT, &[2, 0, 0, 0]).unwrap();
    assert_eq!(get(&f, R, DEFAULT), Err(MetaError::NoAttribute));
}
