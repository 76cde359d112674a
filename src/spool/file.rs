//! The redb file: opening, checking, one transaction, reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::envelope::{OVERHEAD, mark, opened_us, unwrap, wrap};
use super::fault::{Fault, guarded};
use crate::runtime::now;

/// The layout's version, under [`FORMAT_KEY`].
pub(super) const FORMAT: u64 = 2;
/// The layout before: records without envelope, and no marks. It is taken over when opened.
const FORMAT_BARE: u64 = 1;

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("record");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const STATES: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const MARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("mark");
const FORMAT_KEY: &str = "format";
const LAST_KEY: &str = "last";
const CURSOR_KEY: &str = "cursor";
/// Records up to here have no envelope: an earlier release wrote them.
const BARE_KEY: &str = "bare";
const MARK_KEY: &str = "mark";

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
    /// Of them those that are not known to be acknowledged.
    pub(super) behind: u64,
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
    /// Records up to here have no envelope.
    bare: u64,
    /// When it was opened, in microseconds since 1970: tells which of two records is the later
    /// one, should a power cut have let a number be given twice.
    opened_us: u64,
}

/// The records' bytes without their envelope.
fn payload(bare: u64, sequence: u64, value: &[u8]) -> Result<&[u8], Fault> {
    if sequence <= bare {
        return Ok(value);
    }
    unwrap(sequence, value).ok_or_else(|| Fault::Damaged(format!("record {sequence} is damaged")))
}

/// The wall clock in microseconds since 1970.
pub(super) fn wall_us() -> u64 {
    u64::try_from(now().wall.as_microsecond()).unwrap_or(0)
}

impl SpoolFile {
    /// Opens what is there, repairing what an unclean end left, and checks every page: a clean
    /// open doesn't look at them, and redb panics on some damaged ones. `acknowledged` is what is
    /// known to be; the file may not have heard of it yet.
    pub(super) fn open(
        open: &OpenDatabase,
        file: std::fs::File,
        acknowledged: u64,
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
            let mut spool = Self { db, bare: 0, opened_us: wall_us() };
            let found = spool.look(acknowledged)?;
            Ok((spool, found, sound))
        })
    }

    /// Makes an empty spool whose next sequence number is `last` + 1.
    pub(super) fn make(open: &OpenDatabase, file: std::fs::File, last: u64) -> Result<Self, Fault> {
        guarded(|| {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            let db = open(&builder, file)?;
            let txn = db.begin_write()?;
            txn.open_table(RECORDS)?;
            txn.open_table(STATES)?;
            txn.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
            put_marks(&txn, last, last)?;
            txn.commit()?;
            Ok(Self { db, bare: 0, opened_us: wall_us() })
        })
    }

    /// Looks at every record, after taking over a file of an earlier release.
    fn look(&mut self, acknowledged: u64) -> Result<Found, Fault> {
        let format = self.meta(FORMAT_KEY)?;
        let (last, cursor) = (self.meta(LAST_KEY)?, self.meta(CURSOR_KEY)?);
        let (Some(format), Some(last), Some(cursor)) = (format, last, cursor) else {
            return Err(Fault::Damaged("its marks are missing".to_owned()));
        };
        self.bare = match format {
            FORMAT_BARE => u64::MAX,
            FORMAT => self.meta(BARE_KEY)?.unwrap_or(0),
            other => return Err(Fault::Format(format!("format {other}"))),
        };
        let txn = self.db.begin_read()?;
        txn.open_table(STATES)?;
        let records = txn.open_table(RECORDS)?;
        let mut found = Found { last, cursor, tail: cursor, ..Found::default() };
        for item in records.range::<u64>(..)? {
            let (sequence, record) = item?;
            found.tail = found.tail.max(sequence.value());
            found.records += 1;
            found.behind += u64::from(sequence.value() > cursor.max(acknowledged));
            found.bytes += payload(self.bare, sequence.value(), record.value())?.len() as u64;
        }
        found.last = found.last.max(found.tail);
        if found.records != records.len()? {
            return Err(Fault::Damaged("its records don't add up".to_owned()));
        }
        if format == FORMAT_BARE {
            self.take_over(found)?;
        }
        Ok(found)
    }

    fn meta(&self, key: &str) -> Result<Option<u64>, Fault> {
        let txn = self.db.begin_read()?;
        Ok(txn.open_table(META)?.get(key)?.map(|value| value.value()))
    }

    /// Makes an earlier release's file one of this format. Its records stay as they are: that
    /// needs no room, which an outage may have taken, and no time.
    fn take_over(&mut self, found: Found) -> Result<(), Fault> {
        let txn = self.db.begin_write()?;
        {
            let mut meta = txn.open_table(META)?;
            meta.insert(FORMAT_KEY, FORMAT)?;
            meta.insert(BARE_KEY, found.last)?;
        }
        put_marks(&txn, found.cursor, found.last)?;
        txn.commit()?;
        self.bare = found.last;
        log::info!(
            records = found.records, from = FORMAT_BARE, to = FORMAT;
            "spool file of an earlier release taken over"
        );
        Ok(())
    }

    /// Puts whole envelopes with their sequence numbers, for a salvage; how many were new. Of two
    /// with one number the later writer's stays.
    pub(super) fn restore(&self, envelopes: &[(u64, &[u8])]) -> Result<u64, Fault> {
        guarded(|| {
            let mut added = 0;
            let txn = self.db.begin_write()?;
            {
                let mut records = txn.open_table(RECORDS)?;
                for (sequence, envelope) in envelopes {
                    let there = records.get(sequence)?.map(|there| opened_us(there.value()));
                    if there.is_none_or(|there| there < opened_us(envelope)) {
                        records.insert(sequence, envelope)?;
                        added += u64::from(there.is_none());
                    }
                }
            }
            txn.commit()?;
            Ok(added)
        })
    }

    /// Sets the cursor and the last number given, at the end of a salvage.
    pub(super) fn set_marks(&self, cursor: u64, last: u64) -> Result<(), Fault> {
        guarded(|| {
            let txn = self.db.begin_write()?;
            put_marks(&txn, cursor, last)?;
            txn.commit()?;
            Ok(())
        })
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
                    let mut envelope = Vec::new();
                    for (sequence, record) in (changes.last + 1..).zip(changes.records) {
                        wrap(&mut envelope, sequence, self.opened_us, record);
                        end.insert_before(sequence, envelope.as_slice())?;
                    }
                    end.close()?;
                }
                if let Some(cursor) = changes.cursor {
                    records.retain_in(..=cursor, |sequence, record| {
                        let envelope = if sequence <= self.bare { 0 } else { OVERHEAD };
                        removed.records += 1;
                        removed.bytes += record.len().saturating_sub(envelope) as u64;
                        false
                    })?;
                }
            }
            // While records only come, the last of them tells the last number given: one table
            // less to write.
            if let Some(cursor) = changes.cursor {
                put_marks(&txn, cursor, changes.last + changes.records.len() as u64)?;
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
                let record = payload(self.bare, sequence.value(), record.value())?;
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

/// The cursor and the last number given: for redb, and findable without it.
fn put_marks(txn: &WriteTransaction, cursor: u64, last: u64) -> Result<(), Fault> {
    let mut meta = txn.open_table(META)?;
    meta.insert(LAST_KEY, last)?;
    meta.insert(CURSOR_KEY, cursor)?;
    txn.open_table(MARKS)?.insert(MARK_KEY, mark(cursor, last).as_slice())?;
    Ok(())
}
