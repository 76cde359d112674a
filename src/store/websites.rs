//! The table `website` as operators and programs ask for it and change it.
//!
//! A change is one transaction. A site that is deleted keeps its row, and its name: who adds a site
//! of that name gets the same row again, with the history of before. Who gives another site its name
//! takes the name from it: the deleted one is renamed.

use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Row, Transaction};

use super::errors::Failure;
use super::sites::{COLUMNS, SiteRow, SiteStatus, site_row, write_headers};
use super::{Store, StoreError};
use crate::site::{NAME_MAX, SiteSpec};
use crate::wire;

/// Which sites are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFilter {
    /// In the name or the URL, whatever its case, but not in the URL's user and password; empty:
    /// any.
    pub keyword: String,
    /// Those with one of these; empty: all but the deleted ones.
    pub statuses: Vec<SiteStatus>,
    /// Those with a higher id: where the page before ended, 0 for the first.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// What became of a site to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    Done(Box<SiteRow>),
    /// The site of this id has the name.
    NameTaken(i64),
}

/// What is to change in a site; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What to watch, in full.
    pub spec: Option<SiteSpec>,
    /// Whether it is checked.
    pub status: Option<SiteStatus>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The site as it is now. A change to what already is counts as none: the revision stays.
    Done(Box<SiteRow>),
    /// No site has this id, or it is deleted.
    NotFound,
    /// Somebody changed it after it was read; its revision now.
    Stale(i64),
    /// The site of this id has the name.
    NameTaken(i64),
}

impl Store {
    /// A page of the sites that `filter` lets through, by id.
    ///
    /// # Errors
    /// What the database said.
    pub fn find_sites(&self, filter: &SiteFilter) -> Result<Vec<SiteRow>, StoreError> {
        let filter = filter.clone();
        self.inner.run("reading sites", move |client| {
            let statuses = match filter.statuses.as_slice() {
                [] => vec![SiteStatus::Active, SiteStatus::Paused],
                some => some.to_vec(),
            };
            let statuses: Vec<&str> = statuses.into_iter().map(SiteStatus::as_str).collect();
            let (pattern, limit) = (like(&filter.keyword), i64::from(filter.limit));
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&statuses, &filter.after, &limit];
            let keyword = if filter.keyword.is_empty() {
                ""
            } else {
                parameters.push(&pattern);
                "AND (name ILIKE $4 OR website_public_url(url) ILIKE $4)"
            };
            let question = format!(
                "SELECT {COLUMNS} FROM website WHERE status = ANY($1) AND website_id > $2 \
                 {keyword} ORDER BY website_id LIMIT $3"
            );
            client.query(&question, &parameters)?.iter().map(site_row).collect()
        })
    }

    /// The site with this id, deleted or not.
    ///
    /// # Errors
    /// What the database said.
    pub fn site(&self, website_id: i64) -> Result<Option<SiteRow>, StoreError> {
        self.inner.run("reading a site", move |client| {
            one(client.query_opt(&by("website_id"), &[&website_id])?.as_ref())
        })
    }

    /// The site with this name, deleted or not.
    ///
    /// # Errors
    /// What the database said.
    pub fn site_named(&self, name: &str) -> Result<Option<SiteRow>, StoreError> {
        let name = name.to_owned();
        self.inner.run("reading a site", move |client| {
            one(client.query_opt(&by("name"), &[&name])?.as_ref())
        })
    }

    /// The sites with one of these URLs, as they stand in the table but for user and password, that
    /// are not deleted, by id; at most `limit`.
    ///
    /// # Errors
    /// What the database said.
    pub fn sites_at(&self, urls: &[String], limit: u32) -> Result<Vec<SiteRow>, StoreError> {
        let urls = urls.to_vec();
        self.inner.run("reading sites", move |client| {
            let question = format!(
                "SELECT {COLUMNS} FROM website WHERE website_public_url(url) = ANY(ARRAY(SELECT \
                 website_public_url(wanted) FROM unnest($1::text[]) AS wanted)) \
                 AND status <> 'deleted' ORDER BY website_id LIMIT $2"
            );
            client.query(&question, &[&urls, &i64::from(limit)])?.iter().map(site_row).collect()
        })
    }

    /// Adds a site, active or paused. A deleted one of that name comes back with its id.
    ///
    /// # Errors
    /// What the database said.
    pub fn create_site(&self, spec: &SiteSpec, status: SiteStatus) -> Result<Created, StoreError> {
        let spec = spec.clone();
        self.inner.run("adding a site", move |client| {
            let mut transaction = client.transaction()?;
            let created = create(&mut transaction, &spec, status)?;
            transaction.commit()?;
            Ok(created)
        })
    }

    /// Changes a site; with `revision` only if that is still the one it has.
    ///
    /// # Errors
    /// What the database said.
    pub fn change_site(
        &self,
        website_id: i64,
        revision: Option<i64>,
        change: &Change,
    ) -> Result<Changed, StoreError> {
        let change = change.clone();
        self.inner.run("changing a site", move |client| {
            let result = change_in(client, website_id, revision, &change);
            match result {
                // Checked before, but another's transaction may have come between.
                Err(failure) if failure.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                    let name = change.spec.as_ref().map_or("", |spec| spec.name.as_str());
                    let holder = client.query_opt(&by("name"), &[&name])?;
                    holder.map_or(Err(failure), |row| Ok(Changed::NameTaken(row.try_get(0)?)))
                }
                other => other,
            }
        })
    }
}

