//! Files of sites: webmon's own, and other tools'.
//!
//! Invariants:
//! - Nothing is dropped silently: what an entry has and webmon has not is one of its `notes`, an
//!   entry that is none for webmon has a `refusal`, and what is wrong is one of its `faults`.
//! - No value is shown, but that of a name: many are secrets.

mod conditions;
mod csv;
mod fields;
mod file_sd;
mod gatus;
mod kuma;
mod own;
mod statuses;

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::super::exit::Exit;
use super::super::sites_args::ImportFormat;
use crate::config::Sources;
use crate::site::{SiteDefaults, SiteSpec};
use crate::store::SiteStatus;
use crate::wire::website::{self, Secrets};

pub(super) use csv::Writer as CsvWriter;
pub(super) use own::yaml_text;

/// Something about one field of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The key, as the file has it.
    pub(super) field: String,
    /// What is to be said of it, on one line.
    pub(super) message: String,
    /// Its line, from 1, where known.
    pub(super) line: Option<usize>,
}

impl Note {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), line: None }
    }
}

/// A site of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// Its place among all, from 1.
    pub(super) number: usize,
    /// Its line, from 1, where known.
    pub(super) line: Option<usize>,
    /// What to watch; of no use with a fault or a refusal.
    pub(super) spec: SiteSpec,
    /// Whether it is checked, if the file says so.
    pub(super) status: Option<SiteStatus>,
    /// What is wrong.
    pub(super) faults: Vec<Note>,
    /// What webmon has nothing for.
    pub(super) notes: Vec<Note>,
    /// Why it is no site for webmon at all.
    pub(super) refusal: Option<Note>,
}

impl Entry {
    /// Whether it can be imported.
    pub(super) fn is_good(&self) -> bool {
        self.faults.is_empty() && self.refusal.is_none()
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) entries: Vec<Entry>,
    /// What is wrong with the file as a whole: nothing of it is imported.
    pub(super) faults: Vec<Note>,
    /// Of the file as a whole.
    pub(super) notes: Vec<Note>,
}

/// What reading needs beside the text.
pub(super) struct Around<'a> {
    /// What faults call the file.
    pub(super) file: &'a Path,
    pub(super) sources: &'a Sources,
    pub(super) defaults: SiteDefaults,
}

/// Reads all entries of `text`.
pub(super) fn read(
    text: String,
    format: ImportFormat,
    around: &Around<'_>,
) -> Result<Content, Exit> {
    let tree = |text: &str| tree(text).map_err(|problem| wrong(around, &problem));
    let read = match format {
        ImportFormat::Yaml => Ok(own::read_yaml(text, around)?),
        ImportFormat::Json => own::read_json(&text),
        ImportFormat::Csv => csv::read(&text),
        ImportFormat::Gatus => gatus::read(&tree(&text)?),
        ImportFormat::FileSd => file_sd::read(&tree(&text)?),
        ImportFormat::UptimeKuma => kuma::read(&tree(&text)?),
    };
    let mut content = read.map_err(|problem| wrong(around, &problem))?;
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut again: Vec<usize> = Vec::new();
    for at in 0..content.entries.len() {
        let entry = &mut content.entries[at];
        if entry.refusal.is_some() {
            continue;
        }
        if !matches!(format, ImportFormat::Yaml | ImportFormat::Json | ImportFormat::Csv) {
            // Other tools don't mind blanks around a name.
            entry.spec.name = entry.spec.name.trim().to_owned();
        }
        // The configuration's own reader has looked at everything already.
        if format != ImportFormat::Yaml {
            check(entry, around.defaults);
        } else if entry.faults.is_empty() {
            masks(entry);
        }
        let known = *first.entry(entry.spec.name.clone()).or_insert(at);
        if known == at {
            continue;
        }
        let (before, rest) = content.entries.split_at_mut(at);
        let (known, entry) = (&before[known], &mut rest[0]);
        if known.spec == entry.spec && known.status == entry.status && known.is_good() {
            again.push(at);
            content.notes.push(Note::new(
                format!("entry {}", entry.number),
                format!("is the same as entry {}", known.number),
            ));
        } else if !entry.spec.name.is_empty() && !entry.faults.iter().any(|f| f.field == "name") {
            let problem = format!("is the name of entry {} too; rename one", known.number);
            entry.faults.push(Note::new("name", problem));
        }
    }
    let mut at = 0;
    content.entries.retain(|_| {
        at += 1;
        again.binary_search(&(at - 1)).is_err()
    });
    Ok(content)
}

fn wrong(around: &Around<'_>, problem: &str) -> Exit {
    Exit::Usage(format!("webmon sites import: {}: {problem}", around.file.display()))
}

/// Faults that the site itself finds.
fn check(entry: &mut Entry, defaults: SiteDefaults) {
    let known = |entry: &Entry, field: &str| entry.faults.iter().any(|note| note.field == field);
    for fault in entry.spec.faults(defaults) {
        if !known(entry, fault.field) {
            entry.faults.push(Note::new(fault.field, fault.message));
        }
    }
    masks(entry);
}

/// Masks stand for secrets that are not in the file, and a NUL is nowhere.
fn masks(entry: &mut Entry) {
    let faults = website::decode(website::encode(&entry.spec, Secrets::Shown), None).err();
    for fault in faults.unwrap_or_default() {
        if !entry.faults.iter().any(|note| note.field == fault.field) {
            entry.faults.push(Note::new(fault.field, fault.message));
        }
    }
}

