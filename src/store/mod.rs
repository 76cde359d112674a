//! PostgreSQL: sites, checks, what was refused, and the schema they live in. Other rooms see no
//! SQL.
//!
//! Invariants:
//! - No caller waits longer than its deadline, whatever the server does. The synchronous client
//!   waits for ever on a frozen server, in queries, in connection tests and even when it is
//!   dropped; so no client is ever touched outside a [`BoundedCall`](crate::runtime::BoundedCall):
//!   pooled ones by the executors of `pool`, others by a `session` of their own.
//! - A late call is left behind with its connection and ends by itself when the server answers
//!   or TCP gives it up. At most [`LATE_MAX`] of one store's calls are left behind; until one of
//!   them ends, further calls fail at once as an outage.
//! - What a late call did is unknown, so every write may be repeated: checks and rejected
//!   messages are found by their keys, sites by their names, files by their versions.
//! - A transaction is one call: it commits or leaves nothing.
//! - No error and no log line holds a password.

mod checks;
mod clock;
mod daemons;
mod encode;
mod errors;
mod histogram;
mod history;
mod idempotency;
mod import;
mod lead;
mod listener;
mod migrations;
mod overview;
mod partitions;
mod password;
mod pool;
mod read;
mod rejected;
mod retention;
mod rollup;
mod searches;
mod segments;
mod session;
mod sites;
mod tls;
mod websites;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

pub use checks::{DUE_AHEAD_MAX, Saved};
pub use clock::CLOCKS_APART_MAX;
pub use daemons::{Daemon, DaemonRow};
pub use errors::{ErrorKind, StoreError};
pub use histogram::Histogram;
pub use history::{Bucket, Period, Uptime};
pub use idempotency::{IDEMPOTENCY_KEPT, IdempotencyKey, KeptAnswer, Once};
pub use import::{ImportMode, ImportSite, Imported};
pub use lead::Lead;
pub use listener::SiteListener;
pub use migrations::{AHEAD_DAYS, BACK_DAYS};
pub use overview::{Outcomes, Overview, REJECTED_COUNT_MAX, Server};
pub use pool::LATE_MAX;
pub use read::StoredCheck;
pub use rejected::{Rejected, RejectedFilter, RejectedKey, RejectedRow, RejectedSummary};
pub use rollup::{Rolled, Rollups, Waiting};
pub use searches::LastCheck;
pub use sites::{SiteRow, SiteStatus};
pub use tls::{SslMode, SslOptions};
pub use websites::{Change, Changed, Created, SiteFilter};

/// Where the database is and who asks.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Host name, address, or directory of the Unix socket.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database.
    pub db: String,
    /// Role.
    pub user: String,
    /// Its password; absent where the server asks for none.
    pub password: Option<SecretString>,
    /// Most pooled connections, at least 1. Listener and lead have one of their own each.
    pub pool: u32,
    /// TLS.
    pub ssl: SslOptions,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Whether the first migration puts the sample sites into an empty table.
    pub sample_sites: bool,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A call, connecting included. The server gives up at three quarters of it, so that a
    /// server which still answers is asked no more before the caller turns away.
    pub call: Duration,
    /// A run of the migrations, or of partition maintenance.
    pub schema: Duration,
}

impl Default for Limits {
    /// 20 s a call: a batch of 5,000 rows takes 20 ms, on a disk that is busy some seconds.
    /// 10 minutes for the schema: an index on a large table.
    fn default() -> Self {
        Self { call: Duration::from_secs(20), schema: Duration::from_secs(600) }
    }
}

/// The database. Clones share one pool.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<pool::Inner>,
}

impl Store {
    /// A store with the default limits. Connects to nothing yet: the database may be away.
    ///
    /// # Errors
    /// Certificate or key files that are missing or no good.
    pub fn new(options: StoreOptions) -> Result<Self, StoreError> {
        Self::with_limits(options, Limits::default())
    }

    /// A store with limits of one's own.
    ///
    /// # Errors
    /// As [`Store::new`].
    pub fn with_limits(options: StoreOptions, limits: Limits) -> Result<Self, StoreError> {
        Ok(Self { inner: Arc::new(pool::Inner::new(options, limits)?) })
    }

    /// Asks the database for nothing, to see whether it answers.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn ping(&self) -> Result<(), StoreError> {
        self.inner.run("ping", |client| Ok(client.batch_execute("")?))
    }

    /// The server and database, as `host:port/db`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.inner.address()
    }
}
