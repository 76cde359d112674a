//! What a scenario has seen from outside webmon.

use uuid::Uuid;

/// From the log line about a site list to its first due time in the schedule, in ms.
pub(crate) const READY_MS: i64 = 500;

/// What a site answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// 200 at once.
    Plain,
    /// 503.
    Broken,
    /// 200 after a delay.
    Slow,
    /// A redirect to a 200.
    Moved,
}

#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) website_id: i64,
    pub(crate) interval_ms: i64,
    pub(crate) page: Page,
}

/// A request that the web server saw; a redirect and what follows it are one.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Index of the site.
    pub(crate) site: usize,
    /// Which life of which producer asked.
    pub(crate) life: String,
    pub(crate) token: String,
    pub(crate) arrived_ms: i64,
    /// When the last byte was written; `None`: it never was.
    pub(crate) answered_ms: Option<i64>,
    pub(crate) delay_ms: u64,
    pub(crate) bytes: usize,
}

/// A row of `check_entry`.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) website_id: i64,
    pub(crate) due_ms: i64,
    pub(crate) started_ms: Option<i64>,
    pub(crate) id: Uuid,
    pub(crate) region: String,
    pub(crate) outcome: String,
    pub(crate) failure_kind: Option<String>,
    pub(crate) http_status: Option<i32>,
    pub(crate) body_bytes: Option<i32>,
    pub(crate) redirects: Option<i16>,
    pub(crate) regex_match: Option<bool>,
    pub(crate) captures: Vec<String>,
    pub(crate) response_time: Option<f64>,
}

/// How a process ended, and when, in ms: the signal was sent after the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Killed { from_ms: i64 },
    Stopped { from_ms: i64 },
}

/// One run of a producer.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) producer: String,
    /// What its checks call themselves.
    pub(crate) name: String,
    pub(crate) began_ms: i64,
    /// When it had its sites.
    pub(crate) ready_ms: Option<i64>,
    pub(crate) ended: Option<Ending>,
    /// When it was gone: a stop takes its time, in which checks go on.
    pub(crate) gone_ms: Option<i64>,
}

impl Life {
    pub(crate) fn end_ms(&self) -> Option<i64> {
        let (Ending::Killed { from_ms } | Ending::Stopped { from_ms }) = self.ended?;
        Some(from_ms)
    }

    /// Whether it may have begun a check at that time.
    pub(crate) fn may_check_at(&self, ms: i64) -> bool {
        self.began_ms <= ms && self.gone_ms.is_none_or(|gone| ms <= gone)
    }

    pub(crate) fn killed_ms(&self) -> Option<i64> {
        match self.ended? {
            Ending::Killed { from_ms } => Some(from_ms),
            Ending::Stopped { .. } => None,
        }
    }

    pub(crate) fn is_certain_at(&self, ms: i64) -> bool {
        self.ready_ms.is_some_and(|ready| ready + READY_MS <= ms)
            && self.end_ms().is_none_or(|end| ms < end)
    }
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) region: String,
    pub(crate) sites: Vec<Site>,
    pub(crate) requests: Vec<Request>,
    pub(crate) rows: Vec<Row>,
    pub(crate) lives: Vec<Life>,
    /// The session timeout of the producers' group, in ms.
    pub(crate) session_ms: i64,
    /// When no broker could be reached by producers, from and to, in ms: no group then.
    pub(crate) kafka_away: Vec<(i64, i64)>,
    /// Due times between these must have their rows.
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
    /// Due times in these need not have one, and are counted.
    pub(crate) excused: Vec<(i64, i64)>,
    /// When the scenario kept a producer from beginning its checks in time, from and to, in ms.
    pub(crate) starved: Vec<(i64, i64)>,
    /// Kinds of failures that the fault itself explains; such a row has no token.
    pub(crate) tolerated: Vec<&'static str>,
    /// Rows of `rejected_message`, and how many there should be.
    pub(crate) rejected: i64,
    pub(crate) rejected_wanted: i64,
}
