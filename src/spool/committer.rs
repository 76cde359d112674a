//! The one thread that writes: gathers, commits, repairs.

use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::fault::Fault;
use super::file::{Changes, SpoolFile};
use super::queue::GROUP_MAX;
use super::shared::Shared;
use crate::runtime::{Backoff, mono};
use crate::telemetry::metrics;

/// Waits between tries while the file can't be written.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// The same after a salvage that failed: the next one reads all of the damaged file again, and
/// writes what it finds.
const SALVAGE_CAP: Duration = Duration::from_secs(60);
/// Records in the first transaction after a fault, doubling from there: on a disk that is almost
/// full a small one can succeed where a large one can't.
const CAREFUL_GROUP: usize = 64;

/// State of the committer's thread.
pub(super) struct Committer {
    shared: Arc<Shared>,
    directory: Directory,
    /// Taken from the queue, not yet known to be in the file.
    group: Vec<Vec<u8>>,
    /// How many of them were in the commit that failed: it may have succeeded all the same.
    tried: usize,
    /// The most records for the next transaction.
    limit: usize,
    backoff: Backoff,
    salvage_backoff: Backoff,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, directory: Directory) -> Self {
        Self {
            shared,
            directory,
            group: Vec::new(),
            tried: 0,
            limit: GROUP_MAX,
            backoff: Backoff::new(RETRY_FIRST, RETRY_CAP),
            salvage_backoff: Backoff::new(RETRY_FIRST, SALVAGE_CAP),
        }
    }

    /// Until the spool is closed and everything is in the file, or the close's time is over.
    pub(super) fn run(mut self) {
        while self.shared.wait_for_work() {
            match self.step() {
                Ok(()) => {
                    self.backoff.reset();
                    self.salvage_backoff.reset();
                    self.limit = (self.limit * 2).min(GROUP_MAX);
                    self.shared.works();
                }
                Err(fault) => {
                    // redb refuses everything after a fault until the file is opened again.
                    self.shared.set_file(None);
                    self.limit = CAREFUL_GROUP;
                    self.shared.fails(&fault.to_string(), self.group.len());
                    let delay = self.delay(&fault);
                    if !self.shared.pause(delay) {
                        break;
                    }
                }
            }
        }
        let Self { shared, directory, group, .. } = self;
        // The file before its directory's lock.
        shared.set_file(None);
        drop(directory);
        shared.finish(group);
    }

    /// Until the next try.
    fn delay(&mut self, fault: &Fault) -> Duration {
        match fault {
            Fault::Salvage(_) => self.salvage_backoff.next_delay(),
            _ => self.backoff.next_delay(),
        }
    }

    /// One transaction with what is there.
    fn step(&mut self) -> Result<(), Fault> {
        if self.shared.needs_opening() {
            self.reopen()?;
        }
        let mut queue = self.shared.lock();
        let (last, behind) = (queue.file.last, queue.acknowledged > queue.file.cursor);
        let cursor = queue.acknowledged;
        let states: Vec<_> =
            queue.states.iter().map(|(name, blob)| (name.clone(), blob.clone())).collect();
        queue.seen();
        if self.group.is_empty() {
            queue.take(&mut self.group);
        }
        drop(queue);

        // After a fault the acknowledged ones go first: that makes room.
        let is_making_room = behind && self.limit == CAREFUL_GROUP;
        self.tried = if is_making_room { 0 } else { self.group.len().min(self.limit) };
        let records = &self.group[..self.tried];
        if records.is_empty() && states.is_empty() && !behind {
            return Ok(());
        }
        let cursor = behind.then_some(cursor);
        let changes = Changes { last, records, cursor, states: &states };
        let begun = mono();
        let removed = self.shared.with_file(|file: &SpoolFile| file.commit(&changes))?;
        metrics().spool_commits.inc();
        // Before anybody hears of the commit: who waits for it then finds the spool well.
        self.shared.works();
        self.shared.committed(&changes, removed, mono().saturating_sub(begun));
        self.forget_tried();
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), Fault> {
        self.shared.set_file(None);
        let known = self.shared.lock().known();
        let (file, found) = self.directory.open(known)?;
        // The failed commit may have reached the disk: then its records are there.
        if self.tried > 0 && found.last == known.last + self.tried as u64 {
            self.shared.lock().settle(&self.group[..self.tried]);
            self.forget_tried();
        }
        self.shared.opened(file, found);
        Ok(())
    }

    fn forget_tried(&mut self) {
        self.group.drain(..self.tried);
        self.tried = 0;
        // What is left of the group has waited long enough.
        self.shared.lock().urgent |= !self.group.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use redb::backends::FileBackend;

    use super::*;

    #[test]
    fn a_salvage_that_fails_is_repeated_less_often_than_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        let open = Box::new(|builder: &redb::Builder, file| {
            Ok(builder.create_with_backend(FileBackend::new(file)?)?)
        });
        let directory = Directory::hold(dir.path(), open).unwrap();
        let mut committer = Committer::new(Arc::new(Shared::new(1, 1)), directory);
        let full = || Fault::Io(ErrorKind::StorageFull, "full".to_owned());
        let last = |committer: &mut Committer, fault: &Fault| {
            (0..20).map(|_| committer.delay(fault)).last().unwrap()
        };
        assert!(last(&mut committer, &Fault::Salvage(Box::new(full()))) >= SALVAGE_CAP / 2);
        assert!(last(&mut committer, &full()) <= RETRY_CAP);
    }
}
