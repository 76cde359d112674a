//! The lanes with hands of their own, and with the probe against a counting server.

mod limit;
mod model;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::check::{Failure, FailureKind, Outcome};
use crate::runtime::now;
use crate::site::{SiteDefaults, SiteSpec};
use crate::spool::{Spool, SpoolOptions};

const CAP: Duration = Duration::from_secs(30);

fn until<S: std::fmt::Debug>(what: &str, look: impl Fn() -> Result<(), S>) {
    let (end, pause) = (now().mono + CAP, Stop::new());
    while let Err(status) = look() {
        assert!(now().mono < end, "{what}: not within {CAP:?}: {status:?}");
        let _ = pause.wait(Duration::from_millis(1));
    }
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn target(website_id: i64, url: &str) -> Target {
    let spec = SiteSpec { name: "x".to_owned(), url: url.to_owned(), ..SiteSpec::default() };
    let defaults = SiteDefaults { interval: 3600, timeout: 20 };
    Target::new(spec.build(website_id, defaults).unwrap(), "test")
}

fn untried(website_id: i64) -> Arc<Entry> {
    Arc::new(Entry::new(target(website_id, "http://a.test/"), false))
}

fn quick(website_id: i64) -> Arc<Entry> {
    let entry = untried(website_id);
    entry.learn(&answer(&entry.target, Timestamp::UNIX_EPOCH, 0.1), Duration::ZERO);
    entry
}

fn slow(website_id: i64) -> Arc<Entry> {
    Arc::new(Entry::new(target(website_id, "http://a.test/"), true))
}

fn answer(target: &Target, at: Timestamp, seconds: f64) -> Check<'static> {
    let (url, region) = (target.url().to_owned(), target.region().to_string());
    let mut check = Check::empty(target.identity(), target.website_id(), url, region, at);
    check.outcome = Outcome::Up;
    check.response_time = Some(seconds);
    check
}

/// A due time a little after the last one; none is late, none is given twice.
fn due() -> Timestamp {
    use std::sync::atomic::{AtomicI64, Ordering};
    static LAST: AtomicI64 = AtomicI64::new(0);
    let ms = now().wall.as_millisecond() + LAST.fetch_add(1, Ordering::Relaxed);
    Timestamp::from_millisecond(ms).unwrap()
}

/// What was recorded of a site: how it ended, and what the failure says.
type Records = HashMap<i64, Vec<(Outcome, String)>>;

/// Checks that last until they are let go.
#[derive(Debug, Default)]
struct Held {
    go: Stop,
    /// Sites under way, with the thread's name.
    begun: Mutex<Vec<(i64, String)>>,
    /// What a site's check connects to.
    addresses: Mutex<HashMap<i64, IpAddr>>,
    records: Mutex<Records>,
}

impl Held {
    fn begun(&self) -> Vec<(i64, String)> {
        self.begun.lock().unwrap().clone()
    }

    fn records(&self) -> Records {
        self.records.lock().unwrap().clone()
    }

    fn wait_for_begun(&self, sites: usize) {
        until("checks begin", || match self.begun() {
            begun if begun.len() == sites => Ok(()),
            begun => Err(begun),
        });
    }
}

impl Work for Held {
    fn check(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        gate: Option<Arc<dyn Gate>>,
    ) -> Result<Check<'static>, IpAddr> {
        let id = target.website_id();
        if let (Some(gate), Some(address)) = (gate, self.addresses.lock().unwrap().get(&id))
            && !gate.admit(*address, true)
        {
            return Err(*address);
        }
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.begun.lock().unwrap().push((id, thread));
        self.go.wait_forever();
        assert!(id != 666, "a bad site");
        Ok(answer(target, scheduled_at, 0.1))
    }

    fn record(&self, check: &Check<'_>) {
        let detail = check.failure.as_ref().map(|f| f.detail.to_string()).unwrap_or_default();
        let mut records = self.records.lock().unwrap();
        let of_site = records.entry(check.website_id).or_default();
        of_site.push((check.outcome, detail));
        let is_first = of_site.len() == 1;
        drop(records);
        assert!(check.website_id != 667 || !is_first, "a bad recorder");
    }
}

