//! A due time on its way: to a worker, to its address, or back unstarted.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::entry::{Entry, Standing};
use crate::check::Check;
use crate::runtime::MailSender;

/// The two lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneName {
    Fast,
    Slow,
}

impl LaneName {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

/// One due time of one site.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) entry: Arc<Entry>,
    pub(super) scheduled_at: Timestamp,
    pub(super) standing: Standing,
    /// The address at which it counts already.
    pub(super) place: Option<IpAddr>,
    /// It counts as an untried one in the fast lane.
    pub(super) is_trial: bool,
}

impl Job {
    pub(super) fn is_of(&self, entry: &Arc<Entry>) -> bool {
        Arc::ptr_eq(&self.entry, entry)
    }
}

/// A due time that won't be checked, and why.
#[derive(Debug)]
pub(in crate::producer) struct Unstarted {
    pub(super) entry: Arc<Entry>,
    pub(super) scheduled_at: Timestamp,
    reason: &'static str,
}

impl Unstarted {
    /// As it is recorded.
    pub(in crate::producer) fn missed(&self) -> Check<'static> {
        self.entry.missed(self.scheduled_at, self.reason)
    }

    pub(super) fn new(job: Job, reason: &'static str) -> Self {
        Self { entry: job.entry, scheduled_at: job.scheduled_at, reason }
    }
}

/// The way to one worker: its own mailbox, of one place. It goes with the job to the worker, which
/// sits down with it again; so an end is the drop of all seats that lie idle.
#[derive(Clone, Debug)]
pub(super) struct Seat(pub(super) MailSender<Handed>);

/// A job on its way to a worker.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) job: Job,
    pub(super) seat: Seat,
}

/// What a check that ended still counts for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) is_trial: bool,
    /// Where its first connection went.
    pub(super) place: Option<IpAddr>,
    /// Where a redirect led it.
    pub(super) hop: Option<IpAddr>,
}
