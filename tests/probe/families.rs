//! Which addresses of a name are dialled, and in which order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;

use webmon::check::FailureKind::{Connect, Dns};
use webmon::probe::{Lookup, ProbeParts, Prober};
use webmon::runtime::{Stop, Threads};

use super::settings::site;
use super::support::{Server, act, answer, check_with, down, options, read_request, up};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn prober() -> Prober {
    let lookup: Lookup = Arc::new(|host| {
        Ok(match host {
            "four.test" => vec![V4],
            "six.test" => vec![V6],
            // Here prefers the other family than is asked for in each case.
            "both64.test" => vec![V6, V4],
            "both46.test" => vec![V4, V6],
            // As a name behind a large balancer: the wanted one is the last.
            "many.test" => std::iter::repeat_n(V4, 30).chain([V6]).collect(),
            _ => Vec::new(),
        })
    });
    Prober::with_parts(options(), ProbeParts { lookup: Some(lookup), ..ProbeParts::default() })
        .unwrap()
}

#[test]
fn only_one_family() {
    let prober = prober();
    let four = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let port = four.address.port();
    let none = |version, host: &str, detail: &str| {
        let site = site(&format!("http://{host}:{port}/"), &[("ip_version", version)]);
        check_with(&prober, site, &down(Dns, detail).phases("resolve"));
    };
    none("ipv6", "four.test", "the name has no IPv6 address");
    none("ipv4", "six.test", "the name has no IPv4 address");
    none("ipv6", "127.0.0.1", "127.0.0.1 is no IPv6 address");
    none("ipv4", "[::1]", "::1 is no IPv4 address");
    none("ipv6", "empty.test", "the name has no address");
    for host in ["four.test", "both64.test", "both46.test", "127.0.0.1"] {
        let site = site(&format!("http://{host}:{port}/"), &[("ip_version", "ipv4")]);
        let check = check_with(&prober, site, &up());
        assert_eq!(check.remote_address.unwrap(), format!("127.0.0.1:{port}"), "{host}");
    }
    // Nobody listens there on IPv6, so whoever dials it says so.
    for host in ["six.test", "both64.test", "both46.test", "many.test", "[::1]"] {
        let site = site(&format!("http://{host}:{port}/"), &[("ip_version", "ipv6")]);
        let expect = down(Connect, &format!("[::1]:{port}: "));
        let check = check_with(&prober, site, &expect);
        assert!(!check.failure.unwrap().detail.contains("127.0.0.1"));
    }
}

/// A server on the same port of both families; the port.
fn both() -> u16 {
    let (four, six) = loop {
        let four = TcpListener::bind((V4, 0)).unwrap();
        // Somebody else may have it there.
        if let Ok(six) = TcpListener::bind((V6, four.local_addr().unwrap().port())) {
            break (four, six);
        }
    };
    let port = six.local_addr().unwrap().port();
    let mut threads = Threads::new(Stop::new());
    for listener in [four, six] {
        let serve = move || {
            for mut stream in listener.incoming().flatten() {
                read_request(&mut stream);
                act(&answer("HTTP/1.1 200 OK", ""), &mut stream);
            }
        };
        threads.spawn("both", serve).unwrap();
    }
    port
}

#[test]
fn the_preferred_family_goes_first_and_the_other_is_still_dialled() {
    let prober = prober();
    let dialled = |host: &str, port: u16, version| {
        let site = site(&format!("http://{host}:{port}/"), &[("ip_version", version)]);
        check_with(&prober, site, &up()).remote_address.unwrap().into_owned()
    };
    let port = both();
    for host in ["both64.test", "both46.test"] {
        assert_eq!(dialled(host, port, "prefer_ipv4"), format!("127.0.0.1:{port}"), "{host}");
        assert_eq!(dialled(host, port, "prefer_ipv6"), format!("[::1]:{port}"), "{host}");
    }
    assert_eq!(dialled("both64.test", port, "any"), format!("[::1]:{port}"));
    assert_eq!(dialled("both46.test", port, "any"), format!("127.0.0.1:{port}"));
    assert_eq!(dialled("six.test", port, "prefer_ipv4"), format!("[::1]:{port}"));
    // Only one of them listens there.
    let four = Server::script(&[answer("HTTP/1.1 200 OK", "")]).address;
    assert_eq!(dialled("both64.test", four.port(), "prefer_ipv6"), four.to_string());
}
