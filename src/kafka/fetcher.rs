//! Fetches records of chosen partitions from their leaders.
//!
//! Invariants:
//! - One call per leader, with all wanted partitions it leads; one leader's error takes nothing
//!   from the others.
//! - `next_offset` is never before the wanted offset but when the wanted one lies past the end
//!   of the partition.
//! - What one fetch brings is bounded in all, however many partitions are wanted, and stays packed
//!   until it is read.
//! - Offsets the broker no longer has are skipped to the partition's beginning, counted and
//!   logged: never silently.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, FetchResponse, TopicName};

use super::cluster::{AT_START, Cluster, first_cause};
use super::connection::{DATA_TIMEOUT, text};
use super::errors::{Verdict, verdict};
use super::frames::Suspects;
use super::records::Reader;
use super::shares::Shares;
use super::{KafkaError, KafkaOptions};
use crate::runtime::mono;
use crate::telemetry::{ByPartition, metrics};

/// As a wanted offset: from the partition's first record on.
pub const EARLIEST: i64 = -2;

/// How long a fetch may take and how much it may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// A broker that has less than `min_bytes` waits this long for more; at most 3 s, shared by
    /// the leaders, which are asked one after the other.
    pub max_wait: Duration,
    /// A broker that has so many bytes, compressed, answers at once; 1: whatever there is.
    pub min_bytes: i32,
    /// About so many bytes come, compressed, of all partitions together, but at least one whole
    /// batch. Partitions take turns.
    pub max_bytes: i32,
}

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

/// What a fetch brought from one partition, as it came: unpacked record by record.
#[derive(Debug)]
pub struct Unread {
    partition: i32,
    reader: Reader,
    high_watermark: i64,
    offsets_lost: u64,
}

/// One record, valid until the next one is read.
#[derive(Debug, PartialEq)]
pub struct UnreadRecord<'a> {
    /// Its place in the partition.
    pub offset: i64,
    /// Its message.
    pub value: &'a [u8],
    /// Why the message is a whole batch, as it came, that can't be read from this offset on.
    pub fault: Option<String>,
}

impl Unread {
    fn new(partition: i32, bytes: Bytes, next_offset: i64, high_watermark: i64) -> Self {
        let reader = Reader::new(bytes, next_offset, high_watermark);
        Self { partition, reader, high_watermark, offsets_lost: 0 }
    }

    /// Its number.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Where to go on after what was read so far.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.reader.next_offset()
    }

    /// Reads the next record, and counts it as fetched.
    pub fn next_record(&mut self) -> Option<UnreadRecord<'_>> {
        let found = self.reader.next()?;
        metrics().fetched.inc();
        let value = found.value.unwrap_or_default();
        Some(UnreadRecord { offset: found.offset, value, fault: found.fault })
    }

    /// Sets the lag of its partition to what is left to read.
    pub fn note_lag(&self) {
        let lag = (self.high_watermark - self.next_offset()).max(0);
        metrics().lag.get_or_create(&ByPartition { partition: self.partition }).set(lag);
    }

    fn read_all(mut self, topic: &str) -> Fetched {
        let partition = self.partition;
        let mut records = Vec::new();
        while let Some(found) = self.reader.next() {
            if let Some(cause) = found.fault {
                log::error!(topic, partition, cause = cause.as_str();
                    "unreadable batch handed on as it is");
            }
            records.push(FetchedRecord {
                offset: found.offset,
                timestamp_ms: found.timestamp_ms,
                key: found.key.map(Bytes::copy_from_slice),
                value: found.value.map(Bytes::copy_from_slice),
            });
        }
        metrics().fetched.inc_by(records.len() as u64);
        self.note_lag();
        Fetched {
            partition,
            records,
            next_offset: self.next_offset(),
            high_watermark: self.high_watermark,
            offsets_lost: self.offsets_lost,
        }
    }
}

/// Fetches from one topic. For one thread.
#[derive(Debug)]
pub struct Fetcher {
    cluster: Cluster,
    topic: String,
    /// How many fetches there were: decides which partition comes first.
    turn: usize,
    /// What was wrong with each leader when last asked: logged when it changes.
    failing: BTreeMap<String, KafkaError>,
    /// What looked damaged, of each partition.
    suspects: BTreeMap<i32, Suspects>,
}

