//! The site that somebody means.

use super::super::exit::Exit;
use super::super::table::printable;
use super::note;
use crate::site::NAME_MAX;
use crate::store::{SiteRow, SiteStatus, Store};

/// Sites at one URL that are looked at, and shown when it is not clear which is meant.
const SAME_URL_MAX: u32 = 10;
/// Of ten letters so many may be wrong for a name to be taken for a slip.
const SLIPS_OF_TEN: usize = 4;

/// Before a name that may be taken for an id or a URL: `name:3`.
const NAME_PREFIX: &str = "name:";

/// The site of this id, name or URL; a deleted one only where no other is meant. `command` begins
/// the error.
///
/// Digits are the id of a site that is not deleted before they are a name: what a program has
/// stored as an id keeps its meaning, however sites are named. `name:` reaches the name.
pub(in super::super) fn site(store: &Store, command: &str, text: &str) -> Result<SiteRow, Exit> {
    let mut found = by_id_or_name(store, command, text)?;
    found.extend(at_url(store, text)?);
    found.sort_by_key(|row| row.website_id);
    found.dedup_by_key(|row| row.website_id);
    if found.iter().any(is_living) {
        found.retain(is_living);
    }
    if found.len() > 1 {
        let lines: Vec<String> = found.iter().map(|row| format!("  {}", described(row))).collect();
        return Err(Exit::Usage(format!(
            "{command}: '{}' is more than one site; say its id, or {NAME_PREFIX}NAME:\n{}",
            printable(text),
            lines.join("\n")
        )));
    }
    match found.pop() {
        Some(row) => Ok(row),
        None => {
            let unknown = format!("{command}: no site '{}'", printable(text));
            Err(Exit::NotFound(match meant(store, text) {
                Some(name) => format!("{unknown}; did you mean '{}'?", printable(&name)),
                None => format!("{unknown}; `webmon sites list` shows them"),
            }))
        }
    }
}

/// The same, but not a deleted one.
pub(in super::super) fn living(store: &Store, command: &str, text: &str) -> Result<SiteRow, Exit> {
    let row = site(store, command, text)?;
    if !is_living(&row) {
        let what = printable(text);
        let problem = format!("{command}: '{what}' is removed; `webmon sites add` brings it back");
        return Err(Exit::NotFound(problem));
    }
    Ok(row)
}

fn is_living(row: &SiteRow) -> bool {
    row.status != SiteStatus::Deleted
}

/// The site with this id, or with this name, or both where neither of them decides.
fn by_id_or_name(store: &Store, command: &str, text: &str) -> Result<Vec<SiteRow>, Exit> {
    let by_id = match text.parse() {
        Ok(id) => store.site(id).map_err(|error| Exit::of_store(&error))?,
        Err(_) => None,
    };
    let mut by_name = named(store, text)?;
    if let Some(name) = text.strip_prefix(NAME_PREFIX) {
        by_name = named(store, name)?.or(by_name);
    }
    let is_same = |other: &SiteRow, row: &SiteRow| other.website_id == row.website_id;
    Ok(match (by_id, by_name) {
        (Some(row), Some(other)) if is_living(&row) && is_living(&other) => {
            if !is_same(&other, &row) {
                note(&format!(
                    "{command}: {text} is taken as an id; {NAME_PREFIX}{text} is the site {}",
                    described(&other)
                ));
            }
            vec![row]
        }
        // Of two that are gone the id is the surer.
        (Some(row), Some(other)) if !is_living(&row) && !is_living(&other) => vec![row],
        (by_id, by_name) => by_id.into_iter().chain(by_name).collect(),
    })
}

fn named(store: &Store, name: &str) -> Result<Option<SiteRow>, Exit> {
    // No name is longer, and none has a NUL, which the database would not take.
    if name.len() > NAME_MAX || name.contains('\0') {
        return Ok(None);
    }
    store.site_named(name).map_err(|error| Exit::of_store(&error))
}

fn at_url(store: &Store, text: &str) -> Result<Vec<SiteRow>, Exit> {
    if !text.contains("://") || text.contains('\0') {
        return Ok(Vec::new());
    }
    let mut urls = vec![text.to_owned()];
    urls.extend(url::Url::parse(text).ok().map(String::from));
    // As people leave out the slash of a host, in the table or here.
    urls.extend(urls[urls.len() - 1].strip_suffix('/').map(str::to_owned));
    store.sites_at(&urls, SAME_URL_MAX).map_err(|error| Exit::of_store(&error))
}

/// A site on a part of a line.
pub(in super::super) fn described(row: &SiteRow) -> String {
    let status = match row.status {
        SiteStatus::Active => String::new(),
        other => format!(" ({})", other.as_str()),
    };
    format!("{}{status}", id_and_name(row))
}

/// The same, where its status is said already.
pub(super) fn id_and_name(row: &SiteRow) -> String {
    format!("{} '{}'", row.website_id, printable(&row.spec.name))
}

fn meant(store: &Store, text: &str) -> Option<String> {
    if text.len() > NAME_MAX || text.contains('\0') {
        return None;
    }
    // Whether the name was a slip is said beside the answer: no reason to fail.
    let names = store.names_like(text).ok()?;
    let wanted = text.to_lowercase();
    let distance = |name: &String| strsim::osa_distance(&wanted, &name.to_lowercase());
    let nearest = names.into_iter().min_by_key(distance)?;
    (distance(&nearest) * 10 <= nearest.chars().count().max(3) * SLIPS_OF_TEN).then_some(nearest)
}
