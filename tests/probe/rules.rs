//! Access, and which redirects are followed.

use std::sync::{Arc, OnceLock};

use webmon::check::FailureKind::{Redirect, Status};

use super::certificates::{good, serve, server_config};
use super::settings::{site, with};
use super::support::{
    Server, answer, build, check, check_with, down, options, prober_with, spec, up,
};

/// Redirects `/` to `location`, and answers everything else.
fn redirecting(location: &str) -> Server {
    let location = location.to_owned();
    Server::answering(move |request| match request.split(' ').nth(1) {
        Some("/") => vec![answer(&format!("HTTP/1.1 302 Moved\r\nLocation: {location}"), "moved")],
        _ => vec![answer("HTTP/1.1 200 OK", "arrived")],
    })
}

#[test]
fn credentials_become_a_header() {
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let sent = |settings: &[(&str, &str)]| {
        check(site(&server.url(), settings), &up());
        let request = server.requests().pop().unwrap();
        let line = request.lines().find(|line| line.starts_with("authorization: "));
        line.unwrap_or_default().to_owned()
    };
    // user:pass, and user: alone
    let both = [("username", "user"), ("password", "pass")];
    assert_eq!(sent(&both), "authorization: Basic dXNlcjpwYXNz");
    assert_eq!(sent(&both[..1]), "authorization: Basic dXNlcjo=");
    assert_eq!(sent(&[("bearer_token", "t0ken")]), "authorization: Bearer t0ken");
    assert_eq!(sent(&[]), "");
}

#[test]
fn a_token_stays_with_its_origin_even_on_the_way_back() {
    let first_port = Arc::new(OnceLock::<u16>::new());
    let port = first_port.clone();
    let other = Server::answering(move |_| {
        let back = format!("http://site.test:{}/back", port.get().unwrap());
        vec![answer(&format!("HTTP/1.1 302 Moved\r\nLocation: {back}"), "")]
    });
    let first = redirecting(&format!("http://other.test:{}/x", other.address.port()));
    first_port.set(first.address.port()).unwrap();
    let mut spec = spec(&format!("http://site.test:{}/", first.address.port()));
    spec.headers = vec![
        ("Cookie".to_owned(), "own=s3cret".to_owned()),
        ("X-Api-Key".to_owned(), "s3cret".to_owned()),
    ];
    check(build(&with(spec, &[("bearer_token", "s3cret")])), &up());
    assert_eq!(first.requests()[0].matches("s3cret").count(), 3);
    for request in [&other.requests()[0], &first.requests()[1]] {
        assert!(!request.contains("s3cret") && !request.contains("authorization"), "{request}");
    }
}

#[test]
fn none_are_followed() {
    let server = redirecting("/a");
    let none = [("follow_redirects", "none")];
    let seen = check(site(&server.url(), &none), &down(Status, "302 Found, expected 200-299"));
    assert_eq!((seen.http_status, seen.redirects, seen.body_bytes), (Some(302), Some(0), Some(5)));
    let mut wanted = with(spec(&server.url()), &none);
    wanted.expected_status = Some("302".to_owned());
    wanted.regex = Some("moved".to_owned());
    check(build(&wanted), &up());
}

#[test]
fn from_https_to_http_only_if_it_may() {
    let plain = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let location = |to: &str| vec![answer(&format!("HTTP/1.1 302 Moved\r\nLocation: {to}"), "")];
    let port = serve(server_config(good(), false), location(&plain.url()));
    let url = format!("https://site.test:{port}/");
    let seen = check(
        site(&url, &[("follow_redirects", "secure")]),
        &down(Redirect, "from https to http, which is not followed"),
    );
    assert_eq!((seen.http_status, seen.redirects), (Some(302), Some(0)));
    assert!(plain.requests().is_empty());
    check(site(&url, &[("follow_redirects", "all")]), &up());

    // From http to either, and from https to https, is as good as before.
    let secure = serve(server_config(good(), false), vec![answer("HTTP/1.1 200 OK", "")]);
    let secure = format!("https://site.test:{secure}/");
    let over = serve(server_config(good(), false), location(&secure));
    let over = format!("https://site.test:{over}/");
    let up_to = redirecting(&secure);
    let same = redirecting("/a");
    for url in [over, up_to.url(), same.url()] {
        let seen = check(site(&url, &[("follow_redirects", "secure")]), &up());
        assert_eq!(seen.redirects, Some(1), "{url}");
    }
}

#[test]
fn only_within_the_sites_own_host() {
    let rule = [("follow_redirects", "same_host")];
    let other = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let port = other.address.port();
    // Another port is the same host; another name for it is not, a subdomain neither.
    let server = redirecting(&format!("http://site.test:{port}/a"));
    let url = format!("http://SITE.test:{}/", server.address.port());
    check(site(&url, &rule), &up());
    for host in ["other.test", "www.site.test", "127.0.0.1"] {
        let server = redirecting(&format!("http://{host}:{port}/a"));
        let url = format!("http://site.test:{}/", server.address.port());
        let detail = format!("to another host, '{host}', which is not followed");
        let seen = check(site(&url, &rule), &down(Redirect, &detail));
        assert_eq!((seen.http_status, seen.redirects), (Some(302), Some(0)));
    }
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn a_sites_own_number_goes_before_the_configurations() {
    let server = Server::script(&[answer("HTTP/1.1 307 Moved\r\nLocation: /", "")]);
    let loops = |max: &str| {
        let detail = format!("more than {max} redirects");
        check(site(&server.url(), &[("max_redirects", max)]), &down(Redirect, &detail)).redirects
    };
    assert_eq!((loops("2"), loops("30")), (Some(2), Some(30)));
    let none = site(&server.url(), &[("max_redirects", "0")]);
    check(none, &down(Status, "307 Temporary Redirect"));
    let none = webmon::probe::ProbeOptions { max_redirects: 0, ..options() };
    let own = site(&server.url(), &[("max_redirects", "1")]);
    check_with(&prober_with(none), own, &down(Redirect, "more than 1 redirects"));
}
