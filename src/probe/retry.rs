//! Tries before a verdict.
//!
//! Invariants:
//! - A further try ends before the site's next due time, the pause before it included: its time is
//!   cut to that, and without a second of it there is none. So a site never misses a due time by
//!   its own tries.
//! - The verdict, and all that is seen, is the last try's; only the start is the first one's.

use std::time::Duration;

use jiff::Timestamp;

use crate::check::{Check, Failure, FailureKind};
use crate::runtime::now;
use crate::site::Interval;

use super::{Prober, Target, timings};

/// Least time for a further try: the rest of the interval may be shorter than the timeout.
const TRY_MIN: Duration = Duration::from_secs(1);

impl Prober {
    /// Checks `target` now, for the due time `scheduled_at`: as many tries as the site may have
    /// and as fit, until one is good. A failure of the network is held against the own network
    /// last, if that can be told.
    #[must_use]
    pub fn check(&self, target: &Target, scheduled_at: Timestamp) -> Check<'static> {
        let start = now();
        let next_due =
            start.mono.saturating_add(until_next_due(target.interval(), scheduled_at, start.wall));
        timings::with(|context| context.is_later_try = false);
        let mut check = self.try_once(target, scheduled_at, target.site.timeout);
        if timings::with(|context| context.refused_at.is_some()) {
            // It counts as not begun.
            return check;
        }
        timings::with(|context| context.is_later_try = true);
        let started_at = check.started_at;
        let mut tries = 1;
        let more = target.site.more();
        while tries <= more.retries && check.failure.as_ref().is_some_and(may_pass) {
            let left = next_due.saturating_sub(now().mono + more.retry_pause);
            if left < TRY_MIN {
                break;
            }
            // A stop ends the pause, not the tries: a verdict needs them, and there is a grace.
            let _ = self.stop.wait(more.retry_pause);
            check = self.try_once(target, scheduled_at, target.site.timeout.min(left));
            tries += 1;
        }
        check.started_at = started_at;
        check.tries = Some(tries);
        if let Some(connectivity) = &self.connectivity {
            connectivity.mark(&mut check);
        }
        check
    }
}

/// Whether another try may end otherwise. What is refused by a rule is refused again.
fn may_pass(failure: &Failure<'_>) -> bool {
    match failure.kind {
        FailureKind::Dns
        | FailureKind::Connect
        | FailureKind::Tls
        | FailureKind::Timeout
        | FailureKind::Http
        | FailureKind::Status
        | FailureKind::Regex
        | FailureKind::Internal => true,
        FailureKind::Blocked | FailureKind::Redirect => false,
    }
}

/// From `at` to the first due time after it, on the lattice that `scheduled_at` lies on.
fn until_next_due(interval: Interval, scheduled_at: Timestamp, at: Timestamp) -> Duration {
    let interval = interval.millis();
    let since = at.as_millisecond() - scheduled_at.as_millisecond();
    let left = interval - since.rem_euclid(interval);
    Duration::from_millis(left.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_due_time_is_on_the_lattice() {
        let interval = Interval::from_secs(10).unwrap();
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        for (ms, left) in [(0, 10_000), (1, 9_999), (9_999, 1), (10_000, 10_000), (-1, 1)] {
            let left = Duration::from_millis(left);
            assert_eq!(until_next_due(interval, at(50_000), at(50_000 + ms)), left, "{ms}");
        }
    }

    #[test]
    fn what_a_rule_refuses_is_not_tried_again() {
        let kinds = FailureKind::ALL.into_iter();
        let never: Vec<FailureKind> =
            kinds.filter(|kind| !may_pass(&Failure::new(*kind, ""))).collect();
        assert_eq!(never, [FailureKind::Blocked, FailureKind::Redirect]);
    }
}
