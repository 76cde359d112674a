//! A check in words, below its first line.

use jiff::Timestamp;

use super::waterfall::{self, Canvas};
use crate::check::Check;

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// Phases, certificate, captures and what else there is to say. `stored` is whether it is a row.
pub(super) fn details(check: &Check<'_>, canvas: Canvas, is_stored: bool) -> Vec<String> {
    let mut lines = waterfall::lines(check, canvas);
    let mut fact = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<12} {value}")));
    };
    fact("tries", check.tries.filter(|n| *n > 1).map(|n| n.to_string()));
    fact("address", check.remote_address.as_ref().map(ToString::to_string));
    fact("redirects", check.redirects.filter(|n| *n > 0).map(|n| n.to_string()));
    let cut = if check.body_truncated == Some(true) { " (cut at the limit)" } else { "" };
    fact("body", check.body_bytes.map(|n| format!("{n} bytes{cut}")));
    let at = check.started_at.unwrap_or(check.scheduled_at);
    fact("certificate", check.certificate_expires_at.map(|end| certificate(end, at)));
    fact(
        "pattern",
        check.regex_match.map(|found| if found { "found" } else { "not found" }.into()),
    );
    let away = "unreachable: this says nothing about the site";
    fact("own network", check.unreachable_self.then(|| away.to_owned()));
    for (index, capture) in check.regex_captures.iter().flatten().enumerate() {
        fact(if index == 0 { "captures" } else { "" }, Some(printable(capture)));
    }
    fact("stored as", is_stored.then(|| check.check_entry_id.to_string()));
    lines
}

fn certificate(end: Timestamp, at: Timestamp) -> String {
    let left = end.as_second() - at.as_second();
    let days = |seconds: i64| match seconds / DAY_S {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    if left >= 0 {
        format!("{} left, until {end}", days(left))
    } else {
        format!("expired {} ago, at {end}", days(-left))
    }
}

/// What a page sent, without what a terminal would obey.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Identity, Phases};

    const TEXT: Canvas = Canvas { width: 49, is_utf8: false, is_coloured: false };

    fn empty() -> Check<'static> {
        let (url, region) = ("http://a/".to_owned(), "default".to_owned());
        Check::empty(&Identity::new(1, &region), 1, url, region, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn tries_and_the_last_request_are_told_where_there_is_something_to_tell() {
        let plain = Check { tries: Some(1), redirects: Some(0), ..empty() };
        assert!(details(&plain, TEXT, false).is_empty(), "{:?}", details(&plain, TEXT, false));
        let last_hop = Some(Phases { connect: Some(0.25), ..Phases::default() });
        let told =
            Check { tries: Some(3), redirects: Some(1), last_hop, unreachable_self: true, ..plain };
        let lines = details(&told, TEXT, true);
        assert_eq!(lines[..2], ["all 2 requests together", "the last request alone"]);
        assert!(lines[2].starts_with("connect        250.000 ms"), "{}", lines[2]);
        assert_eq!(
            lines[3..],
            [
                "tries        3".to_owned(),
                "redirects    1".to_owned(),
                "own network  unreachable: this says nothing about the site".to_owned(),
                format!("stored as    {}", told.check_entry_id),
            ]
        );
    }

    #[test]
    fn captures_stand_one_a_line_and_move_no_cursor() {
        let captures = ["a", "b\x1b[2Jc\nd", "ä"].map(Into::into).to_vec();
        let check = Check { regex_captures: Some(captures), ..empty() };
        assert_eq!(
            details(&check, TEXT, false),
            ["captures     a", "             b\\u{1b}[2Jc\\nd", "             ä"]
        );
    }

    #[test]
    fn a_certificate_is_told_in_days() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let told = |end: i64| certificate(at(end), at(0));
        assert_eq!(told(DAY_S * 30 + 5), "30 days left, until 1970-01-31T00:00:05Z");
        assert_eq!(told(DAY_S), "1 day left, until 1970-01-02T00:00:00Z");
        assert_eq!(told(5), "0 days left, until 1970-01-01T00:00:05Z");
        assert_eq!(told(-2 * DAY_S), "expired 2 days ago, at 1969-12-30T00:00:00Z");
    }
}
