//! Two lanes of fixed workers, each behind its own bounded channel: sites that were slow last
//! time wait for each other, never in front of the healthy ones.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;

use super::recorder::Recorder;
use crate::check::{Check, FailureKind};
use crate::probe::{Prober, Target};
use crate::runtime::{Stop, Threads, now};
use crate::telemetry::{ByLane, metrics};

/// Jobs that may wait in a lane per worker of it. A check of a healthy site takes some ms, so
/// this is about a second of delay; past it a due time is missed at once instead of late.
const QUEUE_PER_WORKER: usize = 64;
/// A check that took longer sends its site to the slow lane. A site that begins to hang holds a
/// worker of the fast lane once, for its timeout, before it is moved.
const SLOW_AFTER: f64 = 2.0;
/// Quick checks in a row that bring a site back to the fast lane.
const QUICK_TO_RETURN: u8 = 2;

/// A site as the dispatcher and the workers share it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) target: Target,
    /// 0: in the fast lane; else the quick checks that are still wanted before it returns there.
    probation: AtomicU8,
}

impl Entry {
    pub(super) fn new(target: Target) -> Self {
        Self { target, probation: AtomicU8::new(0) }
    }

    fn is_slow(&self) -> bool {
        self.probation.load(Ordering::Relaxed) > 0
    }

    /// Chooses the lane of the next check by this one.
    fn learn(&self, check: &Check<'_>) {
        let timed_out = check.failure.as_ref().is_some_and(|f| f.kind == FailureKind::Timeout);
        if timed_out || check.response_time.is_some_and(|seconds| seconds > SLOW_AFTER) {
            self.probation.store(QUICK_TO_RETURN, Ordering::Relaxed);
        } else {
            let wanted = self.probation.load(Ordering::Relaxed);
            self.probation.store(wanted.saturating_sub(1), Ordering::Relaxed);
        }
    }

    pub(super) fn missed(&self, scheduled_at: Timestamp, reason: &str) -> Check<'static> {
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

/// One due time of one site.
#[derive(Clone, Debug)]
struct Job {
    entry: Arc<Entry>,
    scheduled_at: Timestamp,
}

/// Where a worker keeps what it is checking. Whoever takes it out records it, so that a check is
/// recorded once, by its worker or by the stop that did not wait for it.
type Place = Arc<Mutex<Option<Job>>>;

/// The checks under way.
#[derive(Debug)]
pub(super) struct Running(Vec<Place>);

impl Running {
    /// Records every check under way as missed; their workers record nothing any more.
    pub(super) fn abandon(&self, recorder: &Recorder) -> usize {
        let jobs = self.0.iter().filter_map(take);
        jobs.map(|job| {
            let reason = "cut off by the producer's stop";
            recorder.record(&job.entry.missed(job.scheduled_at, reason));
        })
        .count()
    }
}

fn take(place: &Place) -> Option<Job> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[derive(Debug)]
struct Lane {
    name: &'static str,
    full: &'static str,
    jobs: Sender<Job>,
}

/// The way to the workers. Dropping it ends them, once the queues are empty.
#[derive(Debug)]
pub(super) struct Lanes {
    fast: Lane,
    slow: Lane,
}

impl Lanes {
    pub(super) fn start(
        fast: usize,
        slow: usize,
        prober: &Arc<Prober>,
        recorder: &Recorder,
        stop: &Stop,
        threads: &mut Threads,
    ) -> std::io::Result<(Self, Running)> {
        let mut places = Vec::with_capacity(fast + slow);
        let mut lane =
            |name: &'static str, workers: usize, full: &'static str| -> std::io::Result<Lane> {
                let (jobs, inbox) = bounded(workers * QUEUE_PER_WORKER);
                for number in 0..workers {
                    let place = Place::default();
                    places.push(place.clone());
                    let worker = Worker {
                        place,
                        lane: name,
                        prober: prober.clone(),
                        recorder: recorder.clone(),
                        inbox: inbox.clone(),
                        stop: stop.clone(),
                    };
                    threads.spawn(&format!("{name}-{number}"), move || worker.run())?;
                }
                Ok(Lane { name, full, jobs })
            };
        let lanes = Self {
            fast: lane("fast", fast, "no room in the fast lane's queue")?,
            slow: lane("slow", slow, "no room in the slow lane's queue")?,
        };
        Ok((lanes, Running(places)))
    }

    /// Hands the due time to the site's lane; the reason when there is no room.
    pub(super) fn submit(
        &self,
        entry: &Arc<Entry>,
        scheduled_at: Timestamp,
    ) -> Result<(), &'static str> {
        let lane = if entry.is_slow() { &self.slow } else { &self.fast };
        match lane.jobs.try_send(Job { entry: entry.clone(), scheduled_at }) {
            Ok(()) => Ok(()),
            Err(_) => Err(lane.full),
        }
    }

    /// Brings the queues' gauges up to date.
    pub(super) fn measure(&self) {
        for lane in [&self.fast, &self.slow] {
            let label = ByLane { lane: lane.name };
            metrics().checks_queued.get_or_create(&label).set(lane.jobs.len() as i64);
        }
    }
}

#[derive(Debug)]
struct Worker {
    place: Place,
    lane: &'static str,
    prober: Arc<Prober>,
    recorder: Recorder,
    inbox: Receiver<Job>,
    stop: Stop,
}

impl Worker {
    fn run(self) {
        let running = metrics().checks_running.get_or_create(&ByLane { lane: self.lane }).clone();
        while let Ok(job) = self.inbox.recv() {
            running.inc();
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(job.clone());
            let check = self.check(&job);
            if take(&self.place).is_some() {
                self.recorder.record(&check);
            }
            running.dec();
        }
    }

    fn check(&self, job: &Job) -> Check<'static> {
        if self.stop.is_requested() {
            return job.entry.missed(job.scheduled_at, "the producer was stopping");
        }
        let late = now().wall.duration_since(job.scheduled_at);
        let late = Duration::try_from(late).unwrap_or_default();
        if late >= Duration::from_secs(u64::from(job.entry.target.interval().secs())) {
            return job.entry.missed(job.scheduled_at, "not started before its next due time");
        }
        metrics().lateness.observe(late.as_secs_f64());
        let check = self.prober.check(&job.entry.target, job.scheduled_at);
        job.entry.learn(&check);
        check
    }
}
