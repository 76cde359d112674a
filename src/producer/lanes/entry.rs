//! A site as the dispatcher and the workers share it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::check::{Check, FailureKind};
use crate::probe::Target;

/// A check that took longer sends its site to the slow lane. A site that begins to hang holds a
/// worker of the fast lane once, for its timeout, before it is moved.
const SLOW_AFTER: Duration = Duration::from_secs(2);
/// Quick checks in a row that bring a site back to the fast lane.
const QUICK_TO_RETURN: u8 = 2;
/// In the place of that count: nothing is known of the site yet.
const UNTRIED: u8 = u8::MAX;

/// What the last checks of a site say about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers quickly.
    Quick,
    /// It was not checked since the start: it may be quick, or hang.
    Untried,
    /// It timed out, or took long, a short while ago.
    Slow,
}

impl Standing {
    pub(super) const COUNT: usize = 3;
}

/// See the module.
#[derive(Debug)]
pub(in crate::producer) struct Entry {
    pub(super) target: Target,
    /// 0: quick; [`UNTRIED`]; else the quick checks that are still wanted of a slow site.
    wanted: AtomicU8,
    /// Whether a job of it waits for its address; changed under the board's lock.
    is_parked: AtomicBool,
    /// Where its last check connected to first; only kept where addresses have a limit.
    address: Mutex<Option<IpAddr>>,
}

impl Entry {
    /// A site of which is only known whether it `was_slow` when this producer last ran.
    pub(in crate::producer) fn new(target: Target, was_slow: bool) -> Self {
        Self::with(target, if was_slow { QUICK_TO_RETURN } else { UNTRIED })
    }

    /// The site with other settings.
    pub(in crate::producer) fn changed(&self, target: Target) -> Self {
        Self::with(target, self.wanted.load(Ordering::Relaxed))
    }

    fn with(target: Target, wanted: u8) -> Self {
        Self {
            target,
            wanted: AtomicU8::new(wanted),
            is_parked: AtomicBool::new(false),
            address: Mutex::new(None),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.wanted.load(Ordering::Relaxed) {
            0 => Standing::Quick,
            UNTRIED => Standing::Untried,
            _ => Standing::Slow,
        }
    }

    /// Judges the site by its newest check, which `held` a worker so long: with all its tries, the
    /// pauses between them, and a look at the own network. Whether it is slow, if that is news.
    pub(super) fn learn(&self, check: &Check<'_>, held: Duration) -> Option<bool> {
        let before = self.wanted.load(Ordering::Relaxed);
        // A whole answer that came later than the site is allowed may have been quick all the same.
        let timed_out = check.body_bytes.is_none()
            && check.failure.as_ref().is_some_and(|f| f.kind == FailureKind::Timeout);
        let took = check.response_time.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let after = if timed_out || held.max(took.unwrap_or_default()) > SLOW_AFTER {
            QUICK_TO_RETURN
        } else if before == UNTRIED {
            0
        } else {
            before.saturating_sub(1)
        };
        if before == after {
            return None;
        }
        self.wanted.store(after, Ordering::Relaxed);
        let was_slow = before != 0 && before != UNTRIED;
        (was_slow != (after != 0)).then_some(after != 0)
    }

    pub(super) fn is_parked(&self) -> bool {
        self.is_parked.load(Ordering::Relaxed)
    }

    pub(super) fn set_parked(&self, is_parked: bool) {
        self.is_parked.store(is_parked, Ordering::Relaxed);
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_address(&self, address: IpAddr) {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    pub(in crate::producer) fn missed(
        &self,
        scheduled_at: Timestamp,
        reason: &str,
    ) -> Check<'static> {
        let target = &self.target;
        Check::missed(
            target.identity(),
            target.website_id(),
            target.url().to_owned(),
            target.region().to_string(),
            scheduled_at,
            reason,
        )
    }
}
