//! What must be true of the rows, told from outside webmon: from the lattice, from what the test's
//! own web server saw, and from when which producer lived.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use webmon::check::Identity;
use webmon::schedule::lattice;
use webmon::site::Interval;

use crate::history::{Ending, History, Life, Page, READY_MS, Request, Row, Site};

/// A result is on the disk at most this long after its check ended: webmon's promise, in ms.
pub(crate) const LOSS_WINDOW_MS: i64 = 50;
/// How long a check may go on after the server has written the last byte: reading, judging and
/// handing over, by a program without optimisation on a machine that is busy with the fault, in ms.
/// How much of it was needed is in the report, as "oldest": at most 71 ms so far, loss window and all.
pub(crate) const PROBE_END_MS: i64 = 950;
/// How late a check may begin on such a machine, in ms: what was due so shortly before a kill need
/// not have been begun.
const START_LATE_MS: i64 = 2000;
/// How long a group needs for a new deal once its broker is back, in ms: a heartbeat of 1 s, the
/// deal, and a look at the new share of 1 s; the rest is for a machine that is busy.
const DEAL_MS: i64 = 5000;
/// Shares that were taken away are kept for the session timeout and so long, in ms; until then who
/// checks a site may change.
const RELEASE_MS: i64 = 5000;
/// How long a stop waits for checks under way, in ms, with a second more.
const GRACE_MS: i64 = 11_000;
/// Clocks are read in whole ms, and not at once.
const READING_MS: i64 = 2;
/// How much longer a check may say that it took than the server did from reading the request to
/// writing the answer, in ms: connecting, and what comes after the last byte, on a busy machine.
pub(crate) const RESPONSE_SLACK_MS: i64 = 1000;

/// What the oracle found. All texts are faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) due: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) requests: u64,
    /// Requests without a row, and due times without one that a producer should have checked.
    pub(crate) lost: Vec<String>,
    pub(crate) twice: Vec<String>,
    pub(crate) invented: Vec<String>,
    pub(crate) wrong: Vec<String>,
    /// Due times whose check a kill cut off.
    pub(crate) cut: u64,
    /// How long before the kill the oldest of them was answered, in ms.
    pub(crate) cut_oldest_ms: i64,
    /// Due times at which no producer lived.
    pub(crate) uncovered: u64,
    /// Due times of a dead producer's sites that the others had not taken over yet.
    pub(crate) orphaned: u64,
    /// How long after the end of their producer the last of these was, in ms.
    pub(crate) orphaned_ms: i64,
    /// Requests of a second producer for a due time that has its row.
    pub(crate) overlaps: u64,
    /// Rows whose failure the fault explains.
    pub(crate) troubled: u64,
    /// Rows that say "missed" without anything having been done to who owned the site.
    pub(crate) idle: Vec<String>,
    pub(crate) excused: u64,
    pub(crate) rejected: Option<String>,
}

impl Verdict {
    /// Which part of all due times has no row, for whatever reason, in percent.
    pub(crate) fn without_row_percent(&self) -> f64 {
        let without = self.cut + self.orphaned + self.uncovered;
        100.0 * without as f64 / self.due.max(1) as f64
    }

    /// Every fault, the first few of each kind.
    pub(crate) fn faults(&self) -> Vec<String> {
        let kinds = [
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("invented", &self.invented),
            ("wrong", &self.wrong),
            ("missed for no reason", &self.idle),
        ];
        let mut all: Vec<String> = Vec::new();
        for (kind, found) in kinds {
            let some =
                found.iter().take(5).map(|text| format!("{kind} (of {}): {text}", found.len()));
            all.extend(some);
        }
        all.extend(self.rejected.clone());
        all
    }
}

/// Why a due time has no row.
enum Gap {
    Cut,
    Uncovered,
    /// So long after the end of its producer, in ms.
    Orphaned(i64),
    Excused,
    Lost,
}

struct Judge<'a> {
    history: &'a History,
    /// By site and due time.
    rows: HashMap<(usize, i64), &'a Row>,
    by_token: HashMap<&'a str, &'a Row>,
    asked: HashMap<&'a str, &'a Request>,
    /// By site and the due time they seem to be for.
    requests: HashMap<(usize, i64), Vec<&'a Request>>,
    life_of: HashMap<&'a str, &'a Life>,
    /// By site, in the order of arrival.
    askers: Vec<Vec<&'a Request>>,
    verdict: Verdict,
}