impl Fetcher {
    /// A fetcher for `topic`. Connects with the first fetch.
    #[must_use]
    pub fn new(options: KafkaOptions, topic: &str) -> Self {
        let cluster = Cluster::new(Arc::new(options), DATA_TIMEOUT);
        let (failing, suspects) = Default::default();
        Self { cluster, topic: topic.to_owned(), turn: 0, failing, suspects }
    }

    /// Fetches from `wanted`, each a partition and the offset to begin at ([`EARLIEST`] for its
    /// beginning), and unpacks all of it. A broker without new records waits up to `max_wait` (at
    /// most 3 s) for some; about `max_bytes` come, compressed, but at least one whole batch. A
    /// partition whose leader is away is not in the answer.
    ///
    /// # Errors
    /// When nothing could be fetched from any partition.
    pub fn fetch(
        &mut self,
        wanted: &[(i32, i64)],
        max_wait: Duration,
        max_bytes: i32,
    ) -> Result<Vec<Fetched>, KafkaError> {
        let unread =
            self.fetch_unread(wanted, FetchLimits { max_wait, min_bytes: 1, max_bytes })?;
        Ok(unread.into_iter().map(|part| part.read_all(&self.topic)).collect())
    }

    /// As [`Fetcher::fetch`], but unpacks nothing yet.
    ///
    /// # Errors
    /// As there.
    pub fn fetch_unread(
        &mut self,
        wanted: &[(i32, i64)],
        limits: FetchLimits,
    ) -> Result<Vec<Unread>, KafkaError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (mut fetched, mut errors) = (Vec::new(), Vec::new());
        let (wanted, unknown) = known_offsets(wanted);
        self.begin(&unknown, &mut fetched, &mut errors);
        let by_leader = self.by_leader(&wanted, &mut errors)?;
        let shares = Shares::of(limits, wanted.len(), by_leader.len());
        self.turn = self.turn.wrapping_add(1);
        let held_back = self.held_back(&wanted, mono());
        for (leader, mut partitions) in by_leader {
            let all = partitions.len();
            partitions.retain(|(partition, _)| !held_back.contains(partition));
            if partitions.is_empty() {
                continue;
            }
            // A broker fills its answer in the order of the request.
            let first = self.turn % partitions.len().max(1);
            partitions.rotate_left(first);
            let answer = self.ask(&leader, &partitions, &shares);
            let result =
                answer.and_then(|answer| self.read(answer, &partitions, &shares, &mut fetched));
            // What was wrong with a partition that is held back is still.
            if partitions.len() == all || result.is_err() {
                self.note(&leader, result.as_ref().err());
            }
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
        fetched.iter().for_each(Unread::note_lag);
        Ok(fetched)
    }

    /// Partitions that are not asked for again yet, unless that is all: then the caller waits.
    fn held_back(&self, wanted: &[(i32, i64)], now: Duration) -> BTreeSet<i32> {
        let is_held = |partition: &i32| {
            self.suspects.get(partition).is_some_and(|suspects| suspects.is_held_back(now))
        };
        let held: BTreeSet<i32> = wanted.iter().map(|(p, _)| *p).filter(is_held).collect();
        if held.len() < wanted.len() { held } else { BTreeSet::new() }
    }

