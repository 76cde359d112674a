//! The text of a page whose bytes are not UTF-8.

use encoding_rs::{CoderResult, Encoding, REPLACEMENT, UTF_8};
use ureq::http::{HeaderMap, header};

use crate::site::{IsLate, Late};

/// Bytes of a page in which a `<meta>` may name the charset, by the HTML standard.
const META_WITHIN: usize = 1024;
/// Bytes decoded between two questions whether it is late: about a millisecond's work.
const PIECE: usize = 64 << 10;

/// `bytes` as text, if they declare a charset in which they are other than UTF-8. What can't be
/// decoded becomes U+FFFD. The order is the HTML standard's: byte order mark, header, `<meta>`.
pub(super) fn decoded(
    headers: &HeaderMap,
    bytes: &[u8],
    is_late: IsLate<'_>,
) -> Result<Option<String>, Late> {
    let (encoding, mark) = match Encoding::for_bom(bytes) {
        Some(found) => found,
        None => match declared(headers, bytes) {
            Some(encoding) => (encoding, 0),
            None => return Ok(None),
        },
    };
    let same = encoding == UTF_8 || (encoding.is_ascii_compatible() && bytes.is_ascii());
    // `REPLACEMENT` stands for charsets that nobody should decode.
    if same || encoding == REPLACEMENT {
        return Ok(None);
    }
    decode(encoding, &bytes[mark..], is_late).map(Some)
}

fn decode(encoding: &'static Encoding, bytes: &[u8], is_late: IsLate<'_>) -> Result<String, Late> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 2);
    let mut rest = bytes;
    loop {
        if is_late() {
            return Err(Late);
        }
        let piece = &rest[..rest.len().min(PIECE)];
        // At most three bytes of text for each, and a few for what was held back.
        let room = decoder.max_utf8_buffer_length(piece.len()).unwrap_or(PIECE * 4);
        text.reserve(room);
        let is_last = piece.len() == rest.len();
        let (result, read, _) = decoder.decode_to_string(piece, &mut text, is_last);
        rest = &rest[read..];
        if is_last && result == CoderResult::InputEmpty {
            return Ok(text);
        }
    }
}

/// What the header says, or else the page itself.
fn declared(headers: &HeaderMap, bytes: &[u8]) -> Option<&'static Encoding> {
    let content_type = headers.get(header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    let mut parts = content_type.split(|byte| *byte == b';');
    let kind = parts.next().unwrap_or_default().trim_ascii();
    let label = parts.find_map(|part| {
        let equals = part.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (part[..equals].trim_ascii(), part[equals + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"charset").then_some(value)
    });
    match label {
        Some(label) => Encoding::for_label(unquoted(label)),
        None => {
            let html = [&b""[..], b"text/html", b"application/xhtml+xml"];
            let is_html = html.iter().any(|html| kind.eq_ignore_ascii_case(html));
            let found = is_html.then(|| meta(&bytes[..bytes.len().min(META_WITHIN)])).flatten()?;
            // A page in which this was read as ASCII is not UTF-16.
            found.is_ascii_compatible().then_some(found)
        }
    }
}

fn unquoted(label: &[u8]) -> &[u8] {
    let quote = |byte: &u8| matches!(byte, b'"' | b'\'');
    let begin = label.iter().position(|byte| !quote(byte)).unwrap_or(label.len());
    let label = &label[begin..];
    &label[..label.iter().position(quote).unwrap_or(label.len())]
}

/// The charset of the first `<meta charset=…>` or `<meta … content="…; charset=…">`.
fn meta(head: &[u8]) -> Option<&'static Encoding> {
    let mut rest = head;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix(b"!--") {
            rest = &comment[position(comment, b"-->")?..];
            continue;
        }
        let is_meta = rest.get(..5).is_some_and(|name| {
            name[..4].eq_ignore_ascii_case(b"meta")
                && matches!(name[4], b' ' | b'\t'..=b'\r' | b'/')
        });
        let tag = &rest[..rest.iter().position(|byte| *byte == b'>')?];
        if is_meta && let Some(label) = label(tag) {
            return Encoding::for_label(label);
        }
    }
    None
}

