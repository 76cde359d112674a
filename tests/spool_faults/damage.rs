//! Damaged files: start-up goes on, and every record that is still whole is there.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use redb::StorageBackend;
use redb::backends::FileBackend;
use webmon::spool::{Spool, SpoolError, SpoolOptions};
use webmon::telemetry::health;

use crate::support::{
    CAP, append, expect, is_alone, lost, open, options, read_all, record, threads, until,
};

const MAGIC: &[u8] = b"\xffwsr";
const MARK: &[u8] = b"\xffwsm";

pub(crate) fn damaged_files(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("spool.redb.damaged-")).count()
}

fn garbage(length: u64) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

fn positions(bytes: &[u8], of: &[u8]) -> Vec<usize> {
    (0..bytes.len()).filter(|at| bytes[*at] == of[0] && bytes[*at..].starts_with(of)).collect()
}

/// The records whose bytes stand whole in a file, by what they should be instead of by their CRC.
fn whole_records(bytes: &[u8], record: impl Fn(u64) -> Vec<u8>) -> BTreeSet<u64> {
    let sequence = |at: usize| {
        let number = u64::from_le_bytes(bytes.get(at + 8..at + 16)?.try_into().unwrap());
        let is_whole = number <= 500 && bytes[at + 28..].starts_with(&record(number));
        is_whole.then_some(number)
    };
    positions(bytes, MAGIC).into_iter().filter_map(sequence).collect()
}

/// A closed file with 500 records, of which 100 are acknowledged, and a state.
fn made() -> &'static [u8] {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        append(&spool, 1..=500);
        assert!(spool.flush(CAP));
        spool.acknowledge(100).unwrap();
        spool.put_state("sites", b"a copy".to_vec()).unwrap();
        assert!(spool.close());
        fs::read(dir.path().join("spool.redb")).unwrap()
    })
}

/// Hundreds of these run, and no power fails: not each has to reach the disk.
fn open_unsynced(dir: &Path) -> Spool {
    let options = SpoolOptions { sync: false, ..options(dir) };
    Spool::open(options, &mut threads()).unwrap()
}

/// Has `damage` done to [`made`]'s file, and opens it: either everything is there, or the file was
/// set aside and what is whole in it is there; in both cases the spool works. How many were
/// salvaged, when it was set aside.
fn check_damage(damage: impl Fn(&fs::File, u64)) -> Option<usize> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    fs::write(&path, made()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    damage(&file, file.metadata().unwrap().len());
    drop(file);
    let bytes = fs::read(&path).unwrap();

    let spool = open_unsynced(dir.path());
    let is_set_aside = damaged_files(dir.path()) == 1;
    let mut salvaged = None;
    if is_set_aside {
        let mut whole = whole_records(&bytes, record);
        if positions(&bytes, MARK)
            .iter()
            .any(|at| bytes[at + 8..].starts_with(&100u64.to_le_bytes()))
        {
            whole.retain(|sequence| *sequence > 100);
        }
        let found = read_all(&spool);
        let wanted: Vec<_> = whole.iter().map(|sequence| (*sequence, record(*sequence))).collect();
        assert!(found == wanted, "{} salvaged of {}", found.len(), wanted.len());
        assert_eq!(spool.depth().0, wanted.len() as u64);
        assert_eq!(spool.depth().1, wanted.iter().map(|(_, r)| r.len() as u64).sum::<u64>());
        assert_eq!(spool.get_state("sites"), None);
        salvaged = Some(found.len());
    } else {
        expect(&spool, 101..=500);
        assert_eq!(spool.get_state("sites"), Some(b"a copy".to_vec()));
    }
    let before = spool.cursor().max(500);
    assert!(spool.append(b"new".to_vec()));
    assert!(spool.flush(CAP));
    let last = read_all(&spool).pop().unwrap();
    assert!(last.0 > before, "sequence number {} given twice", last.0);
    assert_eq!(last.1, b"new");
    assert!(spool.close());

    // It drains as any other.
    let spool = open_unsynced(dir.path());
    assert_eq!(read_all(&spool).pop().unwrap(), last);
    spool.acknowledge(last.0).unwrap();
    assert!(spool.flush(CAP));
    assert_eq!(spool.depth(), (0, 0));
    salvaged
}

#[test]
fn a_file_of_garbage_is_set_aside() {
    assert_eq!(check_damage(|file, n| file.write_all_at(&garbage(n), 0).unwrap()), Some(0));
    assert_eq!(check_damage(|file, _| file.set_len(0).unwrap()), Some(0));
    assert_eq!(check_damage(|file, _| file.set_len(700).unwrap()), Some(0));
    let text = check_damage(|file, _| {
        file.set_len(0).unwrap();
        file.write_all_at(b"not a database, but text", 0).unwrap();
    });
    assert_eq!(text, Some(0));
}

