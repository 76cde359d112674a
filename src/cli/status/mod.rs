//! `status`: the pipeline at a glance, what is unwell, and what to do about it.

mod findings;
mod look;
mod show;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::ops_args::StatusArgs;
use super::{options, output};
use crate::config::Settings;
use crate::runtime::{Stop, stop_on_signals};
use crate::store::{Limits, Store};
use look::Look;

/// For each call of the database: an operator waits in front of the screen.
const CALL: Duration = Duration::from_secs(10);

pub(super) fn status(common: &CommonArgs, args: &StatusArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let settings = &loaded.settings;
    let limits = Limits { call: CALL, ..Limits::default() };
    let store = options::store_within(settings, "webmon-status", limits)?;
    let Some(seconds) = args.watch else { return once(settings, &store, args.json) };
    let stop = Stop::new();
    stop_on_signals(&stop)
        .map_err(|error| Exit::Failed(format!("webmon status: cannot handle signals: {error}")))?;
    let is_terminal = std::io::stdout().is_terminal();
    loop {
        if is_terminal && !args.json {
            // Home, then clear: with standard output closed there is nobody left to show it to.
            let _ = std::io::stdout().write_all(b"\x1b[H\x1b[2J");
        }
        // Each look has what is away among its findings: only the last one's end is told again.
        let end = once(settings, &store, args.json);
        if stop.wait(Duration::from_secs(seconds.into())) {
            return end;
        }
        if !is_terminal && !args.json {
            output::line("")?;
        }
    }
}

fn once(settings: &Settings, store: &Store, is_json: bool) -> Result<(), Exit> {
    let look = Look::take(settings, store);
    let findings = findings::of(&look, settings);
    if is_json {
        output::line(&show::json(&look, &findings).to_string())?;
    } else {
        show::text(&look, &findings)?;
    }
    let database = look.database.as_ref().err();
    let kafka = look.kafka.as_ref().and_then(|kafka| kafka.as_ref().err());
    match (database, kafka) {
        (None, None) if findings.is_empty() => Ok(()),
        (None, None) => Err(Exit::Bad),
        (Some(error), None) => Err(Exit::of_store(error)),
        (None, Some(error)) => Err(Exit::of_kafka("webmon status", error)),
        (Some(error), Some(other)) => {
            let said = format!("webmon status: {error}; Kafka: {other}");
            let needs_person = |exit: Exit| matches!(exit, Exit::Usage(_));
            // As 'doctor' ends: what waiting does not cure comes first.
            if needs_person(Exit::of_store(error)) || other.is_permanent() {
                Err(Exit::Usage(said))
            } else {
                Err(Exit::Away(said))
            }
        }
    }
}
