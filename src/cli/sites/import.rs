//! `sites import`: everything is read and checked before the first site is written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::exit::Exit;
use super::super::output;
use super::super::sites_args::ImportArgs;
use super::super::table::printable;
use super::formats::{self, Around, Content, Entry, Note};
use super::{Context, note};
use crate::config::Sources;
use crate::store::{ImportMode, ImportSite, Imported};

/// Sites of one transaction: some tens of milliseconds, so that nobody who changes a site waits.
const BATCH: usize = 1000;
/// Entries that are shown of those about which the same is to be said; 300 targets of Prometheus
/// with three labels each would fill a thousand lines.
const SHOWN_MAX: usize = 3;
/// Largest file, in bytes: a million plain sites.
const FILE_MAX: u64 = 256 << 20;

pub(super) fn import(context: &Context, sources: &Sources, args: &ImportArgs) -> Result<(), Exit> {
    let text = text_of(&args.file)?;
    let wrong = |problem: &str| {
        let file = args.file.display();
        Exit::Usage(format!("webmon sites import: {file}: {problem}"))
    };
    let format = match args.format {
        Some(format) => format,
        None => formats::guess(&text, &args.file)
            .map_err(|problem| wrong(&problem))?
            .ok_or_else(|| wrong("can't tell what it is written in; add --format"))?,
    };
    let around = Around { file: &args.file, sources, defaults: context.defaults };
    let content = formats::read(text, format, &around)?;
    let mut report = Report::new(&content, args);
    if !content.faults.is_empty() {
        report.print(context, &content)?;
        return Err(wrong("nothing was imported; mend it"));
    }
    if content.entries.is_empty() {
        note("no sites in the file");
    }
    let faulty = content.entries.iter().filter(|entry| !entry.faults.is_empty()).count();
    if faulty > 0 && !args.skip_faulty {
        report.print(context, &content)?;
        return Err(Exit::Usage(format!(
            "webmon sites import: {faulty} of {} entries are faulty; nothing was imported; mend \
             them, or import the others with --skip-faulty",
            content.entries.len()
        )));
    }
    let mode = match (args.dry_run, args.update) {
        (true, _) => ImportMode::DryRun,
        (false, true) => ImportMode::Update,
        (false, false) => ImportMode::Add,
    };
    let good: Vec<&Entry> = content.entries.iter().filter(|entry| entry.is_good()).collect();
    let progress = Progress { all: good.len(), is_shown: std::io::stderr().is_terminal() };
    for (done, batch) in good.chunks(BATCH).enumerate() {
        progress.show(done * BATCH);
        let sites: Vec<ImportSite> = batch
            .iter()
            .map(|entry| ImportSite { spec: entry.spec.clone(), status: entry.status })
            .collect();
        let imported = context.store.import_sites(&sites, mode).map_err(|error| {
            progress.clear();
            let done = done * BATCH;
            let more = format!("the first {done} sites are imported; import again for the rest");
            let exit = Exit::of_store(&error);
            if args.dry_run || done == 0 { exit } else { exit.with(&more) }
        })?;
        for (entry, imported) in batch.iter().zip(imported) {
            report.add(entry, imported);
        }
    }
    progress.clear();
    report.is_done = true;
    report.print(context, &content)
}

fn text_of(path: &Path) -> Result<String, Exit> {
    let failed =
        |problem: &str| Exit::Usage(format!("webmon sites import: {}: {problem}", path.display()));
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_MAX + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
    };
    let length = read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("no such file"),
        _ => failed(&format!("can't be read: {error}")),
    })?;
    if length as u64 > FILE_MAX {
        return Err(failed(&format!("has more than {FILE_MAX} bytes; split it")));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed("is not UTF-8 text"))?;
    // As some programs begin their files.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A site that is new.
struct Added {
    number: usize,
    name: String,
    /// None in a dry run.
    website_id: Option<i64>,
}

/// A site that is there and differs: its entry, id, and the keys.
struct Differing {
    number: usize,
    name: String,
    website_id: i64,
    fields: Vec<String>,
}

/// What became of everything.
struct Report {
    is_dry: bool,
    is_update: bool,
    is_done: bool,
    added: Vec<Added>,
    unchanged: usize,
    differing: Vec<Differing>,
    refused: Vec<Value>,
    not_translated: Vec<Value>,
}

impl Report {
    fn new(content: &Content, args: &ImportArgs) -> Self {
        let of_entry = |entry: &Entry, about: &Note| {
            let mut object = Map::new();
            object.insert("entry".to_owned(), entry.number.into());
            let line = about.line.or(entry.line);
            if let Some(line) = line {
                object.insert("line".to_owned(), line.into());
            }
            object.insert("name".to_owned(), entry.spec.name.as_str().into());
            object.insert("field".to_owned(), about.field.as_str().into());
            object.insert("message".to_owned(), about.message.as_str().into());
            Value::Object(object)
        };
        let of_file = |fault: &Note| json!({ "field": fault.field, "message": fault.message });
        let mut refused: Vec<Value> = content.faults.iter().map(of_file).collect();
        let mut not_translated: Vec<Value> = content.notes.iter().map(of_file).collect();
        for entry in &content.entries {
            let whys = entry.refusal.iter().chain(&entry.faults);
            refused.extend(whys.map(|why| of_entry(entry, why)));
            not_translated.extend(entry.notes.iter().map(|note| of_entry(entry, note)));
        }
        Self {
            is_dry: args.dry_run,
            is_update: args.update,
            is_done: false,
            added: Vec::new(),
            unchanged: 0,
            differing: Vec::new(),
            refused,
            not_translated,
        }
    }

