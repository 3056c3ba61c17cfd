//! What clients may do: in any number, from many threads, and die.

use crate::rig::*;
use pool::addr::{PageRun, RackId};
use pool::cxl::region::Region;
use pool::cxl::ring::{BODY_MAX, Call, RUNS_MAX};
use pool::proto::page::{ACCESS_MAX, PageReply, PageRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Local, RingError, RingTransport, Route, Transport, TransportError};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

fn lens() -> impl Iterator<Item = u32> + Clone {
    [0, 1, 20, 40, 50, 200, 230, 240, 300, 4096, ACCESS_MAX as u32].into_iter().cycle()
}

#[test]
fn each_thread_of_each_client_gets_its_own_answers() {
    let home = Home::new();
    // Answered by two threads, and so in another order than asked.
    let (queue, calls) = mpsc::channel::<Call>();
    let calls = Arc::new(parking_lot::Mutex::new(calls));
    let _running = Running::new(home.open(8), move |call| queue.send(call).unwrap());
    let answering = || {
        while let Ok(call) = calls.lock().recv() {
            at_once(call)
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(answering);
        scope.spawn(answering);
        let clients: Vec<_> = (0..4).map(|_| home.client(LONG)).collect();
        std::thread::scope(|scope| {
            for (number, client) in clients.iter().enumerate() {
                for thread in 0..8 {
                    scope.spawn(move || {
                        for (at, len) in (0..150).zip(lens().skip(thread)) {
                            let request = ask((number * 8 + thread) as u64 * 1000 + at, len);
                            assert_eq!(client.call(NODE, request.clone()).unwrap(), answer(&request));
                        }
                    });
                }
            }
        });
        // Ends the poller, and with its queue the two threads.
        drop(_running);
    });
}

#[test]
fn replies_to_many_requests_at_once_are_in_the_order_of_the_requests() {
    let home = Home::new();
    let _running = Running::new(home.open(1), at_once);
    let client = home.client(LONG);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                let requests: Vec<_> =
                    (0..300).zip(lens()).map(|(at, len)| ask(thread * 1000 + at, len)).collect();
                let replies = client.call_all(NODE, requests.clone());
                assert_eq!(replies.len(), requests.len());
                for (request, reply) in requests.iter().zip(replies) {
                    assert_eq!(reply.unwrap(), answer(request));
                }
            });
        }
    });
}

#[test]
fn a_short_request_does_not_wait_behind_long_ones() {
    let home = Home::new();
    // Keeps what is long until something short came.
    let mut kept = Vec::new();
    let _running = Running::new(home.open(1), move |call| match &call.request {
        Request::Page(PageRequest::Write { .. }) => kept.push(call),
        _ => {
            at_once(call);
            kept.drain(..).for_each(at_once);
        }
    });
    let client = home.client(LONG);
    let at = pool::addr::GAddr::from_raw(1 << 20, pool::addr::PageSize::MIN).unwrap();
    let write = Request::Page(PageRequest::Write { at, data: vec![1; ACCESS_MAX] });
    let mut requests = vec![write; 20];
    requests.push(Request::Page(PageRequest::Stat));
    assert!(client.call_all(NODE, requests).iter().all(|reply| reply.is_ok()));
}

#[test]
fn as_many_clients_as_there_are_channels_are_served_and_one_more_is_told() {
    const CLIENTS: u32 = 128;
    let home = Home::new();
    let region = home.open(CLIENTS);
    let running = Running::new(Arc::clone(&region), at_once);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| home.client(LONG)).collect();
    let region = Arc::new(Region::join(&home.path).unwrap());
    let more = || RingTransport::new(Arc::clone(&region), RACK, LONG);
    assert!(matches!(more(), Err(RingError::AllTaken { channels: CLIENTS, .. })));
    std::thread::scope(|scope| {
        for (number, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                let request = ask(number as u64, 100);
                assert_eq!(client.call(NODE, request.clone()).unwrap(), answer(&request));
            });
        }
    });
    assert_eq!(running.server.sweep(), CLIENTS as usize);
    clients.pop();
    assert_eq!(running.server.sweep(), CLIENTS as usize - 1);
    assert!(stat(&more().unwrap()).is_ok());
}

#[test]
fn a_region_of_another_rack_or_without_channels_is_refused() {
    let home = Home::new();
    let region = home.open(0);
    let error = RingTransport::new(Arc::clone(&region), RackId(9), LONG).map(drop).unwrap_err();
    assert!(matches!(error, RingError::WrongRack { found: RACK, wanted: RackId(9), .. }));
    let error = RingTransport::new(Arc::clone(&region), RACK, LONG).map(drop).unwrap_err();
    assert!(matches!(error, RingError::NoChannels { .. }));
    assert!(pool::cxl::ring::Server::new(region).is_err());
}

