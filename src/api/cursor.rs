//! Where a page ended, as a text that means nothing to clients.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use uuid::Uuid;

use super::query::id;

/// After the site with this id.
pub(super) fn after_site(website_id: i64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(website_id.to_string())
}

pub(super) fn site(cursor: &str) -> Option<i64> {
    id(&text(cursor)?)
}

/// Before the check that was due at this time and has this id.
pub(super) fn before_check(time: Timestamp, id: Uuid) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{} {id}", time.as_microsecond()))
}

pub(super) fn check(cursor: &str) -> Option<(Timestamp, Uuid)> {
    let text = text(cursor)?;
    let (time, id) = text.split_once(' ')?;
    Some((Timestamp::from_microsecond(time.parse().ok()?).ok()?, id.parse().ok()?))
}

fn text(cursor: &str) -> Option<String> {
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_nothing_else_does() {
        assert_eq!(site(&after_site(7)), Some(7));
        let (time, id) = (Timestamp::from_microsecond(1_767_225_600_000_001).unwrap(), Uuid::max());
        assert_eq!(check(&before_check(time, id)), Some((time, id)));
        for bad in ["", "7", "!", "LTE", &before_check(time, id)] {
            assert_eq!(site(bad), None, "{bad}");
        }
        assert_eq!(check(&after_site(7)), None);
    }
}
