//! The head of a request, as RFC 9112 has it, read strictly: what two readers could take for
//! different requests is refused, since a proxy in front may be the other reader.

use httparse::Status;

use super::request::Method;
use super::response::Problem;

/// Longest head in bytes, the request line included; a browser's with a token has 1 to 2 KiB.
pub const HEAD_MAX: usize = 16 << 10;
/// Most header lines: a browser behind a proxy sends 30.
pub const HEADERS_MAX: usize = 100;

/// How the body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes; 0 also where the head says nothing.
    Length(usize),
    /// In chunks.
    Chunked,
}

/// A head that is whole and has one meaning.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    /// As sent, without the query; `*` for the server itself.
    pub(super) path: String,
    /// Decoded.
    pub(super) query: Vec<(String, String)>,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// Whom the client wants: host and port as sent; absent in HTTP/1.0 alone.
    pub(super) authority: Option<String>,
    pub(super) framing: Framing,
    /// The client waits to be told that its body is wanted.
    pub(super) expects_continue: bool,
    /// Whether the client may send another request after this one.
    pub(super) is_kept: bool,
    /// Whether it must be told that the connection stays, as HTTP/1.0 wants it.
    pub(super) is_old: bool,
}

impl Head {
    /// The first header of that name, which is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All headers of that name, which is in lower case.
    pub(super) fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.headers.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether a body follows, be it empty.
    pub(super) fn has_body(&self) -> bool {
        self.framing != Framing::Length(0)
    }
}

/// The head at the beginning of `input` with its length; nothing while it is not whole. A body may
/// have `body_max` bytes.
pub(super) fn parse(input: &[u8], body_max: usize) -> Result<Option<(Head, usize)>, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(input.get(..HEAD_MAX).unwrap_or(input));
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) if input.len() < HEAD_MAX => return Ok(None),
        // The request line alone fills it.
        Ok(Status::Partial) if request.path.is_none() || request.version.is_none() => {
            return Err(Problem::new(414, format!("the request line may have {HEAD_MAX} bytes")));
        }
        Ok(Status::Partial) => return Err(too_large(format!("{HEAD_MAX} bytes"))),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(too_large(format!("{HEADERS_MAX} header lines")));
        }
        Err(httparse::Error::Version) => {
            return Err(Problem::new(505, "HTTP/1.1 and HTTP/1.0 are spoken here"));
        }
        Err(error) => return Err(bad(format!("this is no HTTP request: {error}"))),
    };
    if has_bare_line_feed(&input[..length]) {
        return Err(bad("a line of the head does not end with CR LF"));
    }
    let is_old = request.version == Some(0);
    let fields = fields(request.headers)?;
    let method = request.method.unwrap_or_default();
    let Some(method) = Method::parse(method) else {
        return Err(Problem::new(501, "this method is not known"));
    };
    let target = request.path.unwrap_or_default();
    let (authority, path_and_query) = split_target(method, target)?;
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    check_path(path)?;
    let values = |name: &'static str| fields.iter().filter(move |(n, _)| n == name).map(|(_, v)| v);
    let host = host(values("host").map(String::as_str), is_old)?;
    let framing = framing(
        values("content-length").map(String::as_str),
        values("transfer-encoding").map(String::as_str),
        is_old,
        body_max,
    )?;
    let expects = values("expect").next();
    if expects.is_some_and(|value| !value.eq_ignore_ascii_case("100-continue")) {
        return Err(Problem::new(417, "only 100-continue can be expected"));
    }
    let has_word = |word: &str| {
        let mut words = values("connection").flat_map(|value| value.split(','));
        words.any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    let is_kept = !has_word("close") && (!is_old || has_word("keep-alive"));
    let head = Head {
        method,
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        query: parse_query(query)?,
        // What names the target goes before the header (RFC 9112, 3.2.2).
        authority: authority.map(str::to_owned).or(host),
        framing,
        expects_continue: expects.is_some() && !is_old,
        is_kept,
        is_old,
        headers: fields,
    };
    Ok(Some((head, length)))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(400, detail)
}

fn too_large(limit: impl std::fmt::Display) -> Problem {
    Problem::new(431, format!("the head of a request may have {limit}"))
}

/// A line feed alone ends a line for some readers and not for others.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut before = 0;
    head.iter().any(|byte| std::mem::replace(&mut before, *byte) != b'\r' && *byte == b'\n')
}

