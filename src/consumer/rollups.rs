//! Counting checks by hour and day, as they end and where late ones came in. Every consumer tries;
//! the one that holds the lead does it, until its connection is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::runtime::{Backoff, Stop, now};
use crate::store::{Rolled, Rollups, Store, StoreError, Waiting};
use crate::telemetry::{health, metrics};

/// How often it is looked for marked hours, and for the lead.
const EVERY: Duration = Duration::from_secs(30);
/// How long after its end an hour is counted: most of its checks are there then, so that it is
/// counted once.
const SETTLE: SignedDuration = SignedDuration::from_secs(60);
/// Longest round: then it is looked again, since newer hours go first.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// After each hour a pause of so much of the time it took: for the others on the database, and for
/// retention, which waits for the lock.
const PAUSE: f64 = 0.1;
/// How many hours at once are a past to catch up with, and worth a line in the log …
const PAST_HOURS: usize = 24;
/// … this often.
const PROGRESS: Duration = Duration::from_secs(60);
/// How often it is looked whether the tables are there.
const TABLES_LOOK: Duration = Duration::from_millis(100);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_CAP: Duration = Duration::from_secs(30);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// This part of the process's health; only there once it was unwell.
const PART: &str = "rollups";

/// The thread's state.
struct Worker {
    store: Store,
    stop: Stop,
    /// While this process leads.
    rollups: Option<Rollups>,
    is_unwell: bool,
    /// Since the last line about a past to catch up with.
    catching_up: Option<Duration>,
}

/// Runs until the stop. `has_tables` turns true when the tables are there.
pub(super) fn run(store: Store, stop: Stop, has_tables: &Arc<AtomicBool>) {
    while !has_tables.load(Ordering::Acquire) {
        if stop.wait(TABLES_LOOK) {
            return;
        }
    }
    let mut worker = Worker { store, stop, rollups: None, is_unwell: false, catching_up: None };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        let delay = match worker.round() {
            Ok(is_done) => {
                backoff.reset();
                worker.well();
                if is_done { EVERY } else { Duration::ZERO }
            }
            Err(error) => {
                worker.unwell(&error);
                backoff.next_delay()
            }
        };
        if worker.stop.wait(delay) {
            return;
        }
    }
}

impl Worker {
    fn well(&mut self) {
        if std::mem::take(&mut self.is_unwell) {
            health().well(PART);
            log::info!("checks are counted again");
        }
    }

    fn unwell(&mut self, error: &StoreError) {
        // The lead may be lost with its connection.
        self.rollups = None;
        let cause = error.to_string();
        health().unwell(PART, cause.as_str());
        if !std::mem::replace(&mut self.is_unwell, true) {
            log::warn!(cause = cause.as_str(); "checks cannot be counted");
        }
    }

    /// Whether nothing is left for now.
    fn round(&mut self) -> Result<bool, StoreError> {
        if self.rollups.is_none() {
            self.rollups = self.store.try_rollups()?;
        }
        let Some(rollups) = &mut self.rollups else {
            note(&Waiting::default());
            return Ok(true);
        };
        let (begin, end) = (now().mono, now().wall - SETTLE);
        let mut waiting = rollups.waiting(end)?;
        note(&waiting);
        progress(&mut self.catching_up, waiting.hours.len());
        let mut is_done = true;
        for hour in waiting.hours.clone() {
            let start = now().mono;
            if self.stop.is_requested() || start.saturating_sub(begin) >= ROUND_MAX {
                is_done = false;
                break;
            }
            if rollups.roll_hour(hour)? == Rolled::Busy {
                break;
            }
            waiting.hours.retain(|other| *other != hour);
            note(&waiting);
            let _ = self.stop.wait((now().mono - start).mul_f64(PAUSE));
        }
        let waiting = rollups.waiting(end)?;
        for day in complete_days(&waiting) {
            if self.stop.is_requested() || rollups.roll_day(day)? == Rolled::Busy {
                break;
            }
        }
        // Of hours that have not ended.
        let hour_s = HOUR.as_secs();
        let current = end.as_second().div_euclid(hour_s) * hour_s;
        rollups.thin_marks(Timestamp::from_second(current).unwrap_or(end))?;
        note(&waiting);
        metrics().rollup_duration.set((now().mono - begin).as_secs_f64());
        Ok(is_done)
    }
}

/// Those of the marked days whose hours are all counted: else they would be counted again with
/// each further hour.
fn complete_days(waiting: &Waiting) -> Vec<Timestamp> {
    let is_of = |hour: Timestamp, day: Timestamp| day <= hour && hour < day + DAY;
    let is_complete = |day: &Timestamp| !waiting.hours.iter().any(|hour| is_of(*hour, *day));
    waiting.days.iter().copied().filter(is_complete).collect()
}

fn note(waiting: &Waiting) {
    let count = i64::try_from(waiting.hours.len()).unwrap_or(i64::MAX);
    let age = waiting.hours.last().map(|hour| now().wall.duration_since(*hour + HOUR).as_secs());
    metrics().rollup_waiting.set(count);
    metrics().rollup_oldest.set(age.unwrap_or_default());
}

/// Tells that there is a past to catch up with, how it goes, and when it is done.
fn progress(catching_up: &mut Option<Duration>, hours: usize) {
    let mono = now().mono;
    match *catching_up {
        None if hours >= PAST_HOURS => {
            log::info!(hours; "counting the checks of past hours");
            *catching_up = Some(mono);
        }
        Some(_) if hours < PAST_HOURS => {
            log::info!("the checks of past hours are counted");
            *catching_up = None;
        }
        Some(last) if mono.saturating_sub(last) >= PROGRESS => {
            log::info!(hours_left = hours; "counting the checks of past hours");
            *catching_up = Some(mono);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_waits_for_its_hours() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let [first, second] = [at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z")];
        let days = vec![second, first];
        let waiting = |hour: &str| Waiting { hours: vec![at(hour)], days: days.clone() };
        assert_eq!(complete_days(&waiting("2026-01-01T23:00:00Z")), [second]);
        assert_eq!(complete_days(&waiting("2026-01-02T00:00:00Z")), [first]);
        assert_eq!(complete_days(&waiting("2026-01-03T00:00:00Z")), days);
    }
}
