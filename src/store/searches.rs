//! What lists and look-ups of sites ask beside the sites themselves.

use jiff::{SignedDuration, Timestamp};

use super::{Store, StoreError};
use crate::check::Outcome;
use crate::runtime::now;

/// How far back a site's last check is looked for: twice the longest interval, so that a site that
/// is checked has one.
const LAST: SignedDuration = SignedDuration::from_hours(48);
/// Checks are due no later than that from now, were this machine's clock behind.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);
/// Names that are alike enough to be looked at closely.
const ALIKE_MAX: i64 = 50;

/// The newest check of a site, whatever its region.
#[derive(Clone, Debug, PartialEq)]
pub struct LastCheck {
    /// The site.
    pub website_id: i64,
    /// When it was due.
    pub timestamp: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds in all.
    pub response_time: Option<f64>,
}

impl Store {
    /// The newest check of each of these sites, of those that have one in the last 48 hours. One
    /// look into the index each.
    ///
    /// # Errors
    /// What the database said.
    pub fn last_checks(&self, websites: &[i64]) -> Result<Vec<LastCheck>, StoreError> {
        let websites = websites.to_vec();
        let (from, to) = (now().wall - LAST, now().wall + AHEAD);
        self.inner.run("reading the last checks", move |client| {
            let rows = client.query(
                "SELECT site.id, last.\"timestamp\", last.outcome, last.response_time \
                 FROM unnest($1::bigint[]) AS site (id) CROSS JOIN LATERAL ( \
                    SELECT \"timestamp\", outcome, response_time FROM check_entry \
                    WHERE website_id = site.id AND \"timestamp\" >= $2 AND \"timestamp\" < $3 \
                    ORDER BY \"timestamp\" DESC LIMIT 1) AS last",
                &[&websites, &from, &to],
            )?;
            rows.iter()
                .map(|row| {
                    let outcome: &str = row.try_get(2)?;
                    Ok(LastCheck {
                        website_id: row.try_get(0)?,
                        timestamp: row.try_get(1)?,
                        // The consumer writes no other.
                        outcome: Outcome::parse(outcome).unwrap_or(Outcome::Missed),
                        response_time: row.try_get(3)?,
                    })
                })
                .collect()
        })
    }

    /// Names of sites that are somewhat like `name`, the most alike first.
    ///
    /// # Errors
    /// What the database said.
    pub fn names_like(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let name = name.to_owned();
        self.inner.run("reading sites", move |client| {
            let mut transaction = client.transaction()?;
            // One letter of a short word is a third of it.
            transaction.batch_execute("SET LOCAL pg_trgm.similarity_threshold = 0.2")?;
            let rows = transaction.query(
                "SELECT name FROM website WHERE status <> 'deleted' AND name % $1 \
                 ORDER BY similarity(name, $1) DESC LIMIT $2",
                &[&name, &ALIKE_MAX],
            )?;
            rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
        })
    }
}
