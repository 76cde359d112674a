//! `round-trip`: one check of webmon's own through Kafka into PostgreSQL and back, each leg timed.
//!
//! The check is like any other: the consumers can't tell it from a producer's. Its site is a row of
//! its own, paused, so that no producer checks it; its due time is the moment it is made, so that
//! its id is new.

mod cause;
mod page;
mod trip;

use std::time::Duration;

use serde_json::json;

use self::page::Page;
pub(super) use self::trip::SITE;
use self::trip::{Done, Trip};
use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::ops_args::RoundTripArgs;
use super::{options, output};
use crate::runtime::{Stop, mono, stop_on_signals};
use crate::store::Limits;

/// For each call of the database: what waits longer is a missing leg.
const CALL: Duration = Duration::from_secs(5);
/// Between two trips where nobody said.
const INTERVAL_S: u32 = 1;

pub(super) fn round_trip(common: &CommonArgs, args: &RoundTripArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let settings = &loaded.settings;
    let limits = Limits { call: CALL, ..Limits::default() };
    let store = options::store_within(settings, "webmon-round-trip", limits)?;
    let stop = Stop::new();
    stop_on_signals(&stop).map_err(|error| {
        Exit::Failed(format!("webmon round-trip: cannot handle signals: {error}"))
    })?;
    let page = match &args.url {
        None => Some(Page::open().map_err(|error| {
            Exit::Failed(format!("webmon round-trip: listening on 127.0.0.1 failed: {error}"))
        })?),
        Some(_) => None,
    };
    let url = args.url.clone().or_else(|| page.as_ref().map(Page::url)).unwrap_or_default();
    let mut trip = Trip::new(settings, store, url, args, page.is_some())?;
    let count = args.count.unwrap_or(if args.interval.is_some() { u64::MAX } else { 1 });
    let every = Duration::from_secs(args.interval.unwrap_or(INTERVAL_S).into());
    let (mut totals, mut failures): (Vec<Duration>, Vec<String>) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let began = mono();
        match trip.make(&stop) {
            Some(Ok(done)) => {
                if args.json {
                    output::line(&done.json().to_string())?;
                } else {
                    tell(number, &done)?;
                }
                totals.push(done.total());
            }
            Some(Err(exit)) => {
                let Exit::Away(cause) = exit else { return Err(exit) };
                if args.json {
                    output::line(&json!({ "error": cause }).to_string())?;
                } else if count > 1 {
                    output::line(&format!("trip {number}: {cause}"))?;
                }
                failures.push(cause);
            }
            // Cut off by a signal: it counts for nothing.
            None => break,
        }
        if number == count || stop.wait(every.saturating_sub(mono() - began)) {
            break;
        }
    }
    if count > 1 && !args.json {
        summary(&totals, failures.len())?;
    }
    match failures.pop() {
        None => Ok(()),
        Some(cause) => Err(Exit::Away(format!("webmon round-trip: {cause}"))),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn tell(number: u64, done: &Done) -> Result<(), Exit> {
    output::line(&format!("trip {number}: {} is {}", done.url, done.outcome))?;
    for leg in &done.legs {
        let time = milliseconds(leg.time);
        output::line(format!("  {:<28} {time:>12}  {}", leg.name, leg.note).trim_end())?;
    }
    output::line(&format!("  {:<28} {:>12}", "total", milliseconds(done.total())))
}

fn summary(totals: &[Duration], failed: usize) -> Result<(), Exit> {
    let made = totals.len() + failed;
    let (least, most) = (totals.iter().min(), totals.iter().max());
    let times = match (least, most, u32::try_from(totals.len())) {
        (Some(least), Some(most), Ok(count)) => {
            let mean = totals.iter().sum::<Duration>() / count;
            let [least, mean, most] = [*least, mean, *most].map(milliseconds);
            format!("; total {least} at least, {mean} on average, {most} at most")
        }
        _ => String::new(),
    };
    output::line(&format!(
        "{}, {} found again, {failed} not{times}",
        output::counted(made, "trip"),
        totals.len()
    ))
}
