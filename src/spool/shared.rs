//! Where the spool's users and its committer meet: the queue under its lock, the file, and whom
//! to wake.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::error::SpoolError;
use super::fault::Fault;
use super::file::{Changes, Found, Removed, SpoolFile};
use super::queue::{Due, Queue, Refusal};
use crate::runtime::mono;
use crate::telemetry::{ByReason, health, metrics};

/// The name in `/readyz`.
const PART: &str = "spool";

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// For the committer: there is something to do.
    work: Condvar,
    /// For everybody else: something was committed, or the spool ended.
    progress: Condvar,
    file: RwLock<Option<SpoolFile>>,
}

fn count_lost(reason: &'static str, records: u64) {
    metrics().spool_lost.get_or_create(&ByReason { reason }).inc_by(records);
}

fn show_depth(queue: &Queue) {
    let (records, bytes) = queue.depth();
    metrics().spool_records.set(i64::try_from(records).unwrap_or(i64::MAX));
    metrics().spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
}

fn show_health(queue: &Queue) {
    match (&queue.failing, queue.refusing) {
        (Some(cause), _) => health().unwell(PART, format!("can't be written: {cause}")),
        (None, Some(_)) => health().unwell(PART, "full, new results are lost"),
        (None, None) => health().well(PART),
    };
}