/// The verdict on a history.
pub(crate) fn judge(history: &History) -> Verdict {
    let mut judge = Judge::new(history);
    judge.read_rows();
    judge.find_requests(i64::MAX);
    judge.find_due_times();
    if history.rejected != history.rejected_wanted {
        let (is, wanted) = (history.rejected, history.rejected_wanted);
        judge.verdict.rejected = Some(format!("{is} rejected messages, not {wanted}"));
    }
    judge.verdict
}

/// The requests that arrived before `before_ms` and have no row yet, but should.
pub(crate) fn unstored(history: &History, before_ms: i64) -> Vec<String> {
    let mut judge = Judge::new(history);
    judge.read_rows();
    judge.find_requests(before_ms);
    judge.verdict.lost
}

/// The tokens of the requests that arrived before `before_ms` and have no row.
pub(crate) fn without_row(history: &History, before_ms: i64) -> Vec<String> {
    let stored: BTreeSet<&str> =
        history.rows.iter().flat_map(|row| &row.captures).map(String::as_str).collect();
    let requests = history.requests.iter().filter(|request| request.arrived_ms < before_ms);
    let without = requests.filter(|request| !stored.contains(request.token.as_str()));
    without.map(|request| request.token.clone()).collect()
}

impl<'a> Judge<'a> {
    fn new(history: &'a History) -> Self {
        let mut judge = Self {
            history,
            rows: HashMap::new(),
            by_token: HashMap::new(),
            asked: history.requests.iter().map(|r| (r.token.as_str(), r)).collect(),
            requests: HashMap::new(),
            life_of: history.lives.iter().map(|life| (life.name.as_str(), life)).collect(),
            askers: vec![Vec::new(); history.sites.len()],
            verdict: Verdict::default(),
        };
        for request in &history.requests {
            let due_ms = judge.last_due(request.site, request.arrived_ms);
            judge.requests.entry((request.site, due_ms)).or_default().push(request);
            judge.askers[request.site].push(request);
        }
        judge.askers.iter_mut().for_each(|all| all.sort_by_key(|request| request.arrived_ms));
        judge.verdict.requests = history.requests.len() as u64;
        judge
    }

    fn identity(&self, site: usize) -> Identity {
        Identity::new(self.history.sites[site].website_id, &self.history.region)
    }

    fn offset_ms(&self, site: usize) -> i64 {
        let seconds = self.history.sites[site].interval_ms / 1000;
        let interval = Interval::from_secs(u32::try_from(seconds).expect("an interval"));
        self.identity(site).offset_ms(interval.expect("an interval"))
    }

    /// The last due time that is not after `ms`.
    fn last_due(&self, site: usize, ms: i64) -> i64 {
        let interval_ms = self.history.sites[site].interval_ms;
        lattice::next_due(ms - interval_ms, self.offset_ms(site), interval_ms)
    }

    /// Each row alone: due, derived, one of its kind, and true.
    fn read_rows(&mut self) {
        let sites: HashMap<i64, usize> =
            self.history.sites.iter().enumerate().map(|(n, site)| (site.website_id, n)).collect();
        for row in &self.history.rows {
            *self.verdict.outcomes.entry(row.outcome.clone()).or_default() += 1;
            let Some(site) = sites.get(&row.website_id).copied() else {
                self.verdict.invented.push(format!("unknown site: {row:?}"));
                continue;
            };
            if self.rows.insert((site, row.due_ms), row).is_some() {
                self.verdict.twice.push(format!("site {site}: {row:?}"));
            }
            if !self.was_due(site, row.due_ms) {
                self.verdict.invented.push(format!("site {site} was not due: {row:?}"));
            }
            let at = jiff::Timestamp::from_millisecond(row.due_ms).expect("a due time");
            if row.id != self.identity(site).check_entry_id(at) {
                self.verdict.wrong.push(format!("site {site}: not its id: {row:?}"));
            }
            if row.region != self.history.region {
                self.verdict.wrong.push(format!("site {site}: not our region: {row:?}"));
            }
            match row.captures.as_slice() {
                [] => self.read_without_token(site, row),
                [token] => match self.asked.get(token.as_str()).copied() {
                    Some(request) if request.site == site => {
                        if self.by_token.insert(token, row).is_some() {
                            self.verdict.twice.push(format!("one request, two rows: {row:?}"));
                        }
                        self.compare(site, row, request);
                    }
                    _ => self.verdict.invented.push(format!("site {site}: no such token: {row:?}")),
                },
                _ => self.verdict.wrong.push(format!("site {site}: two tokens: {row:?}")),
            }
        }
    }

