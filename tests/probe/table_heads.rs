//! Rows: what comes before a body.

use webmon::check::FailureKind::{Http, Regex, Status, Timeout};

use super::support::{Do, answer, send};
use super::table::{Row, Start, UNANSWERED, WHOLE, early, http, row};

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CUT_HEAD: &str = "cut off in the head: connection closed";
const RESET: &str = "Connection reset by peer";

/// The whole connection is these bytes, after the request.
fn says(bytes: impl AsRef<[u8]>) -> Start {
    Box::new(http(vec![send(bytes)]))
}

/// The answer is broken before its status is known.
fn broken(name: &'static str, bytes: impl AsRef<[u8]>, detail: &str) -> Row {
    row(name, says(bytes)).down(Http, detail)
}

fn with_method(method: &'static str, row: Row) -> Row {
    row.site(move |site| site.method = Some(method.to_owned()))
}

fn expecting(status: &'static str, row: Row) -> Row {
    row.site(move |site| site.expected_status = Some(status.to_owned()))
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = silence();
    for more in [ends(), no_http(), heads(), statuses(), interim(), lengths()] {
        rows.extend(more);
    }
    rows
}

fn silence() -> Vec<Row> {
    let in_processing = "in processing, after 1.000 s";
    let in_transfer = "in transfer, after 1.000 s";
    vec![
        row("silent after the request", http(vec![Do::Hang]))
            .down(Timeout, in_processing)
            .phases(UNANSWERED),
        row("takes no request", early(vec![Do::Pause, Do::Hang]))
            .down(Timeout, in_processing)
            .phases(UNANSWERED),
        row("silent in the status line", http(vec![send("HTTP/1.1 20"), Do::Hang]))
            .down(Timeout, in_transfer),
        row("silent in a header", http(vec![send("HTTP/1.1 200 OK\r\nA"), Do::Hang]))
            .down(Timeout, in_transfer),
        row(
            "silent before the empty line",
            http(vec![send("HTTP/1.1 200 OK\r\na: b\r\n"), Do::Hang]),
        )
        .down(Timeout, in_transfer),
        row("drips the status line", http(vec![Do::Drip(b"HTTP/1.1 2")]))
            .down(Timeout, in_transfer),
        row("drips headers", http(vec![send(OK), Do::Drip(b"a: b\r\n")]))
            .down(Timeout, in_transfer),
        row("drips one long header", http(vec![send("HTTP/1.1 200 OK\r\na: "), Do::Drip(b"b")]))
            .down(Timeout, in_transfer),
        row("drips interim answers", http(vec![Do::Drip(b"HTTP/1.1 103 Early Hints\r\n\r\n")]))
            .down(Timeout, in_transfer),
        row(
            "slow, but in time",
            http(vec![
                Do::Pause,
                send("HTTP/1."),
                Do::Pause,
                send("1 200 OK\r\n"),
                Do::Pause,
                send("\r"),
                Do::Pause,
                send("\n"),
                Do::Pause,
                send("hello"),
            ]),
        )
        .body(5, false),
    ]
}

fn ends() -> Vec<Row> {
    vec![
        row("closes instead of an answer", http(vec![]))
            .down(Http, "no response: connection closed")
            .phases(UNANSWERED),
        row("resets instead of an answer", http(vec![Do::Reset]))
            .down(Http, &format!("no response: {RESET}"))
            .phases(UNANSWERED),
        broken("closes after one byte", "H", CUT_HEAD),
        broken("closes in the status line", "HTTP/1.1 200", CUT_HEAD),
        broken("closes in a header", "HTTP/1.1 200 OK\r\nContent-", CUT_HEAD),
        broken("closes before the empty line", "HTTP/1.1 200 OK\r\na: b\r\n", CUT_HEAD),
        broken("closes in the empty line", "HTTP/1.1 200 OK\r\na: b\r\n\r", CUT_HEAD),
        broken("closes after an interim answer", "HTTP/1.1 100 Continue\r\n\r\n", CUT_HEAD),
        row("resets in the status line", http(vec![send("HTTP/1.1 200"), Do::Pause, Do::Reset]))
            .down(Http, &format!("cut off in the head: {RESET}")),
        row(
            "resets in a header",
            http(vec![send("HTTP/1.1 200 OK\r\na: b"), Do::Pause, Do::Reset]),
        )
        .down(Http, &format!("cut off in the head: {RESET}")),
    ]
}

