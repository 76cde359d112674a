//! Is what was seen what is expected?
//!
//! The verdict is the first that is not good of: status, headers, forbidden pattern, pattern,
//! certificate, and at last the time, which says nothing about an answer that is bad anyway. The
//! pattern is looked for in any case, so that a check tells what the page showed.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use ureq::http::{HeaderMap, StatusCode};

use crate::check::{CAPTURE_MAX, CAPTURES_MAX, Check, Failure, FailureKind, truncate};
use crate::runtime::now;
use crate::site::{HeaderPattern, IsLate, Late, Pattern, Site};

use super::body::Seen;
use super::charset;
use super::timings;

/// Longest part of a page or header that a detail shows, in bytes.
const SHOWN_MAX: usize = 100;
const DAY_S: i64 = 86_400;

/// The last answer of a check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    /// Absent where an answer has none by its nature (HEAD, 1xx, 204, 304).
    pub(super) body: Option<Seen<'a>>,
}

/// Judges an answer and writes down what the pattern found.
pub(super) fn judge(
    site: &Site,
    answer: Answer<'_>,
    check: &mut Check<'static>,
) -> Result<(), Failure<'static>> {
    let Answer { status, headers, body } = answer;
    check.body_bytes = Some(body.map_or(0, |body| clamped(body.bytes.len())));
    check.body_truncated = Some(body.is_some_and(|body| body.truncated));
    let deadline = timings::deadline();
    let is_late: IsLate<'_> = &mut || now().mono >= deadline;
    let mut page = body.map(|body| Page { body, headers, decoded: None });

    let found =
        site.pattern.as_ref().map(|pattern| look_for(pattern, page.as_mut(), check, is_late));
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
    let more = site.more();
    for wanted in &more.expected_headers {
        expect_header(headers, wanted, is_late)?;
    }
    for unwanted in &more.forbidden_headers {
        forbid_header(headers, unwanted, is_late)?;
    }
    if let (Some(pattern), Some(page)) = (&more.forbidden, &mut page)
        && let Some(found) = page.search(is_late, |text, is_late| {
            Ok(pattern.find(text, is_late)?.map(|span| shown(&text[span])))
        })?
    {
        let detail = format!("the forbidden pattern was found: {found}");
        return Err(Failure::new(FailureKind::Regex, detail));
    }
    found.unwrap_or(Ok(()))?;
    match more.min_certificate_days {
        Some(days) => certificate(days, timings::with(|context| context.certificate_end)),
        None => Ok(()),
    }
}

/// The failure of a good answer that came too late for the site's own limit.
pub(super) fn too_slow(site: &Site, took: Duration) -> Option<Failure<'static>> {
    let most = site.more().max_response_time.filter(|most| took > *most)?;
    let detail = format!("took {:.3} s, at most {} s", took.as_secs_f64(), most.as_secs_f64());
    Some(Failure::new(FailureKind::Timeout, detail))
}

impl From<Late> for Failure<'static> {
    fn from(_: Late) -> Self {
        timings::timed_out_in("the search for a pattern")
    }
}

/// A body, and its text once somebody needed it.
struct Page<'a> {
    body: Seen<'a>,
    headers: &'a HeaderMap,
    decoded: Option<Option<String>>,
}

impl Page<'_> {
    /// What `look` finds in the bytes, or else in the text.
    fn search<T>(
        &mut self,
        is_late: IsLate<'_>,
        mut look: impl FnMut(&[u8], IsLate<'_>) -> Result<Option<T>, Late>,
    ) -> Result<Option<T>, Late> {
        if let Some(found) = look(self.body.bytes, is_late)? {
            return Ok(Some(found));
        }
        let decoded = match self.decoded.take() {
            Some(decoded) => decoded,
            None => charset::decoded(self.headers, self.body.bytes, is_late)?,
        };
        let found = match &decoded {
            Some(text) => look(text.as_bytes(), is_late),
            None => Ok(None),
        };
        self.decoded = Some(decoded);
        found
    }
}

fn clamped(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn look_for(
    pattern: &Pattern,
    page: Option<&mut Page<'_>>,
    check: &mut Check<'static>,
    is_late: IsLate<'_>,
) -> Result<(), Failure<'static>> {
    let Some(page) = page else {
        return Err(Failure::new(FailureKind::Regex, "the answer has no body to look in"));
    };
    let captures = page.search(is_late, |text, is_late| captures(pattern, text, is_late))?;
    check.regex_match = Some(captures.is_some());
    if captures.is_some() {
        check.regex_captures = captures;
        return Ok(());
    }
    let Seen { bytes, truncated } = page.body;
    let what = if truncated { "the first " } else { "" };
    Err(Failure::new(FailureKind::Regex, format!("not found in {what}{} bytes", bytes.len())))
}

/// All matches, or the first group of each if the pattern has one.
fn captures(
    pattern: &Pattern,
    text: &[u8],
    is_late: IsLate<'_>,
) -> Result<Option<Vec<Cow<'static, str>>>, Late> {
    let spans = pattern.find_all(text, CAPTURES_MAX, is_late)?;
    let kept = |span| Cow::Owned(clean(&text[span], CAPTURE_MAX));
    Ok(spans.map(|spans| spans.into_iter().map(kept).collect()))
}

