//! A member of a Kafka group: what its owner sees and gives.
//!
//! Two threads per member: the membership thread joins, tells the handler and joins again; the
//! heartbeat thread keeps the membership alive meanwhile, also while the handler finishes a
//! batch.
//!
//! Invariants:
//! - The handler is told `assigned` and `revoked` in turns, beginning with `assigned`, always by
//!   the membership thread.
//! - The member asks to join again only after `revoked` has returned: until then the coordinator
//!   takes commits of the old generation, at most for the rebalance timeout.
//! - A coordinator that can't be reached takes nothing away: the assignment stays until a
//!   coordinator says otherwise.
//! - The member heals for ever; it ends with the stop, or when another process has taken its
//!   instance id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::bounded;

use super::commits::Committer;
use super::heartbeat::Heartbeat;
use super::membership::Membership;
use super::{KafkaError, KafkaOptions, TopicSpec};
use crate::runtime::{Stop, Threads};

/// Which group, and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// The group's name.
    pub group: String,
    /// The one topic its members share.
    pub topic: String,
    /// How the topic is made when absent, before this member joins: who joins for a topic that
    /// isn't there gets an empty share. `None` waits for somebody else to make it.
    pub topic_when_absent: Option<TopicSpec>,
    /// A name of this process that outlives its restarts (static membership): a restart within
    /// the session then moves no partition. Two processes must never have the same.
    pub instance_id: Option<String>,
    /// After this long without a heartbeat the coordinator gives the partitions to others.
    /// Brokers take 6 s to 30 min.
    pub session_timeout: Duration,
    /// How long the members have to finish their work when the group changes.
    pub rebalance_timeout: Duration,
    /// Between heartbeats: 0.5 to 1 s, well below the session.
    pub heartbeat_interval: Duration,
}

/// Names one assignment of this member, for its commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub(super) id: i32,
    pub(super) member_id: Arc<str>,
}

/// What is ours until it is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// For the commits.
    pub generation: Generation,
    /// Partitions of the topic, ascending; may be none.
    pub partitions: Vec<i32>,
    /// Where to go on in each of them: the committed offset, else the partition's first one
    /// ([`super::EARLIEST`] when its leader could not be asked).
    pub offsets: BTreeMap<i32, i64>,
}

/// The owner's side of a membership. Called by the membership thread only.
pub trait GroupHandler: Send {
    /// These partitions are ours now.
    fn assigned(&mut self, assignment: &Assignment);

    /// They no longer are. Finish the batch, commit it, stop fetching, and return when quiet;
    /// with `lost`, the coordinator has given them away already and would refuse the commit.
    fn revoked(&mut self, lost: bool);
}

/// How a member is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberState {
    /// Whether it has an assignment now.
    pub is_joined: bool,
    /// The group's generation it joined last; 0 before.
    pub generation: i32,
    /// How many partitions it has.
    pub partitions: usize,
    /// What keeps it from joining or from reaching the coordinator.
    pub problem: Option<String>,
}

/// What the two threads and the handles share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) state: MemberState,
    /// Ours with the coordinator; empty before it gave us one.
    pub(super) member_id: String,
    /// What heartbeats are sent for.
    pub(super) alive: Option<Generation>,
    /// What a commit was refused for.
    pub(super) refused: Option<Generation>,
    /// Whether a join waits for the other members.
    pub(super) is_joining: bool,
    pub(super) fault: Option<KafkaError>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts memberships.
#[derive(Debug)]
pub struct Member;

impl Member {
    /// Starts a member's threads. It joins as soon as a broker can be reached, for ever trying,
    /// and leaves the group after the stop.
    ///
    /// # Errors
    /// When the certificate files can't be used or no thread can be started.
    pub fn start(
        options: KafkaOptions,
        group: GroupOptions,
        handler: Box<dyn GroupHandler>,
        stop: Stop,
        threads: &mut Threads,
    ) -> Result<MemberHandle, KafkaError> {
        options.check_files()?;
        let (options, group) = (Arc::new(options), Arc::new(group));
        let shared = Arc::new(Shared::default());
        // One event is enough: what is still true comes again with the next heartbeat.
        let (events, inbox) = bounded(1);
        let ended = Stop::new();
        let heartbeat = Heartbeat::new(
            options.clone(),
            group.clone(),
            shared.clone(),
            events,
            stop.clone(),
            ended.clone(),
        );
        let membership = Membership::new(
            options.clone(),
            group.clone(),
            shared.clone(),
            handler,
            inbox,
            stop,
            ended,
        );
        let no_thread = |error: std::io::Error| KafkaError::Configuration(error.to_string());
        threads.spawn("kafka-heartbeat", move || heartbeat.run()).map_err(no_thread)?;
        threads.spawn("kafka-member", move || membership.run()).map_err(no_thread)?;
        Ok(MemberHandle { options, group, shared })
    }
}

/// A running member, as its owner sees it.
#[derive(Clone, Debug)]
pub struct MemberHandle {
    options: Arc<KafkaOptions>,
    group: Arc<GroupOptions>,
    shared: Arc<Shared>,
}

impl MemberHandle {
    /// A committer for this group; one for each thread that commits.
    #[must_use]
    pub fn committer(&self) -> Committer {
        Committer::new(self.options.clone(), self.group.clone()).telling(self.shared.clone())
    }

    /// How the member is doing now.
    #[must_use]
    pub fn state(&self) -> MemberState {
        self.shared.lock().state.clone()
    }

    /// Why the member has ended by itself, if it has.
    #[must_use]
    pub fn fault(&self) -> Option<KafkaError> {
        self.shared.lock().fault.clone()
    }
}
