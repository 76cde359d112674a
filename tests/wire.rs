//! The message: round trips, golden bytes, refusals, garbage, and the schema.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

#[path = "wire/samples.rs"]
mod samples;

use std::borrow::Cow;

use boon::{Compiler, SchemaIndex, Schemas};
use proptest::prelude::*;
use samples::{arbitrary, at, encoded, full, minimal};
use serde_json::{Map, Value, json};
use webmon::check::{Check, Outcome};
use webmon::wire::{DecodeError, VERSION, decode};

/// `UPDATE_GOLDEN=1 cargo test --test wire` writes the golden files anew.
fn check_golden(name: &str, check: &Check<'_>) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let message = [encoded(check), b"\n".to_vec()].concat();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &message).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(String::from_utf8(message).unwrap(), String::from_utf8(golden.clone()).unwrap());
    assert_eq!(decode(&golden).unwrap(), *check);
}

#[test]
fn the_bytes_are_the_golden_ones() {
    check_golden("message_full.json", &full());
    check_golden("message_minimal.json", &minimal());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back_and_fits_the_schema(check in arbitrary()) {
        let message = encoded(&check);
        prop_assert_eq!(&decode(&message).unwrap(), &check);
        prop_assert!(!message.contains(&b'\n'));
        let (schemas, schema) = schema();
        let value = serde_json::from_slice(&message).unwrap();
        prop_assert!(schemas.validate(&value, schema).is_ok());
    }

    #[test]
    fn damaged_messages_never_panic(
        check in arbitrary(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4), 1..8),
    ) {
        let mut message = encoded(&check);
        for (place, byte, how) in damage {
            let place = place.index(message.len().max(1)).min(message.len());
            match how {
                0 => message.truncate(place),
                1 => message.insert(place, byte),
                2 if place < message.len() => drop(message.remove(place)),
                _ if place < message.len() => message[place] = byte,
                _ => {}
            }
        }
        verify_refusal(&message);
    }

    #[test]
    fn garbage_never_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
        verify_refusal(&message);
    }
}

/// Whatever comes out is either within the limits, so that it can be written and read again, or
/// an error on one short line.
fn verify_refusal(message: &[u8]) {
    match decode(message) {
        Ok(check) => assert!(decode(&encoded(&check)).is_ok(), "{check:?}"),
        Err(error) => {
            let line = error.to_string();
            assert!(!line.is_empty() && line.len() < 300 && !line.contains(char::is_control));
        }
    }
}

#[test]
fn messages_of_earlier_releases_have_one_try_untold() {
    let (mut old, full) = (object(&full()), full());
    for field in ["last_hop", "tries", "unreachable_self"] {
        assert!(old.remove(field).is_some());
    }
    let expected = Check { last_hop: None, tries: None, unreachable_self: false, ..full };
    assert_eq!(decode(&serde_json::to_vec(&old).unwrap()).unwrap(), expected);
    // What says nothing is not written.
    assert_eq!(object(&expected), old);
}

#[test]
fn every_cut_of_a_message_is_refused() {
    let message = encoded(&full());
    for length in 0..message.len() {
        assert!(decode(&message[..length]).is_err(), "{length}");
    }
}

#[test]
fn text_is_borrowed_unless_it_has_escapes() {
    let check = full();
    let message = encoded(&check);
    let read = decode(&message).unwrap();
    assert!(matches!(read.url, Cow::Borrowed(_)) && matches!(read.region, Cow::Borrowed(_)));
    assert!(matches!(read.remote_address, Some(Cow::Borrowed(_))));
    assert!(matches!(read.regex, Some(Cow::Owned(_))), "it has a backslash");
}

