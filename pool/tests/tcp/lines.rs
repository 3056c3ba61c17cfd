//! Requests whose caller waits at a connection of its own.

use super::*;
use std::thread::{scope, spawn};

/// Callers that wait at once: more than have a connection to themselves.
const MANY: usize = 50;
/// The most connections that a node makes to another: those, and two that are shared.
const MOST: usize = 34;

#[test]
fn one_caller_after_the_other_uses_one_connection() {
    let node = Node::new();
    let client = node.client(LONG);
    (1..100).for_each(|i| assert_eq!(client.call(ME, free(i)), freed(i)));
    assert_eq!(client.call_all(ME, vec![free(7)]), [freed(7)]);
    assert_eq!(node.echo.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn callers_that_wait_have_a_bounded_number_of_connections_and_hold_nobody_up() {
    let node = Node::new();
    let client = node.client(LONG);
    scope(|scope| {
        let call = || client.call(ME, Request::Page(PageRequest::Stat));
        let waiting: Vec<_> = (0..MANY).map(|_| scope.spawn(call)).collect();
        let answers = node.kept(MANY);
        assert_eq!(client.call(ME, free(5)), freed(5), "one more, while they wait");
        answers.into_iter().for_each(|answer| answer(Reply::Unsupported));
        for one in waiting {
            assert_eq!(one.join().unwrap(), Ok(Reply::Unsupported));
        }
    });
    let made = node.echo.connections.load(Ordering::SeqCst);
    assert!((2..=MOST).contains(&made), "{made} connections");
}

#[test]
fn a_caller_whose_node_goes_elsewhere_does_not_wait_any_longer() {
    let node = Node::new();
    let client = node.client(LONG);
    scope(|scope| {
        let waiting = scope.spawn(|| client.call(ME, Request::Page(PageRequest::Stat)));
        let answers = node.kept(1);
        let other = Node::new();
        client.set_addr(ME, other.addr.to_string());
        assert!(matches!(waiting.join().unwrap(), Err(TransportError::Broken(ME, _))));
        assert_eq!(client.call(ME, free(2)), freed(2));
        assert_eq!(other.echo.connections.load(Ordering::SeqCst), 1);
        drop(answers);
    });
}

/// A node that does to one connection after another what it is told, after greeting.
struct Puppet {
    addr: SocketAddr,
    acts: std::sync::mpsc::Sender<Act>,
}

type Act = Box<dyn FnOnce(TcpStream) + Send>;

impl Puppet {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (acts, told) = channel::<Act>();
        spawn(move || {
            for act in told {
                let (mut stream, _) = listener.accept().unwrap();
                let mut hello = [0; frame::HELLO];
                stream.read_exact(&mut hello).unwrap();
                stream.write_all(&frame::welcome(None)).unwrap();
                act(stream);
            }
        });
        Self { addr, acts }
    }

    fn then(&self, act: impl FnOnce(TcpStream) + Send + 'static) {
        self.acts.send(Box::new(act)).unwrap();
    }

    fn client(&self, deadline: Duration) -> Arc<Tcp> {
        let client = transport(None, deadline);
        client.set_addr(ME, self.addr.to_string());
        client
    }
}

/// Takes a request, which is one for pages to be freed; its number, and the answer to it.
fn take(stream: &mut TcpStream) -> (u64, Reply) {
    let mut whole = vec![0; HEADER];
    stream.read_exact(&mut whole).unwrap();
    let header = frame::header(&whole).unwrap().unwrap();
    whole.resize(HEADER + header.len, 0);
    stream.read_exact(&mut whole[HEADER..]).unwrap();
    match frame::message(&whole).unwrap() {
        Request::Page(PageRequest::Free { runs }) => {
            (header.id, Reply::Page(Ok(PageReply::Freed(runs[0].count.into()))))
        }
        other => panic!("{other:?}"),
    }
}

fn answer(stream: &mut TcpStream) {
    let (id, reply) = take(stream);
    stream.write_all(&frame::encode(Kind::Reply, id, &reply).unwrap()).unwrap();
}

#[test]
fn a_connection_that_ended_while_nobody_used_it_costs_no_request() {
    let puppet = Puppet::new();
    let client = puppet.client(LONG);
    let (lost, noted) = channel();
    client.set_watch(Box::new(move |node| lost.send(node).unwrap()));
    let (ended, seen) = channel();
    puppet.then(move |mut stream| {
        answer(&mut stream);
        drop(stream);
        ended.send(()).unwrap();
    });
    assert_eq!(client.call(ME, free(1)), freed(1));
    seen.recv_timeout(LONG).unwrap();
    puppet.then(|mut stream| (0..2).for_each(|_| answer(&mut stream)));
    assert_eq!(client.call(ME, free(2)), freed(2));
    assert_eq!(noted.recv_timeout(LONG), Ok(ME), "that it was lost is told");
    assert_eq!(client.call(ME, free(3)), freed(3));
}

#[test]
fn a_connection_that_ends_instead_of_an_answer_is_an_error_at_once_and_nothing_is_sent_again() {
    let puppet = Puppet::new();
    let client = puppet.client(LONG);
    puppet.then(|mut stream| drop(take(&mut stream)));
    assert!(matches!(client.call(ME, free(1)), Err(TransportError::Broken(ME, _))));
    puppet.then(|mut stream| answer(&mut stream));
    assert_eq!(client.call(ME, free(2)), freed(2));
}

/// Makes something wrong of a good answer: its frame, the number of the request, and the reply.
type Spoil = fn(Vec<u8>, u64, &Reply) -> Vec<u8>;

#[test]
fn what_is_no_answer_to_what_was_asked_is_an_error_and_the_next_request_gets_its_own() {
    let good = |id: u64, reply: &Reply| frame::encode(Kind::Reply, id, reply).unwrap();
    let wrong: Vec<(&str, Spoil)> = vec![
        ("a wrong checksum", |mut frame, _, _| {
            *frame.last_mut().unwrap() ^= 1;
            frame
        }),
        ("the answer to another request", |_, id, reply| frame::encode(Kind::Reply, id + 1, reply).unwrap()),
        ("a request", |_, id, _| frame::encode(Kind::Request, id, &free(1)).unwrap()),
        ("two answers", |frame, _, _| [&frame[..], &frame[..]].concat()),
        ("a huge length", |mut frame, _, _| {
            frame[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            frame
        }),
        ("nonsense", |_, id, _| frame::encode(Kind::Reply, id, &vec![255u8; 40]).unwrap()),
        ("half of it", |frame, _, _| frame[..frame.len() - 1].to_vec()),
    ];
    let puppet = Puppet::new();
    let client = puppet.client(LONG);
    for (what, spoil) in wrong {
        puppet.then(move |mut stream| {
            let (id, reply) = take(&mut stream);
            stream.write_all(&spoil(good(id, &reply), id, &reply)).unwrap();
        });
        let came = client.call(ME, free(1));
        assert!(matches!(came, Err(TransportError::Broken(ME, _))), "{what}: {came:?}");
        puppet.then(|mut stream| answer(&mut stream));
        assert_eq!(client.call(ME, free(2)), freed(2), "after {what}");
        // The connection of that answer has ended, which the next request is not to find out.
        client.set_addr(ME, "127.0.0.1:1".into());
        client.set_addr(ME, puppet.addr.to_string());
    }
}

#[test]
fn an_answer_that_comes_drop_by_drop_is_late_all_the_same() {
    let puppet = Puppet::new();
    let client = puppet.client(Duration::from_millis(200));
    let (over, told) = channel::<()>();
    puppet.then(move |mut stream| {
        let (id, reply) = take(&mut stream);
        let whole = frame::encode(Kind::Reply, id, &reply).unwrap();
        // A byte every now and then, but for the last, for as long as somebody is there.
        for byte in whole[..whole.len() - 1].iter().cycle() {
            let until_then = told.recv_timeout(Duration::from_millis(30));
            if until_then != Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                || stream.write_all(&[*byte]).is_err()
            {
                return;
            }
        }
    });
    assert_eq!(client.call(ME, free(1)), Err(TransportError::TimedOut(ME)));
    drop(over);
    puppet.then(|mut stream| answer(&mut stream));
    let patient = puppet.client(LONG);
    assert_eq!(patient.call(ME, free(2)), freed(2));
}

#[test]
fn a_child_that_was_forked_has_no_part_in_the_connections() {
    let node = Node::new();
    let client = node.client(LONG);
    assert_eq!(client.call(ME, free(1)), freed(1));
    // SAFETY: the child calls what takes no lock in it, and ends without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = |came: &Result<Reply, TransportError>| matches!(came, Err(TransportError::Broken(ME, why)) if why.contains("forked"));
        let all = refused(&client.call(ME, free(2))) && refused(&client.call_all(ME, vec![free(3)])[0]);
        drop(client);
        // SAFETY: it is what ends a child.
        unsafe { libc::_exit(i32::from(!all)) };
    }
    let mut status = -1;
    // SAFETY: `status` is an int to write to.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    assert_eq!(client.call(ME, free(4)), freed(4), "the parent's are as they were");
    assert_eq!(node.echo.connections.load(Ordering::SeqCst), 1);
}
