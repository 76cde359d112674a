//! One join: JoinGroup, the leader's dealing, SyncGroup.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::assignor::{self, Candidate, PROTOCOL_TYPE, STRATEGY};
use super::cluster::Cluster;
use super::connection::text;
use super::coordinator::Coordinator;
use super::errors::{Verdict, verdict};
use super::member::Shared;
use super::{Generation, GroupOptions, KafkaError, KafkaOptions};

/// Joins and syncs wait for the other members, for up to the rebalance timeout, and this longer.
const JOIN_GRACE: Duration = Duration::from_secs(5);

/// A joined generation.
pub(super) struct Joined {
    pub(super) generation: Generation,
    /// Our share, ascending.
    pub(super) partitions: Vec<i32>,
    /// Whether we lead the group, and how many partitions of the topic were dealt, if that is
    /// known.
    pub(super) leads: Option<Option<usize>>,
}

/// Joins over a connection of its own, which waits as long as a rebalance may take.
pub(super) struct Joining {
    coordinator: Coordinator,
    topic: String,
}

impl Joining {
    pub(super) fn new(options: Arc<KafkaOptions>, group: Arc<GroupOptions>) -> Self {
        let (timeout, topic) = (group.rebalance_timeout + JOIN_GRACE, group.topic.clone());
        Self { coordinator: Coordinator::new(options, group, timeout), topic }
    }

    /// Joins once. The member id goes into `shared` as soon as it's known, as whoever leaves in
    /// our place needs it; the leader looks the topics up in `cluster`.
    pub(super) fn join(
        &mut self,
        shared: &Shared,
        cluster: &mut Cluster,
    ) -> Result<Joined, KafkaError> {
        let answer = self.send_join(shared)?;
        let generation = Generation {
            id: answer.generation_id,
            member_id: Arc::from(answer.member_id.as_str()),
        };
        shared.lock().member_id = answer.member_id.to_string();
        let mut leads = None;
        let mut shares = Vec::new();
        if answer.leader == answer.member_id {
            // A restarted static member leads without dealing: how many partitions were dealt
            // is not known then.
            leads = Some(None);
            if !answer.skip_assignment {
                let members: Result<Vec<_>, _> =
                    answer.members.iter().map(assignor::candidate).collect();
                let members = members?;
                let topics = all_partitions(&members, cluster)?;
                leads = Some(Some(topics.get(&self.topic).map_or(0, Vec::len)));
                shares = deal(&members, &topics)?;
            }
        }
        let request = SyncGroupRequest::default()
            .with_group_id(self.coordinator.group_id())
            .with_generation_id(generation.id)
            .with_member_id(text(&generation.member_id))
            .with_group_instance_id(self.coordinator.instance_id())
            .with_protocol_type(Some(text(PROTOCOL_TYPE)))
            .with_protocol_name(Some(text(STRATEGY)))
            .with_assignments(shares);
        let answer: SyncGroupResponse =
            self.coordinator.request("sync group", ApiKey::SyncGroup, 5, request)?;
        self.coordinator.check("sync group", answer.error_code)?;
        let mut share = assignor::decode_share(answer.assignment)?;
        let mut partitions = share.remove(&self.topic).unwrap_or_default();
        partitions.sort_unstable();
        Ok(Joined { generation, partitions, leads })
    }

    /// The first join gets a member id only, the second one with it joins.
    fn send_join(&mut self, shared: &Shared) -> Result<JoinGroupResponse, KafkaError> {
        let wanted = assignor::subscription(&self.topic)?;
        let mut tries_left = 2;
        loop {
            let member_id = shared.lock().member_id.clone();
            let request = JoinGroupRequest::default()
                .with_group_id(self.coordinator.group_id())
                .with_session_timeout_ms(millis(self.coordinator.group().session_timeout))
                .with_rebalance_timeout_ms(millis(self.coordinator.group().rebalance_timeout))
                .with_member_id(text(&member_id))
                .with_group_instance_id(self.coordinator.instance_id())
                .with_protocol_type(text(PROTOCOL_TYPE))
                .with_protocols(vec![
                    JoinGroupRequestProtocol::default()
                        .with_name(text(STRATEGY))
                        .with_metadata(wanted.clone()),
                ]);
            let answer: JoinGroupResponse =
                self.coordinator.request("join group", ApiKey::JoinGroup, 9, request)?;
            tries_left -= 1;
            if verdict(answer.error_code) == Verdict::MemberIdGiven && tries_left > 0 {
                shared.lock().member_id = answer.member_id.to_string();
                continue;
            }
            self.coordinator.check("join group", answer.error_code)?;
            return Ok(answer);
        }
    }
}

/// The partitions of every topic that some member wants; none of one that isn't there.
fn all_partitions(
    members: &[Candidate],
    cluster: &mut Cluster,
) -> Result<BTreeMap<String, Vec<i32>>, KafkaError> {
    let mut partitions = BTreeMap::new();
    for topic in assignor::wanted_topics(members) {
        let found = cluster.describe(&topic)?;
        let ids = found.into_iter().flat_map(|topic| topic.partitions);
        partitions.insert(topic, ids.map(|partition| partition.id).collect());
    }
    Ok(partitions)
}

/// The leader's work: each member's share of what the members want.
fn deal(
    members: &[Candidate],
    partitions: &BTreeMap<String, Vec<i32>>,
) -> Result<Vec<SyncGroupRequestAssignment>, KafkaError> {
    let shares = assignor::assign(members, partitions);
    let encoded = shares.iter().map(|(member_id, share)| {
        Ok(SyncGroupRequestAssignment::default()
            .with_member_id(text(member_id))
            .with_assignment(assignor::encode_share(share)?))
    });
    encoded.collect()
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
