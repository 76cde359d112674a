//! The redb file: opening, checking, one transaction, reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Builder, Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

use super::fault::{Fault, guarded};

/// The layout's version, under [`FORMAT_KEY`].
pub(super) const FORMAT: u64 = 1;

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("record");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const STATES: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const FORMAT_KEY: &str = "format";
const LAST_KEY: &str = "last";
const CURSOR_KEY: &str = "cursor";

/// redb's page cache in bytes. The spool is read once, near its end: what a batch touches is
/// enough (redb's default is 1 GiB).
const CACHE_BYTES: usize = 8 << 20;

/// What stands in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The last sequence number ever given.
    pub(super) last: u64,
    /// The last one acknowledged.
    pub(super) cursor: u64,
    /// The last record in the file, or the cursor when there is none.
    pub(super) tail: u64,
    /// Records in the file.
    pub(super) records: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// One transaction's worth of changes.
#[derive(Debug)]
pub(super) struct Changes<'a> {
    /// The last sequence number given before this transaction.
    pub(super) last: u64,
    /// The new records: `last + 1` and following.
    pub(super) records: &'a [Vec<u8>],
    /// Everything up to here is acknowledged and goes; `None`: nothing new is.
    pub(super) cursor: Option<u64>,
    /// Named states to be put.
    pub(super) states: &'a [(String, Arc<Vec<u8>>)],
}

/// What a transaction took out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Removed {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// Opens or makes a redb database over a backend that the spool's user may have wrapped.
pub(super) type OpenDatabase =
    Box<dyn Fn(&Builder, std::fs::File) -> Result<Database, Fault> + Send>;

/// An open and checked file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    db: Database,
}

impl SpoolFile {
    /// Opens what is there, repairing what an unclean end left, and checks every page: a clean
    /// open doesn't look at them, and redb panics on some damaged ones.
    pub(super) fn open(
        open: &OpenDatabase,
        file: std::fs::File,
    ) -> Result<(Self, Found, bool), Fault> {
        guarded(|| {
            let repaired = Arc::new(AtomicBool::new(false));
            let seen = repaired.clone();
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder.set_repair_callback(move |_| seen.store(true, Ordering::Relaxed));
            let mut db = open(&builder, file)?;
            // A repair has read and checked all pages already.
            let clean = !repaired.load(Ordering::Relaxed);
            let sound = !clean || db.check_integrity()?;
            let spool = Self { db };
            let found = spool.look()?;
            Ok((spool, found, sound))
        })
    }

    /// Makes an empty spool whose next sequence number is `last` + 1.
    pub(super) fn make(open: &OpenDatabase, file: std::fs::File, last: u64) -> Result<(), Fault> {
        guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let db = open(&builder, file)?;
            let txn = db.begin_write()?;
            txn.open_table(RECORDS)?;
            txn.open_table(STATES)?;
            {
                let mut meta = txn.open_table(META)?;
                meta.insert(FORMAT_KEY, FORMAT)?;
                meta.insert(LAST_KEY, last)?;
                meta.insert(CURSOR_KEY, last)?;
            }
            txn.commit()?;
            Ok(())
        })
    }

    fn look(&self) -> Result<Found, Fault> {
        let txn = self.db.begin_read()?;
        let meta = txn.open_table(META)?;
        let value = |key: &str| -> Result<u64, Fault> {
            let value = meta.get(key)?;
            value.map(|v| v.value()).ok_or_else(|| Fault::Damaged(format!("it has no {key}")))
        };
        let format = value(FORMAT_KEY)?;
        if format != FORMAT {
            return Err(Fault::Format(format!("format {format}")));
        }
        let (last, cursor) = (value(LAST_KEY)?, value(CURSOR_KEY)?);
        txn.open_table(STATES)?;
        let records = txn.open_table(RECORDS)?;
        let mut found = Found { last, cursor, tail: cursor, records: 0, bytes: 0 };
        for item in records.range::<u64>(..)? {
            let (sequence, record) = item?;
            found.tail = found.tail.max(sequence.value());
            found.records += 1;
            found.bytes += record.value().len() as u64;
        }
        found.last = found.last.max(found.tail);
        if found.records != records.len()? {
            return Err(Fault::Damaged("its records don't add up".to_owned()));
        }
        Ok(found)
    }

    /// Carries out `changes` in one transaction; on return they are on the disk.
    pub(super) fn commit(&self, changes: &Changes<'_>) -> Result<Removed, Fault> {
        guarded(|| {
            let mut removed = Removed::default();
            let txn = self.db.begin_write()?;
            {
                let mut records = txn.open_table(RECORDS)?;
                if !changes.records.is_empty() {
                    // One descent for the whole batch: all go behind the last one.
                    let mut end = records.upper_bound_mut(std::ops::Bound::<u64>::Unbounded)?;
                    for (sequence, record) in (changes.last + 1..).zip(changes.records) {
                        end.insert_before(sequence, record.as_slice())?;
                    }
                    end.close()?;
                }
                if let Some(cursor) = changes.cursor {
                    records.retain_in(..=cursor, |_, record| {
                        removed.records += 1;
                        removed.bytes += record.len() as u64;
                        false
                    })?;
                }
            }
            // While records only come, the last of them tells the last number given: one table
            // less to write.
            if let Some(cursor) = changes.cursor {
                let mut meta = txn.open_table(META)?;
                meta.insert(LAST_KEY, changes.last + changes.records.len() as u64)?;
                meta.insert(CURSOR_KEY, cursor)?;
            }
            if !changes.states.is_empty() {
                let mut states = txn.open_table(STATES)?;
                for (name, blob) in changes.states {
                    states.insert(name.as_str(), blob.as_slice())?;
                }
            }
            txn.commit()?;
            Ok(removed)
        })
    }

    /// The records behind `after`, up to `max_records` of together `max_bytes`, but at least one.
    pub(super) fn read(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, Fault> {
        guarded(|| {
            let mut out = Vec::new();
            let mut bytes = 0usize;
            let txn = self.db.begin_read()?;
            let records = txn.open_table(RECORDS)?;
            for item in records.range(after.saturating_add(1)..)?.take(max_records) {
                let (sequence, record) = item?;
                let record = record.value();
                bytes = bytes.saturating_add(record.len());
                if bytes > max_bytes && !out.is_empty() {
                    break;
                }
                out.push((sequence.value(), record.to_vec()));
            }
            Ok(out)
        })
    }

    /// The state `name`, if it was ever put.
    pub(super) fn state(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        guarded(|| {
            let txn = self.db.begin_read()?;
            let states = txn.open_table(STATES)?;
            Ok(states.get(name)?.map(|blob| blob.value().to_vec()))
        })
    }
}
