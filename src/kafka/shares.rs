//! What a fetch asks of each leader, and whether an answer brought as much.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::PartitionData;

use super::fetcher::FetchLimits;

/// Longest wait of a broker for new records, well below the connection's read timeout.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// Least share of a partition in what one fetch may bring.
const PARTITION_BYTES_MIN: i32 = 64 << 10;

/// What one request to one leader may ask for.
#[derive(Debug, PartialEq)]
pub(super) struct Shares {
    pub(super) wait_ms: i32,
    pub(super) min_bytes: i32,
    pub(super) leader_bytes: i32,
    pub(super) partition_bytes: i32,
}

impl Shares {
    pub(super) fn of(limits: FetchLimits, partitions: usize, leaders: usize) -> Self {
        let among = |count: usize| i32::try_from(count).unwrap_or(i32::MAX).max(1);
        let (partitions, leaders) = (among(partitions), among(leaders));
        let max_bytes = limits.max_bytes.max(1);
        Self {
            wait_ms: limits.max_wait.min(MAX_WAIT).as_millis() as i32 / leaders,
            min_bytes: limits.min_bytes,
            leader_bytes: (max_bytes / leaders).max(1),
            partition_bytes: (max_bytes / partitions).max(PARTITION_BYTES_MIN).min(max_bytes),
        }
    }

    /// Whether a partition's part of an answer is as large as it may be.
    pub(super) fn is_reached_by(&self, data: &PartitionData) -> bool {
        size(data) >= bytes(self.partition_bytes)
    }

    /// Whether an answer is as large as it may be, so that any batch in it may be cut.
    pub(super) fn is_full(&self, answer: &FetchResponse) -> bool {
        let parts = answer.responses.iter().flat_map(|topic| &topic.partitions);
        parts.map(size).sum::<usize>() >= bytes(self.leader_bytes)
    }
}

/// The bytes that came of a partition.
fn size(data: &PartitionData) -> usize {
    data.records.as_ref().map_or(0, Bytes::len)
}

fn bytes(limit: i32) -> usize {
    usize::try_from(limit).unwrap_or(0)
}
