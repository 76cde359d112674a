//! Files of earlier releases: `tests/data/spool_format1_*` were written by the last release
//! without envelopes (records 1 to 300, 120 acknowledged, two states, then 301 to 330), one closed
//! and one as `kill -9` leaves it.

use std::fs;
use std::path::Path;

use crate::damage::damaged_files;
use crate::support::{CAP, append, expect, open, read_all, record};

fn unpack(name: &str, dir: &Path) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let bytes = zstd::decode_all(fs::File::open(packed).unwrap()).unwrap();
    fs::write(dir.join("spool.redb"), bytes).unwrap();
}

fn format(dir: &Path) -> u64 {
    let db = redb::Database::open(dir.join("spool.redb")).unwrap();
    let txn = redb::ReadableDatabase::begin_read(&db).unwrap();
    let meta = txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap();
    redb::ReadableTable::get(&meta, "format").unwrap().unwrap().value()
}

#[test]
fn an_earlier_release_s_file_goes_on() {
    for name in ["spool_format1_closed.redb.zst", "spool_format1_killed.redb.zst"] {
        let dir = tempfile::tempdir().unwrap();
        unpack(name, dir.path());
        if name.contains("closed") {
            assert_eq!(format(dir.path()), 1, "the sample is of the old format");
        }
        let spool = open(dir.path());
        assert_eq!(spool.cursor(), 120);
        expect(&spool, 121..=330);
        let bytes: u64 = (121..=330).map(|n| record(n).len() as u64).sum();
        assert_eq!(spool.depth(), (210, bytes));
        assert_eq!(spool.get_state("sites"), Some(b"a list of sites".repeat(500)));
        assert_eq!(spool.get_state("other"), Some(vec![]));
        // New ones stand in the same file behind old ones, and either kind goes.
        append(&spool, 331..=400);
        assert!(spool.flush(CAP));
        expect(&spool, 121..=400);
        spool.acknowledge(200).unwrap();
        assert!(spool.flush(CAP));
        let bytes: u64 = (201..=400).map(|n| record(n).len() as u64).sum();
        assert_eq!(spool.depth(), (200, bytes));
        assert!(spool.close());
        assert_eq!(format(dir.path()), 2);

        let spool = open(dir.path());
        expect(&spool, 201..=400);
        assert_eq!(spool.depth(), (200, bytes));
        assert_eq!(spool.get_state("sites"), Some(b"a list of sites".repeat(500)));
        spool.acknowledge(350).unwrap();
        append(&spool, 401..=401);
        assert!(spool.flush(CAP));
        expect(&spool, 351..=401);
        spool.acknowledge(401).unwrap();
        assert!(spool.flush(CAP));
        assert_eq!(spool.depth(), (0, 0));
        assert!(spool.close());
        assert_eq!(damaged_files(dir.path()), 0);
    }
}

/// A damaged file of an earlier release: its records have no envelope that would prove them, so
/// they stay in the file that is set aside. What came after the upgrade is salvaged.
#[test]
fn a_damaged_file_of_an_earlier_release_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.redb");
    let behead = || {
        let mut bytes = fs::read(&path).unwrap();
        bytes[..4096].fill(0);
        fs::write(&path, bytes).unwrap();
    };
    unpack("spool_format1_closed.redb.zst", dir.path());
    behead();
    let spool = open(dir.path());
    assert_eq!((read_all(&spool), damaged_files(dir.path())), (vec![], 1));
    assert!(spool.close());

    unpack("spool_format1_killed.redb.zst", dir.path());
    let spool = open(dir.path());
    append(&spool, 331..=340);
    assert!(spool.close());
    behead();
    let spool = open(dir.path());
    expect(&spool, 331..=340);
    assert_eq!(damaged_files(dir.path()), 2);
}
