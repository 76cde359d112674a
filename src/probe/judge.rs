//! Is what was seen what is expected?

use std::borrow::Cow;

use ureq::http::StatusCode;

use crate::check::{CAPTURE_MAX, CAPTURES_MAX, Check, Failure, FailureKind, truncate};
use crate::site::{Pattern, Site};

use super::body::Seen;

/// Judges an answer and writes down what the pattern found. `body` is absent where an answer has
/// none by its nature (HEAD, 1xx, 204, 304).
pub(super) fn judge(
    site: &Site,
    status: u16,
    body: Option<Seen<'_>>,
    check: &mut Check<'static>,
) -> Result<(), Failure<'static>> {
    check.body_bytes = Some(body.map_or(0, |body| clamped(body.bytes.len())));
    check.body_truncated = Some(body.is_some_and(|body| body.truncated));
    let found = site.pattern.as_ref().map(|pattern| look_for(pattern, body, check));
    if !site.expected_status.contains(status) {
        let reason = StatusCode::from_u16(status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .map_or_else(String::new, |reason| format!(" {reason}"));
        return Err(Failure::new(
            FailureKind::Status,
            format!("{status}{reason}, expected {}", site.expected_status),
        ));
    }
    found.unwrap_or(Ok(()))
}

fn clamped(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn look_for(
    pattern: &Pattern,
    body: Option<Seen<'_>>,
    check: &mut Check<'static>,
) -> Result<(), Failure<'static>> {
    let Some(Seen { bytes, truncated }) = body else {
        return Err(Failure::new(FailureKind::Regex, "the answer has no body to look in"));
    };
    let is_match = pattern.regex().is_match(bytes);
    check.regex_match = Some(is_match);
    if is_match {
        check.regex_captures = Some(captures(pattern, bytes));
        return Ok(());
    }
    let what = if truncated { "the first " } else { "" };
    Err(Failure::new(FailureKind::Regex, format!("not found in {what}{} bytes", bytes.len())))
}

/// All matches, or the first group of each if the pattern has one.
fn captures(pattern: &Pattern, bytes: &[u8]) -> Vec<Cow<'static, str>> {
    let regex = pattern.regex();
    if regex.captures_len() > 1 {
        let groups = regex.captures_iter(bytes).filter_map(|captures| captures.get(1));
        groups.take(CAPTURES_MAX).map(|group| kept(group.as_bytes())).collect()
    } else {
        regex.find_iter(bytes).take(CAPTURES_MAX).map(|found| kept(found.as_bytes())).collect()
    }
}

/// As text that a table takes: UTF-8, without NUL, at most [`CAPTURE_MAX`] bytes.
fn kept(bytes: &[u8]) -> Cow<'static, str> {
    // Three bytes more, so that a character that is whole in the page is not cut by us.
    let most = bytes.len().min(CAPTURE_MAX + 3);
    let mut text = String::from_utf8_lossy(&bytes[..most]).replace('\0', "\u{fffd}");
    truncate(&mut text, CAPTURE_MAX);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, body: &[u8]) -> Vec<Cow<'static, str>> {
        captures(&Pattern::new(pattern).unwrap(), body)
    }

    #[test]
    fn captures_are_matches_or_first_groups() {
        assert_eq!(found(r"v\d", b"v1 v2 x"), ["v1", "v2"]);
        assert_eq!(found(r"v(\d)(x)?", b"v1 v2x"), ["1", "2"]);
        // A group that took no part is no capture.
        assert_eq!(found(r"a|(b)", b"a b"), ["b"]);
        assert_eq!(found(r"x", &[b'x'; 100]).len(), CAPTURES_MAX);
    }

    #[test]
    fn captures_are_short_clean_text() {
        assert_eq!(found(r"(?s-u).+", b"a\0\xffb"), ["a\u{fffd}\u{fffd}b"]);
        let long = "ä".repeat(2000);
        let kept = &found("ä+", long.as_bytes())[0];
        assert_eq!(kept.as_ref(), &long[..CAPTURE_MAX]);
        let odd = format!("x{long}");
        assert_eq!(found("xä+", odd.as_bytes())[0].as_ref(), &odd[..CAPTURE_MAX - 1]);
    }
}
