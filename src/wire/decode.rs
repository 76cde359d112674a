//! From the message to a check, with everything verified that the tables rely on.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::de::DeserializeSeed;
use serde_json::error::Category;
use uuid::{Uuid, Variant};

use super::error::{DecodeError, cause};
use super::object::{Seed, Text, Trail, object};
use super::{
    ADDRESS_MAX, BODY_BYTES_MAX, HTTP_VERSION_MAX, REDIRECTS_MAX, SECONDS_MAX, URL_MAX, VERSION,
    time,
};
use crate::check::{
    CAPTURE_MAX, CAPTURES_MAX, Check, DETAIL_MAX, Failure, FailureKind, Outcome, Phases, REGION_MAX,
};
use crate::site::PATTERN_MAX;

object! {
    /// The message as it was written.
    Message<'a> at "" {
        v: value i64,
        check_entry_id: value Text<'a>,
        website_id: value i64,
        url: value Text<'a>,
        region: value Text<'a>,
        scheduled_at: value Text<'a>,
        started_at: value Text<'a>,
        outcome: value Text<'a>,
        failure: nested FailureMessage<'a>,
        response_time: value f64,
        phases: nested PhasesMessage<'a>,
        http_status: value i64,
        http_version: value Text<'a>,
        redirects: value i64,
        body_bytes: value i64,
        body_truncated: value bool,
        regex: value Text<'a>,
        regex_match: value bool,
        regex_captures: value Vec<Text<'a>>,
        certificate_expires_at: value Text<'a>,
        remote_address: value Text<'a>,
        last_hop: nested LastHopMessage<'a>,
        tries: value i64,
        unreachable_self: value bool,
    }
}

object! {
    FailureMessage<'a> at "failure." { kind: value Text<'a>, detail: value Text<'a> }
}

object! {
    PhasesMessage<'a> at "phases." {
        resolve: value f64,
        connect: value f64,
        tls: value f64,
        processing: value f64,
        transfer: value f64,
    }
}

object! {
    LastHopMessage<'a> at "last_hop." {
        resolve: value f64,
        connect: value f64,
        tls: value f64,
        processing: value f64,
        transfer: value f64,
    }
}

/// Reads a message. Texts borrow from `message` where they have no escapes.
///
/// A due time with more than milliseconds is cut to them: the id has no more. An id is any UUID of
/// version 7 whose time is the due time; that its hash belongs to the site and the region is not
/// verified, so that the derivation may change.
///
/// # Errors
/// Why it is no message that can be kept.
pub fn decode(message: &[u8]) -> Result<Check<'_>, DecodeError> {
    let text = std::str::from_utf8(message)
        .map_err(|error| DecodeError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    let trail = Trail::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Seed::<Message<'_>>::new(&trail).deserialize(&mut json);
    match read.and_then(|message| json.end().map(|()| message)) {
        Ok(Some(message)) => check(message),
        Ok(None) => Err(DecodeError::NotJson { cause: "it is null".to_owned() }),
        Err(error) => Err(refused(text, &trail, &error)),
    }
}

/// Names what stopped the reader. Another version may have other types, so that is asked first.
fn refused(text: &str, trail: &Trail, error: &serde_json::Error) -> DecodeError {
    object! { Version<'a> at "" { v: value i64 } }
    impl Version<'_> {
        fn of(text: &str) -> Option<i64> {
            let trail = Trail::default();
            let mut json = serde_json::Deserializer::from_str(text);
            let version = Seed::<Version<'_>>::new(&trail).deserialize(&mut json);
            version.ok().flatten()?.v.flatten()
        }
    }
    let field = trail.field.get();
    match error.classify() {
        Category::Data if !field.is_empty() => match Version::of(text) {
            Some(found) if found != i64::from(VERSION) => DecodeError::Version { found },
            _ if trail.is_repeated.get() => DecodeError::Duplicate { field },
            _ => DecodeError::Type { field, cause: cause(error) },
        },
        _ => DecodeError::NotJson { cause: cause(error) },
    }
}

