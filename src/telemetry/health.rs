//! Whether this process can do its work now, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The state of each part a daemon depends on. Alive is who answers at all; ready is who has no
/// part that is unwell.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<BTreeMap<&'static str, Option<String>>>,
}

impl Health {
    /// `part` works. Returns whether that is a change: the caller then logs it, once.
    pub fn well(&self, part: &'static str) -> bool {
        self.set(part, None)
    }

    /// `part` doesn't work, for `reason` (one line, no secrets). Returns whether it worked, or
    /// was unknown, before: the caller then logs it, once.
    pub fn unwell(&self, part: &'static str, reason: impl Into<String>) -> bool {
        self.set(part, Some(reason.into()))
    }

    fn set(&self, part: &'static str, reason: Option<String>) -> bool {
        let is_well = reason.is_none();
        let before = self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, reason);
        before.is_none_or(|reason| reason.is_none() != is_well)
    }

    /// Every known part with what is wrong with it, by name.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, Option<String>)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(part, reason)| (*part, reason.clone())).collect()
    }

    /// Whether some part is known and none is unwell.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        !parts.is_empty() && parts.values().all(Option::is_none)
    }
}

/// This process's health.
#[must_use]
pub fn health() -> &'static Health {
    static HEALTH: OnceLock<Health> = OnceLock::new();
    HEALTH.get_or_init(Health::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once_and_one_unwell_part_is_enough() {
        let health = Health::default();
        assert!(!health.is_ready());
        assert!(health.unwell("kafka", "no broker"));
        assert!(!health.unwell("kafka", "still no broker"));
        assert!(health.well("database"));
        assert!(!health.is_ready());
        assert!(health.well("kafka"));
        assert!(!health.well("kafka"));
        assert!(health.is_ready());
        assert_eq!(health.parts(), [("database", None), ("kafka", None)]);
    }
}
