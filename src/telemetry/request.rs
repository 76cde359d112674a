//! One request of the [`listener`](super::listener): from the bytes that came to those that go
//! back.

use std::fmt::Write as _;

use super::health;
use super::metrics::{metrics, shown};

/// The largest request head in bytes; a scraper's has a few hundred.
pub(super) const HEAD_MAX: usize = 8 << 10;
/// The most header lines; past that the head is too large.
const HEADERS_MAX: usize = 64;

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into() }
    }

    /// The body is the status itself.
    fn refusal(status: &'static str) -> Self {
        Self::text(status, format!("{status}\n"))
    }

    fn encode(self, has_body: bool) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
             {allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut bytes = head.into_bytes();
        if has_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }
}

/// The response to what came so far; nothing while the head isn't whole.
pub(super) fn respond(received: &[u8]) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let refusal = match request.parse(received) {
        Ok(httparse::Status::Complete(_)) => {
            let is_head = request.method == Some("HEAD");
            return Some(answer(&request).encode(!is_head));
        }
        Ok(_) if received.len() < HEAD_MAX => return None,
        // The request line alone fills it: the path is what is too long.
        Ok(_) if request.path.is_none() => "414 URI Too Long",
        Ok(_) | Err(httparse::Error::TooManyHeaders) => "431 Request Header Fields Too Large",
        Err(httparse::Error::Version) => "505 HTTP Version Not Supported",
        Err(_) => "400 Bad Request",
    };
    Some(Answer::refusal(refusal).encode(true))
}

fn answer(request: &httparse::Request<'_, '_>) -> Answer {
    let has_body = request.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("transfer-encoding")
            || header.name.eq_ignore_ascii_case("content-length") && header.value != b"0"
    });
    if !matches!(request.method, Some("GET" | "HEAD")) {
        return Answer::refusal("405 Method Not Allowed");
    }
    if has_body {
        return Answer::refusal("400 Bad Request");
    }
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/metrics" => {
            Answer { status: "200 OK", content_type: OPEN_METRICS, body: metrics().render(shown()) }
        }
        "/livez" => Answer::text("200 OK", "ok\n"),
        "/readyz" => {
            readiness(query.split('&').any(|pair| pair.split('=').next() == Some("verbose")))
        }
        _ => Answer::refusal("404 Not Found"),
    }
}

/// `ok`, or what is wrong, one part a line; `is_verbose` lists those that are well, too.
fn readiness(is_verbose: bool) -> Answer {
    let parts = health().parts();
    let is_ready = health().is_ready();
    let mut body = String::new();
    for (part, reason) in &parts {
        // Writing to a String can't fail.
        let _ = match reason {
            Some(reason) => writeln!(body, "{part}: {}", reason.replace(char::is_control, " ")),
            None if is_verbose => writeln!(body, "{part}: ok"),
            None => Ok(()),
        };
    }
    if parts.is_empty() {
        body.push_str("starting\n");
    } else if is_ready && !is_verbose {
        body.push_str("ok\n");
    }
    Answer::text(if is_ready { "200 OK" } else { "503 Service Unavailable" }, body)
}