/// Verifies every field.
fn check(message: Message<'_>) -> Result<Check<'_>, DecodeError> {
    let found = required("v", message.v)?;
    if found != i64::from(VERSION) {
        return Err(DecodeError::Version { found });
    }
    let scheduled_at = scheduled_at(&required("scheduled_at", message.scheduled_at)?)?;
    let check = Check {
        check_entry_id: id(&required("check_entry_id", message.check_entry_id)?, scheduled_at)?,
        website_id: number(
            "website_id",
            required("website_id", message.website_id)?,
            0..=i64::MAX,
        )?,
        url: text("url", required("url", message.url)?, 1..=URL_MAX)?,
        region: text("region", required("region", message.region)?, 1..=REGION_MAX)?,
        scheduled_at,
        started_at: optional(message.started_at, |t| moment("started_at", &t))?,
        outcome: outcome(&required("outcome", message.outcome)?)?,
        failure: optional(message.failure, failure)?,
        response_time: seconds("response_time", message.response_time)?,
        phases: phases(&message.phases.flatten().unwrap_or_default())?,
        http_status: optional(message.http_status, |n| number("http_status", n, 100..=999))?,
        http_version: optional(message.http_version, |t| {
            text("http_version", t, 1..=HTTP_VERSION_MAX)
        })?,
        redirects: optional(message.redirects, |n| number("redirects", n, 0..=REDIRECTS_MAX))?,
        body_bytes: optional(message.body_bytes, |n| number("body_bytes", n, 0..=BODY_BYTES_MAX))?,
        body_truncated: message.body_truncated.flatten(),
        regex: optional(message.regex, |t| text("regex", t, 0..=PATTERN_MAX))?,
        regex_match: message.regex_match.flatten(),
        regex_captures: optional(message.regex_captures, captures)?,
        certificate_expires_at: optional(message.certificate_expires_at, |t| expiry(&t))?,
        remote_address: optional(message.remote_address, |t| {
            text("remote_address", t, 1..=ADDRESS_MAX)
        })?,
        last_hop: optional(message.last_hop, |hop| last_hop(&hop))?,
        tries: optional(message.tries, |n| number("tries", n, 1..=u8::MAX))?,
        unreachable_self: message.unreachable_self.flatten().unwrap_or_default(),
    };
    match (check.outcome, &check.failure) {
        (Outcome::Down, None) => {
            Err(DecodeError::Contradiction { cause: "outcome is down without a failure" })
        }
        (Outcome::Up, Some(_)) => {
            Err(DecodeError::Contradiction { cause: "outcome is up with a failure" })
        }
        _ => Ok(check),
    }
}

fn required<T>(field: &'static str, value: Option<Option<T>>) -> Result<T, DecodeError> {
    value.flatten().ok_or(DecodeError::Missing { field })
}

fn optional<T, U>(
    value: Option<Option<T>>,
    verify: impl FnOnce(T) -> Result<U, DecodeError>,
) -> Result<Option<U>, DecodeError> {
    value.flatten().map(verify).transpose()
}

/// A text of so many bytes, without NUL.
fn text<'a>(
    field: &'static str,
    value: Text<'a>,
    bytes: RangeInclusive<usize>,
) -> Result<Cow<'a, str>, DecodeError> {
    if !bytes.contains(&value.0.len()) {
        let (least, most) = bytes.into_inner();
        let cause = format!("has {} bytes; {least} to {most} are possible", value.0.len());
        return Err(DecodeError::range(field, cause));
    }
    // JSON has control characters as escapes only, so what is borrowed has none.
    if matches!(&value.0, Cow::Owned(text) if text.contains('\0')) {
        return Err(DecodeError::range(field, "has a NUL"));
    }
    Ok(value.0)
}

/// A number within `range`.
fn number<T: TryFrom<i64> + PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: i64,
    range: RangeInclusive<T>,
) -> Result<T, DecodeError> {
    T::try_from(value).ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let cause = format!("{value} is not within {} to {}", range.start(), range.end());
        DecodeError::range(field, cause)
    })
}

fn seconds(field: &'static str, value: Option<Option<f64>>) -> Result<Option<f64>, DecodeError> {
    optional(value, |seconds| {
        // A NaN is in no range.
        if (0.0..=SECONDS_MAX).contains(&seconds) {
            return Ok(seconds);
        }
        // As `Debug` has it: a number may have 300 digits, which then become an exponent.
        Err(DecodeError::range(field, format!("{seconds:?} is not within 0 to {SECONDS_MAX} s")))
    })
}

