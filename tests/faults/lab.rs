//! Producers and consumers under a steady load, whom things may happen to, and what the oracle
//! needs to know of them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use webmon::runtime::{Stop, now};

use crate::history::{Ending, History, Life, READY_MS, Row, Site};
use crate::oracle::{self, Verdict};
use crate::random::Random;
use crate::report::Line;
use crate::support::daemon::{Daemon, Lab};
use crate::support::services::{TestDatabase, kafka_servers};
use crate::support::{eventually, eventually_within};
use crate::witness::{PATTERN, Witness, page_of};

/// How many checks must pass after the faults.
const CHECKS_AFTER: i64 = 20;
/// Longest time in which a backlog must be gone once the faults are over.
const RECOVERY_CAP: Duration = Duration::from_secs(180);
/// Between two looks at all rows.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Hours of sites that differ between the checks and what was counted of them, and have no mark.
const UNCOUNTED: &str = "
    WITH stored AS (
        SELECT website_id, date_bin('1 hour', timestamp, 'epoch') AS hour, region,
               count(*) FILTER (WHERE outcome = 'up') AS up,
               count(*) FILTER (WHERE outcome = 'down') AS down,
               count(*) FILTER (WHERE outcome = 'missed') AS missed
        FROM check_entry GROUP BY 1, 2, 3)
    SELECT format('site %s, %s: %s, counted: %s', website_id, hour, stored, counted)
    FROM stored FULL JOIN (SELECT website_id, hour, region, up, down, missed FROM check_hour)
        AS counted USING (website_id, hour, region)
    WHERE (stored.up, stored.down, stored.missed)
              IS DISTINCT FROM (counted.up, counted.down, counted.missed)
      AND coalesce(stored.hour, counted.hour) NOT IN (SELECT hour FROM rollup_dirty)";

/// A process of the pipeline; its spool and its identity stay through restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Producer(usize),
    Consumer(usize),
}

impl Who {
    fn program(self) -> &'static str {
        match self {
            Self::Producer(_) => "producer",
            Self::Consumer(_) => "consumer",
        }
    }

    fn name(self) -> String {
        match self {
            Self::Producer(n) => format!("producer-{n}"),
            Self::Consumer(n) => format!("consumer-{n}"),
        }
    }
}

/// The load, and who carries it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Letters, digits and `_`.
    pub(crate) name: &'static str,
    pub(crate) sites: usize,
    /// Seconds between the checks of a site.
    pub(crate) interval: u32,
    pub(crate) producers: usize,
    pub(crate) consumers: usize,
    /// Session timeout of both groups, in seconds.
    pub(crate) session: u32,
}

impl Plan {
    /// 20 checks a second, one producer and one consumer.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, sites: 100, interval: 5, producers: 1, consumers: 1, session: 6 }
    }
}

/// See the module.
pub(crate) struct FaultLab {
    pub(crate) plan: Plan,
    pub(crate) lab: Lab,
    pub(crate) web: Witness,
    pub(crate) random: Random,
    /// Further variables of the producers, and of the consumers.
    pub(crate) producer_env: BTreeMap<String, String>,
    pub(crate) consumer_env: BTreeMap<String, String>,
    /// The scenario's own findings; rows, requests and lives come from here.
    pub(crate) history: History,
    /// Tokens of requests that webmon has counted as lost: they are left out of the history.
    pub(crate) written_off: BTreeSet<String>,
    running: BTreeMap<Who, Daemon>,
    /// Of each producer, the place of its last life in the history.
    lives: BTreeMap<usize, usize>,
}

/// The wall clock, in ms.
pub(crate) fn now_ms() -> i64 {
    now().wall.as_millisecond()
}

impl FaultLab {
    /// Nothing runs yet. The database's address and the broker's may be those of proxies; `lab`'s
    /// own look into the database goes straight to it.
    pub(crate) fn new(plan: Plan, database: TestDatabase, kafka_servers: &str) -> Self {
        let mut lab = Lab::at(database, kafka_servers, plan.name);
        let web = Witness::start();
        let sites: String = (0..plan.sites)
            .map(|n| {
                let (url, interval) = (web.url(n), plan.interval);
                format!(
                    "- {{name: s{n}, url: \"{url}\", interval: {interval}, regex: '{PATTERN}'}}\n"
                )
            })
            .collect();
        lab.config(&format!("websites:\n{sites}"));
        lab.set("WEBMON_KAFKA_CONSUMER_SESSION_TIMEOUT", &plan.session.to_string());
        let history = History {
            region: lab.topic.clone(),
            session_ms: i64::from(plan.session) * 1000,
            ..History::default()
        };
        Self {
            plan,
            lab,
            web,
            random: Random::of_scenario(plan.name),
            producer_env: BTreeMap::new(),
            consumer_env: BTreeMap::new(),
            history,
            written_off: BTreeSet::new(),
            running: BTreeMap::new(),
            lives: BTreeMap::new(),
        }
    }

