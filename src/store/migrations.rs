//! The schema: numbered files, applied in order, each in a transaction of its own, once.

use std::fmt::Write as _;
use std::time::Duration;

use postgres::Client;
use sha2::{Digest, Sha256};

use super::errors::{ErrorKind, Failure};
use super::session::Session;
use super::{Store, StoreError, clock, partitions};
use crate::runtime::{Stop, now};

/// Days before today that get a partition with the schema: a spool that waited over a weekend.
pub const BACK_DAYS: u16 = 2;
/// Days after today that get one: how long maintenance may be away.
pub const AHEAD_DAYS: u16 = 14;

/// Oldest PostgreSQL that works: `DETACH PARTITION … CONCURRENTLY` came with 14.
const SERVER_MIN: i32 = 140_000;
/// Longest wait for another process that changes the schema.
const LOCK_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether that one has ended. Waiting inside the server would hold a
/// snapshot, which `DETACH … CONCURRENTLY` waits for in turn.
const LOCK_LOOK: Duration = Duration::from_millis(50);
/// Class of this program's advisory locks ("webm"), so that they don't meet other programs'.
pub(super) const LOCK_CLASS: i32 = 0x7765_626d;

struct File {
    version: i32,
    name: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($version:literal $name:literal),+ $(,)?) => {
        [$(File {
            version: $version,
            name: $name,
            text: include_str!(concat!("../../sql/", $name)),
        }),+]
    };
}

const FILES: [File; 8] = files![
    1 "001_website.sql",
    2 "002_check_entry.sql",
    3 "003_rejected_message.sql",
    4 "004_sample_sites.sql",
    5 "005_site_settings.sql",
    6 "006_rollups.sql",
    7 "007_rejected_message.sql",
    8 "008_api.sql",
];

const DROP: &str = include_str!("../../sql/drop.sql");

impl File {
    /// SHA-256 in hex, the same for both kinds of line ends.
    fn checksum(&self) -> String {
        let digest = Sha256::digest(self.text.replace("\r\n", "\n"));
        digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String can't fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// A row of `schema_migration`.
struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

impl Store {
    /// Applies the files that are missing, and makes the partitions around today unless today's
    /// are there: what else is missing is made by the maintenance, which knows how many days. None
    /// are made while this host's clock and the server's disagree. Several at once are fine: one
    /// applies, the others wait for it; where nothing is missing nobody waits. Returns the names
    /// applied now.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Migration`] when an applied file was edited or the database is newer
    /// than this program; otherwise what the database said, with the file's name.
    pub fn migrate(&self) -> Result<Vec<String>, StoreError> {
        let sample_sites = if self.inner.options().sample_sites { "on" } else { "off" };
        self.schema("migration", move |client| {
            let setting = "SELECT set_config('webmon.sample_sites', $1, false)";
            client.execute(setting, &[&sample_sites])?;
            let applied = match pending(client)?.is_empty() {
                true => Vec::new(),
                false => locked(client, "schema", apply)?,
            };
            if let Some(today) = clock::today(client, now().wall)? {
                partitions::begin(client, today, BACK_DAYS, AHEAD_DAYS)?;
            }
            Ok(applied)
        })
    }

    /// Number of the last file that was applied; 0 of a database without webmon's tables.
    ///
    /// # Errors
    /// What the database said.
    pub fn schema_version(&self) -> Result<i32, StoreError> {
        self.inner.run("reading the schema's version", |client| {
            Ok(applied(client)?.last().map_or(0, |file| file.version))
        })
    }

    /// The names of the files that [`Store::migrate`] would apply; changes nothing.
    ///
    /// # Errors
    /// As [`Store::migrate`].
    pub fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        self.schema("migration", |client| {
            Ok(pending(client)?.into_iter().map(|file| file.name.to_owned()).collect())
        })
    }

    /// Removes all tables and functions of webmon with their data, in one transaction. The
    /// database itself and the extension pg_trgm stay.
    ///
    /// # Errors
    /// What the database said, for instance that somebody holds a table for too long.
    pub fn drop_everything(&self) -> Result<(), StoreError> {
        self.schema("drop", |client| {
            locked(client, "schema", |client| {
                let mut transaction = client.transaction()?;
                transaction.batch_execute(DROP)?;
                Ok(transaction.commit()?)
            })
        })?;
        self.inner.known_sites.forget();
        Ok(())
    }

    /// Runs `work` on a connection of its own with the schema's limit.
    pub(super) fn schema<R, F>(&self, what: &str, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        let limit = self.inner.limits().schema;
        let result = Session::open(&self.inner).and_then(|mut session| {
            session.call(limit, move |client| {
                let limit_ms = limit.as_millis();
                client.batch_execute(&format!("SET statement_timeout = {limit_ms}"))?;
                work(client)
            })
        });
        result.map_err(|failure| self.inner.error(what, &failure))
    }
}

/// Runs `work` while holding the advisory lock `name`.
pub(super) fn locked<R>(
    client: &mut Client,
    name: &str,
    work: impl FnOnce(&mut Client) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let (end, never) = (now().mono + LOCK_LIMIT, Stop::new());
    while !try_lock(client, name)? {
        if now().mono >= end {
            let cause = format!(
                "another process has been changing the {name} for {} s",
                LOCK_LIMIT.as_secs()
            );
            return Err(Failure::Said(ErrorKind::Outage, cause));
        }
        let _ = never.wait(LOCK_LOOK);
    }
    holding(client, name, work)
}

/// As [`locked`], but where somebody else has the lock nothing is done.
pub(super) fn locked_now<R>(
    client: &mut Client,
    name: &str,
    work: impl FnOnce(&mut Client) -> Result<R, Failure>,
) -> Result<Option<R>, Failure> {
    if try_lock(client, name)? { holding(client, name, work).map(Some) } else { Ok(None) }
}

/// Runs `work`, then gives the lock back.
fn holding<R>(
    client: &mut Client,
    name: &str,
    work: impl FnOnce(&mut Client) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let result = work(client);
    // Where this fails the connection is gone, and the lock with it.
    let _ = client.execute("SELECT pg_advisory_unlock($1, hashtext($2))", &[&LOCK_CLASS, &name]);
    result
}

pub(super) fn try_lock(client: &mut Client, name: &str) -> Result<bool, Failure> {
    let question = "SELECT pg_try_advisory_lock($1, hashtext($2))";
    Ok(client.query_one(question, &[&LOCK_CLASS, &name])?.try_get(0)?)
}

fn pending(client: &mut Client) -> Result<Vec<&'static File>, Failure> {
    check_server(client)?;
    plan(&applied(client)?)
}

