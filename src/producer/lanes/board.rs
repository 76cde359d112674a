//! Who is idle, what waits, and what may start: the lanes' one lock.
//!
//! Invariants:
//! - A job is in exactly one place: in a queue, parked at an address, on its way to one worker,
//!   or with one. Whatever leaves the board unstarted is handed to the caller, who records it.
//! - A worker is either idle, and then its seat lies on its lane's stack, or it will come back
//!   with [`Board::next`]. The worker that sat down last is woken first: its stack and caches are
//!   warm.
//! - Before a worker sits down it looks at the queues, and before a job is queued it is looked
//!   for an idle worker, both under the one lock: no job waits while a worker that may take it
//!   sits idle. One exception, with a limit per address: an untried job may wait until the next
//!   check of the fast lane ends, when a trial's worker goes on with a job of its address.
//! - What waits is bounded per lane, wherever it waits; untried sites count for the slow one.
//! - Seats are sent to after the lock is released, so that nobody wakes up in front of it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::QUEUE_PER_WORKER;
use super::addresses::Addresses;
use super::entry::{Entry, Standing};
use super::job::{Handed, Held, Job, LaneName, Seat, Unstarted};
use crate::telemetry::{ByLane, Gauge, metrics};

const LATE: &str = "not started before its next due time";

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Next {
    Job(Handed),
    /// It sits on the stack.
    Wait,
    End,
}

/// What is to be done once the lock is released.
#[derive(Debug, Default)]
struct After {
    /// Almost always the only one: no allocation per check.
    wake: Option<Handed>,
    more: Vec<Handed>,
    unstarted: Vec<Unstarted>,
}

impl After {
    fn wake(&mut self, handed: Handed) {
        match self.wake {
            None => self.wake = Some(handed),
            Some(_) => self.more.push(handed),
        }
    }
}

#[derive(Debug)]
struct Lane {
    workers: usize,
    idle: Vec<Seat>,
    queued: Gauge,
}

impl Lane {
    fn new(name: LaneName, workers: usize) -> Self {
        let label = ByLane { lane: name.as_str() };
        let queued = metrics().checks_queued.get_or_create(&label).clone();
        Self { workers, idle: Vec::with_capacity(workers), queued }
    }
}