#[test]
fn what_is_whole_in_a_damaged_file_goes_on() {
    let headless = check_damage(|file, _| file.write_all_at(&[0; 4096], 0).unwrap());
    assert_eq!(headless, Some(400), "all records without the header");
    let half = check_damage(|file, length| file.set_len(length / 2).unwrap());
    assert!(half.is_some());
    // Single pages: those that are in use make a damaged file, the others don't matter.
    let salvaged: Vec<usize> = (0..60)
        .filter_map(|page| {
            check_damage(|file, length| {
                let at = (length / 60 * page).next_multiple_of(4096).min(length - 4096);
                file.write_all_at(&garbage(2048), at + 1000).unwrap();
            })
        })
        .collect();
    assert!(!salvaged.is_empty(), "no damage was noticed");
    // A record has 380 bytes on average: half a page of garbage has hold of ten at most.
    assert!(salvaged.iter().all(|count| *count >= 385), "{salvaged:?}");
    assert!(salvaged.iter().any(|count| *count < 400), "{salvaged:?}");
}

#[test]
fn no_changed_byte_of_the_header_stops_the_start() {
    // The header's own part byte by byte, then both commit slots.
    let set_aside = (0..64)
        .chain((64..320).step_by(3))
        .filter_map(|at| {
            check_damage(|file, _| {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 0x5a], at).unwrap();
            })
        })
        .inspect(|salvaged| assert_eq!(*salvaged, 400))
        .count();
    assert!(set_aside > 10, "only {set_aside} mattered");
}

#[test]
fn without_a_readable_cursor_acknowledged_records_come_again_and_none_is_lost() {
    let salvaged = check_damage(|file, length| {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for at in positions(&bytes, MARK) {
            file.write_all_at(b"gone", at as u64).unwrap();
        }
        file.write_all_at(&[0; 4096], 0).unwrap();
    });
    assert!(salvaged.is_some_and(|count| count >= 400), "{salvaged:?}");
}

/// After a kill redb goes back to the commit before when the last one doesn't read well: that may
/// have been torn. So damage there costs one commit at most, and elsewhere what it hit.
#[test]
fn damage_to_a_file_that_was_not_closed_costs_the_last_commit_at_most() {
    let made = tempfile::tempdir().unwrap();
    let spool = open(made.path());
    for commit in 0..5 {
        append(&spool, commit * 100 + 1..=commit * 100 + 100);
        assert!(spool.flush(CAP));
    }
    let intact = fs::read(made.path().join("spool.redb")).unwrap();
    assert!(spool.close());
    let used = |page: &usize| intact[page * 4096..][..4096].iter().any(|byte| *byte != 0);
    let pages: Vec<_> = (1..intact.len() / 4096).filter(used).collect();
    assert!(pages.len() > 40, "{} pages", pages.len());
    let (mut set_aside, mut rolled_back) = (0, 0);
    for page in pages {
        let mut bytes = intact.clone();
        bytes[page * 4096 + 1000..][..2048].copy_from_slice(&garbage(2048));
        let whole = whole_records(&bytes, record);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("spool.redb"), bytes).unwrap();
        let spool = open_unsynced(dir.path());
        let found = read_all(&spool);
        assert!(found.iter().all(|(sequence, bytes)| *bytes == record(*sequence)), "page {page}");
        let found: BTreeSet<u64> = found.into_iter().map(|(sequence, _)| sequence).collect();
        if damaged_files(dir.path()) == 1 {
            set_aside += 1;
            assert_eq!(found, whole, "page {page}");
        } else {
            assert!(found.is_superset(&(1..=400).collect()), "page {page}");
            rolled_back += usize::from(found.len() == 400);
        }
        assert!(spool.close());
    }
    assert!(set_aside > 10 && rolled_back > 0, "{set_aside} set aside, {rolled_back} rolled back");
}

/// A salvage that a crash ended begins again: the damaged file keeps its name until the new one is
/// whole.
#[test]
fn a_salvage_that_was_cut_short_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    let spool = open(dir.path());
    append(&spool, 1..=300);
    assert!(spool.close());
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4096].fill(0);
    fs::write(&path, &bytes).unwrap();
    // As a crash leaves them behind the second name, before the new file has the first.
    fs::write(dir.path().join("spool.redb.new"), &bytes[..bytes.len() / 2]).unwrap();
    fs::hard_link(&path, dir.path().join("spool.redb.damaged-1")).unwrap();
    let spool = open(dir.path());
    expect(&spool, 1..=300);
    assert!(spool.close());
    assert!(!dir.path().join("spool.redb.new").exists());
    assert_eq!(fs::read(dir.path().join("spool.redb.damaged-1")).unwrap(), bytes, "as it was");
    expect(&open(dir.path()), 1..=300);
}

