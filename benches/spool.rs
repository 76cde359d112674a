//! `cargo bench --bench spool [-- DIRECTORY]`: how long after it was handed over a result is safe in
//! the spool, what a commit costs, how large the file gets and how long opening it takes, on the
//! disk of DIRECTORY (else of the temporary files).

// A bench is a program for a person at a terminal.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use webmon::runtime::{Stop, Threads, now};
use webmon::spool::{Spool, SpoolOptions};

/// Bytes of a usual result.
const RESULT: usize = 350;
const LONG: Duration = Duration::from_secs(60);

fn open(dir: &Path, sync: bool) -> Spool {
    let options =
        SpoolOptions { dir: dir.to_owned(), max_bytes: 16 << 30, max_records: 100_000_000, sync };
    Spool::open(options, &mut Threads::new(Stop::new())).unwrap()
}

fn fresh(dir: &Path) -> PathBuf {
    let dir = dir.join("webmon-spool-bench");
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// Hands over `rate` results a second for `seconds`, acknowledging as a publisher does; prints
/// how long each took to be safe.
fn latency(dir: &Path, rate: u64, seconds: u64, sync: bool) {
    let dir = fresh(dir);
    let spool = open(&dir, sync);
    let total = rate * seconds;
    let (sender, receiver) = crossbeam_channel::unbounded();
    let mut threads = Threads::new(Stop::new());
    let writer = spool.clone();
    threads
        .spawn("writer", move || {
            let (begin, pause) = (now().mono, Stop::new());
            for n in 0..total {
                let at = begin + Duration::from_secs(n) / u32::try_from(rate).unwrap();
                let wait = at.saturating_sub(now().mono);
                if !wait.is_zero() {
                    let _ = pause.wait(wait);
                }
                sender.send(now().mono).unwrap();
                assert!(writer.append(vec![b'x'; RESULT]));
            }
        })
        .unwrap();
    let mut taken = Vec::new();
    let mut safe = 0;
    while safe < total {
        assert!(spool.wait(safe, LONG));
        let (upto, time) = (safe + spool.unread(safe), now().mono);
        for _ in safe..upto {
            taken.push(time - receiver.recv().unwrap());
        }
        safe = upto;
        spool.acknowledge(safe.saturating_sub(rate / 4)).unwrap();
    }
    taken.sort();
    let ms = |part: usize| taken[(taken.len() - 1) * part / 1000].as_secs_f64() * 1e3;
    println!(
        "{rate:>5} results/s, sync {sync:<5}: safe after {:.1} ms (median), {:.1} ms (99 %), {:.1} ms (most), {total} results",
        ms(500),
        ms(990),
        ms(1000)
    );
    assert!(threads.join(LONG).is_empty() && spool.close());
}

/// Fills a spool that nobody empties; prints the file's size and the time to open it.
fn size(dir: &Path, megabytes: usize) {
    let dir = fresh(dir);
    let spool = open(&dir, false);
    let begin = now().mono;
    let total = (megabytes << 20) / RESULT;
    for n in 0..total {
        assert!(spool.append(vec![b'x'; RESULT]));
        if n.is_multiple_of(500) {
            assert!(spool.flush(LONG));
        }
    }
    assert!(spool.flush(LONG));
    let per_record = (now().mono - begin).as_secs_f64() * 1e6 / total as f64;
    let file = std::fs::metadata(dir.join("spool.redb")).unwrap().len();
    assert!(spool.close());
    let begin = now().mono;
    let spool = open(&dir, false);
    let opening = (now().mono - begin).as_secs_f64();
    assert_eq!(spool.depth().0, total as u64);
    let begin = now().mono;
    spool.acknowledge(u64::MAX).unwrap();
    assert!(spool.flush(LONG));
    let emptying = (now().mono - begin).as_secs_f64();
    // Freed pages are given back by the commits that follow.
    for _ in 0..10 {
        assert!(spool.append(vec![b'x'; RESULT]) && spool.flush(LONG));
        spool.acknowledge(u64::MAX).unwrap();
    }
    assert!(spool.flush(LONG));
    assert!(spool.close());
    let emptied = std::fs::metadata(dir.join("spool.redb")).unwrap().len();
    println!(
        "{megabytes} MiB of results: {per_record:.2} µs each to store, a file of {:.0} MiB ({:.2} times), {opening:.2} s to open; emptied in {emptying:.2} s to {:.0} MiB",
        file as f64 / (1 << 20) as f64,
        file as f64 / (total * RESULT) as f64,
        emptied as f64 / (1 << 20) as f64,
    );
    std::fs::remove_dir_all(dir).unwrap();
}

fn main() {
    // `cargo test --benches` only sees that it runs.
    let is_real = std::env::args().any(|arg| arg == "--bench");
    let directory = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let dir = directory.map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = if is_real { 20 } else { 1 };
    for (rate, sync) in [(200, true), (3000, true), (200, false), (3000, false)] {
        latency(&dir, rate, seconds, sync);
    }
    size(&dir, if is_real { 300 } else { 3 });
}
