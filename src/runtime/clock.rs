//! The wall clock and the monotonic clock, read together.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// One reading of both clocks.
///
/// `wall` may step (NTP, an operator, a leap second); `mono` never does, and counts from an
/// arbitrary point of this process's life. Whoever needs to notice a step compares the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Wall-clock time, UTC.
    pub wall: Timestamp,
    /// Monotonic time since the first reading in this process.
    pub mono: Duration,
}

/// One reading of the operating system's clocks.
#[must_use]
pub fn now() -> Moment {
    let mono = mono();
    Moment { wall: wall(), mono }
}

/// The monotonic clock alone, as in [`Moment::mono`]: for waiting and for durations.
#[must_use]
// With `wall` the one place where the clocks are read; everywhere else clippy.toml refuses it.
#[allow(clippy::disallowed_methods)]
pub fn mono() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The wall clock alone, as in [`Moment::wall`]: for what is written down.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn wall() -> Timestamp {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        // Nanoseconds below a second fit; from seconds and nanoseconds costs a fraction of the
        // way over 128 bits.
        .map(|since| (since.as_secs(), since.subsec_nanos() as i32))
        .and_then(|(s, ns)| Timestamp::new(i64::try_from(s).ok()?, ns).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let readings: Vec<Moment> = (0..1000).map(|_| now()).collect();
        assert!(readings.windows(2).all(|w| w[0].mono <= w[1].mono));
        assert!(readings[0].wall > Timestamp::UNIX_EPOCH);
    }
}
