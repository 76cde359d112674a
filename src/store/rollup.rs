//! Counting checks by hour and day, so that a site's past is quick to ask for and outlives the
//! checks themselves.
//!
//! Invariants:
//! - A committed check that `check_hour` does not count yet has a committed mark of its hour in
//!   `rollup_dirty`. A check and its mark are committed together. A mark is removed only by the
//!   transaction that counts its hour anew, and there by an earlier statement: at READ COMMITTED
//!   the count's snapshot is the later one, so it has every check whose mark was removed. A mark
//!   that is committed in between stays, and its hour is counted once more.
//! - Counts are written by one transaction at a time, the one that holds the advisory lock [`LOCK`].
//!   It takes the lock in a statement of its own, before any snapshot of the count, and gives it
//!   up with its end: another could otherwise write an older count over a newer one.
//! - An hour is counted from its checks as a whole, and a day from its hours: doing it again changes
//!   nothing, and nothing is written where nothing changed. Counting removes no row.
//! - An hour before `rollup_state.raw_from` is never counted again: its checks are gone, and late
//!   ones alone would replace the count of all. Its marks are only removed.
//! - The same for days, with `rollup_dirty_day`, set by the transaction that changes an hour. So an
//!   unmarked day of `check_day` is the sum of its hours.
//!
//! None of this needs a clock: that only finished hours are counted saves work, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use postgres::{Client, Transaction};

use super::errors::Failure;
use super::lead::Lead;
use super::migrations::LOCK_CLASS;
use super::{Store, StoreError, partitions};
use crate::check::FailureKind;

/// The advisory lock of whoever writes counts, or removes what they are made of.
pub(super) const LOCK: &str = "rollup";
/// The lead of the one that looks for work.
const LEAD: &str = "rollups";
/// Longest response time that is counted, in seconds: no check takes longer than the longest
/// interval. A larger value, from elsewhere, must not make an hour impossible to count.
const RESPONSE_TIME_MAX_S: u32 = 86_400;
/// One hour.
pub(super) const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// One day, as UTC has no other.
pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What is to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Marked hours that have ended, the newest first, each once.
    pub hours: Vec<Timestamp>,
    /// Marked days that have ended, the newest first.
    pub days: Vec<Timestamp>,
}

/// What became of an hour or a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolled {
    /// Counted; so many rows were new or changed.
    Written(u64),
    /// Somebody else counts, or removes old checks: nothing was done, and its mark is still there.
    Busy,
    /// Its checks are gone, and it was not counted again.
    Final,
}

/// The one of all processes that counts. Others get none until this one is dropped, or its
/// connection is lost; then its calls fail.
#[derive(Debug)]
pub struct Rollups {
    store: Store,
    lead: Lead,
    limit: Duration,
}

impl Store {
    /// Takes the lead in counting, if no other process or thread has it.
    ///
    /// # Errors
    /// The database can't be asked.
    pub fn try_rollups(&self) -> Result<Option<Rollups>, StoreError> {
        let limit = self.inner.limits().schema;
        let lead = self.try_lead(LEAD)?;
        Ok(lead.map(|lead| Rollups { store: self.clone(), lead, limit }))
    }

    /// What waits to be counted, for whoever does not lead: of hours and days that ended at or
    /// before `end`.
    ///
    /// # Errors
    /// What the database said.
    pub fn rollups_waiting(&self, end: Timestamp) -> Result<Waiting, StoreError> {
        self.inner.run("looking for hours to count", move |client| waiting(client, end))
    }
}

impl Rollups {
    /// What waits, of hours and days that ended at or before `end`.
    ///
    /// # Errors
    /// What the database said; after an outage the lead is lost.
    pub fn waiting(&mut self, end: Timestamp) -> Result<Waiting, StoreError> {
        self.call("looking for hours to count", move |client| waiting(client, end))
    }

    /// Counts the hour that begins at `hour`, and marks its day if that changed something.
    ///
    /// # Errors
    /// As [`Rollups::waiting`]; nothing was changed.
    pub fn roll_hour(&mut self, hour: Timestamp) -> Result<Rolled, StoreError> {
        self.call("counting an hour", move |client| roll_hour(client, hour, None))
    }