#[test]
fn writing_is_lenient_where_reading_is_not() {
    let check = Check {
        response_time: Some(f64::NAN),
        started_at: Some("2026-01-01T00:00:00.0049Z".parse().unwrap()),
        regex_captures: Some(vec!["a\0b".into()]),
        ..minimal()
    };
    let message = encoded(&check);
    let read = decode(&message).unwrap();
    assert_eq!((read.response_time, read.started_at), (None, Some(at(1_767_225_600_004))));
    assert_eq!(read.regex_captures.unwrap(), ["a\u{fffd}b"]);
}

fn object(check: &Check<'_>) -> Map<String, Value> {
    serde_json::from_slice(&encoded(check)).unwrap()
}

/// The full message with `path` (one or two names) set, or taken out.
fn with(path: &str, value: Option<Value>) -> Vec<u8> {
    let mut message = object(&full());
    let (map, key) = match path.split_once('.') {
        Some((outer, inner)) => (message[outer].as_object_mut().unwrap(), inner),
        None => (&mut message, path),
    };
    match value {
        Some(value) => map.insert(key.to_owned(), value),
        None => map.remove(key),
    };
    serde_json::to_vec(&message).unwrap()
}

#[test]
fn readers_take_what_other_writers_may_send() {
    let lenient = [
        ("scheduled_at", json!("2026-01-01T00:00:00Z")),
        ("scheduled_at", json!("2026-01-01T01:00:00.000000000+01:00")),
        ("scheduled_at", json!("2026-01-01T00:00:00.000999Z")),
        ("check_entry_id", json!("019B76DA-A800-7F5B-85E7-5E67B4989BFB")),
        ("response_time", json!(1)),
        ("certificate_expires_at", json!("9999-12-30T22:00:00Z")),
        ("something_new", json!({"v": [1, {"v": 2}], "url": null})),
        ("phases.something_new", json!(null)),
        ("phases", json!({})),
        ("last_hop", json!({})),
        ("unreachable_self", json!(false)),
    ];
    for (path, value) in lenient {
        let message = with(path, Some(value.clone()));
        let read = decode(&message).unwrap_or_else(|error| panic!("{path} {value}: {error}"));
        assert_eq!(read.scheduled_at, full().scheduled_at);
        assert_eq!(read.check_entry_id, full().check_entry_id);
    }
    let spaced = serde_json::to_vec_pretty(&object(&full())).unwrap();
    assert_eq!(decode(&spaced).unwrap(), full());
    let escaped = String::from_utf8(encoded(&full())).unwrap().replace("\"url\"", "\"u\\u0072l\"");
    assert_eq!(decode(escaped.as_bytes()).unwrap(), full());
}

