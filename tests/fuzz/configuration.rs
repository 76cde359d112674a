//! The configuration: never a panic, in time, and every fault has a text.
//!
//! An input is the file, a line `=== environment`, and lines `NAME=value`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use webmon::config::{Sources, load, show};
use webmon::runtime::now;

use super::runner::Target;

const WORDS: &[&str] = &[
    "database:",
    "kafka:",
    "monitoring:",
    "producer:",
    "consumer:",
    "websites:",
    "storage:",
    "log:",
    "\n  ",
    "\n- name: x\n  url: http://x/",
    "  interval: 30",
    "  ssl: {mode: verify-full}",
    "allowed_addresses: [10.0.0.0/8]",
    "denied_addresses: [fd00::/8, 1.1.1.1]",
    "[",
    "]",
    "{",
    "}",
    "&a",
    "*a",
    "<<: *a",
    "!!str",
    "!!binary",
    "? ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "${X}",
    "${X:-y}",
    "${",
    "$$",
    "~",
    "null",
    "true",
    "1MiB",
    ".inf",
    "0x10",
    "1_000",
    "'",
    "\"",
    "# ",
    "=== environment\n",
    "WEBMON_DATABASE_PORT=1\n",
    "WEBMON_MONITORING_DENIED_ADDRESSES=10.0.0.0/8",
    "KAFKA_HOST=a,b:1",
    "X=y\n",
    "\u{feff}",
    "\u{85}",
    "\t",
];
/// What is read of an input, in bytes: a file with thousands of faults takes a second even of an
/// optimised build, and the short run shall try many.
const INPUT_MAX: usize = 16 << 10;
/// What one configuration may take: far more than it does in any build on a busy machine, far less
/// than what grows by powers.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Whether the input may name a command, which `load` would run. A backslash could hide one.
fn may_run_something(input: &[u8]) -> bool {
    let input = input.to_ascii_lowercase();
    input.contains(&b'\\') || input.windows(7).any(|part| part == b"command")
}

/// The file and the environment of an input.
fn parts(input: &[u8]) -> (&[u8], BTreeMap<String, String>) {
    const SEAM: &[u8] = b"=== environment\n";
    let Some(at) = input.windows(SEAM.len()).position(|part| part == SEAM) else {
        return (input, BTreeMap::new());
    };
    let lines = String::from_utf8_lossy(&input[at + SEAM.len()..]);
    // As an operating system has it: no zero byte, and a name.
    let variables = lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (&input[..at], variables)
}

#[test]
fn config() {
    let dir = tempfile::tempdir().unwrap();
    Target { name: "config", words: WORDS, cases: 1000 }.run(|input| {
        if may_run_something(input) {
            return;
        }
        let (file, variables) = parts(&input[..input.len().min(INPUT_MAX)]);
        fs::write(dir.path().join("config.yaml"), file).unwrap();
        let mut sources = Sources { cwd: dir.path().to_owned(), ..Sources::default() };
        sources.environment.extend(variables);
        let start = now().mono;
        match load(&sources) {
            Ok(loaded) => assert!(!show(&loaded).is_empty()),
            Err(faults) => {
                let text = faults.to_string();
                assert!(!faults.0.is_empty());
                assert_eq!(text.lines().count(), faults.0.len(), "{text}");
                for line in text.lines() {
                    assert!(line.len() > 3 && !line.contains(char::is_control), "{line:?}");
                }
            }
        }
        let took = now().mono - start;
        assert!(took < TIME_MAX, "{took:?}");
    });
}
