//! Removing old partitions, without making inserts wait: by `DETACH … CONCURRENTLY`, and a drop of
//! the table that then stands alone.
//!
//! Invariants:
//! - Checks are removed only after their hours are counted: a detached day takes no more rows, its
//!   marked hours are counted from it, and then `raw_from` is moved past its last check in the
//!   transaction that drops it. A process that ends in between leaves a table that the next run
//!   finds by its name.
//! - Hours are removed only after their days are counted and their checks are gone, days only after
//!   their hours, and the oldest first.
//! - All of it happens under the lock of [`super::rollup`]: nobody counts meanwhile.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use postgres::Client;
use postgres::error::SqlState;

use super::errors::{ErrorKind, Failure};
use super::migrations::locked;
use super::partitions::{
    CHECKS, DAYS, HOURS, LOCK, Partition, Range, Table, day_of, list, start_of,
};
use super::rollup::{self, Rolled};
use super::{Store, StoreError};

/// Longest wait of a detach for transactions that still see the partition. `lock_timeout` doesn't
/// count there; what is cut off is finished by the next call.
const DETACH_LIMIT: Duration = Duration::from_secs(20);

impl Store {
    /// Removes every partition of checks that ends at or before the start of `day`, the oldest
    /// first, and counts its marked hours before. Returns the names removed.
    ///
    /// # Errors
    /// What the database said; an outage when a long transaction still sees a partition: call again
    /// later, it goes on from there.
    pub fn drop_partitions_before(&self, day: Date) -> Result<Vec<String>, StoreError> {
        self.drop_before(CHECKS, day)
    }

    /// Removes every partition of `check_hour`, each a month, that ends at or before the start of
    /// `day`. One whose checks or marks are still there stays, and so do those after it. Returns
    /// the names removed.
    ///
    /// # Errors
    /// As [`Store::drop_partitions_before`].
    pub fn drop_hours_before(&self, day: Date) -> Result<Vec<String>, StoreError> {
        self.drop_before(HOURS, day)
    }

    /// The same for `check_day`, each partition a year; of one whose hours or marks are still there.
    ///
    /// # Errors
    /// As [`Store::drop_partitions_before`].
    pub fn drop_days_before(&self, day: Date) -> Result<Vec<String>, StoreError> {
        self.drop_before(DAYS, day)
    }

    /// In steps of a partition each, each a call with the schema's limit: the locks are free in
    /// between, and one step that is late does not leave the others behind.
    fn drop_before(&self, table: Table, day: Date) -> Result<Vec<String>, StoreError> {
        let mut dropped = Vec::new();
        while let Some(step) = self.drop_one_before(table, day)? {
            dropped.extend(step.dropped);
        }
        Ok(dropped)
    }

    /// Nothing when there was nothing to do.
    fn drop_one_before(&self, table: Table, day: Date) -> Result<Option<Step>, StoreError> {
        // The server gives up before the caller turns away.
        let limits = Limits { detach: DETACH_LIMIT, rest: self.inner.limits().schema * 3 / 4 };
        self.schema("removing partitions", move |client| {
            set_limit(client, limits.rest)?;
            let limit = start_of(day)?;
            locked(client, LOCK, |client| {
                // Not to wait for a count under way when there is nothing to do.
                if detached(client, table, limit)?.is_empty()
                    && oldest(client, table, limit)?.is_none()
                {
                    return Ok(None);
                }
                locked(client, rollup::LOCK, |client| drop_one(client, table, limit, limits))
            })
        })
    }
}

/// Something was done.
struct Step {
    /// The partition that is gone.
    dropped: Option<String>,
}

/// How long statements may take.
#[derive(Clone, Copy)]
struct Limits {
    detach: Duration,
    rest: Duration,
}

/// In a call of its own: a failed one would take the setting back with it.
fn set_limit(client: &mut Client, limit: Duration) -> Result<(), Failure> {
    Ok(client.batch_execute(&format!("SET statement_timeout = {}", limit.as_millis()))?)
}

