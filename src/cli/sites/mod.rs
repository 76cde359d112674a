//! `sites`: what is watched.

mod change;
mod export;
mod find;
mod flags;
mod formats;
mod import;
mod list;
mod show;

use serde_json::{Map, Value};

pub(super) use find::{described, living as find_living, site as find_site};

use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::sites_args::{SitesArgs, SitesCommand};
use super::{options, output};
use crate::api::json;
use crate::site::SiteDefaults;
use crate::store::{LastCheck, SiteRow, SiteStatus, Store};
use crate::wire::time_text;
use crate::wire::website::{self, Secrets};

/// What each of the subcommands works with.
struct Context {
    store: Store,
    defaults: SiteDefaults,
    is_json: bool,
}

pub(super) fn sites(common: &CommonArgs, args: &SitesArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let context = Context {
        store: options::store(&loaded.settings, "webmon-sites")?,
        defaults: loaded.settings.monitoring.defaults(),
        is_json: args.json,
    };
    match &args.command {
        SitesCommand::List(list) => list::list(&context, list),
        SitesCommand::Show(show) => show::show(&context, show),
        SitesCommand::Add(add) => change::add(&context, add),
        SitesCommand::Update(update) => change::update(&context, update),
        SitesCommand::Pause(named) => change::set_status(&context, named, SiteStatus::Paused),
        SitesCommand::Resume(named) => change::set_status(&context, named, SiteStatus::Active),
        SitesCommand::Remove(remove) => change::remove(&context, remove),
        SitesCommand::Import(import) => {
            let sources = options::sources(common, []);
            import::import(&context, &sources, import)
        }
        SitesCommand::Export(export) => export::export(&context, export),
    }
}

/// A site as one JSON object: the API's, and its revision.
fn object(row: &SiteRow, secrets: Secrets) -> Map<String, Value> {
    let mut object = json::site(row);
    if secrets == Secrets::Shown {
        // In the places of the masked ones.
        object.extend(website::encode(&row.spec, secrets));
    }
    object.insert("revision".to_owned(), row.revision.into());
    object
}

/// A site's last check as JSON.
fn last_json(last: Option<&LastCheck>) -> Value {
    last.map_or(Value::Null, |last| {
        serde_json::json!({
            "timestamp": time_text(last.timestamp),
            "outcome": last.outcome.as_str(),
            "response_time": last.response_time,
        })
    })
}

/// A line for whoever sits there, not for a program.
fn note(text: &str) {
    use std::io::Write;
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints an object on one line.
fn print_object(object: Map<String, Value>) -> Result<(), Exit> {
    output::line(&Value::Object(object).to_string())
}
