//! Logs and the listener as an operator, a scraper and a bad client see them.

// clippy allows these in test functions only, not in what they call.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use webmon::runtime::{Stop, Threads, now};
use webmon::telemetry::listener::{self, CONNECTIONS_MAX, DEADLINE};
use webmon::telemetry::logs::{self, LogOptions};
use webmon::telemetry::{health, metrics};

const CAP: Duration = Duration::from_secs(20);

struct Server {
    addr: SocketAddr,
    stop: Stop,
    threads: Option<Threads>,
}

fn serve() -> Server {
    let stop = Stop::new();
    let mut threads = Threads::new(stop.clone());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let addr = listener::serve(any, &mut threads, stop.clone()).unwrap();
    Server { addr, stop, threads: Some(threads) }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(CAP)).unwrap();
        stream
    }

    /// Everything that comes back for `request`.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
        assert!(self.threads.take().is_none_or(|threads| threads.join(CAP).is_empty()));
    }
}

/// The answer's status, with its length checked.
fn status(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("cut: {answer:?}"));
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), body.len(), "{answer}");
    assert!(head.contains("\r\nConnection: close"), "{answer}");
    head.lines().next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()
}

#[test]
fn a_scraper_gets_all_metrics() {
    let server = serve();
    metrics().published.inc_by(3);
    let answer = server.get("/metrics?x=y");
    assert_eq!(status(&answer), "200 OK");
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(answer.contains(kind), "{answer}");
    assert!(answer.contains("\nwebmon_published_total 3\n"), "{answer}");
    assert!(answer.contains("\nwebmon_build_info{version=\""), "{answer}");
    assert!(answer.contains("\nprocess_open_fds "), "{answer}");
    assert!(answer.ends_with("\n# EOF\n") && answer.matches("# EOF").count() == 1);

    let head = server.ask(b"HEAD /livez HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 3\r\n"));
    assert!(head.ends_with("\r\n\r\n"), "a body: {head}");
}

#[test]
fn ready_means_that_every_part_is_well() {
    let server = serve();
    let check = |path: &str, expect: (&str, &str)| {
        let answer = server.get(path);
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!((status(&answer), body), expect, "{path}");
    };
    let unavailable = "503 Service Unavailable";
    check("/readyz", (unavailable, "starting\n"));
    check("/livez", ("200 OK", "ok\n"));
    health().well("database");
    check("/readyz", ("200 OK", "ok\n"));
    check("/readyz?verbose", ("200 OK", "database: ok\n"));
    health().unwell("kafka", "no broker\r\nX-Evil: 1");
    check("/readyz", (unavailable, "kafka: no broker  X-Evil: 1\n"));
    check("/readyz?a&verbose=1", (unavailable, "database: ok\nkafka: no broker  X-Evil: 1\n"));
    check("/livez", ("200 OK", "ok\n"));
}

