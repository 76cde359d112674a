//! The broker that coordinates a group, found and found again.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, LeaveGroupRequest,
    LeaveGroupResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::cluster::Cluster;
use super::connection::{Broker, GROUP_TIMEOUT, text};
use super::errors::{Verdict, verdict};
use super::{GroupOptions, KafkaError, KafkaOptions};

/// A coordinator that moved, is loading or can't be reached is looked for this often: it mostly
/// knows the group still, so each pause only adds to the interruption.
pub(super) const FIND_PAUSE: Duration = Duration::from_millis(200);

/// One thread's connection to its group's coordinator.
#[derive(Debug)]
pub(super) struct Coordinator {
    options: Arc<KafkaOptions>,
    group: Arc<GroupOptions>,
    timeout: Duration,
    finder: Cluster,
    broker: Option<Broker>,
}

impl Coordinator {
    /// Not connected yet; reads and writes take at most `timeout`.
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        group: Arc<GroupOptions>,
        timeout: Duration,
    ) -> Self {
        let finder = Cluster::new(options.clone(), GROUP_TIMEOUT);
        Self { options, group, timeout, finder, broker: None }
    }

    /// The group's options.
    pub(super) fn group(&self) -> &GroupOptions {
        &self.group
    }

    /// The group's name for a request.
    pub(super) fn group_id(&self) -> GroupId {
        GroupId(text(&self.group.group))
    }

    /// Our instance id for a request.
    pub(super) fn instance_id(&self) -> Option<StrBytes> {
        self.group.instance_id.as_deref().map(text)
    }

    /// Asks the coordinator, found first when it isn't known.
    pub(super) fn request<Q, P>(
        &mut self,
        operation: &'static str,
        key: ApiKey,
        version: i16,
        request: Q,
    ) -> Result<P, KafkaError>
    where
        Q: Encodable + HeaderVersion + Send + 'static,
        P: Decodable + HeaderVersion + Send + 'static,
    {
        let mut broker = match self.broker.take() {
            Some(broker) => broker,
            None => self.find()?,
        };
        let answer = broker.request(operation, key, version, request)?;
        self.broker = Some(broker);
        Ok(answer)
    }

    /// The meaning of an error code in a coordinator's answer. One that says that it isn't the
    /// coordinator (any more, or yet) makes the next request find it again.
    pub(super) fn check(&mut self, operation: &'static str, code: i16) -> Result<(), KafkaError> {
        if code == 0 {
            return Ok(());
        }
        if verdict(code) == Verdict::FindCoordinator {
            self.broker = None;
        }
        Err(KafkaError::Refused { operation, code })
    }

    fn find(&mut self) -> Result<Broker, KafkaError> {
        let request =
            FindCoordinatorRequest::default().with_key(text(&self.group.group)).with_key_type(0);
        let found: Result<FindCoordinatorResponse, _> =
            self.finder.ask("find coordinator", ApiKey::FindCoordinator, 3, &request);
        // Asked too seldom to hold connections for it.
        self.finder.disconnect();
        let found = found?;
        if found.error_code != 0 {
            let code = found.error_code;
            return Err(KafkaError::Refused { operation: "find coordinator", code });
        }
        let server = format!("{}:{}", found.host, found.port);
        Ok(Broker::new(self.options.clone(), server, self.timeout))
    }

    /// Tells the coordinator that the member is gone, so that nobody waits for its session.
    pub(super) fn leave(&mut self, member_id: &str) -> Result<(), KafkaError> {
        let member = MemberIdentity::default()
            .with_member_id(text(member_id))
            .with_group_instance_id(self.instance_id());
        let request =
            LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
        let answer: LeaveGroupResponse =
            self.request("leave group", ApiKey::LeaveGroup, 5, request)?;
        self.check("leave group", answer.error_code)?;
        answer
            .members
            .into_iter()
            .try_for_each(|member| self.check("leave group", member.error_code))
    }
}