    /// On the lattice, and some producer lived.
    fn was_due(&self, site: usize, due_ms: i64) -> bool {
        let interval_ms = self.history.sites[site].interval_ms;
        lattice::is_due_time(due_ms, self.offset_ms(site), interval_ms)
            && self.history.lives.iter().any(|life| life.may_check_at(due_ms))
    }

    fn read_without_token(&mut self, site: usize, row: &Row) {
        let kind = row.failure_kind.as_deref();
        if row.outcome == "missed" {
            if row.http_status.is_some() || row.response_time.is_some() || row.started_ms.is_some()
            {
                self.verdict.wrong.push(format!("site {site}: missed, yet checked: {row:?}"));
            }
            if !self.may_be_missed(site, row.due_ms) {
                self.verdict.idle.push(format!("site {site}: {row:?}"));
            }
        } else if row.outcome == "down" && kind.is_some_and(|k| self.history.tolerated.contains(&k))
        {
            self.verdict.troubled += 1;
        } else {
            self.verdict.wrong.push(format!("site {site}: no token: {row:?}"));
        }
    }

    /// Whether a living producer may not have begun a check in time: a stop records what still waits
    /// or is under way, a site that comes with a new share has a due time behind it, and a scenario
    /// may have starved the process.
    fn may_be_missed(&self, site: usize, due_ms: i64) -> bool {
        let history = self.history;
        let interval_ms = history.sites[site].interval_ms;
        let is_within = |from_ms: i64, to_ms: i64| (from_ms..=to_ms).contains(&due_ms);
        let is_stopped = history.lives.iter().any(|life| match life.ended {
            Some(Ending::Stopped { from_ms }) => is_within(
                from_ms - GRACE_MS.max(interval_ms),
                life.gone_ms.unwrap_or(from_ms + GRACE_MS),
            ),
            _ => false,
        });
        let is_alone = history.lives.iter().all(|life| life.producer == history.lives[0].producer);
        let settled_ms = 2 * history.session_ms + RELEASE_MS + interval_ms;
        let changes = history
            .lives
            .iter()
            .flat_map(|life| [Some(life.began_ms), life.ready_ms, life.end_ms(), life.gone_ms])
            .flatten()
            .chain(history.kafka_away.iter().flat_map(|(from_ms, to_ms)| [*from_ms, *to_ms]));
        let is_dealt = || {
            !is_alone && changes.into_iter().any(|ms| is_within(ms - interval_ms, ms + settled_ms))
        };
        is_stopped || self.is_starved(due_ms) || is_dealt()
    }

    fn is_starved(&self, due_ms: i64) -> bool {
        self.history.starved.iter().any(|(from_ms, to_ms)| (*from_ms..=*to_ms).contains(&due_ms))
    }

    /// The row against what the server did.
    fn compare(&mut self, site: usize, row: &Row, request: &Request) {
        let Site { page, interval_ms, .. } = self.history.sites[site];
        let (outcome, kind, status) = match page {
            Page::Broken => ("down", Some("status"), 503),
            Page::Plain | Page::Slow | Page::Moved => ("up", None, 200),
        };
        let seconds = row.response_time.unwrap_or(-1.0);
        let started_ms = row.started_ms.unwrap_or(i64::MIN);
        // After a step of the clock the last due time is checked late, however near the next is.
        let held_ms = if self.is_starved(row.due_ms) { START_LATE_MS } else { 0 };
        // Of what was never answered only the check knows when it ended.
        let most_ms = request.answered_ms.map(|ms| ms - request.arrived_ms + RESPONSE_SLACK_MS);
        for (what, is_right) in [
            ("outcome", row.outcome == outcome),
            ("failure_kind", row.failure_kind.as_deref() == kind),
            ("http_status", row.http_status == Some(status)),
            ("body_bytes", row.body_bytes == i32::try_from(request.bytes).ok()),
            ("redirects", row.redirects == Some(i16::from(page == Page::Moved))),
            ("regex_match", row.regex_match == Some(true)),
            ("response_time", seconds * 1000.0 + 1.0 >= request.delay_ms as f64 && seconds > 0.0),
            ("a long response_time", most_ms.is_none_or(|most| seconds * 1000.0 <= most as f64)),
            ("an early start", row.due_ms <= started_ms),
            ("a start past the next due time", started_ms < row.due_ms + interval_ms + held_ms),
            ("a request before the start", started_ms <= request.arrived_ms + READING_MS),
        ] {
            if !is_right {
                self.verdict.wrong.push(format!("site {site}: {what}: {row:?} of {request:?}"));
            }
        }
    }