/// YAML, and so JSON, as a tree.
fn tree(text: &str) -> Result<Value, String> {
    // JSON first: it is quicker.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    // The error itself may show a value, which may be a secret.
    let bad = |error: &serde_yaml::Error| {
        let line = error.location().map(|place| format!("line {}: ", place.line()));
        format!("{}is no good YAML or JSON", line.unwrap_or_default())
    };
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| bad(&error))?;
    value.apply_merge().map_err(|error| bad(&error))?;
    serde_json::to_value(value).map_err(|_| "has a key that is no text".to_owned())
}

/// What a text is written in, by its first lines and the file's name.
///
/// # Errors
/// What begins as JSON, and is neither that nor YAML.
pub(super) fn guess(text: &str, file: &Path) -> Result<Option<ImportFormat>, String> {
    if text.trim_start().starts_with(['{', '[']) {
        let (value, own) = match serde_json::from_str::<Value>(text) {
            Ok(value) => (value, ImportFormat::Json),
            Err(error) if is_meant_as_json(text, file) => return Err(own::bad_json(&error)),
            // In YAML lists and maps may look so too.
            Err(error) => (tree(text).map_err(|_| own::bad_json(&error))?, ImportFormat::Yaml),
        };
        return Ok(guess_tree(&value, own));
    }
    Ok(guess_lines(text, file))
}

/// Whether what is no good JSON should be: by its name, or by a quote where YAML rarely has one.
fn is_meant_as_json(text: &str, file: &Path) -> bool {
    let is_bracket = |c: char| c.is_whitespace() || matches!(c, '[' | '{');
    text.trim_start_matches(is_bracket).starts_with('"')
        || file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// By what is in a tree; `own` is how webmon's own sites are written in it.
fn guess_tree(value: &Value, own: ImportFormat) -> Option<ImportFormat> {
    match value {
        Value::Object(map) if map.contains_key("monitorList") => Some(ImportFormat::UptimeKuma),
        Value::Object(map) if map.contains_key("endpoints") => Some(ImportFormat::Gatus),
        Value::Object(map) if map.contains_key("websites") => Some(own),
        // A list of sites as it was printed.
        Value::Object(map) if map.contains_key("items") => Some(ImportFormat::Json),
        Value::Array(list) => match list.first() {
            Some(first) if first.get("targets").is_some() => Some(ImportFormat::FileSd),
            Some(first) if first.get("url").is_some() => Some(own),
            Some(_) => None,
            None => Some(own),
        },
        _ => None,
    }
}

fn guess_lines(text: &str, file: &Path) -> Option<ImportFormat> {
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        return Some(ImportFormat::Csv);
    }
    let has_key = |key: &str| text.lines().any(|line| line.trim_end() == key);
    let begins = |key: &str| text.lines().any(|line| line.starts_with(key));
    if begins("websites:") {
        return Some(ImportFormat::Yaml);
    }
    if begins("endpoints:") {
        return Some(ImportFormat::Gatus);
    }
    let is_blank = |line: &&str| line.trim().is_empty() || line.starts_with('#') || *line == "---";
    let first = text.lines().find(|line| !is_blank(line))?;
    let keys = |line: &str| csv::keys(line).iter().filter(|key| csv::is_key(key)).count();
    if first.starts_with('-') {
        let is_targets =
            |line: &str| line.trim_start_matches(['-', ' ', '{']).starts_with("targets:");
        let is_file_sd = has_key("- targets:") || text.lines().any(is_targets);
        return Some(if is_file_sd { ImportFormat::FileSd } else { ImportFormat::Yaml });
    }
    (keys(first) >= 2).then_some(ImportFormat::Csv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_content() {
        let check = |text: &str, expect| {
            assert_eq!(guess(text, Path::new("-")), Ok(expect), "{text}");
        };
        check("# sites\nwebsites:\n- name: a\n", Some(ImportFormat::Yaml));
        check("database: {host: a}\nwebsites: []\n", Some(ImportFormat::Yaml));
        check("- name: a\n  url: b\n", Some(ImportFormat::Yaml));
        check("- targets:\n  - a\n", Some(ImportFormat::FileSd));
        check("- labels: {a: b}\n  targets: [a]\n", Some(ImportFormat::FileSd));
        check("[{\"targets\": []}]", Some(ImportFormat::FileSd));
        check("{\"monitorList\": []}", Some(ImportFormat::UptimeKuma));
        check("{\"websites\": []}", Some(ImportFormat::Json));
        check("[{\"name\": \"a\", \"url\": \"b\"}]", Some(ImportFormat::Json));
        check("metrics: true\nendpoints:\n  - name: a\n", Some(ImportFormat::Gatus));
        check("name,url,interval\na,b,5\n", Some(ImportFormat::Csv));
        check("\"url\",name\n", Some(ImportFormat::Csv));
        check("hello\n", None);
        check("", None);
        assert_eq!(guess("whatever", Path::new("a.CSV")), Ok(Some(ImportFormat::Csv)));
        check("{\"items\": [], \"next\": null}", Some(ImportFormat::Json));
        check("[]", Some(ImportFormat::Json));
        check("{websites: []}", Some(ImportFormat::Yaml));
        check("name;url\na;b\n", Some(ImportFormat::Csv));
        let broken = guess("{\"websites\": [\n{\"name\": }]}", Path::new("-"));
        assert_eq!(broken, Err("line 2, column 10: is no good JSON".to_owned()));
    }
}
