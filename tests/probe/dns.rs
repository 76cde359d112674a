//! Names, addresses, and which of them are dialled.

use std::net::TcpListener;

use webmon::check::FailureKind::{Blocked, Connect, Dns, Internal, Timeout};
use webmon::probe::{ProbeOptions, Prober};

use super::support::{
    SHORT, Server, answer, build, check, check_with, down, hurried, options, prober_with, spec, up,
};

fn server() -> Server {
    Server::script(&[answer("HTTP/1.1 200 OK", "")])
}

fn at(host: &str, port: u16) -> String {
    format!("http://{host}:{port}/")
}

#[test]
fn failed_look_ups_are_told_apart() {
    let only = |detail| down(Dns, detail).phases("resolve");
    check(hurried("http://missing.test/"), &only("Name or service not known"));
    check(hurried("http://empty.test/"), &only("the name has no address"));
    let late = down(Timeout, "in resolve, after 0.300 s").phases("resolve");
    check(hurried("http://hang.test/"), &late);
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
fn a_saturated_resolver_is_our_own_trouble() {
    let lookup: webmon::probe::Lookup = std::sync::Arc::new(|_| {
        webmon::runtime::Stop::new().wait_forever();
        Ok(Vec::new())
    });
    let parts = webmon::probe::ProbeParts { lookup: Some(lookup), ..Default::default() };
    let prober =
        Prober::with_parts(ProbeOptions { resolver_threads: 1, ..options() }, parts).unwrap();
    let quick = |number: usize| webmon::site::Site {
        timeout: std::time::Duration::from_millis(1),
        ..build(&spec(&format!("http://h{number}.test/")))
    };
    let saturated = (0..2000).find_map(|number| {
        let target = webmon::probe::Target::new(quick(number), "test");
        prober.check(&target, jiff::Timestamp::UNIX_EPOCH).failure.filter(|f| f.kind != Timeout)
    });
    let failure = saturated.expect("the queue has an end");
    assert_eq!((failure.kind, failure.detail.as_ref()), (Internal, "resolver saturated"));
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
fn blocked_addresses_are_not_dialled() {
    let prober = prober_with(ProbeOptions { allow_private_addresses: false, ..options() });
    let server = server();
    let port = server.address.port();
    for (host, detail) in [
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("site.test", "127.0.0.1 is a loopback address"),
        ("2130706433", "127.0.0.1 is a loopback address"),
        ("[::1]", "::1 is a loopback address"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1 is a loopback address"),
        ("10.0.0.1", "10.0.0.1 is a private address"),
        ("mixed.test", "169.254.169.254 is a cloud metadata address"),
    ] {
        let expect = down(Blocked, detail).phases("resolve");
        let check = check_with(&prober, build(&spec(&at(host, port))), &expect);
        assert_eq!(check.remote_address, None, "{host}");
    }
    assert!(server.requests().is_empty());
    // The operating system's resolver, the same verdict.
    let options = ProbeOptions { allow_private_addresses: false, ..options() };
    let site = build(&spec(&at("localhost", port)));
    check_with(&Prober::new(options).unwrap(), site, &down(Blocked, "a loopback address"));
    assert!(server.requests().is_empty());
}

#[test]
fn metadata_is_blocked_also_where_private_addresses_are_allowed() {
    for host in ["169.254.169.254", "metadata.test", "[fd00:ec2::254]", "100.100.100.200"] {
        check(hurried(&at(host, 80)), &down(Blocked, "a cloud metadata address").phases("resolve"));
    }
    // A name that has also a good address is checked at the good one.
    let server = server();
    let check = check(build(&spec(&at("mixed.test", server.address.port()))), &up());
    assert_eq!(check.remote_address.unwrap(), server.address.to_string());
}

#[test]
fn the_next_address_is_tried() {
    let server = server();
    let check = check(build(&spec(&at("second.test", server.address.port()))), &up());
    assert_eq!(check.remote_address.unwrap(), server.address.to_string());
}

#[test]
fn refused_connections_are_connect_failures() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for host in ["127.0.0.1", "second.test"] {
        let detail = format!("127.0.0.1:{port}: Connection refused");
        let expect = down(Connect, &detail).phases("resolve connect");
        let check = check(hurried(&at(host, port)), &expect);
        assert_eq!(check.remote_address, None);
    }
}

/// Listens on 127.0.0.2:`port` and fills the queue, so that further connections hang; keep what
/// it gives.
pub(crate) fn black_hole(port: u16) -> (std::os::fd::OwnedFd, Vec<std::net::TcpStream>) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

    let address = std::net::SocketAddr::from(([127, 0, 0, 2], port));
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        match std::net::TcpStream::connect_timeout(&address, SHORT) {
            Ok(stream) => waiting.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "the queue is not full");
                return (listener, waiting);
            }
        }
        assert!(waiting.len() < 64, "the queue doesn't fill");
    }
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
