//! Patterns: found, not found, captured, nothing to look in.

use webmon::check::FailureKind::{Http, Regex, Status};
use webmon::check::{CAPTURE_MAX, CAPTURES_MAX, Check};

use super::support::{Do, Expect, MAX_BODY, Server, answer, build, check, down, send, spec, up};

/// Checks a server that answers with `script` for `pattern`.
fn look(script: &[Do], pattern: &str, method: &str, expect: &Expect) -> Check<'static> {
    let server = Server::script(script);
    let mut spec = spec(&server.url());
    spec.regex = Some(pattern.to_owned());
    spec.method = Some(method.to_owned());
    let check = check(build(&spec), expect);
    assert_eq!(check.regex.as_deref(), Some(pattern));
    check
}

fn page(body: impl AsRef<[u8]>) -> Vec<Do> {
    vec![answer("HTTP/1.1 200 OK", body)]
}

#[test]
fn matches_are_captured() {
    let many = "v1 ".repeat(100);
    let long = format!("<{}>", "ä".repeat(2000));
    for (body, pattern, captures) in [
        (
            "version 1.2, version 1.3".as_bytes(),
            r"version [\d.]+",
            vec!["version 1.2", "version 1.3"],
        ),
        (b"version 1.2, version 1.3", r"version (\d)\.(\d)", vec!["1", "1"]),
        (b"a\0b\xffc", r"(?s-u)a.b.c", vec!["a\u{fffd}b\u{fffd}c"]),
        (many.as_bytes(), "v1", vec!["v1"; CAPTURES_MAX]),
        (long.as_bytes(), "<(ä+)>", vec![&long[1..=CAPTURE_MAX]]),
        (b"", "^$", vec![""]),
    ] {
        let check = look(&page(body), pattern, "GET", &up());
        assert_eq!(check.regex_match, Some(true));
        assert_eq!(check.regex_captures.unwrap(), captures);
    }
}

#[test]
fn what_is_not_found_is_down() {
    let check = look(&page("hello"), "world", "GET", &down(Regex, "not found in 5 bytes"));
    assert_eq!((check.regex_match, check.regex_captures), (Some(false), None));
    // Beyond what is read, nothing is found.
    let mut body = vec![b'x'; MAX_BODY];
    body.extend_from_slice(b"world");
    let expect = down(Regex, "not found in the first 65536 bytes");
    let check = look(&page(&body), "world", "GET", &expect);
    assert_eq!((check.regex_match, check.body_truncated), (Some(false), Some(true)));
}

#[test]
fn a_bad_status_comes_first_and_the_pattern_is_still_looked_for() {
    let script = [answer("HTTP/1.1 500 Oh", "hello")];
    let check = look(&script, "hello", "GET", &down(Status, "500 Internal Server Error"));
    assert_eq!(check.regex_match, Some(true));
}

#[test]
fn without_a_body_there_is_no_match_and_no_mismatch() {
    let empty = [send("HTTP/1.1 204 No Content\r\n\r\n")];
    let cut = [send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")];
    for (script, method, expect) in [
        (empty.as_slice(), "GET", down(Regex, "the answer has no body to look in")),
        (&page("hello"), "HEAD", down(Regex, "the answer has no body to look in")),
        (&cut, "GET", down(Http, "cut off in the body")),
        (&[], "GET", down(Http, "no response")),
    ] {
        let check = look(script, "hello", method, &expect);
        assert_eq!((check.regex_match, check.regex_captures), (None, None));
    }
}
