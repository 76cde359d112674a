//! Connections that are kept from check to check.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use rustls::{ServerConnection, StreamOwned};
use webmon::check::{Check, Outcome};
use webmon::probe::{ProbeOptions, Prober, Target};
use webmon::site::Site;

use super::certificates::{Identity, authority, good, server_config};
use super::settings::{site, with};
use super::support::{
    MAX_BODY, Stream, accept, build, check_with, down, options, prober, prober_with, read_request,
    spec,
};

/// What a server does with each request of each connection, by their numbers from 0.
type Script = fn(connection: usize, request: usize) -> Act;

enum Act {
    /// Answers, and waits for the next request.
    Answer(&'static str),
    /// Answers, and ends the connection once the check is over.
    Last(&'static str),
    /// Ends the connection without an answer.
    End,
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A server that counts its connections and keeps all requests.
struct Keeping {
    port: u16,
    requests: Arc<Mutex<Vec<(usize, String)>>>,
    /// Connections whose end the server has seen or made.
    ended: Arc<AtomicUsize>,
}

impl Keeping {
    fn start(tls: bool, script: Script) -> Self {
        Self::showing(tls, script, vec![good()])
    }

    /// Each connection shows the next of `certificates`, the last one for ever.
    fn showing(tls: bool, script: Script, certificates: Vec<Identity>) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicUsize::new(0));
        let connections = AtomicUsize::new(0);
        let configs: Vec<_> = certificates.into_iter().map(|c| server_config(c, false)).collect();
        let (seen, over) = (requests.clone(), ended.clone());
        let address = accept("127.0.0.1", move |stream: TcpStream| {
            let number = connections.fetch_add(1, Ordering::SeqCst);
            if tls {
                let config = configs.get(number).or(configs.last()).unwrap();
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                serve(&mut stream, number, script, &seen);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            } else {
                let mut stream = stream;
                serve(&mut stream, number, script, &seen);
            }
            over.fetch_add(1, Ordering::SeqCst);
        });
        Self { port: address.port(), requests, ended }
    }

    fn url(&self) -> String {
        format!("http://site.test:{}/", self.port)
    }

    /// The connection that each request came over.
    fn connections(&self) -> Vec<usize> {
        self.requests.lock().unwrap().iter().map(|(connection, _)| *connection).collect()
    }

    fn wait_for_ends(&self, count: usize) {
        super::support::wait_until(|| self.ended.load(Ordering::SeqCst) >= count);
    }
}

fn serve(
    stream: &mut dyn Stream,
    connection: usize,
    script: Script,
    requests: &Mutex<Vec<(usize, String)>>,
) {
    for number in 0.. {
        let request = read_request(stream);
        if request.is_empty() {
            return;
        }
        requests.lock().unwrap().push((connection, request));
        match script(connection, number) {
            Act::Answer(text) => stream.write_all(text.as_bytes()).unwrap(),
            Act::Last(text) => {
                stream.write_all(text.as_bytes()).unwrap();
                let _ = stream.flush();
                return;
            }
            Act::End => return,
        }
        let _ = stream.flush();
    }
}

fn kept(url: &str) -> Target {
    Target::new(site(url, &[("connection", "kept")]), "test")
}

fn check(prober: &Prober, target: &Target) -> Check<'static> {
    prober.check(target, Timestamp::UNIX_EPOCH)
}

fn up(target: &Target) -> Check<'static> {
    let check = check(prober(), target);
    assert_eq!(check.outcome, Outcome::Up, "{check:#?}");
    check
}

/// The phases before the request, by which a fresh connection is known.
fn early(check: &Check<'_>) -> [bool; 3] {
    let phases = &check.phases;
    [phases.resolve, phases.connect, phases.tls].map(|phase| phase.is_some())
}

