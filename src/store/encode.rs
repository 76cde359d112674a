//! Checks as PostgreSQL takes them in bulk: as one binary COPY, or as one array per column.
//!
//! Both are made of the same values, each a 4-byte big-endian length (-1 for NULL) and that many
//! bytes. COPY has a header, then each row as a 2-byte count of values and the values, then -1.
//! An array has its dimensions, and its elements' type, before the values. PostgreSQL has no
//! array of arrays that could be absent or of unequal length, so columns that are arrays go into
//! theirs as text literals.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::check::{CAPTURE_MAX, CAPTURES_MAX, Check, DETAIL_MAX, Phases, REGION_MAX};
use crate::site::PATTERN_MAX;

/// 2000-01-01, PostgreSQL's epoch, in µs since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The year 1, in s since 1970: earlier times are no times of checks, though PostgreSQL would
/// take most of them.
const TIME_MIN_S: i64 = -62_135_596_800;

/// The columns, in the table's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Id,
    Website,
    Timestamp,
    Started,
    Certificate,
    ResponseTime,
    Resolve,
    Connect,
    Tls,
    Processing,
    Transfer,
    Status,
    Body,
    Redirects,
    Outcome,
    FailureKind,
    Region,
    Match,
    Regex,
    FailureDetail,
    Captures,
    Tries,
    LastHop,
    UnreachableSelf,
}

/// With the type of a value in [`arrays`].
const COLUMNS: [(Column, &str, Type); 24] = [
    (Column::Id, "check_entry_id", Type::UUID),
    (Column::Website, "website_id", Type::INT8),
    (Column::Timestamp, "\"timestamp\"", Type::TIMESTAMPTZ),
    (Column::Started, "started_at", Type::TIMESTAMPTZ),
    (Column::Certificate, "certificate_expires_at", Type::TIMESTAMPTZ),
    (Column::ResponseTime, "response_time", Type::FLOAT8),
    (Column::Resolve, "resolve", Type::FLOAT4),
    (Column::Connect, "connect", Type::FLOAT4),
    (Column::Tls, "tls", Type::FLOAT4),
    (Column::Processing, "processing", Type::FLOAT4),
    (Column::Transfer, "transfer", Type::FLOAT4),
    (Column::Status, "http_status", Type::INT4),
    (Column::Body, "body_bytes", Type::INT4),
    (Column::Redirects, "redirects", Type::INT2),
    (Column::Outcome, "outcome", Type::TEXT),
    (Column::FailureKind, "failure_kind", Type::TEXT),
    (Column::Region, "region", Type::TEXT),
    (Column::Match, "regex_match", Type::BOOL),
    (Column::Regex, "regex", Type::TEXT),
    (Column::FailureDetail, "failure_detail", Type::TEXT),
    (Column::Captures, "regex_captures", Type::TEXT),
    (Column::Tries, "tries", Type::INT2),
    (Column::LastHop, "last_hop", Type::TEXT),
    (Column::UnreachableSelf, "unreachable_self", Type::BOOL),
];

/// The columns' names, separated by commas, in the table's order.
pub(super) fn column_list() -> String {
    COLUMNS.map(|(_, name, _)| name).join(", ")
}

/// The statement that takes a [`BinaryCopy`].
pub(super) fn copy_statement() -> String {
    format!("COPY check_entry ({}) FROM STDIN (FORMAT binary)", column_list())
}

/// The statement that takes [`arrays`], one parameter per column, and answers with the ids of the
/// new rows. Rows that are there already, or twice in the arrays, are left out.
pub(super) fn insert_statement() -> String {
    let numbered = |f: fn(usize, Column, &Type) -> String| {
        let columns = COLUMNS.iter().enumerate();
        let parts = columns.map(|(index, (column, _, kind))| f(index + 1, *column, kind));
        parts.collect::<Vec<_>>().join(", ")
    };
    let parameters = numbered(|n, _, kind| format!("${n}::{kind}[]"));
    let names = numbered(|n, _, _| format!("c{n}"));
    let selected = numbered(|n, column, _| match column {
        Column::Captures => format!("c{n}::text[]"),
        Column::LastHop => format!("c{n}::real[]"),
        _ => format!("c{n}"),
    });
    format!(
        "INSERT INTO check_entry ({}) SELECT {selected} FROM unnest({parameters}) AS u ({names}) \
         ON CONFLICT DO NOTHING RETURNING check_entry_id",
        column_list(),
    )
}

