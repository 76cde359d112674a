//! The table `daemon`: which daemons run, as each of them tells every few seconds.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Store, StoreError};

/// What a daemon tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its own for as long as the process lives.
    pub daemon_id: Uuid,
    /// `producer`, `consumer`, `run` or `api`.
    pub role: String,
    /// Name of its host.
    pub host: String,
    /// Its process id there.
    pub pid: i32,
    /// webmon's version.
    pub version: String,
    /// Where it checks from, if it checks.
    pub region: Option<String>,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// One JSON object; what is in it differs by role.
    pub facts: String,
}

/// A row of `daemon`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonRow {
    /// What it told last.
    pub daemon: Daemon,
    /// When that was, by the server's clock.
    pub seen_at: Timestamp,
    /// Milliseconds since then, by the server's clock.
    pub age_ms: i64,
}

/// A daemon that has told nothing for so long is not running any more, or has lost the database;
/// each tells every five seconds.
const LATE_MS: i64 = 30_000;

impl DaemonRow {
    /// Whether it has told nothing for 30 s.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.age_ms > LATE_MS
    }
}

impl Store {
    /// Renews a daemon's row, or makes it; rows that nobody renewed for a day are removed by the
    /// way.
    ///
    /// # Errors
    /// What the database said.
    pub fn renew_daemon(&self, daemon: &Daemon) -> Result<(), StoreError> {
        let daemon = daemon.clone();
        self.inner.run("telling of this daemon", move |client| {
            // The own row may be as old, behind an outage: one statement must not touch it twice.
            client.execute(
                "WITH gone AS (DELETE FROM daemon \
                     WHERE seen_at < now() - interval '1 day' AND daemon_id <> $1) \
                 INSERT INTO daemon (daemon_id, role, host, pid, version, region, started_at, \
                     seen_at, facts) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8::text::jsonb) \
                 ON CONFLICT (daemon_id) DO UPDATE SET region = excluded.region, \
                     seen_at = excluded.seen_at, facts = excluded.facts",
                &[
                    &daemon.daemon_id,
                    &daemon.role,
                    &daemon.host,
                    &daemon.pid,
                    &daemon.version,
                    &daemon.region,
                    &daemon.started_at,
                    &daemon.facts,
                ],
            )?;
            Ok(())
        })
    }

    /// Removes a daemon's row, as it ends.
    ///
    /// # Errors
    /// What the database said.
    pub fn remove_daemon(&self, daemon_id: Uuid) -> Result<(), StoreError> {
        self.inner.run("taking leave", move |client| {
            client.execute("DELETE FROM daemon WHERE daemon_id = $1", &[&daemon_id])?;
            Ok(())
        })
    }

    /// All rows, by role, host and start.
    ///
    /// # Errors
    /// What the database said.
    pub fn daemons(&self) -> Result<Vec<DaemonRow>, StoreError> {
        self.inner.run("reading the daemons", |client| {
            let question = "SELECT daemon_id, role, host, pid, version, region, started_at, \
                     facts::text, seen_at, \
                     (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::bigint \
                 FROM daemon ORDER BY role, host, started_at, daemon_id";
            let row = |row: &postgres::Row| {
                let daemon = Daemon {
                    daemon_id: row.try_get(0)?,
                    role: row.try_get(1)?,
                    host: row.try_get(2)?,
                    pid: row.try_get(3)?,
                    version: row.try_get(4)?,
                    region: row.try_get(5)?,
                    started_at: row.try_get(6)?,
                    facts: row.try_get(7)?,
                };
                Ok(DaemonRow { daemon, seen_at: row.try_get(8)?, age_ms: row.try_get(9)? })
            };
            client.query(question, &[])?.iter().map(row).collect()
        })
    }
}
