//! `sites add`, `update`, `pause`, `resume` and `remove`.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::Value;

use super::super::exit::Exit;
use super::super::output;
use super::super::sites_args::{AddArgs, NamedArgs, RemoveArgs, UpdateArgs};
use super::{Context, described, find, flags, object};
use crate::site::SiteSpec;
use crate::store::{Change, Changed, Created, SiteRow, SiteStatus};
use crate::wire::website::Secrets;

/// How often a site is read again because somebody else has changed it in between.
const TRIES_MAX: usize = 5;

pub(super) fn add(context: &Context, args: &AddArgs) -> Result<(), Exit> {
    let command = "webmon sites add";
    let mut spec =
        SiteSpec { name: args.name.clone(), url: args.url.clone(), ..SiteSpec::default() };
    let mut faults = Vec::new();
    flags::apply(&mut spec, &args.flags, &mut faults);
    check(context, command, &spec, faults)?;
    let status = if args.paused { SiteStatus::Paused } else { SiteStatus::Active };
    let created = context.store.create_site(&spec, status);
    match created.map_err(|error| Exit::of_store(&error))? {
        Created::Done(row) if context.is_json => print_site(&row),
        Created::Done(row) => output::line(&format!("added {}", described(&row))),
        Created::NameTaken(id) => Err(taken(command, id)),
    }
}

fn taken(command: &str, holder: i64) -> Exit {
    Exit::Failed(format!(
        "{command}: the site {holder} has this name; choose another, or change that one: \
         webmon sites update {holder}"
    ))
}

/// All faults of flags and site together; a key that could not be read is not blamed again.
fn check(
    context: &Context,
    command: &str,
    spec: &SiteSpec,
    mut faults: Vec<String>,
) -> Result<(), Exit> {
    let built = spec.faults(context.defaults);
    for fault in built {
        let option = format!("--{}:", fault.field);
        if !faults.iter().any(|known| known.starts_with(&option)) {
            faults.push(fault.to_string());
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = faults.iter().map(|fault| format!("{command}: {fault}")).collect();
    Err(Exit::Usage(lines.join("\n")))
}

pub(super) fn update(context: &Context, args: &UpdateArgs) -> Result<(), Exit> {
    let command = "webmon sites update";
    let failed = |error| Exit::of_store(&error);
    let mut row = find::living(&context.store, command, &args.site)?;
    for _ in 0..TRIES_MAX {
        let mut faults = Vec::new();
        let spec = flags::update(&row.spec, args, &mut faults);
        check(context, command, &spec, faults)?;
        let change = Change { spec: Some(spec), status: None };
        // Made of what was read: not onto what somebody else has written since.
        let changed = context.store.change_site(row.website_id, Some(row.revision), &change);
        match changed.map_err(failed)? {
            Changed::Done(now) if context.is_json => return print_site(&now),
            Changed::Done(now) if now.revision == row.revision => {
                return output::line(&format!("{} was so already", described(&now)));
            }
            Changed::Done(now) => return output::line(&format!("changed {}", described(&now))),
            Changed::NameTaken(id) => return Err(taken(command, id)),
            Changed::NotFound => break,
            Changed::Stale(_) => match context.store.site(row.website_id).map_err(failed)? {
                Some(again) if again.status != SiteStatus::Deleted => row = again,
                _ => break,
            },
        }
    }
    Err(Exit::Failed(format!(
        "{command}: somebody else is changing {} now; nothing was changed",
        described(&row)
    )))
}

pub(super) fn set_status(
    context: &Context,
    named: &NamedArgs,
    status: SiteStatus,
) -> Result<(), Exit> {
    let (command, verb) = match status {
        SiteStatus::Paused => ("webmon sites pause", "paused"),
        _ => ("webmon sites resume", "resumed"),
    };
    let rows = living(context, command, named)?;
    change_all(context, &rows, status, verb)
}

pub(super) fn remove(context: &Context, args: &RemoveArgs) -> Result<(), Exit> {
    let rows = living(context, "webmon sites remove", &args.named)?;
    if !args.yes {
        let names: Vec<String> = rows.iter().map(described).collect();
        let what = format!("this removes {}; what was seen of them is kept", names.join(", "));
        if !std::io::stdin().is_terminal() {
            return Err(Exit::Usage(format!("webmon sites remove: {what}; add --yes")));
        }
        // To where somebody sees it, even if the answer goes into a file.
        let _ = write!(std::io::stderr(), "{what}. Go on? [y/N] ");
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_err() || !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(Exit::Failed("webmon sites remove: nothing was removed".to_owned()));
        }
    }
    change_all(context, &rows, SiteStatus::Deleted, "removed")?;
    if !context.is_json {
        super::note("what was seen of them is kept: `webmon history` shows it");
    }
    Ok(())
}

/// All that were named, each once; nothing is done when one of them is not there.
fn living(context: &Context, command: &str, named: &NamedArgs) -> Result<Vec<SiteRow>, Exit> {
    let mut rows: Vec<SiteRow> = Vec::with_capacity(named.sites.len());
    let mut problems: Vec<Exit> = Vec::new();
    for text in &named.sites {
        match find::living(&context.store, command, text) {
            Ok(row) if rows.iter().any(|known| known.website_id == row.website_id) => {}
            Ok(row) => rows.push(row),
            Err(away @ (Exit::Away(_) | Exit::Failed(_))) => return Err(away),
            Err(problem) => problems.push(problem),
        }
    }
    let Some(first) = problems.pop() else { return Ok(rows) };
    // The others stand before it; the last one's exit code counts.
    for problem in &problems {
        if let Exit::NotFound(message) | Exit::Usage(message) = problem {
            super::note(message);
        }
    }
    Err(if rows.is_empty() { first } else { first.with("nothing was changed") })
}

fn change_all(
    context: &Context,
    rows: &[SiteRow],
    status: SiteStatus,
    verb: &str,
) -> Result<(), Exit> {
    let mut items: Vec<Value> = Vec::with_capacity(rows.len());
    for row in rows {
        let change = Change { spec: None, status: Some(status) };
        let changed = context.store.change_site(row.website_id, None, &change);
        let line = match changed.map_err(|error| Exit::of_store(&error))? {
            Changed::Done(now) => {
                let was_so = now.revision == row.revision;
                items.push(Value::Object(object(&now, Secrets::Masked)));
                if was_so {
                    format!("{} was so already", described(&now))
                } else {
                    // The verb says what it is now.
                    format!("{verb} {}", find::id_and_name(&now))
                }
            }
            // Removed by somebody else since it was read.
            _ => format!("{} is gone", described(row)),
        };
        if !context.is_json {
            output::line(&line)?;
        }
    }
    if context.is_json {
        return output::line(&serde_json::json!({ "items": items }).to_string());
    }
    Ok(())
}

fn print_site(row: &SiteRow) -> Result<(), Exit> {
    super::print_object(object(row, Secrets::Masked))
}
