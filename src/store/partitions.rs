//! The tables that are kept in partitions by time, and making these ahead: `check_entry` by UTC
//! day, `check_hour` by month, `check_day` by year. Removing them is [`super::retention`].
//!
//! A partition is made as a table beside, with its range as its CHECK, and then attached: 3 ms,
//! while `CREATE … PARTITION OF` makes inserts queue behind any long reader.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use postgres::Client;
use postgres::error::SqlState;

use super::errors::{ErrorKind, Failure};
use super::migrations::{locked, locked_now};
use super::{Store, StoreError, clock};

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

/// All of them.
const TABLES: [Table; 3] = [CHECKS, HOURS, DAYS];

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
    /// of the days made. Waits for nobody where nothing is missing.
    ///
    /// # Errors
    /// What the database said. Where a single partition can't be made, as something else has its
    /// name, all others are made first.
    pub fn ensure_partitions(
        &self,
        today: Date,
        days_back: u16,
        days_ahead: u16,
    ) -> Result<Vec<String>, StoreError> {
        self.schema("making partitions", move |client| {
            let made = ensure(client, today, days_back, days_ahead)?;
            made.blocked.map_or(Ok(made.days), Err)
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

/// The partitions of `check_entry` that take rows.
pub(super) struct Open {
    /// The ranges that take rows, in order of time.
    pub(super) ranges: Vec<Range>,
    /// Whether webmon's are all there are: others' bounds are not known.
    pub(super) is_all: bool,
}

/// What `check_entry` takes now.
pub(super) fn open(client: &mut Client) -> Result<Open, Failure> {
    let mut open = list(client, CHECKS)?;
    open.retain(|partition| !partition.is_detaching);
    let is_all = open.iter().all(|partition| partition.range.is_some());
    Ok(Open { ranges: open.iter().filter_map(|partition| partition.range).collect(), is_all })
}

/// What became of partitions that were missing.
#[derive(Default)]
pub(super) struct Made {
    /// Names of the days made.
    pub(super) days: Vec<String>,
    /// Why the first that can't be made can't.
    pub(super) blocked: Option<Failure>,
}

/// Makes what [`Store::ensure_partitions`] says.
fn ensure(
    client: &mut Client,
    today: Date,
    days_back: u16,
    days_ahead: u16,
) -> Result<Made, Failure> {
    let missing = |client: &mut Client| missing(client, today, days_back, days_ahead);
    if missing(client)?.is_empty() {
        return Ok(Made::default());
    }
    locked(client, LOCK, |client| {
        let missing = missing(client)?;
        make_all(client, &missing)
    })
}

/// As [`ensure`], unless today's are there. What can't be made is left to the maintenance to tell.
pub(super) fn begin(
    client: &mut Client,
    today: Date,
    days_back: u16,
    days_ahead: u16,
) -> Result<(), Failure> {
    for table in TABLES {
        let existing = list(client, table)?;
        if !absent(table, &existing, today, today)?.is_empty() {
            return ensure(client, today, days_back, days_ahead).map(drop);
        }
    }
    Ok(())
}

/// Makes `days` at once for checks that came before the maintenance did, where nobody else makes
/// or removes partitions and `here`, this host's time, is the server's.
pub(super) fn make_days(
    client: &mut Client,
    here: Timestamp,
    days: &[Date],
) -> Result<Made, Failure> {
    let there = clock::agreed(client, here)?;
    let last = day_of(there.saturating_add(super::DUE_AHEAD_MAX).unwrap_or(there));
    let made = locked_now(client, LOCK, |client| {
        let mut missing = Vec::new();
        for table in TABLES {
            let existing = list(client, table)?;
            for day in days.iter().filter(|day| **day <= last) {
                missing.extend(absent(table, &existing, *day, *day)?);
            }
        }
        missing.dedup_by_key(|(table, day)| table.partition(*day));
        make_all(client, &missing)
    })?;
    made.ok_or_else(|| {
        let cause = "another process makes or removes partitions".to_owned();
        Failure::Said(ErrorKind::Outage, cause)
    })
}

/// The partitions that should be there and are not.
fn missing(
    client: &mut Client,
    today: Date,
    days_back: u16,
    days_ahead: u16,
) -> Result<Vec<(Table, Date)>, Failure> {
    let existing = list(client, CHECKS)?;
    let before = |days: u16| today.saturating_sub(Span::new().days(i64::from(days)));
    let oldest = existing.iter().find_map(|p| p.range).map(|(from, _)| day_of(from));
    let oldest = oldest.unwrap_or(today).min(before(days_back));
    let first = oldest.max(before(GAP_DAYS_MAX));
    let last = today.saturating_add(Span::new().days(i64::from(days_ahead)));
    let mut missing = absent(CHECKS, &existing, first, last)?;
    for table in [HOURS, DAYS] {
        missing.extend(absent(table, &list(client, table)?, oldest, last)?);
    }
    Ok(missing)
}

/// Those of `table` that `existing` lacks, from the partition of `first` to that of `last`.
fn absent(
    table: Table,
    existing: &[Partition],
    first: Date,
    last: Date,
) -> Result<Vec<(Table, Date)>, Failure> {
    let mut absent = Vec::new();
    for day in table.first(first).series(table.step()).take_while(|day| *day <= last) {
        let (start, _) = table.range(day)?;
        let is_covered = |p: &Partition| p.range.is_some_and(|(a, b)| a <= start && start < b);
        if !existing.iter().any(is_covered) {
            absent.push((table, day));
        }
    }
    Ok(absent)
}

/// Makes `missing`. What the server refuses for one of them alone doesn't keep the others.
fn make_all(client: &mut Client, missing: &[(Table, Date)]) -> Result<Made, Failure> {
    let (mut names, mut made) = (Vec::new(), Made::default());
    for (table, day) in missing {
        let name = table.partition(*day);
        match make(client, *table, &name, table.range(*day)?) {
            Ok(()) if table.name == CHECKS.name => made.days.push(name.clone()),
            Ok(()) => {}
            Err(failure) if is_of_one(&failure) => {
                made.blocked.get_or_insert_with(|| {
                    let cause = format!("{name} cannot be made: {}", failure.cause());
                    Failure::Said(failure.kind(), cause)
                });
                continue;
            }
            Err(failure) => return Err(failure),
        }
        names.push(name);
    }
    if let Some(first) = names.first() {
        log::info!(count = names.len(), first = first.as_str(); "partitions made");
    }
    Ok(made)
}

/// Whether other partitions may be made all the same: something else has the name, or the table
/// of that name has other columns, other rows, or a reader.
fn is_of_one(failure: &Failure) -> bool {
    let is_locked = failure.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
    is_locked || matches!(failure.kind(), ErrorKind::Data | ErrorKind::Configuration)
}

/// Makes one partition. A table of its name that stands alone, as somebody detached it, is
/// attached again: while it is missing, checks of its time would wait.
fn make(client: &mut Client, table: Table, name: &str, (from, to): Range) -> Result<(), Failure> {
    let (parent, column) = (table.name, table.column);
    let question = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                    WHERE n.nspname = current_schema() AND c.relname = $1 \
                      AND c.relkind = 'r' AND NOT c.relispartition";
    let mut transaction = client.transaction()?;
    if transaction.query_opt(question, &[&name])?.is_none() {
        transaction.batch_execute(&format!(
            "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS); \
             ALTER TABLE {name} ADD CONSTRAINT {name}_range \
                 CHECK ({column} >= '{from}' AND {column} < '{to}')",
        ))?;
    }
    transaction.batch_execute(&format!(
        "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ('{from}') TO ('{to}')",
    ))?;
    Ok(transaction.commit()?)
}
