//! The pipeline at a glance, and the database as its administrator sees it. Every question is
//! bounded: none reads more than some minutes of checks, or counts a table to its end.

use jiff::{SignedDuration, Timestamp};
use postgres::Client;
use uuid::Uuid;

use super::errors::Failure;
use super::{Store, StoreError, clock, partitions, rollup};
use crate::runtime::now;

/// Rejected messages are counted so far.
pub const REJECTED_COUNT_MAX: i64 = 10_000;
/// How far back the newest check is looked for: the longest interval of a site.
const NEWEST: SignedDuration = SignedDuration::from_hours(24);
/// The time over which rows are counted.
const COUNTED: SignedDuration = SignedDuration::from_mins(5);
/// An hour that ended less than this ago is not behind yet: the counting waits a minute by itself.
const ROLLUP_SETTLE: SignedDuration = SignedDuration::from_mins(2);

/// Checks by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// `up`.
    pub up: i64,
    /// `down`.
    pub down: i64,
    /// `missed`.
    pub missed: i64,
}

impl Outcomes {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.up + self.down + self.missed
    }
}

/// The pipeline at a glance.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// The server's time.
    pub server_time: Timestamp,
    /// How far the server's clock is ahead of this host's, in milliseconds; half of the time the
    /// answer took is uncertain.
    pub clock_ahead_ms: i64,
    /// Bytes of the database on the disk.
    pub database_bytes: i64,
    /// Sites that are checked, paused, and deleted.
    pub sites: (i64, i64, i64),
    /// Stored checks that were due in the last minute.
    pub last_minute: Outcomes,
    /// … and in the last five.
    pub last_five_minutes: Outcomes,
    /// When the newest check of the last day was due.
    pub newest_check: Option<Timestamp>,
    /// Rejected messages, at most [`REJECTED_COUNT_MAX`] and one.
    pub rejected: i64,
    /// Those of the last hour, so far as well.
    pub rejected_last_hour: i64,
    /// Ended hours that wait to be counted.
    pub rollup_hours: i64,
    /// The end of the oldest of them.
    pub rollup_oldest: Option<Timestamp>,
    /// Until when there are tables for checks.
    pub tables_until: Option<Timestamp>,
}

/// What the server allows, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `server_version`.
    pub version: String,
    /// `server_version_num`, such as 150004.
    pub version_num: i32,
    /// Encoding of the database.
    pub encoding: String,
    /// TLS version of this connection; none without TLS.
    pub tls: Option<String>,
    /// Whether the server takes no writes: it is a standby.
    pub is_standby: bool,
    /// The schema in which tables are made; none without one.
    pub schema: Option<String>,
    /// Whether the role may make tables there.
    pub may_create: bool,
    /// Whether the extension pg_trgm is in the database.
    pub has_trgm: bool,
    /// Whether the role could make it.
    pub may_create_trgm: bool,
    /// The owner of webmon's tables that this role may not act as, if there is one.
    pub foreign_owner: Option<String>,
    /// Connections that the server and this role may have in all.
    pub connections_max: i64,
    /// Connections that are there now.
    pub connections: i64,
    /// How far the server's clock is ahead of this host's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Until when there are tables for checks; none without tables.
    pub tables_until: Option<Timestamp>,
}

impl Store {
    /// The pipeline at a glance; the tables must be there.
    ///
    /// # Errors
    /// What the database said.
    pub fn overview(&self) -> Result<Overview, StoreError> {
        self.inner.run("looking at the pipeline", overview)
    }

    /// What the server allows; needs no tables.
    ///
    /// # Errors
    /// What the database said.
    pub fn server(&self) -> Result<Server, StoreError> {
        self.inner.run("looking at the server", server)
    }
}

/// The server's time and how far it is ahead of this host's.
fn compare_clocks(client: &mut Client) -> Result<(Timestamp, i64), Failure> {
    let before = now();
    let there = clock::server(client)?;
    let middle = before.wall + (now().mono - before.mono) / 2;
    Ok((there, there.duration_since(middle).as_millis() as i64))
}

