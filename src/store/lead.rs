//! Who does the maintenance: at most one of all processes, by an advisory lock.

use std::time::Duration;

use postgres::Client;

use super::errors::Failure;
use super::migrations::try_lock;
use super::session::Session;
use super::{Store, StoreError};
use crate::runtime::CallError;

/// The lead in something, held by a connection of its own. Given up when dropped, or when the
/// connection is lost.
#[derive(Debug)]
pub struct Lead {
    session: Session,
    limit: Duration,
}

impl Store {
    /// Takes the lead called `name`, if no other process or thread has it.
    ///
    /// # Errors
    /// The database can't be asked.
    pub fn try_lead(&self, name: &str) -> Result<Option<Lead>, StoreError> {
        let limit = self.inner.limits().call;
        let lock = format!("lead {name}");
        let taken = Session::open(&self.inner).and_then(|mut session| {
            let is_leader = session.call(limit, move |client| try_lock(client, &lock))?;
            Ok(is_leader.then_some(Lead { session, limit }))
        });
        taken.map_err(|failure| self.inner.error("taking the lead", &failure))
    }
}

impl Lead {
    /// Whether the lead is still held: asks the server over the connection that holds it. After
    /// `false` this value is of no more use.
    pub fn is_held(&mut self) -> bool {
        let asked = self.call(self.limit, |client| Ok(client.batch_execute("")?));
        match asked {
            Ok(()) => true,
            Err(Failure::Call(CallError::Late)) => {
                log::warn!("lead given up: the database does not answer");
                false
            }
            Err(_) => false,
        }
    }

    /// Runs `work` on the connection that holds the lead: it fails when the lead is lost.
    pub(super) fn call<R, F>(&mut self, limit: Duration, work: F) -> Result<R, Failure>
    where
        R: Send + 'static,
        F: FnOnce(&mut Client) -> Result<R, Failure> + Send + 'static,
    {
        self.session.call(limit, work)
    }
}
