//! A question's time, cut into segments that are each read from one source.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::rollup::{DAY, HOUR};

/// Most segments of one question; past it days are read as hours, but for those without hours.
const SEGMENTS_MAX: usize = 32;
/// Where a part of a question's time is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Days,
    Hours,
    Checks,
}

/// Which days are read as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Days {
    /// None: the question is about hours.
    Never,
    /// Those whose hours were removed.
    Gone,
    /// Also every whole day that is up to date.
    Whole,
}

/// A part of a question's time: from, to before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) source: Source,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// What is marked in a question's time.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    pub(super) hours: BTreeSet<Timestamp>,
    pub(super) days: BTreeSet<Timestamp>,
    /// Hours before this were removed.
    pub(super) hours_from: Option<Timestamp>,
}

/// As [`cut`], with fewer days where there would be too many segments.
pub(super) fn segments(from: Timestamp, to: Timestamp, marks: &Marks, days: Days) -> Vec<Segment> {
    let segments = cut(from, to, marks, days);
    if days == Days::Whole && segments.len() > SEGMENTS_MAX {
        return cut(from, to, marks, Days::Gone);
    }
    segments
}

/// The segments of the time from `from` to `to`, both whole hours, in order.
fn cut(from: Timestamp, to: Timestamp, marks: &Marks, days: Days) -> Vec<Segment> {
    let is_gone =
        |time: Timestamp| days != Days::Never && marks.hours_from.is_some_and(|limit| time < limit);
    let mut at = if is_gone(from) { down_to(from, DAY) } else { from };
    let mut segments: Vec<Segment> = Vec::new();
    let mut push = |source, from, to| match segments.last_mut() {
        Some(last) if last.source == source && last.to == from => last.to = to,
        _ => segments.push(Segment { source, from, to }),
    };
    while at < to {
        let (day, next) = (down_to(at, DAY), down_to(at, DAY) + DAY);
        let is_marked = marks.days.contains(&day) || marks.hours.range(day..next).next().is_some();
        let is_up_to_date = days == Days::Whole && next <= to && !is_marked;
        // Of a day without hours there is only the whole.
        if at == day && (is_up_to_date || is_gone(day)) {
            push(Source::Days, day, next);
            at = next;
            continue;
        }
        let source = if marks.hours.contains(&at) { Source::Checks } else { Source::Hours };
        push(source, at, at + HOUR);
        at += HOUR;
    }
    segments
}

/// The last whole `length` at or before `time`.
pub(super) fn down_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let length = length.as_secs();
    let second = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    Timestamp::from_second(second.div_euclid(length) * length).unwrap_or(Timestamp::MIN)
}

/// The first whole `length` at or after `time`.
pub(super) fn up_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let down = down_to(time, length);
    if down == time { down } else { down.checked_add(length).unwrap_or(Timestamp::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Expects the segments of that time, each as source and hours from the first day's start.
    fn check(
        from: &str,
        to: &str,
        marks: (&[&str], &[&str], Option<&str>),
        expected: &[(Source, i64, i64)],
    ) {
        let all = |times: &[&str]| times.iter().map(|text| at(text)).collect();
        let marks = Marks { hours: all(marks.0), days: all(marks.1), hours_from: marks.2.map(at) };
        let start = at("2026-03-01T00:00:00Z");
        let hours = |time: Timestamp| time.duration_since(start).as_hours();
        let found = segments(at(from), at(to), &marks, Days::Whole);
        let found: Vec<_> = found.iter().map(|s| (s.source, hours(s.from), hours(s.to))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn whole_days_come_from_days_and_the_rest_from_hours() {
        use Source::{Checks, Days, Hours};
        let (from, to) = ("2026-03-01T22:00:00Z", "2026-03-04T03:00:00Z");
        check(from, to, (&[], &[], None), &[(Hours, 22, 24), (Days, 24, 72), (Hours, 72, 75)]);
        check(from, from, (&[], &[], None), &[]);
        // A marked day comes from its hours, a marked hour from its checks.
        let days: [&str; 1] = ["2026-03-02T00:00:00Z"];
        let expected = [(Hours, 22, 48), (Days, 48, 72), (Hours, 72, 75)];
        check(from, to, (&[], &days, None), &expected);
        let hours = ["2026-03-03T05:00:00Z", "2026-03-03T06:00:00Z", "2026-03-04T02:00:00Z"];
        let expected = [
            (Hours, 22, 24),
            (Days, 24, 48),
            (Hours, 48, 53),
            (Checks, 53, 55),
            (Hours, 55, 74),
            (Checks, 74, 75),
        ];
        check(from, to, (&hours, &[], None), &expected);
    }

    #[test]
    fn days_without_hours_are_whole() {
        use Source::{Days, Hours};
        let gone = Some("2026-03-03T00:00:00Z");
        let (from, to) = ("2026-03-01T22:00:00Z", "2026-03-03T03:00:00Z");
        check(from, to, (&[], &[], gone), &[(Days, 0, 48), (Hours, 48, 51)]);
        check(from, "2026-03-02T01:00:00Z", (&[], &[], gone), &[(Days, 0, 48)]);
    }

    #[test]
    fn days_without_hours_are_whole_beside_ever_so_many_segments() {
        use Source::{Checks, Days, Hours};
        let gone = Some("2026-03-03T00:00:00Z");
        let (from, to) = ("2026-03-01T05:00:00Z", "2026-04-10T00:00:00Z");
        // Each second day is marked: a segment a day.
        let text = |n: i32| (at("2026-03-03T00:00:00Z") + 2 * n * DAY).to_string();
        let days: Vec<String> = (0..SEGMENTS_MAX as i32 / 2 + 1).map(text).collect();
        let mut days: Vec<&str> = days.iter().map(String::as_str).collect();
        check(from, to, (&[], &days, gone), &[(Days, 0, 48), (Hours, 48, 40 * 24)]);
        let hours = ["2026-03-05T07:00:00Z"];
        let rest = [(Hours, 48, 103), (Checks, 103, 104), (Hours, 104, 40 * 24)];
        let expected = [&[(Days, 0, 48)], &rest[..]].concat();
        check(from, to, (&hours, &days, gone), &expected);
        // With fewer, days are read.
        days.truncate(2);
        let rest = [(Hours, 48, 72), (Days, 72, 96), (Hours, 96, 120), (Days, 120, 40 * 24)];
        let expected = [&[(Days, 0, 48)], &rest[..]].concat();
        check(from, to, (&[], &days, gone), &expected);
    }

    #[test]
    fn times_go_outwards_to_whole_hours() {
        for (time, down, up) in [
            ("2026-03-01T22:00:00Z", "2026-03-01T22:00:00Z", "2026-03-01T22:00:00Z"),
            ("2026-03-01T22:00:00.001Z", "2026-03-01T22:00:00Z", "2026-03-01T23:00:00Z"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!((down_to(at(time), HOUR), up_to(at(time), HOUR)), (at(down), at(up)));
        }
        assert_eq!(up_to(Timestamp::MAX, DAY), Timestamp::MAX);
        assert!(down_to(Timestamp::MIN, DAY) <= Timestamp::MIN + DAY);
    }
}
