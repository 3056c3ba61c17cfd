//! Small objects over several racks.

use crate::racks::{Racks, at};
use pool::addr::GAddr;
use pool::proto::page::{PageError, PageReply, PageRequest};

fn object(racks: &Racks, id: usize, size: u64) -> Result<GAddr, PageError> {
    match racks.ask(id, PageRequest::AllocObject { size })? {
        PageReply::Object(at) => Ok(at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_object_is_freed_through_any_rack_and_only_once() {
    let racks = Racks::new(&[4, 4, 4]);
    for by in 0..3 {
        let at = object(&racks, 0, 100).unwrap();
        let free = || racks.ask(by, PageRequest::FreeObject { at });
        assert_eq!(free(), Ok(PageReply::Done));
        assert_eq!(free(), Err(PageError::NoSuchObject(at)));
    }
}

#[test]
fn a_full_rack_gets_objects_from_another() {
    let racks = Racks::new(&[1, 4]);
    racks.alloc(0, 1, 0).unwrap();
    let at = object(&racks, 0, 64).unwrap();
    assert_eq!(racks.room(), [0, 3]);
    let write = PageRequest::Write { at, data: vec![7; 64] };
    assert_eq!(racks.ask(0, write), Ok(PageReply::Done));
    assert_eq!(racks.ask(0, PageRequest::FreeObject { at }), Ok(PageReply::Done));
}

#[test]
fn where_there_is_no_object_none_is_freed() {
    let racks = Racks::new(&[4, 4]);
    let (runs, _) = racks.alloc(1, 1, 0).unwrap();
    let at = at(runs[0].first, 64);
    assert_eq!(racks.ask(0, PageRequest::FreeObject { at }), Err(PageError::NoSuchObject(at)));
    assert_eq!(racks.ask(1, PageRequest::FreeObject { at }), Err(PageError::NoSuchObject(at)));
}

#[test]
fn objects_are_out_of_memory_when_all_racks_are() {
    let racks = Racks::new(&[2, 2]);
    racks.alloc(0, 4, 0).unwrap();
    assert!(matches!(object(&racks, 0, 8), Err(PageError::OutOfMemory { .. })));
}

#[test]
fn a_page_of_objects_cannot_be_freed_as_a_page() {
    let racks = Racks::new(&[4, 4]);
    let object = object(&racks, 0, 100).unwrap();
    let page = object.page(pool::addr::PageSize::MIN).unwrap();
    for by in 0..2 {
        let runs = vec![pool::addr::PageRun { first: page, count: 1 }];
        assert_eq!(racks.ask(by, PageRequest::Free { runs }), Ok(PageReply::Freed(0)));
    }
    assert_eq!(racks.ask(1, PageRequest::FreeObject { at: object }), Ok(PageReply::Done));
}
