//! Power cuts: everything that a workload did to its file is recorded, and then, for a cut after
//! each of its operations, the file is made as the disk may hold it: what was written since the
//! last flush is there, dropped, reordered or torn. `WEBMON_TEST_SPOOL_ROUNDS` makes the workload
//! longer and tries more of the random cuts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use redb::backends::FileBackend;
use webmon::spool::{Spool, SpoolOptions};

use crate::damage::damaged_files;
use crate::support::{CAP, options, read_all, threads};

#[derive(Clone, Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// The file when it was opened last, and what was done to it since.
#[derive(Debug, Default)]
struct Log {
    base: Vec<u8>,
    operations: Vec<Operation>,
}

#[derive(Debug)]
struct Recorder(FileBackend, Arc<Mutex<Log>>);

impl Recorder {
    fn note(&self, operation: Operation) {
        self.1.lock().unwrap().operations.push(operation);
    }
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(Operation::SetLen(len));
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        // What came meanwhile isn't covered.
        self.note(Operation::Sync);
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(Operation::Write(offset, data.to_vec()));
        self.0.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// What holds once so many operations were done.
#[derive(Clone, Copy, Debug)]
struct Promise {
    operations: usize,
    handed_over: u64,
    durable: u64,
    acknowledged: u64,
}

/// A run of the workload.
struct Run {
    log: Log,
    promises: Vec<Promise>,
}

/// Different in size from one to the next, some larger than a page.
fn record(sequence: u64) -> Vec<u8> {
    let size = if sequence.is_multiple_of(11) { 9000 } else { sequence as usize * 37 % 600 };
    let mut record = format!("{sequence}:").into_bytes();
    record.resize(record.len() + size, b'a' + (sequence % 26) as u8);
    record
}

fn rounds() -> usize {
    std::env::var("WEBMON_TEST_SPOOL_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap())
}

fn run(sync: bool) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(Mutex::new(Log::default()));
    let recorded = log.clone();
    let wrap = move |file: FileBackend| {
        let mut base = vec![0; file.len().unwrap() as usize];
        file.read(0, &mut base).unwrap();
        *recorded.lock().unwrap() = Log { base, operations: Vec::new() };
        Recorder(file, recorded.clone())
    };
    let options = SpoolOptions { sync, ..options(dir.path()) };
    let spool = Spool::open_with_backend(options, &mut threads(), wrap).unwrap();
    let mut now = Promise { operations: 0, handed_over: 0, durable: 0, acknowledged: 0 };
    let mut promises = vec![now];
    let mut tell = |now: &mut Promise| {
        now.operations = log.lock().unwrap().operations.len();
        promises.push(*now);
    };
    for step in 1..=12 * rounds() as u64 {
        if step.is_multiple_of(3) {
            // Before it can have an effect.
            now.acknowledged = now.durable - now.durable % 7;
            tell(&mut now);
            spool.acknowledge(now.acknowledged).unwrap();
        }
        if step.is_multiple_of(5) {
            spool.put_state("sites", vec![step as u8; 6000]).unwrap();
        }
        let last = now.handed_over + 1 + step * 5 % 17;
        for sequence in now.handed_over + 1..=last {
            assert!(spool.append(record(sequence)));
        }
        now.handed_over = last;
        assert!(spool.flush(CAP));
        now.durable = last;
        tell(&mut now);
    }
    assert!(spool.close());
    let log = std::mem::take(&mut *log.lock().unwrap());
    Run { log, promises }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn apply(image: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Sync => {}
        Operation::SetLen(length) => image.resize(*length as usize, 0),
        Operation::Write(offset, data) => {
            let (begin, end) = (*offset as usize, *offset as usize + data.len());
            if image.len() < end {
                image.resize(end, 0);
            }
            image[begin..end].copy_from_slice(data);
        }
    }
}

/// A random part of `operations` in random order.
fn reordered(operations: &[Operation], dice: &mut Dice) -> Vec<Operation> {
    let mut some: Vec<_> = operations.iter().filter(|_| dice.below(3) > 0).cloned().collect();
    for at in (1..some.len()).rev() {
        some.swap(at, dice.below(at + 1));
    }
    some
}

/// `operations` with one write of which only some sectors, or some first bytes, arrived.
fn torn(operations: &[Operation], sectors: bool, dice: &mut Dice) -> Vec<Operation> {
    let mut all = reordered(operations, dice);
    if all.is_empty() {
        return all;
    }
    let at = dice.below(all.len());
    let Operation::Write(offset, data) = all[at].clone() else { return all };
    let parts: Vec<Operation> = if sectors {
        let pieces = data.chunks(512).zip(0..).filter(|_| dice.below(2) == 0);
        pieces.map(|(part, n)| Operation::Write(offset + n * 512, part.to_vec())).collect()
    } else {
        vec![Operation::Write(offset, data[..dice.below(data.len())].to_vec())]
    };
    all.splice(at..=at, parts);
    all
}

/// What a disk may hold after the cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Dropped,
    Kept,
    Reordered,
    TornSectors,
    TornBytes,
}

