//! A worker: checks what it is given, records it, and sits down again.
//!
//! Invariants:
//! - A job that a worker was given is recorded once: by it, or by the stop that did not wait for
//!   it, or it is handed back to the board unbegun.
//! - A worker lives until the board ends it. A panic costs one check, which is recorded as
//!   internal.

use std::any::Any;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::board::{Board, Next};
use super::entry::Entry;
use super::job::{Handed, Held, Job, LaneName, Seat, Unstarted};
use super::slow_sites::SlowSites;
use super::{Place, Work, take};
use crate::check::{Check, Failure, FailureKind, Outcome};
use crate::probe::Gate;
use crate::runtime::{MailReceiver, Stop, mono, now};
use crate::telemetry::{ByDaemonThread, Gauge, metrics};

/// Counts the connections of one worker's check on the board.
#[derive(Debug)]
pub(super) struct WorkerGate {
    board: Arc<Board>,
    /// Only what is counted for addresses.
    held: Mutex<Held>,
}

impl WorkerGate {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, held: Mutex::default() }
    }

    fn begin(&self, place: Option<IpAddr>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) =
            Held { place, ..Held::default() };
    }

    fn held(&self) -> Held {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for WorkerGate {
    fn admit(&self, address: IpAddr, begins: bool) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.place == Some(address) || held.hop == Some(address) {
            return true;
        }
        // An address that couldn't be reached is left for the name's next one; the one that
        // answered first is held to the end, that of a redirect until the next.
        let leaving = if begins { held.place } else { held.hop };
        if !self.board.move_to(address, leaving, begins) {
            return false;
        }
        if begins {
            held.place = Some(address);
        } else {
            held.hop = Some(address);
        }
        true
    }

    fn place(&self) -> Option<IpAddr> {
        self.held().place
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) lane: LaneName,
    pub(super) place: Place,
    pub(super) board: Arc<Board>,
    /// Only where addresses have a limit.
    pub(super) gate: Option<Arc<WorkerGate>>,
    pub(super) work: Arc<dyn Work>,
    pub(super) slow_sites: SlowSites,
    pub(super) stop: Stop,
    pub(super) running: Gauge,
}

impl Worker {
    pub(super) fn run(self, seat: Seat, inbox: &MailReceiver<Handed>) {
        let (mut next, mut unstarted) = self.board.next(self.lane, seat, Held::default());
        loop {
            for job in unstarted {
                self.record_unstarted(&job);
            }
            let handed = match next {
                Next::Job(handed) => handed,
                Next::Wait => match inbox.recv() {
                    Some(handed) => handed,
                    None => return,
                },
                Next::End => return,
            };
            (next, unstarted) = self.serve(handed);
        }
    }

    fn serve(&self, handed: Handed) -> (Next, Vec<Unstarted>) {
        let Handed { job, seat } = handed;
        self.running.inc();
        let (entry, scheduled_at) = (job.entry.clone(), job.scheduled_at);
        let mut held = Held { is_trial: job.is_trial, place: job.place, hop: None };
        if let Some(gate) = &self.gate {
            gate.begin(job.place);
        }
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
        let handed_back = self.check_and_record(&entry, scheduled_at);
        if let Some(gate) = &self.gate {
            held = Held { is_trial: held.is_trial, ..gate.held() };
        }
        self.running.dec();
        match handed_back {
            Some((job, address)) => self.board.hand_back(job, address, self.lane, seat, held),
            None => {
                if let Some(address) = held.place {
                    entry.set_address(address);
                }
                self.board.next(self.lane, seat, held)
            }
        }
    }

    /// Whatever happens in there, the job is recorded; or it is the answer, with the address for
    /// which it has to wait.
    fn check_and_record(&self, entry: &Entry, scheduled_at: Timestamp) -> Option<(Job, IpAddr)> {
        let mut is_ours = false;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let check = self.check(entry, scheduled_at)?;
            is_ours = take(&self.place).is_some();
            if is_ours {
                self.work.record(&check);
            }
            Ok(())
        }));
        match result {
            Ok(Ok(())) => None,
            Ok(Err(address)) => Some((take(&self.place)?, address)),
            Err(panic) => {
                if is_ours || take(&self.place).is_some() {
                    self.record_panic(entry, scheduled_at, panic.as_ref());
                }
                None
            }
        }
    }

    fn check(&self, entry: &Entry, scheduled_at: Timestamp) -> Result<Check<'static>, IpAddr> {
        if self.stop.is_requested() {
            return Ok(entry.missed(scheduled_at, "the producer was stopping"));
        }
        let late = now().wall.duration_since(scheduled_at);
        let late = Duration::try_from(late).unwrap_or_default();
        if late >= Duration::from_secs(u64::from(entry.target.interval().secs())) {
            return Ok(entry.missed(scheduled_at, "not started before its next due time"));
        }
        let gate = self.gate.clone().map(|gate| gate as Arc<dyn Gate>);
        let began = mono();
        let check = self.work.check(&entry.target, scheduled_at, gate)?;
        let held = mono().saturating_sub(began);
        metrics().lateness.observe(late.as_secs_f64());
        if let Some(is_slow) = entry.learn(&check, held) {
            self.slow_sites.set(entry.target.website_id(), is_slow);
        }
        Ok(check)
    }

    fn record_unstarted(&self, job: &Unstarted) {
        let check = || self.work.record(&job.missed());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(check)) {
            self.record_panic(&job.entry, job.scheduled_at, panic.as_ref());
        }
    }

    /// Should the same id have reached the spool already, it still is one row.
    fn record_panic(&self, entry: &Entry, scheduled_at: Timestamp, panic: &(dyn Any + Send)) {
        metrics().panics.get_or_create(&ByDaemonThread { thread: "worker" }).inc();
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let website_id = entry.target.website_id();
        log::error!(website_id, message; "panic around a check, which is recorded as internal");
        let mut check = entry.missed(scheduled_at, "");
        check.outcome = Outcome::Down;
        check.failure = Some(Failure::new(FailureKind::Internal, format!("panic: {message}")));
        if catch_unwind(AssertUnwindSafe(|| self.work.record(&check))).is_err() {
            log::error!(website_id; "result cannot be recorded: one more panic");
        }
    }
}
