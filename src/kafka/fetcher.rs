//! Fetches records of chosen partitions from their leaders.
//!
//! Invariants:
//! - One call per leader, with all wanted partitions it leads; one leader's error takes nothing
//!   from the others.
//! - `next_offset` is never before the wanted offset but when the wanted one lies past the end
//!   of the partition.
//! - Offsets the broker no longer has are skipped to the partition's beginning, counted and
//!   logged: never silently.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, FetchResponse, TopicName};

use super::cluster::{AT_START, Cluster, first_cause};
use super::connection::{DATA_TIMEOUT, text};
use super::errors::{Verdict, verdict};
use super::records::{self, Decoded};
use super::{KafkaError, KafkaOptions};
use crate::telemetry::{ByPartition, metrics};

/// As a wanted offset: from the partition's first record on.
pub const EARLIEST: i64 = -2;

/// Longest wait of a broker for new records, well below the connection's read timeout.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// A batch that can't be read is fetched this often before it is handed on as it is: what was
/// damaged on the way is whole the next time, what is damaged on the broker's disk is not.
const UNREADABLE_FETCHES: u32 = 4;

/// One record of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Its place in the partition.
    pub offset: i64,
    /// When its producer made it, ms since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its message.
    pub value: Option<Bytes>,
}

/// What a fetch brought from one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its number.
    pub partition: i32,
    /// In order of offsets; may be none.
    pub records: Vec<FetchedRecord>,
    /// Where to go on.
    pub next_offset: i64,
    /// The offset after the last record that can be fetched at all.
    pub high_watermark: i64,
    /// Offsets that were wanted and that the broker no longer has.
    pub offsets_lost: u64,
}

/// Fetches from one topic. For one thread.
#[derive(Debug)]
pub struct Fetcher {
    cluster: Cluster,
    topic: String,
    /// What was wrong with each leader when last asked: logged when it changes.
    failing: BTreeMap<String, KafkaError>,
    /// Of partitions with a batch that could not be read: from where, and how often.
    unreadable: BTreeMap<i32, (i64, u32)>,
}

impl Fetcher {
    /// A fetcher for `topic`. Connects with the first fetch.
    #[must_use]
    pub fn new(options: KafkaOptions, topic: &str) -> Self {
        let cluster = Cluster::new(Arc::new(options), DATA_TIMEOUT);
        let (failing, unreadable) = Default::default();
        Self { cluster, topic: topic.to_owned(), failing, unreadable }
    }

    /// Fetches from `wanted`, each a partition and the offset to begin at ([`EARLIEST`] for its
    /// beginning). A broker without new records waits up to `max_wait` (at most 3 s) for some;
    /// it sends about `max_bytes` per partition, but at least one whole batch. A partition whose
    /// leader is away is not in the answer.
    ///
    /// # Errors
    /// When nothing could be fetched from any partition.
    pub fn fetch(
        &mut self,
        wanted: &[(i32, i64)],
        max_wait: Duration,
        max_bytes: i32,
    ) -> Result<Vec<Fetched>, KafkaError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (mut fetched, mut errors) = (Vec::new(), Vec::new());
        let (wanted, unknown) = known_offsets(wanted);
        self.begin(&unknown, &mut fetched, &mut errors);
        for (leader, partitions) in self.by_leader(&wanted, &mut errors)? {
            let answer = self.ask(&leader, &partitions, max_wait, max_bytes);
            let result = answer.and_then(|answer| self.read(answer, &partitions, &mut fetched));
            self.note(&leader, result.as_ref().err());
            if let Err(error) = result {
                self.cluster.forget_layout();
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            self.cluster.forget_layout();
            if fetched.is_empty() {
                return Err(first_cause(errors));
            }
        }
        for part in &fetched {
            metrics().fetched.inc_by(part.records.len() as u64);
            let lag = (part.high_watermark - part.next_offset).max(0);
            metrics().lag.get_or_create(&ByPartition { partition: part.partition }).set(lag);
        }
        Ok(fetched)
    }