#[test]
fn one_connection_serves_many_checks_and_has_its_phases_once() {
    let server = Keeping::start(false, |_, _| Act::Answer(OK));
    let target = kept(&server.url());
    let first = up(&target);
    assert_eq!(early(&first), [true, true, false]);
    for _ in 0..5 {
        let check = up(&target);
        assert_eq!(early(&check), [false; 3], "{check:#?}");
        assert!(check.phases.processing.is_some() && check.phases.transfer.is_some());
        assert_eq!(
            (check.remote_address, check.body_bytes),
            (first.remote_address.clone(), Some(2))
        );
    }
    assert_eq!(server.connections(), [0; 6]);
    for (_, request) in server.requests.lock().unwrap().iter() {
        assert!(!request.contains("connection:"), "{request}");
    }
    // Another site has its own; one that keeps none leaves none.
    up(&kept(&server.url()));
    let fresh = Target::new(build(&spec(&server.url())), "test");
    up(&fresh);
    up(&fresh);
    assert_eq!(server.connections()[6..], [1, 2, 3]);
    // The last one to know the site takes its connection along.
    drop(target);
    server.wait_for_ends(4);
}

#[test]
fn over_tls_the_certificate_of_the_handshake_is_told_again() {
    let server = Keeping::start(true, |_, _| Act::Answer(OK));
    let target = kept(&server.url().replace("http:", "https:"));
    let first = up(&target);
    assert_eq!(early(&first), [true; 3]);
    for _ in 0..3 {
        let check = up(&target);
        assert_eq!(early(&check), [false; 3]);
        assert!(check.certificate_expires_at.is_some());
        assert_eq!(check.certificate_expires_at, first.certificate_expires_at);
    }
    assert_eq!(server.connections(), [0; 4]);
}

#[test]
fn a_connection_that_the_server_ended_is_dialled_anew() {
    for tls in [false, true] {
        let server = Keeping::start(tls, |_, _| Act::Last(OK));
        let url = if tls { server.url().replace("http:", "https:") } else { server.url() };
        let target = kept(&url);
        for number in 0..3 {
            assert_eq!(early(&up(&target)), [true, true, tls]);
            server.wait_for_ends(number + 1);
        }
        assert_eq!(server.connections(), [0, 1, 2]);
    }
}

#[test]
fn one_that_ends_before_the_answer_begins_costs_no_verdict() {
    for tls in [false, true] {
        // The second request comes to a connection that is about to be closed.
        let server = Keeping::start(tls, |connection, request| match (connection, request) {
            (0, 1) => Act::End,
            _ => Act::Answer(OK),
        });
        let url = if tls { server.url().replace("http:", "https:") } else { server.url() };
        let mut spec = with(spec(&url), &[("connection", "kept")]);
        spec.method = Some("PUT".to_owned());
        spec.body = Some("payload".to_owned());
        let target = Target::new(build(&spec), "test");
        up(&target);
        let second = up(&target);
        assert_eq!(early(&second), [true, true, tls]);
        // What was sent in vain is no request of the check's.
        assert_eq!((second.last_hop, second.tries), (None, Some(1)));
        assert_eq!(server.connections(), [0, 0, 1]);
        assert!(server.requests.lock().unwrap()[2].1.ends_with("payload"));
        assert_eq!(early(&up(&target)), [false; 3]);
    }
    // But a fresh one that does so is the site's failure, and so is one after some bytes.
    let server = Keeping::start(false, |_, _| Act::End);
    let check = check(prober(), &kept(&server.url()));
    assert_eq!(check.failure.unwrap().detail, "no response: connection closed");
    assert_eq!(server.connections(), [0]);
    let server = Keeping::start(false, |_, request| match request {
        0 => Act::Answer(OK),
        _ => Act::Last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"),
    });
    let target = kept(&server.url());
    up(&target);
    let check = self::check(prober(), &target);
    assert_eq!(check.failure.unwrap().detail, "cut off in the body: connection closed");
    assert_eq!(server.connections(), [0, 0]);
}

