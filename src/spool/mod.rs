//! A durable queue of opaque records, and a few small named states: what a producer must not
//! forget, in one [redb] file.
//!
//! Invariants:
//! - A record handed to [`Spool::append`] and taken is on the disk (or, with `sync` off, with the
//!   operating system) at most 50 ms later, as long as the disk works. One thread writes: one
//!   transaction for everything that waits, one fsync per transaction.
//! - Readers see committed records only, in the order of their sequence numbers. Sequence numbers
//!   grow by one per record and are never given twice for one directory, also when everything was
//!   acknowledged and the process restarted. (Behind a file that was found damaged at the start is
//!   a gap: they go on from the time in microseconds since 1970.)
//! - A committed record stays until it is acknowledged: acknowledge, then move the cursor, then
//!   delete, the last two in one transaction. After a crash some acknowledged records may be read
//!   again; none is lost.
//! - The spool never blocks its writer on the disk. Whatever is not kept is counted in
//!   `spool_lost` by reason: `full` (`max_records` or `max_bytes`), `memory` (32 MiB wait for a
//!   slow or failing disk), `too_large` (4 MiB), `closed`, `disk` (closed with a failing disk),
//!   `damaged` (lost with a file that became unreadable). The oldest stay.
//! - A fault of the disk heals without a restart: redb refuses all work after one, so the file is
//!   closed and opened again before each retry, and what the failed commit left is looked at.
//! - A damaged file never stops the start: every record that is whole in its bytes goes on in a new
//!   file (`salvage.rs`), none is invented, and the damaged one is set aside.
//! - Only one process works with a directory (`spool.lock`), and only the committer opens, makes,
//!   renames or closes the file.
//!
//! The directory: `spool.lock` (empty, locked), `spool.redb`, `spool.redb.new` while one is being
//! made, `spool.redb.salvaged` until it takes a damaged one's place,
//! `spool.redb.damaged-<unix time>` (at most 4). Tables of `spool.redb`:
//!
//! | table | key | value |
//! |---|---|---|
//! | `record` | sequence number, u64 | the record in its envelope (`envelope.rs`) |
//! | `state` | name | its bytes |
//! | `mark` | `mark` | cursor and last number given, findable without redb (`envelope.rs`) |
//! | `meta` | `format` | 2 |
//! | | `last` | last sequence number given, u64; a record's own number may be above it |
//! | | `cursor` | last sequence number acknowledged, u64 |
//! | | `bare` | records up to here have no envelope: format 1 wrote them; else absent |
//!
//! Sizes: `max_bytes` is of payload; the file takes up to 2.3 times as much, since redb keeps 4 KiB
//! pages and copies a page before it changes it. Freed space is used again; the file hardly shrinks.
//! Opening checks every page: 1.5 to 2 s of CPU for 900 MB. Appending, committing, reading and
//! deleting take about 1 µs each per record in groups of 500. For operators: docs/spool.md.

mod backend;
mod committer;
mod directory;
mod envelope;
mod error;
mod fault;
mod file;
mod queue;
mod salvage;
mod shared;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::FileBackend;

pub use error::SpoolError;

use crate::runtime::{Threads, mono};
use backend::Storage;
use committer::Committer;
use directory::Directory;
use fault::Fault;
use file::OpenDatabase;
use salvage::Known;
use shared::Shared;

/// The largest state in bytes; a page of the site list has some ten kilobytes.
pub const STATE_MAX: usize = 64 << 20;
/// How long [`Spool::close`] tries to write what waits: within a daemon's grace of 10 s.
pub const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Where the spool is and how much it holds.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// Its directory, made when missing.
    pub dir: PathBuf,
    /// Bytes of records that may wait for their acknowledgement.
    pub max_bytes: u64,
    /// Records that may wait for their acknowledgement.
    pub max_records: u64,
    /// Whether every commit reaches the disk before it counts (fsync). Without it a killed
    /// process still loses nothing; a power cut may lose the last seconds, or the file.
    pub sync: bool,
}

/// The spool. Clones are the same one; it closes in the background when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    _users: Arc<Users>,
}

/// Lets go of the committer with the last user.
#[derive(Debug)]
struct Users(Arc<Shared>);

impl Drop for Users {
    fn drop(&mut self) {
        self.0.ask_to_close(CLOSE_LIMIT);
    }
}

impl Spool {
    /// Opens the spool in `options.dir` and starts its committer.
    ///
    /// A damaged file is repaired, or set aside and what is whole in it taken over. A disk that is
    /// full or fails is not an error: records then wait in memory, as they do when that comes later.
    ///
    /// # Errors
    /// [`SpoolError::Directory`], [`SpoolError::InUse`], [`SpoolError::Format`] or
    /// [`SpoolError::Thread`].
    pub fn open(options: SpoolOptions, threads: &mut Threads) -> Result<Self, SpoolError> {
        Self::open_with_backend(options, threads, |file| file)
    }

