//! Counting checks by hour and day, as they end and where late ones came in. Every consumer tries;
//! the one that holds the lead does it, until its connection is lost. The others look what waits,
//! so that it shows in their metrics too when nobody counts.
//!
//! An hour or day that can't be counted keeps no other from being counted: it comes last from then
//! on.

use std::collections::BTreeSet;
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
    /// Hours and days that could not be counted: tried after all others.
    failed: BTreeSet<Timestamp>,
    /// What waited at the last look, while another one leads.
    followed: Option<Waiting>,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// All that waited is counted.
    Done,
    /// There is more to count.
    More,
    /// Another one counts.
    Follows,
    /// Another one has the lead, and nothing is seen of its work.
    Unseen,
}

/// Runs until the stop. `has_tables` turns true when the tables are there.
pub(super) fn run(store: Store, stop: Stop, has_tables: &Arc<AtomicBool>) {
    while !has_tables.load(Ordering::Acquire) {
        if stop.wait(TABLES_LOOK) {
            return;
        }
    }
    let mut worker = Worker {
        store,
        stop,
        rollups: None,
        is_unwell: false,
        catching_up: None,
        failed: BTreeSet::new(),
        followed: None,
    };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        let delay = match worker.round() {
            Ok(round) => {
                backoff.reset();
                // The lead may still be held by a connection of this process that was lost.
                if round != Round::Unseen {
                    worker.well();
                }
                if round == Round::More { Duration::ZERO } else { EVERY }
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
        let cause = error.to_string();
        health().unwell(PART, cause.as_str());
        if !std::mem::replace(&mut self.is_unwell, true) {
            log::warn!(cause = cause.as_str(); "checks cannot be counted");
        }
    }

    fn round(&mut self) -> Result<Round, StoreError> {
        let end = now().wall - SETTLE;
        let rollups = match self.rollups.take() {
            Some(rollups) => Some(rollups),
            None => self.store.try_rollups()?,
        };
        let Some(mut rollups) = rollups else { return self.follow(end) };
        self.followed = None;
        let result = self.lead(&mut rollups, end);
        // After an outage the lead may be lost with its connection.
        if !result.as_ref().is_err_and(StoreError::is_outage) {
            self.rollups = Some(rollups);
        }
        result
    }

    fn follow(&mut self, end: Timestamp) -> Result<Round, StoreError> {
        let before = self.followed.take();
        let waiting = self.store.rollups_waiting(end)?;
        note(&waiting);
        let round = followed(before.as_ref(), &waiting);
        self.followed = Some(waiting);
        Ok(round)
    }

    /// Counts what waits. An error that is no outage is given back only after all else was tried.
    fn lead(&mut self, rollups: &mut Rollups, end: Timestamp) -> Result<Round, StoreError> {
        let begin = now().mono;
        let mut waiting = rollups.waiting(end)?;
        note(&waiting);
        progress(&mut self.catching_up, waiting.hours.len());
        self.failed.retain(|time| waiting.hours.contains(time) || waiting.days.contains(time));
        let (mut round, mut first_error) = (Round::Done, None);
        for hour in failed_last(waiting.hours.clone(), &self.failed) {
            let start = now().mono;
            if self.stop.is_requested() || start.saturating_sub(begin) >= ROUND_MAX {
                round = Round::More;
                break;
            }
            match self.tried(hour, rollups.roll_hour(hour), &mut first_error)? {
                Some(Rolled::Busy) => break,
                Some(_) => waiting.hours.retain(|other| *other != hour),
                None => {}
            }
            note(&waiting);
            let _ = self.stop.wait((now().mono - start).mul_f64(PAUSE));
        }
        let waiting = rollups.waiting(end)?;
        for day in failed_last(complete_days(&waiting), &self.failed) {
            if self.stop.is_requested() {
                break;
            }
            if self.tried(day, rollups.roll_day(day), &mut first_error)? == Some(Rolled::Busy) {
                break;
            }
        }
        // Of hours that have not ended.
        let hour_s = HOUR.as_secs();
        let current = end.as_second().div_euclid(hour_s) * hour_s;
        rollups.thin_marks(Timestamp::from_second(current).unwrap_or(end))?;
        note(&waiting);
        metrics().rollup_duration.set((now().mono - begin).as_secs_f64());
        first_error.map_or(Ok(round), Err)
    }

    /// What became of the hour or day at `time`; nothing where it could not be counted, and why is
    /// kept in `first_error`. An outage ends the round.
    fn tried(
        &mut self,
        time: Timestamp,
        result: Result<Rolled, StoreError>,
        first_error: &mut Option<StoreError>,
    ) -> Result<Option<Rolled>, StoreError> {
        match result {
            Ok(rolled) => {
                self.failed.remove(&time);
                Ok(Some(rolled))
            }
            Err(error) => {
                // Also after an outage: it may be the one that takes longer than the server waits.
                self.failed.insert(time);
                if error.is_outage() {
                    return Err(error);
                }
                first_error.get_or_insert(error);
                Ok(None)
            }
        }
    }
}

/// `times`, those that failed before at the end.
fn failed_last(mut times: Vec<Timestamp>, failed: &BTreeSet<Timestamp>) -> Vec<Timestamp> {
    times.sort_by_key(|time| failed.contains(time));
    times
}

/// Whether somebody else counts: nothing waits, or something that waited `before` does no more.
fn followed(before: Option<&Waiting>, waiting: &Waiting) -> Round {
    let is_gone = |before: &Waiting| {
        before.hours.iter().any(|hour| !waiting.hours.contains(hour))
            || before.days.iter().any(|day| !waiting.days.contains(day))
    };
    if *waiting == Waiting::default() || before.is_some_and(is_gone) {
        Round::Follows
    } else {
        Round::Unseen
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

    #[test]
    fn what_failed_comes_last_and_the_newest_first() {
        let at = |hour: i64| Timestamp::UNIX_EPOCH + HOUR * i32::try_from(hour).unwrap();
        let failed = [at(5), at(4)].into();
        let times = failed_last((1..=5).rev().map(at).collect(), &failed);
        assert_eq!(times, [3, 2, 1, 5, 4].map(at));
    }

    #[test]
    fn another_one_counts_when_something_is_done() {
        let at = |hour: i32| Timestamp::UNIX_EPOCH + HOUR * hour;
        let hours = |hours: &[i32]| Waiting {
            hours: hours.iter().copied().map(at).collect(),
            days: Vec::new(),
        };
        let check = |before: Option<&[i32]>, now: &[i32], expected| {
            assert_eq!(followed(before.map(hours).as_ref(), &hours(now)), expected);
        };
        check(None, &[], Round::Follows);
        check(None, &[2, 1], Round::Unseen);
        check(Some(&[2, 1]), &[2, 1], Round::Unseen);
        // More of it is no sign of work.
        check(Some(&[1]), &[2, 1], Round::Unseen);
        check(Some(&[2, 1]), &[3, 1], Round::Follows);
        check(Some(&[]), &[1], Round::Unseen);
        let days = Waiting { hours: Vec::new(), days: vec![at(0)] };
        assert_eq!(followed(Some(&days), &days), Round::Unseen);
        assert_eq!(followed(Some(&days), &hours(&[])), Round::Follows);
    }
}