/// Values that break one field's own rules, which the schema knows too.
fn refused_values() -> Vec<(&'static str, Value)> {
    let number = [json!("1"), json!(true), json!([]), json!({}), json!(1.5), json!(-1)];
    let text = [json!(1), json!(false), json!([]), json!({}), json!("a\0b")];
    let time = [json!(0), json!("now"), json!("2026-01-01"), json!("2026-01-01T00:00:00")];
    let seconds = [json!("0.1"), json!(-0.001), json!(1_000_001), json!(true), json!([])];
    let flag = [json!(0), json!("true"), json!({})];
    let mut values = Vec::new();
    let mut add = |paths: &[&'static str], bad: &[Value]| {
        for path in paths {
            values.extend(bad.iter().map(|value| (*path, value.clone())));
        }
    };
    add(&["website_id", "http_status", "redirects", "body_bytes", "tries", "v"], &number);
    add(&["url", "region", "http_version", "regex", "remote_address", "failure.detail"], &text);
    add(&["outcome", "failure.kind", "check_entry_id"], &text);
    add(&["scheduled_at", "started_at", "certificate_expires_at"], &time);
    add(&["response_time", "phases.resolve", "phases.connect", "phases.tls"], &seconds);
    add(&["phases.processing", "phases.transfer"], &seconds);
    add(&["last_hop.resolve", "last_hop.connect", "last_hop.tls"], &seconds);
    add(&["last_hop.processing", "last_hop.transfer"], &seconds);
    add(&["body_truncated", "regex_match", "unreachable_self"], &flag);
    let other = [json!(1), json!("x"), json!(true)];
    add(&["failure", "phases", "last_hop", "regex_captures"], &other);
    add(&["failure", "phases", "last_hop"], &[json!([])]);
    add(&["failure"], &[json!({}), json!(null), json!({"kind": "dns"}), json!({"detail": ""})]);
    add(&["regex_captures"], &[json!({}), json!([null]), json!([1]), json!(["a\0"])]);
    add(&["regex_captures"], &[json!(vec!["x"; 21]), json!(["x".repeat(1025)])]);
    add(&["website_id"], &[json!(-1), json!(u64::MAX)]);
    add(&["http_status"], &[json!(99), json!(1000)]);
    add(&["redirects"], &[json!(1001)]);
    add(&["tries"], &[json!(0), json!(256)]);
    add(&["body_bytes"], &[json!(2_147_483_648_u64)]);
    add(&["url"], &[json!(""), json!("x".repeat(8193))]);
    add(&["region"], &[json!(""), json!("x".repeat(65))]);
    add(&["failure.detail"], &[json!("x".repeat(501))]);
    add(&["regex"], &[json!("x".repeat(1025))]);
    add(&["http_version"], &[json!(""), json!("x".repeat(17))]);
    add(&["remote_address"], &[json!(""), json!("x".repeat(129))]);
    add(&["outcome"], &[json!("UP"), json!("unknown"), json!("up")]);
    add(&["failure.kind"], &[json!("DNS"), json!("")]);
    add(&["check_entry_id"], &[json!("019b76daa8007f5b85e75e67b4989bfb"), json!("x")]);
    add(&["check_entry_id"], &[json!("019b76da-a800-4f5b-85e7-5e67b4989bfb")]);
    add(&["check_entry_id"], &[json!("019b76da-a800-7f5b-c5e7-5e67b4989bfb")]);
    add(&["v"], &[json!(2), json!(0)]);
    values
}

fn schema_value() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/message.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn schema() -> (Schemas, SchemaIndex) {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("message.schema.json", schema_value()).unwrap();
    let index = compiler.compile("message.schema.json", &mut schemas).unwrap();
    (schemas, index)
}

#[test]
fn what_breaks_a_rule_is_refused_by_reader_and_schema_and_names_the_field() {
    let (schemas, index) = schema();
    for (path, value) in refused_values() {
        let message = with(path, Some(value.clone()));
        let error = decode(&message).err().unwrap_or_else(|| panic!("{path} took {value}"));
        let named = match &error {
            DecodeError::Missing { field }
            | DecodeError::Type { field, .. }
            | DecodeError::Range { field, .. } => field.starts_with(path),
            DecodeError::Version { .. } => path == "v",
            DecodeError::Contradiction { .. } => path == "outcome" || path == "failure",
            _ => false,
        };
        assert!(named, "{path} = {value}: {error}");
        let message = serde_json::from_slice(&message).unwrap();
        assert!(schemas.validate(&message, index).is_err(), "the schema takes {path} = {value}");
    }
}

