//! Clients that take their time, and a service that does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use webmon::api::{AccessOptions, Limits};
use webmon::runtime::mono;

use super::lab::{Answer, BIG, CAP, Client, drip, get, start};

/// Long enough for a request on a busy machine.
const DEADLINE: Duration = Duration::from_secs(3);

/// One thread answers: whoever held it would hold up everybody.
fn limits() -> Limits {
    Limits { threads: 1, deadline: DEADLINE, ..Limits::default() }
}

#[test]
fn a_drip_ends_at_the_deadline_and_holds_up_nobody() {
    let server = start(limits(), AccessOptions::default());
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let drips = [
        ("GET / HTTP/1.1\r\nX: ", &b"x"[..]),
        (&format!("{post}Content-Length: 1000000\r\n\r\n"), b"x"),
        (&chunked, b"1\r\nx\r\n"),
        (&format!("{chunked}0\r\n"), b"a: b\r\n"),
        ("\r\n", b"\r\n"),
    ];
    let mut clients = drips.map(|(begin, bytes)| {
        let mut client = server.connect();
        client.send(begin.as_bytes());
        (client, bytes)
    });
    assert_eq!(server.get("/meanwhile").status(), 200);
    // They began a little earlier than the time is taken.
    let least = DEADLINE / 2;
    for ((said, after), (begin, _)) in drip(&mut clients).iter().zip(drips) {
        Answer::of(said).is_problem(408);
        assert!(*after >= least, "{begin:?} was cut off after {after:?}");
    }
    assert_eq!(server.echo.seen.load(Ordering::SeqCst), 1, "a drip became a request");
}

#[test]
fn who_reads_slowly_holds_no_thread_and_is_cut_off() {
    let server = start(limits(), AccessOptions::default());
    let mut slow: Vec<_> = (0..3).map(|_| server.connect()).collect();
    slow.iter_mut().for_each(|client| client.send(get("/big").as_bytes()));
    // One thread answers in turn, and none of the others has read a byte.
    assert_eq!(server.get("/meanwhile").status(), 200);
    // Their answers would be whole if nobody cut them off: this one's deadline is after theirs.
    let mut probe = server.connect();
    probe.send(b"GET / HTTP/1.1\r\nX: ");
    Answer::of(&probe.ended()).is_problem(408);
    assert_eq!(server.echo.seen.load(Ordering::SeqCst), 4);
    for client in &mut slow {
        assert!(client.ended().len() < BIG, "the answer was whole");
    }
    // Who reads gets all of it.
    assert_eq!(server.get("/big").body.len(), BIG);
}

#[test]
fn who_says_nothing_is_let_go() {
    let short = Duration::from_millis(300);
    let limits = Limits { first_byte: short, keep_alive: 2 * short, ..Limits::default() };
    let server = start(limits, AccessOptions::default());
    let began = mono();
    let mut silent = server.connect();
    assert!(silent.ended().is_empty());
    assert!(mono() - began >= short);
    let mut once = server.connect();
    once.send(get("/").as_bytes());
    assert_eq!(once.answer().status(), 200);
    let began = mono();
    assert!(once.ended().is_empty());
    assert!(mono() - began >= short);
}

#[test]
fn an_answer_that_is_late_is_not_waited_for() {
    let limits = Limits { threads: 2, ..limits() };
    let server = start(limits, AccessOptions::default());
    let mut late = server.connect();
    late.send(get("/hang").as_bytes());
    assert_eq!(server.get("/meanwhile").status(), 200);
    let answer = late.answer();
    answer.is_problem(503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(late.ended().is_empty());
    server.echo.release.request();
    assert_eq!(server.get("/after").status(), 200);
}

#[test]
fn a_full_queue_is_told_at_once_and_the_rest_is_answered() {
    let limits = Limits { threads: 1, deadline: CAP, ..Limits::default() };
    let server = start(limits, AccessOptions::default());
    let mut first = server.connect();
    first.send(get("/hang").as_bytes());
    while server.echo.seen.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // Eight wait for the thread; the order in which the server sees connections is its own.
    let mut others: Vec<_> = (0..11).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|client| client.send(get("/").as_bytes()));
    others.iter().for_each(|client| client.stream.set_nonblocking(true).unwrap());
    let begin = mono();
    let has_answer = |client: &Client| client.stream.peek(&mut [0]).is_ok();
    while others.iter().filter(|client| has_answer(client)).count() < 3 {
        assert!(mono() - begin < CAP, "nobody was refused");
        std::thread::yield_now();
    }
    // What is quick waits for none of them.
    assert_eq!(server.get("/quick").status(), 200);
    let (refused, waiting): (Vec<_>, Vec<_>) = others.into_iter().partition(has_answer);
    assert_eq!((refused.len(), waiting.len()), (3, 8));
    for mut client in refused {
        client.stream.set_nonblocking(false).unwrap();
        let answer = client.answer();
        answer.is_problem(503);
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    server.echo.release.request();
    assert_eq!(first.answer().status(), 200);
    for mut client in waiting {
        client.stream.set_nonblocking(false).unwrap();
        assert_eq!(client.answer().status(), 200);
    }
}

#[test]
fn a_stop_ends_what_is_under_way_and_takes_nothing_new() {
    let mut server = start(Limits::default(), AccessOptions::default());
    let mut idle = server.connect();
    idle.send(get("/").as_bytes());
    assert_eq!(idle.answer().status(), 200);
    let mut working = server.connect();
    working.send(get("/hang").as_bytes());
    let mut sending = server.connect();
    let head =
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    sending.send(head.as_bytes());
    // The server has begun to read it: else it would be idle at the stop.
    assert_eq!(sending.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    sending.send(b"he");
    while server.echo.seen.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    server.stop.request();
    assert!(idle.ended().is_empty());
    let refused = std::net::TcpStream::connect(server.addr).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    sending.send(b"llo");
    let sent = sending.answer();
    assert_eq!((sent.status(), sent.header("connection")), (200, Some("close")));
    server.echo.release.request();
    let worked = working.answer();
    assert_eq!((worked.status(), worked.header("connection")), (200, Some("close")));
    drop((working, sending));
    assert!(server.threads.take().unwrap().join(CAP).is_empty());
}
