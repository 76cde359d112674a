//! Is it the site, or our own network?
//!
//! When everything fails at once, nothing of it says anything about a site. So after a failure
//! of the network, a few addresses that are always there are dialled; when none answers, the
//! check is marked.
//!
//! Invariants:
//! - One test at a time, for all who ask. It counts for those whose failure it began after: the
//!   network may have gone in between.
//! - A test takes at most [`TEST_MAX`], and begins [`SPACING`] after the last one. Who asks while
//!   one is under way may have to wait for it and for the next: twice that at most.
//! - While the network is away, a verdict holds for [`FRESH`]: thousands of failing checks make
//!   a test every few seconds, not one each.
//! - The guard does not apply: the operator named these addresses, no site did.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::check::{Check, FailureKind};
use crate::runtime::{Stop, now};
use crate::telemetry::metrics;

use super::resolver::{Lookup, Resolver};
use super::socket::Socket;

/// Longest test of all targets.
const TEST_MAX: Duration = Duration::from_secs(2);
/// A verdict that the network is away holds so long.
const FRESH: Duration = Duration::from_secs(2);
/// From the begin of one test to that of the next: a few sites that are always down shall not
/// dial the targets all the time.
const SPACING: Duration = Duration::from_millis(200);
/// Most addresses of one target that are dialled.
const ADDRESSES_MAX: usize = 2;

/// The targets and what is known of them.
#[derive(Debug)]
pub(super) struct Connectivity {
    targets: Vec<(String, u16)>,
    /// Threads of its own: while the network is away, those of the sites all hang. Absent when
    /// every target is an address.
    resolver: Option<Resolver>,
    state: Mutex<State>,
    ended: Condvar,
    stop: Stop,
}

#[derive(Debug)]
struct State {
    is_running: bool,
    last: Option<Verdict>,
    /// What was logged last.
    was_reachable: bool,
}

/// How a test ended; times on the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    began: Duration,
    ended: Duration,
    is_reachable: bool,
}

/// Ends the test under way, also one that panics.
struct Running<'a>(&'a Connectivity);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.locked().is_running = false;
        self.0.ended.notify_all();
    }
}

impl Connectivity {
    /// Tests with these targets, names or addresses with ports; `None` without any.
    pub(super) fn new(
        targets: Vec<(String, u16)>,
        lookup: &Lookup,
        stop: Stop,
    ) -> std::io::Result<Option<Self>> {
        if targets.is_empty() {
            return Ok(None);
        }
        let names = targets.iter().filter(|(host, _)| host.parse::<IpAddr>().is_err()).count();
        let resolver = match names {
            0 => None,
            names => Some(Resolver::with_threads(names, lookup, Duration::ZERO)?),
        };
        let state = State { is_running: false, last: None, was_reachable: true };
        Ok(Some(Self { targets, resolver, state: Mutex::new(state), ended: Condvar::new(), stop }))
    }

    /// Marks `check`, which has just ended, if it failed while the own network was away.
    pub(super) fn mark(&self, check: &mut Check<'_>) {
        let Some(failure) = &check.failure else { return };
        let is_network = matches!(
            failure.kind,
            FailureKind::Dns | FailureKind::Connect | FailureKind::Tls | FailureKind::Timeout
        );
        // With a whole answer at hand, such a failure is the judge's.
        if is_network && check.body_bytes.is_none() && !self.is_reachable(now().mono) {
            check.unreachable_self = true;
            metrics().checks_unreachable_self.inc();
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the own network was there after a failure at `failed_at`.
    fn is_reachable(&self, failed_at: Duration) -> bool {
        let mut state = self.locked();
        loop {
            if let Some(last) = state.last {
                let is_fresh = now().mono.saturating_sub(last.ended) < FRESH;
                if last.began >= failed_at || (!last.is_reachable && is_fresh) {
                    return last.is_reachable;
                }
            }
            if !state.is_running {
                break;
            }
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_running = true;
        let next = state.last.map_or(Duration::ZERO, |last| last.began.saturating_add(SPACING));
        drop(state);
        let running = Running(self);
        // At a stop nobody waits.
        let _ = self.stop.wait(next.saturating_sub(now().mono));
        let is_reachable = self.test();
        drop(running);
        is_reachable
    }

    /// Dials the targets, and writes down what came of it.
    fn test(&self) -> bool {
        let began = now().mono;
        let reached = self.dial(began.saturating_add(TEST_MAX));
        let is_reachable = reached.is_some();
        let mut state = self.locked();
        state.last = Some(Verdict { began, ended: now().mono, is_reachable });
        if std::mem::replace(&mut state.was_reachable, is_reachable) != is_reachable {
            metrics().own_network_reachable.set(is_reachable);
            match reached {
                Some(address) => {
                    log::info!(address = address.to_string().as_str(); "own network reachable again");
                }
                None => log::warn!(targets = self.targets.len(); "own network unreachable"),
            }
        }
        is_reachable
    }

    /// The first address that takes a connection. Each gets its share of the time that is left.
    fn dial(&self, deadline: Duration) -> Option<SocketAddr> {
        let share = |until: Duration, parts: usize| {
            let now = now().mono;
            let parts = u32::try_from(parts).unwrap_or(u32::MAX);
            now.saturating_add(until.saturating_sub(now) / parts.max(1))
        };
        self.targets.iter().enumerate().find_map(|(index, target)| {
            let limit = share(deadline, self.targets.len() - index);
            let addresses = self.addresses(target, limit);
            addresses.iter().enumerate().find_map(|(index, address)| {
                let limit = share(limit, addresses.len() - index);
                Socket::connect(address, limit).is_ok().then_some(*address)
            })
        })
    }

    fn addresses(&self, (host, port): &(String, u16), deadline: Duration) -> Vec<SocketAddr> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return vec![SocketAddr::new(address, *port)];
        }
        let found = self.resolver.as_ref().map(|resolver| resolver.addresses(host, deadline));
        let Some(Ok(found)) = found else { return Vec::new() };
        found.iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(*address, *port)).collect()
    }
}
