//! What a machine does to the processes on it: its disk is full, it has no file descriptors left.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::lab::{FaultLab, Plan, Who, now_ms};
use crate::oracle;
use crate::random;
use crate::support::disk::SmallDisk;
use crate::support::eventually;
use crate::support::services::{TestDatabase, kafka_servers};
use crate::wires::{Path, Wires};

const PRODUCER: Who = Who::Producer(0);
const CONSUMER: Who = Who::Consumer(0);

/// How often a change may be said: once, and again when some commit fits in between. Far less often
/// than results are lost.
const MOST_SAID: usize = 5;

/// A lab at the services that all tests share.
fn shared(plan: Plan) -> FaultLab {
    FaultLab::new(plan, TestDatabase::create(plan.name), &kafka_servers().join(","))
}

/// How many log lines of a process hold `text`.
fn logged(lab: &FaultLab, who: Who, text: &str) -> usize {
    lab.daemon(who).log().iter().filter(|line| line.contains(text)).count()
}

/// How many results the producer says it lost.
fn lost(lab: &FaultLab) -> u64 {
    // There with the first one; the test waits for many.
    lab.metric(PRODUCER, "webmon_spool_lost_total").unwrap_or(0.0) as u64
}

/// The spool's disk is full while the broker is away: what neither the file nor the memory set
/// aside for it can hold is lost, counted, and said once; checks go on, and nobody has to restart.
#[test]
fn a_full_disk_loses_exactly_what_is_counted() {
    let wires = Wires::start();
    let mut lab = wires.lab(Plan { sites: 200, ..Plan::new("disk") });
    let disk = SmallDisk::new(&lab.lab.dir.path().join("spool-0"), "16m");
    lab.lab.wrappers.insert("producer".to_owned(), disk.wrapper());
    // Some seconds of results; 1 GiB by default.
    lab.lab.set("WEBMON_PRODUCER_SPOOL_MAX_BYTES", "192KiB");
    lab.start_all();
    let pid = lab.daemon(PRODUCER).pid();
    let wanted = if random::is_full() { 1000 } else { 100 };

    let from_ms = now_ms();
    wires.proxy(Path::ProducerKafka).set_down();
    let filled = disk.fill(pid);
    let line = lab.daemon(PRODUCER).wait_for_log("spool can't be written");
    assert!(line.contains("No space left on device"), "{line}");
    eventually("results are lost", || match lost(&lab) {
        lost if lost >= wanted => Ok(()),
        lost => Err(lost),
    });
    let asked = lab.web.count();
    eventually("checks go on", || match lab.web.count() - asked {
        more if more >= 40 => Ok(()),
        more => Err(more),
    });
    assert_eq!(lab.daemon(PRODUCER).get("/readyz").0, 503, "it says that it can't keep results");

    disk.free(pid);
    lab.daemon(PRODUCER).wait_for_log("spool can be written again");
    wires.proxy(Path::ProducerKafka).set_up();
    lab.history.kafka_away.push((from_ms, now_ms()));
    lab.daemon(PRODUCER).wait_for_log("spool has room again");
    eventually("it is ready again", || match lab.daemon(PRODUCER).get("/readyz") {
        (200, _) => Ok(()),
        other => Err(other),
    });
    let until_ms = now_ms();
    assert_eq!(lab.daemon(PRODUCER).pid(), pid, "without a restart");
    let lost = lost(&lab);
    for text in ["spool can't be written", "new results are lost", "spool has room again"] {
        let said = logged(&lab, PRODUCER, text);
        assert!((1..=MOST_SAID).contains(&said), "{text}: {said} times, {lost} lost");
    }
    // What was counted as lost is not waited for; that it is not more is seen below.
    eventually("all others are stored", || {
        let missing = oracle::without_row(lab.look()?, until_ms);
        if missing.len() as u64 <= lost { Ok(()) } else { Err(format!("{}", missing.len())) }
    });
    lab.history.excused.push((from_ms - 1000, until_ms));
    lab.written_off = oracle::without_row(&lab.history, until_ms).into_iter().collect();
    let injected = format!("{} MB filled up, {lost} results counted as lost", filled >> 20);
    let verdict = lab.finish(200, "Full disk below the spool, broker away", &injected);
    assert_eq!(verdict.excused, lost, "what is missing is what was counted");
}

/// Has a process no more file descriptors than it has open now; what it could have before.
fn take_descriptors(lab: &FaultLab, who: Who) -> (Pid, Rlimit) {
    let pid = Pid::from_raw(lab.daemon(who).pid()).expect("a pid");
    let before = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(4), maximum: before.maximum };
    let before = prlimit(Some(pid), Resource::Nofile, none).expect("the limit is set");
    (pid, before)
}

fn give_descriptors((pid, before): (Pid, Rlimit)) {
    prlimit(Some(pid), Resource::Nofile, before).expect("the limit is set back");
}

/// Checks fail as the monitor's own trouble, never as the site's; nothing stops, nothing is lost.
#[test]
fn without_file_descriptors_everybody_goes_on() {
    let time = Duration::from_secs(if random::is_full() { 15 } else { 4 });
    let mut lab = shared(Plan::new("descriptors"));
    lab.history.tolerated = vec!["internal"];
    lab.start_all();
    let from_ms = now_ms();

    let taken = take_descriptors(&lab, PRODUCER);
    lab.let_run(time);
    give_descriptors(taken);
    let until_ms = now_ms();

    let taken = take_descriptors(&lab, CONSUMER);
    // It needs new connections now, to the database that it had one to.
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE '%consumer%'";
    let cut: i64 = lab.lab.query(cut).expect("an answer");
    assert!(cut > 0, "the consumer had connections");
    lab.daemon(CONSUMER).wait_for_log("cannot save");
    lab.let_run(time);
    give_descriptors(taken);
    lab.daemon(CONSUMER).wait_for_log("saving");

    let own = "SELECT count(*) FROM check_entry WHERE failure_kind = 'internal'";
    let own: i64 = lab.lab.query(own).expect("an answer");
    assert!(own > 0, "no check met it");
    let outside = format!(
        "SELECT count(*) FROM check_entry WHERE failure_kind = 'internal' AND NOT timestamp
         BETWEEN to_timestamp({from_ms} / 1000.0 - 1) AND to_timestamp({until_ms} / 1000.0)"
    );
    assert_eq!(lab.lab.query::<i64>(&outside), Ok(0), "only then");
    let injected = format!(
        "{} s each for producer and consumer: {own} checks met it, {cut} connections to the \
         database could not be made anew",
        time.as_secs()
    );
    lab.finish(201, "File descriptors out", &injected);
}
