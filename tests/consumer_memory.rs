//! However large the backlog, whatever its messages: what the consumer holds stays below
//! the figure in docs/consumer.md, and it gets to the end.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

mod support;

use support::daemon::{Daemon, Lab};
use support::eventually_within;
use support::topic::{Topic, metric};

/// Of a consumer with 4 threads.
const BOUND_MB: f64 = 128.0;

const CAP: std::time::Duration = std::time::Duration::from_secs(300);

/// The most memory a process ever had, in MB.
fn most_mb(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024.0 / 1e6
}

/// Messages by the side of checks: all of them are rejected.
fn odd(bytes: usize, count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|n| (n.to_string(), vec![b'0' + (n % 10) as u8; bytes])).collect()
}

fn backlog(partitions: i32) {
    let mut lab = Lab::new("backlog");
    assert!(lab.run(&["migrate"]).status.success());
    let mut topic = Topic::new(&lab, partitions);
    lab.set("WEBMON_CONSUMER_THREADS", "4");
    let mut rejected = 0;
    let mut checks = 0;
    for _ in 0..5 {
        checks += topic.publish_checks(20_000);
        // Empty ones, large ones that pack well, and large ones that don't.
        let noise = (0..20).map(|n| (n.to_string(), noise(n, 700_000))).collect();
        for messages in [odd(0, 20_000), odd(100_000, 100), odd(800_000, 40), noise] {
            rejected += messages.len();
            topic.publish(&messages);
        }
    }
    // Bombs: a few KB that become 4 MB as one message, and 100 MB as many.
    topic.publish_packed(&odd(4_000_000, 1));
    topic.publish_packed(&odd(500_000, 200));
    let rejected = rejected as f64 + 1.0 + 200.0;

    let consumer = lab.start("consumer", &[]);
    eventually_within(CAP, "the backlog is worked off", || {
        let found = (
            metric(&consumer, "webmon_rows_inserted_total"),
            metric(&consumer, "webmon_rejected_total"),
        );
        // What was delivered again may be counted again; what is stored is counted below.
        if found.0 >= checks as f64 && found.1 >= rejected {
            Ok(())
        } else {
            Err((found, checks, rejected))
        }
    });
    let most = most_mb(&consumer);
    assert!(most < BOUND_MB, "{partitions} partitions: {most:.1} MB");
    let stored: (i64, i64, i64) = (
        lab.query("SELECT count(*) FROM check_entry").unwrap(),
        lab.query("SELECT count(*) FROM rejected_message").unwrap(),
        lab.query("SELECT count(*) FROM rejected_message WHERE reason LIKE 'unreadable batch: a record of 4%'").unwrap(),
    );
    assert_eq!(stored, (checks, rejected as i64, 1));
    consumer.stop();
}

/// Bytes that don't pack, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(bytes)
    .collect()
}

#[test]
fn a_backlog_of_eight_partitions_is_read_within_bounds() {
    backlog(8);
}

#[test]
fn a_backlog_of_sixty_four_partitions_is_read_within_bounds() {
    backlog(64);
}
