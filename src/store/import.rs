//! Many sites at once.

use std::collections::HashMap;

use postgres::Transaction;
use postgres::types::ToSql;

use super::errors::Failure;
use super::sites::{COLUMNS, SiteRow, SiteStatus, site_row, write_headers};
use super::websites::write;
use super::{Store, StoreError};
use crate::site::{SettingValue, SiteSpec};
use crate::wire::{self, website::Secrets};

/// What is done about sites whose name is taken by one that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportMode {
    /// Nothing is written at all, only looked at.
    DryRun,
    /// They are left as they are.
    Add,
    /// They are changed.
    Update,
}

/// A site to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportSite {
    /// What to watch, found good.
    pub spec: SiteSpec,
    /// Whether it is checked; when absent a new one is, and one that is there stays as it is.
    pub status: Option<SiteStatus>,
}

/// What became of a site to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// There was none of its name, or only a deleted one. Of a dry run it has no id.
    Added(Option<i64>),
    /// The site of this id has the name, and is the same.
    Unchanged(i64),
    /// The site of this id has the name, and differs in these keys. With [`ImportMode::Update`]
    /// it is now as it was to be.
    Differs(i64, Vec<String>),
}

impl Store {
    /// Imports sites, each with another name, in one transaction; what became of each, in their
    /// order. A thousand at once are quick, and short enough to keep nobody waiting.
    ///
    /// # Errors
    /// What the database said; then none is imported.
    pub fn import_sites(
        &self,
        sites: &[ImportSite],
        mode: ImportMode,
    ) -> Result<Vec<Imported>, StoreError> {
        let sites = sites.to_vec();
        self.inner.run("importing sites", move |client| {
            let mut transaction = client.transaction()?;
            let imported = import(&mut transaction, &sites, mode)?;
            transaction.commit()?;
            Ok(imported)
        })
    }
}

