//! Answers of servers: a check says something in time, never that we are to blame, and its result
//! can be sent.
//!
//! An input is what the server sends, before it closes. Redirects may lead anywhere, so every
//! address but the server's own is denied, and every name leads there.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use webmon::check::{Check, FailureKind, Outcome};
use webmon::probe::{ProbeOptions, ProbeParts, Prober, Target as Checked};
use webmon::runtime::{Stop, Threads, now};
use webmon::site::{SiteDefaults, SiteSpec};
use webmon::wire::{decode, encode};

use super::runner::Target;

const WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 404 x\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Content-Encoding: gzip\r\n",
    "Content-Encoding: deflate\r\n",
    "Content-Encoding: br\r\n",
    "Content-Encoding: identity\r\n",
    "Location: /\r\n",
    "Location: //other.test/a\r\n",
    "Location: https://other.test/\r\n",
    "Location: http://10.0.0.1/\r\n",
    "Location: http://[::1]/\r\n",
    "Location: ?\r\n",
    "Set-Cookie: a=b; Domain=test\r\n",
    "Connection: keep-alive\r\n",
    "a: b\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "ffffffffffffffff\r\n",
    ";x=y",
    "301",
    "303",
    "307",
    "101",
    "204",
    "304",
    "hello",
];
/// An address of this machine that nobody else uses.
const HOME: Ipv4Addr = Ipv4Addr::new(127, 77, 66, 55);
/// When every check is due.
const DUE: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// Time of a check that can't wait for anything, as the server always closes: far from reached.
const TIMEOUT_S: u32 = 20;

/// All networks without [`HOME`].
fn everything_else() -> Vec<IpNet> {
    let beside = (1..=32).map(|length| {
        let other = u32::from(HOME) ^ (1 << (32 - length));
        IpNet::from(Ipv4Net::new(other.into(), length).unwrap().trunc())
    });
    beside.chain(["::/0".parse().unwrap()]).collect()
}

fn prober() -> Prober {
    let options = ProbeOptions {
        region: "fuzz".to_owned(),
        user_agent: "webmon-fuzz".to_owned(),
        max_body: 64 << 10,
        max_redirects: 3,
        denied_addresses: everything_else(),
        resolver_threads: 1,
        ..ProbeOptions::default()
    };
    let lookup: webmon::probe::Lookup = Arc::new(|_| Ok(vec![IpAddr::V4(HOME)]));
    let parts = ProbeParts { lookup: Some(lookup), ..ProbeParts::default() };
    Prober::with_parts(options, parts).unwrap()
}

/// Sends the answer of the moment to whoever comes; its port.
fn serve(answer: Arc<Mutex<Arc<[u8]>>>) -> u16 {
    let listener = TcpListener::bind((HOME, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut threads = Threads::new(Stop::new());
    let serve = move || {
        for mut stream in listener.incoming().flatten() {
            // A request comes in one piece, and a ClientHello is no reason to wait either.
            let _ = stream.read(&mut [0; 16 << 10]);
            let bytes = answer.lock().unwrap().clone();
            let _ = stream.set_write_timeout(Some(Duration::from_secs(10)));
            let _ = stream.write_all(&bytes);
        }
    };
    threads.spawn("server", serve).unwrap();
    port
}

#[test]
fn response() {
    let answer: Arc<Mutex<Arc<[u8]>>> = Arc::new(Mutex::new(Arc::new([])));
    let port = serve(answer.clone());
    let prober = prober();
    let target = |method: &str| {
        let spec = SiteSpec {
            name: "fuzz".to_owned(),
            url: format!("http://{HOME}:{port}/"),
            regex: Some("h(.)llo".to_owned()),
            method: Some(method.to_owned()),
            ..SiteSpec::default()
        };
        let defaults = SiteDefaults { interval: 60, timeout: TIMEOUT_S };
        Checked::new(spec.build(7, defaults).unwrap(), "fuzz")
    };
    let targets = [target("GET"), target("HEAD")];
    Target { name: "response", words: WORDS, cases: 6000 }.run(|bytes| {
        *answer.lock().unwrap() = bytes.into();
        // Mostly GET; which one follows from the input, so that it can be run again.
        let target = &targets[usize::from(bytes.len() % 8 == 7)];
        let start = now().mono;
        let check = prober.check(target, DUE);
        let took = now().mono - start;
        assert!(took < Duration::from_secs(u64::from(TIMEOUT_S)) / 2, "{took:?}: {check:#?}");
        assert_is_honest(&check);
    });
}

fn assert_is_honest(check: &Check<'_>) {
    match (&check.outcome, &check.failure) {
        (Outcome::Up, None) => {}
        (Outcome::Down, Some(failure)) => {
            let excuse = matches!(failure.kind, FailureKind::Internal | FailureKind::Timeout);
            let is_line = !failure.detail.is_empty() && !failure.detail.contains(char::is_control);
            assert!(!excuse && is_line, "{check:#?}");
        }
        _ => panic!("{check:#?}"),
    }
    let mut message = Vec::new();
    encode(check, &mut message);
    assert_eq!(decode(&message).unwrap(), *check, "{check:#?}");
}

#[test]
fn only_the_server_can_be_reached() {
    let denied = everything_else();
    let is_denied = |address: IpAddr| denied.iter().any(|network| network.contains(&address));
    assert!(!is_denied(HOME.into()));
    for address in ["127.0.0.1", "127.77.66.54", "127.77.66.56", "8.8.8.8", "0.0.0.0", "::1"] {
        assert!(is_denied(address.parse().unwrap()), "{address}");
    }
}
