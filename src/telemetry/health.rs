//! Whether this process can do its work now, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The state of each part a daemon depends on. Alive is who answers at all; ready is who has no
/// part that is unwell.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<BTreeMap<&'static str, Part>>,
}

/// What is known of one part.
#[derive(Debug, Default)]
struct Part {
    /// Whether it was ever heard of.
    is_heard: bool,
    /// What is wrong with it, by who says so.
    reasons: BTreeMap<usize, String>,
}

impl Part {
    fn reason(&self) -> Option<&str> {
        if !self.is_heard {
            return Some("not reached yet");
        }
        self.reasons.values().next().map(String::as_str)
    }
}

impl Health {
    /// `part` is needed: not ready until it is heard of.
    pub fn expect(&self, part: &'static str) {
        self.lock().entry(part).or_default();
    }

    /// `part` works. Returns whether that is a change: the caller then logs it, once.
    pub fn well(&self, part: &'static str) -> bool {
        self.well_by(part, 0)
    }

    /// `part` doesn't work, for `reason` (one line, no secrets). Returns whether it worked, or
    /// was unknown, before: the caller then logs it, once.
    pub fn unwell(&self, part: &'static str, reason: impl Into<String>) -> bool {
        self.unwell_by(part, 0, reason)
    }

    /// `part` works for `who`, one of several that use it; it is well when it works for all.
    pub fn well_by(&self, part: &'static str, who: usize) -> bool {
        self.change(part, |reasons| drop(reasons.remove(&who)))
    }

    /// `part` doesn't work for `who`.
    pub fn unwell_by(&self, part: &'static str, who: usize, reason: impl Into<String>) -> bool {
        let reason = reason.into();
        self.change(part, |reasons| drop(reasons.insert(who, reason)))
    }

    fn change(
        &self,
        part: &'static str,
        change: impl FnOnce(&mut BTreeMap<usize, String>),
    ) -> bool {
        let mut parts = self.lock();
        let part = parts.entry(part).or_default();
        let (was_heard, was_well) = (part.is_heard, part.reasons.is_empty());
        part.is_heard = true;
        change(&mut part.reasons);
        !was_heard || was_well != part.reasons.is_empty()
    }

    /// Every known part with what is wrong with it, by name.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, Option<String>)> {
        self.lock().iter().map(|(name, part)| (*name, part.reason().map(str::to_owned))).collect()
    }

    /// Whether some part is known and none is unwell.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let parts = self.lock();
        !parts.is_empty() && parts.values().all(|part| part.reason().is_none())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
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
        health.expect("kafka");
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

    #[test]
    fn a_part_of_several_is_well_when_it_is_for_all() {
        let health = Health::default();
        assert!(health.unwell_by("fetching", 1, "leader gone"));
        assert!(!health.well_by("fetching", 2));
        assert!(!health.is_ready());
        assert!(health.well_by("fetching", 1));
        assert!(health.is_ready());
    }
}
