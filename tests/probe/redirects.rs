//! Redirects: followed, refused, and what goes with them.

use webmon::check::Check;
use webmon::check::FailureKind::{Connect, Redirect, Timeout};

use super::support::{Do, Expect, MAX_REDIRECTS, Server, answer, build, check, down, spec, up};

fn redirect(status: u16, location: &str) -> Vec<Do> {
    vec![answer(&format!("HTTP/1.1 {status} Moved\r\nLocation: {location}"), "moved")]
}

/// A server that redirects `/` with `status` to `location`, and answers anything else with 200.
fn redirecting(status: u16, location: &str) -> Server {
    let location = location.to_owned();
    Server::answering(move |request| match request.split(' ').nth(1) {
        Some("/") => redirect(status, &location),
        _ => vec![answer("HTTP/1.1 200 OK", "arrived")],
    })
}

fn follow(location: &str, expect: &Expect) -> (Check<'static>, Vec<String>) {
    let server = redirecting(302, location);
    let check = check(build(&spec(&server.url())), expect);
    (check, server.requests())
}

#[test]
fn locations_are_joined() {
    for (location, target) in [
        ("/a", "/a"),
        ("a/../b?c#d", "/b?c"),
        ("?q", "/?q"),
        ("/ä", "/%C3%A4"),
        ("/a b", "/a%20b"),
        ("/{x}", "/%7Bx%7D"),
    ] {
        let (check, requests) = follow(location, &up());
        assert!(requests[1].starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{requests:?}");
        assert_eq!((check.http_status, check.redirects), (Some(200), Some(1)));
        assert_eq!(check.body_bytes, Some(7));
    }
}

#[test]
fn loops_end() {
    let server = Server::script(&redirect(307, "/"));
    let detail = format!("more than {MAX_REDIRECTS} redirects");
    let check = check(build(&spec(&server.url())), &down(Redirect, &detail));
    assert_eq!(server.requests().len(), MAX_REDIRECTS as usize + 1);
    assert_eq!(check.redirects, Some(5));
}

#[test]
fn methods_and_bodies() {
    for (status, method, then) in [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (301, "PUT", "PUT"),
        (303, "PUT", "GET"),
        (302, "HEAD", "HEAD"),
        (303, "HEAD", "HEAD"),
        (303, "DELETE", "GET"),
    ] {
        let server = redirecting(status, "/a");
        let mut spec = spec(&server.url());
        spec.method = Some(method.to_owned());
        spec.headers = vec![("Content-Type".to_owned(), "text/x".to_owned())];
        spec.body = (method != "HEAD").then(|| "payload".to_owned());
        check(build(&spec), &up());
        let second = &server.requests()[1];
        assert!(second.starts_with(&format!("{then} /a ")), "{status} {method}: {second}");
        let kept = then == method && method != "HEAD";
        assert_eq!(second.ends_with("\r\n\r\npayload"), kept, "{status} {method}: {second}");
        assert_eq!(second.contains("content-length: 7"), kept, "{status} {method}: {second}");
        assert_eq!(second.contains("content-type"), kept || method == "HEAD", "{second}");
    }
}

/// A site with every kind of secret.
fn secretive(server: &Server, host: &str) -> webmon::site::SiteSpec {
    let mut spec = spec(&format!("http://user:secret@{host}:{}/", server.address.port()));
    spec.headers = [
        ("Cookie", "own=secret"),
        ("X-Api-Key", "secret"),
        ("Accept-Language", "de"),
        ("Host", "secret.test"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    spec
}

#[test]
fn credentials_stay_with_their_origin() {
    let same = redirecting(302, "/a");
    check(build(&secretive(&same, "site.test")), &up());
    let second = &same.requests()[1];
    for kept in ["authorization: Basic", "own=secret", "x-api-key: secret", "host: secret.test"] {
        assert!(second.contains(kept), "{kept} is lost: {second}");
    }

    // Another port is another origin; and once left, the credentials don't come back.
    let third = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let first_port = std::sync::Arc::new(std::sync::OnceLock::<u16>::new());
    let port = first_port.clone();
    let other = Server::answering(move |_| {
        redirect(302, &format!("http://site.test:{}/back", port.get().unwrap()))
    });
    let first = redirecting(302, &format!("http://other.test:{}/x", other.address.port()));
    first_port.set(first.address.port()).unwrap();
    check(build(&secretive(&first, "site.test")), &up());
    assert!(first.requests()[0].contains("secret"));
    for request in [&other.requests()[0], &first.requests()[1]] {
        assert!(!request.contains("secret") && !request.contains("authorization"), "{request}");
        assert!(request.contains("accept-language: de"), "{request}");
        assert!(request.contains("user-agent: webmon-test"), "{request}");
    }
    assert!(other.requests()[0].contains(&format!("host: other.test:{}", other.address.port())));
    assert!(third.requests().is_empty());
}

#[test]
fn cookies_last_for_one_check() {
    let server = Server::answering(|request| {
        if request.contains("cookie: seen=1; two=2\r\n") {
            return vec![answer("HTTP/1.1 200 OK", "")];
        }
        let cookies = "Set-Cookie: seen=1; Path=/\r\nSet-Cookie: two=2; HttpOnly";
        vec![answer(&format!("HTTP/1.1 302 Found\r\n{cookies}\r\nLocation: /"), "")]
    });
    for _ in 0..2 {
        let check = check(build(&spec(&server.url())), &up());
        assert_eq!(check.redirects, Some(1));
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(!requests[2].contains("cookie"), "the second check begins without: {}", requests[2]);
}

#[test]
fn phases_are_summed_and_one_deadline_holds_for_all_hops() {
    let slow = |_: &str| {
        let _ = webmon::runtime::Stop::new().wait(std::time::Duration::from_millis(100));
        redirect(302, "/")
    };
    let server = Server::answering(slow);
    let late = down(Timeout, "in processing, after 0.300 s");
    let check = check(super::support::hurried(&server.url()), &late);
    assert!(check.phases.processing.unwrap() > 0.25, "{check:#?}");
    assert!((1..=3).contains(&check.redirects.unwrap()));
}

#[test]
fn the_last_request_has_phases_of_its_own() {
    let server = redirecting(302, "/a");
    let all = check(build(&spec(&server.url())), &up());
    let last = all.last_hop.expect("there were two requests");
    for (last, all) in
        [(last.connect, all.phases.connect), (last.processing, all.phases.processing)]
    {
        assert!(last.unwrap() < all.unwrap(), "{last:?} of {all:?}");
    }
    let plain = check(build(&spec(&format!("{}a", server.url()))), &up());
    assert_eq!(plain.last_hop, None);
}

#[test]
fn a_last_request_that_failed_has_the_phases_it_reached() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (failed, _) = follow(&format!("http://{nobody}/"), &down(Connect, "refused"));
    let last = failed.last_hop.expect("there were two requests");
    assert!(last.connect.is_some() && last.processing.is_none(), "{last:?}");
    assert!(failed.phases.processing.is_some());
    let (refused, _) = follow("ftp://127.0.0.1/", &down(Redirect, "scheme"));
    assert_eq!(refused.last_hop, None);
}
