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
// The one place where the clocks are read; everywhere else clippy.toml refuses it.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Moment {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i128::try_from(since.as_nanos()).ok())
        .and_then(|ns| Timestamp::from_nanosecond(ns).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    Moment { wall, mono }
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
