//! The table `website`.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use postgres::Client;

use super::errors::Failure;
use super::{Store, StoreError};
use crate::site::{Settings, SiteSpec};
use crate::wire;

/// Whether a site is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SiteStatus {
    /// Checked.
    Active,
    /// Kept, not checked for now.
    Paused,
    /// Kept for its history only.
    Deleted,
}

impl SiteStatus {
    /// All statuses.
    pub const ALL: [Self; 3] = [Self::Active, Self::Paused, Self::Deleted];

    /// Its name in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Deleted => "deleted",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// A row of `website`. The spec is as it stands there; building the site finds its faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRow {
    /// Key.
    pub website_id: i64,
    /// What to watch.
    pub spec: SiteSpec,
    /// Whether it is checked.
    pub status: SiteStatus,
    /// When it was added.
    pub timestamp: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with each change.
    pub revision: i64,
}

pub(super) const COLUMNS: &str = "website_id, name, url, regex, status, \"timestamp\", interval_seconds, timeout_seconds, \
     method, headers::text, body, expected_status, settings::text, updated_at, revision";

/// Ids that were seen in the table, as of a state of the change counter: whoever was removed is
/// no longer among them.
#[derive(Debug, Default)]
pub(super) struct KnownSites {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    counter: Option<i64>,
    ids: HashSet<i64>,
}

impl KnownSites {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of `wanted` that are not known, and when the others were seen.
    fn missing(&self, wanted: &[i64]) -> (Option<i64>, Vec<i64>) {
        let seen = self.lock();
        let missing = wanted.iter().copied().filter(|id| !seen.ids.contains(id)).collect();
        (seen.counter, missing)
    }

    /// `found` were in the table when, or after, the counter stood at `counter`.
    fn add(&self, counter: i64, found: &HashSet<i64>) {
        let mut seen = self.lock();
        if seen.counter < Some(counter) {
            seen.ids.clear();
            seen.counter = Some(counter);
        }
        // What was found before a later change is of no use.
        if seen.counter == Some(counter) {
            seen.ids.extend(found);
        }
    }

    pub(super) fn forget(&self) {
        *self.lock() = Seen::default();
    }
}

impl Store {
    /// All active sites, by id.
    ///
    /// # Errors
    /// What the database said.
    pub fn sites(&self) -> Result<Vec<SiteRow>, StoreError> {
        self.inner.run("reading sites", |client| {
            let question = format!(
                "SELECT {COLUMNS} FROM website WHERE status = 'active' ORDER BY website_id"
            );
            client.query(&question, &[])?.iter().map(site_row).collect()
        })
    }

    /// The first `limit` active sites with an id above `after`, by id: a long list is read in
    /// pages. A change between two pages shows in the change counter.
    ///
    /// # Errors
    /// What the database said.
    pub fn sites_after(&self, after: i64, limit: usize) -> Result<Vec<SiteRow>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.inner.run("reading sites", move |client| {
            let question = format!(
                "SELECT {COLUMNS} FROM website WHERE status = 'active' AND website_id > $1 \
                 ORDER BY website_id LIMIT $2"
            );
            client.query(&question, &[&after, &limit])?.iter().map(site_row).collect()
        })
    }

    /// The ids of all sites, whatever their status.
    ///
    /// # Errors
    /// What the database said.
    pub fn known_site_ids(&self) -> Result<HashSet<i64>, StoreError> {
        self.inner.run("reading sites", |client| {
            ids(&client.query("SELECT website_id FROM website", &[])?)
        })
    }

    /// Adds those of `specs` whose name is not in the table, whatever the status of the one that
    /// is there. Returns the names added.
    ///
    /// # Errors
    /// What the database said.
    pub fn add_missing_sites(&self, specs: &[SiteSpec]) -> Result<Vec<String>, StoreError> {
        let specs = specs.to_vec();
        self.inner.run("adding sites", move |client| add_missing(client, &specs))
    }

    /// Grows with every change of `website`.
    ///
    /// # Errors
    /// What the database said.
    pub fn change_counter(&self) -> Result<i64, StoreError> {
        self.inner.run("reading the change counter", counter)
    }

    /// Those of `wanted` that are in no row of `website`, each once. Looks at the change counter,
    /// and asks only about ids it has not seen since the last change: a site may have been added,
    /// or removed, a moment ago.
    pub(super) fn unknown_sites(
        &self,
        wanted: impl Iterator<Item = i64>,
    ) -> Result<HashSet<i64>, StoreError> {
        let wanted: Vec<i64> = wanted.collect::<HashSet<i64>>().into_iter().collect();
        if wanted.is_empty() {
            return Ok(HashSet::new());
        }
        let (seen_at, missing) = self.inner.known_sites.missing(&wanted);
        let (counter, asked, found) = self.inner.run("reading sites", move |client| {
            let counter = counter(client)?;
            let asked = if seen_at == Some(counter) { missing } else { wanted };
            let found = if asked.is_empty() {
                HashSet::new()
            } else {
                let question = "SELECT website_id FROM website WHERE website_id = ANY($1)";
                ids(&client.query(question, &[&asked])?)?
            };
            Ok((counter, asked, found))
        })?;
        self.inner.known_sites.add(counter, &found);
        Ok(asked.into_iter().filter(|id| !found.contains(id)).collect())
    }
}

pub(super) fn counter(client: &mut Client) -> Result<i64, Failure> {
    Ok(client.query_one("SELECT counter FROM website_change", &[])?.try_get(0)?)
}