enum Value<'a> {
    Null,
    Bytes(&'a [u8]),
    Int8(i64),
    Int4(i32),
    Int2(i16),
    Float8(f64),
    Float4(f32),
    Bool(bool),
    Texts(&'a [Cow<'a, str>]),
    Phases(Phases),
}

impl Value<'_> {
    fn or_null<T>(value: Option<T>, make: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, make)
    }
}

/// The value of `column`; whatever does not fit was refused by [`fault`] before.
fn value<'a>(column: Column, check: &'a Check<'_>) -> Value<'a> {
    let time = |time: Timestamp| Value::Int8(time.as_microsecond() - EPOCH_US);
    let text = |text: &'a str| Value::Bytes(text.as_bytes());
    let failure = check.failure.as_ref();
    match column {
        Column::Id => Value::Bytes(check.check_entry_id.as_bytes()),
        Column::Website => Value::Int8(check.website_id),
        Column::Timestamp => time(check.scheduled_at),
        Column::Started => Value::or_null(check.started_at, time),
        Column::Certificate => Value::or_null(check.certificate_expires_at, time),
        Column::ResponseTime => Value::or_null(check.response_time, Value::Float8),
        Column::Resolve => phase(check.phases.resolve),
        Column::Connect => phase(check.phases.connect),
        Column::Tls => phase(check.phases.tls),
        Column::Processing => phase(check.phases.processing),
        Column::Transfer => phase(check.phases.transfer),
        Column::Status => Value::or_null(check.http_status, |s| Value::Int4(i32::from(s))),
        Column::Body => Value::or_null(check.body_bytes, |b| Value::Int4(b as i32)),
        Column::Redirects => Value::or_null(check.redirects, |r| Value::Int2(r as i16)),
        Column::Outcome => text(check.outcome.as_str()),
        Column::FailureKind => Value::or_null(failure, |f| text(f.kind.as_str())),
        Column::Region => text(&check.region),
        Column::Match => Value::or_null(check.regex_match, Value::Bool),
        Column::Regex => Value::or_null(check.regex.as_deref(), text),
        Column::FailureDetail => Value::or_null(failure, |f| text(&f.detail)),
        Column::Captures => Value::or_null(check.regex_captures.as_deref(), Value::Texts),
        Column::Tries => Value::or_null(check.tries, |n| Value::Int2(i16::from(n))),
        Column::LastHop => Value::or_null(check.last_hop, Value::Phases),
        Column::UnreachableSelf => Value::Bool(check.unreachable_self),
    }
}

fn phase(seconds: Option<f64>) -> Value<'static> {
    Value::or_null(seconds, |s| Value::Float4(s as f32))
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // At most a few KiB: fault() bounds every text.
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// How a column that is an array is written.
#[derive(Clone, Copy)]
enum Form {
    Binary,
    Literal,
}

