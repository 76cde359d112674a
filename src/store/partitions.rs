//! The tables that are kept in partitions by time, and making these ahead: `check_entry` by UTC
//! day, `check_hour` by month, `check_day` by year. Removing them is [`super::retention`].
//!
//! A partition is made as a table beside, with its range as its CHECK, and then attached: 3 ms,
//! while `CREATE … PARTITION OF` makes inserts queue behind any long reader.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use postgres::Client;

use super::errors::{ErrorKind, Failure};
use super::migrations::locked;
use super::{Store, StoreError};

/// The lock of whoever makes or removes partitions.
pub(super) const LOCK: &str = "partitions";
/// Most days before today that are looked at for gaps: beyond any sensible retention.
const GAP_DAYS_MAX: u16 = 4000;

/// A table in partitions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    column: &'static str,
    unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Day,
    Month,
    Year,
}

/// The checks themselves.
pub(super) const CHECKS: Table =
    Table { name: "check_entry", column: "\"timestamp\"", unit: Unit::Day };
/// Checks counted by hour. At 100,000 sites a month has 75 million rows: dropping it takes no
/// time, deleting them would.
pub(super) const HOURS: Table = Table { name: "check_hour", column: "hour", unit: Unit::Month };
/// Checks counted by day.
pub(super) const DAYS: Table = Table { name: "check_day", column: "day", unit: Unit::Year };

impl Table {
    /// The first day of the partition that `day` belongs to.
    fn first(self, day: Date) -> Date {
        match self.unit {
            Unit::Day => day,
            Unit::Month => day.first_of_month(),
            Unit::Year => date(day.year(), 1, 1),
        }
    }

    fn step(self) -> Span {
        match self.unit {
            Unit::Day => Span::new().days(1),
            Unit::Month => Span::new().months(1),
            Unit::Year => Span::new().years(1),
        }
    }

    /// The name of the partition of `day`, without its schema.
    pub(super) fn partition(self, day: Date) -> String {
        let (table, year, month) = (self.name, day.year(), day.month());
        match self.unit {
            Unit::Day => format!("{table}_y{year:04}m{month:02}d{:02}", day.day()),
            Unit::Month => format!("{table}_y{year:04}m{month:02}"),
            Unit::Year => format!("{table}_y{year:04}"),
        }
    }

    /// What the names of partitions look like, as a regular expression of PostgreSQL.
    pub(super) fn pattern(self) -> String {
        let time = match self.unit {
            Unit::Day => "\\d{4}m\\d{2}d\\d{2}",
            Unit::Month => "\\d{4}m\\d{2}",
            Unit::Year => "\\d{4}",
        };
        format!("^{}_y{time}$", self.name)
    }

    /// The range of the partition of `day`.
    pub(super) fn range(self, day: Date) -> Result<Range, Failure> {
        let first = self.first(day);
        let next = first
            .checked_add(self.step())
            .map_err(|e| Failure::Said(ErrorKind::Data, format!("no such day: {e}")))?;
        Ok((start_of(first)?, start_of(next)?))
    }
}

/// First moment of a partition, and the first one after it.
pub(super) type Range = (Timestamp, Timestamp);

/// One partition, as the catalogue has it.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    /// Schema and name, quoted.
    pub(super) name: String,
    /// Absent for bounds that webmon does not make.
    pub(super) range: Option<Range>,
    /// A detach was begun and cut off: it takes no rows any more.
    pub(super) is_detaching: bool,
}

impl Store {
    /// Makes the missing days from `days_back` before `today` to `days_ahead` after it, and every
    /// gap since the oldest day: checks that waited in the spool or the topic while no consumer
    /// lived belong there. Then the months and years that their rollups go to. Returns the names
    /// of the days made.
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
            locked(client, LOCK, |c| ensure(c, today, days_back, days_ahead))
        })
    }
}

pub(super) fn start_of(day: Date) -> Result<Timestamp, Failure> {
    day.to_zoned(TimeZone::UTC)
        .map(|start| start.timestamp())
        .map_err(|e| Failure::Said(ErrorKind::Data, format!("no such day: {e}")))
}

pub(super) fn day_of(time: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(time).date()
}

/// All partitions of `table`, in order of time.
pub(super) fn list(client: &mut Client, table: Table) -> Result<Vec<Partition>, Failure> {
    let rows = client.query(
        "SELECT format('%I.%I', n.nspname, c.relname), i.inhdetachpending, \
                bounds[1]::timestamptz, bounds[2]::timestamptz \
         FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         JOIN pg_namespace n ON n.oid = c.relnamespace \
         CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), \
             'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') AS bounds \
         WHERE i.inhparent = to_regclass($1) ORDER BY 3, 1",
        &[&table.name],
    )?;
    let partition = |row: &postgres::Row| {
        let (from, to): (Option<Timestamp>, Option<Timestamp>) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Partition { name: row.try_get(0)?, is_detaching: row.try_get(1)?, range: from.zip(to) })
    };
    rows.iter().map(partition).collect()
}

/// The ranges of `check_entry` that take rows, or nothing where some bounds are not webmon's.
pub(super) fn open_ranges(
    client: &mut Client,
) -> Result<Option<Vec<(Timestamp, Timestamp)>>, Failure> {
    Ok(list(client, CHECKS)?.into_iter().filter(|p| !p.is_detaching).map(|p| p.range).collect())
}

pub(super) fn ensure(
    client: &mut Client,
    today: Date,
    days_back: u16,
    days_ahead: u16,
) -> Result<Vec<String>, Failure> {
    let existing = list(client, CHECKS)?;
    let before = |days: u16| today.saturating_sub(Span::new().days(i32::from(days)));
    let oldest = existing.iter().find_map(|p| p.range).map(|(from, _)| day_of(from));
    let oldest = oldest.unwrap_or(today).min(before(days_back));
    let first = oldest.max(before(GAP_DAYS_MAX));
    let last = today.saturating_add(Span::new().days(i32::from(days_ahead)));
    let made = fill(client, CHECKS, &existing, first, last)?;
    for table in [HOURS, DAYS] {
        let existing = list(client, table)?;
        fill(client, table, &existing, oldest, last)?;
    }
    Ok(made)
}

/// Makes what is missing from the partition of `first` to that of `last`.
fn fill(
    client: &mut Client,
    table: Table,
    existing: &[Partition],
    first: Date,
    last: Date,
) -> Result<Vec<String>, Failure> {
    let mut made = Vec::new();
    for day in table.first(first).series(table.step()).take_while(|day| *day <= last) {
        let (start, end) = table.range(day)?;
        let is_covered = |p: &Partition| p.range.is_some_and(|(a, b)| a <= start && start < b);
        if !existing.iter().any(is_covered) {
            let name = table.partition(day);
            make(client, table, &name, start, end)?;
            made.push(name);
        }
    }
    if let Some(first) = made.first() {
        log::info!(count = made.len(), first = first.as_str(); "partitions made");
    }
    Ok(made)
}

fn make(
    client: &mut Client,
    table: Table,
    name: &str,
    from: Timestamp,
    to: Timestamp,
) -> Result<(), Failure> {
    let (parent, column) = (table.name, table.column);
    let mut transaction = client.transaction()?;
    transaction.batch_execute(&format!(
        "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS); \
         ALTER TABLE {name} ADD CONSTRAINT {name}_range \
             CHECK ({column} >= '{from}' AND {column} < '{to}'); \
         ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')",
    ))?;
    Ok(transaction.commit()?)
}
