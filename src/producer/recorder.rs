//! From a check to a record in the spool: the one way out for every result.

use std::cell::RefCell;

use crate::check::{Check, Outcome};
use crate::spool::Spool;
use crate::telemetry::{ByFailure, ByOutcome, Counter, metrics};
use crate::wire;

/// Bytes of the key in front of each record's message: the site's id, big-endian.
pub(super) const KEY_BYTES: usize = 8;

/// A message of a usual check; the buffer grows beyond when it must.
const USUAL_RECORD: usize = 512;

thread_local! {
    /// Encoding happens on every worker for every check: the buffer stays with the thread.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(USUAL_RECORD));
}

/// Counts a result and hands it to the spool.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    spool: Spool,
    // Looked up once: a family hashes its label and takes its lock each time.
    up: Counter,
    down: Counter,
    missed: Counter,
}

impl Recorder {
    pub(super) fn new(spool: Spool) -> Self {
        let checks = |outcome: Outcome| {
            metrics().checks.get_or_create(&ByOutcome { outcome: outcome.as_str() }).clone()
        };
        Self {
            spool,
            up: checks(Outcome::Up),
            down: checks(Outcome::Down),
            missed: checks(Outcome::Missed),
        }
    }

    pub(super) fn record(&self, check: &Check<'_>) {
        let metrics = metrics();
        match check.outcome {
            Outcome::Up => self.up.inc(),
            Outcome::Down => self.down.inc(),
            Outcome::Missed => self.missed.inc(),
        };
        if let (Outcome::Down, Some(failure)) = (check.outcome, &check.failure) {
            metrics.failures.get_or_create(&ByFailure { kind: failure.kind.as_str() }).inc();
        }
        if let Some(seconds) = check.response_time {
            metrics.response_time.observe(seconds);
        }
        log::debug!(website_id = check.website_id, outcome = check.outcome.as_str(),
            check_entry_id:% = check.check_entry_id; "check ended");
        let record = BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.extend_from_slice(&check.website_id.to_be_bytes());
            wire::encode(check, buffer);
            buffer.as_slice().to_vec()
        });
        self.spool.append(record);
    }
}

/// A record's site and message; `None` for what this program never wrote.
pub(super) fn split(record: &[u8]) -> Option<(i64, &[u8])> {
    let (key, message) = record.split_first_chunk::<KEY_BYTES>()?;
    Some((i64::from_be_bytes(*key), message))
}