fn put_value(out: &mut Vec<u8>, value: &Value<'_>, form: Form) {
    match value {
        Value::Null => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        Value::Bytes(bytes) => put(out, bytes),
        Value::Int8(number) => put(out, &number.to_be_bytes()),
        Value::Int4(number) => put(out, &number.to_be_bytes()),
        Value::Int2(number) => put(out, &number.to_be_bytes()),
        Value::Float8(number) => put(out, &number.to_be_bytes()),
        Value::Float4(number) => put(out, &number.to_be_bytes()),
        Value::Bool(yes) => put(out, &[u8::from(*yes)]),
        Value::Texts(_) | Value::Phases(_) => {
            let start = out.len();
            out.extend_from_slice(&[0; 4]);
            match (value, form) {
                (Value::Texts(texts), Form::Binary) => put_texts_binary(out, texts),
                (Value::Texts(texts), Form::Literal) => put_texts_literal(out, texts),
                (Value::Phases(phases), Form::Binary) => put_phases_binary(out, phases),
                (Value::Phases(phases), Form::Literal) => put_phases_literal(out, phases),
                _ => {}
            }
            let length = (out.len() - start - 4) as i32;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// What an array in binary begins with: dimensions, whether there are NULLs, element type, then
/// length and lower bound of the one dimension that there is unless it is empty.
fn put_array_head(out: &mut Vec<u8>, has_nulls: bool, kind: &Type, length: usize) {
    for word in [i32::from(length > 0), i32::from(has_nulls), kind.oid() as i32] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    if length > 0 {
        for word in [length as i32, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }
}

/// `text[]` in binary.
fn put_texts_binary(out: &mut Vec<u8>, texts: &[Cow<'_, str>]) {
    put_array_head(out, false, &Type::TEXT, texts.len());
    for text in texts {
        put(out, text.as_bytes());
    }
}

/// `text[]` as a literal: `{"a","b"}`.
fn put_texts_literal(out: &mut Vec<u8>, texts: &[Cow<'_, str>]) {
    out.push(b'{');
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'"');
        for byte in text.bytes() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.push(b'}');
}

/// In the order of the columns `resolve` to `transfer`.
fn five(phases: &Phases) -> [Option<f64>; 5] {
    [phases.resolve, phases.connect, phases.tls, phases.processing, phases.transfer]
}

/// `real[]` of five in binary.
fn put_phases_binary(out: &mut Vec<u8>, phases: &Phases) {
    let phases = five(phases);
    put_array_head(out, phases.contains(&None), &Type::FLOAT4, phases.len());
    for seconds in phases {
        put_value(out, &phase(seconds), Form::Binary);
    }
}

/// `real[]` of five as a literal: `{0.1,NULL,…}`.
fn put_phases_literal(out: &mut Vec<u8>, phases: &Phases) {
    let part = |seconds: Option<f64>| {
        seconds.map_or_else(|| "NULL".to_owned(), |seconds| (seconds as f32).to_string())
    };
    out.extend_from_slice(format!("{{{}}}", five(phases).map(part).join(",")).as_bytes());
}

/// The checks at `rows`, in that order, as one binary COPY.
pub(super) fn binary_copy(checks: &[Check<'_>], rows: &[usize]) -> Vec<u8> {
    // 200 bytes is a usual row.
    let mut out = Vec::with_capacity(rows.len() * 256 + 32);
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for row in rows {
        out.extend_from_slice(&(COLUMNS.len() as i16).to_be_bytes());
        for (column, ..) in &COLUMNS {
            put_value(&mut out, &value(*column, &checks[*row]), Form::Binary);
        }
    }
    out.extend_from_slice(&(-1_i16).to_be_bytes());
    out
}

/// A parameter that is encoded already.
#[derive(Debug)]
pub(super) struct Encoded(Vec<u8>);

impl ToSql for Encoded {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    // Made for the one statement whose parameters are casts to these very types.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The checks at `rows`, in that order, as one array per column.
pub(super) fn arrays(checks: &[Check<'_>], rows: &[usize]) -> Vec<Encoded> {
    let array = |(column, _, kind): &(Column, &str, Type)| {
        let mut out = Vec::with_capacity(rows.len() * 12 + 20);
        // One dimension, NULLs possible, element type, length, lower bound.
        for word in [1, 1, kind.oid() as i32, rows.len() as i32, 1] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        for row in rows {
            put_value(&mut out, &value(*column, &checks[*row]), Form::Literal);
        }
        Encoded(out)
    };
    COLUMNS.iter().map(array).collect()
}

/// Why `check` can't become a row, if so. PostgreSQL itself takes NaN and any length of text,
/// and names no row when an array has a value it refuses, so everything is looked at here.
pub(super) fn fault(check: &Check<'_>) -> Option<String> {
    let phases = &check.phases;
    let seconds = [
        ("response_time", check.response_time),
        ("resolve", phases.resolve),
        ("connect", phases.connect),
        ("tls", phases.tls),
        ("processing", phases.processing),
        ("transfer", phases.transfer),
    ];
    let is_bad = |s: f64| !(0.0..=f64::from(f32::MAX)).contains(&s);
    let last_hop = check.last_hop.iter().flat_map(five).map(|seconds| ("last_hop", seconds));
    let mut seconds = seconds.into_iter().chain(last_hop);
    if let Some((name, _)) = seconds.find(|(_, s)| s.is_some_and(is_bad)) {
        return Some(format!("{name} is no number of seconds"));
    }
    let times = [
        ("scheduled_at", Some(check.scheduled_at)),
        ("started_at", check.started_at),
        ("certificate_expires_at", check.certificate_expires_at),
    ];
    let is_early = |time: Timestamp| time.as_second() < TIME_MIN_S;
    if let Some((name, _)) = times.into_iter().find(|(_, t)| t.is_some_and(is_early)) {
        return Some(format!("{name} is before the year 1"));
    }
    if check.body_bytes.is_some_and(|bytes| i32::try_from(bytes).is_err()) {
        return Some("body_bytes is out of range".to_owned());
    }
    if check.redirects.is_some_and(|redirects| i16::try_from(redirects).is_err()) {
        return Some("redirects is out of range".to_owned());
    }
    let captures = check.regex_captures.as_deref().unwrap_or_default();
    if captures.len() > CAPTURES_MAX {
        return Some(format!("regex_captures has {} entries", captures.len()));
    }
    let text = |name, max, text: Option<&str>| text.and_then(|text| text_fault(name, max, text));
    text("region", REGION_MAX, Some(&check.region))
        .or_else(|| text("regex", PATTERN_MAX, check.regex.as_deref()))
        .or_else(|| {
            text("failure.detail", DETAIL_MAX, check.failure.as_ref().map(|f| f.detail.as_ref()))
        })
        .or_else(|| captures.iter().find_map(|c| text_fault("regex_captures", CAPTURE_MAX, c)))
}

fn text_fault(name: &str, max: usize, text: &str) -> Option<String> {
    if text.len() > max {
        return Some(format!("{name} has {} bytes; at most {max}", text.len()));
    }
    text.contains('\0').then(|| format!("{name} has a NUL character"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Identity;

    fn check() -> Check<'static> {
        let identity = Identity::new(1, "default");
        Check::empty(&identity, 1, String::new(), "default".to_owned(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_statements_name_every_column_once() {
        assert!(copy_statement().starts_with("COPY check_entry (check_entry_id, website_id, "));
        let insert = insert_statement();
        assert!(insert.contains("$1::uuid[]") && insert.contains("$24::bool[]"), "{insert}");
        assert!(insert.contains("c20, c21::text[], c22, c23::real[], c24 FROM"), "{insert}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |expect: &str, change: fn(&mut Check<'static>)| {
            let mut check = check();
            assert_eq!(fault(&check), None);
            change(&mut check);
            assert!(fault(&check).unwrap().starts_with(expect), "{:?}", fault(&check));
        };
        refused("response_time is no", |c| c.response_time = Some(f64::NAN));
        refused("response_time is no", |c| c.response_time = Some(-0.1));
        refused("tls is no", |c| c.phases.tls = Some(1e39));
        refused("last_hop is no", |c| {
            c.last_hop = Some(Phases { tls: Some(-1.0), ..Phases::default() });
        });
        refused("region has a NUL", |c| c.region = "a\0".into());
        refused("regex has 1025", |c| c.regex = Some("x".repeat(1025).into()));
        refused("regex_captures has 21", |c| c.regex_captures = Some(vec!["".into(); 21]));
        refused("regex_captures has a NUL", |c| c.regex_captures = Some(vec!["\0".into()]));
        refused("body_bytes", |c| c.body_bytes = Some(u32::MAX));
        refused("redirects", |c| c.redirects = Some(u16::MAX));
        refused("started_at", |c| c.started_at = Some(Timestamp::MIN));
    }

    #[test]
    fn a_copy_has_the_documented_layout() {
        let bytes = binary_copy(&[check()], &[0]);
        assert_eq!(&bytes[..11], b"PGCOPY\n\xff\r\n\0");
        assert_eq!(&bytes[19..21], 24_i16.to_be_bytes());
        assert_eq!(&bytes[21..25], 16_i32.to_be_bytes());
        assert!(bytes.ends_with(&[0xff; 2]));
    }
}