/// Lanes with their threads.
struct Bench {
    lanes: Lanes,
    running: Running,
    threads: Threads,
    stop: Stop,
    spool: Spool,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn start(
        fast: usize,
        slow: usize,
        per_address: Option<usize>,
        work: &Arc<impl Work + 'static>,
    ) -> Self {
        let work: Arc<dyn Work> = work.clone();
        let dir = tempfile::tempdir().unwrap();
        let options = SpoolOptions {
            dir: dir.path().to_owned(),
            max_bytes: 1 << 20,
            max_records: 1000,
            sync: false,
        };
        let stop = Stop::new();
        let mut threads = Threads::new(stop.clone());
        let spool = Spool::open(options, &mut Threads::new(Stop::new())).unwrap();
        let options = LaneOptions { fast, slow, per_address };
        let slow_sites = SlowSites::load(spool.clone());
        let (lanes, running) =
            Lanes::start(options, &work, &slow_sites, &stop, &mut threads).unwrap();
        let bench = Self { lanes, running, threads, stop, spool, _dir: dir };
        bench.wait_for_idle(fast, slow);
        bench
    }

    fn wait_for_idle(&self, fast: usize, slow: usize) {
        until("workers sit down", || match self.lanes.0.idle() {
            idle if idle == (fast, slow) => Ok(()),
            idle => Err(idle),
        });
    }

    fn submit(&self, entry: &Arc<Entry>) {
        self.lanes.submit(entry, due()).unwrap();
    }

    /// The orderly end.
    fn end(self) {
        drop(self.lanes);
        assert!(self.threads.join(CAP).is_empty());
        assert!(!self.stop.is_requested(), "no worker panicked");
    }
}

#[test]
fn the_worker_that_sat_down_last_is_woken_first() {
    let work = Arc::new(Held::default());
    work.go.request();
    let bench = Bench::start(4, 1, None, &work);
    for id in 0..20 {
        bench.submit(&quick(id));
        work.wait_for_begun(id as usize + 1);
        bench.wait_for_idle(4, 1);
    }
    let begun = work.begun();
    assert!(begun.iter().all(|(_, thread)| *thread == begun[0].1), "{begun:?}");
    bench.end();
}

#[test]
fn untried_sites_leave_room_for_the_quick_ones() {
    let work = Arc::new(Held::default());
    let bench = Bench::start(8, 2, None, &work);
    let in_fast = || work.begun().iter().filter(|(_, thread)| thread.starts_with("fast")).count();
    for id in 0..20 {
        bench.submit(&untried(id));
    }
    // Half of the fast lane, the slow lane, and what leaves a quarter of the fast one.
    work.wait_for_begun(4 + 2 + 2);
    assert_eq!((in_fast(), bench.lanes.0.idle(), bench.lanes.0.waiting()), (6, (2, 0), (12, 0)));
    bench.submit(&quick(100));
    bench.submit(&quick(101));
    work.wait_for_begun(10);
    assert!(work.begun().iter().any(|(id, _)| *id == 101), "quick ones go past those that wait");
    bench.submit(&slow(200));
    bench.submit(&quick(102));
    assert_eq!(bench.lanes.0.waiting(), (14, 0));
    work.go.request();
    bench.wait_for_idle(8, 2);
    bench.end();
    assert_eq!(work.records().len(), 24);
    assert!(work.records().values().all(|of_site| of_site[..] == [(Outcome::Up, String::new())]));
    let slow_ran_in = work.begun().into_iter().find(|(id, _)| *id == 200).unwrap().1;
    assert!(slow_ran_in.starts_with("slow"), "{slow_ran_in}");
}

