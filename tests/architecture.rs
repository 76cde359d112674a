//! The rooms of `src/` and the house rules, held by reading the source. A rule that is in the way
//! is changed here and in ARCHITECTURE.md, in one commit.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{code_of, paths, without_tests};

/// Every room and the rooms it may use.
const ROOMS: [(&str, &[&str]); 17] = [
    ("runtime", &[]),
    ("site", &[]),
    ("check", &["site"]),
    ("schedule", &["site", "check"]),
    ("incident", &["site", "check"]),
    ("wire", &["site", "check"]),
    ("config", &["site", "runtime"]),
    ("telemetry", &["runtime"]),
    ("probe", &["site", "check", "telemetry", "runtime"]),
    ("spool", &["runtime", "telemetry"]),
    ("kafka", &["runtime", "telemetry"]),
    ("store", &["site", "check", "incident", "wire", "telemetry", "runtime"]),
    (
        "producer",
        &[
            "runtime",
            "site",
            "check",
            "schedule",
            "wire",
            "config",
            "telemetry",
            "probe",
            "spool",
            "kafka",
            "store",
        ],
    ),
    (
        "consumer",
        &["wire", "kafka", "store", "incident", "check", "site", "telemetry", "runtime", "spool"],
    ),
    ("notify", &["store", "incident"]),
    ("api", &["runtime", "site", "check", "incident", "wire", "telemetry", "probe", "store"]),
    (
        "cli",
        &[
            "runtime",
            "site",
            "check",
            "schedule",
            "incident",
            "wire",
            "config",
            "telemetry",
            "probe",
            "spool",
            "kafka",
            "store",
            "producer",
            "consumer",
            "notify",
            "api",
        ],
    ),
];

/// The programs: not a room, and they know only this one.
const BIN_USES: [&str; 1] = ["cli"];

/// Rooms that get time handed in and do no I/O, and what they therefore must not name.
const PURE: [&str; 5] = ["site", "check", "schedule", "incident", "wire"];
const IMPURE: [&str; 17] = [
    "std::net",
    "std::fs",
    "std::io",
    "std::os",
    "std::thread",
    "std::process",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "log",
    "print",
    "println",
    "eprint",
    "eprintln",
    "crossbeam_channel",
];

/// Libraries, and the only rooms that may name them.
const LIBRARIES: [(&str, &[&str]); 22] = [
    ("postgres", &["store"]),
    ("postgres_types", &["store"]),
    ("tokio_postgres", &["store"]),
    ("tokio_postgres_rustls", &["store"]),
    ("r2d2", &["store"]),
    ("r2d2_postgres", &["store"]),
    ("kafka", &["kafka"]),
    ("kafka_protocol", &["kafka"]),
    ("zstd", &["kafka"]),
    ("lz4", &["kafka"]),
    ("snap", &["kafka"]),
    ("ureq", &["probe"]),
    // Each of the three has its own connections and trust.
    ("rustls", &["probe", "store", "kafka"]),
    ("redb", &["spool"]),
    ("clap", &["cli"]),
    ("serde", &["wire", "config", "api"]),
    ("serde_json", &["wire", "config", "api", "telemetry", "store", "cli"]),
    ("serde_yaml", &["config", "cli"]),
    ("csv", &["cli"]),
    ("unicode_width", &["cli"]),
    ("prometheus_client", &["telemetry"]),
    ("signal_hook", &["runtime"]),
];

/// Most lines of a file, tests included.
const LINES_MAX: usize = 500;
/// Most lines of a program: parse, run, exit code.
const BIN_LINES_MAX: usize = 30;

/// The room of a file: `src/site.rs` and `src/wire/time.rs` are in `site` and `wire`. `src/bin/`
/// counts as `bin`; `src/lib.rs` is in none.
fn room_of(file: &Path) -> Option<String> {
    let mut parts = file.strip_prefix("src").ok()?.components();
    let first = Path::new(parts.next()?.as_os_str());
    let name = first.file_stem()?.to_string_lossy().into_owned();
    (first != Path::new("lib.rs")).then_some(name)
}

/// How many `super` lead from a file's own items out of its room.
fn depth_in_room(file: &Path) -> usize {
    let is_mod = file.file_name().is_some_and(|name| name == "mod.rs");
    file.components().count() - if is_mod { 2 } else { 1 }
}

