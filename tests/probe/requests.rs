//! What is sent.

use webmon::site::SiteSpec;

use super::support::{Server, answer, build, check, spec, up};

/// The request that is sent for `change`d `spec`.
fn sent(url_tail: &str, change: impl FnOnce(&mut SiteSpec)) -> String {
    let server = Server::script(&[answer("HTTP/1.1 200 OK", "")]);
    let mut spec = spec(&format!("{}{url_tail}", server.url()));
    change(&mut spec);
    check(build(&spec), &up());
    server.requests().remove(0)
}

fn header<'r>(request: &'r str, name: &str) -> Vec<&'r str> {
    request.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

#[test]
fn a_plain_request() {
    let request = sent("a%20b/?c=d|e#fragment", |_| ());
    assert!(request.starts_with("GET /a%20b/?c=d|e HTTP/1.1\r\n"), "{request}");
    assert!(header(&request, "host")[0].starts_with("127.0.0.1:"));
    assert_eq!(header(&request, "user-agent"), ["webmon-test"]);
    assert_eq!(header(&request, "accept"), ["*/*"]);
    assert_eq!(header(&request, "accept-encoding"), ["gzip, br"]);
    assert_eq!(header(&request, "connection"), ["close"]);
    assert!(header(&request, "content-length").is_empty());
}

#[test]
fn own_headers_replace_ours() {
    let request = sent("", |spec| {
        spec.headers = [
            ("User-Agent", "own"),
            ("Host", "own.test"),
            ("X-Key", "1"),
            ("X-Key", "ä"),
            ("Expect", "100-continue"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    });
    assert_eq!(header(&request, "user-agent"), ["own"]);
    assert_eq!(header(&request, "host"), ["own.test"]);
    assert_eq!(header(&request, "x-key"), ["1", "ä"]);
    assert!(header(&request, "expect").is_empty());
}

#[test]
fn every_method_with_and_without_body() {
    for method in webmon::site::METHODS {
        let bare = sent("", |spec| spec.method = Some(method.to_owned()));
        assert!(bare.starts_with(&format!("{method} / HTTP/1.1\r\n")), "{bare}");
        let length: &[&str] = if ["POST", "PUT", "PATCH"].contains(&method) { &["0"] } else { &[] };
        assert_eq!(header(&bare, "content-length"), length, "{method}");
        assert!(header(&bare, "transfer-encoding").is_empty(), "{method}");
        let body = "x".repeat(50_000);
        let full = sent("", |spec| {
            spec.method = Some(method.to_owned());
            spec.body = Some(body.clone());
        });
        assert_eq!(header(&full, "content-length"), ["50000"], "{method}");
        assert!(full.ends_with(&body), "{method}");
    }
}

#[test]
fn credentials_in_the_url_become_a_header_and_nothing_else() {
    let server = Server::script(&[answer("HTTP/1.1 500 No", "")]);
    let url = server.url().replace("http://", "http://user:se%63ret@");
    let expect = super::support::down(webmon::check::FailureKind::Status, "500");
    let check = check(build(&spec(&url)), &expect);
    let request = server.requests().remove(0);
    // user:secret
    assert_eq!(header(&request, "authorization"), ["Basic dXNlcjpzZWNyZXQ="]);
    assert!(request.starts_with("GET / HTTP/1.1\r\n"));
    assert_eq!(check.url, server.url());
    let all = format!("{check:?}{request}");
    assert!(!all.contains("secret") && !all.contains("se%63ret"), "{all}");
}

#[test]
fn a_mock_server_agrees() {
    let mut server = mockito::Server::new();
    let mock = server
        .mock("POST", "/login?x=1")
        .match_header("content-type", "application/json")
        .match_header("user-agent", "webmon-test")
        .match_body(r#"{"a":1}"#)
        .with_status(201)
        .with_chunked_body(|body| body.write_all(b"welcome"))
        .create();
    let mut spec = spec(&format!("{}/login?x=1", server.url()));
    spec.method = Some("post".to_owned());
    spec.headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    spec.body = Some(r#"{"a":1}"#.to_owned());
    spec.regex = Some("^wel".to_owned());
    let check = check(build(&spec), &up());
    mock.assert();
    assert_eq!((check.http_status, check.body_bytes), (Some(201), Some(7)));
    assert_eq!(check.regex_match, Some(true));
}