fn import(
    transaction: &mut Transaction<'_>,
    sites: &[ImportSite],
    mode: ImportMode,
) -> Result<Vec<Imported>, Failure> {
    let all: Vec<&ImportSite> = sites.iter().collect();
    let mut there = holders(transaction, &all, mode)?;
    let new: Vec<&ImportSite> =
        sites.iter().filter(|site| !there.contains_key(&site.spec.name)).collect();
    let mut added = HashMap::new();
    if mode != ImportMode::DryRun && !new.is_empty() {
        added = insert(transaction, &new)?;
        // Somebody else may have added some of them in this very moment.
        let taken: Vec<&ImportSite> =
            new.into_iter().filter(|site| !added.contains_key(&site.spec.name)).collect();
        if !taken.is_empty() {
            there.extend(holders(transaction, &taken, mode)?);
        }
    }
    let mut outcomes = Vec::with_capacity(sites.len());
    for site in sites {
        let outcome = match there.get(&site.spec.name) {
            None => Imported::Added(added.get(&site.spec.name).copied()),
            Some(row) => onto(transaction, site, row, mode)?,
        };
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// The sites that have these names, by name; locked unless nothing is to be written.
fn holders(
    transaction: &mut Transaction<'_>,
    sites: &[&ImportSite],
    mode: ImportMode,
) -> Result<HashMap<String, SiteRow>, Failure> {
    let lock = if mode == ImportMode::DryRun { "" } else { "FOR UPDATE" };
    let mut names: Vec<&str> = sites.iter().map(|site| site.spec.name.as_str()).collect();
    // All lock in one order, so that none waits for another in a circle.
    names.sort_unstable();
    // A look into the index for each: with `name = ANY`, on a table that has just grown, the
    // server compares every row with every name, which took seconds for a thousand.
    let question = format!(
        "SELECT site.* FROM unnest($1::text[]) AS wanted (name) CROSS JOIN LATERAL \
         (SELECT {COLUMNS} FROM website WHERE website.name = wanted.name LIMIT 1 {lock}) AS site"
    );
    let rows = transaction.query(&question, &[&names])?;
    rows.iter().map(|row| site_row(row).map(|row| (row.spec.name.clone(), row))).collect()
}

/// What becomes of a site whose name is in the table.
fn onto(
    transaction: &mut Transaction<'_>,
    site: &ImportSite,
    row: &SiteRow,
    mode: ImportMode,
) -> Result<Imported, Failure> {
    if row.status == SiteStatus::Deleted {
        if mode != ImportMode::DryRun {
            let status = site.status.unwrap_or(SiteStatus::Active);
            let added = ", \"timestamp\" = now()";
            write(transaction, row.website_id, &site.spec, status, added)?;
        }
        let id = (mode != ImportMode::DryRun).then_some(row.website_id);
        return Ok(Imported::Added(id));
    }
    let status = site.status.unwrap_or(row.status);
    let mut fields = differing(&site.spec, &row.spec);
    if status != row.status {
        fields.push("status".to_owned());
    }
    if fields.is_empty() {
        return Ok(Imported::Unchanged(row.website_id));
    }
    if mode == ImportMode::Update {
        write(transaction, row.website_id, &site.spec, status, "")?;
    }
    Ok(Imported::Differs(row.website_id, fields))
}

/// The keys in which two specs differ. What is empty is as what is absent: files don't tell them
/// apart.
fn differing(new: &SiteSpec, old: &SiteSpec) -> Vec<String> {
    if new == old {
        return Vec::new();
    }
    let object = |spec: &SiteSpec| {
        let mut spec = spec.clone();
        spec.regex = spec.regex.filter(|regex| !regex.is_empty());
        spec.body = spec.body.filter(|body| !body.is_empty());
        let is_empty = |value: &SettingValue| match value {
            SettingValue::Text(text) => text.is_empty(),
            SettingValue::Map(map) => map.is_empty(),
            _ => false,
        };
        let empty = spec.settings.iter().filter(|(_, value)| is_empty(value));
        for name in empty.map(|(name, _)| name).collect::<Vec<_>>() {
            spec.settings.unset(name);
        }
        let mut object = wire::website::encode(&spec, Secrets::Shown);
        // An object has no order when it is compared; headers have one.
        object.insert("headers".to_owned(), write_headers(&spec.headers).into());
        object
    };
    let (new, old) = (object(new), object(old));
    wire::website::keys().filter(|key| new.get(*key) != old.get(*key)).map(str::to_owned).collect()
}

/// Adds sites in one statement; the ids of those that were added, by name.
fn insert(
    transaction: &mut Transaction<'_>,
    sites: &[&ImportSite],
) -> Result<HashMap<String, i64>, Failure> {
    let seconds = |value: Option<u32>| value.map(|s| i32::try_from(s).unwrap_or(i32::MAX));
    let specs = || sites.iter().map(|site| &site.spec);
    let settings = |spec: &SiteSpec| wire::settings::encode(&spec.settings);
    let names: Vec<&str> = specs().map(|spec| spec.name.as_str()).collect();
    let urls: Vec<&str> = specs().map(|spec| spec.url.as_str()).collect();
    let regexes: Vec<Option<&str>> = specs().map(|spec| spec.regex.as_deref()).collect();
    let intervals: Vec<Option<i32>> = specs().map(|spec| seconds(spec.interval)).collect();
    let timeouts: Vec<Option<i32>> = specs().map(|spec| seconds(spec.timeout)).collect();
    let methods: Vec<Option<&str>> = specs().map(|spec| spec.method.as_deref()).collect();
    let headers: Vec<Option<String>> = specs().map(|spec| write_headers(&spec.headers)).collect();
    let bodies: Vec<Option<&str>> = specs().map(|spec| spec.body.as_deref()).collect();
    let codes: Vec<Option<&str>> = specs().map(|spec| spec.expected_status.as_deref()).collect();
    let settings: Vec<Option<String>> =
        specs().map(|spec| settings(spec).map(|object| object.to_string())).collect();
    let statuses: Vec<&str> =
        sites.iter().map(|site| site.status.unwrap_or(SiteStatus::Active).as_str()).collect();
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &names, &urls, &regexes, &intervals, &timeouts, &methods, &headers, &bodies, &codes,
        &settings, &statuses,
    ];
    let rows = transaction.query(
        "INSERT INTO website (name, url, regex, interval_seconds, timeout_seconds, method, \
         headers, body, expected_status, settings, status) \
         SELECT name, url, regex, interval, timeout, method, headers::jsonb, body, codes, \
         settings::jsonb, status FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], \
         $5::int[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[]) \
         AS site (name, url, regex, interval, timeout, method, headers, body, codes, settings, \
         status) ON CONFLICT (name) DO NOTHING RETURNING name, website_id",
        &parameters,
    )?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