/// Every breach in one file of `src/`.
fn breaches(file: &Path, text: &str) -> Vec<String> {
    let Some(room) = room_of(file) else { return Vec::new() };
    let uses = match ROOMS.iter().find(|(name, _)| *name == room) {
        Some((_, uses)) => *uses,
        None if room == "bin" => &BIN_USES,
        None => return vec![format!("{}: room '{room}' is not in the table", file.display())],
    };
    let own_root = if room == "bin" { "webmon" } else { "crate" };
    let mut found = Vec::new();
    for path in paths(&without_tests(&code_of(text))) {
        let mut breach = |what: String| {
            found.push(format!("{}:{}: {what}: {path}", file.display(), path.line));
        };
        let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        let supers = segments.iter().take_while(|segment| **segment == "super").count();
        if supers >= depth_in_room(file) {
            breach("leaves the room by super; write crate::".to_owned());
        }
        match segments.as_slice() {
            [root, other, ..] if *root == own_root => {
                if *other != room && !uses.contains(other) {
                    breach(format!("room '{room}' may not use '{other}'"));
                }
            }
            [library, ..] => {
                if let Some((_, rooms)) = LIBRARIES.iter().find(|(name, _)| name == library)
                    && !rooms.contains(&room.as_str())
                {
                    breach(format!("only {} may use '{library}'", rooms.join(", ")));
                }
            }
            [] => {}
        }
        if PURE.contains(&room.as_str()) && IMPURE.iter().any(|bad| names_it(&segments, bad)) {
            breach(format!("room '{room}' is pure"));
        }
    }
    found
}

/// Whether a path names `bad`, something in it, or everything around it.
fn names_it(segments: &[&str], bad: &str) -> bool {
    let bad: Vec<&str> = bad.split("::").collect();
    match segments {
        [around @ .., "*"] => bad.starts_with(around) || around.starts_with(&bad),
        _ => segments.starts_with(&bad),
    }
}

/// Every breach of the rules for all files, tests included.
fn house_breaches(file: &Path, text: &str) -> Vec<String> {
    let lines_max = if file.starts_with("src/bin") { BIN_LINES_MAX } else { LINES_MAX };
    let lines = text.lines().count();
    let mut found = Vec::new();
    if lines > lines_max {
        found.push(format!("{}: {lines} lines; at most {lines_max}: split it", file.display()));
    }
    for (line, code) in (1..).zip(code_of(text).lines()) {
        let code: String = code.split_whitespace().collect();
        for (bad, instead) in [
            ("#[ignore", "a test runs or goes"),
            (",ignore", "a test runs or goes"),
            ("todo!(", "what is not done is not merged"),
            ("unimplemented!(", "what is not done is not merged"),
            ("dbg!(", "log, or take it out"),
            ("externcrate", "libraries are named by path"),
        ] {
            if code.contains(bad) && (bad != ",ignore" || code.starts_with("#[cfg_attr")) {
                found.push(format!("{}:{line}: {bad}: {instead}", file.display()));
            }
        }
    }
    found
}

/// All Rust files under `folder`, relative to the package, with their text.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    fn collect(root: &Path, folder: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let file = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                collect(root, &file, into);
            } else if file.extension().is_some_and(|extension| extension == "rs") {
                into.push((file, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(folder), &mut found);
    found
}

fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn every_room_uses_what_the_table_allows() {
    let files = files("src");
    assert!(files.len() > 10);
    let found: Vec<String> = files.iter().flat_map(|(file, text)| breaches(file, text)).collect();
    assert_none(&found);
}

#[test]
fn the_house_rules_hold() {
    let files = [files("src"), files("tests")].concat();
    let found: Vec<String> =
        files.iter().flat_map(|(file, text)| house_breaches(file, text)).collect();
    assert_none(&found);
}

#[test]
fn the_table_has_no_circles_and_only_known_rooms() {
    for (index, (room, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            // A room stands below all that it uses.
            let place = ROOMS.iter().position(|(name, _)| name == used);
            assert!(place.is_some_and(|place| place < index), "{room} uses {used}");
        }
    }
    assert!(PURE.iter().all(|pure| ROOMS.iter().any(|(room, _)| room == pure)));
    let rooms = LIBRARIES.iter().flat_map(|(_, rooms)| rooms.iter());
    assert!(rooms.clone().all(|used| ROOMS.iter().any(|(room, _)| room == used)));
}

/// Expects one breach in `text`, as a file of `src/`, that says `expected`; none when it's empty.
fn check(file: &str, text: &str, expected: &str) {
    let found = breaches(&Path::new("src").join(file), text);
    if expected.is_empty() {
        assert!(found.is_empty(), "{text}: {found:?}");
    } else {
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(expected), "{text}: {found:?}");
    }
}