    /// Partitions whose first offset must be asked for before anything can be fetched.
    fn begin(&mut self, partitions: &[i32], out: &mut Vec<Unread>, errors: &mut Vec<KafkaError>) {
        if partitions.is_empty() {
            return;
        }
        match self.cluster.offsets(&self.topic, partitions, AT_START) {
            Ok(offsets) => {
                out.extend(offsets.into_iter().map(|(p, at)| Unread::new(p, Bytes::new(), at, at)));
            }
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
        shares: &Shares,
    ) -> Result<FetchResponse, KafkaError> {
        let partitions = wanted.iter().map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(shares.partition_bytes)
        });
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(shares.wait_ms)
            .with_min_bytes(shares.min_bytes)
            .with_max_bytes(shares.leader_bytes)
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
        shares: &Shares,
        out: &mut Vec<Unread>,
    ) -> Result<(), KafkaError> {
        if answer.error_code != 0 {
            return Err(KafkaError::Refused { operation: "fetch", code: answer.error_code });
        }
        let wanted: BTreeMap<i32, i64> = wanted.iter().copied().collect();
        let is_full = shares.is_full(&answer);
        let mut first_error = None;
        for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let Some(offset) = wanted.get(&data.partition_index) else { continue };
            let is_at_limit = is_full || shares.is_reached_by(&data);
            match self.read_partition(data, *offset, is_at_limit) {
                Ok(fetched) => out.push(fetched),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn read_partition(
        &mut self,
        data: PartitionData,
        wanted: i64,
        is_at_limit: bool,
    ) -> Result<Unread, KafkaError> {
        let partition = data.partition_index;
        if data.error_code == 0 {
            let bytes = data.records.unwrap_or_default();
            let judged = self.suspects.entry(partition).or_default();
            let bytes = judged.judge(bytes, wanted, is_at_limit).map_err(|cause| {
                judged.hold_back(mono());
                let cause = format!("partition {partition}: {cause}");
                KafkaError::Protocol { operation: "fetch", cause }
            })?;
            return Ok(Unread::new(partition, bytes, wanted, data.high_watermark));
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

    /// The wanted offset is not there: retention deleted it, or the partition was made anew.
    fn start_again(&mut self, partition: i32, wanted: i64) -> Result<Unread, KafkaError> {
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
        let begins = Unread::new(partition, Bytes::new(), earliest, earliest);
        Ok(Unread { offsets_lost, ..begins })
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
    use crate::kafka::frames::{AGAIN_AFTER, SAME_FETCHES};
    use kafka_protocol::messages::fetch_response::FetchableTopicResponse;

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
        for _ in 1..SAME_FETCHES {
            let error = fetcher.read_partition(damaged(), 0, false).unwrap_err();
            assert!(error.to_string().contains("redundancy check"), "{error}");
        }
        for _ in 0..2 {
            let fetched = fetcher.read_partition(damaged(), 0, false).unwrap().read_all("topic");
            assert_eq!((fetched.records.len(), fetched.next_offset), (1, 1));
        }
        // Other bytes have all their tries.
        let other = damaged().with_records(damaged().records.map(|batch| {
            let mut batch = batch.to_vec();
            batch[60] ^= 1;
            batch.into()
        }));
        assert!(fetcher.read_partition(other, 0, false).is_err());
        assert!(fetcher.read_partition(damaged(), 0, false).is_err());
    }

    #[test]
    fn a_partition_with_an_error_is_not_asked_for_at_once_again() {
        let mut fetcher = fetcher();
        assert!(fetcher.read_partition(damaged(), 0, false).is_err());
        let wanted = [(3, 0), (4, 0)];
        assert_eq!(fetcher.held_back(&wanted, Duration::ZERO), BTreeSet::from([3]));
        assert_eq!(fetcher.held_back(&wanted, mono() + AGAIN_AFTER), BTreeSet::new());
        assert_eq!(fetcher.held_back(&wanted[..1], Duration::ZERO), BTreeSet::new());
    }

    #[test]
    fn a_batch_may_be_cut_only_where_the_answer_was_limited() {
        let shares = Shares { wait_ms: 0, min_bytes: 1, leader_bytes: 50, partition_bytes: 40 };
        let mut fetcher = fetcher();
        let mut read = |length: usize| {
            let whole = damaged().records.unwrap();
            let data = damaged().with_records(Some(whole.slice(..length)));
            let topic = FetchableTopicResponse::default().with_partitions(vec![data]);
            let answer = FetchResponse::default().with_responses(vec![topic]);
            fetcher.read(answer, &[(3, 0)], &shares, &mut Vec::new())
        };
        assert!(read(39).unwrap_err().to_string().contains("a cut batch, 39 bytes came"));
        assert_eq!((read(40), read(50)), (Ok(()), Ok(())));
    }
}
