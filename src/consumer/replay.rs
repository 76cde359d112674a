//! Rejected messages once more: on the same way into the table as when they came.

use super::ingest::UNREADABLE;
use crate::check::Check;
use crate::store::{RejectedKey, RejectedRow, Store, StoreError};
use crate::wire;

/// Most messages that are still rejected which [`Replayed`] names: of a list of millions the rest
/// would fill the memory.
pub const NAMED_MAX: usize = 100;

/// What became of replayed messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// New rows.
    pub stored: usize,
    /// Messages whose rows were there already.
    pub known: usize,
    /// Messages that can't become rows now either.
    pub still_rejected: usize,
    /// The first [`NAMED_MAX`] of these, with the reason.
    pub rejected: Vec<(RejectedKey, String)>,
}

impl Replayed {
    /// Adds what became of further messages.
    pub fn add(&mut self, more: Self) {
        self.stored += more.stored;
        self.known += more.known;
        self.still_rejected += more.still_rejected;
        self.rejected.extend(more.rejected);
        self.rejected.truncate(NAMED_MAX);
    }
}

/// Saves `rows` as checks and takes them out of `rejected_message`, in one transaction; those that
/// still can't be saved stay, with the reason of today. Replaying again changes nothing. With
/// `is_dry` all is tried, and nothing changed.
///
/// # Errors
/// What the database said; nothing was changed, or all of it was.
pub fn replay(store: &Store, rows: &[RejectedRow], is_dry: bool) -> Result<Replayed, StoreError> {
    let mut checks: Vec<Check<'_>> = Vec::with_capacity(rows.len());
    let mut keys: Vec<RejectedKey> = Vec::with_capacity(rows.len());
    let mut rejected: Vec<(RejectedKey, String)> = Vec::new();
    for row in rows {
        // What was unreadable is a batch of messages and none itself.
        let decoded = if row.reason.starts_with(UNREADABLE) {
            Err(row.reason.clone())
        } else {
            wire::decode(&row.payload).map_err(|error| error.to_string())
        };
        match decoded {
            Ok(check) => {
                checks.push(check);
                keys.push(row.key.clone());
            }
            Err(reason) => rejected.push((row.key.clone(), reason)),
        }
    }
    let saved = store.replay_rejected(&checks, &keys, is_dry)?;
    if !is_dry && !rejected.is_empty() {
        store.update_rejected(rejected.clone())?;
    }
    let refused = saved.refused.into_iter();
    rejected.extend(refused.filter_map(|(index, reason)| Some((keys.get(index)?.clone(), reason))));
    let still_rejected = rejected.len();
    rejected.truncate(NAMED_MAX);
    Ok(Replayed { stored: saved.inserted, known: saved.known, still_rejected, rejected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_named_and_all_are_counted() {
        let page = |first: i64| {
            let key = |offset| RejectedKey { topic: "t".to_owned(), partition: 0, offset };
            let rejected =
                (first..first + 70).map(|offset| (key(offset), "no".to_owned())).collect();
            Replayed { stored: 1, known: 2, still_rejected: 700, rejected }
        };
        let mut total = Replayed::default();
        for first in [0, 70, 140] {
            total.add(page(first));
        }
        assert_eq!((total.stored, total.known, total.still_rejected), (3, 6, 2100));
        assert_eq!(total.rejected.len(), NAMED_MAX);
        assert_eq!((total.rejected[0].0.offset, total.rejected[99].0.offset), (0, 99));
    }
}
