//! Sites, read.

use serde_json::{Map, Value, json};

use super::refusal::{Answer, Refusal};
use super::service::Call;
use super::{Problem, Request, Response, cursor, query};
use crate::store::{SiteFilter, SiteRow, SiteStatus};
use crate::wire::time_text;
use crate::wire::website::{Secrets, encode};

/// `GET /websites` and `GET /website`.
pub(super) fn list(call: &Call<'_>) -> Answer {
    let limit = call.query.limit();
    let status = call.query.text("status").and_then(SiteStatus::parse);
    let filter = SiteFilter {
        keyword: call.query.text("keyword").unwrap_or_default().to_owned(),
        statuses: status.into_iter().collect(),
        after: call.query.text("cursor").and_then(cursor::site).unwrap_or_default(),
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let mut rows = call.store().find_sites(&filter)?;
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| has_more).map(|row| cursor::after_site(row.website_id));
    let items: Vec<Value> = rows.iter().map(object).map(Value::Object).collect();
    Ok(page(call, &items, next))
}

/// A page of a list, and where the next one is.
pub(super) fn page(call: &Call<'_>, items: &[Value], next: Option<String>) -> Response {
    let response = Response::json(200, &json!({ "items": items, "next": next }));
    match next {
        None => response,
        Some(next) => {
            let target = call.query.with_cursor(&call.request.path, &next);
            response.with("Link", format!("<{target}>; rel=\"next\""))
        }
    }
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