fn no_http() -> Vec<Row> {
    let settings: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    vec![
        broken(
            "garbage",
            [0xff; 40],
            "not HTTP/1.1: begins with '�������������������������������\u{fffd}'",
        ),
        broken("zeros", [0; 5], r"not HTTP/1.1: begins with '\0\0\0\0\0'"),
        row("SSH banner before the request", early(vec![send("SSH-2.0-OpenSSH_9.2p1\r\n")]))
            .down(Http, r"not HTTP/1.1: begins with 'SSH-2.0-OpenSSH_9.2p1\r\n'"),
        row("SMTP banner, then silence", early(vec![send("220 mail.test ESMTP\r\n"), Do::Hang]))
            .down(Http, r"not HTTP/1.1: begins with '220 mail.test ESMTP\r\n'"),
        row("endless garbage", http(vec![Do::Flood(vec![b'x'; 1000])]))
            .down(Http, "not HTTP/1.1: begins with 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'"),
        broken("HTTP/0.9", "<html>hello</html>", "not HTTP/1.1: begins with '<html>hello</html>'"),
        row("line ends before the answer", says("\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello"))
            .body(5, false),
        broken(
            "lower case",
            "http/1.1 200 OK\r\n\r\n",
            r"not HTTP/1.1: begins with 'http/1.1 200 OK\r\n\r\n'",
        ),
        broken(
            "an answer of HTTP/2 in HTTP/1's form",
            "HTTP/2 200 OK\r\n\r\n",
            r"not HTTP/1.1: begins with 'HTTP/2 200 OK\r\n\r\n'",
        ),
        broken(
            "HTTP/2's preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            r"not HTTP/1.1: begins with 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'",
        ),
        row("HTTP/2's settings", early(vec![send(settings)]))
            .down(Http, r"not HTTP/1.1: begins with '\0\0\u{6}\u{4}\0\0\0\0\0\0\u{3}\0\0\0d'"),
        broken("HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n", "bad head: invalid HTTP version"),
    ]
}

fn heads() -> Vec<Row> {
    let many = "a: b\r\n".repeat(200);
    let thousands = "a: b\r\n".repeat(10_000);
    let too_many = "bad head: too many headers";
    let too_large = "the head is larger than 64 KiB";
    let huge = format!("{OK}a: {}\r\n\r\n", "x".repeat(4 << 20));
    let large = format!("{OK}a: {}\r\n\r\nhello", "x".repeat(60 << 10));
    vec![
        row("a header of 60 KiB", says(large)).body(5, false),
        broken("a header of 4 MiB", huge, too_large),
        row(
            "a header without end",
            http(vec![send("HTTP/1.1 200 OK\r\na: "), Do::Flood(vec![b'x'; 1000])]),
        )
        .down(Http, too_large),
        row("headers without end", http(vec![send(OK), Do::Flood(b"a: b\r\n".repeat(100))]))
            .down(Http, too_many),
        broken("200 headers", format!("{OK}{many}\r\n"), too_many),
        broken("10,000 headers", format!("{OK}{thousands}\r\n"), too_many),
        row("128 headers", says(format!("{OK}{}\r\nhello", "a: b\r\n".repeat(128)))).body(5, false),
        broken(
            "a status that is no number",
            "HTTP/1.1 abc OK\r\n\r\n",
            "bad head: invalid response status",
        ),
        broken(
            "a status of two digits",
            "HTTP/1.1 20 OK\r\n\r\n",
            "bad head: invalid response status",
        ),
        broken(
            "a status of four digits",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "bad head: invalid response status",
        ),
        broken("status 099", "HTTP/1.1 099 OK\r\n\r\n", "bad head: invalid status code: 099"),
        broken(
            "a header without colon",
            format!("{OK}no colon\r\n\r\n"),
            "bad head: invalid header name",
        ),
        broken(
            "a header without name",
            format!("{OK}: b\r\n\r\n"),
            "bad head: invalid header name",
        ),
        broken(
            "a blank before the colon",
            format!("{OK}a : b\r\n\r\n"),
            "bad head: invalid header name",
        ),
        broken(
            "a folded header",
            format!("{OK}a: b\r\n c\r\n\r\n"),
            "bad head: invalid header name",
        ),
        broken(
            "a zero byte in a header",
            format!("{OK}a: \0\r\n\r\n"),
            "bad head: invalid header value",
        ),
        row("HTTP/1.0", says("HTTP/1.0 200 OK\r\n\r\nhello")).body(5, false),
        row("no reason", says("HTTP/1.1 200\r\n\r\nhello")).body(5, false),
        row("line feeds alone", says("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello")).body(5, false),
        row("bytes above ASCII in a header", says(b"HTTP/1.1 200 OK\r\na: \xe4\xff\r\n\r\nhello"))
            .body(5, false),
        row("an answer before the request", early(vec![answer("HTTP/1.1 200 OK", "hello")]))
            .body(5, false),
    ]
}

