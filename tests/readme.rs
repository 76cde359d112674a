//! The README and the pages of docs/ name only what is there: tests, commands, files, headings.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests too

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn readme() -> String {
    text(&root().join("README.md"))
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// The README and what lies beside it and in docs/.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        let entries = fs::read_dir(root().join(folder)).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The table of what earlier tools did: from, feature, here, shown by.
fn features() -> Vec<[String; 4]> {
    let readme = readme();
    let (_, table) =
        readme.split_once("| from | feature | here | shown by |\n").expect("the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        // A bar within code is written with a backslash.
        let cells = row.replace("\\|", "\u{1}");
        let cells: Vec<String> =
            cells.trim_matches('|').split('|').map(str::trim).map(str::to_owned).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("{cells:?}"))
    })
    .collect()
}

#[test]
fn each_feature_of_the_earlier_tools_is_shown_by_a_test_or_a_command() {
    let rows = features();
    assert!(rows.len() > 45, "{}", rows.len());
    let mut tools = BTreeSet::new();
    for [from, feature, here, shown] in rows {
        assert!(!here.is_empty(), "{feature}");
        let has_command = here.contains("`webmon ");
        assert!(shown.contains("`tests/") || shown.contains("[CI]") || has_command, "{feature}");
        tools.insert(from);
    }
    assert_eq!(tools.into_iter().collect::<Vec<_>>(), ["M0", "M1", "M2", "M3", "M4"]);
}

#[test]
fn each_test_that_a_page_names_is_there() {
    let named = pattern(r"`(tests/[a-z0-9_/]+\.rs)(?:::([a-z0-9_]+))?`");
    let (mut count, mut absent) = (0, Vec::new());
    for page in pages() {
        for found in named.captures_iter(&text(&page)) {
            let file = &found[1];
            if !root().join(file).exists() {
                absent.push(found[0].to_owned());
            } else if let Some(name) = found.get(2) {
                let function = format!("#[test]\nfn {}()", name.as_str());
                let source = text(&root().join(file));
                if !source.contains(&function) {
                    absent.push(found[0].to_owned());
                }
                count += 1;
            }
        }
    }
    assert!(absent.is_empty(), "{absent:?}");
    assert!(count > 40, "{count}");
}

/// Commands that have commands.
const FAMILIES: [&str; 4] = ["sites", "topic", "rejected", "config"];

/// What stands in code: the words between backquotes, and the lines of blocks.
fn code(page: &str) -> Vec<String> {
    let span = pattern("`([^`]+)`");
    let (mut found, mut is_block) = (Vec::new(), false);
    for line in page.replace("\\|", "|").lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            found.push(line.to_owned());
        } else {
            found.extend(span.captures_iter(line).map(|found| found[1].to_owned()));
        }
    }
    found
}

#[test]
fn each_command_that_a_page_names_is_understood() {
    let command = pattern(r"(?:^|\| |exec [a-z]+ )webmon ([a-z][a-z-]*)(?: ([a-z][a-z|-]*))?");
    let mut commands = BTreeSet::new();
    for page in pages() {
        // The changelog and the decisions also name what was.
        if page.ends_with("CHANGELOG.md") || page.to_string_lossy().contains("decisions") {
            continue;
        }
        for span in code(&text(&page)) {
            let Some(found) = command.captures(&span) else { continue };
            let (name, rest) = (&found[1], found.get(2).map_or("", |rest| rest.as_str()));
            if FAMILIES.contains(&name) && !rest.is_empty() {
                commands.extend(rest.split('|').map(|sub| vec![name.to_owned(), sub.to_owned()]));
            } else {
                commands.insert(vec![name.to_owned()]);
            }
        }
    }
    assert!(commands.len() > 20, "{commands:?}");
    let is_refused = |command: &Vec<String>| {
        let mut webmon = Command::new(env!("CARGO_BIN_EXE_webmon"));
        let output = webmon.args(command).arg("--help").env_clear().output();
        !output.expect("webmon runs").status.success()
    };
    let refused: Vec<_> = commands.into_iter().filter(is_refused).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// The anchors of a page's headings, as they are made for Markdown on the web.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn each_link_leads_somewhere() {
    let link = pattern(r"\]\(([^)\s]+)\)");
    let (mut count, mut broken) = (0, Vec::new());
    for page in pages() {
        for found in link.captures_iter(&text(&page)) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = page.parent().expect("a folder");
            let file = if file.is_empty() { page.clone() } else { folder.join(file) };
            let leads =
                file.exists() && (anchor.is_empty() || anchors(&text(&file)).contains(anchor));
            if !leads {
                broken.push(format!("{}: {target}", page.display()));
            }
            count += 1;
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
    assert!(count > 50, "{count}");
}
