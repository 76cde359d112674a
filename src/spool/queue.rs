//! What waits in memory, and the books: shared by everybody who uses the spool and its
//! committer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::file::{Found, Removed};
use super::salvage::Known;

/// A record is safe this long after it was handed over, with 5 ms of the promised 50 left for
/// waking up late.
const SAFE_WITHIN: Duration = Duration::from_millis(45);
/// How long the first of a group waits for others: what a commit takes lately (some ms on a
/// solid-state disk) is taken off [`SAFE_WITHIN`], within these bounds. The CPU of a commit hardly
/// depends on its size, so long waits are cheap ones: at 200 results a second 22 commits instead
/// of the 30 or so that waiting 25 ms makes.
const GATHER_MIN: Duration = Duration::from_millis(10);
const GATHER_MAX: Duration = Duration::from_millis(40);
/// Each commit takes an eighth off what a slow one before it added to the expectation.
const FORGET: u32 = 8;
/// How long an acknowledgement waits for new records to share a commit with. It may be long: what
/// is lost of it in a crash is only read again.
const GATHER_ACKNOWLEDGED: Duration = Duration::from_secs(1);
/// A group of this many records is committed without further waiting, and none is larger: a
/// transaction of this size takes some ten milliseconds.
pub(super) const GROUP_MAX: usize = 4096;
/// Bytes of records that may wait in memory, while the disk is slow or failing: about 20 seconds
/// of 3,000 checks a second.
pub(super) const MEMORY_MAX: usize = 32 << 20;
/// What a waiting record takes besides its bytes.
const RECORD_OVERHEAD: usize = 32;
/// The largest record in bytes; Kafka's own default limit is 1 MiB.
pub(super) const RECORD_MAX: usize = 4 << 20;

/// Why a record was not taken; the words are those of `metrics().spool_lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `max_records` or `max_bytes` is reached.
    Full,
    /// [`MEMORY_MAX`] is reached: the disk is slow or failing.
    Memory,
    /// Larger than [`RECORD_MAX`].
    TooLarge,
    /// Handed over after the close.
    Closed,
}

impl Refusal {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Memory => "memory",
            Self::TooLarge => "too_large",
            Self::Closed => "closed",
        }
    }
}

/// When the committer has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    In(Duration),
    Idle,
}

/// Everything under the one lock.
#[derive(Debug, Default)]
pub(super) struct Queue {
    max_records: u64,
    max_bytes: u64,
    /// Handed over, not yet taken by the committer.
    waiting: Vec<Vec<u8>>,
    /// Records and bytes in memory: waiting, or with the committer.
    unsaved_records: u64,
    unsaved_bytes: u64,
    /// Records that ever came in; of these, those on the disk or given up; of these, the latter.
    pub(super) accepted: u64,
    pub(super) settled: u64,
    pub(super) given_up: u64,
    /// What the file holds.
    pub(super) file: Found,
    /// The last number given when the file was opened.
    last_opened: u64,
    /// Acknowledged by the user; the file's cursor follows.
    pub(super) acknowledged: u64,
    pub(super) states: BTreeMap<String, Arc<Vec<u8>>>,
    /// When the oldest waiting record, or acknowledgement, came (monotonic).
    first_record: Option<Duration>,
    first_acknowledged: Option<Duration>,
    /// How long a commit is expected to take.
    commit_takes: Duration,
    /// Somebody waits for a flush, or the committer has unfinished work.
    pub(super) urgent: bool,
    /// A reader met damage: the file has to be checked.
    pub(super) suspect: bool,
    /// The close's deadline (monotonic), once asked for.
    pub(super) close_by: Option<Duration>,
    /// The committer has ended.
    pub(super) finished: bool,
    /// New records are being lost, since so many.
    pub(super) refusing: Option<Refusal>,
    pub(super) lost: u64,
    /// Why the file can't be used now.
    pub(super) failing: Option<String>,
}

impl Queue {
    pub(super) fn new(max_records: u64, max_bytes: u64) -> Self {
        Self { max_records, max_bytes, ..Self::default() }
    }

    /// Takes a record in. `Ok(true)`: the committer has to be woken.
    pub(super) fn push(&mut self, record: Vec<u8>, now: Duration) -> Result<bool, Refusal> {
        self.admit(record.len() as u64)?;
        self.unsaved_records += 1;
        self.unsaved_bytes += record.len() as u64;
        self.accepted += 1;
        self.waiting.push(record);
        self.first_record.get_or_insert(now);
        Ok(matches!(self.waiting.len(), 1 | GROUP_MAX))
    }

    fn admit(&self, bytes: u64) -> Result<(), Refusal> {
        if self.close_by.is_some() {
            return Err(Refusal::Closed);
        }
        if bytes > RECORD_MAX as u64 {
            return Err(Refusal::TooLarge);
        }
        let (records, kept) = self.depth();
        if records >= self.max_records || kept + bytes > self.max_bytes {
            return Err(Refusal::Full);
        }
        let overhead = (self.unsaved_records + 1) * RECORD_OVERHEAD as u64;
        if self.unsaved_bytes + bytes + overhead > MEMORY_MAX as u64 {
            return Err(Refusal::Memory);
        }
        Ok(())
    }

