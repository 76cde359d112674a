//! What can go wrong with a broker, and what each error code means for us.

use std::io::ErrorKind;

use kafka::error::{ConnectionError, Error as ClientError, KafkaCode};
use kafka_protocol::error::ResponseError;

use crate::runtime::CallError;

/// Why Kafka could not do it. One line each; the address is a broker's `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaError {
    /// The settings or the files they name can't work.
    Configuration(String),
    /// No connection, or no answer in time.
    Unreachable {
        /// The broker, or several separated by commas.
        server: String,
        /// What the operating system, TLS or the deadline said.
        cause: String,
    },
    /// The certificate presented by one side was not accepted by the other.
    Certificate {
        /// The broker.
        server: String,
        /// Such as `UnknownIssuer`.
        cause: String,
    },
    /// The broker doesn't accept who we say we are.
    Authentication {
        /// The broker.
        server: String,
        /// What is known about the reason.
        cause: String,
    },
    /// The broker answered with an error code.
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The code of Kafka's protocol.
        code: i16,
    },
    /// An answer that doesn't fit the protocol.
    Protocol {
        /// What was asked for.
        operation: &'static str,
        /// What didn't fit.
        cause: String,
    },
    /// A partition has no leader at the moment.
    NoLeader {
        /// The topic.
        topic: String,
    },
}

impl std::fmt::Display for KafkaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(cause) => write!(f, "{cause}"),
            Self::Unreachable { server, cause } => write!(f, "{server}: {cause}"),
            Self::Certificate { server, cause } => write!(f, "{server}: certificate: {cause}"),
            Self::Authentication { server, cause } => {
                write!(f, "{server}: authentication refused: {cause}")
            }
            Self::Refused { operation, code } => write!(f, "{operation}: {}", code_name(*code)),
            Self::Protocol { operation, cause } => {
                write!(f, "{operation}: unexpected answer: {cause}")
            }
            Self::NoLeader { topic } => write!(f, "{topic}: a partition has no leader"),
        }
    }
}

impl std::error::Error for KafkaError {}

impl KafkaError {
    /// Whether this won't heal by itself: a person has to change something. Even then it's worth
    /// trying again, as that person may change it on the broker's side.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Configuration(_) | Self::Certificate { .. } | Self::Authentication { .. } => true,
            Self::Refused { code, .. } => matches!(verdict(*code), Verdict::Permanent),
            Self::Unreachable { .. } | Self::Protocol { .. } | Self::NoLeader { .. } => false,
        }
    }
}

/// `RebalanceInProgress (27)`.
pub(super) fn code_name(code: i16) -> String {
    match ResponseError::try_from_code(code) {
        None => "no error (0)".to_owned(),
        Some(ResponseError::Unknown(code)) => format!("error code {code}"),
        Some(name) => format!("{name} ({code})"),
    }
}

/// What an error code asks us to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Wait and try again.
    Again,
    /// The leader moved or the topic is new: ask for metadata, then try again.
    Refresh,
    /// The coordinator moved or is loading: find it again.
    FindCoordinator,
    /// The group is rebalancing: finish, commit, join again.
    Rejoin,
    /// Our generation is over: forget uncommitted positions, join again.
    StaleGeneration,
    /// The coordinator has forgotten us: join as somebody new.
    UnknownMember,
    /// A member id was given to us: join again with it.
    MemberIdGiven,
    /// Another process uses our instance id.
    Fenced,
    /// The offset is not in the partition's log.
    OutOfRange,
    /// The broker never takes a record or batch of this size.
    TooLarge,
    /// Needs a person.
    Permanent,
}

/// What the broker's error code asks us to do. A code that Kafka may add later is tried again:
/// retries are slow, capped and logged once, so that is harmless where it can't help.
pub(super) fn verdict(code: i16) -> Verdict {
    use ResponseError as E;
    let Some(error) = ResponseError::try_from_code(code) else { return Verdict::Again };
    match error {
        E::UnknownTopicOrPartition
        | E::LeaderNotAvailable
        | E::NotLeaderOrFollower
        | E::BrokerNotAvailable
        | E::ReplicaNotAvailable
        | E::KafkaStorageError
        | E::ListenerNotFound
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::UnknownTopicId => Verdict::Refresh,
        E::CoordinatorLoadInProgress | E::CoordinatorNotAvailable | E::NotCoordinator => {
            Verdict::FindCoordinator
        }
        E::RebalanceInProgress => Verdict::Rejoin,
        E::IllegalGeneration => Verdict::StaleGeneration,
        E::UnknownMemberId => Verdict::UnknownMember,
        E::MemberIdRequired => Verdict::MemberIdGiven,
        E::FencedInstanceId => Verdict::Fenced,
        E::OffsetOutOfRange => Verdict::OutOfRange,
        E::MessageTooLarge | E::RecordListTooLarge => Verdict::TooLarge,
        E::CorruptMessage
        | E::InvalidTopicException
        | E::InvalidRequiredAcks
        | E::InconsistentGroupProtocol
        | E::InvalidGroupId
        | E::InvalidSessionTimeout
        | E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::TransactionalIdAuthorizationFailed
        | E::InvalidTimestamp
        | E::UnsupportedSaslMechanism
        | E::IllegalSaslState
        | E::UnsupportedVersion
        | E::InvalidPartitions
        | E::InvalidReplicationFactor
        | E::InvalidReplicaAssignment
        | E::InvalidConfig
        | E::InvalidRequest
        | E::UnsupportedForMessageFormat
        | E::PolicyViolation
        | E::SaslAuthenticationFailed
        | E::UnsupportedCompressionType
        | E::GroupMaxSizeReached
        | E::InvalidRecord => Verdict::Permanent,
        _ => Verdict::Again,
    }
}

