//! What somebody has to do now and then: tables up to date, partitions ahead, old ones gone.
//! Every consumer tries; the one that holds the advisory lock does it.

use std::time::Duration;

use jiff::Span;
use jiff::tz::TimeZone;

use crate::runtime::{Backoff, Stop, Threads, now};
use crate::store::{BACK_DAYS, ErrorKind, Store, StoreError};
use crate::telemetry::health;

/// How often: partitions are made days ahead, so an hour is early enough.
const EVERY: Duration = Duration::from_secs(3600);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_CAP: Duration = Duration::from_secs(30);
/// This part of the process's health.
const PART: &str = "tables";

/// What the maintenance thread keeps.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceOptions {
    /// Rows older than this many days go.
    pub retention_days: u32,
    /// Days for which partitions are made ahead.
    pub days_ahead: u16,
}

/// The running maintenance thread.
#[derive(Debug)]
pub struct Maintenance {
    threads: Threads,
}

impl Maintenance {
    /// Starts the thread; the database doesn't have to be there.
    ///
    /// # Errors
    /// The operating system's, when it has no room for the thread.
    pub fn start(store: Store, options: MaintenanceOptions, stop: &Stop) -> std::io::Result<Self> {
        health().expect(PART);
        let mut threads = Threads::new(stop.clone());
        let stop = stop.clone();
        threads.spawn("maintenance", move || run(&store, options, &stop))?;
        Ok(Self { threads })
    }

    /// Waits up to `limit` for its end after a stop; its name if it did not end.
    #[must_use]
    pub fn join(self, limit: Duration) -> Vec<String> {
        self.threads.join(limit)
    }
}

fn run(store: &Store, options: MaintenanceOptions, stop: &Stop) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    loop {
        let delay = match maintain(store, options) {
            Ok(()) => {
                backoff.reset();
                if health().well(PART) {
                    log::info!("tables are up to date");
                }
                EVERY
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

fn maintain(store: &Store, options: MaintenanceOptions) -> Result<(), StoreError> {
    store.migrate()?;
    let Some(_lead) = store.try_lead("maintenance")? else { return Ok(()) };
    let today = TimeZone::UTC.to_datetime(now().wall).date();
    // Not days that the next line would drop again.
    let back = BACK_DAYS.min(u16::try_from(options.retention_days).unwrap_or(BACK_DAYS));
    store.ensure_partitions(today, back, options.days_ahead)?;
    let oldest = today.saturating_sub(Span::new().days(i64::from(options.retention_days)));
    store.drop_partitions_before(oldest).map(drop)
}
