//! Writing checks, and messages that can't become one.
//!
//! A batch is one transaction: its rows by a binary COPY, in the order of their ids so that two
//! writers of the same rows wait for each other instead of deadlocking, and the rejected
//! messages. What PostgreSQL refuses decides what comes next:
//! - 23505, some rows are there already (a replay): the same by `unnest … ON CONFLICT`, which is
//!   slower by two thirds but leaves those out;
//! - a time without a partition: what is older than the oldest partition is refused, and a day
//!   that is missing is made; where it can't be, that is an outage, and nothing is refused;
//! - a row's data: that row is refused, all others are tried again;
//! - a rejected message's reason: the same with reasons in ASCII;
//! - a deadlock or serialization failure: the same at once, [`AGAIN_MAX`] times;
//! - anything else: an error, and the caller keeps its batch. It may have been committed: the
//!   ids make trying it again harmless.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use postgres::Client;
use postgres::error::SqlState;
use postgres::types::ToSql;
use uuid::Uuid;

use super::encode::{self, Encoded};
use super::errors::{ErrorKind, Failure};
use super::rejected::{Kept, Rejected, RejectedKey, Settlement};
use super::{Store, StoreError, clock, partitions, rejected, rollup};
use crate::check::Check;
use crate::runtime::now;
use crate::telemetry::metrics;

