//! Clients that have not mapped their rack's memory keep the same promises, beside clients that have.

use crate::{clients, finish, goes_on_and_kept_its_promises, on_cluster, seconds};
use e2e::cluster::{Client, Cluster, Shape};
use pool::addr::{GAddr, PageId, PageSize, RackId};
use pool::proto::far::{FAR_MAX, FarError, FarReply, FarRequest, LEASE, Ticket, ZERO_MAX};
use pool::proto::page::{PageError, PageReply, PageRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::tcp::frame::{HEADER, Hello, Kind, WELCOME, encode};
use pool::transport::{Tcp, TcpConfig, Transport};
use pool::{Fill, Pool, PoolError};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One of two threads in each of two racks.
fn far_clients(cluster: &Cluster, pages: &str, seconds: f64) -> Vec<Client> {
    [0, 1].map(|rack| cluster.far_client(rack, pages, 2, seconds)).into()
}

fn part(of: f64) -> Duration {
    Duration::from_secs_f64(seconds() / of)
}

/// How many such clients each rack says there are, once it says so.
#[track_caller]
fn until_there_are(cluster: &Cluster, expected: [u64; 2]) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while cluster.counts("clients_without_cxl") != expected {
        assert!(Instant::now() < deadline, "{:?}", cluster.counts("clients_without_cxl"));
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn pages_that_never_rest_keep_every_promise_to_clients_without_cxl_too() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let mut all = far_clients(cluster, pages, seconds());
        all.extend(clients(cluster, 2, pages));
        let failed = finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations failed although nothing was wrong");
        let moved: u64 = cluster.counts("swaps_in").iter().sum();
        assert!(moved > 100, "only {moved} pages moved: they did rest");
    });
}

#[test]
fn a_client_without_cxl_that_is_killed_is_noticed_and_harms_nobody() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let rest = clients(cluster, 2, pages);
        let victims = far_clients(cluster, pages, 60.0);
        sleep(part(4.0));
        until_there_are(cluster, [1, 1]);
        victims.into_iter().for_each(Client::kill);
        let failed = finish(rest);
        until_there_are(cluster, [0, 0]);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations of other clients failed");
    });
}

#[test]
fn a_client_without_cxl_that_was_stopped_for_longer_than_its_lease_goes_on() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let rest = clients(cluster, 2, pages);
        let sleeper = cluster.far_client(0, pages, 2, seconds() + 6.0);
        sleep(part(4.0));
        sleeper.stop();
        until_there_are(cluster, [0, 0]);
        sleeper.go_on();
        let mut all = rest;
        all.push(sleeper);
        finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}

#[test]
fn clients_without_cxl_find_their_daemon_again_after_it_was_killed() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        // A daemon that comes back waits for the master to notice that the one before it is gone.
        let time = seconds() + 16.0;
        let mut all = far_clients(cluster, pages, time);
        all.extend([0, 1].map(|rack| cluster.client(rack, pages, 1, time)));
        for rack in [1, 0] {
            sleep(part(4.0));
            cluster.restart_daemon(rack);
        }
        until_there_are(cluster, [1, 1]);
        // Such a client makes reads again by itself.
        finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        let far = far_clients(cluster, pages, 1.0);
        assert_eq!(finish(far), 0, "operations failed although nothing was wrong any more");
        cluster.judge().expect_none();
    });
}

#[test]
fn a_daemon_that_is_stopped_holds_a_client_without_cxl_up_no_longer_than_a_deadline() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let far = cluster.far_client(0, pages, 2, seconds() + 4.0);
        let rest = clients(cluster, 2, pages);
        sleep(part(4.0));
        cluster.daemon(0).stop();
        // What was on its way when the lease lapsed is refused, not done late: the history shows it.
        sleep(Duration::from_secs(4));
        cluster.daemon(0).go_on();
        let begun = Instant::now();
        let mut all = rest;
        all.push(far);
        finish(all);
        assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}

