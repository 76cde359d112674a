//! What the programs say of themselves: `--help` of every command, and docs/commands.md, which is
//! made of it. `WEBMON_UPDATE_GOLDEN=1 cargo test --test help` writes page and golden files anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

use std::fmt::Write as _;
use std::process::{Command, Stdio};

/// Columns that a help text may have.
const WIDTH: usize = 100;
const PROGRAMS: [&str; 3] = ["webmon", "producer", "consumer"];

/// `--help` of a command, such as `webmon config show`.
fn help(words: &[String]) -> String {
    help_at(words, None)
}

/// The same on a terminal of so many columns.
fn help_at(words: &[String], width: Option<usize>) -> String {
    let program = match words[0].as_str() {
        "webmon" => env!("CARGO_BIN_EXE_webmon"),
        "producer" => env!("CARGO_BIN_EXE_producer"),
        "consumer" => env!("CARGO_BIN_EXE_consumer"),
        other => panic!("{other}"),
    };
    let mut command = Command::new(program);
    command.args(&words[1..]).arg("--help").env_clear().current_dir("/").stdin(Stdio::null());
    command.envs(width.map(|width| ("COLUMNS", width.to_string())));
    let output = command.output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // Empty lines of options have the indent of the others.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_end())
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let mut lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = lines.by_ref().take_while(|line| !line.is_empty());
    // A name is indented by two; what is indented by more goes on with the line before.
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Every command with its help, each before those in it.
fn all() -> Vec<(String, String)> {
    all_at(None)
}

fn all_at(width: Option<usize>) -> Vec<(String, String)> {
    fn collect(words: &[String], width: Option<usize>, into: &mut Vec<(String, String)>) {
        let help = help_at(words, width);
        let inner = subcommands(&help);
        into.push((words.join(" "), help));
        for name in inner {
            collect(&[words, &[name]].concat(), width, into);
        }
    }
    let mut found = Vec::new();
    for program in PROGRAMS {
        collect(&[program.to_owned()], width, &mut found);
    }
    found
}

fn check_golden(path: &str, text: &str) {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("WEBMON_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let cure = "WEBMON_UPDATE_GOLDEN=1 cargo test --test help writes it anew";
    assert!(golden == text, "{path} differs ({cure}); it would be:\n{text}");
}

#[test]
fn every_command_says_what_it_does_with_examples_and_fits() {
    let all = all();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    for wanted in ["webmon", "webmon check", "webmon config show", "producer", "consumer"] {
        assert!(names.contains(&wanted), "{names:?}");
    }
    let mut wrong = Vec::new();
    for (name, help) in &all {
        let first = help.lines().next().unwrap_or_default();
        if first.is_empty() || first.starts_with("Usage:") {
            wrong.push(format!("{name}: no description"));
        }
        if !help.contains(&format!("\nUsage: {name}")) {
            wrong.push(format!("{name}: no usage"));
        }
        let examples = help.lines().skip_while(|line| *line != "Examples:").nth(1);
        // Those of all commands that are called so in earnest.
        let program = name.split(' ').next().unwrap_or_default();
        if !examples.is_some_and(|line| line.starts_with("  ") && line.contains(program)) {
            wrong.push(format!("{name}: no examples"));
        }
        let long = help.lines().filter(|line| line.chars().count() > WIDTH);
        wrong.extend(long.map(|line| format!("{name}: too wide: {line}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn paragraphs_fill_their_lines() {
    for width in [72, WIDTH] {
        let mut wrong = Vec::new();
        for (name, help) in all_at(Some(width)) {
            let Some((_, after)) = help.split_once("\nExamples:\n") else { continue };
            let lines: Vec<&str> = after.lines().collect();
            for pair in lines.windows(2) {
                let (line, next) = (pair[0], pair[1]);
                let is_prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let first = next.split(' ').next().unwrap_or_default();
                let has_room = line.chars().count() + 1 + first.chars().count() <= width;
                let ends = next.starts_with("Exit code");
                if is_prose(line) && is_prose(next) && has_room && !ends {
                    wrong.push(format!("{name} at {width}: {line} / {next}"));
                }
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}

#[test]
fn exit_codes_stand_in_the_programs_help() {
    for program in PROGRAMS {
        let help = help(&[program.to_owned()]);
        let (_, codes) = help.split_once("Exit codes:").unwrap_or_else(|| panic!("{help}"));
        for code in ["0 fine", "1 ", "2 wrong use", "3 not found", "4 a service is away", "128 +"] {
            assert!(codes.contains(code), "{program}: no '{code}' in {codes}");
        }
    }
}

#[test]
fn the_programs_help_is_as_it_was() {
    for program in PROGRAMS {
        check_golden(&format!("tests/golden/help_{program}.txt"), &help(&[program.to_owned()]));
    }
}

#[test]
fn the_page_of_commands_is_true() {
    let mut page = String::from(
        "# Commands\n\nMade of each command's `--help`, by \
         `WEBMON_UPDATE_GOLDEN=1 cargo test --test help`: what is wrong here is wrong there.\n\
         `webmon man --dir DIR` writes the same as manual pages, `webmon completions SHELL` teaches \
         a shell the words.\n",
    );
    for (name, help) in all() {
        let level = if name.contains(' ') { "###" } else { "##" };
        // The options that all have stand with their program alone.
        let help = if name.contains(' ') { own(&help) } else { help };
        let _ = write!(page, "\n{level} {name}\n\n```text\n{help}```\n");
    }
    check_golden("docs/commands.md", &page);
}

/// Help without the options that every command has.
fn own(help: &str) -> String {
    let mut kept = String::new();
    let mut is_common = false;
    for line in help.lines() {
        let is_option = line.trim_start().starts_with('-') && line.starts_with("  ");
        if is_option && line.len() - line.trim_start().len() <= 6 {
            is_common = COMMON.iter().any(|option| line.contains(option));
        } else if !line.is_empty() && !line.starts_with(' ') {
            // The empty line before it went with the option.
            if is_common && !kept.ends_with("\n\n") {
                kept.push('\n');
            }
            is_common = false;
        }
        if !is_common {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

const COMMON: [&str; 8] = [
    "--config <",
    "--env-file <",
    "--log-level <",
    "--log-format <",
    "--database-password <",
    "--kafka-password <",
    "-W, --ask-password",
    "-h, --help",
];

#[test]
fn common_options_stand_once() {
    let help = "X\n\nOptions:\n      --a <B>\n          A\n\n      --config <FILE>\n          C\n\n  \
                -h, --help  H\n\nExamples:\n  x --config <FILE>\n";
    assert_eq!(
        own(help),
        "X\n\nOptions:\n      --a <B>\n          A\n\nExamples:\n  x --config <FILE>\n"
    );
}
