//! The examples of docs/api.md, run in their order.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

#[path = "support/mod.rs"]
mod support;

#[path = "api/support.rs"]
mod server;

use std::path::Path;
use std::process::Command;

use server::Server;

/// Commands and what they print, of all fenced blocks.
fn examples(text: &str) -> Vec<(String, String)> {
    let mut examples: Vec<(String, String)> = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        match line.strip_prefix("$ ") {
            _ if line == "```" => is_code = !is_code,
            Some(command) if is_code => examples.push((command.to_owned(), String::new())),
            None if is_code => {
                let (_, printed) = examples.last_mut().unwrap();
                printed.push_str(line);
                printed.push('\n');
            }
            _ => {}
        }
    }
    examples
}

/// Whether `printed` is `expected`, in which `…` stands for anything.
fn is_like(printed: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut is_open = false;
    for part in parts {
        is_open = part.is_empty();
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    is_open || rest.is_empty()
}

#[test]
fn every_example_of_the_guide_is_true() {
    let nobody = ("WEBMON_API_ALLOW_PRIVATE_ADDRESSES", "false");
    let server = Server::start_with("api_guide", &[nobody]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md");
    let examples = examples(&std::fs::read_to_string(file).unwrap());
    assert!(examples.len() > 20, "{}", examples.len());
    for (command, expected) in examples {
        assert!(command.starts_with("curl -s "), "{command}");
        let here = command.replace("127.0.0.1:8080", &server.address);
        assert_ne!(here, command);
        let output = Command::new("sh").args(["-c", &here]).output().unwrap();
        assert!(output.status.success(), "{here}: {output:?}; is curl installed?");
        let printed = String::from_utf8(output.stdout).unwrap();
        let (printed, expected) = (printed.trim_end(), expected.trim_end());
        assert!(
            is_like(printed, expected),
            "{command}\n  printed  {printed}\n  expected {expected}"
        );
    }
}

#[test]
fn anything_may_stand_where_the_guide_says_so() {
    for (printed, expected, is) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abc", "a…c", true),
        ("abc", "a…", true),
        ("abcd", "a…c", false),
        ("abc", "…x…", false),
    ] {
        assert_eq!(is_like(printed, expected), is, "{printed} {expected}");
    }
}
