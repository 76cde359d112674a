//! How a command ends.

use std::io::Write;
use std::process::ExitCode;

use crate::consumer::ConsumerError;
use crate::kafka::KafkaError;
use crate::producer::ProducerError;
use crate::store::{ErrorKind, StoreError};

/// Every end but the good one, whose exit code is 0.
#[derive(Debug)]
pub(super) enum Exit {
    /// The thing asked about is bad, and the output has said so: 1.
    Bad,
    /// The command failed: 1.
    Failed(String),
    /// Wrong use or configuration: 2.
    Usage(String),
    /// What was asked for isn't there: 3.
    NotFound(String),
    /// A service is away: 4.
    Away(String),
}

impl Exit {
    /// The end for what the database said.
    pub(super) fn of_store(error: &StoreError) -> Self {
        let message = format!("webmon: {error}");
        match error.kind() {
            ErrorKind::Outage | ErrorKind::Again => Self::Away(message),
            ErrorKind::Configuration | ErrorKind::Migration => Self::Usage(message),
            ErrorKind::Data => Self::Failed(message),
        }
    }

    /// The end for what Kafka said; `what` stands before it.
    pub(super) fn of_kafka(what: &str, error: &KafkaError) -> Self {
        let message = format!("{what}: {error}");
        if error.is_permanent() { Self::Usage(message) } else { Self::Away(message) }
    }

    /// The end of a consumer that could not start, or ended by itself.
    pub(super) fn of_consumer(what: &str, error: &ConsumerError) -> Self {
        match error {
            ConsumerError::Group(error) => Self::of_kafka(what, error),
            other => Self::Failed(format!("{what}: {other}")),
        }
    }

    /// The end of a producer that could not start.
    pub(super) fn of_producer(what: &str, error: &ProducerError) -> Self {
        match error {
            ProducerError::Group(error) => Self::of_kafka(what, error),
            other => Self::Failed(format!("{what}: {other}")),
        }
    }

    /// The same end, with more to say.
    pub(super) fn with(self, more: &str) -> Self {
        let add = |message: String| format!("{message}; {more}");
        match self {
            Self::Bad => Self::Bad,
            Self::Failed(message) => Self::Failed(add(message)),
            Self::Usage(message) => Self::Usage(add(message)),
            Self::NotFound(message) => Self::NotFound(add(message)),
            Self::Away(message) => Self::Away(add(message)),
        }
    }
}

/// The exit code, after the message is on standard error.
pub(super) fn finish(result: Result<(), Exit>) -> ExitCode {
    let (code, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Exit::Bad) => return ExitCode::from(1),
        Err(Exit::Failed(message)) => (1, message),
        Err(Exit::Usage(message)) => (2, message),
        Err(Exit::NotFound(message)) => (3, message),
        Err(Exit::Away(message)) => (4, message),
    };
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}
