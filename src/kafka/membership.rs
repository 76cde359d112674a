//! The thread that joins, tells the handler, and joins again. Its invariants stand in `member`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use super::cluster::{AT_START, Cluster};
use super::commits::Committer;
use super::connection::GROUP_TIMEOUT;
use super::coordinator::FIND_PAUSE;
use super::errors::{Verdict, verdict};
use super::heartbeat::{Event, EventKind};
use super::joining::{Joined, Joining};
use super::member::Shared;
use super::{
    Assignment, EARLIEST, Generation, GroupHandler, GroupOptions, KafkaError, KafkaOptions, topics,
};
use crate::runtime::{Backoff, Stop};
use crate::telemetry::{ByPartition, metrics};

/// How often the leader looks whether the topic has got more partitions.
const TOPIC_CHECK: Duration = Duration::from_secs(30);

/// The same while the topic isn't there yet: nobody can work before.
const ABSENT_CHECK: Duration = Duration::from_secs(1);

/// Longest pause between tries to join when a person has to change something.
const PAUSE_MAX: Duration = Duration::from_secs(5);

pub(super) struct Membership {
    group: Arc<GroupOptions>,
    shared: Arc<Shared>,
    handler: Box<dyn GroupHandler>,
    events: Receiver<Event>,
    stop: Stop,
    ended: Stop,
    joining: Joining,
    asking: Committer,
    cluster: Cluster,
    /// Whether we lead the group, and how many partitions were dealt, if that is known.
    leads: Option<Option<usize>>,
    /// The share we had last, for the lag gauges.
    last: BTreeSet<i32>,
    /// Whether the topic was seen, or made.
    is_topic_there: bool,
}

/// Why an assignment, or the wait for one, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stop,
    Rejoin,
    Stale,
    Forgotten,
    Fenced,
}

