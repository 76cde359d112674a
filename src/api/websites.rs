//! Sites, read.

use serde_json::{Map, Value};

use super::pages::page;
use super::refusal::{Answer, Refusal};
use super::service::Call;
use super::{Problem, Request, Response, cursor, query};
use crate::store::{SiteFilter, SiteRow, SiteStatus};
use crate::wire::time_text;
use crate::wire::website::{Secrets, encode};

/// `GET /websites` and `GET /website`.
pub(super) fn list(call: &Call<'_>) -> Answer {
    let status = call.query.text("status").and_then(SiteStatus::parse);
    let begin = call.query.text("cursor").and_then(cursor::site).unwrap_or_default();
    let read = |last: Option<&SiteRow>, limit| {
        call.store().find_sites(&SiteFilter {
            keyword: call.query.text("keyword").unwrap_or_default().to_owned(),
            statuses: status.into_iter().collect(),
            after: last.map_or(begin, |row| row.website_id),
            limit,
        })
    };
    let item = |row: &SiteRow| Value::Object(object(row));
    page(call, read, item, |row| cursor::after_site(row.website_id))
}

/// `GET /websites/{website_id}`.
pub(super) fn show(call: &Call<'_>) -> Answer {
    let row = row_of(call)?;
    let tag = etag(&row);
    if call.request.header("if-none-match").is_some_and(|tags| has_tag(tags, &tag, true)) {
        return Ok(Response::empty(304).with("ETag", tag));
    }
    Ok(answer(200, &row))
}

/// The site that the path names, if it is there and not deleted.
pub(super) fn row_of(call: &Call<'_>) -> Result<SiteRow, Refusal> {
    let row = row_or_deleted(call)?;
    if row.status == SiteStatus::Deleted { Err(unknown(call)) } else { Ok(row) }
}

/// The site that the path names, deleted or not.
pub(super) fn row_or_deleted(call: &Call<'_>) -> Result<SiteRow, Refusal> {
    let id = query::id(call.part("website_id")).ok_or_else(|| unknown(call))?;
    call.store().site(id)?.ok_or_else(|| unknown(call))
}

pub(super) fn unknown(call: &Call<'_>) -> Refusal {
    let shown: String = call.part("website_id").chars().take(20).collect();
    Problem::new(404, format!("no site has the id {shown}")).into()
}

/// A site as an answer.
pub(super) fn answer(status: u16, row: &SiteRow) -> Response {
    Response::json(status, &Value::Object(object(row))).with("ETag", etag(row))
}

/// A site as JSON, without its secrets.
pub(crate) fn object(row: &SiteRow) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("website_id".to_owned(), row.website_id.into());
    object.append(&mut encode(&row.spec, Secrets::Masked));
    object.insert("status".to_owned(), row.status.as_str().into());
    object.insert("timestamp".to_owned(), time_text(row.timestamp).into());
    object.insert("updated_at".to_owned(), time_text(row.updated_at).into());
    object
}

pub(super) fn etag(row: &SiteRow) -> String {
    format!("\"{}\"", row.revision)
}

/// Whether `If-Match` is there and names none of what the site is now.
pub(super) fn is_stale(request: &Request, row: &SiteRow) -> bool {
    request.header("if-match").is_some_and(|tags| !has_tag(tags, &etag(row), false))
}

/// Whether a list of entity tags has `tag`; `weak`: one that is marked as weak will do.
fn has_tag(tags: &str, tag: &str, weak: bool) -> bool {
    tags.split(',').map(str::trim).any(|sent| {
        let sent = if weak { sent.strip_prefix("W/").unwrap_or(sent) } else { sent };
        sent == "*" || sent == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_a_whole() {
        for (tags, strong, weak) in [
            ("\"7\"", true, true),
            ("*", true, true),
            ("W/\"7\"", false, true),
            ("\"6\", \"7\"", true, true),
            ("\"77\"", false, false),
            ("7", false, false),
            ("", false, false),
        ] {
            assert_eq!(has_tag(tags, "\"7\"", false), strong, "{tags}");
            assert_eq!(has_tag(tags, "\"7\"", true), weak, "{tags}");
        }
    }
}
