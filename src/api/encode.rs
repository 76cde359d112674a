//! An answer as bytes.

use jiff::fmt::rfc2822::DateTimePrinter;

use super::response::{Response, reason};
use crate::runtime::wall;

/// On every answer that has none of its own: nothing here is a page of another site, is guessed at,
/// or is kept by anybody.
const USUAL: [(&str, &str); 6] = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

/// How an answer goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner<'m> {
    /// HEAD is answered without the body.
    pub(super) is_head: bool,
    /// Whether the connection stays.
    pub(super) is_kept: bool,
    /// Whether HTTP/1.0 asked, which must be told that it stays.
    pub(super) is_old: bool,
    /// Headers for a page of another site.
    pub(super) sharing: &'m [(&'static str, String)],
}

/// A body of up to so many bytes goes out in one piece with its head; copying more would hold up
/// the other connections.
const COPY_MAX: usize = 64 << 10;

/// The bytes to send: those of the first, then those of the second.
pub(super) fn encode(response: Response, manner: Manner<'_>) -> [Vec<u8>; 2] {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    let mut add = |name: &str, value: &str| {
        head.push_str(name);
        head.push_str(": ");
        // A line end would begin another header.
        head.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c }));
        head.push_str("\r\n");
    };
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&wall()) {
        add("Date", &date);
    }
    // These two never have a body, and a length of theirs would be that of another answer.
    let is_bare = matches!(response.status, 204 | 304);
    if !is_bare {
        add("Content-Length", &response.body.len().to_string());
    }
    match (manner.is_kept, manner.is_old) {
        (false, _) => add("Connection", "close"),
        (true, true) => add("Connection", "keep-alive"),
        (true, false) => {}
    }
    let has = |name: &str| response.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    USUAL.iter().filter(|(name, _)| !has(name)).for_each(|(name, value)| add(name, value));
    let own = response.headers.iter().chain(manner.sharing);
    own.for_each(|(name, value)| add(name, value));
    head.push_str("\r\n");
    let mut head = head.into_bytes();
    if manner.is_head || is_bare {
        return [head, Vec::new()];
    }
    if response.body.len() > COPY_MAX {
        return [head, response.body];
    }
    head.extend_from_slice(&response.body);
    [head, Vec::new()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANNER: Manner<'_> =
        Manner { is_head: false, is_kept: true, is_old: false, sharing: &[] };

    fn text(response: &Response, manner: Manner<'_>) -> String {
        String::from_utf8(encode(response.clone(), manner).concat()).unwrap()
    }

    #[test]
    fn an_answer_has_what_the_standard_wants() {
        let hello = Response::new(200, "text/plain", "hello");
        let whole = text(&hello, MANNER);
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{whole}");
        assert!(whole.contains(" GMT\r\nContent-Length: 5\r\n"), "{whole}");
        assert!(whole.ends_with("\r\nContent-Type: text/plain\r\n\r\nhello"), "{whole}");
        assert!(!whole.contains("Connection"), "{whole}");
        for (name, value) in USUAL {
            assert!(whole.contains(&format!("\r\n{name}: {value}\r\n")), "{whole}");
        }
        let head = text(&hello, Manner { is_head: true, is_kept: false, ..MANNER });
        assert!(head.contains("\r\nContent-Length: 5\r\nConnection: close\r\n"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        assert!(text(&hello, Manner { is_old: true, ..MANNER }).contains("keep-alive\r\n"));
        let large = Response::new(200, "text/plain", "x".repeat(COPY_MAX + 1));
        let whole = text(&large, MANNER);
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nContent-Length: 65537") && body.len() == 65_537, "{head}");
        assert!(!text(&Response::empty(204), MANNER).contains("Content-Length"));
    }

    #[test]
    fn its_own_headers_go_before_the_usual_ones_and_stay_one_line() {
        let page = Response::new(200, "text/html", "")
            .with("Content-Security-Policy", "default-src 'self'")
            .with("Location", "/a\r\nX-Evil: 1");
        let text = text(&page, MANNER);
        assert_eq!(text.matches("Content-Security-Policy").count(), 1, "{text}");
        assert!(text.contains("\r\nLocation: /a  X-Evil: 1\r\n"), "{text}");
    }
}
