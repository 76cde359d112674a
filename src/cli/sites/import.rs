//! `sites import`: everything is read and checked before the first site is written.

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
/// Largest file, in bytes: a million plain sites.
const FILE_MAX: u64 = 256 << 20;

pub(super) fn import(context: &Context, sources: &Sources, args: &ImportArgs) -> Result<(), Exit> {
    let text = text_of(&args.file)?;
    let format = args.format.or_else(|| formats::guess(&text, &args.file)).ok_or_else(|| {
        Exit::Usage(format!(
            "webmon sites import: {}: can't tell what it is written in; add --format",
            args.file.display()
        ))
    })?;
    let around = Around { file: &args.file, sources, defaults: context.defaults };
    let content = formats::read(text, format, &around)?;
    let mut report = Report::new(&content, args);
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
    /// Names, of a dry run only.
    added_names: Vec<String>,
    added: usize,
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
        let mut not_translated: Vec<Value> = content
            .notes
            .iter()
            .map(|note| json!({ "field": note.field, "message": note.message }))
            .collect();
        let mut refused = Vec::new();
        for entry in &content.entries {
            let whys = entry.refusal.iter().chain(&entry.faults);
            refused.extend(whys.map(|why| of_entry(entry, why)));
            not_translated.extend(entry.notes.iter().map(|note| of_entry(entry, note)));
        }
        Self {
            is_dry: args.dry_run,
            is_update: args.update,
            is_done: false,
            added_names: Vec::new(),
            added: 0,
            unchanged: 0,
            differing: Vec::new(),
            refused,
            not_translated,
        }
    }

    fn add(&mut self, entry: &Entry, imported: Imported) {
        match imported {
            Imported::Added(_) => {
                self.added += 1;
                if self.is_dry {
                    self.added_names.push(entry.spec.name.clone());
                }
            }
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
        for value in &self.refused {
            note(&format!("refused: {}", words(value)));
        }
        for value in &self.not_translated {
            note(&format!("not translated: {}", words(value)));
        }
        if !self.is_done {
            return Ok(());
        }
        for name in &self.added_names {
            output::line(&format!("+ {}", printable(name)))?;
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
            self.added, self.unchanged
        ))?;
        if differing > 0 && !self.is_update {
            note("add --update to change those that differ");
        }
        Ok(())
    }

    fn json(&self) -> Value {
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
            "added": self.added, "changed": changed, "left": left, "unchanged": self.unchanged,
            "refused": self.refused, "not_translated": self.not_translated,
        })
    }
}

/// A refusal or a note on one line.
fn words(value: &Value) -> String {
    let text = |key: &str| value[key].as_str().map(printable).filter(|text| !text.is_empty());
    let number = |key: &str| value[key].as_u64();
    let mut words = String::new();
    if let Some(entry) = number("entry") {
        words += &format!("entry {entry}");
        if let Some(line) = number("line") {
            words += &format!(", line {line}");
        }
        if let Some(name) = text("name") {
            words += &format!(", '{name}'");
        }
        words += ": ";
    }
    if let Some(field) = text("field") {
        words += &format!("{field}: ");
    }
    words + &text("message").unwrap_or_default()
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
