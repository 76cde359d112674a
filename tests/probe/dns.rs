//! Names, addresses, and which of them are dialled.

use webmon::check::FailureKind::{Blocked, Dns, Timeout};
use webmon::probe::{ProbeOptions, Prober};

use super::support::{
    Server, answer, black_hole, build, check, check_with, down, hurried, options, prober_with,
    spec, up,
};

fn server() -> Server {
    Server::script(&[answer("HTTP/1.1 200 OK", "")])
}

fn at(host: &str, port: u16) -> String {
    format!("http://{host}:{port}/")
}

#[test]
fn the_systems_resolver_knows_localhost_and_no_invalid() {
    let prober = Prober::new(options()).unwrap();
    let server = server();
    check_with(&prober, build(&spec(&at("localhost", server.address.port()))), &up());
    // By RFC 6761 never a name; without any name server the text is another.
    check_with(&prober, build(&spec("http://nothing.invalid/")), &down(Dns, ""));
}

#[test]
fn what_the_systems_resolver_finds_is_judged_too() {
    let server = server();
    let options = ProbeOptions { allow_private_addresses: false, ..options() };
    let site = build(&spec(&at("localhost", server.address.port())));
    check_with(&Prober::new(options).unwrap(), site, &down(Blocked, "a loopback address"));
    assert!(server.requests().is_empty());
}

#[test]
fn hung_look_ups_hold_no_worker_and_not_the_others() {
    let prober = prober_with(ProbeOptions { resolver_threads: 2, ..options() });
    let server = server();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            // All for one name: one resolver thread hangs, the other goes on.
            scope.spawn(|| {
                check_with(&prober, hurried("http://hang.test/"), &down(Timeout, "in resolve"))
            });
        }
        let site = build(&spec(&at("site.test", server.address.port())));
        scope.spawn(|| check_with(&prober, site, &up()));
    });
}

#[test]
fn literal_addresses_need_no_look_up() {
    let lookup: webmon::probe::Lookup = std::sync::Arc::new(|_| panic!("nobody may ask"));
    let parts = webmon::probe::ProbeParts { lookup: Some(lookup), ..Default::default() };
    let prober = Prober::with_parts(options(), parts).unwrap();
    let server = server();
    check_with(&prober, build(&spec(&server.url())), &up());
    let mapped = at("[::ffff:127.0.0.1]", server.address.port());
    check_with(&prober, build(&spec(&mapped)), &up());
    let asked = build(&spec(&at("site.test", server.address.port())));
    check_with(&prober, asked, &down(Dns, "the look-up panicked"));
}

#[test]
fn a_black_hole_times_out_in_connect_and_leaves_half_the_time_to_the_next_address() {
    let server = server();
    let port = server.address.port();
    let _hole = black_hole(port);
    let late = down(Timeout, "in connect, after 0.300 s").phases("resolve connect");
    check(hurried(&at("127.0.0.2", port)), &late);
    let check = check(hurried(&at("blackhole.test", port)), &up());
    let connect = check.phases.connect.unwrap();
    assert!((0.1..0.3).contains(&connect), "{connect}");
}

#[test]
fn addresses_are_used_again_if_that_is_wanted() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    let server = server();
    for (time, expect) in [(Duration::ZERO, 3), (Duration::from_secs(300), 1)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let lookup: webmon::probe::Lookup = Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()])
        });
        let parts = webmon::probe::ProbeParts {
            lookup: Some(lookup),
            ..webmon::probe::ProbeParts::default()
        };
        let options = ProbeOptions { dns_cache: time, ..options() };
        let prober = Prober::with_parts(options, parts).unwrap();
        for _ in 0..3 {
            let site = build(&spec(&at("name.test", server.address.port())));
            check_with(&prober, site, &up().phases("resolve connect processing transfer"));
        }
        assert_eq!(calls.load(Ordering::SeqCst), expect, "{time:?}");
    }
}
