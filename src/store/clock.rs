//! The server's clock beside this process's. What partitions are made and what is removed hangs
//! on the time, and one host whose clock is wrong would remove everything; so the server's clock
//! counts, which all processes share, and where the two disagree nothing is made or removed.

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use postgres::Client;

use super::errors::{ErrorKind, Failure};
use super::partitions::day_of;
use super::{Store, StoreError};

/// How far the two clocks may be apart: more than any answer takes and any host drifts that asks
/// for the time at all, and little beside a day.
pub const CLOCKS_APART_MAX: SignedDuration = SignedDuration::from_hours(1);

impl Store {
    /// The server's time, where `here`, this process's, agrees with it.
    ///
    /// # Errors
    /// Of kind [`ErrorKind::Configuration`] when they are more than [`CLOCKS_APART_MAX`] apart;
    /// otherwise what the database said.
    pub fn agreed_time(&self, here: Timestamp) -> Result<Timestamp, StoreError> {
        self.inner.run("comparing the clocks", move |client| agreed(client, here))
    }
}

/// What the server's clock says.
pub(super) fn server(client: &mut Client) -> Result<Timestamp, Failure> {
    Ok(client.query_one("SELECT clock_timestamp()", &[])?.try_get(0)?)
}

/// As [`Store::agreed_time`].
pub(super) fn agreed(client: &mut Client, here: Timestamp) -> Result<Timestamp, Failure> {
    let there = server(client)?;
    if are_apart(here, there) {
        let cause = format!(
            "this host's clock says {here:.0}, the server's {there:.0}: no tables are made or \
             removed while they are more than {} h apart",
            CLOCKS_APART_MAX.as_hours()
        );
        return Err(Failure::Said(ErrorKind::Configuration, cause));
    }
    Ok(there)
}

/// The server's day, or none while the clocks are apart.
pub(super) fn today(client: &mut Client, here: Timestamp) -> Result<Option<Date>, Failure> {
    let there = server(client)?;
    Ok((!are_apart(here, there)).then(|| day_of(there)))
}

fn are_apart(here: Timestamp, there: Timestamp) -> bool {
    here.duration_since(there).abs() > CLOCKS_APART_MAX
}
