//! Heads of answers: good, odd and broken.

use webmon::check::FailureKind::{Http, Status, Timeout};

use super::support::{
    Do, Server, answer, build, check, check_hurried, check_script, down, send, spec, up,
};

const WHOLE: &str = "resolve connect processing transfer";
const UNANSWERED: &str = "resolve connect processing";

#[test]
fn a_plain_answer_fills_every_field() {
    let check = check_script(&[answer("HTTP/1.1 200 OK", "hello")], &up().phases(WHOLE));
    assert_eq!(check.http_status, Some(200));
    assert_eq!(check.http_version.as_deref(), Some("1.1"));
    assert_eq!(check.redirects, Some(0));
    assert_eq!((check.body_bytes, check.body_truncated), (Some(5), Some(false)));
    assert!(check.remote_address.unwrap().starts_with("127.0.0.1:"));
    assert_eq!((check.regex, check.regex_match, check.regex_captures), (None, None, None));
    assert_eq!(check.certificate_expires_at, None);
}

#[test]
fn statuses_are_judged_by_the_set() {
    for (status, set, expect) in [
        ("200 OK", None, up()),
        ("204 No Content", None, up()),
        ("299 Odd", None, up()),
        ("304 Not Modified", None, down(Status, "304 Not Modified, expected 200-299")),
        ("304 Not Modified", Some("304"), up()),
        ("404 Not Found", None, down(Status, "404 Not Found, expected 200-299")),
        ("404 Not Found", Some("200,404"), up()),
        (
            "500 Whatever",
            Some("200,404"),
            down(Status, "500 Internal Server Error, expected 200,404"),
        ),
        ("999 Odd", None, down(Status, "999, expected 200-299")),
        ("999 Odd", Some("999"), up()),
        ("101 Switching Protocols", None, down(Status, "101 Switching Protocols")),
        ("101 Switching Protocols", Some("101"), up()),
    ] {
        // No length, and a connection that stays: an answer without a body must not wait for one.
        let bodiless = ["204", "304", "101"].iter().any(|code| status.starts_with(code));
        let script = if bodiless {
            vec![send(format!("HTTP/1.1 {status}\r\n\r\n")), Do::Hang]
        } else {
            vec![answer(&format!("HTTP/1.1 {status}"), "x")]
        };
        let server = Server::script(&script);
        let mut spec = spec(&server.url());
        spec.expected_status = set.map(str::to_owned);
        let check = check(build(&spec), &expect.phases(WHOLE));
        assert_eq!(check.http_status.unwrap().to_string(), status[..3], "{status}");
        assert_eq!(check.body_bytes, Some(u32::from(!bodiless)), "{status}");
    }
}

#[test]
fn odd_heads_that_servers_get_away_with() {
    for (head, version) in [
        ("HTTP/1.0 200 OK\r\n\r\n", "1.0"),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "1.1"),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "1.1"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "1.1"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx and more", "1.1"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "1.1",
        ),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "1.1"),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "1.1"),
    ] {
        println!("{head:?}");
        let check = check_script(&[send(head)], &up().phases(WHOLE));
        assert_eq!(check.http_version.as_deref(), Some(version));
    }
}

#[test]
fn broken_heads_are_http_failures() {
    let headers = "a: b\r\n".repeat(200);
    let huge = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(4 << 20));
    for (bytes, detail) in [
        ("SSH-2.0-OpenSSH_9.2p1\r\n", "not HTTP/1.1: begins with 'SSH-2.0-OpenSSH_9.2p1\\r\\n'"),
        ("<html>hello</html>", "not HTTP/1.1: begins with '<html>hello</html>'"),
        ("HTTP/2 200 OK\r\n\r\n", "not HTTP/1.1: begins with 'HTTP/2 200 OK"),
        ("HTTP/1.1 abc OK\r\n\r\n", "bad head: invalid response status"),
        ("HTTP/1.1 099 OK\r\n\r\n", "bad head: invalid status code: 099"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "bad head: invalid header name"),
        ("HTTP/1.1 200 OK\r\na: \0\r\n\r\n", "bad head: invalid header value"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "content-length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", "content-length"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx", "content-length"),
        (&format!("HTTP/1.1 200 OK\r\n{headers}\r\n"), "too many headers"),
        (&huge, "the head is larger than 64 KiB"),
        ("HTTP/1.1 200 OK\r\nContent-", "cut off in the head: connection closed"),
    ] {
        println!("{}", &bytes[..bytes.len().min(60)]);
        let check = check_script(&[send(bytes)], &down(Http, detail).phases(WHOLE));
        assert_eq!(check.http_status, None);
    }
}

#[test]
fn no_response_is_not_a_cut_one() {
    let none = |detail| down(Http, detail).phases(UNANSWERED);
    check_script(&[], &none("no response: connection closed"));
    check_script(&[Do::Reset], &none("no response: Connection reset by peer"));
    let cut = [send("HTTP/1.1 200"), Do::Reset];
    check_script(&cut, &down(Http, "cut off in the head: Connection reset by peer"));
}

#[test]
fn endless_interim_answers_end() {
    let script = [Do::Flood(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec())];
    check_script(&script, &down(Http, "more than 128 KiB before the body"));
}

#[test]
fn silence_and_drips_end_at_the_deadline() {
    let unanswered = down(Timeout, "in processing, after 0.300 s").phases(UNANSWERED);
    check_hurried(&[Do::Hang], &unanswered);
    let dripping = down(Timeout, "in transfer, after 0.300 s").phases(WHOLE);
    check_hurried(&[send("HTTP/1.1 200 OK\r\n"), Do::Drip(b"a: b\r\n")], &dripping);
    check_hurried(&[Do::Drip(b"HTTP/1.1 103 Early Hints\r\n\r\n")], &dripping);
    let check = check_hurried(&[send("HTTP/1.1 200 OK\r\nA"), Do::Hang], &dripping);
    let transfer = check.phases.transfer.unwrap();
    assert!(transfer > 0.1, "the phase that failed lasted until the failure: {transfer}");
}
