//! Partitions of `check_entry`, one per UTC day: made ahead, removed after retention, both
//! without making inserts wait.
//!
//! A day is made as a table beside, with the day as its CHECK, and then attached: 3 ms, while
//! `CREATE … PARTITION OF` makes inserts queue behind any long reader. It is removed by
//! `DETACH … CONCURRENTLY` and a drop of the table that then stands alone, for the same reason.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use postgres::Client;
use postgres::error::SqlState;

use super::errors::{ErrorKind, Failure};
use super::migrations::locked;
use super::{Store, StoreError};

/// Longest wait of a detach for transactions that still see the day. `lock_timeout` doesn't
/// count there; what is cut off is finished by the next call.
const DETACH_LIMIT: Duration = Duration::from_secs(20);
/// Most days before today that are looked at for gaps: beyond any sensible retention.
const GAP_DAYS_MAX: u16 = 4000;

/// One partition, as the catalogue has it.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// Schema and name, quoted.
    name: String,
    /// First moment and the first one after it; absent for bounds that webmon does not make.
    pub(super) range: Option<(Timestamp, Timestamp)>,
    /// A detach was begun and cut off: it takes no rows any more.
    is_detaching: bool,
}

impl Store {
    /// Makes the missing days from `days_back` before `today` to `days_ahead` after it, and every
    /// gap since the oldest day: checks that waited in the spool or the topic while no consumer
    /// lived belong there. Returns the names made.
    ///
    /// # Errors
    /// What the database said.
    pub fn ensure_partitions(
        &self,
        today: Date,
        days_back: u16,
        days_ahead: u16,
    ) -> Result<Vec<String>, StoreError> {
        self.schema("making partitions", move |client| {
            locked(client, "partitions", |c| ensure(c, today, days_back, days_ahead))
        })
    }

    /// Removes every partition that ends at or before the start of `day`, the oldest first.
    /// Returns the names removed.
    ///
    /// # Errors
    /// What the database said; an outage when a long transaction still sees a day: call again
    /// later, it goes on from there.
    pub fn drop_partitions_before(&self, day: Date) -> Result<Vec<String>, StoreError> {
        self.schema("removing partitions", move |client| {
            locked(client, "partitions", |client| drop_before(client, start_of(day)?))
        })
    }
}

fn start_of(day: Date) -> Result<Timestamp, Failure> {
    day.to_zoned(TimeZone::UTC)
        .map(|start| start.timestamp())
        .map_err(|e| Failure::Said(ErrorKind::Data, format!("no such day: {e}")))
}

fn day_of(time: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(time).date()
}

fn name_of(day: Date) -> String {
    format!("check_entry_y{:04}m{:02}d{:02}", day.year(), day.month(), day.day())
}

/// All partitions, in order of time.
pub(super) fn list(client: &mut Client) -> Result<Vec<Partition>, Failure> {
    let rows = client.query(
        "SELECT format('%I.%I', n.nspname, c.relname), i.inhdetachpending, \
                bounds[1]::timestamptz, bounds[2]::timestamptz \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), \
             'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') AS bounds \
         WHERE i.inhparent = 'check_entry'::regclass ORDER BY 3, 1",
        &[],
    )?;
    let partition = |row: &postgres::Row| {
        let (from, to): (Option<Timestamp>, Option<Timestamp>) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Partition { name: row.try_get(0)?, is_detaching: row.try_get(1)?, range: from.zip(to) })
    };
    rows.iter().map(partition).collect()
}

/// The ranges that take rows, or nothing where some bounds are not webmon's.
pub(super) fn open_ranges(
    client: &mut Client,
) -> Result<Option<Vec<(Timestamp, Timestamp)>>, Failure> {
    Ok(list(client)?.into_iter().filter(|p| !p.is_detaching).map(|p| p.range).collect())
}