fn ids(rows: &[postgres::Row]) -> Result<HashSet<i64>, Failure> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

pub(super) fn site_row(row: &postgres::Row) -> Result<SiteRow, Failure> {
    // A negative number is out of range like 0, and building the site says so.
    let seconds = |value: Option<i32>| value.map(|s| u32::try_from(s).unwrap_or_default());
    let (status, headers): (&str, Option<&str>) = (row.try_get(4)?, row.try_get(9)?);
    let settings: Option<&str> = row.try_get(12)?;
    Ok(SiteRow {
        website_id: row.try_get(0)?,
        spec: SiteSpec {
            name: row.try_get(1)?,
            url: row.try_get(2)?,
            interval: seconds(row.try_get(6)?),
            timeout: seconds(row.try_get(7)?),
            regex: row.try_get(3)?,
            method: row.try_get(8)?,
            headers: headers.map(read_headers).unwrap_or_default(),
            body: row.try_get(10)?,
            expected_status: row.try_get(11)?,
            settings: settings.map(read_settings).unwrap_or_default(),
        },
        // The table's CHECK allows no other.
        status: SiteStatus::parse(status).unwrap_or(SiteStatus::Paused),
        timestamp: row.try_get(5)?,
        updated_at: row.try_get(13)?,
        revision: row.try_get(14)?,
    })
}

fn add_missing(client: &mut Client, specs: &[SiteSpec]) -> Result<Vec<String>, Failure> {
    let mut transaction = client.transaction()?;
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    // A look into the index for each: see `import`.
    let question = "SELECT site.name FROM unnest($1::text[]) AS wanted (name) CROSS JOIN LATERAL \
                    (SELECT name FROM website WHERE website.name = wanted.name LIMIT 1) AS site";
    let there = transaction.query(question, &[&names])?;
    let there: HashSet<&str> = there.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let statement = transaction.prepare(
        "INSERT INTO website (name, url, regex, interval_seconds, timeout_seconds, method, \
         headers, body, expected_status, settings) VALUES ($1, $2, $3, $4, $5, $6, \
         $7::text::jsonb, $8, $9, $10::text::jsonb) ON CONFLICT (name) DO NOTHING",
    )?;
    let mut added = Vec::new();
    // Nothing is inserted, and nobody woken, when all are there: this runs at every start.
    for spec in specs.iter().filter(|spec| !there.contains(spec.name.as_str())) {
        let seconds = |value: Option<u32>| value.map(|s| i32::try_from(s).unwrap_or(i32::MAX));
        let inserted = transaction.execute(
            &statement,
            &[
                &spec.name,
                &spec.url,
                &spec.regex,
                &seconds(spec.interval),
                &seconds(spec.timeout),
                &spec.method,
                &write_headers(&spec.headers),
                &spec.body,
                &spec.expected_status,
                &wire::settings::encode(&spec.settings).map(|object| object.to_string()),
            ],
        )?;
        if inserted == 1 {
            added.push(spec.name.clone());
        }
    }
    transaction.commit()?;
    Ok(added)
}

/// Headers as the table holds them: an array of pairs, which keeps order and repetition.
pub(super) fn write_headers(headers: &[(String, String)]) -> Option<String> {
    let pair = |(name, value): &(String, String)| serde_json::json!([name, value]);
    let pairs: Vec<serde_json::Value> = headers.iter().map(pair).collect();
    (!pairs.is_empty()).then(|| serde_json::Value::Array(pairs).to_string())
}

/// Reads an object, as people write it, or an array of pairs. What is neither becomes a header
/// without a name: then this site has a fault, and not the whole list.
fn read_headers(text: &str) -> Vec<(String, String)> {
    use serde_json::Value;
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pair = |value: &Value| match value {
        Value::Array(pair) if pair.len() == 2 => (plain(&pair[0]), plain(&pair[1])),
        other => (String::new(), plain(other)),
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => map.iter().map(|(k, v)| (k.clone(), plain(v))).collect(),
        Ok(Value::Array(pairs)) => pairs.iter().map(pair).collect(),
        _ => vec![(String::new(), text.to_owned())],
    }
}

/// Settings as the table holds them. A number that is too large for a JSON reader makes them
/// unreadable: then this site has a fault, and not the whole list.
fn read_settings(text: &str) -> Settings {
    let unreadable = serde_json::Value::Null;
    wire::settings::decode(serde_json::from_str(text).unwrap_or(unreadable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn headers_keep_order_and_repetition() {
        let written = headers(&[("B", "1"), ("A", "\"2\""), ("B", "3")]);
        assert_eq!(read_headers(&write_headers(&written).unwrap()), written);
        assert_eq!(write_headers(&[]), None);
    }

    #[test]
    fn headers_of_other_shapes_are_read_or_become_a_fault() {
        assert_eq!(read_headers(r#"{"A": "x", "B": 1}"#), headers(&[("A", "x"), ("B", "1")]));
        assert_eq!(read_headers(r#"["A"]"#), headers(&[("", "A")]));
        assert_eq!(read_headers("1"), headers(&[("", "1")]));
    }

    #[test]
    fn statuses_round_trip() {
        assert!(SiteStatus::ALL.iter().all(|s| SiteStatus::parse(s.as_str()) == Some(*s)));
        assert_eq!(SiteStatus::parse("gone"), None);
    }
}
