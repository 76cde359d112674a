//! Shared by the integration tests: services to talk to, waiting on conditions.

// Each test uses a part of it, and is a crate of its own.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod disk;
pub mod ports;
pub mod proxy;
pub mod services;
pub mod topic;
pub mod web;

use std::time::Duration;

use webmon::runtime::{Stop, now};

/// Longest wait for a condition: far above any expected time, so that only a real fault fails.
pub const CAP: Duration = Duration::from_secs(60);

/// Polls `look` until it answers `Ok`, and fails with its last `Err` after [`CAP`].
pub fn eventually<T, E: std::fmt::Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(CAP, what, look)
}

/// The same with a cap of its own.
pub fn eventually_within<T, E: std::fmt::Debug>(
    cap: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let end = now().mono + cap;
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) if now().mono >= end => panic!("{what}: not within {cap:?}; last: {last:?}"),
            Err(_) => {
                let _ = Stop::new().wait(Duration::from_millis(20));
            }
        }
    }
}
