//! What an operator asks the brokers: which there are and what they speak, how a topic is set, who
//! is in a group and how far it has come. Each question opens connections of its own and closes
//! them; none of them changes anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, DescribeGroupsRequest, DescribeGroupsResponse, MetadataRequest,
    MetadataResponse,
};

use super::cluster::Cluster;
use super::commits::Committer;
use super::connection::{Broker, DATA_TIMEOUT, GROUP_TIMEOUT, text};
use super::coordinator::{Coordinator, FIND_PAUSE};
use super::errors::{Verdict, verdict};
use super::{GroupOptions, KafkaError, KafkaOptions, assignor};
use crate::runtime::Stop;

/// A topic, as the kind of thing that has settings.
const TOPIC: i8 = 2;
/// How often a coordinator that is not ready is asked: the first question about any group makes
/// the brokers' own topic, which takes about a second.
const COORDINATOR_TRIES: u32 = 15;
/// Never used: nobody joins here.
const NO_TIME: Duration = Duration::from_secs(10);

/// What webmon asks of brokers, in the version it speaks.
const SPOKEN: [(ApiKey, i16); 14] = [
    (ApiKey::Produce, 9),
    (ApiKey::Fetch, 12),
    (ApiKey::ListOffsets, 7),
    (ApiKey::Metadata, 9),
    (ApiKey::OffsetCommit, 8),
    (ApiKey::OffsetFetch, 7),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::JoinGroup, 9),
    (ApiKey::Heartbeat, 4),
    (ApiKey::LeaveGroup, 5),
    (ApiKey::SyncGroup, 5),
    (ApiKey::CreateTopics, 5),
    (ApiKey::DescribeGroups, 5),
    (ApiKey::DescribeConfigs, 4),
];

/// The brokers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Id and `host:port` of each broker, as it tells clients to reach it.
    pub brokers: Vec<(i32, String)>,
}

/// A group as its coordinator knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescription {
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, or `Dead` for a group that
    /// nobody ever joined.
    pub state: String,
    /// Who is in it.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id with the coordinator.
    pub member_id: String,
    /// What its process calls itself.
    pub client_id: String,
    /// Where it comes from: an address with a `/` before it.
    pub host: String,
    /// Its partitions of the topic, ascending. None while the group is dealing anew.
    pub partitions: Vec<i32>,
}

/// All brokers of the cluster.
///
/// # Errors
/// When no broker answers.
pub fn brokers(options: &KafkaOptions) -> Result<ClusterDescription, KafkaError> {
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let mut cluster = Cluster::new(Arc::new(options.clone()), DATA_TIMEOUT);
    let answer: MetadataResponse = cluster.ask("metadata", ApiKey::Metadata, 9, &request)?;
    let mut brokers: Vec<(i32, String)> = answer
        .brokers
        .iter()
        .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port)))
        .collect();
    brokers.sort();
    Ok(ClusterDescription { brokers })
}

/// Connects to the broker at `server` as the daemons do, TLS and password included, and asks what
/// it speaks. Returns the names of what webmon needs and this broker doesn't speak.
///
/// # Errors
/// Why it can't be talked to.
pub fn greet(options: &KafkaOptions, server: &str) -> Result<Vec<String>, KafkaError> {
    options.check_files()?;
    let mut broker = Broker::new(Arc::new(options.clone()), server.to_owned(), DATA_TIMEOUT);
    let request = ApiVersionsRequest::default();
    let answer: ApiVersionsResponse =
        broker.request("api versions", ApiKey::ApiVersions, 0, request)?;
    if answer.error_code != 0 {
        return Err(KafkaError::Refused { operation: "api versions", code: answer.error_code });
    }
    let speaks = |key: ApiKey, version: i16| {
        answer.api_keys.iter().any(|range| {
            range.api_key == key as i16
                && (range.min_version..=range.max_version).contains(&version)
        })
    };
    let missing = SPOKEN.iter().filter(|(key, version)| !speaks(*key, *version));
    Ok(missing.map(|(key, version)| format!("{key:?} {version}")).collect())
}

