//! The storage below redb.

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

/// The operating system's "input/output error": the disk can't give back what was written.
const EIO: i32 = 5;

/// A place that the disk could not give back: a hiccup, or damage.
#[derive(Debug)]
pub(super) struct Unreadable(io::Error);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading the file: {}", self.0)
    }
}

impl std::error::Error for Unreadable {}

/// A backend that knows what an unreadable place on the disk is, and whether commits are flushed.
#[derive(Debug)]
pub(super) struct Storage<B> {
    pub(super) below: B,
    /// Without it, it is left to the operating system when bytes reach the disk. Every commit is
    /// still written, so that a killed process loses nothing; a power cut may lose the last
    /// seconds, or leave a file that is damaged. (redb's own `Durability::None` keeps commits in
    /// memory: a killed process would lose them.)
    pub(super) sync: bool,
}

impl<B: StorageBackend> StorageBackend for Storage<B> {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, out).map_err(|error| match error.raw_os_error() {
            Some(EIO) => io::Error::new(ErrorKind::InvalidData, Unreadable(error)),
            _ => error,
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.below.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.sync { self.below.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.below.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.query_lock_range(start, end)
    }
}
