//! The brokers as one thread sees them: one client each, and who leads which partition.
//!
//! Invariants: a request that any broker can answer is asked of one after the other until one
//! answers, beginning with the one that answered last; what only a leader can answer goes to
//! that leader alone. The layout is what metadata last said; an error that puts it in doubt
//! makes the owner call [`Cluster::forget_layout`], and the next use asks again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};

use super::connection::{Broker, text};
use super::topics::{Partition, TopicDescription};
use super::{KafkaError, KafkaOptions};

/// The code of a topic that isn't there.
pub(super) const UNKNOWN_TOPIC: i16 = 3;

/// ListOffsets: the partition's first record.
pub(super) const AT_START: i64 = -2;

/// ListOffsets: after the partition's last record.
pub(super) const AT_END: i64 = -1;

/// Brokers asked for one answer at most: a few more than any bootstrap list has; the rest of a
/// large cluster wouldn't know better.
const ASKED_MAX: usize = 16;

/// The brokers and one topic's layout.
#[derive(Debug)]
pub(super) struct Cluster {
    options: Arc<KafkaOptions>,
    timeout: Duration,
    brokers: BTreeMap<String, Broker>,
    /// Servers in the order in which to ask them: the one that answered last, the configured
    /// ones, those that metadata told of.
    order: Vec<String>,
    layout: Option<BTreeMap<i32, Option<String>>>,
}

impl Cluster {
    /// Nothing connected yet; reads and writes take at most `timeout`.
    pub(super) fn new(options: Arc<KafkaOptions>, timeout: Duration) -> Self {
        let order = options.servers.clone();
        Self { options, timeout, brokers: BTreeMap::new(), order, layout: None }
    }

    /// The client for the broker at `server`.
    pub(super) fn broker(&mut self, server: &str) -> &mut Broker {
        self.brokers
            .entry(server.to_owned())
            .or_insert_with(|| Broker::new(self.options.clone(), server.to_owned(), self.timeout))
    }

    /// Closes all connections; the next use makes new ones.
    pub(super) fn disconnect(&mut self) {
        self.brokers.clear();
    }

    /// Asks any broker. When none answers, the error tells what the first one's problem was,
    /// and the others' where it differs.
    pub(super) fn ask<Q, P>(
        &mut self,
        operation: &'static str,
        key: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<P, KafkaError>
    where
        Q: Encodable + HeaderVersion + Clone + Send + 'static,
        P: Decodable + HeaderVersion + Send + 'static,
    {
        let mut errors: Vec<KafkaError> = Vec::new();
        for server in self.order.clone().into_iter().take(ASKED_MAX) {
            match self.broker(&server).request(operation, key, version, request.clone()) {
                Ok(answer) => {
                    self.order.retain(|known| *known != server);
                    self.order.insert(0, server);
                    return Ok(answer);
                }
                Err(error) => errors.push(error),
            }
        }
        Err(first_cause(errors))
    }

    /// What the brokers know about `topic`; `None` when it isn't there.
    pub(super) fn describe(&mut self, topic: &str) -> Result<Option<TopicDescription>, KafkaError> {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![
                MetadataRequestTopic::default().with_name(Some(TopicName(text(topic)))),
            ]))
            .with_allow_auto_topic_creation(false);
        let answer: MetadataResponse = self.ask("metadata", ApiKey::Metadata, 9, &request)?;
        let servers: BTreeMap<BrokerId, String> = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)))
            .collect();
        self.learn(servers.values());
        let Some(found) = answer.topics.into_iter().next() else {
            return Err(KafkaError::Protocol {
                operation: "metadata",
                cause: "no word about the topic".to_owned(),
            });
        };
        match found.error_code {
            0 | 5 => {}
            UNKNOWN_TOPIC => return Ok(None),
            code => return Err(KafkaError::Refused { operation: "metadata", code }),
        }
        let ids = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect();
        let partitions = found.partitions.iter().map(|partition| Partition {
            id: partition.partition_index,
            leader: servers.get(&partition.leader_id).cloned(),
            replicas: ids(&partition.replica_nodes),
            in_sync: ids(&partition.isr_nodes),
        });
        let mut partitions: Vec<Partition> = partitions.collect();
        partitions.sort_by_key(|partition| partition.id);
        Ok(Some(TopicDescription { partitions }))
    }

    /// Also asks brokers that metadata told of: the configured ones may all have moved away.
    fn learn<'a>(&mut self, servers: impl Iterator<Item = &'a String>) {
        let configured = &self.options.servers;
        let advertised: Vec<&String> = servers.collect();
        self.order.retain(|known| configured.contains(known) || advertised.contains(&known));
        for server in advertised {
            if !self.order.contains(server) {
                self.order.push(server.clone());
            }
        }
        let order = &self.order;
        self.brokers.retain(|server, _| order.contains(server));
    }

    /// Each partition of `topic` with its leader, if it has one.
    pub(super) fn layout(
        &mut self,
        topic: &str,
    ) -> Result<&BTreeMap<i32, Option<String>>, KafkaError> {
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => self
                .describe(topic)?
                .ok_or(KafkaError::Refused { operation: "metadata", code: UNKNOWN_TOPIC })?
                .partitions
                .into_iter()
                .map(|partition| (partition.id, partition.leader))
                .collect(),
        };
        Ok(self.layout.insert(layout))
    }

    /// Makes the next use of the layout ask for it again.
    pub(super) fn forget_layout(&mut self) {
        self.layout = None;
    }

    /// The offset at `at` ([`AT_START`] or [`AT_END`]) of each of `partitions`.
    pub(super) fn offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: i64,
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let found = self.offsets_by_layout(topic, partitions, at);
        if found.is_err() {
            self.forget_layout();
        }
        found
    }

    fn offsets_by_layout(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: i64,
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let mut by_leader: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        let layout = self.layout(topic)?;
        for partition in partitions {
            let leader = layout.get(partition).cloned().flatten();
            let leader = leader.ok_or_else(|| KafkaError::NoLeader { topic: topic.to_owned() })?;
            by_leader.entry(leader).or_default().push(*partition);
        }
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in by_leader {
            let wanted = partitions.iter().map(|partition| {
                ListOffsetsPartition::default()
                    .with_partition_index(*partition)
                    .with_current_leader_epoch(-1)
                    .with_timestamp(at)
            });
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_isolation_level(1)
                .with_topics(vec![
                    ListOffsetsTopic::default()
                        .with_name(TopicName(text(topic)))
                        .with_partitions(wanted.collect()),
                ]);
            let answer: ListOffsetsResponse =
                self.broker(&leader).request("list offsets", ApiKey::ListOffsets, 7, request)?;
            for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
                match partition.error_code {
                    0 => offsets.insert(partition.partition_index, partition.offset),
                    code => {
                        return Err(KafkaError::Refused { operation: "list offsets", code });
                    }
                };
            }
        }
        Ok(offsets)
    }
}

/// One error out of those of all brokers: one that needs a person first; the addresses of all.
pub(super) fn first_cause(mut errors: Vec<KafkaError>) -> KafkaError {
    if let Some(position) = errors.iter().position(KafkaError::is_permanent) {
        return errors.swap_remove(position);
    }
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let cause = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let cause = if cause.is_empty() { "no servers given".to_owned() } else { cause };
    KafkaError::Unreachable { server: "no broker".to_owned(), cause }
}
