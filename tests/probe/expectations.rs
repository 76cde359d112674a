//! What else a site may expect of an answer.

use std::time::Duration;

use webmon::check::FailureKind::{self, Regex, Status, Timeout};
use webmon::probe::ProbeOptions;
use webmon::runtime::Stop;
use webmon::site::{SettingValue, Site};

use super::support::{
    SHORT, Server, answer, build, check, check_with, down, options, prober_with, spec, spec_with,
    up,
};

fn map(name: &str, pattern: &str) -> SettingValue {
    SettingValue::Map(vec![(name.to_owned(), pattern.to_owned())])
}

fn text(text: &str) -> SettingValue {
    SettingValue::Text(text.to_owned())
}

#[test]
fn headers_are_expected_and_forbidden() {
    let long = "x".repeat(150);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nVia: a\r\nVia: b\r\nLong: {long}");
    let server = Server::script(&[answer(&head, "")]);
    let bad = |detail: &str| down(Regex, detail);
    let cut = format!("header long: '{}' does not match 'y'", "x".repeat(100));
    for (setting, name, pattern, expect) in [
        ("expected_headers", "Content-Type", "^text/", up()),
        ("expected_headers", "via", "b", up()),
        (
            "expected_headers",
            "Content-Type",
            "^application/json",
            bad("header content-type: 'text/html' does not match '^application/json'"),
        ),
        ("expected_headers", "Long", "y", bad(&cut)),
        ("expected_headers", "X", "", bad("header x is missing, expected to match ''")),
        ("forbidden_headers", "Content-Type", "json", up()),
        ("forbidden_headers", "X", "", up()),
        ("forbidden_headers", "Via", "b", bad("header via: 'b' matches the forbidden 'b'")),
    ] {
        check(build(&spec_with(&server.url(), [(setting, map(name, pattern))])), &expect);
    }
}

#[test]
fn a_forbidden_pattern_is_shown_and_cut() {
    let long = "é".repeat(80);
    let server = Server::script(&[answer("HTTP/1.1 200 OK", format!("an error: {long}"))]);
    let found = |detail: &str| down(Regex, &format!("the forbidden pattern was found: {detail}"));
    for (method, pattern, expect) in [
        ("GET", "fatal", up()),
        ("GET", "err.r", found("error")),
        ("GET", "é+", found(&"é".repeat(50))),
        ("HEAD", "error", up()),
    ] {
        let mut spec = spec_with(&server.url(), [("forbidden_regex", text(pattern))]);
        spec.method = Some(method.to_owned());
        let check = check(build(&spec), &expect);
        assert_eq!((check.regex_match, check.regex), (None, None));
    }
}

#[test]
fn an_answer_may_be_too_late_though_in_time() {
    let server = Server::answering(|_| {
        let _ = Stop::new().wait(Duration::from_millis(60));
        vec![answer("HTTP/1.1 200 OK", "hello")]
    });
    let at_most = |ms| spec_with(&server.url(), [("max_response_time", SettingValue::Millis(ms))]);
    let late = down(Timeout, " s, at most 0.05 s");
    let check_late =
        check(build(&at_most(50)), &late.phases("resolve connect processing transfer"));
    assert!(check_late.failure.unwrap().detail.starts_with("took 0."));
    assert_eq!(check_late.http_status, Some(200));
    check(build(&at_most(19_000)), &up());
}

/// A site of which everything is bad from `first` on, in the order of the verdicts.
fn bad_from(first: usize, url: &str) -> Site {
    let good = |index: usize| index < first;
    let pattern = |index, pattern| text(if good(index) { pattern } else { "hello" });
    let mut spec = spec_with(
        url,
        [
            ("expected_headers", map("A", if good(1) { "b" } else { "c" })),
            ("forbidden_regex", pattern(2, "bye")),
            ("max_response_time", SettingValue::Millis(if good(5) { 19_000 } else { 1 })),
        ],
    );
    spec.expected_status = (!good(0)).then(|| "204".to_owned());
    spec.regex = Some(if good(3) { "hello" } else { "bye" }.to_owned());
    if !good(4) {
        spec.settings.set("min_certificate_days", SettingValue::Whole(1)).unwrap();
    }
    build(&spec)
}

#[test]
fn the_first_bad_thing_is_the_verdict() {
    let server = Server::answering(|_| {
        let _ = Stop::new().wait(Duration::from_millis(5));
        vec![answer("HTTP/1.1 200 OK\r\nA: b", "hello")]
    });
    for (first, kind, detail) in [
        (0, Status, "200 OK, expected 204"),
        (1, Regex, "header a: 'b'"),
        (2, Regex, "the forbidden pattern"),
        (3, Regex, "not found"),
        (4, FailureKind::Tls, "no certificate"),
        (5, Timeout, "took"),
    ] {
        check(bad_from(first, &server.url()), &down(kind, detail));
    }
    check(bad_from(6, &server.url()), &up());
}

fn random(letters: &[&str], length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let mut text = Vec::new();
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(letters[(state % letters.len() as u64) as usize].as_bytes());
    }
    text
}

/// Without a bound each of these takes seconds to minutes for the whole page.
#[test]
fn no_pattern_outlasts_the_deadline() {
    const PAGE: usize = 1 << 20;
    let prober = prober_with(ProbeOptions { max_body: PAGE, ..options() });
    let (ab, words) = (random(&["a", "b"], PAGE), random(&["a", "é", "語", "b", "c", "d"], PAGE));
    let late = || down(Timeout, "in the search for a pattern, after 0.300 s");
    for (page, pattern) in [
        (&ab, "[ab]*a[ab]{5000}c"),
        (&ab, r"\b[ab]*a[ab]{5000}c"),
        (&ab, "(?:(){50}[ab])*a(?:[ab]){5000}c"),
        (&words, r"[aé語b-d]*é[aé語b-d]{1000}!"),
    ] {
        let server = Server::script(&[answer("HTTP/1.1 200 OK", page)]);
        for setting in ["", "forbidden_regex"] {
            let mut spec = spec(&server.url());
            match setting {
                "" => spec.regex = Some(pattern.to_owned()),
                setting => spec.settings.set(setting, text(pattern)).unwrap(),
            }
            let site = Site { timeout: SHORT, ..build(&spec) };
            let check = check_with(&prober, site, &late());
            // Much less where nothing else runs.
            let over = check.response_time.unwrap() - SHORT.as_secs_f64();
            println!("{pattern}: {over:.3} s over");
            assert!(over < 1.0, "{pattern}: {over} s over");
            assert_eq!(check.regex_match, None);
        }
    }
}

/// What is looked for in steps is found all the same.
#[test]
fn large_patterns_find_what_they_should() {
    const PAGE: usize = 1 << 20;
    let prober = prober_with(ProbeOptions { max_body: PAGE, ..options() });
    let mut page = random(&["a", "b"], PAGE - 2000);
    page.extend_from_slice(
        format!("<title>{}</title> <title>é</title>", "語".repeat(300)).as_bytes(),
    );
    let server = Server::script(&[answer("HTTP/1.1 200 OK", page)]);
    for (pattern, captures) in [
        (r"<title>(\w+)</title>", vec!["語".repeat(300), "é".to_owned()]),
        (r"(?s)b\b.*<title>(\w+)", vec!["é".to_owned()]),
        (r"<title>\w{1,2}</title>", vec!["<title>é</title>".to_owned()]),
    ] {
        let mut spec = spec(&server.url());
        spec.regex = Some(pattern.to_owned());
        let check = check_with(&prober, build(&spec), &up());
        assert_eq!(check.regex_captures.unwrap_or_default(), captures, "{pattern}");
    }
}
