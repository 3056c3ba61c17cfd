//! Extended attributes.

use crate::fixture::*;
use pool::proto::meta::*;

const R: Ino = Ino::ROOT;

fn set(f: &Fixture, ino: Ino, name: &str, value: &[u8], mode: XattrMode) -> Result<Attr> {
    let (name, value) = (name.into(), value.to_vec());
    f.attr_of(MetaRequest::SetXattr { ino, caller: ROOT, name, value, mode })
}

fn get(f: &Fixture, ino: Ino, name: &str) -> Result<Vec<u8>> {
    match f.ask(MetaRequest::GetXattr { ino, name: name.into() })? {
        MetaReply::Bytes(value) => Ok(value),
        other => panic!("{other:?}"),
    }
}

fn remove(f: &Fixture, ino: Ino, name: &str) -> Result<Attr> {
    f.attr_of(MetaRequest::RemoveXattr { ino, name: name.into() })
}

#[test]
fn a_value_can_be_set_read_listed_and_removed() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    assert_eq!(set(&f, a, "user.b", b"", XattrMode::Any).unwrap().ctime, f.now());
    set(&f, a, "trusted.a", b"value", XattrMode::Any).unwrap();
    assert_eq!((get(&f, a, "user.b"), get(&f, a, "trusted.a")), (Ok(Vec::new()), Ok(b"value".into())));
    let names = f.ask(MetaRequest::ListXattr { ino: a });
    assert_eq!(names, Ok(MetaReply::Bytes(b"trusted.a\0user.b\0".into())));
    remove(&f, a, "user.b").unwrap();
    assert_eq!(get(&f, a, "user.b"), Err(MetaError::NoAttribute));
    assert_eq!(remove(&f, a, "user.b"), Err(MetaError::NoAttribute));
}

#[test]
fn create_and_replace_say_what_must_be_there() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    assert_eq!(set(&f, a, "user.x", b"1", XattrMode::Replace), Err(MetaError::NoAttribute));
    set(&f, a, "user.x", b"1", XattrMode::Create).unwrap();
    assert_eq!(set(&f, a, "user.x", b"2", XattrMode::Create), Err(MetaError::Exists));
    set(&f, a, "user.x", b"3", XattrMode::Replace).unwrap();
    assert_eq!(get(&f, a, "user.x"), Ok(b"3".into()));
}

#[test]
fn user_attributes_are_of_files_and_directories() {
    let f = Fixture::new();
    let l = f.make(R, "l", NewNode::Symlink(b"x".into())).unwrap().ino;
    assert_eq!(set(&f, l, "user.x", b"", XattrMode::Any), Err(MetaError::NotPermitted));
    assert_eq!(get(&f, l, "user.x"), Err(MetaError::NoAttribute));
    assert!(set(&f, l, "security.x", b"", XattrMode::Any).is_ok());
    assert!(set(&f, R, "user.x", b"", XattrMode::Any).is_ok());
    assert_eq!(set(&f, R, "system.x", b"", XattrMode::Any), Err(MetaError::NotSupported));
    assert!(matches!(set(&f, R, "user.", b"", XattrMode::Any), Err(MetaError::Invalid(_))));
}

#[test]
fn values_and_lists_have_the_limits_of_linux() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    assert!(set(&f, a, "user.big", &[1; XATTR_SIZE_MAX], XattrMode::Any).is_ok());
    assert_eq!(set(&f, a, "user.big", &[1; XATTR_SIZE_MAX + 1], XattrMode::Any), Err(MetaError::ValueTooBig));
    let full =
        (0..).map(|i| set(&f, a, &format!("user.{i:0>250}"), b"", XattrMode::Any)).find(|r| r.is_err());
    assert!(matches!(full, Some(Err(MetaError::NoSpace(_)))));
    let Ok(MetaReply::Bytes(names)) = f.ask(MetaRequest::ListXattr { ino: a }) else { panic!("no list") };
    assert!(names.len() <= XATTR_LIST_MAX && names.len() > XATTR_LIST_MAX - 256);
    assert!(set(&f, a, "user.big", b"", XattrMode::Any).is_ok(), "one that is there can be replaced");
}

#[test]
fn a_write_takes_the_capabilities_of_a_program_away() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    let give = || set(&f, a, "security.capability", b"cap", XattrMode::Any).unwrap();
    give();
    f.write(a, 0, 1);
    assert_eq!(get(&f, a, "security.capability"), Err(MetaError::NoAttribute));
    for set in
        [SetAttr { uid: Some(1), ..SetAttr::default() }, SetAttr { size: Some(0), ..SetAttr::default() }]
    {
        give();
        f.setattr(a, set).unwrap();
        assert_eq!(get(&f, a, "security.capability"), Err(MetaError::NoAttribute), "{set:?}");
    }
    give();
    f.setattr(a, SetAttr { perm: Some(0o700), ..SetAttr::default() }).unwrap();
    assert!(get(&f, a, "security.capability").is_ok());
}