    /// The same at the services that all tests share: for faults of webmon's processes alone.
    pub(crate) fn shared(plan: Plan) -> Self {
        Self::new(plan, TestDatabase::create(plan.name), &kafka_servers().join(","))
    }

    /// Everybody of the plan.
    pub(crate) fn everybody(&self) -> Vec<Who> {
        let producers = (0..self.plan.producers).map(Who::Producer);
        producers.chain((0..self.plan.consumers).map(Who::Consumer)).collect()
    }

    /// Starts everybody, and waits until checks of all sites arrive as rows.
    pub(crate) fn start_all(&mut self) {
        for who in self.everybody() {
            self.start(who);
            if let Who::Producer(_) = who {
                self.wait_until_ready(who);
            }
            if who == Who::Producer(0) {
                // On a machine that is busy with other tests this comes later than the log line.
                eventually("the sites are scheduled", || match self.metric(who, "webmon_sites") {
                    Some(sites) if sites > 0.0 => Ok(()),
                    other => Err(other),
                });
                self.history.from_ms = now_ms() + READY_MS;
            }
        }
        self.read_sites();
        let sites = i64::try_from(self.plan.sites).expect("a count");
        self.lab.wait_for_count(
            "a row of every site",
            "SELECT count(DISTINCT website_id) FROM check_entry",
            sites,
        );
    }

    fn read_sites(&mut self) {
        eventually("the sites are in the table", || {
            let rows = self
                .lab
                .database
                .client()
                .query("SELECT website_id, name FROM website", &[])
                .map_err(|error| format!("{error:?}"))?;
            let ids: BTreeMap<String, i64> = rows.iter().map(|r| (r.get(1), r.get(0))).collect();
            let names = (0..self.plan.sites).map(|n| format!("s{n}"));
            let all: Option<Vec<i64>> = names.map(|name| ids.get(&name).copied()).collect();
            let all = all.ok_or_else(|| format!("{} sites", ids.len()))?;
            let interval_ms = i64::from(self.plan.interval) * 1000;
            let site = |(n, website_id)| Site { website_id, interval_ms, page: page_of(n) };
            self.history.sites = all.into_iter().enumerate().map(site).collect();
            Ok::<(), String>(())
        });
    }

    /// Starts a process, with the identity it had before.
    pub(crate) fn start(&mut self, who: Who) {
        assert!(!self.running.contains_key(&who), "{who:?} runs");
        let mut env = BTreeMap::new();
        let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
        match who {
            Who::Producer(n) => {
                let number = self.history.lives.len();
                let name = format!("producer-{n}/{number}");
                let spool = self.lab.dir.path().join(format!("spool-{n}"));
                set("WEBMON_PRODUCER_SPOOL_DIR", spool.display().to_string());
                set("WEBMON_MONITORING_USER_AGENT", name.clone());
                let life = Life {
                    producer: who.name(),
                    name,
                    began_ms: now_ms(),
                    ready_ms: None,
                    ended: None,
                    gone_ms: None,
                };
                self.lives.insert(n, number);
                self.history.lives.push(life);
                env.extend(self.producer_env.clone());
            }
            Who::Consumer(_) => env.extend(self.consumer_env.clone()),
        }
        let daemon = self.lab.start_with(who.program(), &[], &env);
        self.running.insert(who, daemon);
    }

    /// Waits until a producer has its sites.
    pub(crate) fn wait_until_ready(&self, who: Who) {
        self.daemon(who).wait_for_log("sites changed");
    }

    /// Waits until no site is two producers' any more: only then it matters that one hands over.
    pub(crate) fn wait_until_shared(&self) {
        let producers = || (0..self.plan.producers).map(Who::Producer);
        let wanted = self.plan.sites as f64;
        eventually("each site is one producer's", || {
            let shares: Vec<Option<f64>> =
                producers().map(|who| self.metric(who, "webmon_sites")).collect();
            let is_shared = shares.iter().all(|share| share.is_some_and(|sites| sites > 0.0));
            let sum: f64 = shares.iter().flatten().sum();
            if is_shared && sum == wanted { Ok(()) } else { Err(shares) }
        });
    }

    /// A running process.
    pub(crate) fn daemon(&self, who: Who) -> &Daemon {
        self.running.get(&who).unwrap_or_else(|| panic!("{who:?} does not run"))
    }

