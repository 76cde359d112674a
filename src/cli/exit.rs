//! How a command ends.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use super::cures::PASSWORD;
use crate::consumer::ConsumerError;
use crate::kafka::KafkaError;
use crate::probe::ProbeError;
use crate::producer::ProducerError;
use crate::spool::SpoolError;
use crate::store::{self, StoreError};

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
        let cure = if error.wants_password() { format!(": {PASSWORD}") } else { String::new() };
        let message = format!("webmon: {error}{cure}");
        match error.kind() {
            store::ErrorKind::Outage | store::ErrorKind::Again => Self::Away(message),
            store::ErrorKind::Configuration | store::ErrorKind::Migration => Self::Usage(message),
            store::ErrorKind::Data => Self::Failed(message),
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
            ProducerError::Spool(error) => Self::of_spool(what, error),
            ProducerError::Probe(error) => Self::of_probe(what, error),
            ProducerError::Thread(_) => Self::Failed(format!("{what}: {error}")),
        }
    }

    /// The end for a spool that can't be opened: its directory is the configuration's.
    pub(super) fn of_spool(what: &str, error: &SpoolError) -> Self {
        let message = format!("{what}: {error}");
        match error {
            SpoolError::Directory { .. } | SpoolError::InUse { .. } | SpoolError::Format { .. } => {
                Self::Usage(message)
            }
            SpoolError::Thread { .. }
            | SpoolError::Unavailable { .. }
            | SpoolError::StateTooLarge { .. }
            | SpoolError::Closed => Self::Failed(message),
        }
    }

    /// The end for a probe that can't be set up.
    pub(super) fn of_probe(what: &str, error: &ProbeError) -> Self {
        let message = format!("{what}: {error}");
        match error {
            ProbeError::UserAgent => Self::Usage(message),
            ProbeError::Tls(_) | ProbeError::Resolver(_) => Self::Failed(message),
        }
    }

    /// The end for an address that can't be listened on: taken, not this machine's, not allowed.
    pub(super) fn of_listener(what: &str, error: &std::io::Error) -> Self {
        let message = format!("{what}: {error}");
        match error.kind() {
            ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied => {
                Self::Usage(message)
            }
            _ => Self::Failed(message),
        }
    }

    /// The exit code.
    fn code(&self) -> u8 {
        match self {
            Self::Bad | Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Away(_) => 4,
        }
    }

    /// What is still to be said.
    fn message(&self) -> Option<&str> {
        match self {
            Self::Bad => None,
            Self::Failed(m) | Self::Usage(m) | Self::NotFound(m) | Self::Away(m) => Some(m),
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
    let Err(exit) = result else { return ExitCode::SUCCESS };
    if let Some(message) = exit.message() {
        // With standard error closed there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "{}", message.trim_end());
    }
    ExitCode::from(exit.code())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn code(exit: &Exit) -> u8 {
        assert_eq!(exit.message().is_none(), matches!(exit, Exit::Bad), "{exit:?}");
        exit.code()
    }

    #[test]
    fn what_a_person_has_to_configure_is_2() {
        let dir = || "/spool".into();
        let cause = || "why".to_owned();
        let spool = |error: SpoolError| code(&Exit::of_producer("x", &ProducerError::Spool(error)));
        assert_eq!(spool(SpoolError::Directory { dir: dir(), cause: cause() }), 2);
        assert_eq!(spool(SpoolError::InUse { dir: dir() }), 2);
        assert_eq!(spool(SpoolError::Format { dir: dir(), found: cause() }), 2);
        assert_eq!(spool(SpoolError::Thread { cause: cause() }), 1);
        assert_eq!(spool(SpoolError::Unavailable { cause: cause() }), 1);
        assert_eq!(spool(SpoolError::StateTooLarge { name: cause(), bytes: 1 }), 1);
        assert_eq!(spool(SpoolError::Closed), 1);

        let probe = |error: ProbeError| code(&Exit::of_producer("x", &ProducerError::Probe(error)));
        assert_eq!(probe(ProbeError::UserAgent), 2);
        assert_eq!(probe(ProbeError::Tls(cause())), 1);
        assert_eq!(probe(ProbeError::Resolver(io::Error::other("why"))), 1);

        let listener = |kind: ErrorKind| code(&Exit::of_listener("x", &io::Error::from(kind)));
        assert_eq!(listener(ErrorKind::AddrInUse), 2);
        assert_eq!(listener(ErrorKind::AddrNotAvailable), 2);
        assert_eq!(listener(ErrorKind::PermissionDenied), 2);
        assert_eq!(listener(ErrorKind::OutOfMemory), 1);
    }

    #[test]
    fn what_is_away_is_4_and_what_cannot_work_is_2() {
        let kafka = |error: KafkaError| {
            let producer = code(&Exit::of_producer("x", &ProducerError::Group(error.clone())));
            let consumer = code(&Exit::of_consumer("x", &ConsumerError::Group(error.clone())));
            let alone = code(&Exit::of_kafka("x", &error));
            assert_eq!((producer, consumer), (alone, alone));
            alone
        };
        let (server, cause) = (|| "a:9092".to_owned(), || "why".to_owned());
        assert_eq!(kafka(KafkaError::Configuration(cause())), 2);
        assert_eq!(kafka(KafkaError::Certificate { server: server(), cause: cause() }), 2);
        assert_eq!(kafka(KafkaError::Authentication { server: server(), cause: cause() }), 2);
        assert_eq!(kafka(KafkaError::Unreachable { server: server(), cause: cause() }), 4);
        assert_eq!(kafka(KafkaError::NoLeader { topic: cause() }), 4);
        let thread = || io::Error::other("why");
        assert_eq!(code(&Exit::of_producer("x", &ProducerError::Thread(thread()))), 1);
        assert_eq!(code(&Exit::of_consumer("x", &ConsumerError::Thread(thread()))), 1);
        assert_eq!(code(&Exit::of_consumer("x", &ConsumerError::Console(cause()))), 1);
    }

    #[test]
    fn more_to_say_changes_no_code() {
        for (exit, expected) in [
            (Exit::Bad, 1),
            (Exit::Failed("a".to_owned()), 1),
            (Exit::Usage("a".to_owned()), 2),
            (Exit::NotFound("a".to_owned()), 3),
            (Exit::Away("a".to_owned()), 4),
        ] {
            let exit = exit.with("b");
            assert_eq!(code(&exit), expected);
            assert!(exit.message().is_none_or(|message| message == "a; b"));
        }
    }
}
