//! The wheel thread: waits for the next due time and hands it to a lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::lanes::{Entry, Lanes, SlowSites};
use super::recorder::Recorder;
use crate::probe::Target;
use crate::runtime::{MailReceiver, MailSender, Moment, NoMail, Stop, Threads, mailbox, now};
use crate::schedule::{Advance, Reading, Schedule};
use crate::telemetry::{ByReason, metrics};

/// Changes that may wait: the site list sends few and large ones.
const CHANGES_WAITING: usize = 4;
/// The longest sleep: a step of the wall clock is noticed after this at the latest.
const SLEEP_MAX_MS: u64 = 500;

/// What is different in the list of sites this producer owns.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// New sites, and sites with other settings.
    pub(super) set: Vec<Target>,
    /// Sites that are no longer to be checked here.
    pub(super) gone: Vec<i64>,
}

/// Starts the thread; the answer is where changes of the site list go.
pub(super) fn start(
    lanes: Lanes,
    recorder: Recorder,
    slow_sites: SlowSites,
    stop: &Stop,
    threads: &mut Threads,
) -> std::io::Result<MailSender<Changes>> {
    let (sender, changes) = mailbox(CHANGES_WAITING);
    let stop = stop.clone();
    threads.spawn("dispatcher", move || {
        let schedule = Schedule::new(reading(now()));
        let entries = HashMap::new();
        Dispatcher { lanes, recorder, slow_sites, schedule, entries }.run(&changes, &stop);
    })?;
    Ok(sender)
}

fn reading(moment: Moment) -> Reading {
    Reading {
        wall_ms: moment.wall.as_millisecond(),
        mono_ms: u64::try_from(moment.mono.as_millis()).unwrap_or(u64::MAX),
    }
}

struct Dispatcher {
    lanes: Lanes,
    recorder: Recorder,
    slow_sites: SlowSites,
    schedule: Schedule,
    entries: HashMap<i64, Arc<Entry>>,
}

impl Dispatcher {
    fn run(mut self, changes: &MailReceiver<Changes>, stop: &Stop) {
        let mut out = Advance::default();
        while !stop.is_requested() {
            self.advance(&mut out);
            let sleep = self.schedule.sleep_ms(reading(now())).unwrap_or(SLEEP_MAX_MS);
            match changes.recv_timeout(Duration::from_millis(sleep.min(SLEEP_MAX_MS))) {
                Ok(changes) => {
                    // Due times of a site that passed unseen are forgotten with a change of it.
                    let at = self.advance(&mut out);
                    self.apply(changes, at);
                }
                Err(NoMail::Late) => {}
                // The site list has ended, which it only does at the stop.
                Err(NoMail::Ended) => stop.wait_forever(),
            }
        }
    }

    fn advance(&mut self, out: &mut Advance) -> Reading {
        let at = reading(now());
        self.schedule.advance(at, out);
        self.hand_out(out);
        self.slow_sites.keep_at(Duration::from_millis(at.mono_ms));
        at
    }

    fn hand_out(&self, out: &Advance) {
        if let Some(step_ms) = out.step_ms {
            log::warn!(step_ms; "wall clock stepped");
        }
        if out.unrecorded > 0 {
            let reason = "slept";
            metrics().unrecorded.get_or_create(&ByReason { reason }).inc_by(out.unrecorded);
            log::warn!(due_times = out.unrecorded; "due times passed unseen: no data");
        }
        for missed in &out.missed {
            self.record_missed(missed.website_id, missed.scheduled_ms, "the producer was held up");
        }
        for due in &out.due {
            let Some(entry) = self.entries.get(&due.website_id) else { continue };
            let Ok(scheduled_at) = Timestamp::from_millisecond(due.scheduled_ms) else { continue };
            if let Err(unstarted) = self.lanes.submit(entry, scheduled_at) {
                self.recorder.record(&unstarted.missed());
            }
        }
    }

    fn record_missed(&self, website_id: i64, scheduled_ms: i64, reason: &str) {
        let Some(entry) = self.entries.get(&website_id) else { return };
        let Ok(scheduled_at) = Timestamp::from_millisecond(scheduled_ms) else { return };
        self.recorder.record(&entry.missed(scheduled_at, reason));
    }

    /// `at` is the reading of the last advance: a due time after it is still to come.
    fn apply(&mut self, changes: Changes, at: Reading) {
        for website_id in changes.gone {
            self.schedule.remove(website_id);
            self.entries.remove(&website_id);
            self.slow_sites.set(website_id, false);
        }
        for target in changes.set {
            let (website_id, interval) = (target.website_id(), target.interval());
            self.schedule.insert(website_id, target.identity(), interval, at);
            let entry = match self.entries.get(&website_id) {
                Some(before) => before.changed(target),
                None => Entry::new(target, self.slow_sites.contains(website_id)),
            };
            self.entries.insert(website_id, Arc::new(entry));
        }
        metrics().sites.set(self.entries.len() as i64);
    }
}
