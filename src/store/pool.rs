//! The pool, and the executors that use it.
//!
//! As many executors as connections, each a thread with a handle of the r2d2 pool. A call takes a
//! free executor, which checks a connection out, uses it and puts it back, all on its own thread
//! and under the caller's one deadline. An executor that is late is left behind with what it
//! holds, and the next call starts another in its place; the connection it holds stays counted
//! by r2d2, so a server that hangs is never asked for more than `pool` connections.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use postgres::Client;
use postgres::error::SqlState;
use r2d2::{ManageConnection, NopErrorHandler, PooledConnection};

use super::errors::{ErrorKind, Failure, StoreError};
use super::session::Connector;
use super::sites::KnownSites;
use super::{Limits, StoreOptions};
use crate::runtime::{BoundedCall, CallError, now};
use crate::telemetry::metrics;

/// Most calls of one store that are left behind at once: half of the process's, so that a frozen
/// database leaves room for the other clients that can hang.
pub const LATE_MAX: usize = crate::runtime::LEFT_BEHIND_MAX / 2;

/// Longest wait for a connection while none can be made.
const CHECK_OUT_LIMIT: Duration = Duration::from_secs(3);
/// How often a waiting check-out looks whether connecting has failed. r2d2 may open one more
/// connection at each look, so it is longer than a connect takes.
const CHECK_OUT_LOOK: Duration = Duration::from_millis(100);
/// r2d2 tries to connect again after 0.4 s, doubling up to half of this.
const CONNECT_AGAIN: Duration = Duration::from_secs(4);

type Pool = r2d2::Pool<Manager>;
type Executor = BoundedCall<Pool>;

/// A connection that can be marked as not to be used again.
pub(super) struct Pooled {
    client: Client,
    is_doomed: bool,
}

/// Makes connections, and remembers why the last try failed: r2d2 itself keeps only the text.
pub(super) struct Manager {
    connector: Connector,
    last_failure: Arc<Mutex<LastFailure>>,
}

/// Failed connects so far, and what the last one said.
#[derive(Debug, Default)]
struct LastFailure {
    count: u64,
    said: Option<(ErrorKind, String)>,
}

/// r2d2 wants an error type; the failure itself is in [`LastFailure`].
#[derive(Debug)]
pub(super) struct NotConnected;

impl std::fmt::Display for NotConnected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not connected")
    }
}

impl std::error::Error for NotConnected {}

impl ManageConnection for Manager {
    type Connection = Pooled;
    type Error = NotConnected;

    fn connect(&self) -> Result<Pooled, NotConnected> {
        let connected = self.connector.connect();
        let mut last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        match connected {
            Ok(client) => {
                last.said = None;
                Ok(Pooled { client, is_doomed: false })
            }
            Err(failure) => {
                last.count += 1;
                last.said = Some((failure.kind(), failure.cause()));
                Err(NotConnected)
            }
        }
    }

    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), NotConnected> {
        self.connector.manager().is_valid(&mut pooled.client).map_err(|_| NotConnected)
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.is_doomed || self.connector.manager().has_broken(&mut pooled.client)
    }
}

