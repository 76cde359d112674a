//! What others may see of a running producer.

use jiff::Timestamp;

use super::Ownership;
use super::recorder::split;
use crate::spool::Spool;
use crate::wire;

/// Looks at a running producer; outlives it, and then sees an empty spool.
#[derive(Clone, Debug)]
pub struct ProducerView {
    ownership: Ownership,
    spool: Spool,
}

/// A producer at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How many of the topic's partitions are its own, and how many there are; absent while it
    /// checks all sites.
    pub share: Option<(usize, usize)>,
    /// Results that wait in the spool.
    pub spool_records: u64,
    /// Their bytes.
    pub spool_bytes: u64,
    /// When the oldest of them was due.
    pub spool_oldest: Option<Timestamp>,
}

impl ProducerView {
    pub(super) fn new(ownership: Ownership, spool: Spool) -> Self {
        Self { ownership, spool }
    }

    /// The producer now. Reads one record of the spool.
    #[must_use]
    pub fn look(&self) -> Seen {
        let (spool_records, spool_bytes) = self.spool.depth();
        let oldest = self.spool.read(0, 1, 0).unwrap_or_default();
        let due = |record: &[u8]| Some(wire::decode(split(record)?.1).ok()?.scheduled_at);
        let spool_oldest = oldest.first().and_then(|(_, record)| due(record));
        Seen { share: self.ownership.share(), spool_records, spool_bytes, spool_oldest }
    }
}