fn fields(headers: &[httparse::Header<'_>]) -> Result<Vec<(String, String)>, Problem> {
    let field = |header: &httparse::Header<'_>| match std::str::from_utf8(header.value) {
        Ok(value) => Ok((header.name.to_ascii_lowercase(), value.trim().to_owned())),
        Err(_) => Err(bad("a header is not UTF-8")),
    };
    headers.iter().map(field).collect()
}

/// Authority, and path with query, of the four forms of a target; that of CONNECT is for proxies
/// alone, and its method is not known here.
fn split_target(method: Method, target: &str) -> Result<(Option<&str>, &str), Problem> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(bad("the target has characters that a URL has not"));
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    if target == "*" && method == Method::Options {
        return Ok((None, target));
    }
    let after_scheme = target.split_once("://").and_then(|(scheme, rest)| {
        let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
        is_web.then_some(rest)
    });
    let Some(rest) = after_scheme else {
        return Err(bad("the target is neither a path nor a URL"));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority) {
        return Err(bad("the target's host is none"));
    }
    Ok((Some(authority), path))
}

fn host<'h>(
    mut values: impl Iterator<Item = &'h str>,
    is_old: bool,
) -> Result<Option<String>, Problem> {
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(bad("there are two Host headers")),
        (Some(host), None) if is_authority(host) => Ok(Some(host.to_owned())),
        (Some(_), None) => Err(bad("the Host header names no host")),
        (None, _) if is_old => Ok(None),
        (None, _) => Err(bad("there is no Host header")),
    }
}

/// Whether this is a host with or without a port, without a user.
fn is_authority(text: &str) -> bool {
    let is_good = |c: u8| c.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&c);
    !text.is_empty() && text.bytes().all(is_good) && split_authority(text).is_some()
}

/// The host in lower case, an IPv6 address in its brackets, and the port.
pub(super) fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    let colon = match text.strip_prefix('[') {
        Some(rest) => rest.find(']').map(|end| end + 2).filter(|end| *end < text.len()),
        None => text.find(':'),
    };
    let (host, port) = text.split_at(colon.unwrap_or(text.len()));
    let is_closed = !host.starts_with('[') || host.ends_with(']');
    let is_name = host.starts_with('[') || !host.contains(['[', ']']);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        // An empty port is the scheme's own (RFC 3986, 3.2.3).
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        _ => return None,
    };
    (!host.is_empty() && is_closed && is_name).then(|| (host.to_ascii_lowercase(), port))
}

fn framing<'h>(
    mut lengths: impl Iterator<Item = &'h str>,
    mut codings: impl Iterator<Item = &'h str>,
    is_old: bool,
    body_max: usize,
) -> Result<Framing, Problem> {
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() {
        return Err(bad("the body's length is given twice"));
    }
    match (length, coding) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(_), Some(_)) => Err(bad("both Content-Length and Transfer-Encoding are given")),
        (None, Some(_)) if is_old => Err(bad("HTTP/1.0 has no Transfer-Encoding")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        (None, Some(coding)) => {
            let last = coding.rsplit(',').next().unwrap_or_default().trim();
            let several = coding.to_ascii_lowercase().matches("chunked").count() > 1;
            if last.eq_ignore_ascii_case("chunked") && !several {
                Err(Problem::new(501, "no Transfer-Encoding but chunked is known"))
            } else {
                Err(bad("the end of a body of this Transfer-Encoding can't be known"))
            }
        }
        (Some(length), None) => {
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad("the Content-Length is no number"));
            }
            match length.parse::<usize>() {
                Ok(length) if length <= body_max => Ok(Framing::Length(length)),
                _ => Err(too_long_a_body(body_max)),
            }
        }
    }
}

/// 413.
pub(super) fn too_long_a_body(body_max: usize) -> Problem {
    Problem::new(413, format!("a body may have {body_max} bytes"))
}

/// Each escape is one, and what they say is text without a zero byte: no name has one, and
/// PostgreSQL takes none.
fn check_path(path: &str) -> Result<(), Problem> {
    match unescape(path, false) {
        Some(text) if !text.contains('\0') => Ok(()),
        _ => Err(bad("the path's escapes are no text")),
    }
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (unescape(name, true), unescape(value, true)) {
                (Some(name), Some(value)) if !name.contains('\0') && !value.contains('\0') => {
                    Ok((name, value))
                }
                _ => Err(bad("the query's escapes are no text")),
            }
        })
        .collect()
}