#[derive(Debug)]
struct State {
    fast: Lane,
    slow: Lane,
    /// By standing.
    queues: [VecDeque<Job>; Standing::COUNT],
    /// How many of each standing are parked.
    parked: [usize; Standing::COUNT],
    /// Untried sites that hold a worker of the fast lane.
    trials: usize,
    /// Only where there is a limit.
    addresses: Option<Addresses>,
    is_closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board(Mutex<State>);

impl Board {
    pub(super) fn new(fast: usize, slow: usize, per_address: Option<usize>) -> Self {
        Self(Mutex::new(State {
            fast: Lane::new(LaneName::Fast, fast),
            slow: Lane::new(LaneName::Slow, slow),
            queues: Default::default(),
            parked: Default::default(),
            trials: 0,
            addresses: per_address.map(Addresses::new),
            is_closed: false,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whom `after` says; what won't be checked is the answer.
    fn finish(&self, after: After) -> Vec<Unstarted> {
        let After { wake, more, mut unstarted } = after;
        for handed in wake.into_iter().chain(more) {
            let seat = handed.seat.0.clone();
            // A worker outlives its seat; if it ever did not, its job goes to another.
            if let Err(Handed { mut job, .. }) = seat.try_send(handed) {
                let mut after = After::default();
                let mut state = self.lock();
                if std::mem::take(&mut job.is_trial) {
                    state.trials -= 1;
                }
                state.put_back(job, &mut after);
                drop(state);
                unstarted.extend(self.finish(after));
            }
        }
        unstarted
    }

    /// Takes a due time of `entry`; one that won't be checked for that is the answer, this one or
    /// the one before it.
    pub(super) fn submit(
        &self,
        entry: &Arc<Entry>,
        scheduled_at: Timestamp,
    ) -> Result<(), Unstarted> {
        let standing = entry.standing();
        let job =
            Job { entry: entry.clone(), scheduled_at, standing, place: None, is_trial: false };
        let mut after = After::default();
        let mut state = self.lock();
        state.submit(job, &mut after);
        drop(state);
        match self.finish(after).pop() {
            Some(unstarted) => Err(unstarted),
            None => Ok(()),
        }
    }

    /// A worker of `lane` has ended a check that counted for `held`, or begins.
    pub(super) fn next(&self, lane: LaneName, seat: Seat, held: Held) -> (Next, Vec<Unstarted>) {
        let mut after = After::default();
        let mut state = self.lock();
        let job = state.release(lane, held, &mut after);
        let next = state.next(lane, seat, job, &mut after);
        drop(state);
        (next, self.finish(after))
    }

    /// The same for a check that wasn't begun, because `address` is full: `job` waits for it.
    pub(super) fn hand_back(
        &self,
        mut job: Job,
        address: IpAddr,
        lane: LaneName,
        seat: Seat,
        held: Held,
    ) -> (Next, Vec<Unstarted>) {
        job.place = None;
        job.is_trial = false;
        job.entry.set_address(address);
        let mut after = After::default();
        let mut state = self.lock();
        let mut mine = state.release(lane, held, &mut after);
        if state.is_full(Some(address)) {
            state.park(job, address, &mut after);
        } else {
            // A place became free in between.
            state.enter(&mut job);
            match mine {
                None => mine = Some(job),
                Some(_) => state.put_back(job, &mut after),
            }
        }
        let next = state.next(lane, seat, mine, &mut after);
        drop(state);
        (next, self.finish(after))
    }

    /// Counts a check at `address` instead of at `leaving`; `false`: `may_refuse`, and the
    /// address is full.
    pub(super) fn move_to(
        &self,
        address: IpAddr,
        leaving: Option<IpAddr>,
        may_refuse: bool,
    ) -> bool {
        let mut after = After::default();
        let mut state = self.lock();
        if may_refuse && state.is_full(Some(address)) {
            return false;
        }
        if let Some(addresses) = &mut state.addresses {
            addresses.enter(address);
        }
        if let Some(job) = leaving.and_then(|leaving| state.leave(leaving)) {
            state.put_back(job, &mut after);
        }
        drop(state);
        // Who waited for the address left has a place now, or waits in a queue.
        let unstarted = self.finish(after);
        debug_assert!(unstarted.is_empty());
        true
    }

    /// Ends the workers, once nothing waits any more.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let idle = [std::mem::take(&mut state.fast.idle), std::mem::take(&mut state.slow.idle)];
        drop(state);
        drop(idle);
    }

    /// Idle workers of both lanes.
    #[cfg(test)]
    pub(super) fn idle(&self) -> (usize, usize) {
        let state = self.lock();
        (state.fast.idle.len(), state.slow.idle.len())
    }

    /// Jobs that wait in the queues, and for an address.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.queues.iter().map(VecDeque::len).sum(), state.parked.iter().sum())
    }

    /// Untried sites that count in the fast lane, and addresses that count anything.
    #[cfg(test)]
    pub(super) fn counted(&self) -> (usize, usize) {
        let state = self.lock();
        (state.trials, state.addresses.as_ref().map_or(0, Addresses::len))
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&self) -> Vec<(Arc<Entry>, Timestamp)> {
        let mut state = self.lock();
        let mut jobs: Vec<Job> = state.queues.iter_mut().flat_map(std::mem::take).collect();
        if let Some(addresses) = &mut state.addresses {
            jobs.extend(addresses.drain());
        }
        state.parked = Default::default();
        state.show();
        jobs.into_iter().map(|job| (job.entry, job.scheduled_at)).collect()
    }
}

impl State {
    fn queue(&mut self, standing: Standing) -> &mut VecDeque<Job> {
        &mut self.queues[standing as usize]
    }

    fn waiting(&self, standing: Standing) -> usize {
        self.queues[standing as usize].len() + self.parked[standing as usize]
    }

    /// Jobs that wait for a lane, and how many may; untried ones wait for the slow one.
    fn room(&self, standing: Standing) -> (usize, usize, &'static str) {
        let (waiting, lane, full) = match standing {
            Standing::Quick => {
                let waiting = self.waiting(Standing::Quick);
                (waiting, &self.fast, "no room in the fast lane's queue")
            }
            Standing::Untried | Standing::Slow => {
                let waiting = self.waiting(Standing::Untried) + self.waiting(Standing::Slow);
                (waiting, &self.slow, "no room in the slow lane's queue")
            }
        };
        (waiting, lane.workers * QUEUE_PER_WORKER, full)
    }

    /// Brings the queues' gauges up to date.
    fn show(&self) {
        for (standing, lane) in [(Standing::Quick, &self.fast), (Standing::Slow, &self.slow)] {
            let (waiting, ..) = self.room(standing);
            lane.queued.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }

    fn is_full(&self, address: Option<IpAddr>) -> bool {
        match (&self.addresses, address) {
            (Some(addresses), Some(address)) => addresses.is_full(address),
            _ => false,
        }
    }

    /// Where the job's site was last seen, if that place is full now.
    fn full_address(&self, job: &Job) -> Option<IpAddr> {
        if self.addresses.is_none() || job.place.is_some() {
            return None;
        }
        job.entry.address().filter(|address| self.is_full(Some(*address)))
    }

    /// Counts the job at the address where its site was last seen.
    fn enter(&mut self, job: &mut Job) {
        if let Some(addresses) = &mut self.addresses
            && job.place.is_none()
            && let Some(address) = job.entry.address()
        {
            addresses.enter(address);
            job.place = Some(address);
        }
    }

    fn leave(&mut self, address: IpAddr) -> Option<Job> {
        let job = self.addresses.as_mut()?.leave(address)?;
        self.parked[job.standing as usize] -= 1;
        self.show();
        Some(job)
    }

    /// An idle worker for a job of this standing.
    fn idle_for(&mut self, standing: Standing) -> Option<(LaneName, Seat)> {
        let fast = |state: &mut Self| Some((LaneName::Fast, state.fast.idle.pop()?));
        let slow = |state: &mut Self| Some((LaneName::Slow, state.slow.idle.pop()?));
        match standing {
            Standing::Quick => fast(self),
            Standing::Slow => slow(self),
            Standing::Untried => {
                let first = if self.trials < self.fast.workers / 2 { fast(self) } else { None };
                first.or_else(|| slow(self)).or_else(|| {
                    let is_roomy = self.fast.idle.len() > self.fast.workers.div_ceil(4);
                    if is_roomy { fast(self) } else { None }
                })
            }
        }
    }

    /// Whether one more worker of the fast lane, which is not idle now, may try a site.
    fn may_try(&self) -> bool {
        self.trials < self.fast.workers / 2 || self.fast.idle.len() >= self.fast.workers.div_ceil(4)
    }

    /// Counts a job that starts in `lane`.
    fn begin(&mut self, mut job: Job, lane: LaneName) -> Job {
        if lane == LaneName::Fast && job.standing == Standing::Untried {
            job.is_trial = true;
            self.trials += 1;
        }
        self.enter(&mut job);
        job
    }

    fn submit(&mut self, job: Job, after: &mut After) {
        if let Some(address) = self.full_address(&job) {
            self.park(job, address, after);
        } else if let Some((lane, seat)) = self.idle_for(job.standing) {
            let job = self.begin(job, lane);
            after.wake(Handed { job, seat });
        } else {
            let (waiting, limit, full) = self.room(job.standing);
            if waiting < limit {
                self.queue(job.standing).push_back(job);
                self.show();
            } else {
                after.unstarted.push(Unstarted::new(job, full));
            }
        }
    }

    /// Lets the job wait for its address, if there is room.
    fn park(&mut self, job: Job, address: IpAddr, after: &mut After) {
        let (waiting, limit, full) = self.room(job.standing);
        if waiting >= limit && !job.entry.is_parked() {
            after.unstarted.push(Unstarted::new(job, full));
            return;
        }
        let Some(addresses) = &mut self.addresses else { return };
        self.parked[job.standing as usize] += 1;
        if let Some(replaced) = addresses.park(job, address) {
            self.parked[replaced.standing as usize] -= 1;
            after.unstarted.push(Unstarted::new(replaced, LATE));
        }
        self.show();
    }

    /// For a job that has waited: to an idle worker, or in front of its queue. There it holds no
    /// place at its address: nobody may begin it now, but perhaps another one that waits there.
    fn put_back(&mut self, mut job: Job, after: &mut After) {
        loop {
            if let Some((lane, seat)) = self.idle_for(job.standing) {
                let job = self.begin(job, lane);
                after.wake(Handed { job, seat });
                return;
            }
            let place = job.place.take();
            self.queue(job.standing).push_front(job);
            self.show();
            match place.and_then(|address| self.leave(address)) {
                Some(next) => job = next,
                None => return,
            }
        }
    }

    /// Takes back what a check counted for. Of those that waited for its addresses the first is
    /// for the caller, if its lane may take it.
    fn release(&mut self, lane: LaneName, held: Held, after: &mut After) -> Option<Job> {
        if held.is_trial {
            self.trials -= 1;
        }
        let mut mine = None;
        for address in [held.place, held.hop].into_iter().flatten() {
            match self.leave(address) {
                Some(job) if mine.is_none() && self.may_take(lane, job.standing) => {
                    mine = Some(job);
                }
                Some(job) => self.put_back(job, after),
                None => {}
            }
        }
        mine
    }

    fn may_take(&self, lane: LaneName, standing: Standing) -> bool {
        match (lane, standing) {
            // Then nothing is checked any more, and this may be the last worker.
            _ if self.is_closed => true,
            (LaneName::Fast, Standing::Untried) => self.may_try(),
            (LaneName::Fast, Standing::Quick) => true,
            (LaneName::Slow, Standing::Untried | Standing::Slow) => true,
            (LaneName::Fast, Standing::Slow) | (LaneName::Slow, Standing::Quick) => false,
        }
    }

    /// The queue that a worker of `lane` turns to. The slow lane tries sites first: most of them
    /// are quick. In the fast lane it is the one who was due first.
    fn turn(&self, lane: LaneName) -> Option<Standing> {
        let due = |standing: Standing| {
            let first = self.queues[standing as usize].front()?;
            self.may_take(lane, standing).then_some((first.scheduled_at, standing))
        };
        let [quick, untried, slow] = [Standing::Quick, Standing::Untried, Standing::Slow].map(due);
        let first = match lane {
            LaneName::Fast => quick.into_iter().chain(untried).min_by_key(|(at, _)| *at),
            LaneName::Slow => untried,
        };
        first.or(slow).or(quick).map(|(_, standing)| standing)
    }

    fn next(&mut self, lane: LaneName, seat: Seat, job: Option<Job>, after: &mut After) -> Next {
        let job = job.or_else(|| self.take(lane, after));
        if let Some(job) = job {
            let job = self.begin(job, lane);
            return Next::Job(Handed { job, seat });
        }
        if self.is_closed {
            return Next::End;
        }
        match lane {
            LaneName::Fast => self.fast.idle.push(seat),
            LaneName::Slow => self.slow.idle.push(seat),
        }
        Next::Wait
    }

    /// The first job in the queues that may start in `lane`.
    fn take(&mut self, lane: LaneName, after: &mut After) -> Option<Job> {
        loop {
            let standing = self.turn(lane)?;
            let job = self.queue(standing).pop_front()?;
            match self.full_address(&job) {
                // It goes on waiting, there; the room for it is what it just left.
                Some(address) => self.park(job, address, after),
                None => {
                    self.show();
                    return Some(job);
                }
            }
        }
    }
}
