//! Times on the wire: RFC 3339, written in UTC with milliseconds.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// A time as it is written: `2026-01-01T00:00:00.004Z`, cut to the millisecond.
pub(super) struct Time(pub(super) Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(32);
        PRINTER.print_timestamp(&self.0, &mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// Reads RFC 3339 with up to nine digits of fraction and any offset.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
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
}