    fn add(&mut self, entry: &Entry, imported: Imported) {
        match imported {
            Imported::Added(website_id) => self.added.push(Added {
                number: entry.number,
                name: entry.spec.name.clone(),
                website_id,
            }),
            Imported::Unchanged(_) => self.unchanged += 1,
            Imported::Differs(website_id, fields) => self.differing.push(Differing {
                number: entry.number,
                name: entry.spec.name.clone(),
                website_id,
                fields,
            }),
        }
    }

    fn print(&self, context: &Context, content: &Content) -> Result<(), Exit> {
        if context.is_json {
            return output::line(&self.json().to_string());
        }
        for (what, values) in [("refused", &self.refused), ("not translated", &self.not_translated)]
        {
            grouped(values).iter().for_each(|line| note(&format!("{what}: {line}")));
        }
        if !self.is_done {
            return Ok(());
        }
        for site in self.added.iter().filter(|_| self.is_dry) {
            output::line(&format!("+ {}", printable(&site.name)))?;
        }
        let sign = if self.is_update { '~' } else { '!' };
        for site in &self.differing {
            let (name, fields) = (printable(&site.name), site.fields.join(", "));
            output::line(&format!("{sign} {name} ({}): {fields}", site.website_id))?;
        }
        let would = if self.is_dry { "would be " } else { "" };
        let differing = self.differing.len();
        let of_those = if self.is_update {
            format!("{differing} {would}changed")
        } else {
            format!("{differing} differ and are left")
        };
        let refused = content.entries.iter().filter(|entry| !entry.is_good()).count();
        output::line(&format!(
            "{} {would}added, {of_those}, {} unchanged, {refused} refused",
            self.added.len(),
            self.unchanged
        ))?;
        if differing > 0 && !self.is_update {
            note("add --update to change those that differ");
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let added: Vec<Value> = self
            .added
            .iter()
            .map(|site| {
                json!({ "entry": site.number, "website_id": site.website_id, "name": site.name })
            })
            .collect();
        let differing: Vec<Value> = self
            .differing
            .iter()
            .map(|site| {
                json!({
                    "entry": site.number, "website_id": site.website_id, "name": site.name,
                    "fields": site.fields,
                })
            })
            .collect();
        let (changed, left) =
            if self.is_update { (differing, Vec::new()) } else { (Vec::new(), differing) };
        json!({
            "dry_run": self.is_dry, "imported": self.is_done && !self.is_dry,
            "added": added, "changed": changed, "left": left, "unchanged": self.unchanged,
            "refused": self.refused, "not_translated": self.not_translated,
        })
    }
}

/// Refusals or notes: those of one field and message on one line where they are many, in the order
/// of the first of each.
fn grouped(values: &[Value]) -> Vec<String> {
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    let mut groups: Vec<Vec<&Value>> = Vec::new();
    for value in values {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let place = *places.entry((text("field"), text("message"))).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(value),
            None => groups.push(vec![value]),
        }
    }
    let mut lines = Vec::new();
    for group in groups {
        if group.len() <= SHOWN_MAX {
            lines.extend(group.iter().map(|value| entry_words(value, ": ") + &what(value)));
            continue;
        }
        let first: Vec<String> =
            group.iter().take(SHOWN_MAX).map(|value| entry_words(value, "")).collect();
        lines.push(format!(
            "{}: {} entries: {}; …; --json has all",
            what(group[0]),
            group.len(),
            first.join("; ")
        ));
    }
    lines
}

/// The entry of a refusal or a note, if it is of one, and then `end`.
fn entry_words(value: &Value, end: &str) -> String {
    let Some(entry) = value["entry"].as_u64() else { return String::new() };
    let mut words = format!("entry {entry}");
    if let Some(line) = value["line"].as_u64() {
        words += &format!(", line {line}");
    }
    if let Some(name) = text(value, "name") {
        words += &format!(", '{name}'");
    }
    words + end
}

/// What is said in a refusal or a note.
fn what(value: &Value) -> String {
    let field = text(value, "field").map(|field| format!("{field}: ")).unwrap_or_default();
    field + &text(value, "message").unwrap_or_default()
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(printable).filter(|text| !text.is_empty())
}

/// How far a long import is, on a terminal.
struct Progress {
    all: usize,
    is_shown: bool,
}

impl Progress {
    fn show(&self, done: usize) {
        if self.is_shown && self.all > BATCH {
            let _ = write!(std::io::stderr(), "\r{done} of {} sites", self.all);
        }
    }

    fn clear(&self) {
        if self.is_shown && self.all > BATCH {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
