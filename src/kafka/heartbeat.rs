//! The thread that keeps a membership alive.
//!
//! It sends heartbeats for the generation the membership thread joined last, tells it what the
//! coordinator says, and runs until that thread has ended: also while the handler finishes its
//! batch. A join that waits for other members can't see the stop; this thread then leaves in its
//! place, upon which the coordinator answers the join.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, HeartbeatResponse};

use super::connection::{GROUP_TIMEOUT, text};
use super::coordinator::{Coordinator, FIND_PAUSE};
use super::errors::{Verdict, verdict};
use super::member::Shared;
use super::{Generation, GroupOptions, KafkaError, KafkaOptions};
use crate::runtime::Stop;

/// Something a heartbeat's answer said about a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Of this generation.
    pub(super) generation: Generation,
    pub(super) kind: EventKind,
}

/// What it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// The group changes: finish, commit, join again.
    Rebalance,
    /// The generation is over.
    Stale,
    /// The coordinator no longer knows this member.
    Forgotten,
    /// Another process has our instance id.
    Fenced,
}

pub(super) struct Heartbeat {
    coordinator: Coordinator,
    shared: Arc<Shared>,
    events: Sender<Event>,
    stop: Stop,
    ended: Stop,
    is_failing: bool,
    has_left: bool,
}

impl Heartbeat {
    pub(super) fn new(
        options: Arc<KafkaOptions>,
        group: Arc<GroupOptions>,
        shared: Arc<Shared>,
        events: Sender<Event>,
        stop: Stop,
        ended: Stop,
    ) -> Self {
        let coordinator = Coordinator::new(options, group, GROUP_TIMEOUT);
        Self { coordinator, shared, events, stop, ended, is_failing: false, has_left: false }
    }

    pub(super) fn run(mut self) {
        let interval = self.coordinator.group().heartbeat_interval;
        let mut pause = interval;
        while !self.ended.wait(pause) {
            let alive = self.shared.lock().alive.clone();
            pause = match alive {
                Some(generation) => self.beat(generation, interval),
                None => interval,
            };
            if self.stop.is_requested() && !self.has_left {
                self.leave_waiting_join();
            }
        }
    }

    /// One heartbeat; how long until the next.
    fn beat(&mut self, generation: Generation, interval: Duration) -> Duration {
        let answer = self.send(&generation);
        let is_refused = self.shared.lock().refused.as_ref() == Some(&generation);
        let Some(kind) = event_of(&answer, is_refused) else {
            self.note(answer.as_ref().err());
            return if answer.is_ok() { interval } else { FIND_PAUSE };
        };
        self.note(None);
        // Full when the membership thread is still at the last one.
        let _ = self.events.try_send(Event { generation, kind });
        interval
    }

    fn send(&mut self, generation: &Generation) -> Result<(), KafkaError> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.coordinator.group_id())
            .with_generation_id(generation.id)
            .with_member_id(text(&generation.member_id))
            .with_group_instance_id(self.coordinator.instance_id());
        let answer: HeartbeatResponse =
            self.coordinator.request("heartbeat", ApiKey::Heartbeat, 4, request)?;
        self.coordinator.check("heartbeat", answer.error_code)
    }

    /// Says once that the coordinator doesn't answer, and once that it does again.
    fn note(&mut self, error: Option<&KafkaError>) {
        let group = self.coordinator.group().group.as_str();
        match error {
            Some(error) if !self.is_failing => {
                log::warn!(group, cause:% = error; "coordinator lost, assignment kept");
                self.shared.lock().state.problem = Some(error.to_string());
            }
            None if self.is_failing => {
                log::info!(group; "coordinator found again");
                self.shared.lock().state.problem = None;
            }
            _ => {}
        }
        self.is_failing = error.is_some();
    }

    fn leave_waiting_join(&mut self) {
        let member_id = {
            let current = self.shared.lock();
            if !current.is_joining || current.member_id.is_empty() {
                return;
            }
            current.member_id.clone()
        };
        // Tried again with the next round when it fails.
        self.has_left = self.coordinator.leave(&member_id).is_ok();
    }
}

/// What an answer means for the generation. `is_refused`: a commit for it was refused, so whoever
/// committed has stopped working, and would never go on without a new assignment.
fn event_of(answer: &Result<(), KafkaError>, is_refused: bool) -> Option<EventKind> {
    match answer {
        Ok(()) => is_refused.then_some(EventKind::Stale),
        Err(KafkaError::Refused { code, .. }) => match verdict(*code) {
            Verdict::Rejoin => Some(EventKind::Rebalance),
            Verdict::StaleGeneration => Some(EventKind::Stale),
            Verdict::UnknownMember | Verdict::MemberIdGiven => Some(EventKind::Forgotten),
            Verdict::Fenced => Some(EventKind::Fenced),
            Verdict::FindCoordinator
            | Verdict::Again
            | Verdict::Refresh
            | Verdict::OutOfRange
            | Verdict::TooLarge
            | Verdict::Permanent => None,
        },
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_commit_ends_an_assignment_that_heartbeats_find_well() {
        let refused = |code| Err(KafkaError::Refused { operation: "heartbeat", code });
        assert_eq!(event_of(&Ok(()), false), None);
        assert_eq!(event_of(&Ok(()), true), Some(EventKind::Stale));
        for is_refused in [false, true] {
            for (code, expect) in [
                (27, Some(EventKind::Rebalance)),
                (22, Some(EventKind::Stale)),
                (25, Some(EventKind::Forgotten)),
                (82, Some(EventKind::Fenced)),
                // The coordinator moves: the assignment is kept.
                (16, None),
                (-1, None),
            ] {
                assert_eq!(event_of(&refused(code), is_refused), expect, "{code}");
            }
        }
    }
}