/// The client library's error in our terms. `operation` is what was asked of `server`.
pub(super) fn from_client(
    server: &str,
    operation: &'static str,
    error: &ClientError,
) -> KafkaError {
    let server = || server.to_owned();
    match error {
        ClientError::BrokerRequestError { source, .. } => from_client(&server(), operation, source),
        ClientError::Connection(ConnectionError::Io(error)) => from_io(&server(), operation, error),
        ClientError::Connection(other) => {
            KafkaError::Unreachable { server: server(), cause: format!("{operation}: {other}") }
        }
        // Answers come back with their codes inside. A code as an error is SASL's, where the
        // library doesn't know the code of a refused password.
        ClientError::Kafka(KafkaCode::UnsupportedSaslMechanism) => KafkaError::Authentication {
            server: server(),
            cause: "the broker doesn't offer this mechanism".to_owned(),
        },
        ClientError::Kafka(KafkaCode::Unknown) => KafkaError::Authentication {
            server: server(),
            cause: "wrong user or password".to_owned(),
        },
        ClientError::Kafka(code) => KafkaError::Refused { operation, code: *code as i16 },
        ClientError::Config(cause) => {
            KafkaError::Authentication { server: server(), cause: cause.clone() }
        }
        ClientError::Protocol(_)
        | ClientError::Consumer(_)
        | ClientError::TopicPartitionError { .. } => {
            KafkaError::Protocol { operation, cause: error.to_string() }
        }
    }
}

/// An I/O error of a connection to `server`, with what it means said in words.
pub(super) fn from_io(server: &str, operation: &'static str, error: &std::io::Error) -> KafkaError {
    let text = error.to_string();
    let unreachable = |cause: String| KafkaError::Unreachable { server: server.to_owned(), cause };
    if let Some(cause) = certificate_cause(&text) {
        return KafkaError::Certificate { server: server.to_owned(), cause };
    }
    match error.kind() {
        // A read or write timeout reads "Resource temporarily unavailable" otherwise.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            unreachable(format!("no answer to {operation} in time"))
        }
        ErrorKind::UnexpectedEof => {
            unreachable(format!("connection closed by the broker during {operation}"))
        }
        _ => unreachable(text),
    }
}

/// What a TLS error says about a certificate, if it is about one.
fn certificate_cause(text: &str) -> Option<String> {
    if let Some((_, cause)) = text.split_once("invalid peer certificate: ") {
        return Some(cause.to_owned());
    }
    // An alert of the other side about ours.
    let (_, alert) = text.split_once("received fatal alert: ")?;
    let is_about_ours = alert.to_ascii_lowercase().contains("certificate") || alert == "UnknownCA";
    is_about_ours.then(|| format!("ours was refused: {alert}"))
}

/// A call that got no answer.
pub(super) fn from_call(server: &str, operation: &'static str, error: CallError) -> KafkaError {
    KafkaError::Unreachable { server: server.to_owned(), cause: format!("{operation}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_one_meaning_each() {
        for (code, expect) in [
            (1, Verdict::OutOfRange),
            (2, Verdict::Permanent),
            (3, Verdict::Refresh),
            (6, Verdict::Refresh),
            (7, Verdict::Again),
            (10, Verdict::TooLarge),
            (14, Verdict::FindCoordinator),
            (15, Verdict::FindCoordinator),
            (16, Verdict::FindCoordinator),
            (19, Verdict::Again),
            (20, Verdict::Again),
            (22, Verdict::StaleGeneration),
            (25, Verdict::UnknownMember),
            (27, Verdict::Rejoin),
            (29, Verdict::Permanent),
            (30, Verdict::Permanent),
            (79, Verdict::MemberIdGiven),
            (82, Verdict::Fenced),
            (-1, Verdict::Again),
            (999, Verdict::Again),
        ] {
            assert_eq!(verdict(code), expect, "{code}");
        }
    }

    #[test]
    fn causes_are_said_in_words() {
        let io = |kind, text: &str| {
            from_io("a:9092", "fetch", &std::io::Error::new(kind, text.to_owned())).to_string()
        };
        assert_eq!(
            io(ErrorKind::WouldBlock, "Resource temporarily unavailable (os error 11)"),
            "a:9092: no answer to fetch in time"
        );
        assert_eq!(
            io(ErrorKind::Other, "TLS handshake failed: invalid peer certificate: UnknownIssuer"),
            "a:9092: certificate: UnknownIssuer"
        );
        assert_eq!(
            io(ErrorKind::InvalidData, "received fatal alert: CertificateRequired"),
            "a:9092: certificate: ours was refused: CertificateRequired"
        );
        let password = ClientError::Kafka(KafkaCode::Unknown).with_broker_context("a:9092", "Raw");
        assert_eq!(
            from_client("a:9092", "fetch", &password).to_string(),
            "a:9092: authentication refused: wrong user or password"
        );
        let code = KafkaError::Refused { operation: "commit", code: 27 };
        assert_eq!(code.to_string(), "commit: RebalanceInProgress (27)");
    }
}
