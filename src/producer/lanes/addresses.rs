//! Checks at once to one address, and those that wait for it. Used under the board's lock.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::job::Job;

/// Invariants: an address is in the map while a check counts for it or waits for it; a check
/// waits only while `limit` or more count, so that there always is one whose end hands over.
#[derive(Debug)]
pub(super) struct Addresses {
    limit: usize,
    busy: HashMap<IpAddr, Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    running: usize,
    parked: VecDeque<Job>,
}

impl Addresses {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), busy: HashMap::new() }
    }

    pub(super) fn is_full(&self, address: IpAddr) -> bool {
        self.busy.get(&address).is_some_and(|busy| busy.running >= self.limit)
    }

    /// Counts one more check; above the limit for what must not wait.
    pub(super) fn enter(&mut self, address: IpAddr) {
        self.busy.entry(address).or_default().running += 1;
    }

    /// One check less. The one that waited longest takes its place, and is the answer.
    pub(super) fn leave(&mut self, address: IpAddr) -> Option<Job> {
        let Slot::Occupied(mut slot) = self.busy.entry(address) else { return None };
        let busy = slot.get_mut();
        busy.running -= 1;
        if busy.running < self.limit
            && let Some(mut job) = busy.parked.pop_front()
        {
            busy.running += 1;
            job.entry.set_parked(false);
            job.place = Some(address);
            return Some(job);
        }
        if busy.running == 0 {
            slot.remove();
        }
        None
    }

    /// Lets `job` wait for the full `address`. If its site waits there already, the job with the
    /// earlier due time is taken out and is the answer: it wasn't started before the later one.
    pub(super) fn park(&mut self, mut job: Job, address: IpAddr) -> Option<Job> {
        job.place = None;
        let parked = &mut self.busy.entry(address).or_default().parked;
        if job.entry.is_parked()
            && let Some(same) = parked.iter_mut().find(|same| same.is_of(&job.entry))
        {
            if same.scheduled_at < job.scheduled_at {
                std::mem::swap(same, &mut job);
            }
            return Some(job);
        }
        job.entry.set_parked(true);
        parked.push_back(job);
        None
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.busy.len()
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Job> {
        self.busy.values_mut().flat_map(|busy| busy.parked.drain(..))
    }
}