    /// Counts the day that begins at `day`.
    ///
    /// # Errors
    /// As [`Rollups::waiting`]; nothing was changed.
    pub fn roll_day(&mut self, day: Timestamp) -> Result<Rolled, StoreError> {
        self.call("counting a day", move |client| roll_day(client, day))
    }

    /// Leaves one mark of each hour from `from` on: every insert adds one, and an hour that has not
    /// ended would gather thousands.
    ///
    /// # Errors
    /// As [`Rollups::waiting`]; nothing was changed.
    pub fn thin_marks(&mut self, from: Timestamp) -> Result<(), StoreError> {
        self.call("thinning marks", move |client| {
            let mut transaction = client.transaction()?;
            if lock(&mut transaction)? {
                transaction.execute(
                    "WITH gone AS (DELETE FROM rollup_dirty WHERE hour >= $1 RETURNING hour) \
                     INSERT INTO rollup_dirty SELECT DISTINCT hour FROM gone",
                    &[&from],
                )?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn call<R, F>(&mut self, what: &str, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        let limit = self.limit;
        // The server gives up before the caller turns away, who would leave the lead behind.
        let statement_ms = (limit * 3 / 4).as_millis();
        let result = self.lead.call(limit, move |client| {
            client.batch_execute(&format!("SET statement_timeout = {statement_ms}"))?;
            work(client)
        });
        result.map_err(|failure| self.store.inner.error(what, &failure))
    }
}

fn waiting(client: &mut Client, end: Timestamp) -> Result<Waiting, Failure> {
    let times = |client: &mut Client, question: &str, before: Timestamp| {
        let rows = client.query(question, &[&before])?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<Timestamp>, Failure>>()
    };
    let hours = "SELECT DISTINCT hour FROM rollup_dirty WHERE hour <= $1 ORDER BY hour DESC";
    let days = "SELECT day FROM rollup_dirty_day WHERE day <= $1 ORDER BY day DESC";
    Ok(Waiting { hours: times(client, hours, end - HOUR)?, days: times(client, days, end - DAY)? })
}

/// The statement that marks the hours of checks due at `times`; in the transaction that inserts
/// them. A text without parameters goes to the server and back once.
pub(super) fn mark(times: impl Iterator<Item = Timestamp>) -> String {
    const HOUR_S: i64 = 3600;
    let hours: BTreeSet<i64> = times.map(|time| time.as_second().div_euclid(HOUR_S)).collect();
    let seconds: Vec<String> = hours.iter().map(|hour| (hour * HOUR_S).to_string()).collect();
    format!(
        "INSERT INTO rollup_dirty SELECT to_timestamp(unnest(ARRAY[{}]::bigint[]))",
        seconds.join(", ")
    )
}

/// Takes [`LOCK`] until the transaction's end, if it is free.
fn lock(transaction: &mut Transaction<'_>) -> Result<bool, Failure> {
    let question = "SELECT pg_try_advisory_xact_lock($1, hashtext($2))";
    Ok(transaction.query_one(question, &[&LOCK_CLASS, &LOCK])?.try_get(0)?)
}

/// Counts an hour. `source` is the table to count from, where it is not the one of its day.
pub(super) fn roll_hour(
    client: &mut Client,
    hour: Timestamp,
    source: Option<&str>,
) -> Result<Rolled, Failure> {
    let mut transaction = client.transaction()?;
    if !lock(&mut transaction)? {
        return Ok(Rolled::Busy);
    }
    // Before the count, in a statement of its own: see the invariants.
    transaction.execute("DELETE FROM rollup_dirty WHERE hour = $1", &[&hour])?;
    let question = "SELECT EXISTS (SELECT FROM rollup_state WHERE raw_from > $1)";
    if transaction.query_one(question, &[&hour])?.try_get(0)? {
        transaction.commit()?;
        return Ok(Rolled::Final);
    }
    // By its own name and not through the parent: a day that is about to be removed, or was
    // detached by a process that ended then, is not seen through it any more.
    let day = partitions::CHECKS.partition(partitions::day_of(hour));
    let question = "SELECT to_regclass($1) IS NOT NULL";
    let has_own: bool = transaction.query_one(question, &[&day])?.try_get(0)?;
    let source = source.unwrap_or(if has_own { &day } else { "check_entry" });
    set_up(&mut transaction)?;
    let columns = columns("hour", &[]);
    let count = count_checks(source, &between(hour, hour + HOUR));
    let written = transaction.execute(&write("check_hour", "hour", &columns, &count, hour), &[])?;
    if written > 0 {
        transaction.execute(
            "INSERT INTO rollup_dirty_day VALUES (date_bin('1 day', $1, 'epoch')) \
             ON CONFLICT DO NOTHING",
            &[&hour],
        )?;
    }
    transaction.commit()?;
    Ok(Rolled::Written(written))
}

pub(super) fn roll_day(client: &mut Client, day: Timestamp) -> Result<Rolled, Failure> {
    let mut transaction = client.transaction()?;
    if !lock(&mut transaction)? {
        return Ok(Rolled::Busy);
    }
    transaction.execute("DELETE FROM rollup_dirty_day WHERE day = $1", &[&day])?;
    let question = "SELECT EXISTS (SELECT FROM rollup_state WHERE hours_from > $1)";
    if transaction.query_one(question, &[&day])?.try_get(0)? {
        transaction.commit()?;
        return Ok(Rolled::Final);
    }
    set_up(&mut transaction)?;
    let columns = columns("day", &["hours"]);
    let sum = sum_hours(day);
    let written = transaction.execute(&write("check_day", "day", &columns, &sum, day), &[])?;
    transaction.commit()?;
    Ok(Rolled::Written(written))
}

/// JIT takes half a second to compile what then runs for one. Two groupings need the memory.
fn set_up(transaction: &mut Transaction<'_>) -> Result<(), Failure> {
    Ok(transaction.batch_execute("SET LOCAL jit = off; SET LOCAL work_mem = '64MB'")?)
}

/// The condition for checks due from `from` to before `to`. Ids begin with the due time in ms, so
/// the primary key's index finds them in the order in which they lie; there is no index by time
/// alone.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    let id = |time: Timestamp| {
        let ms = u128::from(time.as_millisecond().max(0).unsigned_abs());
        uuid::Uuid::from_u128(ms << 80)
    };
    format!(
        "\"timestamp\" >= '{from}' AND \"timestamp\" < '{to}' \
         AND check_entry_id >= '{}' AND check_entry_id < '{}'",
        id(from),
        id(to),
    )
}

/// Columns that tell the kinds of failures apart.
fn kinds() -> impl Iterator<Item = (&'static str, String)> {
    FailureKind::ALL.into_iter().map(|kind| (kind.as_str(), format!("down_{}", kind.as_str())))
}

/// The columns of a rollup, in the order in which [`count_checks`] and [`sum_hours`] give them.
fn columns(time: &str, more: &[&str]) -> Vec<String> {
    let mut columns: Vec<String> = [
        "website_id",
        "region",
        time,
        "up",
        "down",
        "missed",
        "unreachable_self",
        "response_times",
        "response_time_sum",
        "response_time_min",
        "response_time_max",
        "buckets",
        "counts",
    ]
    .map(str::to_owned)
    .into();
    columns.extend(kinds().map(|(_, column)| column));
    columns.extend(more.iter().map(|&column| column.to_owned()));
    columns
}

/// The statement that writes what `counted` gives for the hour or day at `start` into `table`.
///
/// Rows that are there already and equal are left out by a join: `ON CONFLICT … WHERE` would lock,
/// and so write, each of them.
fn write(table: &str, time: &str, columns: &[String], counted: &str, start: Timestamp) -> String {
    let list = columns.join(", ");
    let of =
        |alias: &str| columns.iter().map(|c| format!("{alias}.{c}")).collect::<Vec<_>>().join(", ");
    let set: Vec<String> = columns.iter().map(|c| format!("{c} = excluded.{c}")).collect();
    format!(
        "INSERT INTO {table} ({list}) SELECT {new} FROM ({counted}) AS new \
         LEFT JOIN {table} AS old ON old.website_id = new.website_id AND old.region = new.region \
             AND old.{time} = '{start}' \
         WHERE ({new}) IS DISTINCT FROM ({old}) \
         ON CONFLICT (website_id, {time}, region) DO UPDATE SET {set}",
        new = of("new"),
        old = of("old"),
        set = set.join(", "),
    )
}

/// The question that counts the checks of `source` that meet `condition`, by site, region and hour.
///
/// In two steps, the first by everything that is told apart: 0.85 µs a check, where one step that
/// filters each count takes 2. Times are summed in whole µs: a sum of floating-point numbers
/// depends on their order, and would differ from one count to the next.
pub(super) fn count_checks(source: &str, condition: &str) -> String {
    let kinds: String = kinds()
        .map(|(kind, column)| {
            format!(", (sum(n) FILTER (WHERE failure_kind = '{kind}'))::integer AS {column}")
        })
        .collect();
    format!(
        "SELECT website_id, region, hour, \
            coalesce(sum(n) FILTER (WHERE outcome = 'up'), 0)::integer AS up, \
            coalesce(sum(n) FILTER (WHERE outcome = 'down'), 0)::integer AS down, \
            coalesce(sum(n) FILTER (WHERE outcome = 'missed'), 0)::integer AS missed, \
            coalesce(sum(n) FILTER (WHERE is_self), 0)::integer AS unreachable_self, \
            coalesce(sum(n) FILTER (WHERE bucket IS NOT NULL), 0)::integer AS response_times, \
            (sum(sum_us) / 1e6)::double precision AS response_time_sum, \
            min(shortest) AS response_time_min, max(longest) AS response_time_max, \
            array_agg(bucket ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL) AS buckets, \
            array_agg(n::integer ORDER BY bucket) FILTER (WHERE bucket IS NOT NULL) AS counts\
            {kinds} \
         FROM (SELECT website_id, region, hour, outcome, failure_kind, is_self, \
                response_time_bucket(seconds) AS bucket, count(*) AS n, \
                sum(round(seconds * 1e6)::bigint) AS sum_us, \
                min(seconds) AS shortest, max(seconds) AS longest \
             FROM (SELECT website_id, region, outcome, \
                    date_bin('1 hour', \"timestamp\", 'epoch') AS hour, \
                    CASE WHEN outcome = 'down' THEN failure_kind END AS failure_kind, \
                    outcome = 'down' AND unreachable_self AS is_self, \
                    CASE WHEN outcome = 'up' AND response_time IS NOT NULL \
                        THEN least(greatest(response_time, 0), {RESPONSE_TIME_MAX_S}) \
                    END AS seconds \
                 FROM {source} WHERE {condition}) AS one \
             GROUP BY 1, 2, 3, 4, 5, 6, 7) AS step \
         GROUP BY 1, 2, 3",
    )
}

/// The question that sums the hours of the day at `day`, by site and region.
fn sum_hours(day: Timestamp) -> String {
    let kinds: String =
        kinds().map(|(_, column)| format!(", sum({column})::integer AS {column}")).collect();
    let hours = format!("FROM check_hour WHERE hour >= '{day}' AND hour < '{}'", day + DAY);
    let inner = FailureKind::ALL.map(|kind| format!("down_{}", kind.as_str())).join(", ");
    format!(
        "SELECT website_id, region, timestamptz '{day}' AS day, up, down, missed, \
            unreachable_self, response_times, response_time_sum, response_time_min, \
            response_time_max, buckets, counts, {inner}, hours \
         FROM (SELECT website_id, region, sum(up)::integer AS up, sum(down)::integer AS down, \
                sum(missed)::integer AS missed, \
                sum(unreachable_self)::integer AS unreachable_self, \
                sum(response_times)::integer AS response_times, \
                (sum(round(response_time_sum * 1e6)::bigint) / 1e6)::double precision \
                    AS response_time_sum, \
                min(response_time_min) AS response_time_min, \
                max(response_time_max) AS response_time_max, count(*)::integer AS hours{kinds} \
             {hours} GROUP BY 1, 2) AS sums \
         LEFT JOIN (SELECT website_id, region, array_agg(bucket ORDER BY bucket) AS buckets, \
                array_agg(n ORDER BY bucket) AS counts \
             FROM (SELECT website_id, region, bucket, sum(count)::integer AS n \
                 FROM (SELECT website_id, region, unnest(buckets) AS bucket, \
                        unnest(counts) AS count {hours}) AS each GROUP BY 1, 2, 3) AS merged \
             GROUP BY 1, 2) AS histogram USING (website_id, region)",
    )
}
