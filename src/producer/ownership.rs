//! Which sites this producer checks: those whose key falls into the partitions that the group of
//! the region's producers gave it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::Sharing;
use crate::kafka::{
    Assignment, GroupHandler, KafkaError, KafkaOptions, Member, MemberHandle, partition_for, topics,
};
use crate::runtime::{Backoff, Stop, Threads, now};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// The broker has just answered the group; if it does not describe the topic within some seconds,
/// it is taken to have as many partitions as before.
const TRIES: u32 = 8;

/// The share of this producer. Clones are the same share.
///
/// Until the group has spoken for the first time a producer owns all sites, and while the
/// coordinator can't be reached it keeps its last share: two producers that check the same due
/// time make one row, a due time that nobody checks makes none.
#[derive(Clone, Debug)]
pub struct Ownership {
    share: Arc<Mutex<Share>>,
    /// Absent where all sites are owned for good.
    member: Arc<OnceLock<MemberHandle>>,
}

/// What is taken away is kept for the group's session timeout and this long: the others learn of
/// their new shares at other moments, and no due time may fall between two. One of them may even be
/// dead: who is killed while the group waits for its members is dealt a share all the same, and only
/// the end of its session, a heartbeat and a new deal give it to somebody else.
const RELEASE_AFTER: Duration = Duration::from_secs(5);
/// Most shares that are kept so, the newest: a group that changes more often within that time deals
/// nonsense.
const BEFORE_MAX: usize = 16;

/// Partitions of the topic and those of them that are ours; `None`: all sites are ours.
type Partitions = Option<(i32, BTreeSet<i32>)>;

#[derive(Debug, Default)]
struct Share {
    now: Partitions,
    /// What was ours before each of the last changes, until the time (monotonic) at which it is
    /// released.
    before: Vec<(Partitions, Duration)>,
    /// How long that is after a change.
    release_after: Duration,
    /// Counts the changes.
    version: u64,
}

impl Share {
    /// Lets go of what was ours before, once its time has come. While the group has no say, that
    /// time begins anew: a dead member's session does so too with a coordinator that starts again.
    fn release(&mut self, time: Duration, is_group_well: bool) {
        if !is_group_well {
            let release_at = time + self.release_after;
            self.before.iter_mut().for_each(|(_, at)| *at = release_at);
        }
        let kept = self.before.len();
        self.before.retain(|(_, at)| *at > time);
        self.version += u64::from(self.before.len() < kept);
    }
}

fn contains(partitions: &Partitions, website_id: i64) -> bool {
    partitions.as_ref().is_none_or(|(count, ours)| {
        ours.contains(&partition_for(website_id.to_string().as_bytes(), *count))
    })
}

impl Ownership {
    /// All sites.
    #[must_use]
    pub fn all() -> Self {
        Self { share: Arc::default(), member: Arc::default() }
    }

    /// Grows with every change of the share.
    #[must_use]
    pub fn version(&self) -> u64 {
        let is_group_well = self.member.get().is_none_or(|member| {
            let state = member.state();
            state.is_joined && state.problem.is_none()
        });
        let mut share = self.lock();
        share.release(now().mono, is_group_well);
        share.version
    }

    /// Whether this producer checks the site.
    #[must_use]
    pub fn owns(&self, website_id: i64) -> bool {
        let share = self.lock();
        let was_ours = |(before, _): &(Partitions, Duration)| contains(before, website_id);
        contains(&share.now, website_id) || share.before.iter().any(was_ours)
    }

    /// How many of the topic's partitions are this producer's, and how many there are; none while
    /// all sites are its own.
    #[must_use]
    pub fn share(&self) -> Option<(usize, usize)> {
        let share = self.lock();
        let (count, ours) = share.now.as_ref()?;
        Some((ours.len(), usize::try_from(*count).unwrap_or_default()))
    }

