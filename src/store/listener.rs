//! Noticing that sites changed.
//!
//! The truth is the table's change counter; a notification only tells to look at once. So a
//! lost notification costs one wait, and a lost connection counts as a change.

use std::time::Duration;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

use super::errors::Failure;
use super::session::Session;
use super::{Store, StoreError, sites};
use crate::runtime::now;

/// Watches the table `website` over a connection of its own.
#[derive(Debug)]
pub struct SiteListener {
    store: Store,
    session: Option<Session>,
    /// The counter at the last look; absent before the first one of a connection.
    seen: Option<i64>,
}

impl SiteListener {
    /// A listener that connects with its first wait.
    #[must_use]
    pub fn start(store: &Store) -> Self {
        Self { store: store.clone(), session: None, seen: None }
    }

    /// Waits up to `limit` for a change. `true` after a change and after each new connection,
    /// the first included: whatever was read before may be old, read all sites again.
    ///
    /// # Errors
    /// The database can't be asked; the next wait connects again at once, so the caller backs
    /// off.
    pub fn wait(&mut self, limit: Duration) -> Result<bool, StoreError> {
        self.try_wait(limit).map_err(|failure| {
            self.session = None;
            self.store.inner.error("watching sites", &failure)
        })
    }

    fn try_wait(&mut self, limit: Duration) -> Result<bool, Failure> {
        let call = self.store.inner.limits().call;
        if let Some(session) = &mut self.session {
            let seen = self.seen;
            let waited = session
                .call(limit.saturating_add(call), move |client| wait_for(client, limit, seen));
            match waited {
                Ok(counter) => {
                    let is_change = self.seen != Some(counter);
                    self.seen = Some(counter);
                    return Ok(is_change);
                }
                // A cut connection: another one is worth a try right now.
                Err(Failure::Database(_)) => {}
                Err(other) => return Err(other),
            }
        }
        self.session = None;
        let mut session = Session::open(&self.store.inner)?;
        let counter = session.call(call, |client| {
            client.batch_execute("LISTEN webmon_website")?;
            sites::counter(client)
        })?;
        self.seen = Some(counter);
        self.session = Some(session);
        Ok(true)
    }
}

/// The counter, as soon as it differs from `seen` and at the latest after `limit`.
fn wait_for(client: &mut Client, limit: Duration, seen: Option<i64>) -> Result<i64, Failure> {
    let end = now().mono.saturating_add(limit);
    loop {
        // Notifications of a change that was already seen may still be on their way.
        let rest = end.saturating_sub(now().mono);
        let is_told = client.notifications().timeout_iter(rest).next()?.is_some();
        let counter = sites::counter(client)?;
        if Some(counter) != seen || !is_told {
            return Ok(counter);
        }
    }
}
