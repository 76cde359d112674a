//! Checks, read.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::pages::page;
use super::refusal::{Answer, Refusal};
use super::service::Call;
use super::{Problem, Response, addresses, cursor};
use crate::check::Phases;
use crate::runtime::wall;
use crate::store::{SiteRow, StoredCheck};
use crate::wire::masks::public_url;
use crate::wire::time_text;
use crate::wire::website::{Secrets, encode};

/// Most sites of one URL whose checks are merged.
const SITES_MAX: u32 = 100;

/// `GET /monitoring`.
pub(super) fn list(call: &Call<'_>) -> Answer {
    let sites = sites(call)?;
    let (from, to) = (call.query.time("from"), call.query.time("to"));
    // Checks that are due a moment from now belong to now.
    let to = to.unwrap_or(Timestamp::MAX);
    let from = from.unwrap_or(Timestamp::UNIX_EPOCH);
    if from >= to {
        return Err(Refusal::of_field("to", "must be after from"));
    }
    let begin = call.query.text("cursor").and_then(cursor::check);
    let ids: Vec<i64> = sites.iter().map(|site| site.website_id).collect();
    let by_id: HashMap<i64, &SiteRow> = sites.iter().map(|site| (site.website_id, site)).collect();
    let read = |last: Option<&StoredCheck>, limit| {
        let before = last.map(|check| (check.timestamp, check.check_entry_id)).or(begin);
        call.store().checks_of_sites(&ids, from, to, limit, before)
    };
    let item = |check: &StoredCheck| object(check, by_id.get(&check.website_id).copied());
    page(call, read, item, |check| cursor::before_check(check.timestamp, check.check_entry_id))
}

/// The sites that are asked for; at least one.
fn sites(call: &Call<'_>) -> Result<Vec<SiteRow>, Refusal> {
    let (url, id) = (call.query.text("url"), call.query.id("website_id"));
    let found = match (url, id) {
        (None, None) => return Err(Refusal::of_field("url", "is missing: give url or website_id")),
        (url, Some(id)) => {
            let at = url.map(addresses::spellings);
            let is_there = |row: &SiteRow| {
                at.as_ref().is_none_or(|at| at.contains(&public_url(&row.spec.url)))
            };
            call.store().site(id)?.into_iter().filter(is_there).collect()
        }
        (Some(url), None) => call.store().sites_at(&addresses::spellings(url), SITES_MAX + 1)?,
    };
    match found.len() {
        0 => Err(Problem::new(404, "no site has this url or website_id").into()),
        count if count > SITES_MAX as usize => {
            let message = format!("more than {SITES_MAX} sites have it: ask by website_id");
            Err(Refusal::of_field("url", message))
        }
        _ => Ok(found),
    }
}

/// `GET /checks/{check_entry_id}`.
pub(super) fn show(call: &Call<'_>) -> Answer {
    let unknown = || Refusal::from(Problem::new(404, "no check has this id"));
    let part = call.part("check_entry_id");
    // Of the spellings of an id only the usual one.
    let id = Uuid::try_parse(part).ok().filter(|_| part.len() == 36).ok_or_else(unknown)?;
    let check = call.store().find_check(id)?.ok_or_else(unknown)?;
    let site = call.store().site(check.website_id)?;
    Ok(Response::json(200, &object(&check, site.as_ref())))
}

/// A check with the names of its columns, and the site's own.
pub(crate) fn object(check: &StoredCheck, site: Option<&SiteRow>) -> Value {
    let time = |time: Option<Timestamp>| time.map(time_text);
    let masked = site.map(|site| encode(&site.spec, Secrets::Masked));
    let of_site = |key: &str| masked.as_ref().and_then(|site| site.get(key).cloned());
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
    put("check_entry_id", check.check_entry_id.to_string().into());
    put("website_id", check.website_id.into());
    put("name", of_site("name").into());
    put("url", of_site("url").into());
    put("timestamp", time_text(check.timestamp).into());
    put("started_at", time(check.started_at).into());
    put("certificate_expires_at", time(check.certificate_expires_at).into());
    put("response_time", check.response_time.into());
    for (name, value) in phases(&check.phases) {
        put(name, value.into());
    }
    put("http_status", check.http_status.into());
    put("body_bytes", check.body_bytes.into());
    put("redirects", check.redirects.into());
    put("outcome", check.outcome.as_str().into());
    put("failure_kind", check.failure_kind.as_deref().into());
    put("region", check.region.as_str().into());
    put("regex_match", check.regex_match.into());
    put("regex", check.regex.as_deref().into());
    put("failure_detail", check.failure_detail.as_deref().into());
    put("regex_captures", check.regex_captures.clone().into());
    put("tries", check.tries.into());
    let last_hop = check.last_hop.as_ref().map(|last_hop| {
        let pairs = phases(last_hop).into_iter();
        pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>()
    });
    put("last_hop", json!(last_hop));
    put("unreachable_self", check.unreachable_self.into());
    Value::Object(object)
}

/// The phases by name, in their order.
fn phases(phases: &Phases) -> [(&'static str, Option<f64>); 5] {
    [
        ("resolve", phases.resolve),
        ("connect", phases.connect),
        ("tls", phases.tls),
        ("processing", phases.processing),
        ("transfer", phases.transfer),
    ]
}

/// Now, where no end is asked for.
pub(super) fn end(call: &Call<'_>) -> Timestamp {
    call.query.time("to").unwrap_or_else(wall)
}