/// A time from 2000 up to 2100: clocks that are set, and due times that an id's 48 bits hold.
fn moment(field: &'static str, value: &Text<'_>) -> Result<Timestamp, DecodeError> {
    const YEARS: RangeInclusive<i64> = 946_684_800..=4_102_444_799;
    time::parse(&value.0)
        .filter(|moment| YEARS.contains(&moment.as_second()))
        .ok_or_else(|| DecodeError::range(field, "is no RFC 3339 time from 2000 up to 2100"))
}

/// When a certificate ends: any time that X.509 and the table know. Appliances show ends long
/// ago, and the year 9999 for "never".
fn expiry(value: &Text<'_>) -> Result<Timestamp, DecodeError> {
    const YEAR_1950: i64 = -631_152_000;
    time::parse(&value.0).filter(|moment| moment.as_second() >= YEAR_1950).ok_or_else(|| {
        let cause = "is no RFC 3339 time from 1950 up to 9999-12-30T22:00:00Z";
        DecodeError::range("certificate_expires_at", cause)
    })
}

fn scheduled_at(value: &Text<'_>) -> Result<Timestamp, DecodeError> {
    let moment = moment("scheduled_at", value)?;
    // Within 2000 to 2100 every millisecond is a timestamp.
    Ok(Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment))
}

fn id(value: &Text<'_>, scheduled_at: Timestamp) -> Result<Uuid, DecodeError> {
    let range = |cause| DecodeError::range("check_entry_id", cause);
    // The parser also takes forms without hyphens, in braces and as URN.
    let id = Some(&value.0)
        .filter(|text| text.len() == 36)
        .and_then(|text| Uuid::try_parse(text).ok())
        .filter(|id| id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122)
        .ok_or_else(|| range("is no hyphenated UUID of version 7"))?;
    if i128::from(scheduled_at.as_millisecond()) != (id.as_u128() >> 80).cast_signed() {
        return Err(range("has another time than scheduled_at"));
    }
    Ok(id)
}

fn outcome(value: &Text<'_>) -> Result<Outcome, DecodeError> {
    Outcome::parse(&value.0).ok_or_else(|| {
        DecodeError::range(
            "outcome",
            format!("is none of {}", Outcome::ALL.map(Outcome::as_str).join(", ")),
        )
    })
}

fn failure(message: FailureMessage<'_>) -> Result<Failure<'_>, DecodeError> {
    let kind = required("failure.kind", message.kind)?;
    let kind = FailureKind::parse(&kind.0).ok_or_else(|| {
        let names = FailureKind::ALL.map(FailureKind::as_str).join(", ");
        DecodeError::range("failure.kind", format!("is none of {names}"))
    })?;
    let detail = required("failure.detail", message.detail)?;
    Ok(Failure { kind, detail: text("failure.detail", detail, 0..=DETAIL_MAX)? })
}

fn phases(message: &PhasesMessage<'_>) -> Result<Phases, DecodeError> {
    Ok(Phases {
        resolve: seconds("phases.resolve", message.resolve)?,
        connect: seconds("phases.connect", message.connect)?,
        tls: seconds("phases.tls", message.tls)?,
        processing: seconds("phases.processing", message.processing)?,
        transfer: seconds("phases.transfer", message.transfer)?,
    })
}

fn last_hop(message: &LastHopMessage<'_>) -> Result<Phases, DecodeError> {
    Ok(Phases {
        resolve: seconds("last_hop.resolve", message.resolve)?,
        connect: seconds("last_hop.connect", message.connect)?,
        tls: seconds("last_hop.tls", message.tls)?,
        processing: seconds("last_hop.processing", message.processing)?,
        transfer: seconds("last_hop.transfer", message.transfer)?,
    })
}

fn captures(values: Vec<Text<'_>>) -> Result<Vec<Cow<'_, str>>, DecodeError> {
    if values.len() > CAPTURES_MAX {
        let cause = format!("has {} entries; at most {CAPTURES_MAX} are possible", values.len());
        return Err(DecodeError::range("regex_captures", cause));
    }
    values.into_iter().map(|value| text("regex_captures", value, 0..=CAPTURE_MAX)).collect()
}
