//! `completions` and `man`: made of the same table of commands as `--help`.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::args::{ConsumerArgs, ProducerArgs, WebmonArgs};
use super::exit::Exit;
use super::output;
use super::shell_args::{CompletionsArgs, ManArgs, Program};

fn command(program: Program) -> Command {
    match program {
        Program::Webmon => WebmonArgs::command(),
        Program::Producer => ProducerArgs::command(),
        Program::Consumer => ConsumerArgs::command(),
    }
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), Exit> {
    let mut command = command(args.program);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

pub(super) fn man(args: &ManArgs) -> Result<(), Exit> {
    let pages = pages();
    match &args.dir {
        Some(dir) => pages.iter().try_for_each(|(name, page)| write(dir, name, page)),
        None => match pages.iter().find(|(name, _)| *name == args.page) {
            Some((_, page)) => output::line(page.trim_end()),
            None => {
                let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
                Err(Exit::NotFound(format!(
                    "webmon man: there is no page '{}'; these are: {}",
                    args.page,
                    names.join(", ")
                )))
            }
        },
    }
}

fn write(dir: &Path, name: &str, page: &str) -> Result<(), Exit> {
    let file = dir.join(format!("{name}.1"));
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file, page));
    written.map_err(|error| {
        Exit::Failed(format!("webmon man: {} can't be written: {error}", file.display()))
    })
}

/// All pages with their names.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for program in [Program::Webmon, Program::Producer, Program::Consumer] {
        // `help` says what the pages say.
        let mut command = command(program).disable_help_subcommand(true);
        command.build();
        collect(&command, &mut pages);
    }
    pages
}

fn collect(command: &Command, pages: &mut Vec<(String, String)>) {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    pages.push((name, page(command)));
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        collect(inner, pages);
    }
}

fn page(command: &Command) -> String {
    let man = Man::new(command.clone()).section("1").manual("webmon");
    let mut page = Vec::new();
    // Writing to a Vec can't fail.
    let _ = man.render_title(&mut page);
    let _ = man.render_name_section(&mut page);
    let _ = man.render_synopsis_section(&mut page);
    let _ = man.render_description_section(&mut page);
    let _ = man.render_options_section(&mut page);
    if command.has_subcommands() {
        let _ = man.render_subcommands_section(&mut page);
    }
    let mut more = Roff::new();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for (title, lines) in sections(&after) {
        more.control("SH", [title]);
        if title == EXAMPLES {
            // As it stands: a line is a command.
            more.control("nf", []);
            for line in lines {
                more.text([roman(line.trim_start())]);
            }
            more.control("fi", []);
        } else {
            more.text([roman(lines.join(" "))]);
        }
    }
    let _ = more.to_writer(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

const EXAMPLES: &str = "EXAMPLES";

/// What stands behind the options in `--help`, as sections of a page.
fn sections(after: &str) -> Vec<(&'static str, Vec<&str>)> {
    let mut sections: Vec<(&'static str, Vec<&str>)> = Vec::new();
    let mut is_open = false;
    for line in after.lines() {
        let (title, line) = if line.starts_with("Examples:") {
            (Some(EXAMPLES), "")
        } else if let Some(codes) = line.strip_prefix("Exit codes:") {
            (Some("EXIT STATUS"), codes.trim())
        } else if !line.is_empty() && !is_open {
            (Some("NOTES"), line)
        } else {
            (None, line)
        };
        is_open = !line.is_empty() || title.is_some();
        if let Some(title) = title {
            sections.push((title, Vec::new()));
        }
        if let Some((_, lines)) = sections.last_mut().filter(|_| !line.is_empty()) {
            lines.push(line);
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_becomes_sections() {
        let after = "Examples:\n  a b\n  c\n\nIt is so\nand so.\nExit codes: 0 fine,\n1 bad.";
        assert_eq!(
            sections(after),
            [
                (EXAMPLES, vec!["  a b", "  c"]),
                ("NOTES", vec!["It is so", "and so."]),
                ("EXIT STATUS", vec!["0 fine,", "1 bad."]),
            ]
        );
        assert!(sections("").is_empty());
    }

    #[test]
    fn every_command_has_a_page_of_its_own_name() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for wanted in ["webmon", "webmon-check", "webmon-config-show", "producer", "consumer"] {
            assert!(names.contains(&wanted), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.ends_with("-help")));
    }
}
