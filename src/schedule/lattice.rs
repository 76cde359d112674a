//! The lattice: a site is due at `offset + k × interval` on the wall clock, for every whole `k`.
//!
//! Who computes it, when they started and how long a check took don't matter, so nothing drifts
//! and two producers agree without talking.

/// The first due time strictly after `after_ms`: the smallest `offset_ms + k × interval_ms` that
/// is larger. All in ms since the epoch; an interval under 1 ms counts as 1 ms.
#[must_use]
pub fn next_due(after_ms: i64, offset_ms: i64, interval_ms: i64) -> i64 {
    after_ms.saturating_add(interval_ms.max(1) - phase(after_ms, offset_ms, interval_ms))
}

/// Whether `ms` is a due time on that lattice.
#[must_use]
pub fn is_due_time(ms: i64, offset_ms: i64, interval_ms: i64) -> bool {
    phase(ms, offset_ms, interval_ms) == 0
}

/// How long after the last due time `ms` lies: 0 up to the interval. The remainder is Euclid's,
/// so that times before 1970 behave like all others.
fn phase(ms: i64, offset_ms: i64, interval_ms: i64) -> i64 {
    ms.saturating_sub(offset_ms).rem_euclid(interval_ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_strictly_after() {
        assert_eq!(next_due(0, 3, 10), 3);
        assert_eq!(next_due(2, 3, 10), 3);
        assert_eq!(next_due(3, 3, 10), 13);
        assert_eq!(next_due(-8, 3, 10), -7);
        assert_eq!(next_due(-7, 3, 10), 3);
        assert!(is_due_time(-7, 3, 10) && is_due_time(1003, 3, 10) && !is_due_time(4, 3, 10));
    }

    #[test]
    fn an_offset_may_be_any_point_of_the_lattice() {
        for after in -50..50 {
            assert_eq!(next_due(after, 3, 10), next_due(after, 1_000_003, 10));
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        assert_eq!(next_due(i64::MAX, 0, 10), i64::MAX);
        assert!(next_due(i64::MIN, 9, 10) > i64::MIN);
        assert_eq!(next_due(7, 0, 0), 8);
    }
}
