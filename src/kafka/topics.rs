//! Topics: made when absent, described, and where their partitions begin and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, MetadataRequest, MetadataResponse, TopicName,
};

use super::cluster::{AT_END, AT_START, Cluster, UNKNOWN_TOPIC};
use super::connection::{DATA_TIMEOUT, text};
use super::errors::code_name;
use super::{KafkaError, KafkaOptions};
use crate::runtime::{self, Stop};

/// How long the brokers may take to make a topic.
const CREATE_LIMIT: Duration = Duration::from_secs(4);

/// How long a new topic may take until each partition has a leader. Seen: under a second.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const READY_POLL: Duration = Duration::from_millis(50);

/// The code of a topic that another process made in the meantime.
const EXISTS: i16 = 36;

/// The code of more copies than there are brokers.
const TOO_MANY_COPIES: i16 = 38;

/// A topic as it shall be made when absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions, 1 or more.
    pub partitions: i32,
    /// Copies of each partition, up to the number of brokers.
    pub replication_factor: i16,
}

/// What [`ensure`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// The topic was absent and is there now.
    Created,
    /// It was there, with this many partitions; they are left as they are.
    Existed {
        /// Their number.
        partitions: i32,
    },
}

/// One partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub id: i32,
    /// The broker that leads it, `host:port`, unless there is none at the moment.
    pub leader: Option<String>,
    /// Ids of the brokers that keep a copy.
    pub replicas: Vec<i32>,
    /// Ids of those whose copy is complete.
    pub in_sync: Vec<i32>,
}

/// A topic as the brokers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its partitions, by number.
    pub partitions: Vec<Partition>,
}

/// Makes the topic unless it is there, and waits until its partitions have leaders.
///
/// # Errors
/// When no broker answers or the brokers refuse, such as more copies than brokers.
pub fn ensure(options: &KafkaOptions, spec: &TopicSpec) -> Result<Ensured, KafkaError> {
    ensure_in(&mut cluster(options), spec)
}

/// The topic as the brokers know it; `None` when absent.
///
/// # Errors
/// When no broker answers or the topic may not be seen.
pub fn describe(
    options: &KafkaOptions,
    topic: &str,
) -> Result<Option<TopicDescription>, KafkaError> {
    cluster(options).describe(topic)
}

/// The offset of the first record of each partition.
///
/// # Errors
/// When the topic is absent, a partition has no leader, or a leader doesn't answer.
pub fn earliest_offsets(
    options: &KafkaOptions,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    offsets(options, topic, AT_START)
}

/// The offset after the last record of each partition.
///
/// # Errors
/// As [`earliest_offsets`].
pub fn end_offsets(options: &KafkaOptions, topic: &str) -> Result<BTreeMap<i32, i64>, KafkaError> {
    offsets(options, topic, AT_END)
}

fn offsets(options: &KafkaOptions, topic: &str, at: i64) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let mut cluster = cluster(options);
    let partitions: Vec<i32> = cluster.layout(topic)?.keys().copied().collect();
    cluster.offsets(topic, &partitions, at)
}

fn cluster(options: &KafkaOptions) -> Cluster {
    Cluster::new(Arc::new(options.clone()), DATA_TIMEOUT)
}

/// As [`ensure`], with clients that are there already.
pub(super) fn ensure_in(cluster: &mut Cluster, spec: &TopicSpec) -> Result<Ensured, KafkaError> {
    if let Some(found) = cluster.describe(&spec.name)? {
        let partitions = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
        return Ok(Ensured::Existed { partitions });
    }
    let request = CreateTopicsRequest::default()
        .with_topics(vec![
            CreatableTopic::default()
                .with_name(TopicName(text(&spec.name)))
                .with_num_partitions(spec.partitions)
                .with_replication_factor(spec.replication_factor),
        ])
        .with_timeout_ms(CREATE_LIMIT.as_millis() as i32);
    let answer: CreateTopicsResponse =
        cluster.ask("create topic", ApiKey::CreateTopics, 5, &request)?;
    for topic in answer.topics {
        match topic.error_code {
            0 => log::info!(topic = spec.name.as_str(), partitions = spec.partitions,
                replication_factor = spec.replication_factor; "topic created"),
            EXISTS => {}
            TOO_MANY_COPIES => return Err(too_many_copies(cluster, spec.replication_factor)),
            code => return Err(KafkaError::Refused { operation: "create topic", code }),
        }
    }
    wait_until_led(cluster, &spec.name)?;
    Ok(Ensured::Created)
}

/// `InvalidReplicationFactor`, with how many brokers there are.
fn too_many_copies(cluster: &mut Cluster, wanted: i16) -> KafkaError {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let answer = cluster.ask("metadata", ApiKey::Metadata, 9, &request);
    let there = match answer.map(|answer: MetadataResponse| answer.brokers.len()) {
        Ok(1) => "1 is there".to_owned(),
        Ok(count) => format!("{count} are there"),
        Err(error) => return error,
    };
    KafkaError::Configuration(format!(
        "create topic: {wanted} copies of each partition need {wanted} brokers, {there} \
         ({}): lower kafka.replication_factor, or start more brokers",
        code_name(TOO_MANY_COPIES)
    ))
}

fn wait_until_led(cluster: &mut Cluster, topic: &str) -> Result<(), KafkaError> {
    let (never, end) = (Stop::new(), runtime::now().mono + READY_LIMIT);
    loop {
        let found = cluster.describe(topic)?;
        let is_led = |found: &TopicDescription| found.partitions.iter().all(|p| p.leader.is_some());
        if found.as_ref().is_some_and(is_led) {
            return Ok(());
        }
        if runtime::now().mono >= end {
            return Err(match found {
                Some(_) => KafkaError::NoLeader { topic: topic.to_owned() },
                None => KafkaError::Refused { operation: "create topic", code: UNKNOWN_TOPIC },
            });
        }
        let _ = never.wait(READY_POLL);
    }
}