    /// Each request has its row, or its due time has that of another producer, or a kill came.
    fn find_requests(&mut self, before_ms: i64) {
        for request in self.history.requests.iter().filter(|r| r.arrived_ms < before_ms) {
            if self.by_token.contains_key(request.token.as_str()) {
                continue;
            }
            if self.is_of_another(request) {
                self.verdict.overlaps += 1;
            } else if !self.was_cut(request) {
                self.verdict.lost.push(format!("no row of {request:?}"));
            }
        }
    }

    fn is_of_another(&self, request: &Request) -> bool {
        let Some(life) = self.life_of.get(request.life.as_str()) else { return false };
        let site = request.site;
        let due_ms = self.last_due(site, request.arrived_ms);
        let row_is_theirs = |due_ms| {
            self.rows.get(&(site, due_ms)).map(|row| match row.captures.first() {
                Some(token) => {
                    self.asked.get(token.as_str()).is_some_and(|other| other.life != life.name)
                }
                None => self.may_be_unasked(life, due_ms),
            })
        };
        match row_is_theirs(due_ms) {
            Some(true) => true,
            // It may have been a late one, for the due time before.
            Some(false) => {
                row_is_theirs(due_ms - self.history.sites[site].interval_ms) == Some(true)
            }
            None => false,
        }
    }

    /// Whether a row without a token can stand for a request all the same: it is of another
    /// producer, of a check that the stop cut off, or of one whose answer never got through.
    fn may_be_unasked(&self, life: &Life, due_ms: i64) -> bool {
        let others = self.history.lives.iter().filter(|other| other.name != life.name);
        let has_other = others.into_iter().any(|other| other.may_check_at(due_ms));
        let is_cut_off = life.gone_ms.is_some_and(|gone| gone - due_ms <= GRACE_MS);
        has_other || is_cut_off || !self.history.tolerated.is_empty()
    }

    /// Whether a kill came while the check was under way, or within the promised window after it.
    fn was_cut(&mut self, request: &Request) -> bool {
        let life = self.life_of.get(request.life.as_str());
        let Some(killed_ms) = life.and_then(|life| life.killed_ms()) else { return false };
        let Some(answered_ms) = request.answered_ms else {
            return request.arrived_ms >= killed_ms - self.longest_check_ms(request);
        };
        let before_ms = killed_ms - answered_ms;
        let is_cut = before_ms <= LOSS_WINDOW_MS + PROBE_END_MS;
        if is_cut {
            self.verdict.cut_oldest_ms = self.verdict.cut_oldest_ms.max(before_ms);
        }
        is_cut
    }

    fn longest_check_ms(&self, request: &Request) -> i64 {
        i64::try_from(request.delay_ms).unwrap_or(0) + START_LATE_MS
    }

    /// Each due time has a row, or a reason to have none.
    fn find_due_times(&mut self) {
        let history = self.history;
        for site in 0..history.sites.len() {
            let interval_ms = history.sites[site].interval_ms;
            let mut due_ms = self.last_due(site, history.from_ms - 1) + interval_ms;
            while due_ms <= history.until_ms {
                self.verdict.due += 1;
                if !self.rows.contains_key(&(site, due_ms)) {
                    match self.gap(site, due_ms) {
                        Gap::Cut => self.verdict.cut += 1,
                        Gap::Uncovered => self.verdict.uncovered += 1,
                        Gap::Orphaned(ms) => {
                            self.verdict.orphaned += 1;
                            self.verdict.orphaned_ms = self.verdict.orphaned_ms.max(ms);
                        }
                        Gap::Excused => self.verdict.excused += 1,
                        Gap::Lost => self.verdict.lost.push(format!(
                            "no row of site {site} due at {due_ms}; lives: {:?}",
                            self.lives_around(due_ms)
                        )),
                    }
                }
                due_ms += interval_ms;
            }
        }
    }