fn statuses() -> Vec<Row> {
    // No length, and a connection that stays: an answer without body must not wait for one.
    let bodiless = |status: &str| http(vec![send(format!("HTTP/1.1 {status}\r\n\r\n")), Do::Hang]);
    let status = |status: &str| http(vec![answer(&format!("HTTP/1.1 {status}"), "x")]);
    vec![
        row("404", status("404 Gone Fishing"))
            .down(Status, "404 Not Found, expected 200-299")
            .status(404)
            .body(1, false),
        row("503", status("503 x"))
            .down(Status, "503 Service Unavailable, expected 200-299")
            .status(503)
            .body(1, false),
        expecting(
            "200,404",
            row("404 that is expected", status("404 x")).status(404).body(1, false),
        ),
        row("999", status("999 Odd"))
            .down(Status, "999, expected 200-299")
            .status(999)
            .body(1, false),
        expecting("999", row("999 that is expected", status("999 Odd")).status(999).body(1, false)),
        row("300 without a place to go", status("300 x"))
            .down(Status, "300 Multiple Choices, expected 200-299")
            .status(300),
        row("304, unasked", bodiless("304 Not Modified"))
            .down(Status, "304 Not Modified, expected 200-299")
            .status(304)
            .body(0, false),
        expecting(
            "304",
            row("304 that is expected", bodiless("304 Not Modified")).status(304).body(0, false),
        ),
        row("101, unasked", bodiless("101 Switching Protocols\r\nUpgrade: x"))
            .down(Status, "101 Switching Protocols, expected 200-299")
            .status(101)
            .body(0, false),
        expecting(
            "101",
            row("101 that is expected", bodiless("101 Switching Protocols\r\nUpgrade: x"))
                .status(101)
                .body(0, false),
        ),
        row("204", bodiless("204 No Content")).status(204).body(0, false),
        row("204 with a body", says("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"))
            .status(204)
            .body(0, false),
        row(
            "204 with chunks",
            says("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        )
        .status(204)
        .body(0, false),
        with_method(
            "HEAD",
            row("HEAD with a length", bodiless("200 OK\r\nContent-Length: 5000")).body(0, false),
        ),
        with_method(
            "HEAD",
            row("HEAD with a body", http(vec![answer("HTTP/1.1 200 OK", "hello")])).body(0, false),
        ),
        with_method("HEAD", row("HEAD without length", bodiless("200 OK")).body(0, false)),
        row("a pattern where no body is", bodiless("204 No Content"))
            .down(Regex, "the answer has no body to look in")
            .status(204)
            .site(|site| site.regex = Some("x".to_owned())),
        row("a page without the pattern", http(vec![answer("HTTP/1.1 200 OK", "hello")]))
            .down(Regex, "not found in 5 bytes")
            .status(200)
            .site(|site| site.regex = Some("goodbye".to_owned())),
    ]
}

fn interim() -> Vec<Row> {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let ok = format!("{OK}\r\nhello");
    vec![
        row("103, then 200", says(format!("{hints}{ok}"))).body(5, false),
        row("100, unasked, then 200", says(format!("HTTP/1.1 100 Continue\r\n\r\n{ok}")))
            .body(5, false),
        row("50 times 103, then 200", says(format!("{}{ok}", hints.repeat(50)))).body(5, false),
        row("103 without end", http(vec![Do::Flood(hints.into())]))
            .down(Http, "more than 128 KiB before the body"),
        row("100 without end", http(vec![Do::Flood(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())]))
            .down(Http, "more than 128 KiB before the body"),
        broken(
            "103, then garbage",
            format!("{hints}garbage\r\n\r\n"),
            "bad head: invalid HTTP version",
        ),
    ]
}

fn lengths() -> Vec<Row> {
    let with = |headers: &str, body: &str| says(format!("{OK}{headers}\r\n\r\n{body}"));
    let bad =
        |name, headers: &str, detail: &str| broken(name, format!("{OK}{headers}\r\n\r\nx"), detail);
    vec![
        bad(
            "two lengths",
            "Content-Length: 1\r\nContent-Length: 2",
            "bad head: conflicting content-length headers",
        ),
        bad(
            "two lengths in one header",
            "Content-Length: 1, 2",
            "bad head: conflicting content-length headers",
        ),
        bad(
            "a negative length",
            "Content-Length: -1",
            "bad head: content-length header not a number",
        ),
        bad(
            "a length that is no number",
            "Content-Length: x",
            "bad head: content-length header not a number",
        ),
        bad("an empty length", "Content-Length:", "bad head: content-length header not a number"),
        bad(
            "a length of 20 digits",
            "Content-Length: 99999999999999999999",
            "bad head: content-length header not a number",
        ),
        row("the same length twice", with("Content-Length: 5\r\nContent-Length: 5", "hello"))
            .body(5, false),
        row("more than the length", with("Content-Length: 5", "hello and more")).body(5, false),
        row(
            "a length and chunks",
            with("Content-Length: 9\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        )
        .body(5, false),
        row("less than the length", with("Content-Length: 9", "hello"))
            .down(Http, "cut off in the body: connection closed")
            .status(200)
            .phases(WHOLE),
        row("a length of 2^64 - 1", with("Content-Length: 18446744073709551615", "hello"))
            .down(Http, "cut off in the body: connection closed")
            .status(200),
        row("length 0, then a body", with("Content-Length: 0", "hello")).body(0, false),
    ]
}