fn apply(client: &mut Client) -> Result<Vec<String>, Failure> {
    let pending = pending(client)?;
    client.batch_execute(
        "CREATE TABLE IF NOT EXISTS schema_migration (version integer PRIMARY KEY, \
         name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )?;
    for file in &pending {
        apply_one(client, file).map_err(|failure| in_file(file, &failure))?;
        log::info!(file = file.name; "migration applied");
    }
    Ok(pending.iter().map(|file| file.name.to_owned()).collect())
}

fn apply_one(client: &mut Client, file: &File) -> Result<(), Failure> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute(file.text)?;
    transaction.execute(
        "INSERT INTO schema_migration (version, name, checksum) VALUES ($1, $2, $3)",
        &[&file.version, &file.name, &file.checksum()],
    )?;
    Ok(transaction.commit()?)
}

/// `failure` with the file's name, and the cure where it is known.
fn in_file(file: &File, failure: &Failure) -> Failure {
    let cause = format!("sql/{}: {}", file.name, failure.cause());
    if failure.db_error().is_some_and(|error| error.message().contains("pg_trgm")) {
        let cure = "an administrator must run CREATE EXTENSION pg_trgm in this database (it comes \
                    with the server's contrib package)";
        return Failure::Said(ErrorKind::Configuration, format!("{cause}; {cure}"));
    }
    Failure::Said(failure.kind(), cause)
}

fn check_server(client: &mut Client) -> Result<(), Failure> {
    let question = "SELECT current_setting('server_version_num')::integer, \
                    current_setting('server_encoding')";
    let row = client.query_one(question, &[])?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < SERVER_MIN {
        let cause =
            format!("the server is version {}; 14 is the oldest that works", version / 10_000);
        return Err(Failure::Said(ErrorKind::Configuration, cause));
    }
    if encoding != "UTF8" {
        let cause = format!(
            "the database's encoding is {encoding}: only UTF8 takes every text; make the database \
             by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        );
        return Err(Failure::Said(ErrorKind::Configuration, cause));
    }
    Ok(())
}

fn applied(client: &mut Client) -> Result<Vec<Applied>, Failure> {
    let row = client.query_one("SELECT to_regclass('schema_migration') IS NULL", &[])?;
    if row.try_get(0)? {
        return Ok(Vec::new());
    }
    let question = "SELECT version, name, checksum FROM schema_migration ORDER BY version";
    let row = |row: &postgres::Row| {
        Ok(Applied { version: row.try_get(0)?, name: row.try_get(1)?, checksum: row.try_get(2)? })
    };
    client.query(question, &[])?.iter().map(row).collect()
}

/// The files to apply, or why nothing may be applied.
fn plan(applied: &[Applied]) -> Result<Vec<&'static File>, Failure> {
    // A constant, so that its files live for ever.
    static KNOWN: [File; FILES.len()] = FILES;
    let refuse = |cause: String| Err(Failure::Said(ErrorKind::Migration, cause));
    for row in applied {
        let Some(file) = KNOWN.iter().find(|file| file.version == row.version) else {
            return refuse(format!(
                "the database has version {} ({}), this program knows {} at most: install the \
                 newer webmon",
                row.version,
                row.name,
                KNOWN.iter().map(|file| file.version).max().unwrap_or_default(),
            ));
        };
        let checksum = file.checksum();
        if checksum != row.checksum {
            return refuse(format!(
                "sql/{} was edited after it was applied: its checksum is {checksum}, the applied \
                 one's {}; restore the file and put the change into a new numbered file",
                file.name, row.checksum,
            ));
        }
    }
    let is_missing = |file: &&File| applied.iter().all(|row| row.version != file.version);
    Ok(KNOWN.iter().filter(is_missing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_count_up_and_names_begin_with_them() {
        for (index, file) in FILES.iter().enumerate() {
            assert_eq!(file.version as usize, index + 1);
            assert!(file.name.starts_with(&format!("{:03}_", file.version)), "{}", file.name);
        }
    }

    #[test]
    fn a_gap_is_filled_and_line_ends_do_not_count() {
        let row = |file: &File| Applied {
            version: file.version,
            name: file.name.to_owned(),
            checksum: file.checksum(),
        };
        let names: Vec<&str> =
            plan(&[row(&FILES[0]), row(&FILES[2])]).unwrap().iter().map(|f| f.name).collect();
        assert_eq!(names[..2], [FILES[1].name, FILES[3].name]);
        assert_eq!(names.len(), FILES.len() - 2);
        let (unix, dos) = ("a\nb", "a\r\nb");
        let file = |text| File { version: 1, name: "x", text }.checksum();
        assert_eq!(file(unix), file(dos));
        assert_ne!(file(unix), file("a b"));
    }
}
