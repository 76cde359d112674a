//! One worker: fetches from its partitions, saves, commits.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::Console;
use super::assignment::Command;
use super::ingest::{Ingest, Message, SaveError};
use crate::kafka::{CommitError, Committer, Fetched, Fetcher, Generation};
use crate::runtime::Backoff;
use crate::telemetry::health;

/// How long the broker may wait for messages: also how late a release is seen.
const FETCH_WAIT: Duration = Duration::from_millis(250);
/// Bytes of one partition in one fetch, compressed; bounds the memory of a worker with the
/// partitions it has.
const FETCH_BYTES: i32 = 1 << 20;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// Tries of a commit before the batch's offsets go out with the next batch's.
const COMMIT_TRIES: u32 = 5;

/// The workers' parts of the process's health.
const FETCHING: &str = "fetching";
const STORING: &str = "storing";

/// What a worker holds between an assignment and its end.
struct Held {
    generation: Generation,
    positions: BTreeMap<i32, i64>,
}

/// Why a batch was not finished.
enum Interrupted {
    /// The group has moved on: what is held belongs to others, and a command will come.
    Stale,
    /// A command came; it is to be obeyed now.
    By(Command),
    /// The member is gone.
    Ended,
}

pub(super) struct Worker {
    /// Tells the workers' troubles apart.
    pub(super) number: usize,
    pub(super) fetcher: Fetcher,
    /// Most messages of one transaction, at least 1.
    pub(super) batch: usize,
    pub(super) committer: Committer,
    pub(super) ingest: Ingest,
    pub(super) inbox: Receiver<Command>,
    pub(super) console: Console,
}

impl Worker {
    /// Until the member ends.
    pub(super) fn run(mut self) {
        let mut held: Option<Held> = None;
        loop {
            let command = match &held {
                Some(held) if !held.positions.is_empty() => match self.inbox.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                },
                _ => match self.inbox.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return,
                },
            };
            if let Some(command) = command {
                held = obey(command, self.number);
                continue;
            }
            let Some(work) = held.as_mut() else { continue };
            match self.round(work) {
                Ok(()) => {}
                Err(Interrupted::By(command)) => held = obey(command, self.number),
                Err(Interrupted::Stale) => held = None,
                Err(Interrupted::Ended) => return,
            }
        }
    }

    /// One fetch and everything that came with it.
    fn round(&mut self, held: &mut Held) -> Result<(), Interrupted> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let wanted: Vec<(i32, i64)> = held.positions.iter().map(|(p, o)| (*p, *o)).collect();
        let fetched = loop {
            match self.fetcher.fetch(&wanted, FETCH_WAIT, FETCH_BYTES) {
                Ok(fetched) => {
                    if health().well_by(FETCHING, self.number) {
                        log::info!("fetching");
                    }
                    break fetched;
                }
                Err(error) => {
                    let delay = backoff.next_delay();
                    let cause = error.to_string();
                    // One failed try is no outage: leaders move.
                    if backoff.tries() > 1
                        && health().unwell_by(FETCHING, self.number, cause.as_str())
                    {
                        log::warn!(cause = cause.as_str(); "cannot fetch");
                    }
                    self.pause(delay)?;
                }
            }
        };
        self.work_off(held, &fetched)
    }

    /// Saves and commits what a fetch brought, all partitions together, a batch at a time.
    fn work_off(&mut self, held: &mut Held, fetched: &[Fetched]) -> Result<(), Interrupted> {
        let mut messages: Vec<Message<'_>> = Vec::new();
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for partition in fetched {
            let number = partition.partition;
            for record in &partition.records {
                let payload = record.value.as_deref().unwrap_or_default();
                messages.push(Message { partition: number, offset: record.offset, payload });
                next.insert(number, record.offset + 1);
                if messages.len() >= self.batch {
                    self.save(&messages)?;
                    self.commit(held, std::mem::take(&mut next))?;
                    messages.clear();
                    // A backlog's fetch is many batches; a release is not to wait for them all.
                    self.pause(Duration::ZERO)?;
                }
            }
            // Past the last record there may be some that carry no message, such as markers; and
            // where the log has become shorter, it goes on before the position.
            if held.positions.get(&number).is_some_and(|at| *at != partition.next_offset) {
                next.insert(number, partition.next_offset);
            }
        }
        if !messages.is_empty() {
            self.save(&messages)?;
        }
        if next.is_empty() { Ok(()) } else { self.commit(held, next) }
    }

    /// Saves a batch, however long the database is away.
    fn save(&mut self, messages: &[Message<'_>]) -> Result<(), Interrupted> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            match self.ingest.save(messages) {
                Ok(()) => {
                    if health().well_by(STORING, self.number) {
                        log::info!("saving");
                    }
                    return Ok(());
                }
                Err(SaveError::Store(error)) => {
                    let delay = backoff.next_delay();
                    let cause = error.to_string();
                    if health().unwell_by(STORING, self.number, cause.as_str()) {
                        log::warn!(cause = cause.as_str(); "cannot save, messages wait in Kafka");
                    }
                    self.pause(delay)?;
                }
                Err(SaveError::Console(error)) => {
                    self.console.report(&error);
                    return Err(Interrupted::Ended);
                }
            }
        }
    }

    /// Commits the positions after a saved batch.
    fn commit(&mut self, held: &mut Held, next: BTreeMap<i32, i64>) -> Result<(), Interrupted> {
        held.positions.extend(next);
        // All of them, so that what an earlier commit could not say is said with this one. Before
        // its first fetch a partition may have no offset yet.
        let known = held.positions.iter().filter(|(_, offset)| **offset >= 0);
        let offsets: Vec<(i32, i64)> = known.map(|(p, o)| (*p, *o)).collect();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        while backoff.tries() < COMMIT_TRIES {
            match self.committer.commit(&held.generation, &offsets) {
                Ok(()) => return Ok(()),
                Err(CommitError::Stale) => {
                    log::info!("commit refused: the group has moved on");
                    return Err(Interrupted::Stale);
                }
                Err(CommitError::Unavailable(cause)) => {
                    log::debug!(cause:% = cause; "commit failed");
                    self.pause(backoff.next_delay())?;
                }
            }
        }
        // The rows are in the table; whoever reads these messages again changes nothing.
        log::warn!("commit given up, goes out with the next");
        Ok(())
    }

    /// Waits, but not past a command.
    fn pause(&self, delay: Duration) -> Result<(), Interrupted> {
        match self.inbox.recv_timeout(delay) {
            Ok(command) => Err(Interrupted::By(command)),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Interrupted::Ended),
        }
    }
}

/// What is held after a command. Everything saved was committed right away, so a release, lost or
/// not, only ends the work.
fn obey(command: Command, number: usize) -> Option<Held> {
    match command {
        Command::Take { generation, positions } => {
            Some(Held { generation, positions: positions.into_iter().collect() })
        }
        Command::Release { done } => {
            // Who holds nothing is in no trouble.
            health().well_by(FETCHING, number);
            health().well_by(STORING, number);
            // The dealer waits for the end of the channel: this worker is quiet.
            drop(done);
            None
        }
    }
}
