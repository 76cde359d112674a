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

use bytes::Bytes;
use kafka::client::{KafkaClient, ProduceMessage, RequiredAcks};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use super::cluster::{Cluster, UNKNOWN_TOPIC};
use super::connection::DATA_TIMEOUT;
use super::errors::{Verdict, verdict};
use super::topics::{TopicSpec, ensure_in};
use super::{KafkaError, KafkaOptions, partition_for};
use crate::runtime;

/// How long the replicas may take to acknowledge. Below the connection's timeout, so that the
/// broker's own answer comes first.
const ACK_LIMIT: Duration = Duration::from_secs(3);

/// Largest batch made for one partition, uncompressed: below the broker's default limit for a
/// batch, 1,048,588 bytes.
const BATCH_BYTES: usize = 900 << 10;

/// Largest sum of batches in one call: far below the broker's limit for a request, 100 MiB,
/// over which it would drop the connection without a word.
const CALL_BYTES: usize = 16 << 20;

/// Upper bound of what a record takes besides key and value.
const RECORD_OVERHEAD: usize = 70;

/// After this the layout is asked for again: somebody may have added partitions.
const LAYOUT_AGE: Duration = Duration::from_secs(60);

/// The code of a leader that moved.
const NOT_LEADER: i16 = 6;

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
        let cluster = Cluster::new(Arc::new(options), DATA_TIMEOUT);
        Self { cluster, topic, layout_asked: Duration::ZERO }
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
        let now = runtime::now().mono;
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
            let Some(leader) = layout.get(&partition).cloned().flatten() else {
                outcome.fail([index], KafkaError::NoLeader { topic: self.topic.name.clone() });
                continue;
            };
            let batch = open.entry(partition).or_insert_with(|| new_batch(partition, &leader));
            if !batch.records.is_empty() && batch.bytes + bytes > BATCH_BYTES {
                queue.push_back(std::mem::replace(batch, new_batch(partition, &leader)));
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
        let bytes = |data: &[u8]| Bytes::copy_from_slice(data);
        let mut payload: Vec<(i32, Vec<(Bytes, Bytes)>)> = Vec::with_capacity(wave.len());
        for batch in wave {
            let records = batch.records.iter().filter_map(|index| records.get(*index));
            let records = records.map(|record| (bytes(record.key), bytes(record.value)));
            payload.push((batch.partition, records.collect()));
        }
        let (server, topic) = (leader.to_owned(), self.topic.name.clone());
        self.cluster
            .broker(leader)
            .call("produce", move |client| produce(client, &server, &topic, &payload))
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
            // No word about a partition is no acknowledgement.
            let code = answers.get(&batch.partition).copied().unwrap_or(-1);
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
                    // Its client keeps a layout of its own.
                    self.cluster.broker(&batch.leader).disconnect();
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

/// Runs on the client's thread.
fn produce(
    client: &mut KafkaClient,
    server: &str,
    topic: &str,
    payload: &[(i32, Vec<(Bytes, Bytes)>)],
) -> kafka::Result<BTreeMap<i32, i16>> {
    if !client.topics().contains(topic) {
        // `load_metadata` hides the cause of a failure, a raw request tells it.
        client.send_raw_protocol_request::<_, ApiVersionsResponse>(
            ApiKey::ApiVersions as i16,
            0,
            &ApiVersionsRequest::default(),
        )?;
        client.load_metadata(&[topic])?;
    }
    let mut codes = BTreeMap::new();
    let mut messages = Vec::new();
    for (partition, records) in payload {
        // The library would connect to whom it takes for the leader; ours alone is asked here.
        let leader = client
            .topics()
            .partitions(topic)
            .and_then(|partitions| partitions.partition(*partition))
            .and_then(|partition| partition.leader().map(|leader| leader.host().to_owned()));
        if leader.as_deref() != Some(server) {
            codes.insert(*partition, NOT_LEADER);
            continue;
        }
        messages.extend(records.iter().map(|(key, value)| ProduceMessage {
            key: Some(key),
            value: Some(value),
            headers: &[],
            topic,
            partition: *partition,
        }));
    }
    if messages.is_empty() {
        return Ok(codes);
    }
    for answer in client.produce_messages(RequiredAcks::All, ACK_LIMIT, &messages)? {
        for partition in answer.partition_confirms {
            let code = partition.offset.map_or_else(|code| code as i16, |_| 0);
            codes.insert(partition.partition, code);
        }
    }
    Ok(codes)
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
