//! The spool as its users see it: order, durability, bounds, kills.

// clippy allows it in test functions only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use webmon::runtime::{Stop, now};
use webmon::spool::{Spool, SpoolError, SpoolOptions};
use webmon::telemetry::{health, metrics};

#[path = "support/spool.rs"]
mod support;
use support::{
    CAP, append, expect, is_alone, lost, open, options, read_all, record, threads, until,
};

#[test]
fn records_come_out_in_order_and_stay_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir.path().join("made/here"));
    assert_eq!(spool.read(0, 10, 1000), Ok(vec![]));
    assert!(!spool.wait(0, Duration::ZERO));
    append(&spool, 1..=3000);
    assert!(spool.wait(2999, CAP));
    expect(&spool, 1..=3000);
    assert_eq!(spool.depth().0, 3000);

    let some = spool.read(10, 3, usize::MAX).unwrap();
    assert_eq!(some.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [11, 12, 13]);
    assert_eq!(spool.read(500, 10, 1).unwrap().len(), 1, "one record always fits");
    assert_eq!(spool.read(500, 10, 1100).unwrap().len(), 2);

    assert!(spool.close());
    assert_eq!(spool.read(0, 10, 1000), Err(SpoolError::Closed));
    assert!(!spool.append(vec![1]));
    let mode = fs::metadata(dir.path().join("made/here")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let spool = open(&dir.path().join("made/here"));
    expect(&spool, 1..=3000);
    let bytes: u64 = (1..=3000).map(|n| record(n).len() as u64).sum();
    assert_eq!(spool.depth(), (3000, bytes));
}

#[test]
fn acknowledged_records_go_and_numbers_never_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=100);
    assert!(spool.flush(CAP));
    spool.acknowledge(40).unwrap();
    spool.acknowledge(30).unwrap();
    assert_eq!(spool.cursor(), 40);
    expect(&spool, 41..=100);
    until(|| format!("{:?}", spool.depth()), || spool.depth().0 == 60);
    assert!(spool.close());

    let spool = open(dir.path());
    assert_eq!(spool.cursor(), 40);
    expect(&spool, 41..=100);
    spool.acknowledge(u64::MAX).unwrap();
    assert_eq!(spool.cursor(), 100, "what was never there can't be acknowledged");
    assert!(spool.flush(CAP));
    assert_eq!(spool.depth(), (0, 0));
    assert!(!spool.wait(0, Duration::ZERO));
    drop(spool);

    // Dropped, not closed: it closes in the background.
    let reopened = std::cell::RefCell::new(None);
    until(
        || "still in use".to_owned(),
        || {
            *reopened.borrow_mut() = Spool::open(options(dir.path()), &mut threads()).ok();
            reopened.borrow().is_some()
        },
    );
    let spool = reopened.take().unwrap();
    append(&spool, 101..=101);
    assert!(spool.wait(100, CAP));
    expect(&spool, 101..=101);
}

#[test]
fn states_are_kept_and_the_last_put_counts() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    assert_eq!(spool.get_state("sites"), None);
    spool.put_state("sites", b"one".to_vec()).unwrap();
    spool.put_state("sites", vec![b'2'; 3 << 20]).unwrap();
    spool.put_state("other", vec![]).unwrap();
    assert_eq!(spool.get_state("sites"), Some(vec![b'2'; 3 << 20]));
    append(&spool, 1..=1);
    assert!(spool.close());
    let spool = open(dir.path());
    assert_eq!(spool.get_state("sites"), Some(vec![b'2'; 3 << 20]));
    assert_eq!(spool.get_state("other"), Some(vec![]));
    expect(&spool, 1..=1);
    let too_large = spool.put_state("sites", vec![0; webmon::spool::STATE_MAX + 1]);
    assert!(matches!(too_large, Err(SpoolError::StateTooLarge { .. })));
}

#[test]
fn only_one_opens_a_directory_and_it_has_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let second = Spool::open(options(dir.path()), &mut threads()).unwrap_err();
    assert_eq!(second, SpoolError::InUse { dir: dir.path().to_owned() });
    let text = second.to_string();
    assert!(text.contains(dir.path().to_str().unwrap()) && text.contains("another process"));
    assert!(spool.close());
    assert!(open(dir.path()).close());

    let file = dir.path().join("a-file");
    fs::write(&file, "").unwrap();
    let wrong = Spool::open(options(&file.join("spool")), &mut threads()).unwrap_err();
    assert!(matches!(wrong, SpoolError::Directory { .. }), "{wrong}");
    assert!(wrong.to_string().contains("a-file/spool"), "{wrong}");
}

