//! One worker: fetches from its partitions, saves, commits.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::Console;
use super::assignment::Command;
use super::chunk::Chunk;
use super::ingest::{Ingest, SaveError};
use crate::kafka::{CommitError, Committer, FetchLimits, Fetcher, Generation, Unread};
use crate::runtime::Backoff;
use crate::telemetry::health;

/// One fetch. The wait is also how late a release is seen. Many producers send little batches:
/// waiting for some of them makes one transaction of many, at most four a second without a
/// backlog. What comes is a few batches of 5,000 messages.
const FETCH: FetchLimits =
    FetchLimits { max_wait: Duration::from_millis(250), min_bytes: 16 << 10, max_bytes: 1 << 20 };
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
    pub(super) chunk: Chunk,
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
        let mut fetched = loop {
            match self.fetcher.fetch_unread(&wanted, FETCH) {
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
        self.work_off(held, &mut fetched)
    }

    /// Saves and commits what a fetch brought, all partitions together, a batch at a time.
    fn work_off(&mut self, held: &mut Held, fetched: &mut [Unread]) -> Result<(), Interrupted> {
        loop {
            let has_more = self.chunk.fill(fetched, self.batch);
            self.save()?;
            // Past the last record there may be some that carry no message, such as markers; and
            // where the log has become shorter, it goes on before the position.
            let next: BTreeMap<i32, i64> = fetched
                .iter()
                .map(|part| (part.partition(), part.next_offset()))
                .filter(|(partition, next)| held.positions.get(partition) != Some(next))
                .collect();
            if !next.is_empty() {
                self.commit(held, next)?;
            }
            if !has_more {
                return Ok(());
            }
            // A backlog's fetch is many batches; a release is not to wait for them all.
            self.pause(Duration::ZERO)?;
        }
    }

    /// Saves the chunk, however long the database is away.
    fn save(&mut self) -> Result<(), Interrupted> {
        let messages = self.chunk.messages();
        if messages.is_empty() {
            return Ok(());
        }
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            match self.ingest.save(&messages) {
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