/// The file after the power was cut behind `count` operations.
fn image(run: &Run, count: usize, cut: Cut, dice: &mut Dice) -> Vec<u8> {
    let done = &run.log.operations[..count];
    let is_sync = |operation: &Operation| matches!(operation, Operation::Sync);
    let (safe, pending) = done.split_at(done.iter().rposition(is_sync).map_or(0, |at| at + 1));
    let mut image = run.log.base.clone();
    safe.iter().for_each(|operation| apply(&mut image, operation));
    let arrived = match cut {
        Cut::Dropped => Vec::new(),
        Cut::Kept => pending.to_vec(),
        Cut::Reordered => reordered(pending, dice),
        Cut::TornSectors => torn(pending, true, dice),
        Cut::TornBytes => torn(pending, false, dice),
    };
    arrived.iter().for_each(|operation| apply(&mut image, operation));
    image
}

/// Opens the spool in `dir`: cursor and sequence numbers, each record as it was handed over.
fn reopen(dir: &Path, context: &str) -> (Spool, u64, Vec<u64>) {
    let options = SpoolOptions { sync: false, ..options(dir) };
    let spool = Spool::open(options, &mut threads()).unwrap();
    let found = read_all(&spool);
    for (sequence, bytes) in &found {
        assert!(*bytes == record(*sequence), "{context}: record {sequence} is another");
    }
    let cursor = spool.cursor();
    (spool, cursor, found.into_iter().map(|(sequence, _)| sequence).collect())
}

/// Cuts the power after each operation: nothing promised is lost, nothing is invented, and redb
/// needs no salvage.
fn check_cuts(cut: Cut) {
    let run = run(true);
    let operations = run.log.operations.len();
    assert!(operations > 100, "{operations} operations");
    assert!(run.log.operations.iter().any(|o| matches!(o, Operation::SetLen(_))));
    let (mut seen, mut behind) = (BTreeSet::new(), 0);
    for round in 0..rounds() {
        for count in 0..=operations {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ ((round * 100_000 + count) as u64 + 1));
            let bytes = image(&run, count, cut, &mut dice);
            let hash = (bytes.len(), crc32fast::hash(&bytes));
            let past = run.promises.iter().filter(|promise| promise.operations <= count);
            let promise = *past.clone().next_back().unwrap();
            if !seen.insert((hash, promise.operations)) {
                continue;
            }
            let context = format!("{cut:?} after {count} of {operations}, round {round}");
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("spool.redb"), bytes).unwrap();
            let (spool, cursor, found) = reopen(dir.path(), &context);
            let last = found.last().copied().unwrap_or(cursor);
            assert_eq!(damaged_files(dir.path()), 0, "{context}");
            assert!(found.iter().copied().eq(cursor + 1..=last), "{context}: {found:?}");
            assert!(cursor <= promise.acknowledged, "{context}: {cursor}, {promise:?}");
            assert!(last >= promise.durable, "{context}: {last}, {promise:?}");
            // The commit under way may have arrived whole, and with it what it held.
            let next = run.promises.iter().find(|promise| promise.operations > count);
            assert!(last <= next.map_or(u64::MAX, |next| next.handed_over), "{context}: {last}");
            behind += usize::from(last > promise.durable);
            if count.is_multiple_of(8) {
                assert!(spool.append(record(last + 1)) && spool.flush(CAP), "{context}");
                let found: Vec<_> = read_all(&spool).into_iter().map(|(n, _)| n).collect();
                assert!(found.into_iter().eq(cursor + 1..=last + 1), "{context}");
            }
            assert!(spool.close());
        }
    }
    // Without what was not flushed there is one file per flush, else one per operation.
    let least = if matches!(cut, Cut::Dropped) { 12 } else { 60 };
    assert!(seen.len() > least, "{} different files", seen.len());
    if matches!(cut, Cut::Kept) {
        assert!(behind > 0, "no commit arrived before its promise");
    }
}

#[test]
fn a_cut_that_drops_what_was_not_flushed_loses_nothing_promised() {
    check_cuts(Cut::Dropped);
}

#[test]
fn a_kill_behind_any_operation_loses_nothing_promised() {
    check_cuts(Cut::Kept);
}

#[test]
fn a_cut_that_reorders_what_was_not_flushed_loses_nothing_promised() {
    check_cuts(Cut::Reordered);
}

#[test]
fn a_cut_that_tears_a_write_between_sectors_loses_nothing_promised() {
    check_cuts(Cut::TornSectors);
}

#[test]
fn a_cut_that_tears_a_write_anywhere_loses_nothing_promised() {
    check_cuts(Cut::TornBytes);
}

/// Without flushes nothing is promised for a power cut; the start goes on all the same, with what
/// is whole and nothing invented.
#[test]
fn without_sync_a_cut_never_stops_the_start() {
    let run = run(false);
    assert!(!run.log.operations.iter().any(|o| matches!(o, Operation::Sync)));
    let handed_over = run.promises.last().unwrap().handed_over;
    let (mut set_aside, mut salvaged) = (0, 0);
    for count in 0..=run.log.operations.len() {
        let mut dice = Dice(count as u64 + 77);
        let cut = [Cut::Reordered, Cut::TornSectors, Cut::TornBytes][count % 3];
        let context = format!("{cut:?} after {count}");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("spool.redb"), image(&run, count, cut, &mut dice)).unwrap();
        let (spool, _, found) = reopen(dir.path(), &context);
        assert!(found.is_sorted_by(|a, b| a < b), "{context}: {found:?}");
        assert!(found.last().is_none_or(|last| *last <= handed_over), "{context}: {found:?}");
        if damaged_files(dir.path()) == 1 {
            set_aside += 1;
            salvaged += found.len();
        }
        assert!(spool.close());
    }
    assert!(set_aside > 10 && salvaged > 10, "{set_aside} set aside, {salvaged} salvaged");
}
