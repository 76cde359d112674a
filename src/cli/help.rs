//! Help as it is read: paragraphs flow to the terminal's width, and values say what they must be.

use std::ops::RangeInclusive;

use clap::{Command, CommandFactory, FromArgMatches};

/// What was typed; ends the process where it is wrong, or asks for help.
pub(super) fn parse<A: CommandFactory + FromArgMatches>() -> A {
    let mut command = flowing(A::command());
    let matches = command.get_matches_mut();
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// The command and those in it, with paragraphs of one line each behind the options: clap breaks
/// lines that are too long for the terminal, and does not join those that were broken before.
fn flowing(command: Command) -> Command {
    let command = match command.get_after_help().map(ToString::to_string) {
        Some(text) => command.after_help(flow(&text)),
        None => command,
    };
    command.mut_subcommands(flowing)
}

/// Joins the lines of paragraphs. A line that is indented, or begins with the exit codes, stays one.
fn flow(text: &str) -> String {
    let mut flowed: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
        let begins = |line: &str| line.starts_with("Exit code");
        match flowed.last_mut() {
            Some(last) if is_prose(last) && is_prose(line) && !begins(line) => {
                last.push(' ');
                last.push_str(line);
            }
            _ => flowed.push(line.to_owned()),
        }
    }
    flowed.join("\n")
}

/// Reads whole seconds within `range`.
pub(super) fn seconds(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let wrong = || format!("must be whole seconds from {} to {}", range.start(), range.end());
    text.parse().ok().filter(|seconds| range.contains(seconds)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_flow_and_examples_stay() {
        let text = "Examples:\n  a b\n  c\n\nIt is so\nand so.\nExit codes: 0 fine,\n1 bad.";
        let flowed = "Examples:\n  a b\n  c\n\nIt is so and so.\nExit codes: 0 fine, 1 bad.";
        assert_eq!(flow(text), flowed);
    }

    #[test]
    fn seconds_say_their_range() {
        assert_eq!(seconds("3600", 1..=3600), Ok(3600));
        for text in ["0", "3601", "0.1", "-1", "x", ""] {
            let wrong = "must be whole seconds from 1 to 3600".to_owned();
            assert_eq!(seconds(text, 1..=3600), Err(wrong), "{text}");
        }
    }
}