/// How often a deadlocked transaction is tried again before the caller hears of it.
const AGAIN_MAX: u32 = 5;
/// How far ahead of this clock, or of the server's where that says later, a check may have been
/// due. A producer whose clock is wrong by more would leave rows that stand as the newest of their
/// sites for days; and this clock may be wrong itself, by a zone or a date line, without all
/// checks being refused.
pub const DUE_AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);

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
        let kept = rejected.iter().map(Kept::of).collect();
        let work = Work { checks, kept: Arc::new(kept), replayed: &[], is_dry: false };
        self.save(&work)
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

    pub(super) fn save(&self, work: &Work<'_>) -> Result<Saved, StoreError> {
        let start = now();
        let checks = work.checks;
        let mut batch = Batch { checks, rows: Vec::new(), saved: Saved::default() };
        let unknown = self.unknown_sites(checks.iter().map(|check| check.website_id))?;
        let latest = self.latest_due(checks, start.wall)?;
        for (index, check) in checks.iter().enumerate() {
            let fault = encode::fault(check).or_else(|| {
                let hours = DUE_AHEAD_MAX.as_hours();
                (check.scheduled_at > latest)
                    .then(|| format!("due at {}, more than {hours} h ahead", check.scheduled_at))
            });
            let is_unknown = unknown.contains(&check.website_id);
            match fault.or_else(|| is_unknown.then(|| "unknown website".to_owned())) {
                Some(reason) => batch.saved.refused.push((index, reason)),
                None => batch.rows.push(index),
            }
        }
        batch.rows.sort_unstable_by_key(|row| checks[*row].check_entry_id);
        let new = self.write_batch(&mut batch, work)?;
        batch.saved.refused.sort_unstable();
        if !work.is_dry {
            let end = now();
            metrics().insert_duration.observe((end.mono - start.mono).as_secs_f64());
            metrics().rows_inserted.inc_by(batch.saved.inserted as u64);
            metrics().rows_known.inc_by(batch.saved.known as u64);
            for due in new {
                let late = end.wall.duration_since(due).as_secs_f64();
                metrics().end_to_end.observe(late.max(0.0));
            }
        }
        Ok(batch.saved)
    }

    /// The latest time at which a check may be due.
    fn latest_due(&self, checks: &[Check<'_>], here: Timestamp) -> Result<Timestamp, StoreError> {
        let after = |time: Timestamp| time.saturating_add(DUE_AHEAD_MAX).unwrap_or(Timestamp::MAX);
        let latest = after(here);
        if checks.iter().all(|check| check.scheduled_at <= latest) {
            return Ok(latest);
        }
        // Either their clock is wrong or this one.
        let there = self.inner.run("comparing the clocks", clock::server)?;
        Ok(latest.max(after(there)))
    }

    /// Until the batch is written, or what is left of it when bad rows are out. The due times of
    /// the new rows.
    fn write_batch(
        &self,
        batch: &mut Batch<'_>,
        work: &Work<'_>,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let (mut is_replay, mut is_plain, mut again) = (false, false, 0);
        loop {
            let settlement = Settlement::of(work.replayed, &batch.rows, &batch.saved.refused);
            let aside = Aside { kept: work.kept.clone(), settlement, is_dry: work.is_dry };
            let aside = if is_plain { aside.with_plain_reasons() } else { aside };
            if batch.rows.is_empty() && aside.kept.is_empty() && work.replayed.is_empty() {
                return Ok(Vec::new());
            }
            let rows = batch.encode(is_replay);
            let marks = batch.marks();
            let failure = match self.inner.call(move |client| write(client, &rows, &marks, &aside))
            {
                Ok(New::All) => {
                    batch.saved.inserted = batch.rows.len();
                    let due = |row: &usize| batch.checks[*row].scheduled_at;
                    return Ok(batch.rows.iter().map(due).collect());
                }
                Ok(New::These(ids)) => {
                    batch.saved.inserted = ids.len();
                    batch.saved.known = batch.rows.len() - ids.len();
                    return Ok(ids.iter().filter_map(due_of).collect());
                }
                Ok(New::NoAside(failure)) => {
                    metrics().insert_failures.inc();
                    if is_plain {
                        return Err(self.inner.error("putting messages aside", &failure));
                    }
                    is_plain = true;
                    continue;
                }
                Err(failure) => failure,
            };
            metrics().insert_failures.inc();
            if is_no_partition(&failure) && !batch.rows.is_empty() {
                let is_progress = self.mend_partitions(batch, &failure)?;
                again += u32::from(!is_progress);
                if again > AGAIN_MAX {
                    return Err(self.inner.error("inserting checks", &as_outage(&failure)));
                }
            } else if !is_replay && failure.code() == Some(&SqlState::UNIQUE_VIOLATION) {
                is_replay = true;
            } else if failure.kind() == ErrorKind::Again && again < AGAIN_MAX {
                again += 1;
            } else if failure.kind() == ErrorKind::Data && !batch.rows.is_empty() {
                self.refuse_cause(batch, &failure)?;
            } else {
                return Err(self.inner.error("inserting checks", &failure));
            }
        }
    }

    /// Refuses the rows that are older than the oldest partition, or makes the days that others
    /// lack; whether there was something to do. Otherwise somebody was faster.
    ///
    /// # Errors
    /// When a day is missing and can't be made: the rows are good, so that is an outage.
    fn mend_partitions(
        &self,
        batch: &mut Batch<'_>,
        failure: &Failure,
    ) -> Result<bool, StoreError> {
        let open = self.inner.run("reading partitions", partitions::open)?;
        let oldest = open.ranges.first().map(|(from, _)| *from);
        if !open.is_all {
            // The bounds of some are unknown, so which row it is only the server can tell.
            let (position, reason) = self.find_cause(batch, failure)?;
            let time = batch.time(position);
            if oldest.is_some_and(|oldest| oldest <= time) {
                return Err(self.no_partition(time, None));
            }
            batch.refuse(position, reason);
            return Ok(true);
        }
        let Some(oldest) = oldest else {
            return Err(self.no_partition(batch.time(0), None));
        };
        if batch.refuse_before(oldest) {
            return Ok(true);
        }
        let Some(time) = batch.times().find(|time| !is_inside(&open.ranges, *time)) else {
            return Ok(false);
        };
        let lacking = batch.times().filter(|time| !is_inside(&open.ranges, *time));
        let days: BTreeSet<Date> = lacking.map(partitions::day_of).collect();
        let days: Vec<Date> = days.into_iter().collect();
        let made = self
            .inner
            .call(move |client| partitions::make_days(client, now().wall, &days))
            .map_err(|failure| self.no_partition(time, Some(&failure)))?;
        match (made.days.is_empty(), made.blocked) {
            (false, _) => Ok(true),
            (true, blocked) => Err(self.no_partition(time, blocked.as_ref())),
        }
    }

    /// A row waits for a partition, which can't be made here for `failure`.
    fn no_partition(&self, time: Timestamp, failure: Option<&Failure>) -> StoreError {
        let mut cause = format!("no partition for {time}: maintenance has not made it");
        if let Some(failure) = failure {
            cause = format!("{cause}, and it cannot be made here: {}", failure.cause());
        }
        self.inner.error("inserting checks", &Failure::Said(ErrorKind::Outage, cause))
    }

    /// Refuses what made `failure`: one row.
    fn refuse_cause(&self, batch: &mut Batch<'_>, failure: &Failure) -> Result<(), StoreError> {
        let (position, reason) = self.find_cause(batch, failure)?;
        batch.refuse(position, reason);
        Ok(())
    }

    /// The position of the row that the server named, or of one found by halving, and what is
    /// wrong with it.
    fn find_cause(
        &self,
        batch: &Batch<'_>,
        failure: &Failure,
    ) -> Result<(usize, String), StoreError> {
        if let Some(position) = named_row(failure).filter(|row| *row < batch.rows.len()) {
            return Ok((position, failure.cause()));
        }
        self.find_bad(batch)
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

/// What is to be saved in one transaction.
pub(super) struct Work<'a> {
    pub(super) checks: &'a [Check<'a>],
    /// Messages to put aside.
    pub(super) kept: Arc<Vec<Kept>>,
    /// Where each check stands in `rejected_message`, if they come from there.
    pub(super) replayed: &'a [RejectedKey],
    /// Whether all is taken back at the end.
    pub(super) is_dry: bool,
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

    /// When the row at `position` was due.
    fn time(&self, position: usize) -> Timestamp {
        self.checks[self.rows[position]].scheduled_at
    }

    fn times(&self) -> impl Iterator<Item = Timestamp> {
        self.rows.iter().map(|row| self.checks[*row].scheduled_at)
    }

    /// Refuses all rows before `oldest`; whether there was one.
    fn refuse_before(&mut self, oldest: Timestamp) -> bool {
        let before = self.rows.len();
        let (checks, refused) = (self.checks, &mut self.saved.refused);
        self.rows.retain(|row| {
            let time = checks[*row].scheduled_at;
            let is_old = time < oldest;
            if is_old {
                refused.push((*row, format!("no partition for its time {time}")));
            }
            !is_old
        });
        self.rows.len() < before
    }
}

