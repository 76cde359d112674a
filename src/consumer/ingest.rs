//! Decodes messages and saves them: the part of the consumer that doesn't know where messages
//! come from. Also used without a broker, straight from the spool.

use std::time::Duration;

use super::console::{self, Onlooker};
use crate::check::Check;
use crate::runtime;
use crate::store::{Rejected, Store, StoreError};
use crate::telemetry::{ByReason, metrics};
use crate::wire;

/// What the reason of a batch that can't be unpacked begins with.
pub(super) const UNREADABLE: &str = "unreadable batch";

/// A line about rejected messages is written this often at most: each has its reason in the table.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Where results go; at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sinks {
    /// The database.
    pub postgres: bool,
    /// Standard output, a message a line.
    pub console: bool,
}

/// One message and where it was.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Partition of the topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// What it says.
    pub payload: &'a [u8],
    /// Why it is known not to be a check, such as a batch that can't be unpacked.
    pub fault: Option<&'a str>,
}

/// Why a batch was not saved.
#[derive(Debug)]
pub enum SaveError {
    /// The database; the batch is to be saved again later.
    Store(StoreError),
    /// Standard output, which is the only sink: nobody would see the rest.
    Console(std::io::Error),
}

impl std::fmt::Display for SaveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => write!(f, "{error}"),
            Self::Console(error) => write!(f, "cannot write to standard output: {error}"),
        }
    }
}

impl std::error::Error for SaveError {}

/// Saves batches of messages.
#[derive(Debug)]
pub struct Ingest {
    sinks: Sinks,
    store: Store,
    topic: String,
    onlooker: Option<Onlooker>,
    /// When rejected messages were last told of, and how many came since.
    told: Option<Duration>,
    untold: usize,
}

impl Ingest {
    /// Saves to `sinks`; `topic` is what rejected messages are filed under.
    #[must_use]
    pub fn new(sinks: Sinks, store: Store, topic: &str) -> Self {
        let topic = topic.to_owned();
        Self { sinks, store, topic, onlooker: None, told: None, untold: 0 }
    }

    /// With somebody to look on at what goes to the database.
    pub(super) fn with_onlooker(self, onlooker: Option<Onlooker>) -> Self {
        Self { onlooker, ..self }
    }

    /// Saves all of `messages` in one transaction: good ones as checks, the others as rejected.
    /// What the table refuses follows in a second one. Saving them again changes nothing.
    ///
    /// # Errors
    /// A [`SaveError`]; nothing may be committed then.
    pub fn save(&mut self, messages: &[Message<'_>]) -> Result<(), SaveError> {
        let mut checks: Vec<Check<'_>> = Vec::with_capacity(messages.len());
        // Where each check came from, for the case that the table refuses it.
        let mut origins: Vec<&Message<'_>> = Vec::with_capacity(messages.len());
        let mut rejects: Vec<(&Message<'_>, &'static str, String)> = Vec::new();
        for message in messages {
            if let Some(fault) = message.fault {
                rejects.push((message, "unreadable", format!("{UNREADABLE}: {fault}")));
                continue;
            }
            match wire::decode(message.payload) {
                Ok(check) => {
                    checks.push(check);
                    origins.push(message);
                }
                Err(error) => rejects.push((message, error.reason(), error.to_string())),
            }
        }
        if self.sinks.postgres {
            let saved = self.store.save_batch(&checks, &self.rejected(&rejects));
            let refused = saved.map_err(SaveError::Store)?.refused;
            let refused: Vec<(&Message<'_>, &'static str, String)> = refused
                .into_iter()
                .filter_map(|(i, reason)| Some((*origins.get(i)?, "refused", reason)))
                .collect();
            if !refused.is_empty() {
                self.store.reject(&self.rejected(&refused)).map_err(SaveError::Store)?;
                rejects.extend(refused);
            }
        }
        log::debug!(messages = messages.len(), rejected = rejects.len(); "batch saved");
        if self.sinks.postgres {
            self.tell(&rejects);
        }
        match &self.onlooker {
            Some(onlooker) => onlooker.show(messages),
            None if self.sinks.console => console::print(messages).map_err(SaveError::Console)?,
            None => {}
        }
        Ok(())
    }

    /// Counts rejected messages, and writes a line now and then.
    fn tell(&mut self, rejects: &[(&Message<'_>, &'static str, String)]) {
        for (_, reason, _) in rejects {
            metrics().rejected.get_or_create(&ByReason { reason }).inc();
        }
        self.untold += rejects.len();
        let Some((last, _, cause)) = rejects.last() else { return };
        let now = runtime::mono();
        if self.told.is_none_or(|told| now.saturating_sub(told) >= TELL_EVERY) {
            log::warn!(messages = self.untold, partition = last.partition, offset = last.offset,
                cause = cause.as_str();
                "messages rejected; 'webmon rejected list' shows them");
            self.told = Some(now);
            self.untold = 0;
        }
    }

    fn rejected<'a>(
        &'a self,
        rejects: &'a [(&Message<'a>, &'static str, String)],
    ) -> Vec<Rejected<'a>> {
        rejects
            .iter()
            .map(|(message, _, cause)| Rejected {
                topic: &self.topic,
                partition: message.partition,
                offset: message.offset,
                reason: cause,
                payload: message.payload,
            })
            .collect()
    }
}
