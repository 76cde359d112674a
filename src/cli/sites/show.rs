//! `sites show`: all about one.

use serde_json::{Value, json};

use super::super::exit::Exit;
use super::super::history::{DAY, Window, uptime_words};
use super::super::output;
use super::super::sites_args::ShowArgs;
use super::super::table::{Screen, cut, printable};
use super::{Context, find, last_json, object};
use crate::runtime::now;
use crate::store::{LastCheck, SiteRow};
use crate::wire::website::Secrets;

pub(super) fn show(context: &Context, args: &ShowArgs) -> Result<(), Exit> {
    let store = &context.store;
    let row = find::site(store, "webmon sites show", &args.site)?;
    let failed = |error| Exit::of_store(&error);
    let last = store.last_checks(&[row.website_id]).map_err(failed)?.pop();
    let day = Window::read(store, row.website_id, DAY, now().wall)?;
    let secrets = if args.secrets { Secrets::Shown } else { Secrets::Masked };
    if context.is_json {
        let mut object = object(&row, secrets);
        object.insert("last".to_owned(), last_json(last.as_ref()));
        object.insert("windows".to_owned(), json!([day.json()]));
        return super::print_object(object);
    }
    let width = Screen::of_stdout().width.unwrap_or(usize::MAX);
    let lines = lines(context, &row, secrets, last.as_ref(), &day);
    lines.iter().try_for_each(|line| output::line(&cut(line, width)))
}

fn lines(
    context: &Context,
    row: &SiteRow,
    secrets: Secrets,
    last: Option<&LastCheck>,
    day: &Window,
) -> Vec<String> {
    let value = |(key, value): (String, Value)| {
        let value = match (key.as_str(), value) {
            ("interval", Value::Null) => default(context.defaults.interval),
            ("timeout", Value::Null) => {
                let interval = row.spec.interval.unwrap_or(context.defaults.interval);
                default(context.defaults.timeout.min(interval.saturating_sub(1)))
            }
            (_, Value::Null) => return None,
            ("interval" | "timeout", seconds) => format!("{seconds} s"),
            (_, Value::String(text)) => printable(&text),
            (_, other) => printable(&other.to_string()),
        };
        Some((key, value))
    };
    let mut facts: Vec<(String, String)> =
        object(row, secrets).into_iter().filter_map(value).collect();
    let seen = last.map_or_else(
        || "no data".to_owned(),
        |last| {
            let seconds = last.response_time.map(|s| format!(", {s:.3} s")).unwrap_or_default();
            format!("{} at {:.0}{seconds}", last.outcome.as_str(), last.timestamp)
        },
    );
    facts.push(("last check".to_owned(), seen));
    facts.push(("uptime 24 h".to_owned(), uptime_words(day)));
    let width = facts.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
    facts.iter().map(|(key, value)| format!("{key:<width$}  {value}")).collect()
}

fn default(seconds: u32) -> String {
    format!("{seconds} s (default)")
}
