//! Servers that behave, by mockito: what is asked of them, and what their answers become.

use webmon::check::FailureKind::{Regex, Status};
use webmon::site::SiteSpec;

use super::support::{build, check, down, spec, up};

#[test]
fn the_request_is_what_the_site_says() {
    let mut server = mockito::Server::new();
    let mock = server
        .mock("POST", "/form?a=b")
        .match_header("x-token", "t")
        .match_header("connection", "close")
        .match_body("hello")
        .with_body("thanks 42")
        .create();
    let site = SiteSpec {
        method: Some("post".to_owned()),
        headers: vec![("X-Token".to_owned(), "t".to_owned())],
        body: Some("hello".to_owned()),
        regex: Some(r"thanks (\d+)".to_owned()),
        ..spec(&format!("{}/form?a=b", server.url()))
    };
    let check = check(build(&site), &up());
    assert_eq!(check.regex_captures.unwrap(), ["42"]);
    mock.assert();
}

#[test]
fn statuses_are_judged_by_what_is_expected() {
    let mut server = mockito::Server::new();
    for status in [200, 204, 404, 500] {
        server.mock("GET", format!("/{status}").as_str()).with_status(status).create();
    }
    let at = |path: &str| spec(&format!("{}/{path}", server.url()));
    check(build(&at("200")), &up());
    check(build(&at("204")), &up());
    check(build(&at("404")), &down(Status, "404"));
    check(build(&at("500")), &down(Status, "500"));
    let only_404 = SiteSpec { expected_status: Some("404".to_owned()), ..at("404") };
    check(build(&only_404), &up());
    let not_200 = SiteSpec { expected_status: Some("404,500-599".to_owned()), ..at("200") };
    check(build(&not_200), &down(Status, "200"));
}

#[test]
fn a_pattern_that_is_not_there_is_a_regex_failure() {
    let mut server = mockito::Server::new();
    server.mock("GET", "/").with_body("hello").create();
    let site = SiteSpec { regex: Some("goodbye".to_owned()), ..spec(&server.url()) };
    let check = check(build(&site), &down(Regex, ""));
    assert_eq!((check.http_status, check.regex_match), (Some(200), Some(false)));
}
