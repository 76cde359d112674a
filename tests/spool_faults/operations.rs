//! One workload, again and again, with the storage failing at its n-th operation (a read, a write,
//! a change of length or a flush), for every n, once and from there on. `WEBMON_TEST_SPOOL_ROUNDS`
//! makes the workload longer.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;
use webmon::runtime::Stop;
use webmon::spool::Spool;
use webmon::telemetry::health;

use crate::damage::damaged_files;
use crate::support::{CAP, append, expect, open, options, read_all, record, threads};

/// "Input/output error".
const EIO: i32 = 5;
const LANES: u64 = 8;

/// Which operation fails.
#[derive(Debug, Default)]
struct Plan {
    count: AtomicU64,
    /// 0: none does.
    first: AtomicU64,
    is_lasting: AtomicBool,
    failed: AtomicU64,
}

impl Plan {
    fn run<T>(
        &self,
        error: impl FnOnce() -> io::Error,
        operation: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let at = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let first = self.first.load(Ordering::SeqCst);
        if at == first || (at > first && first > 0 && self.is_lasting.load(Ordering::SeqCst)) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(error());
        }
        operation()
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst) > 0
    }
}

fn full() -> io::Error {
    ErrorKind::StorageFull.into()
}

fn unreadable() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

#[derive(Debug)]
struct Faulty(FileBackend, Arc<Plan>);

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.1.run(unreadable, || self.0.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.run(unreadable, || self.0.read(offset, out))
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.run(full, || self.0.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.run(unreadable, || self.0.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.run(full, || self.0.write(offset, data))
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

fn open_faulty(dir: &Path, plan: &Arc<Plan>) -> Spool {
    let plan = plan.clone();
    Spool::open_with_backend(options(dir), &mut threads(), move |file| Faulty(file, plan.clone()))
        .unwrap()
}

/// What the workload was promised.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    handed_over: u64,
    durable: u64,
    acknowledged: u64,
}

/// Opens, fills, reads and acknowledges; a storage that has failed is not waited for.
fn work(dir: &Path, plan: &Arc<Plan>) -> (Spool, Promised) {
    let rounds = std::env::var("WEBMON_TEST_SPOOL_ROUNDS").map_or(1, |n| n.parse().unwrap());
    let spool = open_faulty(dir, plan);
    let mut now = Promised::default();
    for step in 1..=6 * rounds {
        let last = now.handed_over + 10 + step;
        append(&spool, now.handed_over + 1..=last);
        now.handed_over = last;
        if step == 3 {
            spool.put_state("sites", b"copy".to_vec()).unwrap();
        }
        if step % 2 == 0 && now.durable > 0 {
            now.acknowledged = now.durable - 5;
            spool.acknowledge(now.acknowledged).unwrap();
        }
        // The fault can come while it waits.
        let mut waits = 0;
        let is_flushed = loop {
            if spool.flush(Duration::from_millis(if plan.has_failed() { 5 } else { 100 })) {
                break true;
            }
            if plan.has_failed() {
                break false;
            }
            waits += 1;
            assert!(waits < 200, "never flushed");
        };
        if is_flushed {
            now.durable = now.handed_over;
        }
    }
    (spool, now)
}

/// The file as a kill leaves it, opened on a disk that works.
fn check_killed(dir: &Path, promised: Promised, context: &str) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["spool.redb", "spool.redb.new"] {
        if dir.join(name).exists() {
            fs::copy(dir.join(name), copy.path().join(name)).unwrap();
        }
    }
    let spool = open(copy.path());
    let (cursor, found) = (spool.cursor(), read_all(&spool));
    let last = found.last().map_or(cursor, |(sequence, _)| *sequence);
    assert!(found.iter().map(|(n, _)| *n).eq(cursor + 1..=last), "{context}: {cursor} to {last}");
    assert!(found.iter().all(|(n, bytes)| *bytes == record(*n)), "{context}");
    assert!(cursor <= promised.acknowledged, "{context}: {cursor}, {promised:?}");
    assert!((promised.durable..=promised.handed_over).contains(&last), "{context}: {last}");
    assert_eq!(damaged_files(copy.path()), 0, "{context}");
    assert!(spool.close(), "{context}");
}

/// A fault at operation `n` of the file, once or from there on.
fn check_fault(n: u64, is_lasting: bool) -> bool {
    let context = format!("operation {n}, lasting: {is_lasting}");
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    plan.first.store(n, Ordering::SeqCst);
    plan.is_lasting.store(is_lasting, Ordering::SeqCst);
    let (spool, promised) = work(dir.path(), &plan);
    let has_failed = plan.has_failed();
    if has_failed && is_lasting {
        check_killed(dir.path(), promised, &context);
    }
    // The disk works again: everything that was handed over is there, without a restart.
    plan.first.store(0, Ordering::SeqCst);
    assert!(spool.flush(CAP), "{context}: {:?}", health().parts());
    expect(&spool, promised.acknowledged + 1..=promised.handed_over);
    assert!(spool.close(), "{context}");
    let spool = open(dir.path());
    expect(&spool, promised.acknowledged + 1..=promised.handed_over);
    assert_eq!(damaged_files(dir.path()), 0, "{context}");
    assert_eq!(spool.get_state("sites"), Some(b"copy".to_vec()), "{context}");
    has_failed
}

fn check_every_operation(is_lasting: bool) {
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let (spool, promised) = work(dir.path(), &plan);
    assert_eq!(promised.durable, promised.handed_over);
    let operations = plan.count.load(Ordering::SeqCst);
    assert!(spool.close());
    assert!(operations > 100, "{operations} operations");

    let (mut threads, wrong) = (threads(), Stop::new());
    let failed = Arc::new(AtomicU64::new(0));
    for lane in 1..=LANES {
        let (wrong, failed) = (wrong.clone(), failed.clone());
        let body = move || {
            for n in (lane..=operations).step_by(LANES as usize) {
                failed.fetch_add(u64::from(check_fault(n, is_lasting)), Ordering::SeqCst);
            }
        };
        threads
            .spawn("lane", move || {
                if std::panic::catch_unwind(body).is_err() {
                    wrong.request();
                }
            })
            .unwrap();
    }
    assert!(threads.join(Duration::from_secs(600)).is_empty());
    assert!(!wrong.is_requested());
    let failed = failed.load(Ordering::SeqCst);
    // Results that share a commit in one run may not in the next: on a busy machine many do, and
    // then some run ends before its operation comes.
    assert!(failed > operations / 2, "{failed} faults of {operations} happened");
}

#[test]
fn a_fault_at_any_operation_heals_without_losing_or_doubling() {
    check_every_operation(false);
}

#[test]
fn a_storage_that_fails_from_any_operation_on_loses_nothing_promised() {
    check_every_operation(true);
}

/// A damaged file on a storage that fails while it is salvaged.
#[test]
fn a_fault_at_any_operation_of_a_salvage_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    append(&spool, 1..=100);
    assert!(spool.close());
    let mut damaged = fs::read(dir.path().join("spool.redb")).unwrap();
    damaged[..4096].fill(0);
    let mut faults = 0;
    for n in 1.. {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("spool.redb"), &damaged).unwrap();
        let plan = Arc::new(Plan::default());
        plan.first.store(n, Ordering::SeqCst);
        let spool = open_faulty(dir.path(), &plan);
        let has_failed = plan.has_failed();
        append(&spool, 101..=103);
        assert!(spool.flush(CAP), "operation {n}: {:?}", health().parts());
        let found: Vec<_> = read_all(&spool).into_iter().map(|(_, bytes)| bytes).collect();
        assert!(found == (1..=103).map(record).collect::<Vec<_>>(), "operation {n}");
        assert!((1..=2).contains(&damaged_files(dir.path())), "operation {n}");
        assert!(spool.close());
        if !has_failed {
            break;
        }
        faults += 1;
    }
    assert!(faults > 20, "{faults} faults");
}