fn drop_one(
    client: &mut Client,
    table: Table,
    limit: Timestamp,
    limits: Limits,
) -> Result<Option<Step>, Failure> {
    if let Some((name, range)) = detached(client, table, limit)?.into_iter().next() {
        remove(client, table, &name, range)?;
        return Ok(Some(Step { dropped: Some(name) }));
    }
    let Some(partition) = oldest(client, table, limit)? else { return Ok(None) };
    set_limit(client, limits.detach)?;
    if partition.is_detaching {
        finalize(client, table, &partition.name)?;
    } else {
        detach(client, table, &partition.name)?;
    }
    set_limit(client, limits.rest)?;
    // One that is younger was detached by somebody else, who may want to keep it.
    let Some(range) = partition.range.filter(|range| range.1 <= limit) else {
        return Ok(Some(Step { dropped: None }));
    };
    remove(client, table, &partition.name, range)?;
    Ok(Some(Step { dropped: Some(partition.name) }))
}

/// What is to be detached next: one whose detach was cut off, whatever its age, as only one may be
/// under way at a time; else the oldest, if it is old and of no more use. Younger ones wait for it:
/// counts before `hours_from` are final, so it must not pass a day that is still to be counted.
fn oldest(
    client: &mut Client,
    table: Table,
    limit: Timestamp,
) -> Result<Option<Partition>, Failure> {
    let mut partitions = list(client, table)?;
    if let Some(cut_off) = partitions.iter().position(|partition| partition.is_detaching) {
        return Ok(Some(partitions.swap_remove(cut_off)));
    }
    let is_old = |partition: &Partition| partition.range.is_some_and(|range| range.1 <= limit);
    let oldest = partitions.into_iter().find(is_old);
    match oldest.as_ref().and_then(|partition| partition.range) {
        Some(range) if is_needed(client, table, range)? => Ok(None),
        _ => Ok(oldest),
    }
}

/// Whether something is still to be made of the rows in `range`, or will be written there: it is
/// marked, or what it is counted from is not removed yet. Of checks it is made after they were
/// detached.
fn is_needed(client: &mut Client, table: Table, (from, to): Range) -> Result<bool, Failure> {
    let source = match table.name {
        name if name == HOURS.name => CHECKS,
        name if name == DAYS.name => HOURS,
        _ => return Ok(false),
    };
    let question = "SELECT EXISTS (SELECT FROM rollup_dirty_day WHERE day >= $1 AND day < $2) \
                        OR EXISTS (SELECT FROM rollup_dirty WHERE hour >= $1 AND hour < $2)";
    let is_marked: bool = client.query_one(question, &[&from, &to])?.try_get(0)?;
    let overlaps = |range: Range| range.0 < to && from < range.1;
    let sources = list(client, source)?;
    Ok(is_marked || sources.iter().filter_map(|p| p.range).any(overlaps))
}

fn detach(client: &mut Client, table: Table, name: &str) -> Result<(), Failure> {
    let statement = format!("ALTER TABLE {} DETACH PARTITION {name} CONCURRENTLY", table.name);
    match client.batch_execute(&statement) {
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => {
            finalize(client, table, name)
        }
        other => Ok(other?),
    }
}

fn finalize(client: &mut Client, table: Table, name: &str) -> Result<(), Failure> {
    let statement = format!("ALTER TABLE {} DETACH PARTITION {name} FINALIZE", table.name);
    Ok(client.batch_execute(&statement)?)
}

