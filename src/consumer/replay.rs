//! Rejected messages once more: on the same way into the table as when they came.

use super::ingest::UNREADABLE;
use crate::check::Check;
use crate::store::{RejectedKey, RejectedRow, Store, StoreError};
use crate::wire;

/// What became of replayed messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// New rows.
    pub stored: usize,
    /// Messages whose rows were there already.
    pub known: usize,
    /// Messages that can't become rows now either, with the reason.
    pub rejected: Vec<(RejectedKey, String)>,
}

impl Replayed {
    /// Adds what became of further messages.
    pub fn add(&mut self, more: Self) {
        self.stored += more.stored;
        self.known += more.known;
        self.rejected.extend(more.rejected);
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
    Ok(Replayed { stored: saved.inserted, known: saved.known, rejected })
}
