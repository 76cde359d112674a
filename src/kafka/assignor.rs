//! The consumer protocol's messages inside group requests, and the range assignment. Pure.
//!
//! The standard protocol is spoken so that Kafka's own tools show who has what, and so that
//! another client could be a member of the same group.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::KafkaError;
use super::connection::text;

/// The protocol type of all consumers.
pub(super) const PROTOCOL_TYPE: &str = "consumer";

/// The one assignment strategy spoken here.
pub(super) const STRATEGY: &str = "range";

/// The version we write; a reader takes any up to 3.
const WRITTEN: i16 = 1;
const READABLE: i16 = 3;

/// Partitions by topic.
pub(super) type Share = BTreeMap<String, Vec<i32>>;

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) member_id: String,
    instance_id: Option<String>,
    topics: Vec<String>,
}

fn protocol_error(cause: impl std::fmt::Display) -> KafkaError {
    KafkaError::Protocol { operation: "join", cause: cause.to_string() }
}

/// What we tell the leader: the topic we want.
pub(super) fn subscription(topic: &str) -> Result<Bytes, KafkaError> {
    let wanted = ConsumerProtocolSubscription::default().with_topics(vec![text(topic)]);
    let mut out = BytesMut::new();
    out.put_i16(WRITTEN);
    wanted.encode(&mut out, WRITTEN).map_err(protocol_error)?;
    Ok(out.freeze())
}

/// What a member told the leader.
pub(super) fn candidate(member: &JoinGroupResponseMember) -> Result<Candidate, KafkaError> {
    let mut bytes = member.metadata.clone();
    let version = bytes.try_get_i16().map_err(protocol_error)?;
    let wanted = ConsumerProtocolSubscription::decode(&mut bytes, version.clamp(0, READABLE))
        .map_err(protocol_error)?;
    Ok(Candidate {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
        topics: wanted.topics.iter().map(ToString::to_string).collect(),
    })
}

/// What the leader tells a member.
pub(super) fn encode_share(share: &Share) -> Result<Bytes, KafkaError> {
    let topics = share.iter().map(|(topic, partitions)| {
        TopicPartition::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions.clone())
    });
    let assignment =
        ConsumerProtocolAssignment::default().with_assigned_partitions(topics.collect());
    let mut out = BytesMut::new();
    out.put_i16(WRITTEN);
    assignment.encode(&mut out, WRITTEN).map_err(protocol_error)?;
    Ok(out.freeze())
}

/// What the leader told us; nothing at all is an empty share.
pub(super) fn decode_share(mut bytes: Bytes) -> Result<Share, KafkaError> {
    if bytes.is_empty() {
        return Ok(Share::new());
    }
    let version = bytes.try_get_i16().map_err(protocol_error)?;
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version.clamp(0, READABLE))
        .map_err(protocol_error)?;
    let topics = assignment.assigned_partitions.into_iter();
    Ok(topics.map(|topic| (topic.topic.to_string(), topic.partitions)).collect())
}

/// The topics that some candidate wants.
pub(super) fn wanted_topics(candidates: &[Candidate]) -> Vec<String> {
    let mut topics: Vec<String> =
        candidates.iter().flat_map(|candidate| candidate.topics.iter().cloned()).collect();
    topics.sort();
    topics.dedup();
    topics
}

/// Deals each topic's partitions to the candidates that want it, in runs of equal length; the
/// first ones get one more where it doesn't come out even. Candidates are ordered by their
/// instance id, else their member id, so that a restarted static member gets its old share.
pub(super) fn assign(
    candidates: &[Candidate],
    partitions: &BTreeMap<String, Vec<i32>>,
) -> BTreeMap<String, Share> {
    let mut ordered: Vec<&Candidate> = candidates.iter().collect();
    ordered.sort_by_key(|member| member.instance_id.as_ref().unwrap_or(&member.member_id));
    let mut shares: BTreeMap<String, Share> =
        ordered.iter().map(|member| (member.member_id.clone(), Share::new())).collect();
    for (topic, partitions) in partitions {
        let wanting: Vec<_> =
            ordered.iter().filter(|member| member.topics.contains(topic)).collect();
        let (each, more) = match wanting.len() {
            0 => continue,
            members => (partitions.len() / members, partitions.len() % members),
        };
        let mut rest = partitions.as_slice();
        for (index, member) in wanting.into_iter().enumerate() {
            let (run, left) = rest.split_at(each + usize::from(index < more));
            rest = left;
            if let Some(share) = shares.get_mut(&member.member_id).filter(|_| !run.is_empty()) {
                share.insert(topic.clone(), run.to_vec());
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(member_id: &str, instance_id: Option<&str>, topics: &[&str]) -> Candidate {
        Candidate {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        }
    }

    fn check(candidates: &[Candidate], partitions: i32, expect: &[(&str, &[i32])]) {
        let all = BTreeMap::from([("t".to_owned(), (0..partitions).collect())]);
        let shares = assign(candidates, &all);
        let found: Vec<(&str, &[i32])> = shares
            .iter()
            .map(|(id, share)| (id.as_str(), share.get("t").map_or(&[][..], Vec::as_slice)))
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn partitions_come_in_runs_and_none_is_left_over() {
        let [a, b, c] = ["a", "b", "c"].map(|id| member(id, None, &["t"]));
        check(std::slice::from_ref(&a), 3, &[("a", &[0, 1, 2])]);
        check(&[b.clone(), a.clone()], 8, &[("a", &[0, 1, 2, 3]), ("b", &[4, 5, 6, 7])]);
        check(
            &[c.clone(), b.clone(), a.clone()],
            8,
            &[("a", &[0, 1, 2]), ("b", &[3, 4, 5]), ("c", &[6, 7])],
        );
        check(&[a.clone(), b.clone(), c], 2, &[("a", &[0]), ("b", &[1]), ("c", &[])]);
        check(&[a, b], 0, &[("a", &[]), ("b", &[])]);
    }

    #[test]
    fn the_instance_id_decides_the_place_and_others_topics_stay_theirs() {
        let members = [
            member("z", Some("1"), &["t"]),
            member("a", Some("2"), &["t"]),
            member("m", None, &["other"]),
        ];
        check(&members, 2, &[("a", &[1]), ("m", &[]), ("z", &[0])]);
        assert_eq!(wanted_topics(&members), ["other", "t"]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let share = Share::from([("t".to_owned(), vec![3, 4])]);
        assert_eq!(decode_share(encode_share(&share).unwrap()).unwrap(), share);
        assert_eq!(decode_share(Bytes::new()).unwrap(), Share::new());
        assert!(decode_share(Bytes::from_static(&[0])).is_err());
        let joined = JoinGroupResponseMember::default()
            .with_member_id(text("m-1"))
            .with_metadata(subscription("webmon").unwrap());
        assert_eq!(candidate(&joined).unwrap(), member("m-1", None, &["webmon"]));
    }
}
