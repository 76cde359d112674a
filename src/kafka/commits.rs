//! Committing offsets, fenced by the generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    ApiKey, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    TopicName,
};

use super::connection::{GROUP_TIMEOUT, text};
use super::coordinator::Coordinator;
use super::errors::{Verdict, verdict};
use super::member::Shared;
use super::{Generation, GroupOptions, KafkaError, KafkaOptions};

/// Why offsets were not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The assignment is no longer ours: whoever has the partitions now fetches these records
    /// again. Never retry.
    Stale,
    /// The coordinator could not take it now: commit again.
    Unavailable(KafkaError),
}

impl std::fmt::Display for CommitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stale => f.write_str("commit: the assignment is over"),
            Self::Unavailable(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {}

/// Commits offsets of one group, over a connection of its own. For one thread.
#[derive(Debug)]
pub struct Committer {
    coordinator: Coordinator,
    /// Where the membership hears of a refusal.
    member: Option<Arc<Shared>>,
}

impl Committer {
    pub(super) fn new(options: Arc<KafkaOptions>, group: Arc<GroupOptions>) -> Self {
        Self { coordinator: Coordinator::new(options, group, GROUP_TIMEOUT), member: None }
    }

    /// Has the member know when an assignment is refused.
    pub(super) fn telling(self, member: Arc<Shared>) -> Self {
        Self { member: Some(member), ..self }
    }

    /// Commits the next offset to read of each given partition, for the assignment `generation`
    /// came with. Tried once more at once when the coordinator has moved.
    ///
    /// # Errors
    /// [`CommitError`]; nothing is known about the partitions then.
    pub fn commit(
        &mut self,
        generation: &Generation,
        offsets: &[(i32, i64)],
    ) -> Result<(), CommitError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let first = self.commit_once(generation, offsets).map_err(meaning);
        let result = match first {
            Err(CommitError::Unavailable(_)) => {
                self.commit_once(generation, offsets).map_err(meaning)
            }
            first => first,
        };
        if let (Err(CommitError::Stale), Some(member)) = (&result, &self.member) {
            member.lock().refused = Some(generation.clone());
        }
        result
    }

    fn commit_once(
        &mut self,
        generation: &Generation,
        offsets: &[(i32, i64)],
    ) -> Result<(), KafkaError> {
        let partitions = offsets.iter().map(|(partition, offset)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_leader_epoch(-1)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(&self.coordinator.group().topic)))
            .with_partitions(partitions.collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(self.coordinator.group_id())
            .with_generation_id_or_member_epoch(generation.id)
            .with_member_id(text(&generation.member_id))
            .with_group_instance_id(self.coordinator.instance_id())
            .with_topics(vec![topic]);
        let answer: OffsetCommitResponse =
            self.coordinator.request("commit", ApiKey::OffsetCommit, 8, request)?;
        answer
            .topics
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .try_for_each(|partition| self.coordinator.check("commit", partition.error_code))
    }

    /// The group's committed offset of each given partition that has one.
    ///
    /// # Errors
    /// When the coordinator doesn't answer or refuses.
    pub fn committed(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(&self.coordinator.group().topic)))
            .with_partition_indexes(partitions.to_vec());
        let request = OffsetFetchRequest::default()
            .with_group_id(self.coordinator.group_id())
            .with_topics(Some(vec![topic]))
            .with_require_stable(false);
        let answer: OffsetFetchResponse =
            self.coordinator.request("offset fetch", ApiKey::OffsetFetch, 7, request)?;
        self.coordinator.check("offset fetch", answer.error_code)?;
        let mut offsets = BTreeMap::new();
        for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
            self.coordinator.check("offset fetch", partition.error_code)?;
            if partition.committed_offset >= 0 {
                offsets.insert(partition.partition_index, partition.committed_offset);
            }
        }
        Ok(offsets)
    }

    /// Leaves the group over this connection.
    pub(super) fn leave(&mut self, member_id: &str) -> Result<(), KafkaError> {
        self.coordinator.leave(member_id)
    }
}

fn meaning(error: KafkaError) -> CommitError {
    let KafkaError::Refused { code, .. } = error else { return CommitError::Unavailable(error) };
    match verdict(code) {
        // A commit is refused with 27 only after a new generation has begun.
        Verdict::Rejoin
        | Verdict::StaleGeneration
        | Verdict::UnknownMember
        | Verdict::MemberIdGiven
        | Verdict::Fenced => CommitError::Stale,
        Verdict::Again
        | Verdict::Refresh
        | Verdict::FindCoordinator
        | Verdict::OutOfRange
        | Verdict::TooLarge
        | Verdict::Permanent => CommitError::Unavailable(error),
    }
}
