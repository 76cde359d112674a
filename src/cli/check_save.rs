//! Results of `check` into the table.

use std::borrow::Cow;

use jiff::SignedDuration;

use super::exit::Exit;
use crate::check::{Check, Identity};
use crate::store::Store;

/// How far the due time may move to find an id that nobody has, in ms: a producer, and others who
/// check by hand, may have had the same millisecond.
const MOVES_MAX: usize = 1000;

/// Stores `check` as a row of its own. Its due time moves by a millisecond as long as there is a
/// row of this one.
pub(super) fn save(store: &Store, mut check: Check<'static>) -> Result<Check<'static>, Exit> {
    for _ in 0..MOVES_MAX {
        let saved =
            store.insert_checks(std::slice::from_ref(&check)).map_err(|e| Exit::of_store(&e))?;
        if let Some((_, reason)) = saved.refused.first() {
            return Err(Exit::Failed(format!(
                "webmon check: the result can't be stored: {reason}"
            )));
        }
        if saved.inserted > 0 {
            return Ok(check);
        }
        move_on(&mut check);
    }
    Err(Exit::Failed("webmon check: no due time is free to store the result with".to_owned()))
}

fn move_on(check: &mut Check<'static>) {
    let later = check.scheduled_at.saturating_add(SignedDuration::from_millis(1));
    check.scheduled_at = later.unwrap_or(check.scheduled_at);
    let region: &Cow<'static, str> = &check.region;
    let identity = Identity::new(check.website_id, region);
    check.check_entry_id = identity.check_entry_id(check.scheduled_at);
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_moved_check_has_the_id_of_its_new_due_time() {
        let (identity, at) = (Identity::new(7, "r"), Timestamp::UNIX_EPOCH);
        let mut check = Check::empty(&identity, 7, "http://a/".into(), "r".into(), at);
        move_on(&mut check);
        assert_eq!(check.scheduled_at.as_millisecond(), 1);
        assert_eq!(check.check_entry_id, identity.check_entry_id(check.scheduled_at));
    }
}