#[test]
fn full_means_counted_losses_the_oldest_stay_and_room_heals() {
    if !is_alone("full_means_counted_losses_the_oldest_stay_and_room_heals") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bounds = SpoolOptions { max_records: 10, max_bytes: 5000, ..options(dir.path()) };
    let spool = Spool::open(bounds, &mut threads()).unwrap();
    assert!(health().is_ready());
    append(&spool, 1..=10);
    assert!(!spool.append(record(11)));
    assert!(!spool.append(record(12)));
    assert_eq!(lost("full"), 2);
    assert!(!health().is_ready());
    assert!(spool.flush(CAP));
    assert!(!spool.append(record(11)));
    expect(&spool, 1..=10);

    spool.acknowledge(5).unwrap();
    assert!(spool.flush(CAP));
    assert!(health().is_ready(), "{:?}", health().parts());
    append(&spool, 11..=11);
    assert!(spool.flush(CAP));
    expect(&spool, 6..=11);

    assert!(!spool.append(vec![0; 4901]), "more bytes than fit");
    assert_eq!(lost("full"), 4);
    assert!(!spool.append(vec![0; 5 << 20]));
    assert_eq!(lost("too_large"), 1);
    assert_eq!(metrics().spool_records.get(), 6);
}

#[test]
fn many_results_share_a_commit_and_nobody_waits_long() {
    if !is_alone("many_results_share_a_commit_and_nobody_waits_long") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let (begin, pace) = (now().mono, Stop::new());
    for sequence in 1..=150 {
        append(&spool, sequence..=sequence);
        // As a publisher that acknowledges each result by itself.
        let _ = spool.acknowledge(sequence.saturating_sub(20));
        let _ = pace.wait(Duration::from_millis(2));
    }
    assert!(spool.wait(149, CAP));
    let took = now().mono - begin;
    let (commits, most) = (metrics().spool_commits.get(), took.as_millis() as u64 / 25 + 3);
    assert!(commits <= most && commits > 1, "{commits} commits in {took:?}");
    assert!(spool.flush(CAP));
    // Nothing to do: nothing is committed.
    let commits = metrics().spool_commits.get();
    let _ = pace.wait(Duration::from_millis(150));
    assert!(spool.flush(CAP));
    assert_eq!(metrics().spool_commits.get(), commits);
}

/// The child of [`kills_lose_nothing`]: appends, acknowledges, and tells what it was promised.
#[test]
fn child_that_gets_killed() {
    let Some(dir) = std::env::var_os("WEBMON_TEST_SPOOL_CHILD") else { return };
    let spool = open(Path::new(&dir));
    let mut last = read_all(&spool).last().map_or(spool.cursor(), |(sequence, _)| *sequence);
    let mut out = io::stdout().lock();
    loop {
        let first = last + 1;
        last += 1 + first % 40;
        append(&spool, first..=last);
        if first.is_multiple_of(3) {
            writeln!(out, "acknowledged {}", first.saturating_sub(60)).unwrap();
            spool.acknowledge(first.saturating_sub(60)).unwrap();
        }
        if spool.wait(last - 1, CAP) {
            writeln!(out, "kept {last}").unwrap();
        }
    }
}

#[test]
fn kills_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kept, mut acknowledged) = (0u64, 0u64);
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_gets_killed", "--exact", "--nocapture"])
            .env("WEBMON_TEST_SPOOL_CHILD", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Kills at a different moment of the cycle each time, without looking.
        let promised = kept + 40 + 37 * round;
        let mut note = |line: &str| {
            if let Some(n) = line.split("kept ").nth(1) {
                kept = n.parse().unwrap();
            } else if let Some(n) = line.strip_prefix("acknowledged ") {
                acknowledged = n.parse().unwrap();
            }
            kept
        };
        while note(&lines.next().unwrap().unwrap()) < promised {}
        let _ = Stop::new().wait(Duration::from_micros(7_300 * round));
        child.kill().unwrap();
        // What it had said before it died counts as well; its last line may be cut off.
        lines.map_while(Result::ok).filter(|line| line.len() > 5).for_each(|line| {
            note(&line);
        });
        child.wait().unwrap();

        let spool = open(dir.path());
        let cursor = spool.cursor();
        assert!(cursor <= acknowledged, "cursor {cursor} before {acknowledged} was acknowledged");
        let last = read_all(&spool).last().unwrap().0;
        assert!(last >= kept, "promised {kept}, found {last}");
        expect(&spool, cursor + 1..=last);
        assert!(spool.close());
    }
    assert!(kept > 300 && acknowledged > 0);
}

#[test]
fn without_sync_a_close_still_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let unsynced = || SpoolOptions { sync: false, ..options(dir.path()) };
    let spool = Spool::open(unsynced(), &mut threads()).unwrap();
    append(&spool, 1..=100);
    assert!(spool.close());
    let spool = Spool::open(unsynced(), &mut threads()).unwrap();
    expect(&spool, 1..=100);
}