pub(super) fn ensure(
    client: &mut Client,
    today: Date,
    days_back: u16,
    days_ahead: u16,
) -> Result<Vec<String>, Failure> {
    let existing = list(client)?;
    let before = |days: u16| today.saturating_sub(Span::new().days(i32::from(days)));
    let oldest = existing.iter().find_map(|p| p.range).map(|(from, _)| day_of(from));
    let first = oldest.unwrap_or(today).min(before(days_back)).max(before(GAP_DAYS_MAX));
    let last = today.saturating_add(Span::new().days(i32::from(days_ahead)));
    let mut made = Vec::new();
    for day in first.series(Span::new().days(1)).take_while(|day| *day <= last) {
        let start = start_of(day)?;
        let is_covered = |p: &Partition| p.range.is_some_and(|(a, b)| a <= start && start < b);
        if !existing.iter().any(is_covered) {
            make(client, day)?;
            made.push(name_of(day));
        }
    }
    if !made.is_empty() {
        let (first, count) = (made.first().cloned().unwrap_or_default(), made.len());
        log::info!(count, first = first.as_str(); "partitions made");
    }
    Ok(made)
}

fn make(client: &mut Client, day: Date) -> Result<(), Failure> {
    let name = name_of(day);
    let next = day.tomorrow().map_err(|e| Failure::Said(ErrorKind::Data, e.to_string()))?;
    let (from, to) = (start_of(day)?, start_of(next)?);
    let mut transaction = client.transaction()?;
    transaction.batch_execute(&format!(
        "CREATE TABLE {name} (LIKE check_entry INCLUDING DEFAULTS INCLUDING CONSTRAINTS); \
         ALTER TABLE {name} ADD CONSTRAINT {name}_day \
             CHECK (\"timestamp\" >= '{from}' AND \"timestamp\" < '{to}'); \
         ALTER TABLE check_entry ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')",
    ))?;
    Ok(transaction.commit()?)
}

fn drop_before(client: &mut Client, limit: Timestamp) -> Result<Vec<String>, Failure> {
    // In a call of its own: a failed one would take the setting back with it.
    client.batch_execute(&format!("SET statement_timeout = {}", DETACH_LIMIT.as_millis()))?;
    let mut dropped = Vec::new();
    for name in detached(client, limit)? {
        drop_table(client, &name, &mut dropped)?;
    }
    for partition in list(client)? {
        // Only one may be under way at a time, so a pending one is finished whatever its age.
        if partition.is_detaching {
            finalize(client, &partition.name)?;
        } else if partition.range.is_some_and(|(_, end)| end <= limit) {
            detach(client, &partition.name)?;
        } else {
            continue;
        }
        drop_table(client, &partition.name, &mut dropped)?;
    }
    Ok(dropped)
}

fn detach(client: &mut Client, name: &str) -> Result<(), Failure> {
    let statement = format!("ALTER TABLE check_entry DETACH PARTITION {name} CONCURRENTLY");
    match client.batch_execute(&statement) {
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => finalize(client, name),
        other => Ok(other?),
    }
}

fn finalize(client: &mut Client, name: &str) -> Result<(), Failure> {
    Ok(client
        .batch_execute(&format!("ALTER TABLE check_entry DETACH PARTITION {name} FINALIZE"))?)
}

fn drop_table(client: &mut Client, name: &str, dropped: &mut Vec<String>) -> Result<(), Failure> {
    client.batch_execute(&format!("DROP TABLE {name}"))?;
    log::info!(partition = name; "partition removed");
    dropped.push(name.to_owned());
    Ok(())
}

/// Tables of days before `limit` that were detached but not dropped, since the process ended in
/// between.
fn detached(client: &mut Client, limit: Timestamp) -> Result<Vec<String>, Failure> {
    let rows = client.query(
        "SELECT format('%I.%I', n.nspname, c.relname) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND NOT c.relispartition AND n.nspname = current_schema() \
           AND c.relname ~ '^check_entry_y\\d{4}m\\d{2}d\\d{2}$' AND c.relname < $1",
        &[&name_of(day_of(limit))],
    )?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
