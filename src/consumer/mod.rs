//! The consumer: from the topic's partitions into the table.
//!
//! ```text
//! group member ──partitions dealt──► N workers: fetch → decode → one transaction → commit offset
//! maintenance: migrations, partitions ahead, retention; rollups: checks counted by hour and day
//! ```
//!
//! Invariants:
//! - An offset is committed only after the transaction that holds the rows before it, and with
//!   the generation under which they were fetched.
//! - When the group takes partitions away, every worker has ended its batch, or given it up
//!   uncommitted, before the member answers.
//! - A message is never dropped: it becomes a row, or a row of `rejected_message`; while the
//!   database is away its worker waits.

mod assignment;
mod chunk;
mod console;
mod ingest;
mod maintenance;
mod replay;
mod rollups;
mod worker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::kafka::{Fetcher, GroupOptions, KafkaError, KafkaOptions, Member, MemberHandle};
use crate::runtime::{Stop, Threads, now};
use crate::store::Store;
use crate::telemetry::health;

pub use ingest::{Ingest, Message, SaveError, Sinks};
pub use maintenance::{Maintenance, MaintenanceOptions, maintain};
pub use replay::{NAMED_MAX, Replayed, replay};

/// Time for the batches under way, their commits and leaving the group.
const CLOSING: Duration = Duration::from_secs(20);
/// Time for the lines that still wait for the reader of the console.
const ONLOOKER_LIMIT: Duration = Duration::from_secs(1);
/// The membership's part of the process's health; the member itself logs its changes.
const GROUP: &str = "group";
/// How often it is looked how the membership is, and whether the membership has ended by itself.
const LOOK: Duration = Duration::from_secs(1);

/// What a consumer needs to know.
#[derive(Debug)]
pub struct ConsumerOptions {
    /// The brokers.
    pub kafka: KafkaOptions,
    /// The group and its topic.
    pub group: GroupOptions,
    /// Worker threads.
    pub threads: usize,
    /// Most messages of one transaction.
    pub batch: usize,
    /// Where results go.
    pub sinks: Sinks,
    /// What the maintenance threads keep.
    pub maintenance: MaintenanceOptions,
}

/// A running consumer.
#[derive(Debug)]
pub struct Consumer {
    stop: Stop,
    console: Console,
    member: MemberHandle,
    membership: Threads,
    workers: Threads,
    onlooking: Threads,
    maintenance: Option<Maintenance>,
}

/// What others may see of a running consumer.
#[derive(Clone, Debug)]
pub struct ConsumerView {
    member: MemberHandle,
}

impl ConsumerView {
    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.member.state().partitions
    }
}

/// Ends the consumer when its only sink, standard output, can't be written to.
#[derive(Clone, Debug)]
struct Console {
    stop: Stop,
    fault: Arc<OnceLock<String>>,
}

impl Console {
    fn report(&self, error: &std::io::Error) {
        // A reader that has gone, such as `head`, has seen enough.
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            let _ = self.fault.set(error.to_string());
        }
        self.stop.request();
    }
}

/// Why a consumer could not be started, or has ended by itself.
#[derive(Debug)]
pub enum ConsumerError {
    /// Standard output, the only sink, can't be written to.
    Console(String),
    /// The group's settings can't be used, or its membership has ended.
    Group(KafkaError),
    /// The operating system has no room for the threads.
    Thread(std::io::Error),
}

impl std::fmt::Display for ConsumerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Console(cause) => write!(f, "cannot write to standard output: {cause}"),
            Self::Group(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for ConsumerError {}

impl Consumer {
    /// Starts all threads. Neither the database nor the broker has to be there.
    ///
    /// # Errors
    /// A [`ConsumerError`].
    pub fn start(
        options: ConsumerOptions,
        store: &Store,
        stop: &Stop,
    ) -> Result<Self, ConsumerError> {
        let ConsumerOptions { kafka, group, threads, batch, sinks, maintenance } = options;
        let mut membership = Threads::new(stop.clone());
        let mut workers = Threads::new(stop.clone());
        let maintenance = if sinks.postgres {
            let started = Maintenance::start(store.clone(), maintenance, stop);
            Some(started.map_err(ConsumerError::Thread)?)
        } else {
            None
        };
        let mut onlooking = Threads::new(stop.clone());
        let onlooker = if sinks.postgres && sinks.console {
            Some(console::Onlooker::start(&mut onlooking).map_err(ConsumerError::Thread)?)
        } else {
            None
        };
        let console = Console { stop: stop.clone(), fault: Arc::default() };
        health().expect(GROUP);
        let (dealer, inboxes) = assignment::Dealer::new(threads);
        let member = Member::start(
            kafka.clone(),
            group.clone(),
            Box::new(dealer),
            stop.clone(),
            &mut membership,
        )
        .map_err(ConsumerError::Group)?;
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let worker = worker::Worker {
                number,
                fetcher: Fetcher::new(kafka.clone(), &group.topic),
                batch: batch.max(1),
                chunk: chunk::Chunk::default(),
                committer: member.committer(),
                ingest: Ingest::new(sinks, store.clone(), &group.topic)
                    .with_onlooker(onlooker.clone()),
                inbox,
                console: console.clone(),
            };
            workers
                .spawn(&format!("consume-{number}"), move || worker.run())
                .map_err(ConsumerError::Thread)?;
        }
        let stop = stop.clone();
        Ok(Self { stop, console, member, membership, workers, onlooking, maintenance })
    }

    /// What others may see of it.
    #[must_use]
    pub fn view(&self) -> ConsumerView {
        ConsumerView { member: self.member.clone() }
    }

    /// Waits for the stop, then stops in order: the member asks the workers to end their batches
    /// and commit, leaves the group and ends; with it the workers end; maintenance last.
    ///
    /// # Errors
    /// Why the consumer ended by itself: another process has the same instance id, or standard
    /// output, as the only sink, can't be written to.
    pub fn run_until_stopped(self) -> Result<(), ConsumerError> {
        while !self.stop.wait(LOOK) {
            if self.member.fault().is_some() {
                self.stop.request();
            }
            match self.member.state() {
                state if state.is_joined => health().well(GROUP),
                state => health().unwell(GROUP, state.problem.as_deref().unwrap_or("joining")),
            };
        }
        let end = now().mono + CLOSING;
        let left = || end.saturating_sub(now().mono);
        let mut late = self.membership.join(left());
        late.extend(self.workers.join(left()));
        late.extend(self.maintenance.map(|thread| thread.join(left())).unwrap_or_default());
        // Who doesn't read by now never will.
        let _ = self.onlooking.join(ONLOOKER_LIMIT.min(left()));
        if !late.is_empty() {
            log::warn!(threads = late.join(","); "threads did not end in time");
        }
        if let Some(cause) = self.console.fault.get() {
            return Err(ConsumerError::Console(cause.clone()));
        }
        self.member.fault().map_or(Ok(()), |fault| Err(ConsumerError::Group(fault)))
    }
}