/// Of two records with one number, left by a power cut, the later writer's counts.
#[test]
fn the_later_of_two_with_one_number_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    let mut files = Vec::new();
    for text in ["earlier", "the later"] {
        let spool = open(dir.path());
        assert!(spool.append(text.into()));
        assert!(spool.close());
        files.push(fs::read(&path).unwrap());
        fs::remove_file(&path).unwrap();
    }
    for order in [[0, 1], [1, 0]] {
        let bytes: Vec<u8> = order.iter().flat_map(|n| files[*n][4096..].to_vec()).collect();
        fs::write(&path, bytes).unwrap();
        let spool = open(dir.path());
        assert_eq!(read_all(&spool), [(1, b"the later".to_vec())]);
        assert!(spool.close());
    }
}

#[test]
fn damage_met_while_running_is_counted_and_survived() {
    if !is_alone("damage::damage_met_while_running_is_counted_and_survived") {
        return;
    }
    let large = |sequence: u64| vec![sequence as u8; 64 << 10];
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // More than the page cache holds, so that reading goes to the disk.
    (1..=400).for_each(|sequence| assert!(spool.append(large(sequence))));
    assert!(spool.flush(CAP));
    spool.acknowledge(7).unwrap();
    let path = dir.path().join("spool.redb");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0x5a; length as usize / 10 * 9], length / 10).unwrap();
    let mut whole = whole_records(&fs::read(&path).unwrap(), large);
    whole.retain(|sequence| *sequence > 7);
    assert!((10..100).contains(&whole.len()), "{whole:?}");

    let read = || (0..400).map(|after| spool.read(after, 1, 1)).find_map(Result::err);
    assert!(matches!(read(), Some(SpoolError::Unavailable { .. })));
    until(|| format!("{:?}", spool.depth()), || spool.depth().0 == whole.len() as u64);
    assert_eq!(lost("damaged"), 393 - whole.len() as u64);
    assert_eq!(damaged_files(dir.path()), 1);
    let wanted: Vec<_> = whole.iter().map(|sequence| (*sequence, large(*sequence))).collect();
    assert!(read_all(&spool) == wanted);
    assert!(spool.append(b"new".to_vec()));
    assert!(spool.wait(400, CAP));
    assert_eq!(read_all(&spool).pop().unwrap(), (401, b"new".to_vec()), "numbers go on");
    assert!(health().is_ready(), "{:?}", health().parts());
}

#[test]
fn damaged_files_do_not_pile_up_and_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..7 {
        fs::write(dir.path().join("spool.redb"), "no").unwrap();
        assert!(open(dir.path()).close());
    }
    assert_eq!(damaged_files(dir.path()), 4);

    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    let db = redb::Database::open(dir.path().join("spool.redb")).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(meta).unwrap().insert("format", 3).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = Spool::open(options(dir.path()), &mut threads()).unwrap_err();
    assert!(matches!(error, SpoolError::Format { .. }), "{error}");
    assert_eq!(damaged_files(dir.path()), 4);
}

/// A disk that gives nothing back as long as `is_bad`.
#[derive(Debug)]
struct Disk {
    below: FileBackend,
    is_bad: bool,
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // "Input/output error".
        if self.is_bad {
            Err(io::Error::from_raw_os_error(5))
        } else {
            self.below.read(offset, out)
        }
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.below.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.below.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.below.close()
    }
}

/// What can't be read for a moment is waited for; what can't be read for longer is damage.
#[test]
fn an_unreadable_disk_is_waited_for_before_its_file_is_given_up() {
    for (bad_opens, set_aside) in [(1, 0), (6, 0), (7, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        append(&spool, 1..=50);
        assert!(spool.close());
        let left = Arc::new(AtomicI64::new(bad_opens));
        let bad = left.clone();
        let wrap = move |below| Disk { below, is_bad: bad.fetch_sub(1, Ordering::SeqCst) > 0 };
        let spool = Spool::open_with_backend(options(dir.path()), &mut threads(), wrap).unwrap();
        assert!(spool.append(record(51)), "kept in memory meanwhile");
        assert!(spool.flush(CAP), "{bad_opens}: {:?}", health().parts());
        assert!(left.load(Ordering::SeqCst) < 0, "it was bad so often");
        let found: Vec<_> = read_all(&spool).into_iter().map(|(_, bytes)| bytes).collect();
        assert!(found == (1..=51).map(record).collect::<Vec<_>>(), "{bad_opens}");
        assert_eq!(damaged_files(dir.path()), set_aside, "{bad_opens}");
        assert!(spool.close());
    }
}
