//! Times on the wire: RFC 3339, written in UTC with milliseconds.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// A time as it is written: `2026-01-01T00:00:00.004Z`, cut to the millisecond.
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = written(self.0) {
            return serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default());
        }
        let mut text = String::with_capacity(32);
        PRINTER.print_timestamp(&self.0, &mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// The text of a time of the years 1970 to 9999; two or three are in every message. The printer
/// is for every format there is; a profile of a running producer had a third of encoding in it.
fn written(time: Timestamp) -> Option<[u8; 24]> {
    const DAY: u64 = 86_400;
    const YEAR_10_000: u64 = 253_402_300_800;
    let seconds = u64::try_from(time.as_second()).ok().filter(|s| *s < YEAR_10_000)?;
    let millis = u64::try_from(time.subsec_nanosecond()).ok()? / 1_000_000;
    let (days, second) = (seconds / DAY, seconds % DAY);
    // Years that begin in March have their leap day at the end. Counted from 1 March of year 0,
    // in eras of 400 years, which are all as long.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);

    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |end: usize, digits: usize, number: u64| {
        let places = text.iter_mut().take(end).rev().take(digits);
        let _ = places.fold(number, |rest, place| {
            *place = b'0' + (rest % 10) as u8;
            rest / 10
        });
    };
    put(4, 4, year);
    put(7, 2, month);
    put(10, 2, day);
    put(13, 2, second / 3600);
    put(16, 2, second / 60 % 60);
    put(19, 2, second % 60);
    put(23, 3, millis);
    Some(text)
}

/// RFC 3339 in UTC, cut to the millisecond.
#[must_use]
pub fn text(time: Timestamp) -> String {
    match written(time) {
        Some(text) => String::from_utf8_lossy(&text).into_owned(),
        None => PRINTER.timestamp_to_string(&time),
    }
}

/// Reads RFC 3339 with up to nine digits of fraction and any offset.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    // The parser takes more of ISO 8601 than that; other readers of the topic may not.
    if has_shape(text.as_bytes()) { text.parse().ok() } else { None }
}

/// Whether `text` looks like RFC 3339.
fn has_shape(text: &[u8]) -> bool {
    let looks_like = |part: &[u8], shape: &[u8]| {
        part.len() == shape.len()
            && part.iter().zip(shape).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                b'T' => matches!(byte, b'T' | b't'),
                b'+' => matches!(byte, b'+' | b'-'),
                shape => byte == shape,
            })
    };
    let Some((seconds, rest)) = text.split_at_checked(19) else { return false };
    let offset = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
    };
    looks_like(seconds, b"0000-00-00T00:00:00")
        && (matches!(offset, b"Z" | b"z") || looks_like(offset, b"+00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339_and_nothing_else() {
        let start = Timestamp::from_second(1_767_225_600).unwrap();
        for good in [
            "2026-01-01T00:00:00Z",
            "2026-01-01t00:00:00.000000000z",
            "2026-01-01T00:00:00.0+00:00",
            "2026-01-01T05:30:00+05:30",
            "2025-12-31T19:00:00.000-05:00",
        ] {
            assert_eq!(parse(good), Some(start), "{good}");
        }
        for bad in [
            "",
            "2026-01-01",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.0000000000Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00+0000",
            "2026-01-01T00:00:00Z[UTC]",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "+02026-01-01T00:00:00Z",
            "2026-01-01T00:00:00ä",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn writes_three_digits() {
        let time =
            |ns| serde_json::to_string(&Time(Timestamp::from_nanosecond(ns).unwrap())).unwrap();
        assert_eq!(time(1_767_225_600_000_000_000), "\"2026-01-01T00:00:00.000Z\"");
        assert_eq!(time(1_767_225_600_004_999_999), "\"2026-01-01T00:00:00.004Z\"");
    }

    #[test]
    fn writes_what_the_printer_writes() {
        let printed = |time: &Timestamp| PRINTER.timestamp_to_string(time);
        let (first, last) = (0, Timestamp::MAX.as_second());
        // Every 31st day, so each day of the year in time, at another time of it; then the edges.
        for (n, second) in (first..last).step_by(31 * 86_400).enumerate() {
            let time = Timestamp::new(second + n as i64 % 86_400, n as i32 * 10_000);
            let time = time.unwrap_or(Timestamp::MAX);
            let text = written(time).unwrap();
            assert_eq!(std::str::from_utf8(&text), Ok(printed(&time).as_str()));
        }
        for (second, ns) in [(last, 999_999_999), (951_868_799, 1), (4_107_542_399, 0), (0, 0)] {
            let Ok(time) = Timestamp::new(second, ns) else { continue };
            let text = written(time).unwrap();
            assert_eq!(std::str::from_utf8(&text), Ok(printed(&time).as_str()));
        }
        assert_eq!(written(Timestamp::from_nanosecond(-1).unwrap()), None);
        assert_eq!(serde_json::to_string(&Time(Timestamp::MIN)).unwrap().len(), 29);
    }
}
