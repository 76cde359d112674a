//! What the tests of the spool share.

// Each test binary uses its own part of it; clippy allows unwrap in test functions only, not in
// what they call.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use webmon::runtime::{Stop, Threads, now};
use webmon::spool::{Spool, SpoolOptions};
use webmon::telemetry::{ByReason, metrics};

pub(crate) const CAP: Duration = Duration::from_secs(20);

pub(crate) fn options(dir: &Path) -> SpoolOptions {
    SpoolOptions { dir: dir.to_owned(), max_bytes: 1 << 30, max_records: 10_000_000, sync: true }
}

pub(crate) fn threads() -> Threads {
    Threads::new(Stop::new())
}

pub(crate) fn open(dir: &Path) -> Spool {
    Spool::open(options(dir), &mut threads()).unwrap()
}

pub(crate) fn record(sequence: u64) -> Vec<u8> {
    let mut record = format!("record {sequence} ").into_bytes();
    record.resize(record.len() + (sequence % 700) as usize, b'x');
    record
}

pub(crate) fn append(spool: &Spool, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        assert!(spool.append(record(sequence)), "record {sequence} refused");
    }
}

pub(crate) fn read_all(spool: &Spool) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |(sequence, _)| *sequence);
        let some = spool.read(after, 1000, 1 << 20).unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

pub(crate) fn expect(spool: &Spool, sequences: std::ops::RangeInclusive<u64>) {
    let wanted: Vec<_> = sequences.map(|sequence| (sequence, record(sequence))).collect();
    let found = read_all(spool);
    let numbers = |of: &[(u64, Vec<u8>)]| of.iter().map(|(n, _)| *n).collect::<Vec<_>>();
    assert_eq!(numbers(&found), numbers(&wanted));
    assert!(found == wanted, "contents differ");
}

/// Waits for `done`, then says what `status` says if it never came.
pub(crate) fn until(status: impl Fn() -> String, done: impl Fn() -> bool) {
    let (end, pause) = (now().mono + CAP, Stop::new());
    while !done() {
        assert!(now().mono < end, "not within {CAP:?}: {}", status());
        let _ = pause.wait(Duration::from_millis(5));
    }
}

/// Metrics and health belong to the process: a test that looks at them runs in one of its own.
/// `true` in that one.
pub(crate) fn is_alone(test: &str) -> bool {
    if std::env::var_os("WEBMON_TEST_ALONE").is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("WEBMON_TEST_ALONE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

pub(crate) fn lost(reason: &'static str) -> u64 {
    metrics().spool_lost.get_or_create(&ByReason { reason }).get()
}