/// As text that a table takes: UTF-8, without NUL, at most `max` bytes.
fn clean(bytes: &[u8], max: usize) -> String {
    // Three bytes more, so that a character that is whole in the page is not cut by us.
    let most = bytes.len().min(max + 3);
    let mut text = String::from_utf8_lossy(&bytes[..most]).replace('\0', "\u{fffd}");
    truncate(&mut text, max);
    text
}

fn shown(bytes: &[u8]) -> String {
    clean(bytes, SHOWN_MAX)
}

/// The first value of the header that `pattern` is found in.
fn matching<'h>(
    headers: &'h HeaderMap,
    HeaderPattern { name, pattern }: &HeaderPattern,
    is_late: IsLate<'_>,
) -> Result<Option<&'h [u8]>, Late> {
    for value in headers.get_all(name.as_str()) {
        if pattern.find(value.as_bytes(), is_late)?.is_some() {
            return Ok(Some(value.as_bytes()));
        }
    }
    Ok(None)
}

/// Of several headers of a name, one has to match.
fn expect_header(
    headers: &HeaderMap,
    wanted: &HeaderPattern,
    is_late: IsLate<'_>,
) -> Result<(), Failure<'static>> {
    if matching(headers, wanted, is_late)?.is_some() {
        return Ok(());
    }
    let HeaderPattern { name, pattern } = wanted;
    let source = pattern.source();
    let detail = match headers.get(name.as_str()) {
        Some(value) => {
            format!("header {name}: '{}' does not match '{source}'", shown(value.as_bytes()))
        }
        None => format!("header {name} is missing, expected to match '{source}'"),
    };
    Err(Failure::new(FailureKind::Regex, detail))
}

fn forbid_header(
    headers: &HeaderMap,
    unwanted: &HeaderPattern,
    is_late: IsLate<'_>,
) -> Result<(), Failure<'static>> {
    let Some(value) = matching(headers, unwanted, is_late)? else { return Ok(()) };
    let (name, source) = (&unwanted.name, unwanted.pattern.source());
    let detail = format!("header {name}: '{}' matches the forbidden '{source}'", shown(value));
    Err(Failure::new(FailureKind::Regex, detail))
}

/// Whether the certificates are good for `days` from now on; `end` in seconds since the epoch.
fn certificate(days: u32, end: Option<i64>) -> Result<(), Failure<'static>> {
    let left = end.map(|end| end.saturating_sub(now().wall.as_second()));
    if left.is_some_and(|left| left >= i64::from(days) * DAY_S) {
        return Ok(());
    }
    let wanted = if days == 1 {
        "at least 1 day is wanted".to_owned()
    } else {
        format!("at least {days} days are wanted")
    };
    let state = match left {
        None => "no certificate was shown".to_owned(),
        Some(left) if left < 0 => {
            let end = end.and_then(|end| Timestamp::from_second(end).ok()).unwrap_or_default();
            format!("certificate expired at {end}")
        }
        Some(left) if left < DAY_S => "certificate expires in less than a day".to_owned(),
        Some(left) if left < 2 * DAY_S => "certificate expires in 1 day".to_owned(),
        Some(left) => format!("certificate expires in {} days", left / DAY_S),
    };
    Err(Failure::new(FailureKind::Tls, format!("{state}, {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, body: &[u8]) -> Vec<Cow<'static, str>> {
        captures(&Pattern::new(pattern).unwrap(), body, &mut || false).unwrap().unwrap()
    }

    #[test]
    fn captures_are_matches_or_first_groups() {
        assert_eq!(found(r"v\d", b"v1 v2 x"), ["v1", "v2"]);
        assert_eq!(found(r"v(\d)(x)?", b"v1 v2x"), ["1", "2"]);
        // A group that took no part is no capture.
        assert_eq!(found(r"a|(b)", b"a b"), ["b"]);
        assert_eq!(found(r"x", &[b'x'; 100]).len(), CAPTURES_MAX);
        assert_eq!(found(r"a*", b"aab"), ["aa", ""]);
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

    #[test]
    fn certificates_are_counted_in_whole_days() {
        let verdict = |days, seconds: Option<i64>| {
            let end = seconds.map(|seconds| now().wall.as_second() + seconds);
            certificate(days, end).map_err(|failure| failure.detail.into_owned())
        };
        let fault = |text: &str| Err(text.to_owned());
        assert_eq!(verdict(14, Some(14 * DAY_S + 60)), Ok(()));
        let five = "certificate expires in 5 days, at least 14 days are wanted";
        assert_eq!(verdict(14, Some(5 * DAY_S + 60)), fault(five));
        let one = "certificate expires in 1 day, at least 14 days are wanted";
        assert_eq!(verdict(14, Some(DAY_S + 60)), fault(one));
        let none = "certificate expires in less than a day, at least 1 day is wanted";
        assert_eq!(verdict(1, Some(60)), fault(none));
        assert_eq!(verdict(1, None), fault("no certificate was shown, at least 1 day is wanted"));
        assert!(verdict(1, Some(-60)).unwrap_err().starts_with("certificate expired at 2"));
    }
}
