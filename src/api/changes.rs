//! Sites, changed.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::body::{JSON, MERGE_PATCH, object};
use super::refusal::{Answer, Refusal};
use super::service::Call;
use super::websites::{answer, is_stale, row_of, unknown};
use super::{Problem, Response, addresses, input};
use crate::store::{
    Change, Changed, Created, IdempotencyKey, KeptAnswer, Once, SiteRow, SiteStatus,
};

/// Longest Idempotency-Key, in characters.
const KEY_MAX: usize = 255;
/// Tries of a change that others are in the way of, where no `If-Match` says to give up. Each time
/// one of them gets through, and no more come at once than the server has threads: five times as
/// many as those are by default.
const TRIES: u32 = 40;
/// Most sites of one URL that a refusal lists.
const LISTED_MAX: u32 = 20;

/// `POST /websites`.
pub(super) fn create(call: &Call<'_>) -> Answer {
    let body = object(call.request, &[JSON])?;
    let key = key(call)?;
    let wanted = input::whole(call, body, None, &[])?;
    let spec = addresses::keep_public(call, wanted.spec, None)?;
    let status = wanted.status.unwrap_or(SiteStatus::Active);
    let created = match key {
        None => call.store().create_site(&spec, status)?,
        Some(key) => match call.store().create_site_once(&key, &spec, status, kept)? {
            Once::Done(created) => created,
            Once::Before(answer) => return Ok(replayed(answer)),
            Once::OtherRequest => {
                let message = "belongs to another request; take a new key for each";
                return Err(Refusal::of_field("Idempotency-Key", message));
            }
            Once::UnderWay => {
                let detail = "the first request with this Idempotency-Key is under way";
                return Err(Refusal::from(Problem::new(409, detail)).with("Retry-After", "1"));
            }
        },
    };
    match created {
        Created::Done(row) => Ok(added(&row)),
        Created::NameTaken(holder) => Err(name_taken(holder)),
    }
}

fn added(row: &SiteRow) -> Response {
    answer(201, row).with("Location", format!("/websites/{}", row.website_id))
}

fn name_taken(holder: i64) -> Refusal {
    Problem::new(409, format!("the site {holder} has this name")).into()
}

/// What makes this request one that may be sent again.
fn key(call: &Call<'_>) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(key) = call.request.header("idempotency-key") else { return Ok(None) };
    if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        let message = format!("must have 1 to {KEY_MAX} characters of ASCII");
        return Err(Refusal::of_field("Idempotency-Key", message));
    }
    let request = Sha256::new()
        .chain_update(call.request.method.as_str())
        .chain_update(&call.request.path)
        .chain_update([0])
        .chain_update(&call.request.body)
        .finalize();
    Ok(Some(IdempotencyKey {
        client: call.request.caller.name.clone(),
        key: key.to_owned(),
        request: request.to_vec(),
    }))
}

/// Headers that are kept with an answer.
const KEPT_HEADERS: [&str; 3] = ["Content-Type", "ETag", "Location"];

fn kept(created: &Created) -> Option<KeptAnswer> {
    let Created::Done(row) = created else { return None };
    let Response { status, headers, body } = added(row);
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
    Some(KeptAnswer { status, headers: headers.collect(), body })
}

fn replayed(answer: KeptAnswer) -> Response {
    let response = Response { status: answer.status, headers: Vec::new(), body: answer.body };
    let headers = KEPT_HEADERS
        .into_iter()
        .filter_map(|name| Some((name, answer.headers.get(name)?.as_str()?)));
    headers
        .fold(response, |response, (name, value)| response.with(name, value))
        .with("Idempotency-Replayed", "true")
}

/// `PUT /websites/{website_id}`.
pub(super) fn replace(call: &Call<'_>) -> Answer {
    let body = object(call.request, &[JSON])?;
    change(call, || row_of(call), |row| replacement(call, body.clone(), row))
}

/// `PATCH /websites/{website_id}`.
pub(super) fn patch(call: &Call<'_>) -> Answer {
    let body = object(call.request, &[MERGE_PATCH, JSON])?;
    change(
        call,
        || row_of(call),
        |row| {
            let wanted = input::part(call, body.clone(), row)?;
            let spec = addresses::keep_public(call, wanted.spec, Some(&row.spec))?;
            Ok(Change { spec: Some(spec), status: wanted.status })
        },
    )
}