#[test]
fn a_forbidden_room_is_found_however_it_is_written() {
    let expected = "room 'schedule' may not use 'telemetry'";
    check("schedule/mod.rs", "use crate::telemetry::metrics;", expected);
    check("schedule/a/b.rs", "use crate::{site::Interval, telemetry};", expected);
    check("schedule.rs", "fn f() { crate::telemetry::metrics(); }", expected);
    check("schedule/mod.rs", "use crate::{\n    check,\n    telemetry,\n};", "mod.rs:3: ");
    check("site.rs", "use crate::check::Check;", "room 'site' may not use 'check'");
    check("wire/mod.rs", "use crate::{check, site}; use crate::wire::x; use self::y;", "");
    check("check.rs", "#[cfg(test)]\nmod tests { use crate::runtime::now; }", "");
    check("attic/mod.rs", "", "room 'attic' is not in the table");
    check("bin/producer.rs", "fn main() { webmon::cli::producer() }", "");
    check("bin/producer.rs", "use webmon::producer;", "room 'bin' may not use 'producer'");
}

#[test]
fn leaving_a_room_by_super_is_found() {
    check("wire/decode.rs", "use super::time; use super::super::wire;", "by super");
    check("wire/mod.rs", "use super::kafka;", "by super");
    check("site.rs", "use super::kafka;", "by super");
    check("wire/a/b.rs", "use super::super::time;", "");
    check("wire/a/mod.rs", "use super::time;", "");
}

#[test]
fn clocks_files_sockets_threads_and_logs_are_found_in_pure_rooms() {
    for bad in [
        "use std::net::TcpStream;",
        "use std::{fmt, fs};",
        "use std::io::Write;",
        "fn f() { std::thread::yield_now(); }",
        "use std::process;",
        "fn f() { std::env::var(x); }",
        "use std::time::{Duration, Instant};",
        "use std::time as t; fn f() { t::SystemTime::now(); }",
        "use std::time::*;",
        "fn f() { log::warn!(x); }",
        "use log::warn;",
        "fn f() { println!(); }",
        "use jiff::Timestamp; fn f() { Timestamp::now(); }",
    ] {
        for room in PURE {
            check(&format!("{room}.rs"), bad, "is pure");
        }
        check("runtime/mod.rs", &bad.replace("jiff::", "x::"), "");
    }
    check("schedule/mod.rs", "use std::time::Duration; // std::time::Instant", "");
}

#[test]
fn a_library_outside_its_rooms_is_found() {
    for (library, rooms) in LIBRARIES {
        let text = format!("use {library}::{{X, y::Z}};");
        let expected = format!("only {} may use '{library}'", rooms.join(", "));
        let found = breaches(Path::new("src/producer/mod.rs"), &text);
        assert!(found.len() == 2 && found[0].contains(&expected), "{library}: {found:?}");
        rooms.iter().for_each(|room| check(&format!("{room}/x.rs"), &text, ""));
    }
    // The room of that name is no library.
    check("producer/mod.rs", "use crate::kafka; fn f() { kafka::publish(); }", "");
    check("producer/mod.rs", "#[derive(serde::Serialize)] struct X;", "only wire");
}

#[test]
fn long_files_and_skipped_or_unfinished_work_are_found() {
    let check = |file: &str, text: &str, expected: &str| {
        let found = house_breaches(Path::new(file), text);
        assert_eq!(found.is_empty(), expected.is_empty(), "{text}: {found:?}");
        assert!(found.iter().all(|breach| breach.contains(expected)), "{text}: {found:?}");
    };
    check("src/site.rs", &"\n".repeat(LINES_MAX), "");
    check("src/site.rs", &"\n".repeat(LINES_MAX + 1), "split it");
    check("tests/x.rs", &"\n".repeat(LINES_MAX + 1), "split it");
    check("src/bin/producer.rs", &"\n".repeat(BIN_LINES_MAX + 1), "split it");
    check("tests/x.rs", "#[test]\n#[ignore]\nfn f() {}", "x.rs:2: #[ignore");
    check("tests/x.rs", "#[ignore = \"slow\"]", "a test runs or goes");
    check("tests/x.rs", "#[cfg_attr(unix, ignore)]", "a test runs or goes");
    check("src/site.rs", "fn f() { todo!() }", "not merged");
    check("src/site.rs", "fn f() { unimplemented!(\"x\") }", "not merged");
    check("src/site.rs", "fn f() { dbg!(1); }", "take it out");
    check("src/site.rs", "extern crate postgres as p;", "named by path");
    check("src/site.rs", "// todo!() and #[ignore]\nlet x = \"dbg!(1)\";", "");
}
