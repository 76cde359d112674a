//! The way through an HTTP proxy: a tunnel for https, absolute URLs for http.
//!
//! What is meant for the proxy goes into the request for the tunnel, or for http into the one
//! header that proxies take out. A tunnel's proxy sees the site's name and port, and nothing else
//! of the request.

use ureq::http::StatusCode;

use crate::check::{Failure, FailureKind};

use super::failure::from_socket;
use super::socket::Socket;

/// Largest answer to the request for a tunnel, in bytes.
const ANSWER_MAX: usize = 16 << 10;
/// Most headers of that answer.
const HEADERS_MAX: usize = 64;
/// The proxy wants to know who asks.
pub(super) const WANTS_ACCESS: u16 = 407;

/// A proxy to go through.
pub(super) struct Via {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl std::fmt::Debug for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `failure`, which happened on the proxy's side, with the word put before it.
pub(super) fn blamed(failure: Failure<'static>, word: &str) -> Failure<'static> {
    match failure.kind {
        // These say by themselves that it is not the site.
        FailureKind::Timeout | FailureKind::Internal => failure,
        kind => Failure::new(kind, format!("{word} {}", failure.detail)),
    }
}

/// The failure of a proxy that answers with this status of its own.
pub(super) fn refused(status: u16) -> Failure<'static> {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let reason = reason.map_or_else(String::new, |reason| format!(" {reason}"));
    connect_failure(format!("answers {status}{reason}"))
}

fn connect_failure(what: impl std::fmt::Display) -> Failure<'static> {
    Failure::new(FailureKind::Connect, format!("proxy {what}"))
}

/// Asks the proxy at the other end of `socket` for a tunnel to `authority`, a host with its port.
pub(super) fn tunnel(
    socket: &mut Socket,
    via: &Via,
    authority: &str,
) -> Result<(), Failure<'static>> {
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(authorization) = &via.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    socket.send_all(request.as_bytes()).map_err(|error| blamed(from_socket(&error), "proxy:"))?;
    let mut answer = vec![0; ANSWER_MAX];
    let mut length = 0;
    loop {
        let read = socket.receive(&mut answer[length..]);
        let read = read.map_err(|error| blamed(from_socket(&error), "proxy:"))?;
        if read == 0 {
            return Err(connect_failure("closes the connection before it has answered"));
        }
        length += read;
        while let Some((end, status)) = head(&answer[..length])? {
            match status {
                // Interim: the answer is still to come.
                100..=199 => {
                    answer.copy_within(end..length, 0);
                    length -= end;
                }
                // Whatever else came would be taken as the site's.
                200..=299 if end < length => {
                    return Err(connect_failure("sends more than its answer"));
                }
                200..=299 => return Ok(()),
                _ => return Err(refused(status)),
            }
        }
        if length == ANSWER_MAX {
            let what = format!("answers with more than {} KiB", ANSWER_MAX >> 10);
            return Err(connect_failure(what));
        }
    }
}

/// Where the first head ends, and its status; nothing as long as it is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, u16)>, Failure<'static>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => Ok(answer.code.map(|status| (end, status))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(connect_failure(format!("answers no HTTP: {error}"))),
    }
}

/// The request that begins with `head`, as a proxy takes it: for an absolute URL.
pub(super) fn absolute(head: &[u8], authority: &str, via: &Via) -> Vec<u8> {
    let after = |byte: u8| head.iter().position(|b| *b == byte).map_or(head.len(), |at| at + 1);
    let (method, line) = (after(b' '), after(b'\n'));
    let mut whole = Vec::with_capacity(head.len() + authority.len() + 128);
    whole.extend_from_slice(&head[..method]);
    whole.extend_from_slice(b"http://");
    whole.extend_from_slice(authority.as_bytes());
    whole.extend_from_slice(&head[method..line]);
    if let Some(authorization) = &via.authorization {
        whole.extend_from_slice(format!("Proxy-Authorization: {authorization}\r\n").as_bytes());
    }
    whole.extend_from_slice(&head[line..]);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_becomes_absolute_and_the_rest_stays() {
        let mut via = Via { host: "p".to_owned(), port: 1, authorization: None };
        let head = b"GET /a?b HTTP/1.1\r\nhost: x\r\n\r\n";
        let sent = String::from_utf8(absolute(head, "[::1]:80", &via)).unwrap();
        assert_eq!(sent, "GET http://[::1]:80/a?b HTTP/1.1\r\nhost: x\r\n\r\n");
        via.authorization = Some("Basic x".to_owned());
        let sent = String::from_utf8(absolute(head, "x", &via)).unwrap();
        let expect = "GET http://x/a?b HTTP/1.1\r\nProxy-Authorization: Basic x\r\nhost: x\r\n\r\n";
        assert_eq!(sent, expect);
        assert!(!format!("{via:?}").contains("Basic"));
    }
}
