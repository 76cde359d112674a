//! Writing checks, and messages that can't become one.
//!
//! A batch is one transaction: its rows by a binary COPY, in the order of their ids so that two
//! writers of the same rows wait for each other instead of deadlocking, and the rejected
//! messages. What PostgreSQL refuses decides what comes next:
//! - 23505, some rows are there already (a replay): the same by `unnest … ON CONFLICT`, which is
//!   slower by two thirds but leaves those out;
//! - a row's data: that row is refused, all others are tried again;
//! - a deadlock or serialization failure: the same at once, [`AGAIN_MAX`] times;
//! - anything else: an error, and the caller keeps its batch. It may have been committed: the
//!   ids make trying it again harmless.

use std::io::Write;
use std::sync::Arc;

use jiff::Timestamp;
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::ToSql;

use super::encode::{self, Encoded};
use super::errors::{ErrorKind, Failure};
use super::{Store, StoreError, partitions, rollup};
use crate::check::{Check, truncate};
use crate::runtime::now;
use crate::telemetry::metrics;

/// How often a deadlocked transaction is tried again before the caller hears of it.
const AGAIN_MAX: u32 = 5;
/// Most payload bytes of rejected messages in one statement, unless a single message has more.
const REJECTED_BYTES: usize = 8 << 20;
/// Longest reason kept with a rejected message, in bytes.
const REASON_MAX: usize = 500;

/// A message that can't become a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// Where it came from; with partition and offset its key.
    pub topic: &'a str,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// What is wrong with it; cut to 500 bytes.
    pub reason: &'a str,
    /// The message as it came.
    pub payload: &'a [u8],
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Rows that are new.
    pub inserted: usize,
    /// Rows that were there already, or twice in the batch.
    pub known: usize,
    /// Checks that can't be stored, by their index in the batch, with the reason.
    pub refused: Vec<(usize, String)>,
}