#[test]
fn wrong_requests_get_their_status() {
    let server = serve();
    let check = |request: &[u8], expect: &str| {
        let answer = server.ask(request);
        assert_eq!(status(&answer), expect, "{}", String::from_utf8_lossy(request));
        answer
    };
    check(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found");
    check(b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found");
    let answer =
        check(b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", "405 Method Not Allowed");
    assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    check(b"GET /livez HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", "400 Bad Request");
    check(b"GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400 Bad Request");
    check(b"GET /livez HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "200 OK");
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request");
    check(b"GET /livez HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported");
    check(b"GET /livez HTTP/1.1\r\nbad header\r\n\r\n", "400 Bad Request");

    let too_large = "431 Request Header Fields Too Large";
    let long = "y".repeat(100_000);
    check(format!("GET /livez HTTP/1.1\r\nX: {long}\r\n\r\n").as_bytes(), too_large);
    check(format!("GET /{long} HTTP/1.1\r\n\r\n").as_bytes(), "414 URI Too Long");
    let many = "X: y\r\n".repeat(65);
    check(format!("GET /livez HTTP/1.1\r\n{many}\r\n").as_bytes(), too_large);
    let fits = "y".repeat(8000);
    check(format!("GET /livez HTTP/1.1\r\nX: {fits}\r\n\r\n").as_bytes(), "200 OK");
}

#[test]
fn one_connection_is_one_request_however_it_comes() {
    let server = serve();
    let two = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let answer = server.ask(two.as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1);
    let mut garbage = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    garbage.extend(vec![0xff; 50_000]);
    assert_eq!(status(&server.ask(&garbage)), "200 OK");

    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "200 OK");
}

#[test]
fn slow_clients_hold_up_nobody_and_are_cut_off() {
    let server = serve();
    let begin = now().mono;
    let mut slow = server.connect();
    let mut others: Vec<TcpStream> = (1..CONNECTIONS_MAX - 2).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|other| other.write_all(b"GET /li").unwrap());
    let asked = now().mono;
    assert_eq!(status(&server.get("/livez")), "200 OK");
    assert!(now().mono - asked < Duration::from_secs(2), "a slow client held up a quick one");

    // A byte now and then doesn't win time.
    slow.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    slow.write_all(b"GET /").unwrap();
    let cut_off = loop {
        let is_over = match slow.read(&mut [0; 10]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        if is_over || slow.write_all(b"x").is_err() {
            break now().mono - begin;
        }
        assert!(now().mono - begin < CAP, "never cut off");
    };
    assert!(cut_off >= DEADLINE, "after {cut_off:?}");
    assert!(cut_off < DEADLINE + Duration::from_secs(3), "after {cut_off:?}");
}

#[test]
fn one_too_many_ends_the_oldest() {
    let server = serve();
    let mut held: Vec<TcpStream> = (0..3 * CONNECTIONS_MAX).map(|_| server.connect()).collect();
    assert_eq!(status(&server.get("/livez")), "200 OK");
    assert!(matches!(held[0].read(&mut [0; 10]), Ok(0) | Err(_)), "the oldest goes on");
    let last = held.last_mut().unwrap();
    last.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "200 OK");
}

#[test]
fn a_stop_is_prompt_and_the_port_is_free_again() {
    let mut server = serve();
    let mut held = server.connect();
    held.write_all(b"GET /li").unwrap();
    assert_eq!(status(&server.get("/livez")), "200 OK");
    let begin = now().mono;
    server.stop.request();
    assert!(server.threads.take().unwrap().join(CAP).is_empty());
    assert!(now().mono - begin < Duration::from_secs(1));

    let stop = Stop::new();
    let mut threads = Threads::new(stop.clone());
    let addr = listener::serve(server.addr, &mut threads, stop.clone()).unwrap();
    let error = listener::serve(addr, &mut threads, stop.clone()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    stop.request();
    assert!(threads.join(CAP).is_empty());
}

/// The child of the tests below: logs as `WEBMON_TEST_LOGS` says.
#[test]
fn child_that_logs() {
    let Ok(format) = std::env::var("WEBMON_TEST_LOGS") else { return };
    let json = format == "json";
    logs::init(LogOptions { level: log::LevelFilter::Info, json });
    for number in 0..1000 {
        log::info!(number, name = "a b"; "first");
    }
    log::debug!("not wanted");
    logs::init(LogOptions { level: log::LevelFilter::Debug, json: !json });
    log::debug!(error:% = std::io::Error::other("x\ny"); "wanted");
}

fn logging_child(format: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child_that_logs", "--exact", "--nocapture"]);
    command.env("WEBMON_TEST_LOGS", format).stdout(Stdio::null());
    command
}

#[test]
fn log_lines_go_to_stderr_one_each() {
    for format in ["text", "json"] {
        let output = logging_child(format).output().unwrap();
        assert!(output.status.success());
        let lines: Vec<_> = BufReader::new(&*output.stderr).lines().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 1001, "{:?}", lines.last());
        let (first, last) = (&lines[0], &lines[1000]);
        if format == "json" {
            let first: serde_json::Value = serde_json::from_str(first).unwrap();
            assert_eq!((&first["event"], &first["number"]), (&"first".into(), &0.into()));
            let last: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!((&last["level"], &last["error"]), (&"DEBUG".into(), &"x\ny".into()));
            assert!(last["file"].as_str().unwrap().starts_with("tests/telemetry.rs:"), "{last}");
        } else {
            assert!(first.ends_with("] first number=0 name=\"a b\""), "{first}");
            assert!(first.contains("Z [INFO] (child_that_logs) [tests/telemetry.rs:"), "{first}");
            assert!(last.ends_with("] wanted error=\"x\\ny\""), "{last}");
        }
    }
}

#[test]
fn a_closed_stderr_ends_nobody() {
    for format in ["text", "json"] {
        let mut child = logging_child(format).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        assert!(child.wait().unwrap().success());
    }
}