    pub(crate) fn is_running(&self, who: Who) -> bool {
        self.running.contains_key(&who)
    }

    /// Takes the process out, and closes its life.
    fn end(&mut self, who: Who, ending: fn(i64) -> Ending) -> Daemon {
        let daemon = self.running.remove(&who).unwrap_or_else(|| panic!("{who:?} does not run"));
        if let Who::Producer(n) = who {
            let life = &mut self.history.lives[self.lives[&n]];
            life.ready_ms = daemon.logged_at("sites changed").map(|at| at.as_millisecond());
            life.ended = Some(ending(now_ms()));
        }
        daemon
    }

    /// What it said, beside its spool: for whoever looks into a failure.
    fn keep_log(&self, who: Who, log: &[String]) {
        let name = format!("{}-until-{}.log", who.name(), now_ms());
        let _ = std::fs::write(self.lab.dir.path().join(name), log.join("\n"));
    }

    fn is_gone(&mut self, who: Who) {
        if let Who::Producer(n) = who {
            self.history.lives[self.lives[&n]].gone_ms = Some(now_ms());
        }
    }

    /// `kill -9`; its end by that signal is seen.
    pub(crate) fn kill9(&mut self, who: Who) {
        let daemon = self.end(who, |from_ms| Ending::Killed { from_ms });
        self.keep_log(who, &daemon.log());
        assert_eq!(daemon.kill().signal(), Some(9), "{who:?} was gone before the kill");
        self.is_gone(who);
    }

    /// SIGTERM; it ends well within the cap.
    pub(crate) fn stop(&mut self, who: Who) -> Vec<String> {
        let log = self.end(who, |from_ms| Ending::Stopped { from_ms }).stop();
        self.is_gone(who);
        self.keep_log(who, &log);
        log
    }

    /// SIGTERM to everybody at once: who hands over to others takes some seconds.
    fn stop_all(&mut self) -> Vec<(Who, Vec<String>)> {
        let all: Vec<(Who, Daemon)> = self
            .everybody()
            .into_iter()
            .map(|who| (who, self.end(who, |from_ms| Ending::Stopped { from_ms })))
            .collect();
        let logs: Vec<(Who, Vec<String>)> = std::thread::scope(|scope| {
            let stops: Vec<_> =
                all.into_iter().map(|(who, daemon)| (who, scope.spawn(|| daemon.stop()))).collect();
            stops.into_iter().map(|(who, stop)| (who, stop.join().expect("it ends"))).collect()
        });
        for (who, log) in &logs {
            self.is_gone(*who);
            self.keep_log(*who, log);
        }
        logs
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, who: Who, signal: Signal) {
        self.daemon(who).signal(signal);
    }

