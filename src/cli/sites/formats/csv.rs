//! CSV (RFC 4180): the keys in the first line, a site in each that follows. What is empty is left
//! open; headers and other names with texts are JSON in their cell.

use std::io::Write;

use serde_json::{Map, Value};

use super::own::{read_object, set_status};
use super::{Content, Entry, Note};
use crate::config::nearest;
use crate::site::{SettingKind, setting};
use crate::wire::website;

const STATUS: &str = "status";
/// Columns that a table of sites may have and a site has not.
const PASSED_OVER: [&str; 4] = ["website_id", "timestamp", "updated_at", "revision"];

/// What may stand between cells; spreadsheets of many countries write semicolons.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];

/// The separator with which a first line has the most keys; a comma where none does.
fn separator(line: &str) -> u8 {
    let count = |separator: u8| columns(line, separator).iter().filter(|key| is_key(key)).count();
    // Of several that are as good the last is taken: the comma.
    SEPARATORS.into_iter().rev().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

/// The keys of a first line.
pub(super) fn keys(line: &str) -> Vec<String> {
    columns(line, separator(line))
}

fn columns(line: &str, separator: u8) -> Vec<String> {
    let mut reader = ::csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(separator)
        .from_reader(line.as_bytes());
    let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
    record.iter().map(|key| key.trim().to_owned()).collect()
}

/// Whether a site has this key.
pub(super) fn is_key(key: &str) -> bool {
    key == STATUS || key == "pattern" || website::keys().any(|known| known == key)
}

pub(super) fn read(text: &str) -> Result<Content, String> {
    let mut reader = ::csv::ReaderBuilder::new()
        .flexible(true)
        .has_headers(true)
        .delimiter(separator(text.lines().find(|line| !line.is_empty()).unwrap_or_default()))
        .from_reader(text.as_bytes());
    let columns: Vec<String> = reader
        .headers()
        .map_err(|error| format!("is no good CSV: {error}"))?
        .iter()
        .map(|key| key.trim().to_owned())
        .collect();
    let mut faults: Vec<Note> = Vec::new();
    let fault = |problem: String| Note::new("", problem);
    for (at, key) in columns.iter().enumerate() {
        if columns[..at].contains(key) {
            faults.push(fault(format!("the column {key} is there twice")));
        } else if !is_key(key) && !PASSED_OVER.contains(&key.as_str()) {
            let meant = nearest(key, website::keys().chain([STATUS]));
            let meant = meant.map(|meant| format!("; did you mean '{meant}'?")).unwrap_or_default();
            faults.push(fault(format!("the column {key} is no key of a site{meant}")));
        }
    }
    let missing: Vec<&str> =
        ["name", "url"].into_iter().filter(|key| !columns.iter().any(|c| c == key)).collect();
    if !missing.is_empty() {
        // Without them there is nothing to say about the rows.
        faults.extend(missing.iter().map(|key| fault(format!("has no column {key}"))));
        let problems: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
        return Err(problems.join("; "));
    }
    let mut content = Content { faults, ..Content::default() };
    for record in reader.records() {
        let mut entry = Entry { number: content.entries.len() + 1, ..Entry::default() };
        match record {
            Ok(record) => {
                // The file's lines are fewer than a number of this machine can hold.
                entry.line = record.position().map(|place| place.line() as usize);
                read_record(&columns, &record, &mut entry);
            }
            Err(error) => entry.faults.push(Note::new("entry", format!("is no good CSV: {error}"))),
        }
        let line = entry.line;
        entry.faults.iter_mut().for_each(|fault| fault.line = line);
        content.entries.push(entry);
    }
    Ok(content)
}

fn read_record(columns: &[String], record: &::csv::StringRecord, entry: &mut Entry) {
    if record.len() != columns.len() {
        let problem = format!("has {} cells; the first line has {}", record.len(), columns.len());
        entry.faults.push(Note::new("entry", problem));
    }
    let mut object = Map::new();
    for (key, text) in columns.iter().zip(record) {
        // An unknown column is a fault of the file, not of each row.
        if text.is_empty() || PASSED_OVER.contains(&key.as_str()) || !is_key(key) {
            continue;
        }
        if key == STATUS {
            set_status(entry, text);
            continue;
        }
        object.insert(key.clone(), cell(key, text));
    }
    read_object(object, entry);
}

/// A cell as JSON of its key's kind; as text where it is none: then the key has a fault.
fn cell(key: &str, text: &str) -> Value {
    let plain = || Value::from(text);
    let parsed = || serde_json::from_str(text).unwrap_or_else(|_| plain());
    match (key, setting(key).map(|setting| setting.kind)) {
        ("interval" | "timeout" | "headers", _)
        | (_, Some(SettingKind::Whole(..) | SettingKind::Seconds(..) | SettingKind::Map)) => {
            parsed()
        }
        (_, Some(SettingKind::Flag)) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => true.into(),
            "false" | "no" | "0" => false.into(),
            _ => plain(),
        },
        _ => plain(),
    }
}

/// Writes sites as CSV.
pub(in super::super) struct Writer<W: Write> {
    writer: ::csv::Writer<W>,
    columns: Vec<&'static str>,
}

impl<W: Write> Writer<W> {
    /// Writes the first line.
    pub(in super::super) fn new(into: W) -> std::io::Result<Self> {
        let columns: Vec<&str> = website::keys().chain([STATUS]).collect();
        let mut writer = ::csv::Writer::from_writer(into);
        writer.write_record(&columns)?;
        Ok(Self { writer, columns })
    }

    /// Writes a site.
    pub(in super::super) fn site(&mut self, object: &Map<String, Value>) -> std::io::Result<()> {
        let cell = |key: &&str| match object.get(*key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let cells: Vec<String> = self.columns.iter().map(cell).collect();
        Ok(self.writer.write_record(&cells)?)
    }

    pub(in super::super) fn end(mut self) -> std::io::Result<()> {
        self.writer.flush()
    }
}
