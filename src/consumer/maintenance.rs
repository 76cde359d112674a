//! What somebody has to do now and then: tables up to date, partitions ahead, old ones gone.
//! Every consumer tries; the one that holds the advisory lock does it. A second thread counts
//! checks by hour and day: `rollups`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

use super::rollups;
use crate::runtime::{Backoff, Stop, Threads, now};
use crate::store::{BACK_DAYS, ErrorKind, Store, StoreError};
use crate::telemetry::health;

/// How often: partitions are made days ahead, so an hour is early enough.
const EVERY: Duration = Duration::from_secs(3600);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// This part of the process's health.
const PART: &str = "tables";

/// What the maintenance threads keep.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceOptions {
    /// Rows older than this many days go.
    pub retention_days: u32,
    /// Hourly rollups older than this many days go; 0 for never.
    pub hourly_days: u32,
    /// Daily rollups older than this many days go; 0 for never.
    pub daily_days: u32,
    /// Rejected messages older than this many days go.
    pub rejected_days: u32,
    /// Days for which partitions are made ahead.
    pub days_ahead: u16,
}

/// The running maintenance threads.
#[derive(Debug)]
pub struct Maintenance {
    threads: Threads,
}

impl Maintenance {
    /// Starts the threads; the database doesn't have to be there.
    ///
    /// # Errors
    /// The operating system's, when it has no room for a thread.
    pub fn start(store: Store, options: MaintenanceOptions, stop: &Stop) -> std::io::Result<Self> {
        health().expect(PART);
        let mut threads = Threads::new(stop.clone());
        let has_tables = Arc::new(AtomicBool::new(false));
        let (their_store, their_stop, theirs) = (store.clone(), stop.clone(), has_tables.clone());
        threads.spawn("rollups", move || rollups::run(their_store, their_stop, &theirs))?;
        let stop = stop.clone();
        threads.spawn("maintenance", move || run(&store, options, &has_tables, &stop))?;
        Ok(Self { threads })
    }

    /// Waits up to `limit` for their end after a stop; the names of those that did not end.
    #[must_use]
    pub fn join(self, limit: Duration) -> Vec<String> {
        self.threads.join(limit)
    }
}

fn run(store: &Store, options: MaintenanceOptions, has_tables: &AtomicBool, stop: &Stop) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    let mut is_removing = true;
    loop {
        let delay = match maintain(store, options, now().wall, has_tables) {
            Ok(removed) => {
                if health().well(PART) {
                    log::info!("tables are up to date");
                }
                let was_removing = std::mem::replace(&mut is_removing, removed.is_ok());
                match removed {
                    Ok(()) => {
                        backoff.reset();
                        if !was_removing {
                            log::info!("what is old is removed again");
                        }
                        EVERY
                    }
                    Err(error) => {
                        if was_removing {
                            let cause = error.to_string();
                            log::warn!(cause = cause.as_str(); "what is old cannot be removed");
                        }
                        backoff.next_delay()
                    }
                }
            }
            Err(error) => {
                let cause = error.to_string();
                if health().unwell(PART, cause.as_str()) {
                    if error.kind() == ErrorKind::Migration {
                        log::error!(cause = cause.as_str(); "tables cannot be brought up to date");
                    } else {
                        log::warn!(cause = cause.as_str(); "tables cannot be looked after");
                    }
                }
                backoff.next_delay()
            }
        };
        if stop.wait(delay) {
            return;
        }
    }
}

/// One round, at `here` by this host's clock: brings the tables up to date, sets `has_tables`, and
/// where nobody else leads makes partitions ahead and removes what is old. The inner result is the
/// first of the removals that failed; the others were tried all the same, and checks have their
/// partitions.
///
/// # Errors
/// When checks may lack their tables; and when `here` is not the server's time, as then nothing is
/// made or removed.
pub fn maintain(
    store: &Store,
    options: MaintenanceOptions,
    here: Timestamp,
    has_tables: &AtomicBool,
) -> Result<Result<(), StoreError>, StoreError> {
    store.migrate()?;
    has_tables.store(true, Ordering::Release);
    let time = store.agreed_time(here)?;
    let Some(_lead) = store.try_lead("maintenance")? else { return Ok(Ok(())) };
    let today = TimeZone::UTC.to_datetime(time).date();
    // Not days that the removal would drop again.
    let back = BACK_DAYS.min(u16::try_from(options.retention_days).unwrap_or(BACK_DAYS));
    let ahead = store.ensure_partitions(today, back, options.days_ahead);
    if ahead.as_ref().is_err_and(StoreError::is_outage) {
        return ahead.map(|_| Ok(()));
    }
    let removed = remove_old(store, options, time);
    ahead.map(|_| removed)
}

/// Tries every removal; the first error.
fn remove_old(
    store: &Store,
    options: MaintenanceOptions,
    time: Timestamp,
) -> Result<(), StoreError> {
    let today = TimeZone::UTC.to_datetime(time).date();
    let before = |days: u32| today.saturating_sub(Span::new().days(i64::from(days)));
    let mut result = store.drop_partitions_before(before(options.retention_days)).map(drop);
    if options.hourly_days > 0 {
        result = result.and(store.drop_hours_before(before(options.hourly_days)).map(drop));
    }
    if options.daily_days > 0 {
        result = result.and(store.drop_days_before(before(options.daily_days)).map(drop));
    }
    let kept = SignedDuration::from_hours(24 * i64::from(options.rejected_days));
    // A time before all times is none to delete for.
    if let Ok(limit) = time.checked_sub(kept) {
        let removed = store.delete_rejected_before(limit);
        if let Ok(messages @ 1..) = removed {
            log::info!(messages; "old rejected messages removed");
        }
        result = result.and(removed.map(drop));
    }
    result
}