impl Shared {
    pub(super) fn new(max_records: u64, max_bytes: u64) -> Self {
        Self {
            queue: Mutex::new(Queue::new(max_records, max_bytes)),
            work: Condvar::new(),
            progress: Condvar::new(),
            file: RwLock::new(None),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake_committer(&self) {
        self.work.notify_one();
    }

    // ---- for the users

    pub(super) fn append(&self, record: Vec<u8>) -> bool {
        let mut queue = self.lock();
        let refusal = match queue.push(record, mono()) {
            Ok(wake) => {
                show_depth(&queue);
                drop(queue);
                if wake {
                    self.wake_committer();
                }
                return true;
            }
            Err(refusal) => refusal,
        };
        let was_urgent = queue.urgent;
        let is_news = queue.refused(refusal);
        let wake = queue.urgent && !was_urgent;
        if is_news {
            show_health(&queue);
        }
        let (records, bytes) = queue.depth();
        drop(queue);
        if wake {
            self.wake_committer();
        }
        count_lost(refusal.reason(), 1);
        if is_news {
            let event = match refusal {
                Refusal::Memory => "spool's memory full, new results are lost",
                _ => "spool full, new results are lost",
            };
            log::error!(records, bytes; "{event}");
        }
        false
    }

    /// Waits until `done`, the end of the spool, or `limit`; what `done` says last.
    pub(super) fn wait_until(&self, limit: Duration, done: impl Fn(&Queue) -> bool) -> bool {
        let end = mono().saturating_add(limit);
        let mut queue = self.lock();
        loop {
            let left = end.saturating_sub(mono());
            if done(&queue) || queue.finished || left.is_zero() {
                return done(&queue);
            }
            let waited = self.progress.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs `work` on the open file.
    pub(super) fn with_file<T>(
        &self,
        work: impl FnOnce(&SpoolFile) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        work(file.as_ref().ok_or(Fault::NotOpen)?)
    }

    /// The same for a reader: a fault has the file opened again and checked.
    pub(super) fn read_file<T>(
        &self,
        work: impl FnOnce(&SpoolFile) -> Result<T, Fault>,
    ) -> Result<T, SpoolError> {
        self.with_file(work).map_err(|fault| {
            let mut queue = self.lock();
            if queue.finished {
                return SpoolError::Closed;
            }
            let cause = queue.failing.clone().unwrap_or_else(|| fault.to_string());
            // The committer opens a file that isn't open by itself.
            queue.suspect |= !matches!(fault, Fault::NotOpen);
            drop(queue);
            self.wake_committer();
            SpoolError::Unavailable { cause }
        })
    }

    /// Asks the committer to end after its work, at the latest at `close_by`.
    pub(super) fn ask_to_close(&self, limit: Duration) {
        let by = mono().saturating_add(limit);
        self.lock().close_by.get_or_insert(by);
        self.wake_committer();
    }

    // ---- for the committer

    /// Waits until a commit is due; `false` when the spool is closed and nothing is left.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut queue = self.lock();
        loop {
            let result = match queue.due(mono()) {
                Due::Now => return true,
                Due::Idle if queue.close_by.is_some() => return false,
                Due::Idle => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Due::In(wait) => {
                    let waited = self.work.wait_timeout(queue, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue = result;
        }
    }

    /// Waits `delay` before the next try; `false` when the close's time is over.
    pub(super) fn pause(&self, delay: Duration) -> bool {
        let end = mono().saturating_add(delay);
        let mut queue = self.lock();
        loop {
            let time = mono();
            if queue.close_by.is_some_and(|by| by <= time) {
                return false;
            }
            let until = queue.close_by.map_or(end, |by| by.min(end));
            if end <= time {
                return true;
            }
            let waited = self.work.wait_timeout(queue, until - time);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn set_file(&self, file: Option<SpoolFile>) {
        let before = std::mem::replace(
            &mut *self.file.write().unwrap_or_else(PoisonError::into_inner),
            file,
        );
        // Closing a damaged database can panic like any other access to it.
        let _ = super::fault::guarded(|| {
            drop(before);
            Ok(())
        });
    }

    /// Whether the file isn't open, or a reader met damage in it.
    pub(super) fn needs_opening(&self) -> bool {
        let is_suspect = std::mem::take(&mut self.lock().suspect);
        is_suspect || self.file.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    pub(super) fn opened(&self, file: SpoolFile, found: Found) {
        self.set_file(Some(file));
        let mut queue = self.lock();
        let missing = queue.opened(found);
        show_depth(&queue);
        if missing > 0 {
            count_lost("damaged", missing);
        }
        drop(queue);
        if missing > 0 {
            log::error!(records = missing; "results lost with the damaged spool file");
        }
        self.progress.notify_all();
    }

    /// `changes` are in the file, which took so long.
    pub(super) fn committed(&self, changes: &Changes<'_>, removed: Removed, took: Duration) {
        let mut queue = self.lock();
        queue.committed(changes.records, changes.cursor, removed);
        queue.committed_in(took);
        for (name, blob) in changes.states {
            // A newer one put meanwhile stays for the next commit.
            if queue.states.get(name).is_some_and(|latest| Arc::ptr_eq(latest, blob)) {
                queue.states.remove(name);
            }
        }
        let room = queue.room_again();
        if room.is_some() {
            show_health(&queue);
        }
        show_depth(&queue);
        drop(queue);
        self.progress.notify_all();
        if let Some(lost) = room {
            log::info!(lost; "spool has room again");
        }
    }

    pub(super) fn fails(&self, cause: &str, in_hand: usize) {
        let mut queue = self.lock();
        let is_news = queue.failing.replace(cause.to_owned()).is_none();
        queue.urgent = true;
        show_health(&queue);
        drop(queue);
        if is_news {
            log::error!(cause, in_hand; "spool can't be written, results wait in memory");
        }
    }

    pub(super) fn works(&self) {
        let mut queue = self.lock();
        let was_failing = queue.failing.take().is_some();
        if was_failing {
            show_health(&queue);
        }
        drop(queue);
        if was_failing {
            log::info!("spool can be written again");
        }
    }

    /// The first report of the health part.
    pub(super) fn announce(&self) {
        let queue = self.lock();
        show_health(&queue);
        show_depth(&queue);
    }

    /// The committer's last word; `rest` is what it has in hand and could not write.
    pub(super) fn finish(&self, mut rest: Vec<Vec<u8>>) {
        let mut queue = self.lock();
        rest.append(&mut queue.take_all());
        queue.settle(&rest);
        queue.given_up = rest.len() as u64;
        let lost = queue.given_up;
        if lost > 0 {
            count_lost("disk", lost);
        }
        queue.finished = true;
        drop(queue);
        self.progress.notify_all();
        if lost > 0 {
            log::error!(lost; "spool closed with a failing disk, results are lost");
        }
    }
}
