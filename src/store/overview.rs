//! What the tables tell of the whole: for `GET /status` and `webmon status`.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::sites::SiteStatus;
use super::{Store, StoreError};
use crate::check::Outcome;

/// The long and the short time that checks are counted over.
const LONG: SignedDuration = SignedDuration::from_mins(5);
const SHORT: SignedDuration = SignedDuration::from_mins(1);
/// How far back the newest check is looked for: the longest interval of a site.
const NEWEST: SignedDuration = SignedDuration::from_hours(24);

/// The state of the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Number of the last migration that was applied.
    pub schema_version: i64,
    /// Sites by status; all statuses.
    pub sites: Vec<(SiteStatus, u64)>,
    /// Checks due in the last minute, and in the last five, by outcome; all outcomes.
    pub checks: Vec<(Outcome, u64, u64)>,
    /// When the newest check of the last day was due.
    pub newest_check: Option<Timestamp>,
    /// Messages that were refused and are kept.
    pub rejected: u64,
}

impl Store {
    /// What the tables tell of the whole.
    ///
    /// # Errors
    /// What the database said.
    pub fn overview(&self) -> Result<Overview, StoreError> {
        let now = crate::runtime::wall();
        self.inner.run("reading the state", move |client| {
            let number = |count: i64| u64::try_from(count).unwrap_or_default();
            let version = client
                .query_one("SELECT coalesce(max(version), 0)::bigint FROM schema_migration", &[])?;
            let mut sites: Vec<(SiteStatus, u64)> =
                SiteStatus::ALL.into_iter().map(|status| (status, 0)).collect();
            for row in client.query("SELECT status, count(*) FROM website GROUP BY 1", &[])? {
                let (status, count): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
                if let Some(found) = sites.iter_mut().find(|(other, _)| other.as_str() == status) {
                    found.1 = number(count);
                }
            }
            let mut checks: Vec<(Outcome, u64, u64)> =
                Outcome::ALL.into_iter().map(|outcome| (outcome, 0, 0)).collect();
            // Ids begin with the due time: the primary key's index has the last minutes together.
            let counted = client.query(
                "SELECT outcome, count(*) FILTER (WHERE \"timestamp\" > $1), count(*) \
                 FROM check_entry WHERE \"timestamp\" > $2 AND \"timestamp\" <= $3 \
                 AND check_entry_id >= $4 GROUP BY 1",
                &[&(now - SHORT), &(now - LONG), &now, &first_id(now - LONG)],
            )?;
            for row in counted {
                let outcome: &str = row.try_get(0)?;
                if let Some(found) = checks.iter_mut().find(|(other, ..)| other.as_str() == outcome)
                {
                    (found.1, found.2) = (number(row.try_get(1)?), number(row.try_get(2)?));
                }
            }
            let newest = client.query_opt(
                "SELECT \"timestamp\" FROM check_entry WHERE \"timestamp\" > $1 \
                 AND check_entry_id >= $2 ORDER BY check_entry_id DESC LIMIT 1",
                &[&(now - NEWEST), &first_id(now - NEWEST)],
            )?;
            let rejected = client.query_one("SELECT count(*) FROM rejected_message", &[])?;
            Ok(Overview {
                schema_version: version.try_get(0)?,
                sites,
                checks,
                newest_check: newest.map(|row| row.try_get(0)).transpose()?,
                rejected: number(rejected.try_get(0)?),
            })
        })
    }
}

/// No check that is due at `time` or later has a lower id.
fn first_id(time: Timestamp) -> Uuid {
    let millis = u128::try_from(time.as_millisecond()).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}
