//! Capped exponential delays with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Delays between tries: doubling from `first` to `cap`, each shortened by up to half at random,
/// so that many processes that lost one server don't come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
    random: RandomState,
}

impl Backoff {
    /// Delays from `first` up to `cap`.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, tries: 0, random: RandomState::new() }
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        // A keyed hash of the count is random enough for jitter and needs no generator.
        let jitter = self.random.hash_one(self.tries) % 1024;
        full - full.mul_f64(jitter as f64 / 2048.0)
    }

    /// After a success: the next delay is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Tries since the last success.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_starts_again() {
        let (first, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, cap);
        let delays: Vec<Duration> = (0..100).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= first && delays[0] >= first / 2);
        assert!(delays.iter().all(|d| *d <= cap));
        assert!(delays[20..].iter().all(|d| *d >= cap / 2));
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