fn overview(client: &mut Client) -> Result<Overview, Failure> {
    let (server_time, clock_ahead_ms) = compare_clocks(client)?;
    let size = "SELECT pg_database_size(current_database())";
    let database_bytes = client.query_one(size, &[])?.try_get(0)?;
    let sites = "SELECT count(*) FILTER (WHERE status = 'active'), \
                 count(*) FILTER (WHERE status = 'paused'), \
                 count(*) FILTER (WHERE status = 'deleted') FROM website";
    let sites = client.query_one(sites, &[])?;
    let sites = (sites.try_get(0)?, sites.try_get(1)?, sites.try_get(2)?);
    let (last_minute, last_five_minutes) = outcomes(client, server_time)?;
    // Ids begin with the due time, so the primary key's index has the newest at its end.
    let newest = "SELECT \"timestamp\" FROM check_entry WHERE \"timestamp\" >= $1 \
                  ORDER BY check_entry_id DESC LIMIT 1";
    let newest_check =
        client.query_opt(newest, &[&(server_time - NEWEST)])?.map(|row| row.try_get(0));
    let rejected = "SELECT \
        (SELECT count(*) FROM (SELECT FROM rejected_message LIMIT $1) all_of_them), \
        (SELECT count(*) FROM (SELECT FROM rejected_message \
            WHERE rejected_at >= now() - interval '1 hour' LIMIT $1) of_an_hour)";
    let rejected = client.query_one(rejected, &[&(REJECTED_COUNT_MAX + 1)])?;
    let waiting = "SELECT count(DISTINCT hour), min(hour) FROM rollup_dirty WHERE hour <= $1";
    let waiting = client.query_one(waiting, &[&(server_time - ROLLUP_SETTLE - rollup::HOUR)])?;
    let oldest: Option<Timestamp> = waiting.try_get(1)?;
    Ok(Overview {
        server_time,
        clock_ahead_ms,
        database_bytes,
        sites,
        last_minute,
        last_five_minutes,
        newest_check: newest_check.transpose()?,
        rejected: rejected.try_get(0)?,
        rejected_last_hour: rejected.try_get(1)?,
        rollup_hours: waiting.try_get(0)?,
        rollup_oldest: oldest.map(|hour| hour + rollup::HOUR),
        tables_until: tables_until(client, server_time)?,
    })
}

/// The checks due in the minute, and in the five minutes, before `end`.
fn outcomes(client: &mut Client, end: Timestamp) -> Result<(Outcomes, Outcomes), Failure> {
    let begin = end - COUNTED;
    // By the id, whose first bits are the due time: its index has them together.
    let first = Uuid::from_u128((begin.as_millisecond().unsigned_abs() as u128) << 80);
    let rows = client.query(
        "SELECT outcome, count(*), count(*) FILTER (WHERE \"timestamp\" >= $4) \
         FROM check_entry WHERE check_entry_id >= $1 AND \"timestamp\" >= $2 \
         AND \"timestamp\" < $3 GROUP BY outcome",
        &[&first, &begin, &end, &(end - SignedDuration::from_mins(1))],
    )?;
    let (mut minute, mut all) = (Outcomes::default(), Outcomes::default());
    for row in rows {
        let (of_all, of_minute) = match row.try_get::<_, &str>(0)? {
            "up" => (&mut all.up, &mut minute.up),
            "down" => (&mut all.down, &mut minute.down),
            _ => (&mut all.missed, &mut minute.missed),
        };
        *of_all += row.try_get::<_, i64>(1)?;
        *of_minute += row.try_get::<_, i64>(2)?;
    }
    Ok((minute, all))
}

/// The end of the tables for checks that follow each other without a gap from `from` on.
fn tables_until(client: &mut Client, from: Timestamp) -> Result<Option<Timestamp>, Failure> {
    let mut until = None;
    for (begin, end) in partitions::open(client)?.ranges {
        let reached = until.unwrap_or(from);
        if begin <= reached && reached < end {
            until = Some(end);
        }
    }
    Ok(until)
}

fn server(client: &mut Client) -> Result<Server, Failure> {
    let (server_time, clock_ahead_ms) = compare_clocks(client)?;
    let row = client.query_one(
        "SELECT current_setting('server_version'), \
            current_setting('server_version_num')::integer, \
            current_setting('server_encoding'), \
            (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), \
            pg_is_in_recovery(), \
            current_schema()::text, \
            coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
            EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm'), \
            EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') \
                AND has_database_privilege(current_database(), 'CREATE'), \
            (SELECT pg_get_userbyid(relowner)::text FROM pg_class \
                WHERE oid = to_regclass('website') AND NOT pg_has_role(relowner, 'MEMBER')), \
            least(current_setting('max_connections')::bigint \
                    - current_setting('superuser_reserved_connections')::bigint, \
                (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user), \
                (SELECT nullif(datconnlimit, -1) FROM pg_database \
                    WHERE datname = current_database())), \
            (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')",
        &[],
    )?;
    Ok(Server {
        version: row.try_get(0)?,
        version_num: row.try_get(1)?,
        encoding: row.try_get(2)?,
        tls: row.try_get(3)?,
        is_standby: row.try_get(4)?,
        schema: row.try_get(5)?,
        may_create: row.try_get(6)?,
        has_trgm: row.try_get(7)?,
        may_create_trgm: row.try_get(8)?,
        foreign_owner: row.try_get(9)?,
        connections_max: row.try_get(10)?,
        connections: row.try_get(11)?,
        clock_ahead_ms,
        tables_until: tables_until(client, server_time)?,
    })
}