/// The text behind percent escapes, and `+` for a blank where a form would have it.
fn unescape(text: &str, is_form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if is_form => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY_MAX: usize = 1000;

    fn head(text: &str) -> Head {
        let (head, length) = parse(text.as_bytes(), BODY_MAX).unwrap().unwrap();
        assert_eq!(length, text.len());
        head
    }

    fn status(text: &[u8]) -> u16 {
        parse(text, BODY_MAX).unwrap_err().status
    }

    #[test]
    fn a_head_is_read() {
        let head = head(
            "PATCH /a%20b?x=1&y=a+b%26&z HTTP/1.1\r\nhost: A.example:80\r\nX-Y:  z \r\nContent-Length: 7\r\n\r\n",
        );
        assert_eq!((head.method, head.path.as_str()), (Method::Patch, "/a%20b"));
        let query: Vec<_> = head.query.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(query, [("x", "1"), ("y", "a b&"), ("z", "")]);
        assert_eq!(head.header("x-y"), Some("z"));
        assert_eq!(head.framing, Framing::Length(7));
        assert!(head.is_kept && !head.is_old && !head.expects_continue);
    }

    #[test]
    fn a_target_of_each_form() {
        let of = |target: &str| head(&format!("OPTIONS {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        for (target, path, authority) in [
            ("/", "/", "other"),
            ("*", "*", "other"),
            ("http://a.example:81/x?y", "/x", "a.example:81"),
            ("HTTPS://[::1]", "/", "[::1]"),
            ("http://a?b", "/", "a"),
        ] {
            let head = of(target);
            assert_eq!((head.path.as_str(), head.authority.as_deref()), (path, Some(authority)));
        }
        for target in [
            "*",
            "x",
            "ftp://a/",
            "http:///x",
            "http://u@a/",
            "a:80",
            "/a#b",
            "/%zz",
            "/%00",
            "/%ff",
            "/?a=%0",
            "http://a:b/",
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n");
            assert_eq!(status(text.as_bytes()), 400, "{target}");
        }
    }

    #[test]
    fn who_keeps_the_connection() {
        for (version, header, is_kept) in [
            ("1.1", "X: y", true),
            ("1.1", "Connection: Close", false),
            ("1.1", "Connection: x, close", false),
            ("1.0", "X: y", false),
            ("1.0", "Connection: keep-alive", true),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{header}\r\n\r\n");
            assert_eq!(head(&text).is_kept, is_kept, "{text}");
        }
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        for (headers, expected) in [
            ("Host: a\r\nHost: a", 400),
            ("X: y", 400),
            ("Host: a b", 400),
            ("Host: u@a", 400),
            ("Host: [::1", 400),
            ("Host: a:99999", 400),
            ("Host:", 400),
            ("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", 400),
            ("Host: a\r\nContent-Length: 5\r\nContent-Length: 6", 400),
            ("Host: a\r\nContent-Length: 5\r\nContent-Length: 5", 400),
            ("Host: a\r\nContent-Length: 5, 5", 400),
            ("Host: a\r\nContent-Length: +5", 400),
            ("Host: a\r\nContent-Length: -5", 400),
            ("Host: a\r\nContent-Length: 0x5", 400),
            ("Host: a\r\nContent-Length:", 400),
            ("Host: a\r\nContent-Length: 1001", 413),
            ("Host: a\r\nContent-Length: 99999999999999999999999", 413),
            ("Host: a\r\nTransfer-Encoding: gzip, chunked", 501),
            ("Host: a\r\nTransfer-Encoding: chunked, gzip", 400),
            ("Host: a\r\nTransfer-Encoding: chunked, chunked", 400),
            ("Host: a\r\nTransfer-Encoding: xchunked", 400),
            ("Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
            ("Host: a\r\nTransfer-Encoding : chunked", 400),
            ("Host: a\r\nX: y\r\n folded", 400),
            ("Host: a\r\n X: y", 400),
            ("Host: a\nX: y", 400),
            ("Host: a\r\nX: a\0b", 400),
            ("Host: a\r\nX: a\rb", 400),
            ("Host: a\r\nExpect: 200-ok", 417),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n");
            assert_eq!(status(text.as_bytes()), expected, "{headers:?}");
        }
        assert_eq!(status(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n"), 400);
        assert_eq!(status(b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
        assert_eq!(status(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), 501);
        assert_eq!(status(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01"), 400);
    }

    #[test]
    fn a_head_has_its_limits() {
        let long = "y".repeat(HEAD_MAX);
        assert_eq!(status(format!("GET /{long}").as_bytes()), 414);
        assert_eq!(status(format!("GET / HTTP/1.1\r\nX: {long}").as_bytes()), 431);
        let many = "X: y\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(status(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()), 431);
        assert!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n", BODY_MAX).unwrap().is_none());
        let fits = "y".repeat(HEAD_MAX - 38);
        head(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {fits}\r\n\r\n"));
    }
}
