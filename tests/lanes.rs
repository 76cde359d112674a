//! Slow sites beside healthy ones, and the limit per address, with the daemons as processes.

#![allow(clippy::expect_used)] // helpers of tests too

mod support;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::daemon::{Daemon, Lab};
use support::web::Web;
use support::{eventually, eventually_within};
use webmon::runtime::{Stop, now};

/// Takes connections and never answers.
#[allow(clippy::disallowed_methods)] // ends with the test's process
fn black_hole() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut held = std::collections::VecDeque::new();
        for stream in listener.incoming().map_while(Result::ok) {
            held.push_back(stream);
            // The oldest were given up by their checks long ago.
            if held.len() > 1000 {
                held.pop_front();
            }
        }
    });
    address
}

fn site(name: &str, url: &str, interval: u32, timeout: u32) -> String {
    format!("  - {{name: {name}, url: '{url}', interval: {interval}, timeout: {timeout}}}\n")
}

fn resident_kib(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("its line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// How many threads the daemon has, and how many of them are workers of the lanes.
fn threads(daemon: &Daemon) -> (usize, usize) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let names: Vec<String> = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .collect();
    let is_worker = |name: &&String| name.starts_with("fast-") || name.starts_with("slow-");
    (names.len(), names.iter().filter(is_worker).count())
}

/// A metric of the daemon, 0 when it isn't there yet.
fn metric(daemon: &Daemon, name: &str) -> u64 {
    let (_, text) = daemon.get("/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0)
}

/// 1,000 sites of which 100 take the connection and never answer: none of the other 900 is
/// missed, from the first second on, and neither threads nor memory grow. Some 20 s long, at
/// intervals of 5 s and time-outs of 2 s; `WEBMON_TEST_LANES_SECONDS=600` runs so long, at 10 s
/// and 5 s. Timings are printed, and decide by a huge margin only: other tests run beside.
#[test]
fn hanging_sites_do_not_touch_the_others() {
    const DARK: usize = 100;
    const ALL: usize = 1000;
    let long: Option<u64> =
        std::env::var("WEBMON_TEST_LANES_SECONDS").ok().and_then(|text| text.parse().ok());
    let (interval, timeout) = if long.is_some() { (10, 5) } else { (5, 2) };
    let web = Web::start(|_| (200, "fine".to_owned()));
    let dark = black_hole();
    let mut lab = Lab::new("lanes");
    let sites: String = (0..ALL)
        .map(|n| match n % (ALL / DARK) {
            0 => site(&format!("dark-{n}"), &format!("http://{dark}/"), interval, timeout),
            _ => site(&format!("good-{n}"), &web.url("/"), interval, timeout),
        })
        .collect();
    lab.config(&format!("websites:\n{sites}"));
    let consumer = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    let good = |rounds: usize| format!("{rounds} rounds of the good sites");
    let count = |what: &str| -> i64 {
        let from = "FROM check_entry JOIN website USING (website_id)";
        lab.query(&format!("SELECT count(*) {from} WHERE {what}")).unwrap_or(0)
    };
    let rounds = |least: usize, cap: Duration| {
        eventually_within(cap, &good(least), || match count("name LIKE 'good-%'") {
            rows if rows >= (least * (ALL - DARK)) as i64 => Ok(()),
            rows => Err(rows),
        });
    };
    rounds(1, support::CAP);
    let begin = now().mono;
    let ((all_threads, workers), memory) = (threads(&producer), resident_kib(&producer));
    assert_eq!(workers, 64, "as configured");
    for round in 2.. {
        rounds(round, support::CAP);
        let (all_now, workers_now) = threads(&producer);
        assert_eq!(workers_now, workers, "workers in round {round}");
        // Calls to the broker come and go with a thread of their own, at most so many.
        let spare = webmon::runtime::LEFT_BEHIND_MAX;
        assert!(all_now <= all_threads + spare, "{all_now} threads after {all_threads}");
        if round >= 3
            && long.is_none_or(|seconds| now().mono >= begin + Duration::from_secs(seconds))
        {
            break;
        }
    }
    let grown = resident_kib(&producer).saturating_sub(memory);
    assert!(grown < 16 << 10, "memory grew by {grown} KiB from {memory} KiB");
    producer.stop();
    lab.wait_for_every_check(&web);
    consumer.stop();

    let hung = count("name LIKE 'dark-%' AND failure_kind = 'timeout'");
    assert!(hung >= DARK as i64, "{hung} checks of the dark sites hung");
    // At the stop what is under way may be missed: the last second is left out.
    let steady = "name LIKE 'good-%' AND check_entry.timestamp <
        (SELECT max(timestamp) FROM check_entry) - interval '1 s'";
    assert_eq!(count(&format!("{steady} AND outcome <> 'up'")), 0, "good sites not up");
    let gaps = lab.query::<i64>(&format!(
        "SELECT count(*) FROM (SELECT timestamp - lag(timestamp) OVER
             (PARTITION BY website_id ORDER BY timestamp) AS gap FROM check_entry) x
         WHERE gap <> interval '{interval} s'"
    ));
    assert_eq!(gaps, Ok(0), "due times without a row");
    let spread: f64 = lab
        .query(
            "SELECT extract(epoch FROM max(first) - min(first))::float8 FROM
                 (SELECT min(timestamp) AS first FROM check_entry GROUP BY website_id) x",
        )
        .expect("the first checks");
    assert!(spread <= f64::from(interval) + 1.0, "the first checks took {spread} s");
    let first = format!(
        "check_entry.timestamp < (SELECT min(timestamp) FROM check_entry) + interval '{interval} s'"
    );
    let late = |rows: &str, part: f64| -> f64 {
        let from = "FROM check_entry JOIN website USING (website_id)";
        let seconds = "extract(epoch FROM started_at - check_entry.timestamp)";
        lab.query(&format!(
            "SELECT (percentile_cont({part}) WITHIN GROUP (ORDER BY {seconds}))::float8 {from}
             WHERE {steady} AND {rows}"
        ))
        .expect("lateness")
    };
    let p99_first = late(&first, 0.99);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| late("true", part));
    let missed = count("name LIKE 'dark-%' AND outcome = 'missed'");
    println!(
        "lateness of the good sites: p50 {:.0} ms, p99 {:.0} ms (first round \
         {:.0} ms), max {:.0} ms; dark sites: {hung} \
         time-outs, {missed} missed; {all_threads} threads; memory {memory} KiB, {grown} KiB more",
        p50 * 1e3,
        p99 * 1e3,
        p99_first * 1e3,
        max * 1e3
    );
    assert!(p99 < 1.0, "lateness p99 of the good sites: {p99} s");
}

