//! Tries before a verdict.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use webmon::check::FailureKind::{self, Blocked, Connect, Redirect, Regex, Status, Timeout};
use webmon::check::{Check, Outcome};
use webmon::probe::{Gate, ProbeOptions, ProbeParts, Prober, Target};
use webmon::runtime::{Stop, now};
use webmon::site::{SettingValue, SiteSpec};

use super::support::{
    Do, Server, answer, build, no_tls, options, prober, prober_with, send, spec_with, wait_until,
};

/// A server whose first `bad` answers are a 500.
fn failing(bad: usize) -> Server {
    let count = AtomicUsize::new(0);
    Server::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) < bad {
        true => vec![answer("HTTP/1.1 500 Oh", "")],
        false => vec![answer("HTTP/1.1 200 OK", "")],
    })
}

fn retrying(url: &str, retries: u32, pause_ms: u32) -> SiteSpec {
    let settings = [
        ("retries", SettingValue::Whole(retries)),
        ("retry_pause", SettingValue::Millis(pause_ms)),
    ];
    spec_with(url, settings)
}

/// Checks a site, `late` after it was due.
fn check_late(prober: &Prober, spec: &SiteSpec, late: Duration) -> Check<'static> {
    let due = Timestamp::from_millisecond(now().wall.as_millisecond()).unwrap();
    let check = prober.check(&Target::new(build(spec), "test"), due - late);
    assert!(check.started_at.unwrap() >= due);
    check
}

fn verdict(check: &Check<'_>) -> (Option<FailureKind>, Option<u8>) {
    (check.failure.as_ref().map(|failure| failure.kind), check.tries)
}

fn check(prober: &Prober, spec: &SiteSpec) -> (Option<FailureKind>, Option<u8>) {
    verdict(&check_late(prober, spec, Duration::ZERO))
}

#[test]
fn one_good_try_is_enough() {
    for (bad, retries, expect) in [
        (0, 2, (None, Some(1))),
        (2, 2, (None, Some(3))),
        (2, 1, (Some(Status), Some(2))),
        (1, 0, (Some(Status), Some(1))),
    ] {
        let server = failing(bad);
        assert_eq!(check(prober(), &retrying(&server.url(), retries, 0)), expect);
        assert_eq!(server.requests().len(), usize::from(expect.1.unwrap()));
    }
}

#[test]
fn what_is_told_is_the_last_try() {
    let count = AtomicUsize::new(0);
    let server = Server::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let _ = Stop::new().wait(Duration::from_millis(300));
            vec![answer("HTTP/1.1 500 Oh", "longer")]
        }
        _ => vec![answer("HTTP/1.1 200 OK", "body")],
    });
    let before = now();
    let check = check_late(prober(), &retrying(&server.url(), 1, 100), Duration::ZERO);
    assert_eq!((verdict(&check), check.outcome), ((None, Some(2)), Outcome::Up));
    assert_eq!((check.http_status, check.body_bytes), (Some(200), Some(4)));
    assert!(check.response_time.unwrap() < 0.3, "{check:?}");
    // But it began with the first.
    let took = now().mono - before.mono;
    assert!(took >= Duration::from_millis(400), "{took:?}");
    let began = check.started_at.unwrap().duration_since(before.wall);
    assert!(began.as_millis() < 300, "{began:?}");
}

#[test]
fn a_rules_refusal_is_final_and_everything_else_is_tried_again() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let page = Server::script(&[answer("HTTP/1.1 200 OK", "hello")]);
    let around = Server::script(&[send("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")]);
    let garbage = Server::script(&[send("what?\r\n\r\n")]);
    let guarded = prober_with(ProbeOptions { allow_private_addresses: false, ..options() });
    let mut wants = retrying(&page.url(), 2, 0);
    wants.regex = Some("bye".to_owned());
    let site = |url: &str| retrying(url, 2, 0);
    for (prober, spec, kind, tries) in [
        (&guarded, site(&page.url()), Blocked, 1),
        (prober(), site(&around.url()), Redirect, 1),
        (prober(), site(&format!("http://{nobody}/")), Connect, 3),
        (prober(), site("http://missing.test/"), FailureKind::Dns, 3),
        (prober(), site(&garbage.url()), FailureKind::Http, 3),
        (prober(), site(&no_tls()), FailureKind::Tls, 3),
        (prober(), wants, Regex, 3),
    ] {
        assert_eq!(check(prober, &spec), (Some(kind), Some(tries)), "{}", spec.url);
    }
}