/// `PUT /websites`.
pub(super) fn replace_of_body(call: &Call<'_>) -> Answer {
    let body = object(call.request, &[JSON])?;
    change(call, || named(call, &body), |row| replacement(call, body.clone(), row))
}

/// `DELETE /websites/{website_id}`.
pub(super) fn delete(call: &Call<'_>) -> Answer {
    set_status(call, SiteStatus::Deleted).map(|_| Response::empty(204))
}

/// `POST /websites/{website_id}/pause`.
pub(super) fn pause(call: &Call<'_>) -> Answer {
    set_status(call, SiteStatus::Paused)
}

/// `POST /websites/{website_id}/resume`.
pub(super) fn resume(call: &Call<'_>) -> Answer {
    set_status(call, SiteStatus::Active)
}

fn set_status(call: &Call<'_>, status: SiteStatus) -> Answer {
    change(call, || row_of(call), |_| Ok(Change { spec: None, status: Some(status) }))
}

fn replacement(
    call: &Call<'_>,
    body: Map<String, Value>,
    row: &SiteRow,
) -> Result<Change, Refusal> {
    let wanted = input::whole(call, body, Some(row), &input::READ_ONLY)?;
    let spec = addresses::keep_public(call, wanted.spec, Some(&row.spec))?;
    // The whole is replaced: what is not said is as in a site that is added.
    Ok(Change { spec: Some(spec), status: Some(wanted.status.unwrap_or(SiteStatus::Active)) })
}

/// The site that a body names.
fn named(call: &Call<'_>, body: &Map<String, Value>) -> Result<SiteRow, Refusal> {
    let store = call.store();
    let gone = |what: String| Refusal::from(Problem::new(404, what));
    let there = |row: Option<SiteRow>| row.filter(|row| row.status != SiteStatus::Deleted);
    if let Some(id) = body.get("website_id").filter(|id| !id.is_null()) {
        let Some(id) = id.as_i64().filter(|id| *id > 0) else {
            return Err(Refusal::of_field("website_id", "must be a positive whole number"));
        };
        return there(store.site(id)?).ok_or_else(|| gone(format!("no site has the id {id}")));
    }
    let text = |key: &str| body.get(key).and_then(Value::as_str).filter(|t| !t.contains('\0'));
    if let Some(name) = text("name")
        && let Some(row) = there(store.site_named(name)?)
    {
        return Ok(row);
    }
    let Some(url) = text("url") else {
        return Err(gone("no site has this name, and there is no url to look for".to_owned()));
    };
    let mut found = store.sites_at(&addresses::spellings(url), LISTED_MAX)?;
    match found.len() {
        0 => Err(gone("no site has this name or this url".to_owned())),
        1 => Ok(found.remove(0)),
        _ => {
            let ids: Vec<String> = found.iter().map(|row| row.website_id.to_string()).collect();
            let detail = format!(
                "several sites have this url: {}; say which by website_id or name",
                ids.join(", ")
            );
            Err(Problem::new(409, detail).into())
        }
    }
}

/// Reads the site, makes a change of it and applies it, if nobody else has changed it meanwhile.
fn change(
    call: &Call<'_>,
    read: impl Fn() -> Result<SiteRow, Refusal>,
    make: impl Fn(&SiteRow) -> Result<Change, Refusal>,
) -> Answer {
    for _ in 0..TRIES {
        let row = read()?;
        if is_stale(call.request, &row) {
            return Err(stale(row.revision));
        }
        let change = make(&row)?;
        // A status depends on nothing that was read, unless a tag says so.
        let tag = call.request.header("if-match").filter(|tag| tag.trim() != "*");
        let is_free = change.spec.is_none() && tag.is_none();
        let revision = (!is_free).then_some(row.revision);
        match call.store().change_site(row.website_id, revision, &change)? {
            Changed::Done(row) => return Ok(answer(200, &row)),
            Changed::NotFound => return Err(unknown(call)),
            Changed::NameTaken(holder) => return Err(name_taken(holder)),
            // The next look finds that the tag is stale, or makes the change of what is there now.
            Changed::Stale(_) => {}
        }
    }
    let detail = "others keep changing this site; try again";
    Err(Refusal::from(Problem::new(409, detail)).with("Retry-After", "1"))
}

fn stale(revision: i64) -> Refusal {
    let detail = "somebody has changed the site since; read it again";
    Refusal::from(Problem::new(412, detail)).with("ETag", format!("\"{revision}\""))
}
