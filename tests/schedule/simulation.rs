//! Clocks that drift, step and stand still; a slow and simple model of the schedule; and the
//! oracle, which knows the lattice only.

use std::collections::BTreeMap;

use webmon::check::Identity;
use webmon::schedule::{Advance, REWIND_MIN_MS, Reading, Schedule};
use webmon::site::Interval;

/// 2026-01-01T00:00:00Z.
pub(crate) const START_MS: i64 = 1_767_225_600_000;
pub(crate) const TICK_MS: i64 = 2;
pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// A small generator (xorshift64*): a run is its seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        // Shown when the test fails.
        println!("seed {seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// 0 up to `end`.
    pub(crate) fn below(&mut self, end: i64) -> i64 {
        (self.next() >> 1) as i64 % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as i64) as usize]
    }
}

/// Both clocks, in µs, with a rate between them.
pub(crate) struct World {
    wall_us: i64,
    mono_us: i64,
    /// Parts per million by which the wall clock is faster than the monotonic one.
    pub(crate) slew_ppm: i64,
}

impl World {
    pub(crate) fn new(wall_ms: i64) -> Self {
        Self { wall_us: wall_ms * 1000, mono_us: 77_000_123, slew_ppm: 0 }
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading {
            wall_ms: self.wall_us.div_euclid(1000),
            mono_ms: (self.mono_us / 1000).unsigned_abs(),
        }
    }

    /// Time passes.
    pub(crate) fn run(&mut self, ms: i64) {
        self.mono_us += ms * 1000;
        self.wall_us += ms * 1000 + ms * self.slew_ppm / 1000;
    }

    /// The wall clock is set.
    pub(crate) fn step(&mut self, ms: i64) {
        self.wall_us += ms * 1000;
    }

    /// The machine sleeps; its monotonic clock may stand still meanwhile.
    pub(crate) fn suspend(&mut self, ms: i64, is_mono_standing: bool) {
        self.wall_us += ms * 1000;
        if !is_mono_standing {
            self.mono_us += ms * 1000;
        }
    }
}

pub(crate) fn interval(seconds: u32) -> Interval {
    Interval::from_secs(seconds).unwrap()
}

pub(crate) fn identity(website_id: i64) -> Identity {
    Identity::new(website_id, "default")
}

/// Every due time of a site in (`after_ms`, `until_ms`], from the lattice's definition alone.
pub(crate) fn oracle(
    website_id: i64,
    seconds: u32,
    after_ms: i64,
    until_ms: i64,
) -> impl Iterator<Item = i64> {
    let interval_ms = i64::from(seconds) * 1000;
    let offset_ms = identity(website_id).offset_ms(interval(seconds));
    let first = (after_ms - offset_ms).div_euclid(interval_ms) + 1;
    (first..).map(move |k| offset_ms + k * interval_ms).take_while(move |ms| *ms <= until_ms)
}

/// One site of the model.
struct ModelSite {
    seconds: u32,
    due_ms: i64,
    /// It can't come out before the wheel stands here.
    earliest_ms: i64,
}

/// What the schedule should do, one loop over all sites per call.
pub(crate) struct Model {
    sites: BTreeMap<i64, ModelSite>,
    /// Everything up to here was looked at; a whole tick.
    seen_ms: i64,
}

/// (website_id, scheduled_ms) each, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) due: Vec<(i64, i64)>,
    pub(crate) missed: Vec<(i64, i64)>,
    pub(crate) unrecorded: u64,
}

impl From<&Advance> for Found {
    fn from(advance: &Advance) -> Self {
        let sorted = |list: &[webmon::schedule::Due]| {
            let mut list: Vec<_> = list.iter().map(|d| (d.website_id, d.scheduled_ms)).collect();
            list.sort_unstable();
            list
        };
        Self {
            due: sorted(&advance.due),
            missed: sorted(&advance.missed),
            unrecorded: advance.unrecorded,
        }
    }
}

fn tick_floor(ms: i64) -> i64 {
    ms - ms.rem_euclid(TICK_MS)
}

impl Model {
    pub(crate) fn new(wall_ms: i64) -> Self {
        Self { sites: BTreeMap::new(), seen_ms: tick_floor(wall_ms) }
    }

    pub(crate) fn len(&self) -> usize {
        self.sites.len()
    }

    pub(crate) fn insert(&mut self, website_id: i64, seconds: u32, wall_ms: i64) {
        let mut after_ms = wall_ms;
        let interval_ms = i64::from(seconds) * 1000;
        if let Some(site) = self.sites.get(&website_id) {
            if site.seconds == seconds {
                return;
            }
            let last_ms = site.due_ms - i64::from(site.seconds) * 1000;
            if last_ms > wall_ms && last_ms <= wall_ms + interval_ms {
                after_ms = last_ms;
            }
        }
        let due_ms = oracle(website_id, seconds, after_ms, i64::MAX).next().unwrap();
        let earliest_ms = self.seen_ms + TICK_MS;
        self.sites.insert(website_id, ModelSite { seconds, due_ms, earliest_ms });
    }

    pub(crate) fn remove(&mut self, website_id: i64) -> bool {
        self.sites.remove(&website_id).is_some()
    }

    pub(crate) fn advance(&mut self, wall_ms: i64) -> Found {
        let mut found = Found::default();
        let tick_ms = tick_floor(wall_ms);
        if tick_ms + REWIND_MIN_MS < self.seen_ms {
            self.seen_ms = tick_ms;
            for (website_id, site) in &mut self.sites {
                site.earliest_ms = tick_ms + TICK_MS;
                if site.due_ms > wall_ms + 2 * 1000 * i64::from(site.seconds) {
                    site.due_ms =
                        oracle(*website_id, site.seconds, wall_ms, i64::MAX).next().unwrap();
                }
            }
            return found;
        }
        self.seen_ms = self.seen_ms.max(tick_ms);
        for (website_id, site) in &mut self.sites {
            if site.earliest_ms > tick_ms || site.due_ms > tick_ms {
                continue;
            }
            let passed: Vec<i64> =
                oracle(*website_id, site.seconds, site.due_ms - 1, wall_ms).collect();
            if let [rest @ .., last] = passed.as_slice() {
                found.due.push((*website_id, *last));
                if let [rest @ .., before] = rest {
                    found.missed.push((*website_id, *before));
                    found.unrecorded += rest.len() as u64;
                }
                site.due_ms = last + i64::from(site.seconds) * 1000;
            }
        }
        found
    }
}

/// A schedule with `sites` (id, interval in seconds).
pub(crate) fn schedule_of(sites: &[(i64, u32)], now: Reading) -> Schedule {
    let mut schedule = Schedule::new(now);
    for (website_id, seconds) in sites {
        schedule.insert(*website_id, &identity(*website_id), interval(*seconds), now);
    }
    schedule
}