/// What all clones of a store share.
pub(super) struct Inner {
    address: String,
    limits: Limits,
    connector: Connector,
    options: StoreOptions,
    pool: Option<Pool>,
    last_failure: Arc<Mutex<LastFailure>>,
    free: (Sender<Option<Executor>>, Receiver<Option<Executor>>),
    late: Mutex<Vec<Weak<()>>>,
    pub(super) known_sites: KnownSites,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn new(options: StoreOptions, limits: Limits) -> Result<Self, StoreError> {
        let connector = Connector::new(&options, limits)?;
        let last_failure = Arc::new(Mutex::new(LastFailure::default()));
        let size = options.pool.max(1);
        let manager = Manager { connector: connector.clone(), last_failure: last_failure.clone() };
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            // 9 µs a call; without it a connection that died while idle is handed out.
            .test_on_check_out(true)
            .connection_timeout(CONNECT_AGAIN)
            .error_handler(Box::new(NopErrorHandler))
            .build_unchecked(manager);
        let free = bounded(size as usize);
        for _ in 0..size {
            // Has room: the channel was made with this size.
            let _ = free.0.send(None);
        }
        Ok(Self {
            address: format!("{}:{}/{}", options.host, options.port, options.db),
            limits,
            connector,
            options,
            pool: Some(pool),
            last_failure,
            free,
            late: Mutex::default(),
            known_sites: KnownSites::default(),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(super) fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// `failure` in `what`, as callers see it.
    pub(super) fn error(&self, what: &str, failure: &Failure) -> StoreError {
        let message = format!("PostgreSQL {}: {what}: {}", self.address, failure.cause());
        StoreError::new(failure.kind(), message)
    }

    /// Runs `work` on a pooled connection; `what` names it in the error.
    pub(super) fn run<R, F>(&self, what: &str, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        self.call(work).map_err(|failure| self.error(what, &failure))
    }

    /// As [`Inner::run`], for callers that look into the failure.
    pub(super) fn call<R, F>(&self, work: F) -> Result<R, Failure>
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        self.check_not_stuck()?;
        let slot =
            self.free.1.recv_timeout(self.limits.call).map_err(|_| {
                Failure::Said(ErrorKind::Outage, "all connections are busy".to_owned())
            })?;
        let (slot, result) = self.call_in(slot, work);
        // Has room: the slot was taken from there.
        let _ = self.free.0.send(slot);
        result
    }

    fn call_in<R, F>(
        &self,
        slot: Option<Executor>,
        work: F,
    ) -> (Option<Executor>, Result<R, Failure>)
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        let mut executor = match (slot, self.pool.clone()) {
            (Some(executor), _) => executor,
            (None, Some(pool)) => match BoundedCall::start("store", move || pool) {
                Ok(executor) => executor,
                Err(error) => return (None, Err(Failure::Call(error))),
            },
            (None, None) => return (None, Err(Failure::Call(CallError::Gone))),
        };
        let (token, last_failure) = (Arc::new(()), self.last_failure.clone());
        let seen = Arc::downgrade(&token);
        let result = executor.call(self.limits.call, move |pool| {
            let _token = token;
            use_pooled(pool, &last_failure, work)
        });
        match result {
            Ok(result) => (Some(executor), result),
            Err(error) => {
                self.note(error, seen);
                (None, Err(Failure::Call(error)))
            }
        }
    }

    /// Remembers a call that was left behind; `seen` lives until it ends.
    pub(super) fn note(&self, error: CallError, seen: Weak<()>) {
        if error == CallError::Late {
            metrics().calls_left_behind.inc();
            self.late.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        }
    }

    /// Fails while [`LATE_MAX`] calls are left behind.
    pub(super) fn check_not_stuck(&self) -> Result<(), Failure> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.retain(|seen| seen.strong_count() > 0);
        if late.len() < LATE_MAX {
            return Ok(());
        }
        let cause = format!("no answer to {} earlier calls", late.len());
        Err(Failure::Said(ErrorKind::Outage, cause))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing a connection waits for the server, so it is not done on this thread. Where no
        // thread is to be had the connections stay open until the process ends.
        let pool = Arc::new(Mutex::new(self.pool.take()));
        let theirs = pool.clone();
        let close = move || drop(theirs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if BoundedCall::start("store-close", close).is_err() {
            std::mem::forget(pool);
        }
    }
}

/// On the executor's thread: checks out, works, puts back.
fn use_pooled<R, F>(pool: &Pool, last_failure: &Mutex<LastFailure>, work: F) -> Result<R, Failure>
where
    F: FnOnce(&mut Client) -> Result<R, Failure>,
{
    let mut pooled = check_out(pool, last_failure)?;
    let result = work(&mut pooled.client);
    if let Err(failure) = &result {
        // After a failover the old server answers, but as a standby; after a timeout nobody
        // knows what state the connection is in; and after a COPY that was refused at its start
        // the client takes the next answer for another one's. A new one costs some milliseconds.
        let is_of_rows = failure.code() == Some(&SqlState::UNIQUE_VIOLATION);
        pooled.is_doomed = failure.kind() != ErrorKind::Data && !is_of_rows;
    }
    result
}

fn check_out(
    pool: &Pool,
    last_failure: &Mutex<LastFailure>,
) -> Result<PooledConnection<Manager>, Failure> {
    let look = || {
        let last = last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        (last.count, last.said.clone())
    };
    let (before, _) = look();
    let end = now().mono + CHECK_OUT_LIMIT;
    loop {
        if let Ok(pooled) = pool.get_timeout(CHECK_OUT_LOOK) {
            return Ok(pooled);
        }
        match look() {
            (count, Some((kind, cause))) if count != before || now().mono >= end => {
                return Err(Failure::Said(kind, cause));
            }
            (_, None) if now().mono >= end => {
                let cause = format!("no connection within {} s", CHECK_OUT_LIMIT.as_secs());
                return Err(Failure::Said(ErrorKind::Outage, cause));
            }
            _ => {}
        }
    }
}