    /// A value of `/metrics`, all its labels added up; `None` when there is none.
    pub(crate) fn metric(&self, who: Who, name: &str) -> Option<f64> {
        let (_, text) = self.daemon(who).get("/metrics");
        let of_name =
            |line: &&str| line.split([' ', '{']).next() == Some(name) && !line.starts_with('#');
        let values = text.lines().filter(of_name);
        let values: Vec<f64> = values.filter_map(|l| l.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Waits for a while in which things just go on.
    pub(crate) fn let_run(&self, time: Duration) {
        let _ = Stop::new().wait(time);
    }

    /// Brings the history up to date with the database, the web server and the processes.
    pub(crate) fn look(&mut self) -> Result<&History, String> {
        self.history.requests = self.web.requests();
        self.history.requests.retain(|request| !self.written_off.contains(&request.token));
        for (n, number) in &self.lives {
            if let Some(daemon) = self.running.get(&Who::Producer(*n)) {
                let ready = daemon.logged_at("sites changed").map(|at| at.as_millisecond());
                self.history.lives[*number].ready_ms = ready;
            }
        }
        let text = |error: postgres::Error| format!("{error:?}");
        let mut client = self.lab.database.client();
        let rows = client
            .query(
                "SELECT website_id, (extract(epoch FROM timestamp) * 1000)::bigint,
                        floor(extract(epoch FROM started_at) * 1000)::bigint, check_entry_id,
                        region, outcome, failure_kind, http_status, body_bytes, redirects,
                        regex_match, coalesce(regex_captures, '{}'), response_time
                 FROM check_entry",
                &[],
            )
            .map_err(text)?;
        self.history.rows = rows
            .iter()
            .map(|row| Row {
                website_id: row.get(0),
                due_ms: row.get(1),
                started_ms: row.get(2),
                id: row.get(3),
                region: row.get(4),
                outcome: row.get(5),
                failure_kind: row.get(6),
                http_status: row.get(7),
                body_bytes: row.get(8),
                redirects: row.get(9),
                regex_match: row.get(10),
                captures: row.get(11),
                response_time: row.get(12),
            })
            .collect();
        let rejected =
            client.query_one("SELECT count(*) FROM rejected_message", &[]).map_err(text)?;
        self.history.rejected = rejected.get(0);
        Ok(&self.history)
    }

    /// Waits until everything that was asked before now is a row; how long that took.
    pub(crate) fn wait_until_stored(&mut self) -> Duration {
        let (begin, before_ms) = (now().mono, now_ms());
        eventually_within(RECOVERY_CAP, "every request has its row", || {
            // A look costs something too, and should not be what keeps the machine busy.
            self.let_run(LOOK_PAUSE);
            let history = self.look()?;
            let missing = oracle::unstored(history, before_ms);
            match missing.as_slice() {
                [] => Ok(()),
                [first, ..] => Err(format!("{} have none: {first}", missing.len())),
            }
        });
        now().mono.saturating_sub(begin)
    }

    /// After the faults: all is stored, new checks pass, and the spools and the topic are empty
    /// once nothing is due any more. Then everybody is stopped in order. How long it took until
    /// all was stored.
    pub(crate) fn settle(&mut self) -> Duration {
        for who in self.everybody() {
            if !self.is_running(who) {
                self.start(who);
            }
        }
        for n in 0..self.plan.producers {
            self.wait_until_ready(Who::Producer(n));
        }
        let recovery = self.wait_until_stored();
        let healed_ms = now_ms();
        self.lab.wait_for_count(
            "new checks pass",
            &format!(
                "SELECT count(*) FROM check_entry WHERE outcome <> 'missed'
                 AND timestamp > to_timestamp({healed_ms} / 1000.0)"
            ),
            CHECKS_AFTER,
        );
        self.history.until_ms = now_ms() - 1000;
        let pause = "UPDATE website SET status = 'paused'";
        self.lab.database.client().execute(pause, &[]).expect("sites are paused");
        for who in self.everybody() {
            if let Who::Producer(_) = who {
                eventually_within(RECOVERY_CAP, "the spool drains to 0", || {
                    match self.metric(who, "webmon_spool_records") {
                        Some(0.0) => Ok(()),
                        other => Err(other),
                    }
                });
            }
        }
        let consumers = || (0..self.plan.consumers).map(Who::Consumer);
        eventually_within(RECOVERY_CAP, "nothing is left in the topic", || {
            // The gauge comes with a partition, and a consumer may have none; not all of them.
            let lags: Vec<Option<f64>> =
                consumers().map(|who| self.metric(who, "webmon_lag_messages")).collect();
            let is_read = lags.iter().flatten().all(|lag| *lag == 0.0);
            if is_read && lags.iter().any(Option::is_some) { Ok(()) } else { Err(lags) }
        });
        self.wait_until_stored();
        for (who, log) in self.stop_all() {
            let left = log.iter().find(|line| line.contains("stopped with results in the spool"));
            assert_eq!(left, None, "{who:?}");
        }
        self.look().expect("the database answers");
        assert_eq!(self.uncounted(), Vec::<String>::new(), "hours neither counted nor marked");
        recovery
    }

    /// The hours of sites whose checks are not as many as were counted, and that have no mark to
    /// be counted anew: what was committed is in the rollups or will be, whatever was killed.
    fn uncounted(&self) -> Vec<String> {
        let rows = self.lab.database.client().query(UNCOUNTED, &[]).expect("the hours");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The oracle's verdict, without a fault in it.
    pub(crate) fn verdict(&mut self) -> Verdict {
        let verdict = oracle::judge(&self.history);
        let faults = verdict.faults();
        if !faults.is_empty() {
            let kept =
                std::mem::replace(&mut self.lab.dir, tempfile::tempdir().expect("directory"));
            panic!(
                "{} (seed {}, files in {}):\n{}\n{verdict:#?}",
                self.plan.name,
                crate::random::seed(),
                kept.keep().display(),
                faults.join("\n"),
            );
        }
        assert!(verdict.due > 0 && verdict.requests > 0, "nothing was seen: {verdict:?}");
        verdict
    }

    /// Settles, judges and reports; `injected` says how often the fault was there, and what
    /// proves it.
    pub(crate) fn finish(mut self, place: u32, fault: &str, injected: &str) -> Verdict {
        let recovery = self.settle();
        let verdict = self.verdict();
        Line { place, fault, injected, verdict: &verdict, recovery }.write();
        verdict
    }
}
