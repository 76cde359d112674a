//! Messages and the producer's copy of the site list: never a panic, and what is read can be
//! written and read again.

use webmon::check::Check;
use webmon::wire::{decode, encode, site_list};

use super::runner::Target;

const WORDS: &[&str] = &[
    "\"v\":1",
    "\"url\":",
    "\"failure\":{\"kind\":\"dns\",\"detail\":\"x\"}",
    "\"phases\":{",
    "null",
    "true",
    "[",
    "]",
    "{",
    "}",
    "\"\"",
    ",",
    "\\u0000",
    "\\ud800",
    "\\n",
    "1e400",
    "-0.0",
    "0.001",
    "\"2026-01-01T00:00:00Z\"",
    "\"9999-12-31T23:59:59.999Z\"",
    "\"-009999-01-01T00:00:00Z\"",
    "\"up\"",
    "\"down\"",
    "\"missed\"",
    "\"regex_captures\":[\"a\"]",
    "\"http_status\":200",
    "\"sites\":[",
    "\"website_id\":1",
];

#[test]
fn wire() {
    Target { name: "wire", words: WORDS, cases: 40_000 }.run(|message| {
        match decode(message) {
            Ok(check) => {
                // Times keep their milliseconds, seconds their microseconds: from there on, the
                // same again.
                let written = encoded(&check);
                let read = rounded(decode(&written).unwrap());
                let message = encoded(&read);
                assert_eq!(decode(&message).unwrap(), read);
                assert_eq!((read.check_entry_id, &read.url), (check.check_entry_id, &check.url));
            }
            Err(error) => assert_is_a_line(&error.to_string()),
        }
        match site_list::decode(message) {
            Ok(sites) => assert_eq!(site_list::decode(&site_list::encode(&sites)).unwrap(), sites),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

fn rounded(mut check: Check<'_>) -> Check<'_> {
    let phases = &mut check.phases;
    for seconds in [
        &mut check.response_time,
        &mut phases.resolve,
        &mut phases.connect,
        &mut phases.tls,
        &mut phases.processing,
        &mut phases.transfer,
    ] {
        *seconds = seconds.map(|seconds| (seconds * 1e6).round() / 1e6);
    }
    check
}

fn encoded(check: &Check<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    encode(check, &mut message);
    message
}

fn assert_is_a_line(text: &str) {
    let is_line = !text.is_empty() && text.len() < 300 && !text.contains(char::is_control);
    assert!(is_line, "{text:?}");
}
