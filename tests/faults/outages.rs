//! Broker or database away for long, at a high rate: everything arrives in the end, and memory
//! doesn't grow meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use webmon::runtime::{Stop, now};

use crate::lab::{FaultLab, Plan, Who};
use crate::own::Services;
use crate::random::is_full;

/// The most a producer of 1000 sites and a consumer of 4 threads ever hold, in MB, however much
/// waits. The producer: its sites and threads, a spool's cache and a batch; the consumer's bound is
/// the sum of what its threads may have in hand.
const BOUNDS_MB: [f64; 2] = [96.0, 128.0];
const PRODUCER: Who = Who::Producer(0);
const CONSUMER: Who = Who::Consumer(0);

/// How long: `WEBMON_TEST_FAULTS_OUTAGE_SECONDS`, else some seconds.
fn outage() -> Duration {
    let given = std::env::var("WEBMON_TEST_FAULTS_OUTAGE_SECONDS").ok();
    Duration::from_secs(given.and_then(|seconds| seconds.parse().ok()).unwrap_or(4))
}

/// 200 checks a second for the record, else as many as a busy machine surely does.
fn plan() -> Plan {
    Plan { sites: if is_full() { 1000 } else { 300 }, ..Plan::new("outage") }
}

/// Resident memory of a process, in KiB.
fn resident_kib(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Resident memory of producer and consumer: before, and the most of each since then.
struct Memory {
    before: [u64; 2],
    most: [u64; 2],
}

impl Memory {
    /// Runs `work`, and looks four times a second meanwhile.
    fn while_running<T>(lab: &mut FaultLab, work: impl FnOnce(&mut FaultLab) -> T) -> (Self, T) {
        let pids = [lab.daemon(PRODUCER).pid(), lab.daemon(CONSUMER).pid()];
        let read = || pids.map(|pid| resident_kib(pid).expect("the process runs"));
        let before = read();
        let is_over = AtomicBool::new(false);
        let (most, result) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = before;
                while !is_over.load(Ordering::Relaxed) {
                    most = std::array::from_fn(|i| most[i].max(read()[i]));
                    let _ = Stop::new().wait(Duration::from_millis(250));
                }
                most
            });
            let result = work(lab);
            is_over.store(true, Ordering::Relaxed);
            (watch.join().expect("memory is read"), result)
        });
        (Self { before, most }, result)
    }

    fn check(&self) {
        for (most, bound) in self.most.iter().zip(BOUNDS_MB) {
            assert!(in_mb(*most) <= bound, "{self}");
        }
    }
}

fn in_mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [producer, consumer] =
            [0, 1].map(|i| format!("{:.0} → {:.0} MB", in_mb(self.before[i]), in_mb(self.most[i])));
        write!(f, "memory before → most: producer {producer}, consumer {consumer}")
    }
}

/// The broker is gone for that long; what waited in the spool at its end, and how long that took
/// to arrive.
fn without_broker(lab: &mut FaultLab, services: &mut Services) -> (f64, Duration) {
    services.kill_broker();
    lab.let_run(outage());
    let waiting = lab.metric(PRODUCER, "webmon_spool_records").expect("the spool's depth");
    lab.history.kafka_away.push(services.restart_broker());
    let begin = now().mono;
    lab.wait_until_stored();
    (waiting, now().mono.saturating_sub(begin))
}

/// The same of the database; what waited in the topic is what was published and not inserted.
fn without_database(lab: &mut FaultLab, services: &mut Services) -> (f64, Duration) {
    services.kill_database();
    let at = |lab: &FaultLab| lab.metric(PRODUCER, "webmon_published_total").expect("published");
    let before = at(lab);
    lab.let_run(outage());
    let waiting = at(lab) - before;
    services.restart_database();
    let begin = now().mono;
    lab.wait_until_stored();
    (waiting, now().mono.saturating_sub(begin))
}

#[test]
fn broker_and_database_are_away_for_long() {
    let mut services = Services::start();
    let mut lab = services.lab(plan());
    lab.start_all();
    let seconds = outage().as_secs();
    let rate = lab.plan.sites as u64 / u64::from(lab.plan.interval);
    let faults: [(&str, Fault); 2] =
        [("broker, in the spool", without_broker), ("database, in the topic", without_database)];
    let mut injected = format!(
        "broker by `kill -9`, database by `kill -9`, for {seconds} s each, at {rate} checks/s"
    );
    for (what, inject) in faults {
        let (memory, (waiting, took)) =
            Memory::while_running(&mut lab, |lab| inject(lab, &mut services));
        let seen = format!("; {what} {waiting} results, all stored {took:.1?} later; {memory}");
        println!("{seen}");
        // Half of what comes due in that time, for machines that are busy.
        assert!(waiting >= (rate * seconds / 2) as f64, "{seen}");
        memory.check();
        injected += &seen;
    }
    lab.finish(20, "Broker away, then the database", &injected);
}

/// What it did: how many results waited at its end, and how long they then took to arrive.
type Fault = fn(&mut FaultLab, &mut Services) -> (f64, Duration);
