//! Publishes records: each goes to the partition of its key, and counts as done only when all
//! in-sync replicas have it.
//!
//! Invariants:
//! - One call goes to one leader: an error there takes no other leader's acknowledgements away.
//! - An index is acknowledged, refused or unacknowledged, exactly one of them. Unacknowledged
//!   ones may have been written all the same; whoever sends them again makes duplicates, which
//!   the check's id absorbs.
//! - Nothing is retried in here but the halves of a batch that is too large: waiting is the
//!   caller's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, TopicName};

use super::batch::Encoder;
use super::cluster::{Cluster, UNKNOWN_TOPIC};
use super::connection::{DATA_TIMEOUT, text};
use super::errors::{Verdict, verdict};
use super::topics::{TopicSpec, ensure_in};
use super::{KafkaError, KafkaOptions, partition_for};
use crate::runtime;

/// How long the replicas may take to acknowledge. Below the connection's timeout, so that the
/// broker's own answer comes first.
const ACK_LIMIT: Duration = Duration::from_secs(3);

/// Largest batch made for one partition, uncompressed: below the broker's default limit for a
/// batch, 1,048,588 bytes.
pub const BATCH_BYTES: usize = 900 << 10;

/// Largest sum of batches in one call: far below the broker's limit for a request, 100 MiB,
/// over which it would drop the connection without a word.
const CALL_BYTES: usize = 16 << 20;

/// Upper bound of what a record takes besides key and value.
const RECORD_OVERHEAD: usize = 70;

/// After this the layout is asked for again: somebody may have added partitions.
const LAYOUT_AGE: Duration = Duration::from_secs(60);

/// The newest version of the request that names topics by name and not by id; Kafka 2.4 has it.
const VERSION: i16 = 9;

/// In place of a code (it is Kafka's for "unknown"): an answer without a word about a partition,
/// or without the offset it gave, is no acknowledgement.
const NO_WORD: i16 = -1;

/// Acknowledged by all replicas that are in sync.
const ACKS_ALL: i16 = -1;

/// One record to publish.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Decides the partition.
    pub key: &'a [u8],
    /// The message.
    pub value: &'a [u8],
}

/// Everything was acknowledged but for what the broker never takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Indexes of records that are too large, ascending.
    pub refused: Vec<usize>,
}

/// Something was not acknowledged. What is in neither list was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishError {
    /// Indexes of records to send again, ascending.
    pub unacknowledged: Vec<usize>,
    /// Indexes of records that are too large and never taken, ascending.
    pub refused: Vec<usize>,
    /// Why, on one line.
    pub cause: String,
    /// Whether it won't heal without a person.
    pub is_permanent: bool,
}

impl std::fmt::Display for PublishError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records not acknowledged: {}", self.unacknowledged.len(), self.cause)
    }
}

impl std::error::Error for PublishError {}

/// Publishes to one topic. For one thread.
#[derive(Debug)]
pub struct Publisher {
    cluster: Cluster,
    encoder: Encoder,
    topic: TopicSpec,
    layout_asked: Duration,
}

/// Records for one partition, by index.
struct Batch {
    partition: i32,
    leader: String,
    records: Vec<usize>,
    bytes: usize,
}

/// What became of the records of one `publish` so far.
#[derive(Default)]
struct Outcome {
    unacknowledged: BTreeSet<usize>,
    refused: BTreeSet<usize>,
    cause: Option<KafkaError>,
}

impl Outcome {
    fn fail(&mut self, records: impl IntoIterator<Item = usize>, cause: KafkaError) {
        self.unacknowledged.extend(records);
        // One that needs a person is worth more than one that passes.
        if self.cause.as_ref().is_none_or(|known| cause.is_permanent() && !known.is_permanent()) {
            self.cause = Some(cause);
        }
    }

    fn into_result(self) -> Result<Published, PublishError> {
        let refused = self.refused.into_iter().collect();
        match self.cause {
            None => Ok(Published { refused }),
            Some(cause) => Err(PublishError {
                unacknowledged: self.unacknowledged.into_iter().collect(),
                refused,
                cause: cause.to_string(),
                is_permanent: cause.is_permanent(),
            }),
        }
    }
}