#[test]
fn only_the_own_daemon_is_reached_by_a_channel_and_others_by_the_other_way() {
    let home = Home::new();
    let _running = Running::new(home.open(1), at_once);
    let client = Arc::new(home.client(LONG));
    let other = NodeId::Daemon(RackId(0));
    let request = Request::Page(PageRequest::Stat);
    assert_eq!(client.call(other, request.clone()), Err(TransportError::NoSuchNode(other)));
    assert_eq!(client.call_all(other, vec![request.clone()]), [Err(TransportError::NoSuchNode(other))]);

    struct Constant;
    impl pool::transport::Handler for Constant {
        fn handle(&self, _: Request) -> Reply {
            Reply::Unsupported
        }
    }
    let (local, constant) = (Arc::new(Local::new()), Arc::new(Constant) as Arc<_>);
    local.register(other, &constant);
    let route = Route::new(NODE, client, local);
    assert_eq!(route.call(NODE, request.clone()), Ok(answer(&request)));
    assert_eq!(route.call(other, request.clone()), Ok(Reply::Unsupported));
    assert_eq!(route.call_all(other, vec![request]), [Ok(Reply::Unsupported)]);
}

#[test]
fn a_message_that_is_too_long_is_an_error_and_the_longest_list_of_runs_is_not() {
    let home = Home::new();
    let _running = Running::new(home.open(1), |call| {
        let data = vec![0; BODY_MAX];
        match &call.request {
            Request::Page(PageRequest::Free { runs }) => {
                let freed = runs.len() as u64;
                call.reply.answer(&Reply::Page(Ok(PageReply::Freed(freed))));
            }
            _ => call.reply.answer(&Reply::Page(Ok(PageReply::Data(data)))),
        }
    });
    let client = home.client(LONG);
    assert!(matches!(stat(&client), Err(TransportError::TooLarge { to: NODE, max: BODY_MAX, .. })));
    let run = PageRun { first: pool::addr::PageId::new((1 << 52) - 2).unwrap(), count: u32::MAX };
    let free = |count| client.call(NODE, Request::Page(PageRequest::Free { runs: vec![run; count] }));
    assert_eq!(free(RUNS_MAX), Ok(Reply::Page(Ok(PageReply::Freed(RUNS_MAX as u64)))));
    assert!(matches!(free(2 * RUNS_MAX), Err(TransportError::TooLarge { len, .. }) if len > BODY_MAX));
    assert!(free(1).is_ok());
}

/// The other process of the tests below: a client of the region that the environment names, which calls
/// without end from several threads. Without that it is no test at all.
#[test]
fn the_client_that_other_tests_kill() {
    let Some(path) = std::env::var_os("RING_TEST_REGION") else { return };
    let region = Arc::new(Region::join(path.as_ref()).unwrap());
    let client = RingTransport::new(region, RACK, LONG).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &client;
            scope.spawn(move || {
                for (at, len) in (0..).zip(lens()) {
                    let request = ask(thread * 1000 + at % 1000, len);
                    let requests = vec![request.clone(); 5];
                    for reply in client.call_all(NODE, requests) {
                        assert_eq!(reply.unwrap(), answer(&request));
                    }
                    if at == 100 {
                        println!("under way");
                    }
                }
            });
        }
    });
}

/// Starts that process, and waits until its requests are being served.
fn other_process(home: &Home) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "clients::the_client_that_other_tests_kill", "--nocapture"])
        .env("RING_TEST_REGION", &home.path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "under way"));
    child
}

#[test]
fn a_client_that_is_killed_leaves_its_channel_to_the_next_and_holds_nobody_up() {
    let home = Home::new();
    let running = Running::new(home.open(2), at_once);
    let client = home.client(LONG);
    for _ in 0..3 {
        let mut other = other_process(&home);
        assert_eq!(running.server.sweep(), 2);
        assert!(stat(&client).is_ok());
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(running.server.sweep(), 1);
        assert!(stat(&client).is_ok());
        let next = home.client(LONG);
        assert_eq!(next.call(NODE, ask(1, 300)).unwrap(), answer(&ask(1, 300)));
    }
}

#[test]
fn the_channel_of_a_killed_client_is_not_given_away_while_an_answer_is_outstanding() {
    let home = Home::new();
    let (queue, calls) = mpsc::channel::<Call>();
    let running = Running::new(home.open(1), {
        let mut count = 0;
        move |call| {
            count += 1;
            // The last ones that it can have under way are kept.
            if count < 3000 { at_once(call) } else { queue.send(call).unwrap() }
        }
    });
    let mut other = other_process(&home);
    let outstanding = calls.recv().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    let region = Arc::new(Region::join(&home.path).unwrap());
    let next = || RingTransport::new(Arc::clone(&region), RACK, LONG);
    assert_eq!(running.server.sweep(), 0);
    assert!(next().is_err());
    at_once(outstanding);
    while running.server.poll(drop) > 0 {}
    calls.try_iter().for_each(drop);
    assert_eq!(running.server.sweep(), 0);
    assert!(next().is_ok());
}