    /// The same over a storage that `wrap` may put around the file, such as one that fails on
    /// purpose. It is called each time the file is opened.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_with_backend<B, F>(
        options: SpoolOptions,
        threads: &mut Threads,
        wrap: F,
    ) -> Result<Self, SpoolError>
    where
        B: StorageBackend,
        F: Fn(FileBackend) -> B + Send + 'static,
    {
        let SpoolOptions { dir, max_bytes, max_records, sync } = options;
        let open: OpenDatabase = Box::new(move |builder, file| {
            let backend = Storage { below: wrap(FileBackend::new(file)?), sync };
            Ok(builder.create_with_backend(backend)?)
        });
        let directory = Directory::hold(&dir, open)?;
        let shared = Arc::new(Shared::new(max_records, max_bytes));
        match directory.open(Known::default()) {
            Ok((file, found)) => shared.opened(file, found),
            Err(fault) if !fault.is_lasting() => shared.fails(&fault.to_string(), 0),
            Err(Fault::InUse) => return Err(SpoolError::InUse { dir }),
            Err(Fault::Format(found)) => return Err(SpoolError::Format { dir, found }),
            Err(fault) => return Err(SpoolError::Directory { dir, cause: fault.to_string() }),
        }
        shared.announce();
        let (records, bytes) = shared.lock().depth();
        log::info!(dir:% = directory.path().display(), records, bytes; "spool open");
        let committer = Committer::new(shared.clone(), directory);
        threads
            .spawn("spool", move || committer.run())
            .map_err(|error| SpoolError::Thread { cause: error.to_string() })?;
        Ok(Self { _users: Arc::new(Users(shared.clone())), shared })
    }

    /// Hands a record over; never waits for the disk. `false`: it was not taken, which is counted
    /// in `spool_lost`.
    pub fn append(&self, record: Vec<u8>) -> bool {
        self.shared.append(record)
    }

    /// Committed records with sequence numbers above `after` and not yet acknowledged, oldest
    /// first: at most `max_records`, of together at most `max_bytes`, but at least one.
    ///
    /// # Errors
    /// [`SpoolError::Unavailable`] while the file can't be read; [`SpoolError::Closed`].
    pub fn read(
        &self,
        after: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, SpoolError> {
        let after = after.max(self.cursor());
        self.shared.read_file(|file| file.read(after, max_records, max_bytes))
    }

    /// Waits up to `limit` for something to read after `after`; whether there is.
    #[must_use]
    pub fn wait(&self, after: u64, limit: Duration) -> bool {
        self.shared.wait_until(limit, |queue| queue.file.tail > after.max(queue.acknowledged))
    }

    /// Everything up to `up_to` has arrived and need not be kept. Returns at once: the cursor is
    /// on the disk, and the records gone, with the next commit of new records, or by itself when
    /// none came for a second. A spool that is full commits it at once.
    ///
    /// # Errors
    /// [`SpoolError::Closed`].
    pub fn acknowledge(&self, up_to: u64) -> Result<(), SpoolError> {
        let mut queue = self.shared.lock();
        if queue.finished {
            return Err(SpoolError::Closed);
        }
        let wake = queue.acknowledge(up_to, mono());
        drop(queue);
        if wake {
            self.shared.wake_committer();
        }
        Ok(())
    }

    /// How many committed records there are to read after `after`.
    #[must_use]
    pub fn unread(&self, after: u64) -> u64 {
        let queue = self.shared.lock();
        queue.file.tail.saturating_sub(after.max(queue.acknowledged))
    }

    /// The last acknowledged sequence number.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.shared.lock().acknowledged
    }

    /// Records and bytes not yet acknowledged, those still in memory included. An
    /// acknowledgement counts with its commit.
    #[must_use]
    pub fn depth(&self) -> (u64, u64) {
        self.shared.lock().depth()
    }

    /// Puts a small state under `name`, over an earlier one. It is on the disk with the next
    /// commit.
    ///
    /// # Errors
    /// [`SpoolError::StateTooLarge`], [`SpoolError::Closed`].
    pub fn put_state(&self, name: &str, bytes: Vec<u8>) -> Result<(), SpoolError> {
        if bytes.len() > STATE_MAX {
            return Err(SpoolError::StateTooLarge { name: name.to_owned(), bytes: bytes.len() });
        }
        let mut queue = self.shared.lock();
        if queue.close_by.is_some() {
            return Err(SpoolError::Closed);
        }
        queue.put(name, Arc::new(bytes), mono());
        drop(queue);
        self.shared.wake_committer();
        Ok(())
    }

    /// What was last put under `name`, committed or not; nothing when it never was, or while the
    /// file can't be read.
    #[must_use]
    pub fn get_state(&self, name: &str) -> Option<Vec<u8>> {
        let waiting = self.shared.lock().states.get(name).cloned();
        match waiting {
            Some(blob) => Some(blob.to_vec()),
            None => self.shared.read_file(|file| file.state(name)).ok().flatten(),
        }
    }

    /// Has everything committed that was handed over so far; whether that happened within
    /// `limit`.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let mut queue = self.shared.lock();
        let (accepted, acknowledged) = (queue.accepted, queue.acknowledged);
        queue.urgent |= !queue.is_settled();
        drop(queue);
        self.shared.wake_committer();
        self.shared.wait_until(limit, |queue| {
            queue.settled >= accepted
                && queue.given_up == 0
                && queue.file.cursor >= acknowledged
                && queue.states.is_empty()
        })
    }

    /// Commits everything and closes the file, within [`CLOSE_LIMIT`]; whether nothing was lost.
    /// The directory is free for another process then. Closing again changes nothing.
    pub fn close(&self) -> bool {
        self.shared.ask_to_close(CLOSE_LIMIT);
        let done = self.shared.wait_until(CLOSE_LIMIT * 2, |queue| queue.finished);
        let queue = self.shared.lock();
        done && queue.is_settled() && queue.given_up == 0
    }
}