#[test]
fn a_further_try_has_the_time_that_is_left_and_without_a_second_there_is_none() {
    for (timeout, pause_ms, late_s, tries) in [
        (20, 0, 0, 2),
        (20, 0, 45, 2),
        (59, 0, 0, 2),
        (20, 15_000, 46, 1),
        (20, 30_000, 30, 1),
        (59, 0, 59, 1),
    ] {
        // The first try takes no time.
        let server = failing(1);
        let mut spec = retrying(&server.url(), 1, pause_ms);
        (spec.interval, spec.timeout) = (Some(60), Some(timeout));
        let check = check_late(prober(), &spec, Duration::from_secs(late_s));
        assert_eq!(check.tries, Some(tries), "{timeout} {pause_ms} {late_s}");
    }
    // The second try hangs: it ends with the interval, not with its timeout.
    let count = AtomicUsize::new(0);
    let server = Server::answering(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => vec![answer("HTTP/1.1 500 Oh", "")],
        _ => vec![Do::Hang],
    });
    let mut spec = retrying(&server.url(), 1, 0);
    (spec.interval, spec.timeout) = (Some(60), Some(59));
    let check = check_late(prober(), &spec, Duration::from_secs(56));
    assert_eq!((check.tries, check.failure.map(|f| f.kind)), (Some(2), Some(Timeout)));
    assert!(check.response_time.unwrap() < 4.5, "{:?}", check.response_time);
}

#[test]
fn each_try_has_its_own_time_and_pauses_are_kept() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let seen = times.clone();
    let server = Server::answering(move |_| {
        seen.lock().unwrap().push(now().mono);
        vec![super::support::Do::Hang]
    });
    let site = webmon::site::Site {
        timeout: Duration::from_millis(150),
        ..build(&retrying(&server.url(), 2, 100))
    };
    let due = Timestamp::from_millisecond(now().wall.as_millisecond()).unwrap();
    let check = prober().check(&Target::new(site, "test"), due);
    assert_eq!(verdict(&check), (Some(FailureKind::Timeout), Some(3)));
    assert!((0.15..2.0).contains(&check.response_time.unwrap()), "{check:?}");
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 3);
    // A request is seen some time after its try began.
    let apart = Duration::from_millis(200);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= apart), "{times:?}");
}

#[test]
fn a_stop_ends_the_pause_and_not_the_tries() {
    let stop = Stop::new();
    let parts = ProbeParts { stop: stop.clone(), ..ProbeParts::default() };
    let prober = Prober::with_parts(options(), parts).unwrap();
    let server = failing(9);
    let spec = retrying(&server.url(), 1, 20_000);
    let start = now().mono;
    std::thread::scope(|scope| {
        let checking = scope.spawn(|| check(&prober, &spec));
        wait_until(|| !server.requests().is_empty());
        stop.request();
        assert_eq!(checking.join().unwrap(), (Some(Status), Some(2)));
    });
    assert!(now().mono - start < Duration::from_secs(10));
}

/// Admits so many connections that begin a check, and counts all.
#[derive(Debug)]
struct Doorkeeper {
    admits: usize,
    asked: Mutex<Vec<bool>>,
}

impl Gate for Doorkeeper {
    fn admit(&self, _: IpAddr, begins: bool) -> bool {
        let mut asked = self.asked.lock().unwrap();
        asked.push(begins);
        asked.len() <= self.admits
    }

    fn place(&self) -> Option<IpAddr> {
        None
    }
}

#[test]
fn what_is_refused_at_the_gate_is_not_begun_and_what_is_begun_is_not_refused() {
    for (admits, asked, tries) in [(0, vec![true], None), (1, vec![true, false], Some(2))] {
        let gate = Arc::new(Doorkeeper { admits, asked: Mutex::default() });
        let server = failing(1);
        let target = Target::new(build(&retrying(&server.url(), 2, 0)), "test");
        let due = Timestamp::from_millisecond(now().wall.as_millisecond()).unwrap();
        let check = prober().check_through(&target, due, gate.clone());
        assert_eq!(check.ok().map(|check| check.tries), tries.map(Some));
        assert_eq!(*gate.asked.lock().unwrap(), asked);
        assert_eq!(server.requests().len(), usize::from(tries.unwrap_or(0)));
    }
}
