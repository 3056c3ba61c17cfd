//! Accesses that cross the ends of pages that are in different racks.

use crate::on_cluster;
use e2e::cluster::Shape;
use e2e::pattern;
use pool::addr::{GAddr, PageId, RackId};
use pool::{Fill, Pool};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Uses `page` in the rack of `pool` until it is there.
fn attract(pool: &Pool, page: PageId) {
    let deadline = Instant::now() + PATIENCE;
    let at = GAddr::new(page, 0, pool.page_size()).expect("a page has an address");
    while pool.where_is(page).expect("it is somewhere").rack != pool.rack() {
        assert!(Instant::now() < deadline, "page {page} does not come to rack {}", pool.rack());
        pool.read(at, &mut [0; 8]).expect("it can be read");
    }
}

/// Three pages in turn in either rack; ranges that begin and end anywhere in them, also at odd addresses.
#[test]
fn an_access_across_the_ends_of_pages_in_two_racks_is_about_those_bytes_alone() {
    let daemon = vec!["--swap-watermark", "100", "--heat-half-life", "100ms"];
    on_cluster(Shape { daemon, ..Shape::restless(2) }, |cluster, _| {
        let connect = |rack| Pool::connect(cluster.master(), RackId(rack)).expect("it is there");
        let (here, there) = (connect(0), connect(1));
        let (size, page) = (here.page_size(), here.page_size().bytes() as usize);
        let run = here.alloc_runs(3, 0, Fill::Zeroed).expect("there is room")[0];
        attract(&there, run.get(1).expect("three pages"));
        let homes = || run.iter().map(|page| here.where_is(page).expect("it is there").rack.0);
        assert_eq!(homes().collect::<Vec<_>>(), [0, 1, 0]);

        let at = |offset: usize| GAddr::new(run.first, 0, size)?.checked_add(offset as u64, size);
        let mut model = vec![0; 3 * page];
        let ranges = [
            (page - 1, 2),
            (page - 8, 16),
            (2 * page - 3, 7),
            (page - 5, page + 10),
            (0, 3 * page),
            (1, 3 * page - 2),
            (page, page),
        ];
        for (seed, (offset, len)) in ranges.into_iter().enumerate() {
            let (writer, reader) = if seed % 2 == 0 { (&here, &there) } else { (&there, &here) };
            let (bytes, place) = (pattern(seed as u64, len), at(offset).expect("an address"));
            writer.write(place, &bytes).expect("it can be written");
            model[offset..offset + len].copy_from_slice(&bytes);
            let (mut part, mut all) = (vec![0; len], vec![0; model.len()]);
            reader.read(place, &mut part).expect("it can be read");
            assert!(part == bytes, "{len} bytes at {offset}");
            writer.read(at(0).expect("an address"), &mut all).expect("it can be read");
            assert!(all == model, "writing {len} bytes at {offset} changed others");
        }
        assert_eq!(homes().collect::<Vec<_>>(), [0, 1, 0], "the pages have moved in between");
        here.free_page_run(run).expect("they can be freed");
    });
}