impl Store {
    /// Stores `checks` and `rejected` in one transaction. Rows and messages that are there
    /// already stay as they are, so that any batch may come again.
    ///
    /// Counts inserted and known rows, failures and the duration in the metrics.
    ///
    /// # Errors
    /// When nothing was stored, or nobody knows: keep the batch and try it again.
    pub fn save_batch(
        &self,
        checks: &[Check<'_>],
        rejected: &[Rejected<'_>],
    ) -> Result<Saved, StoreError> {
        let start = now().mono;
        let saved = self.save(checks, rejected)?;
        metrics().insert_duration.observe((now().mono - start).as_secs_f64());
        metrics().rows_inserted.inc_by(saved.inserted as u64);
        metrics().rows_known.inc_by(saved.known as u64);
        Ok(saved)
    }

    /// [`Store::save_batch`] without rejected messages.
    ///
    /// # Errors
    /// As there.
    pub fn insert_checks(&self, checks: &[Check<'_>]) -> Result<Saved, StoreError> {
        self.save_batch(checks, &[])
    }

    /// [`Store::save_batch`] without checks.
    ///
    /// # Errors
    /// As there.
    pub fn reject(&self, rejected: &[Rejected<'_>]) -> Result<(), StoreError> {
        self.save_batch(&[], rejected).map(|_| ())
    }

    fn save(&self, checks: &[Check<'_>], rejected: &[Rejected<'_>]) -> Result<Saved, StoreError> {
        let mut batch = Batch { checks, rows: Vec::new(), saved: Saved::default() };
        let unknown = self.unknown_sites(checks.iter().map(|check| check.website_id))?;
        for (index, check) in checks.iter().enumerate() {
            if let Some(reason) = encode::fault(check) {
                batch.saved.refused.push((index, reason));
            } else if unknown.contains(&check.website_id) {
                batch.saved.refused.push((index, "unknown website".to_owned()));
            } else {
                batch.rows.push(index);
            }
        }
        batch.rows.sort_unstable_by_key(|row| checks[*row].check_entry_id);
        let rejected = Arc::new(rejected.iter().map(Kept::of).collect::<Vec<_>>());
        let (mut is_replay, mut again) = (false, 0);
        while !batch.rows.is_empty() || !rejected.is_empty() {
            let rows = batch.encode(is_replay);
            let (kept, marks) = (rejected.clone(), batch.marks());
            let failure = match self.inner.call(move |client| write(client, &rows, &marks, &kept)) {
                Ok(inserted) => {
                    // At most the batch's length.
                    batch.saved.inserted = inserted as usize;
                    batch.saved.known = batch.rows.len() - batch.saved.inserted;
                    break;
                }
                Err(failure) => failure,
            };
            metrics().insert_failures.inc();
            if !is_replay && failure.code() == Some(&SqlState::UNIQUE_VIOLATION) {
                is_replay = true;
            } else if failure.kind() == ErrorKind::Again && again < AGAIN_MAX {
                again += 1;
            } else if failure.kind() == ErrorKind::Data && !batch.rows.is_empty() {
                self.refuse_cause(&mut batch, &failure)?;
            } else {
                return Err(self.inner.error("inserting checks", &failure));
            }
        }
        batch.saved.refused.sort_unstable();
        Ok(batch.saved)
    }

    /// Refuses what made `failure`: all rows without a partition, or the row that the server
    /// named, or the one found by halving. At least one row.
    fn refuse_cause(&self, batch: &mut Batch<'_>, failure: &Failure) -> Result<(), StoreError> {
        if failure.code() == Some(&SqlState::CHECK_VIOLATION) {
            let ranges = self.inner.run("reading partitions", partitions::open_ranges)?;
            if ranges.is_some_and(|ranges| batch.refuse_outside(&ranges)) {
                return Ok(());
            }
        }
        if let Some(position) = named_row(failure).filter(|row| *row < batch.rows.len()) {
            batch.refuse(position, failure.cause());
            return Ok(());
        }
        let (position, reason) = self.find_bad(batch)?;
        batch.refuse(position, reason);
        Ok(())
    }

    /// The position of a row that is refused on its own, found by halving with transactions that
    /// are rolled back. Only for data errors of the arrays' path, where the server names no row
    /// and [`encode::fault`] found nothing: a constraint somebody added, another encoding.
    fn find_bad(&self, batch: &Batch<'_>) -> Result<(usize, String), StoreError> {
        let probe = |rows: &[usize]| -> Result<Option<String>, StoreError> {
            let arrays = encode::arrays(batch.checks, rows);
            let tried = self.inner.call(move |client| {
                let mut transaction = client.transaction()?;
                insert_arrays(&mut transaction, &arrays)?;
                Ok(transaction.rollback()?)
            });
            match tried {
                Ok(()) => Ok(None),
                Err(failure) if failure.kind() == ErrorKind::Data => Ok(Some(failure.cause())),
                Err(failure) => Err(self.inner.error("inserting checks", &failure)),
            }
        };
        let (mut low, mut high) = (0, batch.rows.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match probe(&batch.rows[low..middle])? {
                Some(_) => high = middle,
                None => low = middle,
            }
        }
        probe(&batch.rows[low..high])?.map(|reason| (low, reason)).ok_or_else(|| {
            let cause = "rows were refused together but not one by one".to_owned();
            self.inner.error("inserting checks", &Failure::Said(ErrorKind::Again, cause))
        })
    }
}

/// A batch on its way.
struct Batch<'a> {
    checks: &'a [Check<'a>],
    /// What is still to be inserted: indexes of `checks`, in the order of the ids.
    rows: Vec<usize>,
    saved: Saved,
}

/// Rows ready to be sent.
enum Rows {
    None,
    Copy(Vec<u8>),
    Arrays(Vec<Encoded>),
}

impl Batch<'_> {
    fn encode(&self, is_replay: bool) -> Rows {
        match is_replay {
            _ if self.rows.is_empty() => Rows::None,
            false => Rows::Copy(encode::binary_copy(self.checks, &self.rows)),
            true => Rows::Arrays(encode::arrays(self.checks, &self.rows)),
        }
    }

    /// The statement that marks the hours of all rows for the rollups.
    fn marks(&self) -> String {
        rollup::mark(self.rows.iter().map(|row| self.checks[*row].scheduled_at))
    }

    fn refuse(&mut self, position: usize, reason: String) {
        let index = self.rows.remove(position);
        self.saved.refused.push((index, reason));
    }

    /// Refuses all rows outside of `ranges`; whether there was one.
    fn refuse_outside(&mut self, ranges: &[(Timestamp, Timestamp)]) -> bool {
        let before = self.rows.len();
        let (checks, refused) = (self.checks, &mut self.saved.refused);
        self.rows.retain(|row| {
            let time = checks[*row].scheduled_at;
            let is_inside = ranges.iter().any(|(from, to)| *from <= time && time < *to);
            if !is_inside {
                refused.push((*row, format!("no partition for its time {time}")));
            }
            is_inside
        });
        self.rows.len() < before
    }
}

/// The row that the server named, counted from 0: `COPY check_entry, line 501, column regex`.
fn named_row(failure: &Failure) -> Option<usize> {
    let context = failure.db_error()?.where_()?;
    let (_, rest) = context.split_once("COPY check_entry, line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

/// A rejected message of one's own, to take along to another thread.
struct Kept {
    topic: String,
    partition: i32,
    offset: i64,
    reason: String,
    payload: Vec<u8>,
}

impl Kept {
    fn of(rejected: &Rejected<'_>) -> Self {
        let mut reason = rejected.reason.replace('\0', " ");
        truncate(&mut reason, REASON_MAX);
        Self {
            topic: rejected.topic.to_owned(),
            partition: rejected.partition,
            offset: rejected.offset,
            reason,
            payload: rejected.payload.to_owned(),
        }
    }
}

/// The whole transaction; the number of new rows of `check_entry`.
fn write(client: &mut Client, rows: &Rows, marks: &str, rejected: &[Kept]) -> Result<u64, Failure> {
    let mut transaction = client.transaction()?;
    let inserted = match rows {
        Rows::None => 0,
        Rows::Copy(bytes) => copy(&mut transaction, bytes)?,
        Rows::Arrays(arrays) => insert_arrays(&mut transaction, arrays)?,
    };
    if inserted > 0 {
        transaction.batch_execute(marks)?;
    }
    insert_rejected(&mut transaction, rejected)?;
    transaction.commit()?;
    Ok(inserted)
}

fn copy(transaction: &mut postgres::Transaction<'_>, bytes: &[u8]) -> Result<u64, Failure> {
    let mut writer = transaction.copy_in(&encode::copy_statement())?;
    // The writer only buffers what it is given at once; finish sends it.
    if let Err(error) = writer.write_all(bytes) {
        let cause = error.to_string();
        return Err(match error.into_inner().map(|inner| inner.downcast::<postgres::Error>()) {
            Some(Ok(error)) => Failure::Database(*error),
            _ => Failure::Said(ErrorKind::Outage, cause),
        });
    }
    Ok(writer.finish()?)
}

fn insert_arrays(
    transaction: &mut postgres::Transaction<'_>,
    arrays: &[Encoded],
) -> Result<u64, Failure> {
    let parameters: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|a| a as _).collect();
    Ok(transaction.execute(&encode::insert_statement(), &parameters)?)
}

fn insert_rejected(
    transaction: &mut postgres::Transaction<'_>,
    rejected: &[Kept],
) -> Result<(), Failure> {
    let mut rest = rejected;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|kept| {
            bytes += kept.payload.len();
            bytes <= REJECTED_BYTES
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        let column = |f: fn(&Kept) -> &str| now.iter().map(f).collect::<Vec<_>>();
        let partitions: Vec<i32> = now.iter().map(|kept| kept.partition).collect();
        let offsets: Vec<i64> = now.iter().map(|kept| kept.offset).collect();
        let payloads: Vec<&[u8]> = now.iter().map(|kept| kept.payload.as_slice()).collect();
        transaction.execute(
            "INSERT INTO rejected_message (topic, \"partition\", \"offset\", reason, payload) \
             SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::text[], $5::bytea[]) \
             ON CONFLICT DO NOTHING",
            &[
                &column(|kept| &kept.topic),
                &partitions,
                &offsets,
                &column(|kept| &kept.reason),
                &payloads,
            ],
        )?;
        rest = later;
    }
    Ok(())
}