#[test]
fn a_renewed_certificate_counts_from_the_fresh_connection_on() {
    let old = authority().sign(&["site.test"], 2020, 2070);
    // The connection of the old certificate fails a request; the next one shows the new one.
    let script: Script = |connection, request| match (connection, request) {
        (0, 1) => Act::End,
        _ => Act::Answer(OK),
    };
    let server = Keeping::showing(true, script, vec![old, good()]);
    let target = kept(&server.url().replace("http:", "https:"));
    let year = |check: Check<'_>| {
        check.certificate_expires_at.unwrap().to_zoned(jiff::tz::TimeZone::UTC).year()
    };
    let years = [year(up(&target)), year(up(&target)), year(up(&target))];
    assert_eq!(years, [2070, 2080, 2080]);
    assert_eq!(server.connections(), [0, 0, 1, 1]);
}

#[test]
fn only_answers_that_ended_whole_leave_a_connection() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n{1}",
        MAX_BODY + 2,
        "x".repeat(MAX_BODY + 2)
    );
    let large: &'static str = Box::leak(large.into_boxed_str());
    static LARGE: std::sync::OnceLock<&str> = std::sync::OnceLock::new();
    LARGE.set(large).unwrap();
    let scripts: [(&str, Script, bool); 9] = [
        ("length", |_, _| Act::Answer(OK), true),
        (
            "chunks",
            |_, _| {
                Act::Answer(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                )
            },
            true,
        ),
        ("no body", |_, _| Act::Answer("HTTP/1.1 204 No Content\r\n\r\n"), true),
        ("a bad status", |_, _| Act::Answer("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), true),
        (
            "the server's wish",
            |_, _| {
                Act::Answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            },
            false,
        ),
        ("HTTP/1.0", |_, _| Act::Answer("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), false),
        ("no length", |_, _| Act::Last("HTTP/1.1 200 OK\r\n\r\nok"), false),
        (
            "surplus",
            |_, _| {
                Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n\r\n")
            },
            false,
        ),
        ("too large", |_, _| Act::Answer(LARGE.get().unwrap()), false),
    ];
    for tls in [false, true] {
        for (name, script, is_kept) in scripts {
            let server = Keeping::start(tls, script);
            let url = if tls { server.url().replace("http:", "https:") } else { server.url() };
            let target = kept(&url);
            for _ in 0..2 {
                check(prober(), &target);
            }
            let expect = if is_kept { [0, 0] } else { [0, 1] };
            assert_eq!(server.connections(), expect, "{name} {tls}");
        }
    }
}

#[test]
fn surplus_that_is_not_yet_decrypted_leaves_no_connection() {
    static FULL: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        // With it the input of 16 KiB is full, and the rest stays behind.
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 16342\r\n\r\n";
        format!("{head}{}HTTP/1.1 500 No\r\n\r\n", "x".repeat(16_342))
    });
    assert_eq!(FULL.find("HTTP/1.1 500"), Some(16 << 10));
    let server = Keeping::start(true, |_, _| Act::Answer(FULL.as_str()));
    let target = kept(&server.url().replace("http:", "https:"));
    up(&target);
    up(&target);
    assert_eq!(server.connections(), [0, 1]);
}

#[test]
fn what_comes_on_an_idle_connection_is_nobodys_answer() {
    let late = Keeping::start(false, |connection, request| match (connection, request) {
        // The body's end, and then what some servers send before they hang up.
        (0, 0) => Act::Last(OK),
        _ => Act::Answer(OK),
    });
    let target = kept(&late.url());
    up(&target);
    late.wait_for_ends(1);
    up(&target);
    assert_eq!(late.connections(), [0, 1]);
    // Words of farewell, sent when the first check is over.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (told, said) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(Some((wait, told)));
    let address = accept("127.0.0.1", move |mut stream| {
        read_request(&mut stream);
        stream.write_all(OK.as_bytes()).unwrap();
        if let Some((wait, told)) = wait.lock().unwrap().take() {
            wait.recv().unwrap();
            let _ = stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
            told.send(()).unwrap();
        }
        let _ = stream.read(&mut [0; 1024]);
    });
    let target = kept(&format!("http://{address}/"));
    up(&target);
    go.send(()).unwrap();
    said.recv().unwrap();
    let check = up(&target);
    assert_eq!((check.http_status, early(&check)), (Some(200), [true, true, false]));
}

#[test]
fn redirects_within_the_origin_use_it_and_those_out_of_it_leave_it() {
    let other = Keeping::start(false, |_, _| Act::Answer(OK));
    let empty = "HTTP/1.1 302 F\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n";
    assert!(empty.contains("/a"));
    let server = Keeping::start(false, |_, request| match request % 2 {
        0 => Act::Answer("HTTP/1.1 302 F\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"),
        _ => Act::Answer(OK),
    });
    let target = kept(&server.url());
    for _ in 0..2 {
        assert_eq!(up(&target).redirects, Some(1));
    }
    assert_eq!(server.connections(), [0; 4]);

    static AWAY: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    AWAY.set(format!(
        "HTTP/1.1 302 F\r\nLocation: http://other.test:{}/\r\nContent-Length: 0\r\n\r\n",
        other.port
    ))
    .unwrap();
    let server = Keeping::start(false, |_, _| Act::Answer(AWAY.get().unwrap()));
    let target = kept(&server.url());
    for _ in 0..3 {
        assert_eq!(up(&target).redirects, Some(1));
    }
    assert_eq!(server.connections(), [0; 3]);
    assert_eq!(other.connections(), [0, 1, 2]);
    assert!(other.requests.lock().unwrap()[0].1.contains("connection: close\r\n"));
}

#[test]
fn after_a_hundred_checks_the_next_dials_anew() {
    let server = Keeping::start(false, |_, _| Act::Answer(OK));
    let target = kept(&server.url());
    for _ in 0..101 {
        up(&target);
    }
    let connections = server.connections();
    assert_eq!((connections[99], connections[100]), (0, 1));
}

#[test]
fn the_guard_judges_the_address_again() {
    // The same target, by a prober that may dial it and by one that may not.
    let server = Keeping::start(false, |_, _| Act::Answer(OK));
    let target = kept(&server.url());
    up(&target);
    let strict = prober_with(ProbeOptions { allow_private_addresses: false, ..options() });
    let check = check(&strict, &target);
    assert_eq!(check.failure.unwrap().detail, "127.0.0.1 is a loopback address");
    assert_eq!(server.connections(), [0]);
}

#[test]
fn a_kept_connection_ends_with_the_checks_deadline() {
    let server = Keeping::start(false, |_, request| match request {
        0 => Act::Answer(OK),
        _ => Act::Answer("HTTP/1.1 200 OK\r\n"),
    });
    let site =
        Site { timeout: super::support::SHORT, ..site(&server.url(), &[("connection", "kept")]) };
    let target = Target::new(site.clone(), "test");
    up(&target);
    let check = check(prober(), &target);
    assert_eq!(early(&check), [false; 3]);
    assert_eq!(check.failure.unwrap().detail, "in transfer, after 0.300 s");
    assert_eq!(server.connections(), [0, 0]);
    // A server that never says a word to a fresh one.
    let hang = super::support::Server::script(&[super::support::Do::Hang]);
    let mut silent = site;
    silent.url = hang.url().into_boxed_str();
    let expect = down(webmon::check::FailureKind::Timeout, "in processing, after 0.300 s");
    check_with(prober(), silent, &expect);
}

#[test]
fn another_trust_needs_another_connection() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("ca"), text).unwrap();
    let secrets_dir = Some(dir.path().to_owned());
    let prober = prober_with(ProbeOptions { secrets_dir, ..options() });
    let server = Keeping::start(true, |_, _| Act::Answer(OK));
    let url = server.url().replace("http:", "https:");
    let own = [("connection", "kept"), ("tls_ca", "{secret:ca}")];
    let target = Target::new(site(&url, &own), "test");
    write(&super::certificates::authority().pem());
    for _ in 0..2 {
        assert_eq!(check(&prober, &target).outcome, Outcome::Up);
    }
    assert_eq!(server.connections(), [0, 0]);
    write(&super::certificates::Authority::new("another").pem());
    let check = check(&prober, &target);
    assert_eq!(check.failure.unwrap().detail, "certificate from an unknown issuer");
}
