//! Two lanes of fixed workers: sites that were slow last time wait for each other, never in front
//! of the healthy ones.
//!
//! ```text
//! dispatcher ──due──► board ──to the worker that sat down last──► worker ──► probe, recorder
//!                     queues, parked at an address      ▲            │
//!                                                       └── next ────┘
//! ```
//!
//! Invariants:
//! - Every due time that [`Lanes::submit`] takes is recorded once, by a worker or by
//!   [`Running::abandon`]; what it does not take it gives back with the reason.
//! - A slow site is checked by the slow lane alone. A site of which nothing is known yet may be
//!   dark: such sites hold at most half of the fast lane's workers, or more while a quarter of
//!   them is idle; else they are the slow lane's. So the first round of a start, with however
//!   many dark sites, leaves room for those that are known to be quick.
//! - Of one address at most `per_address` checks are under way, where that is set. A check that
//!   finds its address full is not begun: it holds no worker while it waits, and its lateness is
//!   that of its real start. Only redirects, and further tries at another address of the name, go
//!   over the limit.
//! - The submitter never waits for a worker.

mod addresses;
mod board;
mod entry;
mod job;
mod slow_sites;
#[cfg(test)]
mod tests;
mod worker;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use self::board::Board;
use self::job::{Job, LaneName, Seat, Unstarted};
use self::worker::{Worker, WorkerGate};
use super::recorder::Recorder;
use crate::check::Check;
use crate::probe::{Gate, Prober, Target};
use crate::runtime::{Stop, Threads, mailbox};
use crate::telemetry::{ByLane, metrics};

pub(super) use self::entry::Entry;
pub(super) use self::slow_sites::SlowSites;

/// Jobs that may wait in a lane per worker of it. A check of a healthy site takes some ms, so
/// this is about a second of delay; past it a due time is missed at once instead of late.
const QUEUE_PER_WORKER: usize = 64;

/// What workers do; in tests something else than the probe and the spool.
pub(super) trait Work: std::fmt::Debug + Send + Sync {
    /// Checks now, unless the gate refuses the address that is the error then.
    fn check(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        gate: Option<Arc<dyn Gate>>,
    ) -> Result<Check<'static>, IpAddr>;

    fn record(&self, check: &Check<'_>);
}

/// The probe and the spool.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) prober: Prober,
    pub(super) recorder: Recorder,
}

impl Work for Live {
    fn check(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        gate: Option<Arc<dyn Gate>>,
    ) -> Result<Check<'static>, IpAddr> {
        match gate {
            None => Ok(self.prober.check(target, scheduled_at)),
            Some(gate) => self.prober.check_through(target, scheduled_at, gate),
        }
    }

    fn record(&self, check: &Check<'_>) {
        self.recorder.record(check);
    }
}

/// Where a worker keeps what it is checking. Whoever takes it out records it, so that a check is
/// recorded once, by its worker or by the stop that did not wait for it.
type Place = Arc<Mutex<Option<Job>>>;

fn take(place: &Place) -> Option<Job> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The checks under way, and those that wait.
#[derive(Debug)]
pub(super) struct Running {
    places: Vec<Place>,
    board: Arc<Board>,
}

impl Running {
    /// Records as missed every check under way, whose worker then records nothing any more, and
    /// every one that still waits for such a worker.
    pub(super) fn abandon(&self, recorder: &Recorder) -> usize {
        let waiting = self.board.drain();
        let running = self.places.iter().filter_map(take);
        let jobs = running.map(|job| (job.entry, job.scheduled_at)).chain(waiting);
        jobs.map(|(entry, scheduled_at)| {
            recorder.record(&entry.missed(scheduled_at, "cut off by the producer's stop"));
        })
        .count()
    }
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneOptions {
    /// Workers of the fast lane.
    pub(super) fast: usize,
    /// Workers of the slow lane.
    pub(super) slow: usize,
    /// Checks at once to one address.
    pub(super) per_address: Option<usize>,
}

/// The way to the workers. Dropping it ends them, once nothing waits any more.
#[derive(Debug)]
pub(super) struct Lanes(Arc<Board>);

impl Drop for Lanes {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Lanes {
    pub(super) fn start(
        options: LaneOptions,
        work: &Arc<dyn Work>,
        slow_sites: &SlowSites,
        stop: &Stop,
        threads: &mut Threads,
    ) -> std::io::Result<(Self, Running)> {
        let LaneOptions { fast, slow, per_address } = options;
        let board = Arc::new(Board::new(fast, slow, per_address));
        let lanes = Self(board.clone());
        let mut places = Vec::with_capacity(fast + slow);
        for (lane, workers) in [(LaneName::Fast, fast), (LaneName::Slow, slow)] {
            let label = ByLane { lane: lane.as_str() };
            let running = metrics().checks_running.get_or_create(&label).clone();
            for number in 0..workers {
                let place = Place::default();
                places.push(place.clone());
                let gate = per_address.map(|_| Arc::new(WorkerGate::new(board.clone())));
                let worker = Worker {
                    lane,
                    place,
                    board: board.clone(),
                    gate,
                    work: work.clone(),
                    slow_sites: slow_sites.clone(),
                    stop: stop.clone(),
                    running: running.clone(),
                };
                let (seat, inbox) = mailbox(1);
                let name = format!("{}-{number}", lane.as_str());
                threads.spawn(&name, move || worker.run(Seat(seat), &inbox))?;
            }
        }
        Ok((lanes, Running { places, board }))
    }

    /// Hands the due time to the site's lane. A due time that won't be checked for that comes
    /// back: this one, or the site's one before it that still waited.
    pub(super) fn submit(
        &self,
        entry: &Arc<Entry>,
        scheduled_at: Timestamp,
    ) -> Result<(), Unstarted> {
        self.0.submit(entry, scheduled_at)
    }
}
