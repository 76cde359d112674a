//! The parts of a daemon's health: code, cures and docs name the same ones.

use std::collections::BTreeSet;
use std::path::Path;

fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).expect("a source");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            into.push(code.to_owned());
        }
    }
}

/// The text between the first two quotes.
fn quoted(text: &str) -> Option<String> {
    text.split('"').nth(1).map(str::to_owned)
}

/// The parts that a source speaks of: by a literal, or by a constant of its own.
fn parts_of(source: &str) -> BTreeSet<String> {
    let mut parts = BTreeSet::new();
    for call in [
        "health().expect(",
        "health().well(",
        "health().unwell(",
        "health().well_by(",
        "health().unwell_by(",
    ] {
        for (at, _) in source.match_indices(call) {
            let argument = source[at + call.len()..].trim_start();
            let end = argument.find([',', ')']).expect("an argument's end");
            let argument = argument[..end].trim();
            if argument.starts_with('"') {
                parts.extend(quoted(argument));
            } else if argument.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
                let constant = source.split(&format!("const {argument}: &str = ")).nth(1);
                parts.extend(quoted(constant.expect("a constant of the same file")));
            }
        }
    }
    // The parts of the two ways of delivery, and those that a list names.
    for call in ["fn part(&self) -> &'static str {", "for part in [delivery.part(), "] {
        let after = source.split(call).skip(1);
        parts.extend(after.filter_map(|rest| quoted(rest.get(..60).unwrap_or(rest))));
    }
    parts
}

#[test]
fn code_cures_and_docs_name_the_same_parts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    sources(&root.join("src"), &mut texts);
    let in_code: BTreeSet<String> = texts.iter().flat_map(|text| parts_of(text)).collect();
    assert!(in_code.len() >= 9, "{in_code:?}");

    let docs = std::fs::read_to_string(root.join("docs/operations-unwell.md")).expect("the page");
    let in_docs: BTreeSet<String> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`').map(str::to_owned))
        .collect();
    assert_eq!(in_docs, in_code, "docs/operations-unwell.md and the code");

    let cures = std::fs::read_to_string(root.join("src/cli/cures.rs")).expect("the cures");
    let in_cures: BTreeSet<String> =
        cures.lines().filter_map(|line| quoted(line.trim().strip_prefix("name: ")?)).collect();
    assert_eq!(in_cures, in_code, "src/cli/cures.rs and the code");
}

#[test]
fn parts_are_found_however_they_are_named() {
    let source = "const PART: &str = \"a\";\nhealth().well(PART); health().unwell_by(\"b\", 1, x);\n\
                  fn part(&self) -> &'static str {\n \"c\" }\nhealth().well(delivery.part());";
    let found: Vec<String> = parts_of(source).into_iter().collect();
    assert_eq!(found, ["a", "b", "c"]);
}

/// The longest piece of a message that stands there as it is.
fn fixed(message: &str) -> String {
    let mut pieces = Vec::new();
    let mut rest = message;
    while let Some((piece, behind)) = rest.split_once('{') {
        pieces.push(piece);
        rest = behind.split_once('}').map_or("", |(_, behind)| behind);
    }
    pieces.push(rest);
    let longest = pieces.into_iter().max_by_key(|piece| piece.trim().len());
    longest.unwrap_or_default().trim_matches([' ', ':']).to_owned()
}

#[test]
fn the_page_explains_every_finding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source =
        std::fs::read_to_string(root.join("src/cli/status/findings.rs")).expect("findings");
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let page = std::fs::read_to_string(root.join("docs/operations-unwell.md")).expect("the page");
    let mut messages: Vec<String> = code
        .match_indices(".add(")
        .filter_map(|(at, call)| quoted(code.get(at + call.len()..)?))
        .map(|message| fixed(&message))
        // A message of nothing but a name, a part and a cause, which the first table has.
        .filter(|message| message.len() > 2)
        .collect();
    let cures = std::fs::read_to_string(root.join("src/cli/cures.rs")).expect("the cures");
    let words =
        ["PostgreSQL is away", "PostgreSQL can't be asked", "the tables are not up to date"];
    assert!(words.iter().all(|word| cures.contains(word)), "the words of the trouble");
    messages.extend(words.map(str::to_owned));
    assert!(messages.len() > 14, "{messages:?}");
    let missing: Vec<&String> = messages.iter().filter(|m| !page.contains(*m)).collect();
    assert!(missing.is_empty(), "docs/operations-unwell.md does not have {missing:?}");
}

#[test]
fn the_table_has_the_parts_of_the_api() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/operations-unwell.md")).expect("the page");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| !line.starts_with("| part |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let column = rows[0].iter().position(|head| *head == "`api`").expect("a column of the API");
    let parts: Vec<&str> = rows.iter().filter(|row| row[column] == "x").map(|row| row[0]).collect();
    assert_eq!(parts, ["`database`"]);
}