/// Drops a table that was detached, and says up to when counts are final.
fn remove(client: &mut Client, table: Table, name: &str, range: Range) -> Result<(), Failure> {
    if table.name == CHECKS.name {
        count_marked(client, name, range)?;
    }
    let mut transaction = client.transaction()?;
    if table.name == CHECKS.name {
        // The day's last check and not the day's end: a clock that was wrong for a while has days
        // removed that are yet to come, and their hours are to be counted once they do.
        let question =
            format!("SELECT \"timestamp\" FROM {name} ORDER BY check_entry_id DESC LIMIT 1");
        if let Some(row) = transaction.query_opt(&question, &[])? {
            let statement = "UPDATE rollup_state SET raw_from = \
                 greatest(raw_from, date_bin('1 hour', $1, 'epoch') + interval '1 hour')";
            transaction.execute(statement, &[&row.try_get::<_, Timestamp>(0)?])?;
        }
    } else if table.name == HOURS.name {
        // The same: no hour of it is after the last check that was removed. Looking for its last
        // hour would read the whole month.
        let statement = format!(
            "UPDATE rollup_state SET hours_from = greatest(hours_from, least(raw_from, $1)) \
             WHERE EXISTS (SELECT FROM {name})"
        );
        transaction.execute(&statement, &[&range.1])?;
    }
    transaction.batch_execute(&format!("DROP TABLE {name}"))?;
    transaction.commit()?;
    log::info!(partition = name; "partition removed");
    Ok(())
}

/// Counts the marked hours of a day that stands alone, from it.
fn count_marked(client: &mut Client, name: &str, (from, to): Range) -> Result<(), Failure> {
    let question = "SELECT DISTINCT hour FROM rollup_dirty WHERE hour >= $1 AND hour < $2";
    for row in client.query(question, &[&from, &to])? {
        let hour: Timestamp = row.try_get(0)?;
        if rollup::roll_hour(client, hour, Some(name))? == Rolled::Busy {
            // This connection holds the lock.
            let cause = format!("the hour {hour} of {name} cannot be counted");
            return Err(Failure::Said(ErrorKind::Outage, cause));
        }
    }
    Ok(())
}

/// Tables before `limit` that were detached but not dropped, since the process ended in between,
/// with their ranges.
fn detached(
    client: &mut Client,
    table: Table,
    limit: Timestamp,
) -> Result<Vec<(String, Range)>, Failure> {
    let rows = client.query(
        "SELECT format('%I.%I', n.nspname, c.relname), c.relname::text \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND NOT c.relispartition AND n.nspname = current_schema() \
           AND c.relname ~ $1 AND c.relname < $2 ORDER BY 2",
        &[&table.pattern(), &table.partition(day_of(limit))],
    )?;
    rows.iter().map(|row| Ok((row.try_get(0)?, range_of(table, row.try_get(1)?)?))).collect()
}

/// The range that a partition's name tells.
fn range_of(table: Table, name: &str) -> Result<Range, Failure> {
    let digits: String = name.chars().filter(char::is_ascii_digit).collect();
    let part = |at: std::ops::Range<usize>| digits.get(at).and_then(|text| text.parse().ok());
    let (year, month, day) = (part(0..4), part(4..6), part(6..8));
    let (month, day) = (month.unwrap_or(1), day.unwrap_or(1));
    // Below 100.
    let day = Date::new(year.unwrap_or(0), month as i8, day as i8);
    match day {
        Ok(day) => table.range(day),
        Err(e) => Err(Failure::Said(ErrorKind::Data, format!("{name} names no day: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_partition_s_range_is_in_its_name() {
        for table in [CHECKS, HOURS, DAYS] {
            for day in [date(2024, 2, 29), date(2026, 12, 31), date(1, 1, 1)] {
                let name = table.partition(day);
                assert_eq!(range_of(table, &name).unwrap(), table.range(day).unwrap(), "{name}");
            }
        }
        assert!(range_of(CHECKS, "check_entry_y2023m02d29").is_err());
        // A day of 23 hours elsewhere.
        let (from, to) = CHECKS.range(date(2026, 3, 29)).unwrap();
        assert_eq!(to.duration_since(from), rollup::DAY);
    }
}