/// A connection to the daemon of rack 0, which can ask anything.
fn asker(cluster: &Cluster) -> impl Fn(FarRequest) -> Result<FarReply, FarError> + use<> {
    let config = TcpConfig { me: None, cluster: 0, deadline: Duration::from_secs(10) };
    let tcp = Tcp::new(config).expect("there are threads");
    tcp.set_addr(NodeId::Daemon(RackId(0)), cluster.daemon(0).addr().to_owned());
    move |request| match tcp.call(NodeId::Daemon(RackId(0)), Request::Far(request)) {
        Ok(Reply::Far(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

fn enter(ask: impl Fn(FarRequest) -> Result<FarReply, FarError>, replaces: u64) -> (Ticket, bool) {
    match ask(FarRequest::Enter { by: "é".repeat(5000), client: 7, replaces, age: 0 }) {
        Ok(FarReply::Entered { ticket, kept, .. }) => (ticket, kept),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_makes_no_sense_or_has_no_ticket_is_refused_and_harms_nothing() {
    on_cluster(Shape::restless(2), |cluster, _| {
        let pool = Pool::connect(cluster.master(), RackId(0)).unwrap();
        let page = pool.alloc_page().unwrap();
        let at = GAddr::new(page, 0, PageSize::MIN).unwrap();
        pool.write(at, &[7; 4096]).unwrap();
        let ask = asker(cluster);
        let (ticket, _) = enter(&ask, 0);
        let last = GAddr::from_raw(u64::MAX - 7, PageSize::MIN);
        let beyond =
            GAddr::new(PageId::new(PageSize::MIN.id_limit() - 1).unwrap(), 4088, PageSize::MIN).unwrap();
        let mut senseless = vec![
            FarRequest::Read { ticket, at, len: 0 },
            FarRequest::Read { ticket, at, len: FAR_MAX as u32 + 1 },
            FarRequest::Read { ticket, at, len: u32::MAX },
            FarRequest::Read { ticket, at: beyond, len: 16 },
            FarRequest::Write { ticket, at, data: Vec::new() },
            FarRequest::Write { ticket, at, data: vec![0; FAR_MAX + 1] },
            FarRequest::Zero { ticket, at, len: ZERO_MAX as u32 + 1 },
            FarRequest::Cas { ticket, at: at.checked_add(4, PageSize::MIN).unwrap(), old: 0, new: 0 },
        ];
        senseless.extend(last.map(|at| FarRequest::Read { ticket, at, len: 16 }));
        for request in senseless {
            let refused = ask(request.clone());
            assert!(
                matches!(refused, Err(FarError::Page(PageError::Invalid(_)))),
                "{request:?}: {refused:?}"
            );
        }
        let absent = GAddr::new(PageId::new(page.raw() + 5000).unwrap(), 0, PageSize::MIN).unwrap();
        let missing = ask(FarRequest::Read { ticket, at: absent, len: 8 });
        assert!(matches!(missing, Err(FarError::Page(PageError::NoSuchPage(_)))), "{missing:?}");
        // A write that ends in a page that is not there is an error, as for every client.
        let across = ask(FarRequest::Write { ticket, at, data: vec![7; FAR_MAX] });
        assert!(matches!(across, Err(FarError::Page(PageError::NoSuchPage(_)))), "{across:?}");
        let old = Ticket { until: 0, ..ticket };
        let strange = Ticket { session: ticket.session ^ 2, ..ticket };
        for ticket in [old, strange] {
            let write = FarRequest::Write { ticket, at, data: vec![9; 8] };
            assert_eq!(ask(write), Err(FarError::Expired));
        }
        assert_eq!(ask(FarRequest::Renew { session: strange.session }), Err(FarError::Expired));
        // A session that is replaced can do no more.
        let (newer, kept) = enter(&ask, ticket.session);
        assert!(kept);
        assert_eq!(ask(FarRequest::Zero { ticket, at, len: 8 }), Err(FarError::Expired));
        assert_eq!(ask(FarRequest::Read { ticket: newer, at, len: 8 }), Ok(FarReply::Data(vec![7; 8])));
        sleep(LEASE + Duration::from_millis(300));
        assert_eq!(ask(FarRequest::Zero { ticket: newer, at, len: 8 }), Err(FarError::Expired));
        // What it had taken is its own, since another client kept the pool from being quiet.
        let _ = enter(&ask, newer.session);
        let mut found = [0; 4096];
        pool.read(at, &mut found).unwrap();
        assert_eq!(found, [7; 4096]);
    });
}

/// How many clients the daemon of rack 0 says there are, to who may have pages freed that no file has.
fn count(cluster: &Cluster) -> Option<u64> {
    let tcp = Tcp::new(TcpConfig { me: None, cluster: 0, deadline: Duration::from_secs(10) }).unwrap();
    tcp.set_addr(NodeId::Daemon(RackId(0)), cluster.daemon(0).addr().to_owned());
    let request = PageRequest::Reconcile { held: Vec::new(), ids: 0..0, free: false };
    match tcp.call(NodeId::Daemon(RackId(0)), Request::Page(request)) {
        Ok(Reply::Page(Ok(PageReply::Reconciled(found)))) => found.clients,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_is_told_by_another_daemon_of_its_rack_whether_its_pages_were_kept() {
    on_cluster(Shape::restless(2), |cluster, _| {
        let enter = |cluster: &Cluster, replaces, age| {
            let by = "a test".into();
            match asker(cluster)(FarRequest::Enter { by, client: 7, replaces, age }) {
                Ok(FarReply::Entered { ticket, kept, age }) => (ticket.session, kept, age),
                other => panic!("{other:?}"),
            }
        };
        let (session, _, age) = enter(cluster, 0, 0);
        cluster.restart_daemon(0);
        let (session, kept, age) = enter(cluster, session, age);
        assert!(kept, "nobody can have taken anything from it");
        // It is away, and the master is told that there is nobody.
        let deadline = Instant::now() + Duration::from_secs(30);
        while count(cluster) != Some(0) {
            assert!(Instant::now() < deadline, "it is never taken to be away");
            sleep(Duration::from_millis(100));
        }
        cluster.restart_daemon(0);
        let (_, kept, _) = enter(cluster, session, age);
        assert!(!kept, "its pages may have been freed");
    });
}

#[test]
fn bytes_that_are_no_message_end_their_connection_and_no_other() {
    on_cluster(Shape::restless(2), |cluster, _| {
        let ask = asker(cluster);
        let (ticket, _) = enter(&ask, 0);
        let good = Request::Far(FarRequest::Renew { session: ticket.session });
        let good = encode(Kind::Request, 1, &good).unwrap();
        let flipped = |at: usize| {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            bad
        };
        let mut long = good.clone();
        long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        for bad in [flipped(4), flipped(8), flipped(HEADER), flipped(good.len() - 1), long] {
            let mut stream = TcpStream::connect(cluster.daemon(0).addr()).unwrap();
            let hello = Hello { from: None, to: NodeId::Daemon(RackId(0)), cluster: 0 };
            stream.write_all(&hello.encode()).unwrap();
            stream.read_exact(&mut [0; WELCOME]).unwrap();
            stream.write_all(&bad).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut said = Vec::new();
            // Closed, or reset: but no answer.
            assert!(matches!(stream.read_to_end(&mut said), Ok(0) | Err(_)) && said.is_empty(), "{said:?}");
        }
        assert!(matches!(ask(FarRequest::Renew { session: ticket.session }), Ok(FarReply::Renewed { .. })));
    });
}

#[test]
fn accesses_of_every_length_at_every_edge_are_as_those_of_a_client_with_cxl() {
    on_cluster(Shape::restless(2), |cluster, _| {
        let mapped = Pool::connect(cluster.master(), RackId(0)).unwrap();
        let far = Pool::connect_without_cxl(cluster.master(), RackId(1)).unwrap();
        assert!(mapped.is_mapped() && !far.is_mapped());
        let size = far.page_size();
        let runs = far.alloc_runs(400, 0, Fill::Zeroed).unwrap();
        let run = runs.iter().max_by_key(|run| run.count).copied().unwrap();
        let base = GAddr::new(run.first, 0, size).unwrap();
        let bytes = u64::from(run.count) * size.bytes();
        assert!(bytes > 1 << 20, "pages are given out in runs");
        let mut expected = vec![0_u8; bytes as usize];
        let mut found = vec![1_u8; bytes as usize];
        far.read(base, &mut found).unwrap();
        assert!(found == expected, "new pages are zero");
        let lens = [1, 7, 8, 4095, 4097, 70_001, FAR_MAX as u64 - 3, FAR_MAX as u64 + 9, 900_000];
        for (i, len) in lens.into_iter().enumerate() {
            for from in [0, 5, 4090, 8192] {
                let data: Vec<u8> = (0..len).map(|n| (n * 7 + from + i as u64) as u8).collect();
                let at = base.checked_add(from, size).unwrap();
                let (writer, reader) = if i % 2 == 0 { (&far, &mapped) } else { (&mapped, &far) };
                writer.write(at, &data).unwrap();
                expected[from as usize..(from + len) as usize].copy_from_slice(&data);
                reader.read(base, &mut found).unwrap();
                assert!(found == expected, "{len} bytes at {from}");
            }
        }
        far.zero(base.checked_add(13, size).unwrap(), 700_000).unwrap();
        expected[13..700_013].fill(0);
        let (a, b) = (base.checked_add(3, size).unwrap(), base.checked_add(500_001, size).unwrap());
        far.write_parts_while(&[(b, 5000), (a, 9)], &[3; 5009], &|| true).unwrap();
        expected[500_001..505_001].fill(3);
        expected[3..12].fill(3);
        mapped.read(base, &mut found).unwrap();
        assert!(found == expected, "parts and zeroes");
        let mut parts = vec![0; 5009];
        far.read_parts(&[(b, 5000), (a, 9)], &mut parts).unwrap();
        assert_eq!(parts, [3; 5009]);
        assert!(matches!(far.read_parts(&[(b, 10)], &mut parts), Err(PoolError::BadAddress { .. })));
        assert_eq!(far.cas(base, 0, 5).unwrap(), mapped.cas(base, 0, 5).unwrap());
        let small = far.alloc(64).unwrap();
        mapped.write(small, &[9; 64]).unwrap();
        far.read(small, &mut parts[..64]).unwrap();
        assert_eq!(parts[..64], [9; 64]);
        mapped.free(small).unwrap();
        mapped.free_runs(&runs).unwrap();
        assert!(matches!(far.read(base, &mut parts), Err(PoolError::NoSuchPage(_))));
        assert!(matches!(far.write(base, &parts), Err(PoolError::NoSuchPage(_))));
    });
}
