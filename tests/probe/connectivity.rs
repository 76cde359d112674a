//! Whose network is it that is away?

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use webmon::check::FailureKind::{Connect, Dns, Status, Timeout, Tls};
use webmon::probe::{ProbeOptions, Prober};
use webmon::runtime::{Stop, Threads, now};
use webmon::site::SettingValue;
use webmon::telemetry::metrics;

use super::support::{
    Do, Server, answer, build, check_with, down, hurried, is_alone, no_tls, options, prober_with,
    run_alone, spec, spec_with, up, wait_until,
};

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Listens on `address` and counts connections.
fn counting(address: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    let mut threads = Threads::new(Stop::new());
    let accept = move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    };
    threads.spawn("target", accept).unwrap();
    (address, count)
}

/// Waits until so many connections were counted: that is later than they are there.
fn wait_for(count: &AtomicUsize, most: usize) {
    wait_until(|| count.load(Ordering::SeqCst) >= most);
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn asking(targets: &[(&str, u16)]) -> Prober {
    let connectivity = targets.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect();
    // The guard must not keep us from the operator's own addresses.
    prober_with(ProbeOptions { connectivity, ..options() })
}

/// A failed check of `url`; whether it was marked.
fn is_marked(prober: &Prober, url: &str) -> bool {
    let check = check_with(prober, build(&spec(url)), &down(Connect, "refused"));
    check.unreachable_self
}

#[test]
fn failures_are_the_sites_while_a_target_answers() {
    let (target, count) = counting(any_port());
    let (down, port) = (nobody(), target.port());
    for targets in [
        &[("127.0.0.1", port)][..],
        &[("127.0.0.1", down.port()), ("127.0.0.1", port)],
        &[("missing.test", port), ("site.test", port)],
        &[("hang.test", port), ("127.0.0.1", port)],
        &[("second.test", port)],
    ] {
        let before = count.load(Ordering::SeqCst);
        assert!(!is_marked(&asking(targets), &format!("http://{down}/")), "{targets:?}");
        wait_for(&count, before + 1);
    }
}

#[test]
fn failures_are_our_own_while_no_target_answers() {
    let down = nobody();
    let counter = &metrics().checks_unreachable_self;
    for targets in [&[("127.0.0.1", down.port())][..], &[("missing.test", 1), ("empty.test", 1)]] {
        let before = counter.get();
        let prober = asking(targets);
        assert!(is_marked(&prober, &format!("http://{down}/")), "{targets:?}");
        assert!(counter.get() > before);
        // What nobody asked for is not marked.
        let page = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
        assert!(!check_with(&prober, build(&spec(&page.url())), &up()).unreachable_self);
    }
    assert!(!is_marked(&asking(&[]), &format!("http://{down}/")));
}

#[test]
fn only_failures_of_the_network_are_asked_about() {
    let prober = asking(&[("127.0.0.1", nobody().port())]);
    let bad = Server::script(&[answer("HTTP/1.1 500 Oh", "")]);
    let page = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let hung = Server::script(&[Do::Hang]);
    let slow = spec_with(&page.url(), [("max_response_time", SettingValue::Millis(1))]);
    let held = Server::answering(|_| {
        let _ = Stop::new().wait(Duration::from_millis(10));
        vec![answer("HTTP/1.1 200 OK", "")]
    });
    let slow = webmon::site::SiteSpec { url: held.url(), ..slow };
    for (site, expect, is_marked) in [
        (build(&spec("http://missing.test/")), down(Dns, ""), true),
        (build(&spec(&no_tls())), down(Tls, ""), true),
        (hurried(&hung.url()), down(Timeout, "in processing"), true),
        (build(&spec(&bad.url())), down(Status, ""), false),
        (build(&slow), down(Timeout, "took"), false),
    ] {
        let check = check_with(&prober, site, &expect);
        assert_eq!(check.unreachable_self, is_marked, "{check:?}");
    }
}

#[test]
fn a_target_that_hangs_holds_a_result_two_seconds_and_no_measure() {
    let site = nobody();
    let port = counting(any_port()).0.port();
    let _hole = super::support::black_hole(port);
    let start = now().mono;
    let check = check_with(
        &asking(&[("127.0.0.2", port)]),
        build(&spec(&format!("http://{site}/"))),
        &down(Connect, "refused"),
    );
    let took = now().mono - start;
    assert!(check.unreachable_self && check.response_time.unwrap() < 1.0, "{check:?}");
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[test]
fn the_network_comes_back() {
    const NAME: &str = "connectivity::the_network_comes_back";
    // The gauge is one for the process.
    if !is_alone() {
        run_alone(NAME, "WEBMON_TEST", "1");
        return;
    }
    let (site, target) = (nobody(), nobody());
    let url = format!("http://{site}/");
    let prober = asking(&[("127.0.0.1", target.port())]);
    assert!(metrics().own_network_reachable.get());
    assert!(is_marked(&prober, &url));
    assert!(!metrics().own_network_reachable.get());
    let (_, count) = counting(target);
    // The verdict holds for a while.
    assert!(is_marked(&prober, &url));
    assert_eq!(count.load(Ordering::SeqCst), 0);
    wait_until(|| !is_marked(&prober, &url));
    assert!(metrics().own_network_reachable.get());
    wait_for(&count, 1);
}

#[test]
fn many_failures_at_once_are_few_tests() {
    const CHECKS: usize = 50;
    let (target, count) = counting(any_port());
    let prober = asking(&[("127.0.0.1", target.port())]);
    let url = format!("http://{}/", nobody());
    let start = now().mono;
    std::thread::scope(|scope| {
        for _ in 0..CHECKS {
            scope.spawn(|| assert!(!is_marked(&prober, &url)));
        }
    });
    // One at once, and one each 0.2 s for those that failed since.
    let most = 2 + (now().mono - start).as_millis() / 200;
    wait_for(&count, 1);
    let tests = count.load(Ordering::SeqCst);
    assert!((tests as u128) <= most, "{tests} of at most {most}");
}