    /// Partitions whose first offset must be asked for before anything can be fetched.
    fn begin(&mut self, partitions: &[i32], out: &mut Vec<Fetched>, errors: &mut Vec<KafkaError>) {
        if partitions.is_empty() {
            return;
        }
        match self.cluster.offsets(&self.topic, partitions, AT_START) {
            Ok(offsets) => out.extend(offsets.into_iter().map(|(partition, offset)| Fetched {
                partition,
                records: Vec::new(),
                next_offset: offset,
                high_watermark: offset,
                offsets_lost: 0,
            })),
            Err(error) => errors.push(error),
        }
    }

    fn by_leader(
        &mut self,
        wanted: &[(i32, i64)],
        errors: &mut Vec<KafkaError>,
    ) -> Result<BTreeMap<String, Vec<(i32, i64)>>, KafkaError> {
        let layout = self.cluster.layout(&self.topic)?;
        let mut by_leader: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
        for (partition, offset) in wanted {
            match layout.get(partition).cloned().flatten() {
                Some(leader) => by_leader.entry(leader).or_default().push((*partition, *offset)),
                None => errors.push(KafkaError::NoLeader { topic: self.topic.clone() }),
            }
        }
        Ok(by_leader)
    }

    fn ask(
        &mut self,
        leader: &str,
        wanted: &[(i32, i64)],
        max_wait: Duration,
        max_bytes: i32,
    ) -> Result<FetchResponse, KafkaError> {
        let partitions = wanted.iter().map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(max_bytes)
        });
        let count = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(max_wait.min(MAX_WAIT).as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(max_bytes.saturating_mul(count))
            .with_isolation_level(1)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(TopicName(text(&self.topic)))
                    .with_partitions(partitions.collect()),
            ]);
        self.cluster.broker(leader).request("fetch", ApiKey::Fetch, 12, request)
    }

    /// Reads one leader's answer. The first error of a partition is returned, after all others
    /// were read.
    fn read(
        &mut self,
        answer: FetchResponse,
        wanted: &[(i32, i64)],
        out: &mut Vec<Fetched>,
    ) -> Result<(), KafkaError> {
        if answer.error_code != 0 {
            return Err(KafkaError::Refused { operation: "fetch", code: answer.error_code });
        }
        let wanted: BTreeMap<i32, i64> = wanted.iter().copied().collect();
        let mut first_error = None;
        for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let Some(offset) = wanted.get(&data.partition_index) else { continue };
            match self.read_partition(data, *offset) {
                Ok(fetched) => out.push(fetched),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn read_partition(&mut self, data: PartitionData, wanted: i64) -> Result<Fetched, KafkaError> {
        let partition = data.partition_index;
        if data.error_code == 0 {
            let Decoded { records, next_offset, unreadable } =
                records::decode(data.records.unwrap_or_default(), wanted);
            if let Some(cause) = unreadable.first()
                && self.is_fetched_again(partition, wanted)
            {
                let cause = format!("partition {partition}: {cause}");
                return Err(KafkaError::Protocol { operation: "fetch", cause });
            }
            self.unreadable.remove(&partition);
            for cause in unreadable {
                log::error!(topic = self.topic.as_str(), partition, cause = cause.as_str();
                    "unreadable batch handed on as it is");
            }
            let high_watermark = data.high_watermark;
            return Ok(Fetched {
                partition,
                records,
                next_offset,
                high_watermark,
                offsets_lost: 0,
            });
        }
        match verdict(data.error_code) {
            Verdict::OutOfRange => self.start_again(partition, wanted),
            Verdict::Again
            | Verdict::Refresh
            | Verdict::FindCoordinator
            | Verdict::Rejoin
            | Verdict::StaleGeneration
            | Verdict::UnknownMember
            | Verdict::MemberIdGiven
            | Verdict::Fenced
            | Verdict::TooLarge
            | Verdict::Permanent => {
                Err(KafkaError::Refused { operation: "fetch", code: data.error_code })
            }
        }
    }

    /// Whether what came from `wanted` on and can't be read is worth another fetch.
    fn is_fetched_again(&mut self, partition: i32, wanted: i64) -> bool {
        let (offset, fetches) = self.unreadable.entry(partition).or_insert((wanted, 0));
        if *offset != wanted {
            (*offset, *fetches) = (wanted, 0);
        }
        *fetches += 1;
        *fetches < UNREADABLE_FETCHES
    }

    /// The wanted offset is not there: retention deleted it, or the partition was made anew.
    fn start_again(&mut self, partition: i32, wanted: i64) -> Result<Fetched, KafkaError> {
        let found = self.cluster.offsets(&self.topic, &[partition], AT_START)?;
        let Some(earliest) = found.get(&partition).copied() else {
            return Err(KafkaError::Protocol {
                operation: "list offsets",
                cause: "no word about the partition".to_owned(),
            });
        };
        let offsets_lost = u64::try_from(earliest - wanted).unwrap_or(0);
        metrics().offsets_lost.inc_by(offsets_lost);
        log::error!(topic = self.topic.as_str(), partition, wanted, earliest, offsets_lost;
            "offset out of range, starting at the earliest");
        Ok(Fetched {
            partition,
            records: Vec::new(),
            next_offset: earliest,
            high_watermark: earliest,
            offsets_lost,
        })
    }

    /// Logs a leader's trouble when it begins, changes and ends.
    fn note(&mut self, leader: &str, error: Option<&KafkaError>) {
        match error {
            Some(error) if self.failing.get(leader) == Some(error) => {}
            Some(error) => {
                log::warn!(server = leader, topic = self.topic.as_str(), cause:% = error;
                    "fetch fails");
                self.failing.insert(leader.to_owned(), error.clone());
            }
            None => {
                if self.failing.remove(leader).is_some() {
                    log::info!(server = leader, topic = self.topic.as_str(); "fetch works again");
                }
            }
        }
    }
}

/// Splits off the partitions whose offset is not a place yet.
fn known_offsets(wanted: &[(i32, i64)]) -> (Vec<(i32, i64)>, Vec<i32>) {
    let (known, unknown): (Vec<_>, Vec<_>) =
        wanted.iter().copied().partition(|(_, offset)| *offset >= 0);
    (known, unknown.into_iter().map(|(partition, _)| partition).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Compression;

    fn fetcher() -> Fetcher {
        let options = KafkaOptions {
            servers: Vec::new(),
            client_id: "test".to_owned(),
            tls: None,
            sasl: None,
            compression: Compression::None,
        };
        Fetcher::new(options, "topic")
    }

    /// A batch of the right length whose checksum is wrong.
    fn damaged() -> PartitionData {
        let mut batch = vec![0; 61];
        batch[11] = 49;
        batch[16] = 2;
        PartitionData::default().with_partition_index(3).with_records(Some(batch.into()))
    }

    #[test]
    fn what_cannot_be_read_is_fetched_again_before_it_is_handed_on() {
        let mut fetcher = fetcher();
        for _ in 1..UNREADABLE_FETCHES {
            let error = fetcher.read_partition(damaged(), 0).unwrap_err();
            assert!(error.to_string().contains("redundancy check"), "{error}");
        }
        let fetched = fetcher.read_partition(damaged(), 0).unwrap();
        assert_eq!((fetched.records.len(), fetched.next_offset), (1, 1));
        // The next one has all its tries.
        assert!(fetcher.read_partition(damaged(), 0).is_err());
        let whole = PartitionData::default().with_partition_index(3);
        assert!(fetcher.read_partition(whole, 0).is_ok());
        for _ in 1..UNREADABLE_FETCHES {
            assert!(fetcher.read_partition(damaged(), 0).is_err());
        }
        assert!(fetcher.read_partition(damaged(), 7).is_err(), "from elsewhere");
    }
}