impl Membership {
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        group: Arc<GroupOptions>,
        shared: Arc<Shared>,
        handler: Box<dyn GroupHandler>,
        events: Receiver<Event>,
        stop: Stop,
        ended: Stop,
    ) -> Self {
        Self {
            joining: Joining::new(options.clone(), group.clone()),
            asking: Committer::new(options.clone(), group.clone()),
            cluster: Cluster::new(options, GROUP_TIMEOUT),
            group,
            shared,
            handler,
            events,
            stop,
            ended,
            leads: None,
            is_topic_there: false,
            last: BTreeSet::new(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let end = match self.join() {
                Ok(joined) => self.hold(joined),
                Err(end) => end,
            };
            match end {
                End::Rejoin | End::Stale => {}
                End::Forgotten => self.shared.lock().member_id.clear(),
                End::Stop => return self.leave(),
                End::Fenced => return self.give_up(),
            }
        }
    }

    /// Has an assignment until it ends; tells the handler of both.
    fn hold(&mut self, joined: Joined) -> End {
        let Joined { generation, partitions, leads } = joined;
        self.leads = leads;
        let offsets = match self.offsets(&generation, &partitions) {
            Ok(offsets) => offsets,
            Err(end) => return end,
        };
        self.drop_lags(&partitions);
        {
            let state = &mut self.shared.lock().state;
            state.is_joined = true;
            state.generation = generation.id;
            state.partitions = partitions.len();
        }
        log::info!(group = self.group.group.as_str(), generation = generation.id,
            partitions = partitions.len(), leads = self.leads.is_some(); "group joined");
        self.handler.assigned(&Assignment { generation: generation.clone(), partitions, offsets });
        let end = self.watch(&generation);
        log::info!(group = self.group.group.as_str(), generation = generation.id,
            reason:? = end; "assignment ends");
        self.handler.revoked(matches!(end, End::Stale | End::Forgotten | End::Fenced));
        let state = &mut self.shared.lock().state;
        state.is_joined = false;
        state.partitions = 0;
        end
    }

    /// Waits until the generation ends.
    fn watch(&mut self, generation: &Generation) -> End {
        loop {
            let pause = match self.leads {
                Some(Some(0)) => ABSENT_CHECK,
                _ => TOPIC_CHECK,
            };
            select! {
                recv(self.stop.channel()) -> _ => return End::Stop,
                recv(self.events) -> event => match event {
                    Ok(event) if event.generation == *generation => return end_of(event.kind),
                    // Of an earlier generation.
                    Ok(_) => {}
                    // The heartbeat thread is gone, so nobody keeps the membership alive.
                    Err(_) => return End::Stop,
                },
                default(pause) => if self.topic_changed() {
                    return End::Rejoin;
                },
            }
        }
    }

    /// Whether we lead and the topic's partitions are no longer those we dealt.
    fn topic_changed(&mut self) -> bool {
        let Some(dealt) = self.leads else { return false };
        let Ok(found) = self.cluster.describe(&self.group.topic) else { return false };
        let found = found.map_or(0, |topic| topic.partitions.len());
        self.leads = Some(Some(found));
        dealt.is_some_and(|dealt| dealt != found)
    }

    /// Joins, for ever trying.
    fn join(&mut self) -> Result<Joined, End> {
        let mut backoff = Backoff::new(FIND_PAUSE, PAUSE_MAX);
        let mut told: Option<String> = None;
        loop {
            if self.stop.is_requested() {
                return Err(End::Stop);
            }
            let error = match self.try_join() {
                Ok(joined) => {
                    self.shared.lock().state.problem = None;
                    return Ok(joined);
                }
                Err(error) => error,
            };
            let verdict = match error {
                KafkaError::Refused { code, .. } => verdict(code),
                _ if error.is_permanent() => Verdict::Permanent,
                _ => Verdict::FindCoordinator,
            };
            let pause = match verdict {
                Verdict::Fenced => return Err(End::Fenced),
                Verdict::UnknownMember => {
                    self.shared.lock().member_id.clear();
                    FIND_PAUSE
                }
                Verdict::Rejoin | Verdict::StaleGeneration | Verdict::MemberIdGiven => FIND_PAUSE,
                Verdict::FindCoordinator | Verdict::Refresh | Verdict::Again => {
                    self.tell(&mut told, &error, false);
                    FIND_PAUSE
                }
                Verdict::Permanent | Verdict::OutOfRange | Verdict::TooLarge => {
                    self.tell(&mut told, &error, true);
                    backoff.next_delay()
                }
            };
            if self.stop.wait(pause) {
                return Err(End::Stop);
            }
        }
    }

    /// Logs a cause that wasn't logged in this series of tries.
    fn tell(&self, told: &mut Option<String>, error: &KafkaError, needs_person: bool) {
        let cause = error.to_string();
        let group = self.group.group.as_str();
        if told.as_ref() != Some(&cause) {
            if needs_person {
                log::error!(group, cause = cause.as_str(); "group can't be joined");
            } else {
                log::warn!(group, cause = cause.as_str(); "group not joined yet");
            }
        }
        self.shared.lock().state.problem = Some(cause.clone());
        *told = Some(cause);
    }

    fn try_join(&mut self) -> Result<Joined, KafkaError> {
        {
            let mut current = self.shared.lock();
            current.is_joining = true;
            current.alive = None;
        }
        let joined =
            self.make_topic().and_then(|()| self.joining.join(&self.shared, &mut self.cluster));
        let mut current = self.shared.lock();
        current.is_joining = false;
        if let Ok(joined) = &joined {
            current.alive = Some(joined.generation.clone());
            current.refused = None;
            metrics().rebalances.inc();
        }
        joined
    }

    /// Makes the topic, if this member shall.
    fn make_topic(&mut self) -> Result<(), KafkaError> {
        if let (false, Some(spec)) = (self.is_topic_there, &self.group.topic_when_absent) {
            topics::ensure_in(&mut self.cluster, spec)?;
            self.is_topic_there = true;
        }
        Ok(())
    }

    /// Where to go on in each partition. Tried until it's known, as working from a wrong offset
    /// would be worse than waiting.
    fn offsets(
        &mut self,
        generation: &Generation,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>, End> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut told = None;
        let mut offsets = loop {
            let error = match self.asking.committed(partitions) {
                Ok(offsets) => break offsets,
                Err(error) => error,
            };
            self.tell(&mut told, &error, error.is_permanent());
            if self.stop.wait(FIND_PAUSE) {
                return Err(End::Stop);
            }
            if let Ok(event) = self.events.try_recv()
                && event.generation == *generation
            {
                return Err(end_of(event.kind));
            }
        };
        if told.is_some() {
            self.shared.lock().state.problem = None;
        }
        let missing: Vec<i32> =
            partitions.iter().copied().filter(|id| !offsets.contains_key(id)).collect();
        if !missing.is_empty() {
            // A leader that is away must not hold the others up: the fetcher asks again.
            let first =
                self.cluster.offsets(&self.group.topic, &missing, AT_START).unwrap_or_default();
            let first_of = |id: &i32| first.get(id).copied().unwrap_or(EARLIEST);
            offsets.extend(missing.iter().map(|id| (*id, first_of(id))));
        }
        Ok(offsets)
    }

    /// Partitions that are no longer ours have no lag of ours.
    fn drop_lags(&mut self, partitions: &[i32]) {
        let now: BTreeSet<i32> = partitions.iter().copied().collect();
        for partition in self.last.difference(&now) {
            metrics().lag.remove(&ByPartition { partition: *partition });
        }
        self.last = now;
    }

    /// After the stop. A static member stays in the group: when it comes back within its
    /// session, nothing moves.
    fn leave(&mut self) {
        let member_id = {
            let mut current = self.shared.lock();
            current.alive = None;
            std::mem::take(&mut current.member_id)
        };
        if member_id.is_empty() || self.group.instance_id.is_some() {
            return;
        }
        match self.asking.leave(&member_id) {
            Ok(()) => log::info!(group = self.group.group.as_str(); "group left"),
            // Left by the heartbeat thread, or forgotten: gone either way.
            Err(KafkaError::Refused { code, .. }) if verdict(code) == Verdict::UnknownMember => {}
            Err(error) => {
                log::warn!(group = self.group.group.as_str(), cause:% = error;
                    "group not left, the session will expire");
            }
        }
    }

    fn give_up(&mut self) {
        let instance_id = self.group.instance_id.as_deref().unwrap_or_default();
        let fault = KafkaError::Configuration(format!(
            "another process has joined group {} with our instance id {instance_id}",
            self.group.group
        ));
        log::error!(group = self.group.group.as_str(), instance_id, cause:% = fault;
            "group membership ended");
        let mut current = self.shared.lock();
        current.alive = None;
        current.state.problem = Some(fault.to_string());
        current.fault = Some(fault);
    }
}

impl Drop for Membership {
    /// Also after a panic in the handler: the heartbeats must not keep a dead member alive.
    fn drop(&mut self) {
        self.ended.request();
    }
}

fn end_of(kind: EventKind) -> End {
    match kind {
        EventKind::Rebalance => End::Rejoin,
        EventKind::Stale => End::Stale,
        EventKind::Forgotten => End::Forgotten,
        EventKind::Fenced => End::Fenced,
    }
}