#[test]
fn the_schema_has_the_fields_of_the_message_and_requires_the_same() {
    fn names(of: &Value) -> Vec<&String> {
        let mut names: Vec<_> = of.as_object().unwrap().keys().collect();
        names.sort();
        names
    }
    let (schema, message) = (schema_value(), Value::Object(object(&full())));
    let properties = &schema["properties"];
    assert_eq!(names(properties), names(&message));
    assert_eq!(names(&properties["failure"]["properties"]), names(&message["failure"]));
    assert_eq!(names(&properties["phases"]["properties"]), names(&message["phases"]));
    assert_eq!(names(&properties["last_hop"]["properties"]), names(&message["last_hop"]));

    let (schemas, index) = self::schema();
    let top = names(&message).into_iter().cloned();
    let inner = ["failure", "phases", "last_hop"].into_iter().flat_map(|outer| {
        names(&message[outer]).into_iter().map(move |name| format!("{outer}.{name}"))
    });
    for path in top.chain(inner) {
        for value in [None, Some(Value::Null)] {
            let message = with(&path, value);
            let value = serde_json::from_slice(&message).unwrap();
            let (is_read, fits) = (decode(&message), schemas.validate(&value, index));
            assert_eq!(is_read.is_ok(), fits.is_ok(), "{path}: {is_read:?}");
        }
    }
    // Which those are is a contract.
    let required =
        ["v", "check_entry_id", "website_id", "url", "region", "scheduled_at", "outcome"];
    assert_eq!(schema["required"], json!(required));
    assert_eq!(names(&Value::Object(object(&minimal()))).len(), required.len());
    for field in required {
        let refused = decode(&with(field, None)).map(|check| check.website_id);
        assert_eq!(refused, Err(DecodeError::Missing { field }));
    }
}

/// Refusals that a schema can't express, or that are no JSON to begin with.
#[test]
fn other_refusals_have_their_reasons() {
    fn check(message: impl AsRef<[u8]>, reason: &str, text: &str) {
        let error = decode(message.as_ref()).unwrap_err();
        assert_eq!((error.reason(), error.to_string().contains(text)), (reason, true), "{error}");
    }
    let full_text = String::from_utf8(encoded(&full())).unwrap();
    check(b"\xff{}", "not_utf8", "after byte 0");
    for bad in
        ["", "{", "[]", "null", "7", "\"x\"", "{} {}", "{\"v\":1e999}", "{\"v\":NaN}", "{1:2}"]
    {
        check(bad, "not_json", "no JSON object: ");
    }
    check("[".repeat(100_000), "not_json", "");
    check(format!("{{\"x\":{}", "[".repeat(100_000)), "not_json", "EOF");
    check(full_text.replace("default", "def\\ud800"), "not_json", "escape");
    check("{}", "missing", "v is missing");
    check("{\"v\":2}", "version", "version 2; this program reads version 1");
    check("{\"url\":7,\"v\":2}", "version", "version 2");
    check("{\"url\":7,\"v\":1}", "type", "url: invalid type");
    check("{\"v\":1,\"v\":1}", "duplicate", "v is there twice");
    check("{\"v\":1,\"url\":null,\"url\":\"x\"}", "duplicate", "url is there twice");
    check("{\"v\":1,\"phases\":{\"tls\":1,\"tls\":1}}", "duplicate", "phases.tls");
    check(with("scheduled_at", Some(json!("2026-01-01T00:00:00.001Z"))), "range", "another time");
    check(with("scheduled_at", Some(json!("1999-12-31T23:59:59.999Z"))), "range", "scheduled_at");
    check(with("started_at", Some(json!("2100-01-01T00:00:00Z"))), "range", "started_at");
    check(with("started_at", Some(json!("2026-02-29T00:00:00Z"))), "range", "started_at");
    check(with("certificate_expires_at", Some(json!("1949-12-31T23:59:59Z"))), "range", "1950");
    check(with("region", Some(json!("ä".repeat(33)))), "range", "has 66 bytes; 1 to 64");
    check(with("url", Some(json!({"a": "\n".repeat(1000)}))), "type", "url: ");
    assert_eq!(VERSION, 1);
}

#[test]
fn outcome_and_failure_agree() {
    let down = Check { outcome: Outcome::Down, ..minimal() };
    let up = Check { outcome: Outcome::Up, failure: full().failure, ..minimal() };
    for check in [down, up] {
        let message = encoded(&check);
        assert_eq!(decode(&message).unwrap_err().reason(), "contradiction");
    }
    for failure in [None, full().failure] {
        let message = encoded(&Check { failure, ..minimal() });
        assert!(decode(&message).is_ok());
    }
}
