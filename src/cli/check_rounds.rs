//! Checks side by side, in rounds, and what they come to.
//!
//! Invariants:
//! - At most `jobs` checks are under way, on as many threads.
//! - A round's results are handed on in the order of what was typed, each as soon as those before
//!   it are there.
//! - Rounds begin on the lattice of the first one; one that takes longer than the time between two
//!   makes the next wait for its next point, and never makes two at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::check::due;
use super::check_targets::Wanted;
use super::exit::Exit;
use crate::check::{Check, FailureKind, Outcome};
use crate::probe::Prober;
use crate::runtime::{Stop, Threads, now};

/// Most response times kept for the percentile, of all targets together: 8 MB.
const SAMPLES_MAX: usize = 1_000_000;

/// The threads that check.
pub(super) struct Crew {
    work: Sender<usize>,
    results: Receiver<(usize, Check<'static>)>,
    count: usize,
    stop: Stop,
    /// Ends with the process: a check may take its whole timeout, and nobody waits for that after
    /// Ctrl-C.
    _threads: Threads,
}

impl Crew {
    pub(super) fn start(
        prober: Prober,
        wanted: &Arc<Vec<Wanted>>,
        jobs: usize,
        stop: &Stop,
    ) -> Result<Self, Exit> {
        let count = wanted.len();
        let (work, tasks) = bounded::<usize>(count);
        let (tell, results) = bounded(count);
        let prober = Arc::new(prober);
        let mut threads = Threads::new(stop.clone());
        for number in 0..jobs.min(count) {
            let (prober, wanted) = (prober.clone(), wanted.clone());
            let (tasks, tell) = (tasks.clone(), tell.clone());
            threads
                .spawn(&format!("check-{number}"), move || {
                    for index in tasks {
                        let check = prober.check(&wanted[index].target, due());
                        // Nobody waits any more: the command has ended.
                        let _ = tell.send((index, check));
                    }
                })
                .map_err(|error| {
                    Exit::Failed(format!("webmon check: cannot start a thread: {error}"))
                })?;
        }
        Ok(Self { work, results, count, stop: stop.clone(), _threads: threads })
    }

    /// One round; ends early with the stop.
    fn round(
        &self,
        each: &mut impl FnMut(usize, Check<'static>) -> Result<(), Exit>,
    ) -> Result<(), Exit> {
        for index in 0..self.count {
            // Has room: the round before was waited for.
            let _ = self.work.send(index);
        }
        let (mut next, mut early) = (0, BTreeMap::new());
        while next < self.count {
            let (index, check) = select! {
                recv(self.results) -> result => match result {
                    Ok(result) => result,
                    Err(_) => return Ok(()),
                },
                recv(self.stop.channel()) -> _ => return Ok(()),
            };
            early.insert(index, check);
            while let Some(check) = early.remove(&next) {
                each(next, check)?;
                next += 1;
            }
        }
        Ok(())
    }

    /// `count` rounds, 0 for no end, `every` apart, until the stop.
    pub(super) fn rounds(
        &self,
        count: u32,
        every: Duration,
        mut each: impl FnMut(usize, Check<'static>) -> Result<(), Exit>,
    ) -> Result<(), Exit> {
        let start = now().mono;
        let mut done = 0;
        while !self.stop.is_requested() {
            self.round(&mut each)?;
            done += 1;
            if done == count {
                break;
            }
            let _ = self.stop.wait(until_next(now().mono - start, every));
        }
        Ok(())
    }
}

/// From `since` the start to the next whole multiple of `every`.
fn until_next(since: Duration, every: Duration) -> Duration {
    let over = since.as_nanos() % every.as_nanos().max(1);
    every.saturating_sub(Duration::from_nanos(u64::try_from(over).unwrap_or(u64::MAX)))
}

/// What the checks of one target came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    up: u64,
    down: BTreeMap<&'static str, u64>,
    timed: u64,
    sum: f64,
    min: f64,
    max: f64,
    /// The latest, for the percentile.
    samples: VecDeque<f64>,
    samples_max: usize,
}

impl Tally {
    /// For one of so many targets.
    pub(super) fn of(targets: usize) -> Self {
        let samples_max = (SAMPLES_MAX / targets.max(1)).max(1);
        Self { samples_max, min: f64::INFINITY, ..Self::default() }
    }