#[test]
fn a_lane_takes_as_much_as_it_may_and_refuses_with_the_reason() {
    let work = Arc::new(Held::default());
    let bench = Bench::start(1, 1, None, &work);
    for (make, what) in [(quick as fn(i64) -> Arc<Entry>, "fast"), (slow, "slow")] {
        for id in 0..=QUEUE_PER_WORKER as i64 {
            bench.submit(&make(id));
        }
        let refused = bench.lanes.submit(&make(99), due()).unwrap_err().missed();
        let expected = format!("no room in the {what} lane's queue");
        assert_eq!(refused.failure.unwrap().detail, expected);
    }
    let refused = bench.lanes.submit(&untried(99), due()).unwrap_err().missed();
    assert_eq!(refused.failure.unwrap().detail, "no room in the slow lane's queue");
    work.go.request();
    bench.end();
}

#[test]
fn a_panic_costs_one_check_and_no_worker() {
    let work = Arc::new(Held::default());
    work.go.request();
    let bench = Bench::start(1, 1, None, &work);
    for id in [666, 667, 1] {
        bench.submit(&quick(id));
    }
    bench.wait_for_idle(1, 1);
    until("all are recorded", || match work.records() {
        records if records.len() == 3 => Ok(()),
        records => Err(records),
    });
    let records = work.records();
    let internal = |what: &str| (Outcome::Down, format!("panic: {what}"));
    assert_eq!(records[&666], [internal("a bad site")]);
    // The recorder may have panicked after the result was safe: that is one row in the end.
    let bad = internal("a bad recorder");
    assert_eq!(records[&667], [(Outcome::Up, String::new()), bad]);
    assert_eq!(records[&1], [(Outcome::Up, String::new())]);
    bench.end();
}

#[test]
fn a_stop_that_does_not_wait_records_what_runs_and_what_waits() {
    let work = Arc::new(Held::default());
    let bench = Bench::start(1, 1, Some(1), &work);
    work.addresses.lock().unwrap().extend((0..9).map(|id| (id, address(1))));
    bench.submit(&quick(0));
    work.wait_for_begun(1);
    let parked = quick(1);
    parked.set_address(address(1));
    bench.submit(&parked);
    bench.submit(&quick(2));
    assert_eq!(bench.lanes.0.waiting(), (1, 1));
    assert_eq!(bench.running.abandon(&Recorder::new(bench.spool.clone())), 3);
    assert_eq!(bench.lanes.0.waiting(), (0, 0));
    work.go.request();
    bench.end();
    assert!(work.records().is_empty(), "the worker records nothing any more");
}

#[test]
fn a_site_moves_to_the_slow_lane_and_back_and_keeps_its_place_when_changed() {
    let entry = untried(1);
    let at = Timestamp::UNIX_EPOCH;
    let mut timed_out = answer(&entry.target, at, 1.0);
    timed_out.failure = Some(Failure::new(FailureKind::Timeout, ""));
    let quick = answer(&entry.target, at, 0.1);
    let late = answer(&entry.target, at, 2.1);
    // A whole answer, later than the site is allowed.
    let judged = Check { body_bytes: Some(3), ..timed_out.clone() };
    // A quick answer after tries and their pauses.
    let (short, long) = (Duration::ZERO, Duration::from_millis(2001));
    let mut entry = Entry::new(target(1, "http://a.test/"), false);
    for (check, news, standing) in [
        (&quick, None, entry::Standing::Quick),
        (&late, Some(true), entry::Standing::Slow),
        (&timed_out, None, entry::Standing::Slow),
        (&quick, None, entry::Standing::Slow),
        (&timed_out, None, entry::Standing::Slow),
        (&quick, None, entry::Standing::Slow),
        (&judged, Some(false), entry::Standing::Quick),
        (&timed_out, Some(true), entry::Standing::Slow),
    ] {
        assert_eq!((entry.learn(check, short), entry.standing()), (news, standing));
        entry = entry.changed(target(1, "http://b.test/"));
        assert_eq!(entry.standing(), standing);
    }
    let new = Entry::new(target(1, "http://a.test/"), false);
    assert_eq!(new.changed(target(1, "http://b.test/")).standing(), entry::Standing::Untried);
    assert_eq!((new.learn(&quick, long), new.standing()), (Some(true), entry::Standing::Slow));
}
