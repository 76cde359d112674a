//! webmon's own: YAML as in the configuration, and JSON.

use serde_json::{Map, Value};

use super::{Around, Content, Entry, Note};
use crate::cli::exit::Exit;
use crate::config::{Fault, read_sites};
use crate::store::SiteStatus;
use crate::wire::website;

/// What a site of a file may be; a deleted one is not in it.
const STATUSES: [SiteStatus; 2] = [SiteStatus::Active, SiteStatus::Paused];

/// Sets the status of an entry, or says what is wrong with it.
pub(super) fn set_status(entry: &mut Entry, text: &str) {
    match SiteStatus::parse(text).filter(|status| STATUSES.contains(status)) {
        Some(status) => entry.status = Some(status),
        None => entry.faults.push(Note::new("status", "must be active or paused")),
    }
}

pub(super) fn read_yaml(text: String, around: &Around<'_>) -> Result<Content, Exit> {
    let sites = read_sites(text, around.file, around.sources, around.defaults)
        .map_err(|faults| Exit::Usage(faults.to_string()))?;
    let entry = |(at, site): (usize, crate::config::FileSite)| {
        let mut entry = Entry { number: at + 1, spec: site.spec, ..Entry::default() };
        entry.line = site.faults.iter().find_map(|fault| fault.line);
        entry.faults = site.faults.iter().map(note).collect();
        if let Some(status) = site.status {
            set_status(&mut entry, &status);
        }
        entry
    };
    let entries = sites.into_iter().enumerate().map(entry).collect();
    Ok(Content { entries, ..Content::default() })
}

fn note(fault: &Fault) -> Note {
    let field = fault.key.rsplit(['.', ']']).next().unwrap_or_default();
    let value = fault.value.as_ref().map(|value| format!("'{value}' ")).unwrap_or_default();
    let message = format!("{value}{}; {}", fault.problem, fault.cure);
    Note { field: field.to_owned(), message, line: fault.line }
}

/// What only a site of the table has, and an export for other programs too.
const OF_THE_TABLE: [&str; 5] = ["website_id", "timestamp", "updated_at", "revision", "last"];

/// Where JSON is broken; the error itself may show a value, which may be a secret.
pub(super) fn bad_json(error: &serde_json::Error) -> String {
    format!("line {}, column {}: is no good JSON", error.line(), error.column())
}

pub(super) fn read_json(text: &str) -> Result<Content, String> {
    let root: Value = serde_json::from_str(text).map_err(|error| bad_json(&error))?;
    let sites = match root {
        Value::Array(sites) => sites,
        Value::Object(mut root) => match root.remove("websites").or_else(|| root.remove("items")) {
            Some(Value::Array(sites)) => sites,
            _ => return Err("has no list websites".to_owned()),
        },
        _ => return Err("has no list websites".to_owned()),
    };
    let entry = |(at, site)| {
        let mut entry = Entry { number: at + 1, ..Entry::default() };
        match site {
            Value::Object(site) => read_object(site, &mut entry),
            _ => entry.faults.push(Note::new("entry", "is no object")),
        }
        entry
    };
    let entries = sites.into_iter().enumerate().map(entry).collect();
    Ok(Content { entries, ..Content::default() })
}

/// Reads a site and its status; what is wrong goes to the entry.
pub(super) fn read_object(mut object: Map<String, Value>, entry: &mut Entry) {
    object.retain(|key, _| !OF_THE_TABLE.contains(&key.as_str()));
    match object.shift_remove("status") {
        None | Some(Value::Null) => {}
        Some(status) => set_status(entry, status.as_str().unwrap_or_default()),
    }
    match website::decode(object.clone(), None) {
        Ok(spec) => entry.spec = spec,
        Err(faults) => {
            // What the other keys say is looked at as well, and is not missing.
            object.retain(|key, _| !faults.iter().any(|fault| fault.field == *key));
            entry.spec = website::decode(object, None).unwrap_or_default();
            let faults = faults.into_iter().map(|fault| Note::new(fault.field, fault.message));
            entry.faults.extend(faults);
        }
    }
}

/// A site as an entry of the configuration's list `websites`.
pub(in super::super) fn yaml_text(object: Map<String, Value>) -> Result<String, Exit> {
    let mut value = Value::Array(vec![Value::Object(object)]);
    escape(&mut value);
    serde_yaml::to_string(&value)
        .map_err(|error| Exit::Failed(format!("webmon sites export: cannot write YAML: {error}")))
}

/// Doubles each `$` of texts in which the configuration would take one for a reference.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("${") || text.contains("$$") => {
            *text = text.replace('$', "$$");
        }
        Value::Array(list) => list.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}