    pub(super) fn add(&mut self, check: &Check<'_>) {
        match check.outcome {
            Outcome::Up => self.up += 1,
            Outcome::Down | Outcome::Missed => {
                let kind = check.failure.as_ref().map_or(FailureKind::Internal, |f| f.kind);
                *self.down.entry(kind.as_str()).or_default() += 1;
            }
        }
        if let Some(seconds) = check.response_time {
            self.timed += 1;
            self.sum += seconds;
            self.min = self.min.min(seconds);
            self.max = self.max.max(seconds);
            if self.samples.len() == self.samples_max {
                self.samples.pop_front();
            }
            self.samples.push_back(seconds);
        }
    }

    /// Whether one was down.
    pub(super) fn is_bad(&self) -> bool {
        !self.down.is_empty()
    }

    /// Two lines: how the checks ended, and how long they took, all of them.
    pub(super) fn lines(&self, name: &str) -> Vec<String> {
        let down: u64 = self.down.values().sum();
        let plural = if self.up + down == 1 { "check" } else { "checks" };
        let mut line = format!("{name}: {} {plural}, {} up, {down} down", self.up + down, self.up);
        if down > 0 {
            let kinds: Vec<String> =
                self.down.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
            line.push_str(&format!(" ({})", kinds.join(", ")));
        }
        let mut lines = vec![line];
        if self.timed > 0 {
            lines.push(format!(
                "  response time min {:.3} ms, mean {:.3} ms, p95 {:.3} ms, max {:.3} ms",
                self.min * 1e3,
                self.sum / self.timed as f64 * 1e3,
                self.percentile(95) * 1e3,
                self.max * 1e3
            ));
        }
        lines
    }

    /// The smallest value that so many percent of all are not above.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted: Vec<f64> = self.samples.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::check::{Failure, Identity};

    fn check(seconds: f64, failure: Option<FailureKind>) -> Check<'static> {
        let identity = Identity::new(1, "r");
        let empty =
            Check::empty(&identity, 1, "http://a/".into(), "r".into(), Timestamp::UNIX_EPOCH);
        let outcome = if failure.is_none() { Outcome::Up } else { Outcome::Down };
        let failure = failure.map(|kind| Failure::new(kind, "x"));
        Check { outcome, failure, response_time: Some(seconds), ..empty }
    }

    #[test]
    fn figures_are_those_of_the_checks() {
        let mut tally = Tally::of(1);
        (1..=100).rev().for_each(|ms| tally.add(&check(f64::from(ms) / 1000.0, None)));
        assert!(!tally.is_bad());
        assert_eq!(
            tally.lines("a"),
            [
                "a: 100 checks, 100 up, 0 down",
                "  response time min 1.000 ms, mean 50.500 ms, p95 95.000 ms, max 100.000 ms"
            ]
        );
        tally.add(&check(9.0, Some(FailureKind::Timeout)));
        tally.add(&check(9.0, Some(FailureKind::Dns)));
        tally.add(&check(9.0, Some(FailureKind::Dns)));
        assert!(tally.is_bad());
        assert_eq!(tally.lines("a")[0], "a: 103 checks, 100 up, 3 down (dns 2, timeout 1)");
        let mut one = Tally::of(1);
        one.add(&check(0.5, None));
        let line =
            "  response time min 500.000 ms, mean 500.000 ms, p95 500.000 ms, max 500.000 ms";
        assert_eq!(one.lines("b")[1], line);
        assert_eq!(Tally::of(1).lines("c"), ["c: 0 checks, 0 up, 0 down"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut tally = Tally::of(SAMPLES_MAX / 10);
        (0..100).for_each(|ms| tally.add(&check(f64::from(ms), None)));
        assert_eq!(tally.samples.len(), 10);
        assert_eq!((tally.min, tally.percentile(10)), (0.0, 90.0));
    }

    #[test]
    fn rounds_stay_on_their_lattice() {
        let ms = Duration::from_millis;
        assert_eq!(until_next(ms(300), ms(1000)), ms(700));
        assert_eq!(until_next(ms(2300), ms(1000)), ms(700));
        assert_eq!(until_next(ms(2000), ms(1000)), ms(1000));
    }
}
