//! All chance of a run, from one printed seed.

use std::sync::OnceLock;
use std::time::Duration;

use webmon::runtime::now;

/// The seed of this run: `WEBMON_TEST_FAULTS_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given =
            std::env::var("WEBMON_TEST_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| now().wall.as_microsecond().unsigned_abs() % 1_000_000);
        println!("WEBMON_TEST_FAULTS_SEED={seed}");
        seed
    })
}

/// Whether this is the run for the record, and not the short one of every day.
pub(crate) fn is_full() -> bool {
    std::env::var("WEBMON_TEST_FAULTS").is_ok_and(|value| value == "full")
}

/// Steele's and Vigna's SplitMix64: small, and good enough to choose moments and victims.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A scenario's own, so that it doesn't depend on which others run.
    pub(crate) fn of_scenario(name: &str) -> Self {
        // FNV-1a: the same in every build.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash ^ seed())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 up to below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// From `min` up to below `max`.
    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_micros();
        min + Duration::from_micros(self.below(u64::try_from(span).unwrap_or(u64::MAX)))
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("an index")]
    }
}
