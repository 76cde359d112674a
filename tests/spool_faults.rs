//! The spool on damaged files and failing disks.

// clippy allows it in test functions only, not in what they call.
#![allow(clippy::unwrap_used)]

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;
use webmon::runtime::Stop;
use webmon::spool::{Spool, SpoolError};
use webmon::telemetry::health;

#[path = "support/spool.rs"]
mod support;
use support::{CAP, append, expect, is_alone, lost, open, options, read_all, threads, until};

#[path = "spool_faults/damage.rs"]
mod damage;
use damage::damaged_files;
#[path = "spool_faults/full_disk.rs"]
mod full_disk;
#[path = "spool_faults/operations.rs"]
mod operations;
#[path = "spool_faults/power.rs"]
mod power;
#[path = "spool_faults/upgrade.rs"]
mod upgrade;

/// When the storage fails, and how.
#[derive(Debug, Default)]
struct Plan {
    /// Operations that still succeed; negative: the storage fails until healed.
    left: AtomicI64,
    is_armed: AtomicBool,
    /// Carries the operation out and says all the same that it failed.
    is_lying: AtomicBool,
    failed: AtomicU64,
}

impl Plan {
    fn arm(&self, after: i64) {
        self.left.store(after, Ordering::SeqCst);
        self.is_armed.store(true, Ordering::SeqCst);
    }

    fn heal(&self) {
        self.is_armed.store(false, Ordering::SeqCst);
    }

    fn run<T>(&self, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let fails =
            self.is_armed.load(Ordering::SeqCst) && self.left.fetch_sub(1, Ordering::SeqCst) <= 0;
        if !fails {
            return operation();
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        if self.is_lying.load(Ordering::SeqCst) {
            let _ = operation();
        }
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

#[derive(Debug)]
struct Faulty(FileBackend, Arc<Plan>);

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.run(|| self.0.set_len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.run(|| self.0.sync_data())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.run(|| self.0.write(offset, data))
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

/// A storage that fails from its `n`th operation on, until healed.
fn check_fault(n: i64, is_lying: bool) {
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    plan.is_lying.store(is_lying, Ordering::SeqCst);
    let spool = open_faulty(dir.path(), &plan);
    append(&spool, 1..=20);
    assert!(spool.flush(CAP));
    spool.acknowledge(5).unwrap();
    spool.put_state("sites", b"copy".to_vec()).unwrap();
    plan.arm(n);
    let mut last = 20;
    while plan.failed.load(Ordering::SeqCst) == 0 {
        assert!(last < 5000, "operation {n} never came");
        append(&spool, last + 1..=last + 3);
        last += 3;
        let _ = spool.flush(Duration::from_millis(40));
    }
    append(&spool, last + 1..=last + 200);
    last += 200;
    assert!(!spool.flush(Duration::from_millis(20)), "a failing disk can't be flushed");
    plan.heal();
    assert!(spool.flush(CAP), "{:?}", health().parts());
    expect(&spool, 6..=last);
    assert_eq!(spool.get_state("sites"), Some(b"copy".to_vec()));
    assert!(spool.close());

    let spool = open(dir.path());
    assert_eq!(damaged_files(dir.path()), 0);
    assert_eq!(spool.cursor(), 5);
    expect(&spool, 6..=last);
    assert_eq!(spool.get_state("sites"), Some(b"copy".to_vec()));
}

fn check_faults(is_lying: bool) {
    let (mut threads, failed) = (threads(), Stop::new());
    for lane in 0..5 {
        let failed = failed.clone();
        let body = move || (0..8).for_each(|n| check_fault(n * 5 + lane, is_lying));
        threads
            .spawn("lane", move || {
                if std::panic::catch_unwind(body).is_err() {
                    failed.request();
                }
            })
            .unwrap();
    }
    assert!(threads.join(Duration::from_secs(60)).is_empty());
    assert!(!failed.is_requested());
}

#[test]
fn a_failing_disk_heals_without_losing_or_doubling() {
    check_faults(false);
}

#[test]
fn a_commit_that_failed_only_in_name_is_not_repeated() {
    check_faults(true);
}

#[test]
fn memory_is_bounded_while_the_disk_fails_and_the_health_tells() {
    if !is_alone("memory_is_bounded_while_the_disk_fails_and_the_health_tells") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    let spool = open_faulty(dir.path(), &plan);
    plan.arm(0);
    let taken = (0..700).filter(|_| spool.append(vec![7; 64 << 10])).count();
    assert!((500..512).contains(&taken), "{taken} taken");
    assert_eq!(lost("memory"), 700 - taken as u64);
    until(
        || format!("{:?}", health().parts()),
        || health().parts()[0].1.as_ref().is_some_and(|cause| cause.contains("no storage space")),
    );
    assert!(matches!(spool.read(0, 1, 1), Err(SpoolError::Unavailable { .. })));
    plan.heal();
    assert!(spool.flush(CAP));
    assert!(health().is_ready(), "{:?}", health().parts());
    assert_eq!(read_all(&spool).len(), taken);

    // A close that can't write ends all the same, and tells.
    plan.arm(0);
    append(&spool, 1..=3);
    assert!(!spool.close());
    assert_eq!(lost("disk"), 3);
}

#[test]
fn a_full_disk_at_the_start_is_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Arc::new(Plan::default());
    plan.arm(0);
    let spool = open_faulty(dir.path(), &plan);
    append(&spool, 1..=5);
    assert!(!spool.flush(Duration::from_millis(50)));
    plan.heal();
    assert!(spool.flush(CAP));
    expect(&spool, 1..=5);
    assert_eq!(damaged_files(dir.path()), 0);
}