    /// Whether other producers have a share beside this one's.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        let share = self.lock();
        share
            .now
            .as_ref()
            .is_some_and(|(count, ours)| !ours.is_empty() && ours.len() < *count as usize)
    }

    fn set(&self, count: i32, ours: BTreeSet<i32>, time: Duration) {
        let mut share = self.lock();
        let release_at = time + share.release_after;
        let before = share.now.replace((count, ours));
        // Groups change some times in a row: the others may still have the shares before those. One
        // that goes round among few shares holds each of them once.
        share.before.retain(|(other, _)| *other != before);
        if share.before.len() >= BEFORE_MAX {
            share.before.remove(0);
        }
        share.before.push((before, release_at));
        share.version += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Share> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins the group, in threads of its own, whenever the broker can be reached.
pub(super) fn start(
    with: Sharing,
    ownership: &Ownership,
    stop: &Stop,
    threads: &mut Threads,
) -> Result<(), KafkaError> {
    let Sharing { kafka, group } = with;
    let topic = group.topic.clone();
    ownership.lock().release_after = group.session_timeout + RELEASE_AFTER;
    let handler =
        Handler { kafka: kafka.clone(), topic, ownership: ownership.clone(), stop: stop.clone() };
    let member = Member::start(kafka, group, Box::new(handler), stop.clone(), threads)?;
    // Set once: a producer is in one group.
    let _ = ownership.member.set(member);
    Ok(())
}

struct Handler {
    kafka: KafkaOptions,
    topic: String,
    ownership: Ownership,
    stop: Stop,
}

impl GroupHandler for Handler {
    fn assigned(&mut self, assignment: &Assignment) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while backoff.tries() < TRIES {
            match topics::describe(&self.kafka, &self.topic) {
                Ok(Some(topic)) => {
                    let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                    let ours: BTreeSet<i32> = assignment.partitions.iter().copied().collect();
                    if ours.is_empty() {
                        log::warn!(of = count; "more producers than partitions: no site is ours");
                    } else {
                        log::info!(partitions = ours.len(), of = count; "share of the sites changed");
                    }
                    self.ownership.set(count, ours, now().mono);
                    return;
                }
                // The group deals again when the topic is there.
                Ok(None) => return,
                Err(error) => {
                    log::debug!(cause = error.to_string().as_str(); "topic cannot be described");
                }
            }
            if self.stop.wait(backoff.next_delay()) {
                return;
            }
        }
        // The group may not deal again for long. Topics seldom get more partitions, and until the
        // first share all sites are ours.
        let count = self.ownership.lock().now.as_ref().map(|(count, _)| *count);
        if let Some(count) = count {
            self.ownership.set(count, assignment.partitions.iter().copied().collect(), now().mono);
        }
        log::warn!(topic = self.topic.as_str(), partitions = count.unwrap_or_default();
            "topic cannot be described: as many partitions as before");
    }

    // The last share stays: overlap costs nothing.
    fn revoked(&mut self, _lost: bool) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_leave_no_site_out_and_none_twice() {
        let (one, other) = (Ownership::all(), Ownership::all());
        for ownership in [&one, &other] {
            ownership.lock().release_after = RELEASE_AFTER;
        }
        assert!(one.owns(1) && other.owns(1), "before the group has spoken all are owned");
        assert!(!one.is_shared(), "nor is anybody there to hand them over to");
        one.set(8, (0..3).collect(), Duration::ZERO);
        other.set(8, (3..8).collect(), Duration::ZERO);
        assert!(one.owns(1) && other.owns(1), "nothing is let go before others have it");
        one.set(8, (0..2).collect(), Duration::ZERO);
        one.set(8, (0..3).collect(), Duration::ZERO);
        assert!(one.owns(1), "also not by a second change");
        assert!(one.is_shared() && other.is_shared());
        let version = one.version();
        one.lock().release(RELEASE_AFTER / 2, false);
        one.lock().release(RELEASE_AFTER, true);
        assert_eq!(one.version(), version, "the group was away: kept for longer");
        one.lock().release(RELEASE_AFTER * 2, true);
        other.lock().release(RELEASE_AFTER, true);
        assert!(one.version() > version);
        for website_id in 1..1000 {
            assert!(one.owns(website_id) != other.owns(website_id), "{website_id}");
        }
    }

    #[test]
    fn a_group_that_changes_all_the_time_keeps_the_newest_shares() {
        let ownership = Ownership::all();
        ownership.lock().release_after = RELEASE_AFTER;
        for _ in 0..BEFORE_MAX {
            ownership.set(8, (0..4).collect(), Duration::ZERO);
            ownership.set(8, (0..8).collect(), Duration::ZERO);
        }
        assert_eq!(ownership.lock().before.len(), 3, "all, four and eight partitions");
        for count in 0..2 * BEFORE_MAX as i32 {
            ownership.set(64, (count..=count).collect(), Duration::ZERO);
        }
        let share = ownership.lock();
        assert_eq!(share.before.len(), BEFORE_MAX);
        let last = Some((64, BTreeSet::from([2 * BEFORE_MAX as i32 - 2])));
        assert!(share.before.iter().any(|(before, _)| *before == last));
    }
}
