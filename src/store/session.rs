//! Connecting, and connections outside the pool.

use std::sync::Arc;
use std::time::Duration;

use postgres::{Client, Config};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::errors::{ErrorKind, Failure, StoreError};
use super::pool::Inner;
use super::{Limits, StoreOptions, tls};
use crate::runtime::BoundedCall;

/// TCP connect, per address. The handshake after it has no bound of its own.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A silent peer is asked for a sign of life after this time …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// … this often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … so many times: a host that vanished ends its left-behind calls after a minute.
const KEEPALIVE_RETRIES: u32 = 3;
/// Sent data nobody acknowledges ends the connection after the same minute.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(60);

/// How to connect.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    manager: Arc<PostgresConnectionManager<MakeRustlsConnect>>,
    tls: MakeRustlsConnect,
    settings: String,
}

impl Connector {
    pub(super) fn new(options: &StoreOptions, limits: Limits) -> Result<Self, StoreError> {
        let (mode, tls) = tls::connector(&options.ssl)?;
        // As libpq does: a Unix socket has no TLS, whatever the mode.
        let is_socket = options.host.starts_with('/');
        let mode = if is_socket { postgres::config::SslMode::Disable } else { mode };
        let mut config = Config::new();
        config
            .host(&options.host)
            .port(options.port)
            .dbname(&options.db)
            .user(&options.user)
            .application_name(&options.application_name)
            .ssl_mode(mode)
            .connect_timeout(CONNECT_LIMIT)
            .tcp_user_timeout(UNACKNOWLEDGED_LIMIT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            // The library would log each at info level, with whatever text it has.
            .notice_callback(|notice| log::debug!(text = notice.message(); "database notice"));
        if let Some(password) = &options.password {
            config.password(password.expose_secret());
        }
        let settings = settings(limits.call);
        let manager = Arc::new(PostgresConnectionManager::new(config.clone(), tls.clone()));
        Ok(Self { config, manager, tls, settings })
    }

    pub(super) fn with_password(&self, password: &SecretString) -> Self {
        let mut other = self.clone();
        other.config.password(password.expose_secret());
        let manager = PostgresConnectionManager::new(other.config.clone(), other.tls.clone());
        other.manager = Arc::new(manager);
        other
    }

    /// What r2d2 asks about a connection in the pool.
    pub(super) fn manager(&self) -> &PostgresConnectionManager<MakeRustlsConnect> {
        &self.manager
    }

    /// Connects and prepares the connection. Can hang: only inside a bounded call.
    pub(super) fn connect(&self) -> Result<Client, Failure> {
        // The library panics when it gets no file descriptor for its event loop. In the pool's
        // thread that would take one of the pool's places for ever.
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut client = self.manager.connect()?;
            client.batch_execute(&self.settings)?;
            match client.batch_execute(&keepalives()) {
                // Something between that knows no such settings: the session is good without.
                Err(error) if error.as_db_error().is_some() && !client.is_closed() => {
                    log::debug!(cause = error.to_string(); "no keepalive on the server's side");
                }
                other => other?,
            }
            Ok(client)
        }));
        made.unwrap_or_else(|_| {
            let cause = "the client panicked; out of file descriptors?";
            Err(Failure::Said(ErrorKind::Outage, cause.to_owned()))
        })
    }
}

/// Settings of every connection. As statements, since poolers between refuse them as start-up
/// parameters.
fn settings(call: Duration) -> String {
    let statement_ms = (call * 3 / 4).as_millis().max(1);
    let lock_ms = (call / 2).as_millis().max(1);
    format!(
        "SET timezone = 'UTC'; SET client_min_messages = warning; SET synchronous_commit = on; \
         SET statement_timeout = {statement_ms}; SET lock_timeout = {lock_ms}; \
         SET idle_in_transaction_session_timeout = {statement_ms}",
    )
}

/// The same bounds for the server: by its own it would keep the locks and leads of a host that
/// vanished for two hours. Without effect on a Unix socket.
fn keepalives() -> String {
    format!(
        "SET tcp_keepalives_idle = {}; SET tcp_keepalives_interval = {}; \
         SET tcp_keepalives_count = {KEEPALIVE_RETRIES}; SET tcp_user_timeout = {}",
        KEEPALIVE_IDLE.as_secs(),
        KEEPALIVE_INTERVAL.as_secs(),
        UNACKNOWLEDGED_LIMIT.as_millis(),
    )
}

/// A connection outside the pool, on its own thread, through calls with a deadline. After an
/// error of the connection the session is spent: its owner opens another.
#[derive(Debug)]
pub(super) struct Session {
    inner: Arc<Inner>,
    call: BoundedCall<Option<Client>>,
}

impl Session {
    pub(super) fn open(inner: &Arc<Inner>) -> Result<Self, Failure> {
        Self::open_with(inner, inner.connector().clone())
    }

    pub(super) fn open_with(inner: &Arc<Inner>, connector: Connector) -> Result<Self, Failure> {
        inner.check_not_stuck()?;
        let call = BoundedCall::start("store-session", || None)?;
        let mut session = Self { inner: inner.clone(), call };
        session.bounded(inner.limits().call, move |client| {
            *client = Some(connector.connect()?);
            Ok(())
        })?;
        Ok(session)
    }

    /// Runs `work`, waiting up to `limit`.
    pub(super) fn call<R, F>(&mut self, limit: Duration, work: F) -> Result<R, Failure>
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        self.bounded(limit, |client| match client {
            Some(client) => work(client),
            None => Err(Failure::Call(crate::runtime::CallError::Gone)),
        })
    }

    fn bounded<R, F>(&mut self, limit: Duration, work: F) -> Result<R, Failure>
    where
        R: Send + 'static,
        F: FnOnce(&mut Option<Client>) -> Result<R, Failure> + Send + 'static,
    {
        let token = Arc::new(());
        let seen = Arc::downgrade(&token);
        let result = self.call.call(limit, move |client| {
            let _token = token;
            work(client)
        });
        result.unwrap_or_else(|error| {
            self.inner.note(error, seen);
            Err(Failure::Call(error))
        })
    }
}