impl Publisher {
    /// A publisher for `topic`, which is made when absent. Connects with the first publish.
    #[must_use]
    pub fn new(options: KafkaOptions, topic: TopicSpec) -> Self {
        let encoder = Encoder::new(options.compression);
        let cluster = Cluster::new(Arc::new(options), DATA_TIMEOUT);
        Self { cluster, encoder, topic, layout_asked: Duration::ZERO }
    }

    /// Publishes `records` and waits for their acknowledgement, at most some seconds per leader.
    ///
    /// # Errors
    /// Says which records to send again, after a pause.
    pub fn publish(&mut self, records: &[Record<'_>]) -> Result<Published, PublishError> {
        let mut outcome = Outcome::default();
        let mut queue = match self.plan(records, &mut outcome) {
            Ok(queue) => queue,
            Err(cause) => {
                self.cluster.forget_layout();
                outcome.fail(0..records.len(), cause);
                return outcome.into_result();
            }
        };
        // A leader that failed once is not asked again within this call.
        let mut failed: BTreeMap<String, KafkaError> = BTreeMap::new();
        while let Some(leader) = queue.front().map(|batch| batch.leader.clone()) {
            let wave = next_wave(&mut queue, &leader);
            if let Some(cause) = failed.get(&leader) {
                outcome.fail(wave.into_iter().flat_map(|batch| batch.records), cause.clone());
                continue;
            }
            match self.send(&leader, &wave, records) {
                Ok(answers) => self.settle(wave, &answers, &mut queue, &mut outcome),
                Err(cause) => {
                    self.cluster.forget_layout();
                    outcome.fail(wave.into_iter().flat_map(|batch| batch.records), cause.clone());
                    failed.insert(leader, cause);
                }
            }
        }
        outcome.into_result()
    }

    /// Deals the records to batches; those without a leader are already unacknowledged.
    fn plan(
        &mut self,
        records: &[Record<'_>],
        outcome: &mut Outcome,
    ) -> Result<VecDeque<Batch>, KafkaError> {
        let now = runtime::mono();
        if now.saturating_sub(self.layout_asked) >= LAYOUT_AGE {
            self.cluster.forget_layout();
            self.layout_asked = now;
        }
        let absent = KafkaError::Refused { operation: "metadata", code: UNKNOWN_TOPIC };
        if self.cluster.layout(&self.topic.name).is_err_and(|error| error == absent) {
            ensure_in(&mut self.cluster, &self.topic)?;
        }
        let layout = self.cluster.layout(&self.topic.name)?;
        let partitions = i32::try_from(layout.len()).unwrap_or(i32::MAX);
        let mut queue = VecDeque::new();
        let mut open: BTreeMap<i32, Batch> = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            let bytes = record.key.len() + record.value.len() + RECORD_OVERHEAD;
            if bytes > CALL_BYTES {
                outcome.refused.insert(index);
                continue;
            }
            let partition = partition_for(record.key, partitions);
            let Some(Some(leader)) = layout.get(&partition) else {
                outcome.fail([index], KafkaError::NoLeader { topic: self.topic.name.clone() });
                continue;
            };
            let batch = open.entry(partition).or_insert_with(|| new_batch(partition, leader));
            if !batch.records.is_empty() && batch.bytes + bytes > BATCH_BYTES {
                queue.push_back(std::mem::replace(batch, new_batch(partition, leader)));
            }
            batch.records.push(index);
            batch.bytes += bytes;
        }
        queue.extend(open.into_values());
        if outcome.cause.is_some() {
            self.cluster.forget_layout();
        }
        Ok(queue)
    }

    /// One call to one leader: each partition with its error code, 0 when acknowledged.
    fn send(
        &mut self,
        leader: &str,
        wave: &[Batch],
        records: &[Record<'_>],
    ) -> Result<BTreeMap<i32, i16>, KafkaError> {
        let timestamp_ms = runtime::wall().as_millisecond();
        let mut partitions = Vec::with_capacity(wave.len());
        for batch in wave {
            let records = batch.records.iter().filter_map(|index| records.get(*index)).copied();
            partitions.push(
                PartitionProduceData::default()
                    .with_index(batch.partition)
                    .with_records(Some(self.encoder.encode(records, timestamp_ms)?)),
            );
        }
        let request = ProduceRequest::default()
            .with_acks(ACKS_ALL)
            .with_timeout_ms(i32::try_from(ACK_LIMIT.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(TopicName(text(&self.topic.name)))
                    .with_partition_data(partitions),
            ]);
        let answer: ProduceResponse =
            self.cluster.broker(leader).request("produce", ApiKey::Produce, VERSION, request)?;
        let partitions = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
        let code = |code, offset| if code == 0 && offset < 0 { NO_WORD } else { code };
        Ok(partitions.map(|p| (p.index, code(p.error_code, p.base_offset))).collect())
    }

    /// Reads the answers to one wave.
    fn settle(
        &mut self,
        wave: Vec<Batch>,
        answers: &BTreeMap<i32, i16>,
        queue: &mut VecDeque<Batch>,
        outcome: &mut Outcome,
    ) {
        for mut batch in wave {
            let code = answers.get(&batch.partition).copied().unwrap_or(NO_WORD);
            if code == 0 {
                continue;
            }
            match verdict(code) {
                Verdict::TooLarge if batch.records.len() > 1 => {
                    let rest = batch.records.split_off(batch.records.len() / 2);
                    let rest = Batch { records: rest, ..new_batch(batch.partition, &batch.leader) };
                    queue.push_front(rest);
                    queue.push_front(batch);
                }
                Verdict::TooLarge => outcome.refused.extend(batch.records),
                Verdict::Refresh
                | Verdict::Again
                | Verdict::FindCoordinator
                | Verdict::Rejoin
                | Verdict::StaleGeneration
                | Verdict::UnknownMember
                | Verdict::MemberIdGiven
                | Verdict::Fenced
                | Verdict::OutOfRange
                | Verdict::Permanent => {
                    self.cluster.forget_layout();
                    outcome.fail(batch.records, KafkaError::Refused { operation: "produce", code });
                }
            }
        }
    }
}

fn new_batch(partition: i32, leader: &str) -> Batch {
    Batch { partition, leader: leader.to_owned(), records: Vec::new(), bytes: 0 }
}

/// Takes from the queue what goes into the next call to `leader`: one batch per partition.
fn next_wave(queue: &mut VecDeque<Batch>, leader: &str) -> Vec<Batch> {
    let (mut wave, mut rest, mut bytes) = (Vec::new(), VecDeque::new(), 0);
    let mut partitions = BTreeSet::new();
    for batch in queue.drain(..) {
        let fits = wave.is_empty() || bytes + batch.bytes <= CALL_BYTES;
        if batch.leader == leader && fits && partitions.insert(batch.partition) {
            bytes += batch.bytes;
            wave.push(batch);
        } else {
            rest.push_back(batch);
        }
    }
    *queue = rest;
    wave
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(partition: i32, leader: &str, bytes: usize) -> Batch {
        Batch { bytes, ..new_batch(partition, leader) }
    }

    #[test]
    fn a_wave_has_one_leader_and_each_partition_once() {
        let mut queue: VecDeque<Batch> = [
            batch(0, "a", 10),
            batch(1, "b", 10),
            batch(0, "a", 10),
            batch(2, "a", CALL_BYTES),
            batch(3, "a", 10),
        ]
        .into();
        let wave = next_wave(&mut queue, "a");
        assert_eq!(wave.iter().map(|batch| batch.partition).collect::<Vec<_>>(), [0, 3]);
        let left: Vec<_> = queue.iter().map(|batch| batch.partition).collect();
        assert_eq!(left, [1, 0, 2]);
        assert_eq!(next_wave(&mut queue, "b").len(), 1);
        assert_eq!(next_wave(&mut queue, "a").len(), 1);
        assert_eq!(next_wave(&mut queue, "a").len(), 1, "over the limit, but alone");
        assert!(queue.is_empty());
    }

    #[test]
    fn the_cause_that_needs_a_person_wins() {
        let mut outcome = Outcome::default();
        outcome.fail([3], KafkaError::NoLeader { topic: "t".to_owned() });
        outcome.fail([1], KafkaError::Refused { operation: "produce", code: 29 });
        outcome.fail([2], KafkaError::NoLeader { topic: "t".to_owned() });
        let error = outcome.into_result().unwrap_err();
        assert_eq!(error.unacknowledged, [1, 2, 3]);
        assert!(error.is_permanent);
        assert!(error.cause.contains("TopicAuthorizationFailed (29)"), "{error}");
    }
}