    /// Counts a refusal; whether it is the first of its kind in a row.
    pub(super) fn refused(&mut self, refusal: Refusal) -> bool {
        let lasting = matches!(refusal, Refusal::Full | Refusal::Memory);
        if !lasting {
            return false;
        }
        self.lost += 1;
        // What was acknowledged makes room as soon as that is committed.
        self.urgent |= self.acknowledged > self.file.cursor;
        let first = self.refusing.is_none();
        self.refusing.get_or_insert(refusal);
        first
    }

    /// Whether there is room again after a time of refusing, and how many were lost in it. A
    /// tenth has to be free, so that a full spool that drains slowly isn't news every time.
    pub(super) fn room_again(&mut self) -> Option<u64> {
        self.refusing?;
        let (records, bytes) = self.depth();
        let is_roomy = |used: u64, limit: u64| used.saturating_mul(10) <= limit.saturating_mul(9);
        if !is_roomy(records, self.max_records)
            || !is_roomy(bytes, self.max_bytes)
            || !is_roomy(self.unsaved_bytes, MEMORY_MAX as u64)
        {
            return None;
        }
        self.refusing = None;
        Some(std::mem::take(&mut self.lost))
    }

    /// Records and bytes not yet acknowledged, in memory and in the file.
    pub(super) fn depth(&self) -> (u64, u64) {
        (self.file.records + self.unsaved_records, self.file.bytes + self.unsaved_bytes)
    }

    /// Remembers an acknowledgement; whether the committer has to be woken.
    pub(super) fn acknowledge(&mut self, up_to: u64, now: Duration) -> bool {
        let up_to = up_to.min(self.file.tail);
        if up_to <= self.acknowledged {
            return false;
        }
        self.acknowledged = up_to;
        // A full spool gets its room back with the commit: new records are being lost meanwhile.
        self.urgent |= self.refusing.is_some();
        let first = self.first_acknowledged.is_none();
        self.first_acknowledged.get_or_insert(now);
        first || self.urgent
    }

    pub(super) fn put(&mut self, name: &str, blob: Arc<Vec<u8>>, now: Duration) {
        self.states.insert(name.to_owned(), blob);
        self.first_record.get_or_insert(now);
    }

    /// Whether nothing waits for a commit.
    pub(super) fn is_settled(&self) -> bool {
        self.unsaved_records == 0
            && self.states.is_empty()
            && self.acknowledged <= self.file.cursor
            && !self.suspect
    }

    pub(super) fn due(&self, now: Duration) -> Due {
        if self.is_settled() {
            // A file that could not be opened is tried again without anybody asking.
            let is_repairing = self.failing.is_some() && self.close_by.is_none();
            return if is_repairing { Due::Now } else { Due::Idle };
        }
        let pressed = self.urgent || self.suspect || self.close_by.is_some();
        if pressed || self.waiting.len() >= GROUP_MAX {
            return Due::Now;
        }
        let records = self.first_record.map(|at| at + self.gather());
        let acknowledged = self.first_acknowledged.map(|at| at + GATHER_ACKNOWLEDGED);
        let at = records.into_iter().chain(acknowledged).min().unwrap_or(now);
        if at <= now { Due::Now } else { Due::In(at - now) }
    }

    fn gather(&self) -> Duration {
        SAFE_WITHIN.saturating_sub(self.commit_takes).clamp(GATHER_MIN, GATHER_MAX)
    }

    /// A commit took so long: the next ones may as well.
    pub(super) fn committed_in(&mut self, took: Duration) {
        let expected = self.commit_takes - self.commit_takes / FORGET;
        self.commit_takes = took.min(SAFE_WITHIN).max(expected);
    }

    /// The next group, oldest first, into the empty `group`.
    pub(super) fn take(&mut self, group: &mut Vec<Vec<u8>>) {
        if self.waiting.len() > GROUP_MAX {
            // The rest stays due: it has waited as long.
            group.extend(self.waiting.drain(..GROUP_MAX));
            return;
        }
        self.first_record = None;
        std::mem::swap(&mut self.waiting, group);
    }