/// The settings of a topic by name, the brokers' defaults included; secret ones are left out.
///
/// # Errors
/// When no broker answers, the topic is absent or its settings may not be seen.
pub fn topic_settings(
    options: &KafkaOptions,
    topic: &str,
) -> Result<BTreeMap<String, String>, KafkaError> {
    const OPERATION: &str = "describe topic settings";
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource.with_configuration_keys(None)])
        .with_include_documentation(false);
    let mut cluster = Cluster::new(Arc::new(options.clone()), DATA_TIMEOUT);
    let answer: DescribeConfigsResponse =
        cluster.ask(OPERATION, ApiKey::DescribeConfigs, 4, &request)?;
    let mut settings = BTreeMap::new();
    for result in answer.results {
        if result.error_code != 0 {
            return Err(KafkaError::Refused { operation: OPERATION, code: result.error_code });
        }
        let known = result.configs.into_iter().filter(|setting| !setting.is_sensitive);
        settings.extend(known.filter_map(|s| Some((s.name.to_string(), s.value?.to_string()))));
    }
    Ok(settings)
}

/// Who is in `group`, and which partitions of `topic` each has.
///
/// # Errors
/// When the coordinator doesn't answer or refuses.
pub fn group(
    options: &KafkaOptions,
    group: &str,
    topic: &str,
) -> Result<GroupDescription, KafkaError> {
    let options = Arc::new(options.clone());
    let mut coordinator =
        Coordinator::new(options, Arc::new(outsider(group, topic)), GROUP_TIMEOUT);
    patiently(|| {
        let request = DescribeGroupsRequest::default().with_groups(vec![coordinator.group_id()]);
        let answer: DescribeGroupsResponse =
            coordinator.request("describe group", ApiKey::DescribeGroups, 5, request)?;
        let Some(found) = answer.groups.into_iter().next() else {
            return Ok(GroupDescription::default());
        };
        coordinator.check("describe group", found.error_code)?;
        let member =
            |member: kafka_protocol::messages::describe_groups_response::DescribedGroupMember| {
                // What another client put there, in another format, is no share of ours.
                let mut share =
                    assignor::decode_share(member.member_assignment).unwrap_or_default();
                let mut partitions = share.remove(topic).unwrap_or_default();
                partitions.sort_unstable();
                GroupMember {
                    member_id: member.member_id.to_string(),
                    client_id: member.client_id.to_string(),
                    host: member.client_host.to_string(),
                    partitions,
                }
            };
        let members = found.members.into_iter().map(member).collect();
        Ok(GroupDescription { state: found.group_state.to_string(), members })
    })
}

/// The committed offset of each of `partitions` for which `group` has one.
///
/// # Errors
/// When the coordinator doesn't answer or refuses.
pub fn committed(
    options: &KafkaOptions,
    group: &str,
    topic: &str,
    partitions: &[i32],
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let group = Arc::new(outsider(group, topic));
    let mut committer = Committer::new(Arc::new(options.clone()), group);
    patiently(|| committer.committed(partitions))
}

/// A group that is only asked about.
fn outsider(group: &str, topic: &str) -> GroupOptions {
    GroupOptions {
        group: group.to_owned(),
        topic: topic.to_owned(),
        topic_when_absent: None,
        instance_id: None,
        session_timeout: NO_TIME,
        rebalance_timeout: NO_TIME,
        heartbeat_interval: NO_TIME,
    }
}

/// Asks again while the coordinator is moving or loading.
fn patiently<R>(mut ask: impl FnMut() -> Result<R, KafkaError>) -> Result<R, KafkaError> {
    let (never, mut tries) = (Stop::new(), 1);
    loop {
        match ask() {
            Err(KafkaError::Refused { code, .. })
                if verdict(code) == Verdict::FindCoordinator && tries < COORDINATOR_TRIES =>
            {
                tries += 1;
                let _ = never.wait(FIND_PAUSE);
            }
            answer => return answer,
        }
    }
}