/// What stands behind `charset=` in a tag.
fn label(tag: &[u8]) -> Option<&[u8]> {
    let value = tag[position(tag, b"charset")?..][b"charset".len()..].trim_ascii_start();
    let value = value.strip_prefix(b"=")?.trim_ascii_start();
    let quote = value.first().filter(|byte| matches!(byte, b'"' | b'\''));
    let value = &value[usize::from(quote.is_some())..];
    let is_end =
        |byte: &u8| matches!(byte, b'"' | b'\'' | b';' | b'/') || byte.is_ascii_whitespace();
    Some(&value[..value.iter().position(is_end).unwrap_or(value.len())])
}

/// Where `part` begins in `text`, in upper or lower case.
fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    use super::*;

    fn text(content_type: &str, bytes: &[u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        }
        decoded(&headers, bytes, &mut || false).unwrap()
    }

    #[test]
    fn the_mark_comes_before_the_header_and_that_before_the_page() {
        let page = b"<meta charset=windows-1251>\xe9";
        let has = |content_type, letter| {
            text(content_type, page).is_some_and(|text| text.ends_with(letter))
        };
        assert!(has("text/html; charset=iso-8859-1", 'é'));
        assert!(has("text/html;x=y; Charset=\"ISO-8859-1\"; z", 'é'));
        assert!(has("text/html", 'й') && has("", 'й') && has("Text/HTML ;x", 'й'));
        let marked = b"\xff\xfea\0\xe9\0";
        assert_eq!(text("text/html; charset=windows-1251", marked).as_deref(), Some("aé"));
        assert_eq!(text("text/plain", page), None);
    }

    #[test]
    fn what_is_utf_8_ascii_or_unknown_is_not_decoded() {
        for (content_type, bytes) in [
            ("text/html; charset=utf-8", &b"\xe9"[..]),
            ("text/html", b"\xef\xbb\xbf<meta charset=koi8-r>\xe9"),
            ("text/html; charset=iso-8859-1", b"ascii"),
            ("text/html; charset=klingon", b"<meta charset=koi8-r>\xe9"),
            ("text/html; charset=iso-2022-kr", b"\xe9"),
            ("text/html; charset=", b"\xe9"),
            ("text/html", b"\xe9"),
            ("text/html", b"<meta charset=utf-16le>\xe9"),
            ("text/html", b"<meta charset=klingon>\xe9"),
        ] {
            assert_eq!(text(content_type, bytes), None, "{content_type}");
        }
    }

    #[test]
    fn metas_are_found_as_browsers_find_them() {
        for good in [
            "<META CHARSET='windows-1251'>",
            "<meta charset = windows-1251 />",
            "<meta http-equiv=Content-Type content=\"text/html; charset=windows-1251\">",
            "<!-- <meta charset=koi8-r> --><a b=c><meta\ncharset=\"windows-1251\">",
        ] {
            assert_eq!(meta(good.as_bytes()).map(Encoding::name), Some("windows-1251"), "{good}");
        }
        for bad in
            ["<metal charset=windows-1251>", "<meta charset", "<!-- <meta charset=koi8-r>", "<"]
        {
            assert_eq!(meta(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn pieces_join_in_the_middle_of_a_character() {
        let bytes = [b"x".as_slice(), &b"\x82\xa0".repeat(PIECE)].concat();
        let all = text("text/html; charset=shift_jis", &bytes).unwrap();
        assert_eq!(all, format!("x{}", "あ".repeat(PIECE)));
        let late = decoded(&HeaderMap::new(), b"\xff\xfea\0", &mut || true);
        assert_eq!(late, Err(Late));
    }
}
