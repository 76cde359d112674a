//! The site that somebody means.

use super::super::exit::Exit;
use super::super::table::printable;
use crate::site::NAME_MAX;
use crate::store::{SiteRow, SiteStatus, Store};

/// Sites at one URL that are looked at, and shown when it is not clear which is meant.
const SAME_URL_MAX: u32 = 10;
/// Of ten letters so many may be wrong for a name to be taken for a slip.
const SLIPS_OF_TEN: usize = 4;

/// The site of this id, name or URL, deleted or not. `command` begins the error.
pub(in super::super) fn site(store: &Store, command: &str, text: &str) -> Result<SiteRow, Exit> {
    let failed = |error| Exit::of_store(&error);
    let mut found: Vec<SiteRow> = Vec::new();
    if let Ok(id) = text.parse() {
        found.extend(store.site(id).map_err(failed)?);
    }
    // No name is longer, and none has a NUL, which the database would not take.
    if text.len() <= NAME_MAX && !text.contains('\0') {
        found.extend(store.site_named(text).map_err(failed)?);
    }
    if text.contains("://") && !text.contains('\0') {
        let mut urls = vec![text.to_owned()];
        urls.extend(url::Url::parse(text).ok().map(String::from));
        // As people leave out the slash of a host, in the table or here.
        urls.extend(urls[urls.len() - 1].strip_suffix('/').map(str::to_owned));
        found.extend(store.sites_at(&urls, SAME_URL_MAX).map_err(failed)?);
    }
    found.sort_by_key(|row| row.website_id);
    found.dedup_by_key(|row| row.website_id);
    if found.len() > 1 {
        let lines = found.iter().map(|row| format!("  {}", described(row)));
        let lines: Vec<String> = lines.collect();
        return Err(Exit::Usage(format!(
            "{command}: '{}' is more than one site; say its id:\n{}",
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
    if row.status == SiteStatus::Deleted {
        let what = printable(text);
        let problem = format!("{command}: '{what}' is removed; `webmon sites add` brings it back");
        return Err(Exit::NotFound(problem));
    }
    Ok(row)
}

/// A site on a part of a line.
pub(in super::super) fn described(row: &SiteRow) -> String {
    let status = match row.status {
        SiteStatus::Active => String::new(),
        other => format!(" ({})", other.as_str()),
    };
    format!("{} '{}'{status}", row.website_id, printable(&row.spec.name))
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