fn is_inside(ranges: &[partitions::Range], time: Timestamp) -> bool {
    ranges.iter().any(|(from, to)| *from <= time && time < *to)
}

/// Whether the server found no partition: a rule that somebody added has a name, and a trigger
/// that refuses names no table.
fn is_no_partition(failure: &Failure) -> bool {
    failure.code() == Some(&SqlState::CHECK_VIOLATION)
        && failure.db_error().is_some_and(|e| e.table().is_some() && e.constraint().is_none())
}

/// `failure` for a caller that has to wait.
fn as_outage(failure: &Failure) -> Failure {
    Failure::Said(ErrorKind::Outage, failure.cause())
}

/// The row that the server named, counted from 0: `COPY check_entry, line 501, column regex`.
fn named_row(failure: &Failure) -> Option<usize> {
    let context = failure.db_error()?.where_()?;
    let (_, rest) = context.split_once("COPY check_entry, line ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

/// What one transaction has to do besides its rows.
struct Aside {
    kept: Arc<Vec<Kept>>,
    settlement: Settlement,
    is_dry: bool,
}

impl Aside {
    fn with_plain_reasons(self) -> Self {
        let kept = self.kept.iter().map(Kept::with_plain_reason).collect();
        let settlement = self.settlement.with_plain_reasons();
        Self { kept: Arc::new(kept), settlement, ..self }
    }

    fn write(&self, transaction: &mut postgres::Transaction<'_>) -> Result<(), Failure> {
        rejected::insert(transaction, &self.kept)?;
        self.settlement.write(transaction)
    }
}

/// Which of the rows are new.
enum New {
    All,
    These(Vec<Uuid>),
    /// None: the rows are good, but what goes aside was refused for its data.
    NoAside(Failure),
}

/// The due time that an id begins with.
fn due_of(id: &Uuid) -> Option<Timestamp> {
    Timestamp::from_millisecond((id.as_u128() >> 80) as i64).ok()
}

/// The whole transaction.
fn write(client: &mut Client, rows: &Rows, marks: &str, aside: &Aside) -> Result<New, Failure> {
    let mut transaction = client.transaction()?;
    let new = match rows {
        Rows::None => New::All,
        Rows::Copy(bytes) => copy(&mut transaction, bytes).map(|_| New::All)?,
        Rows::Arrays(arrays) => New::These(insert_arrays(&mut transaction, arrays)?),
    };
    let is_news = match &new {
        New::All => !matches!(rows, Rows::None),
        New::These(ids) => !ids.is_empty(),
        New::NoAside(_) => false,
    };
    if is_news {
        transaction.batch_execute(marks)?;
    }
    match aside.write(&mut transaction) {
        Err(failure) if failure.kind() == ErrorKind::Data => {
            transaction.rollback()?;
            return Ok(New::NoAside(failure));
        }
        result => result?,
    }
    if aside.is_dry {
        transaction.rollback()?;
    } else {
        transaction.commit()?;
    }
    Ok(new)
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
) -> Result<Vec<Uuid>, Failure> {
    let parameters: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|a| a as _).collect();
    let rows = transaction.query(&encode::insert_statement(), &parameters)?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