    fn gap(&mut self, site: usize, due_ms: i64) -> Gap {
        let history = self.history;
        if history.excused.iter().any(|(from, to)| (*from..=*to).contains(&due_ms)) {
            return Gap::Excused;
        }
        let asked = self.requests.get(&(site, due_ms)).cloned().unwrap_or_default();
        if asked.into_iter().any(|request| self.was_cut(request)) {
            return Gap::Cut;
        }
        let was_not_begun = |life: &Life| {
            life.killed_ms().is_some_and(|end_ms| {
                life.is_certain_at(due_ms)
                    && (end_ms - START_LATE_MS..end_ms).contains(&due_ms)
                    && self.may_own(life, site, end_ms)
            })
        };
        if history.lives.iter().any(was_not_begun) {
            return Gap::Cut;
        }
        if !history.lives.iter().any(|life| life.is_certain_at(due_ms)) {
            return Gap::Uncovered;
        }
        let left_by = history.lives.iter().filter(|life| self.is_orphaned(life, site, due_ms));
        match left_by.filter_map(Life::end_ms).max() {
            Some(end_ms) => Gap::Orphaned(due_ms - end_ms),
            None => Gap::Lost,
        }
    }

    /// Whether the site may have been that life's, and nobody's yet after it.
    fn is_orphaned(&self, life: &Life, site: usize, due_ms: i64) -> bool {
        let (from_ms, mut until_ms) = match life.ended {
            None => return false,
            // Who stops goes on until the others have its sites: no time at all is between them.
            Some(Ending::Stopped { from_ms }) => (from_ms, from_ms),
            Some(Ending::Killed { from_ms }) => {
                let interval_ms = self.history.sites[site].interval_ms;
                (from_ms, from_ms + self.history.session_ms + interval_ms)
            }
        };
        // Without a broker there is no group, and its clocks start anew with it.
        for (away_ms, back_ms) in &self.history.kafka_away {
            if *away_ms <= until_ms && *back_ms >= from_ms {
                until_ms = until_ms.max(*back_ms + self.history.session_ms + DEAL_MS);
            }
        }
        // Who starts takes all sites until the group has spoken.
        let next = self.history.lives.iter().filter(|next| {
            next.producer == life.producer && next.began_ms >= from_ms && next.name != life.name
        });
        if let Some(ready_ms) = next.filter_map(|next| next.ready_ms).min() {
            until_ms = until_ms.min(ready_ms + READY_MS);
        }
        (from_ms..until_ms).contains(&due_ms) && self.may_own(life, site, from_ms)
    }

    /// While nothing else changes, the sites of a producer are those it asked last.
    fn may_own(&self, life: &Life, site: usize, end_ms: i64) -> bool {
        let since_ms = end_ms
            - 2 * self.history.session_ms
            - RELEASE_MS
            - 2 * self.history.sites[site].interval_ms;
        let is_recent = |ms: &i64| (since_ms..end_ms).contains(ms);
        let has_changed = self
            .history
            .lives
            .iter()
            .filter(|other| other.name != life.name)
            .flat_map(|other| [Some(other.began_ms), other.ready_ms, other.end_ms()])
            .chain([Some(life.began_ms)])
            .flatten()
            .chain(self.history.kafka_away.iter().flat_map(|(from, to)| [*from, *to]))
            .any(|ms| is_recent(&ms));
        let last = self.askers[site].iter().rev().find(|request| request.arrived_ms < end_ms);
        has_changed || last.is_none_or(|request| request.life == life.name)
    }

    fn lives_around(&self, ms: i64) -> BTreeSet<String> {
        let around = self.history.lives.iter().filter(|life| {
            life.began_ms - 30_000 < ms && life.end_ms().is_none_or(|end| ms < end + 30_000)
        });
        around
            .map(|life| {
                let relative = |at: i64| at - ms;
                let (ready, end) = (life.ready_ms.map(relative), life.end_ms().map(relative));
                format!("{} {} ready {ready:?} end {end:?}", life.name, relative(life.began_ms))
            })
            .collect()
    }
}