    pub(super) fn take_all(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.waiting)
    }

    /// The committer has looked at the acknowledgement and at whoever is in a hurry.
    pub(super) fn seen(&mut self) {
        self.first_acknowledged = None;
        self.urgent = false;
        if self.waiting.is_empty() {
            self.first_record = None;
        }
    }

    /// `records` are in the file, with everything up to `cursor`, if it moved, gone.
    pub(super) fn committed(&mut self, records: &[Vec<u8>], cursor: Option<u64>, removed: Removed) {
        let count = records.len() as u64;
        let bytes = self.settle(records);
        self.file.last += count;
        if count > 0 {
            self.file.tail = self.file.last;
        }
        self.file.cursor = cursor.unwrap_or(self.file.cursor);
        self.file.records = (self.file.records + count).saturating_sub(removed.records);
        self.file.bytes = (self.file.bytes + bytes).saturating_sub(removed.bytes);
    }

    /// `records` need no more care: committed, or given up. Their bytes.
    pub(super) fn settle(&mut self, records: &[Vec<u8>]) -> u64 {
        let bytes = records.iter().map(|record| record.len() as u64).sum();
        self.unsaved_records = self.unsaved_records.saturating_sub(records.len() as u64);
        self.unsaved_bytes = self.unsaved_bytes.saturating_sub(bytes);
        self.settled += records.len() as u64;
        bytes
    }

    /// What the next file has to go on from.
    pub(super) fn known(&self) -> Known {
        Known { last: self.file.last, cursor: self.acknowledged }
    }

    /// The file was opened and holds `found`; how many records it should hold but doesn't.
    pub(super) fn opened(&mut self, found: Found) -> u64 {
        let before = self.file;
        // Numbers follow each other behind the last one that was given when the file was opened;
        // there may be a gap at it, behind records that were salvaged at the start.
        let expected = if self.acknowledged >= self.last_opened {
            before.tail.saturating_sub(self.acknowledged)
        } else {
            let gone = self.acknowledged.saturating_sub(before.cursor);
            before.records.saturating_sub(gone)
        };
        self.file = found;
        self.file.last = found.last.max(before.last);
        self.acknowledged = self.acknowledged.max(found.cursor);
        self.last_opened = self.file.last;
        expected.saturating_sub(found.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn queue() -> Queue {
        Queue::new(100, 1000)
    }

    /// A commit of all that waits, which took so long.
    fn commit(queue: &mut Queue, took: Duration) {
        let (cursor, mut group) = (queue.acknowledged, Vec::new());
        queue.seen();
        queue.take(&mut group);
        queue.committed(&group, Some(cursor), Removed::default());
        queue.committed_in(took);
    }

    #[test]
    fn a_group_waits_for_less_when_commits_take_long() {
        let mut queue = queue();
        for (took, gather) in [(0, 40), (3, 40), (20, 25), (0, 27), (900, 10)] {
            commit(&mut queue, ms(took));
            assert_eq!(queue.push(vec![1], ms(1000)), Ok(true));
            assert_eq!(queue.push(vec![2], ms(1007)), Ok(false));
            let Due::In(wait) = queue.due(ms(1000)) else { panic!("{:?}", queue.due(ms(1000))) };
            assert_eq!(wait.as_millis(), gather, "after a commit of {took} ms");
            assert_eq!(queue.due(ms(1000 + 40)), Due::Now);
        }
        // A slow commit is forgotten in time.
        for _ in 0..40 {
            commit(&mut queue, ms(2));
        }
        assert_eq!(queue.gather(), GATHER_MAX);
    }

    #[test]
    fn an_acknowledgement_waits_for_a_commit_of_records() {
        let mut queue = queue();
        queue.push(vec![1], ms(0)).unwrap();
        commit(&mut queue, ms(0));
        assert!(queue.acknowledge(1, ms(10)));
        assert!(!queue.acknowledge(1, ms(11)), "nothing new");
        assert_eq!(queue.due(ms(20)), Due::In(ms(990)));
        queue.push(vec![2], ms(20)).unwrap();
        assert_eq!(queue.due(ms(20)), Due::In(ms(40)), "it rides along");
        commit(&mut queue, ms(0));
        assert_eq!(queue.due(ms(60)), Due::Idle);
    }

    #[test]
    fn a_full_spool_gets_its_room_at_once() {
        let mut queue = queue();
        queue.push(vec![0; 1000], ms(0)).unwrap();
        commit(&mut queue, ms(0));
        let refusal = queue.push(vec![1], ms(1)).unwrap_err();
        assert!(queue.refused(refusal));
        assert!(queue.acknowledge(1, ms(2)));
        assert_eq!(queue.due(ms(2)), Due::Now);
    }

    #[test]
    fn what_is_missing_is_counted_in_records_whatever_their_numbers() {
        // Ten records were salvaged at the start: numbers go on behind a gap.
        let at_start =
            Found { last: 1000, cursor: 0, tail: 10, records: 10, bytes: 10, behind: 10 };
        for (acknowledged, expected) in [(0, 15), (4, 11), (10, 5), (1000, 5), (1002, 3), (1005, 0)]
        {
            for there in 0..=expected {
                let mut queue = queue();
                assert_eq!(queue.opened(at_start), 0);
                (0..5).for_each(|n| assert!(queue.push(vec![n], ms(0)).is_ok()));
                let mut group = Vec::new();
                queue.take(&mut group);
                queue.committed(&group, None, Removed::default());
                assert_eq!(queue.file.tail, 1005);
                queue.acknowledge(acknowledged, ms(0));
                let found = Found { behind: there, tail: 1005, last: 1005, ..at_start };
                assert_eq!(queue.opened(found), expected - there, "{acknowledged} acknowledged");
            }
        }
    }
}