#[test]
fn slow_sites_are_still_slow_after_a_restart() {
    const SITES: usize = 12;
    let dark = black_hole();
    let mut lab = Lab::new("remember");
    let sites: String =
        (0..SITES).map(|n| site(&format!("dark-{n}"), &format!("http://{dark}/"), 5, 1)).collect();
    lab.config(&format!("websites:\n{sites}"));
    let down = "webmon_checks_total{outcome=\"down\"}";
    let fast = "webmon_checks_running{lane=\"fast\"}";
    let mut most_in_fast = [0; 2];
    for most in &mut most_in_fast {
        let producer = lab.start("producer", &[]);
        eventually("every site was checked", || {
            *most = metric(&producer, fast).max(*most);
            match metric(&producer, down) {
                checks if checks >= SITES as u64 => Ok(()),
                checks => Err(checks),
            }
        });
        producer.stop();
    }
    assert!(most_in_fast[0] > 0, "untried sites are tried in the fast lane");
    assert_eq!(most_in_fast[1], 0, "slow ones are not");
}

#[test]
fn the_limit_per_address_is_kept() {
    const SITES: usize = 20;
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counter = running.clone();
    let web = Web::start(move |_| {
        let (now, most) = (&counter.0, &counter.1);
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _ = Stop::new().wait(Duration::from_millis(100));
        now.fetch_sub(1, Ordering::SeqCst);
        (200, "fine".to_owned())
    });
    let mut lab = Lab::new("limit");
    let sites: String =
        (0..SITES).map(|n| site(&format!("site-{n}"), &web.url("/"), 5, 4)).collect();
    lab.config(&format!("producer: {{per_address: 1}}\nwebsites:\n{sites}"));
    let producer = lab.start("producer", &[]);
    let up = "webmon_checks_total{outcome=\"up\"}";
    eventually("two rounds", || match metric(&producer, up) {
        checks if checks >= 2 * SITES as u64 => Ok(()),
        checks => Err(checks),
    });
    assert_eq!(metric(&producer, "webmon_checks_total{outcome=\"missed\"}"), 0);
    assert_eq!(metric(&producer, "webmon_checks_total{outcome=\"down\"}"), 0);
    producer.stop();
    assert_eq!(running.1.load(Ordering::SeqCst), 1, "checks at once");
}