fn change_in(
    client: &mut Client,
    website_id: i64,
    revision: Option<i64>,
    change: &Change,
) -> Result<Changed, Failure> {
    let mut transaction = client.transaction()?;
    let question = format!("{} AND status <> 'deleted' FOR UPDATE", by("website_id"));
    let Some(row) = one(transaction.query_opt(&question, &[&website_id])?.as_ref())? else {
        return Ok(Changed::NotFound);
    };
    if revision.is_some_and(|revision| revision != row.revision) {
        return Ok(Changed::Stale(row.revision));
    }
    let spec = change.spec.as_ref().unwrap_or(&row.spec);
    let status = change.status.unwrap_or(row.status);
    // Nobody is woken for what changes nothing.
    if *spec == row.spec && status == row.status {
        return Ok(Changed::Done(Box::new(row)));
    }
    if spec.name != row.spec.name
        && let Some(holder) = holder_of(&mut transaction, &spec.name)?
    {
        if holder.status != SiteStatus::Deleted {
            return Ok(Changed::NameTaken(holder.website_id));
        }
        let name = name_of_deleted(&holder);
        transaction.execute(
            "UPDATE website SET name = $1 WHERE website_id = $2",
            &[&name, &holder.website_id],
        )?;
    }
    let row = write(&mut transaction, website_id, spec, status, "")?;
    transaction.commit()?;
    Ok(Changed::Done(Box::new(row)))
}

/// The site with this name, deleted or not, locked.
fn holder_of(transaction: &mut Transaction<'_>, name: &str) -> Result<Option<SiteRow>, Failure> {
    let question = format!("{} FOR UPDATE", by("name"));
    one(transaction.query_opt(&question, &[&name])?.as_ref())
}

/// Another name for a deleted site: its own with the id, cut to what a name may have.
fn name_of_deleted(row: &SiteRow) -> String {
    let end = format!(" (deleted {})", row.website_id);
    let most = row.spec.name.floor_char_boundary(NAME_MAX.saturating_sub(end.len()));
    format!("{}{end}", &row.spec.name[..most])
}

/// Adds a site, or has a deleted one of that name back.
pub(super) fn create(
    transaction: &mut Transaction<'_>,
    spec: &SiteSpec,
    status: SiteStatus,
) -> Result<Created, Failure> {
    let fields = Fields::of(spec, status);
    let question = format!(
        "INSERT INTO website (name, url, regex, interval_seconds, timeout_seconds, method, \
         headers, body, expected_status, settings, status) VALUES ($1, $2, $3, $4, $5, $6, \
         $7::text::jsonb, $8, $9, $10::text::jsonb, $11) ON CONFLICT (name) DO NOTHING \
         RETURNING {COLUMNS}"
    );
    if let Some(row) = transaction.query_opt(&question, &fields.parameters())? {
        return Ok(Created::Done(Box::new(site_row(&row)?)));
    }
    match holder_of(transaction, &spec.name)? {
        Some(row) if row.status == SiteStatus::Deleted => {
            let added = ", \"timestamp\" = now()";
            let row = write(transaction, row.website_id, spec, status, added)?;
            Ok(Created::Done(Box::new(row)))
        }
        Some(row) => Ok(Created::NameTaken(row.website_id)),
        // Removed by hand in this very moment: the id is of nobody.
        None => Ok(Created::NameTaken(0)),
    }
}

/// Writes all fields of a row that is locked.
pub(super) fn write(
    transaction: &mut Transaction<'_>,
    website_id: i64,
    spec: &SiteSpec,
    status: SiteStatus,
    more: &str,
) -> Result<SiteRow, Failure> {
    let fields = Fields::of(spec, status);
    let question = format!(
        "UPDATE website SET name = $1, url = $2, regex = $3, interval_seconds = $4, \
         timeout_seconds = $5, method = $6, headers = $7::text::jsonb, body = $8, \
         expected_status = $9, settings = $10::text::jsonb, status = $11{more} \
         WHERE website_id = $12 RETURNING {COLUMNS}"
    );
    let mut parameters = fields.parameters();
    parameters.push(&website_id);
    site_row(&transaction.query_one(&question, &parameters)?)
}

/// A spec as the columns hold it.
struct Fields<'a> {
    spec: &'a SiteSpec,
    interval: Option<i32>,
    timeout: Option<i32>,
    headers: Option<String>,
    settings: Option<String>,
    status: &'static str,
}

impl<'a> Fields<'a> {
    fn of(spec: &'a SiteSpec, status: SiteStatus) -> Self {
        let seconds = |value: Option<u32>| value.map(|s| i32::try_from(s).unwrap_or(i32::MAX));
        Self {
            spec,
            interval: seconds(spec.interval),
            timeout: seconds(spec.timeout),
            headers: write_headers(&spec.headers),
            settings: wire::settings::encode(&spec.settings).map(|object| object.to_string()),
            status: status.as_str(),
        }
    }

    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.spec.name,
            &self.spec.url,
            &self.spec.regex,
            &self.interval,
            &self.timeout,
            &self.spec.method,
            &self.headers,
            &self.spec.body,
            &self.spec.expected_status,
            &self.settings,
            &self.status,
        ]
    }
}

fn by(column: &str) -> String {
    format!("SELECT {COLUMNS} FROM website WHERE {column} = $1")
}

fn one(row: Option<&Row>) -> Result<Option<SiteRow>, Failure> {
    row.map(site_row).transpose()
}

/// The pattern of LIKE for `keyword` anywhere.
fn like(keyword: &str) -> String {
    let mut pattern = String::with_capacity(keyword.len() + 2);
    pattern.push('%');
    for c in keyword.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyword_is_taken_as_it_is() {
        assert_eq!(like(r"50%_a\b"), r"%50\%\_a\\b%");
    }
}
