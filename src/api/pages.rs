//! Pages of lists, bounded in rows and in bytes.

use serde_json::Value;

use super::Response;
use super::refusal::Answer;
use super::service::Call;
use crate::store::StoreError;

/// Longest page in bytes, unless its first item alone is longer. 500 sites whose bodies are all of
/// the longest would be 32 MB, for each client that asks; 500 usual ones are 200 KB.
const BYTES_MAX: usize = 4 << 20;
/// Rows that are read at first, then twice as many each time: those that a page has no room for
/// should not fill the memory either. The usual page comes at once.
const ROWS_FIRST: u32 = 64;

/// A page of as many rows as the request wants and there is room for, and where the next one is.
/// `read` gives at most so many rows behind that one.
pub(super) fn page<R>(
    call: &Call<'_>,
    mut read: impl FnMut(Option<&R>, u32) -> Result<Vec<R>, StoreError>,
    item: impl Fn(&R) -> Value,
    cursor: impl Fn(&R) -> String,
) -> Answer {
    let mut body = String::from("{\"items\":[");
    let (mut left, mut piece) = (call.query.limit(), ROWS_FIRST);
    let (mut last, mut has_more) = (None, true);
    'pieces: while left > 0 && has_more {
        let wanted = piece.min(left);
        // One more tells whether there is a next page.
        let rows = read(last.as_ref(), wanted + 1)?;
        has_more = rows.len() > wanted as usize;
        for row in rows.into_iter().take(wanted as usize) {
            let text = item(&row).to_string();
            if last.is_some() {
                if body.len() + text.len() > BYTES_MAX {
                    has_more = true;
                    break 'pieces;
                }
                body.push(',');
            }
            body.push_str(&text);
            last = Some(row);
            left -= 1;
        }
        piece = piece.saturating_mul(2);
    }
    let next = last.filter(|_| has_more).map(|last| cursor(&last));
    body.push_str("],\"next\":");
    body.push_str(&Value::from(next.as_deref()).to_string());
    body.push('}');
    let response = Response::new(200, super::body::JSON, body);
    Ok(match next {
        None => response,
        Some(next) => {
            let target = call.query.with_cursor(&call.request.path, &next);
            response.with("Link", format!("<{target}>; rel=\"next\""))
        }
    })
}
