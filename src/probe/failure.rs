//! What went wrong, in the words of a check: one kind and one line.

use std::io;

use jiff::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use crate::check::{Failure, FailureKind};

use super::socket::is_own_trouble;
use super::timings::{self, Phase};
use super::tls::TlsError;
use super::transport::HEAD_MAX;

/// Most names of a certificate that a detail lists.
const NAMES_SHOWN: usize = 5;

/// A failure on its way through ureq, which carries it as somebody else's error and hands it back
/// unchanged. No error of ureq's own would do: it takes a reset for the end of a body, for
/// example.
#[derive(Debug)]
pub(super) struct Fault(Failure<'static>);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl std::error::Error for Fault {}

/// `failure`, for ureq.
pub(super) fn fault(failure: Failure<'static>) -> ureq::Error {
    ureq::Error::Other(Box::new(Fault(failure)))
}

/// The failure behind an error of ureq.
pub(super) fn from_ureq(error: ureq::Error) -> Failure<'static> {
    match error {
        ureq::Error::Other(other) => match other.downcast::<Fault>() {
            Ok(fault) => fault.0,
            Err(other) => Failure::new(FailureKind::Internal, other.to_string()),
        },
        ureq::Error::Protocol(error) => protocol(&error.to_string()),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            connection_lost(None)
        }
        ureq::Error::BodyStalled if timings::with(|context| context.ended) => connection_lost(None),
        ureq::Error::BodyStalled => {
            Failure::new(FailureKind::Http, "bad chunk: its first line is too long")
        }
        ureq::Error::LargeResponseHeader(..) => Failure::new(
            FailureKind::Http,
            format!("the head is larger than {} KiB", HEAD_MAX >> 10),
        ),
        ureq::Error::Timeout(_) => timings::timed_out(),
        other => Failure::new(FailureKind::Internal, other.to_string()),
    }
}

/// What ureq's parser says: about the request before it is sent, about the answer afterwards.
fn protocol(error: &str) -> Failure<'static> {
    let (phase, in_body, beginning) = timings::with(|context| {
        let beginning = String::from_utf8_lossy(context.beginning()).into_owned();
        (context.phase(), context.in_body, beginning)
    });
    if !matches!(phase, Phase::Processing | Phase::Transfer) {
        return Failure::new(FailureKind::Internal, format!("the request can't be sent: {error}"));
    }
    let detail = if in_body {
        format!("bad chunk: {error}")
    } else if !beginning.starts_with("HTTP/1.") {
        format!("not HTTP/1.1: begins with '{}'", beginning.escape_debug())
    } else {
        let plain = ["http parse fail: ", "http parse resulted in "]
            .iter()
            .find_map(|prefix| error.strip_prefix(prefix));
        format!("bad head: {}", plain.unwrap_or(error))
    };
    Failure::new(FailureKind::Http, detail)
}

/// The connection ended too early, with an error or without one.
fn connection_lost(error: Option<&io::Error>) -> Failure<'static> {
    let why = error.map_or_else(|| "connection closed".to_owned(), words);
    let (phase, in_body) = timings::with(|context| (context.phase(), context.in_body));
    Failure::new(
        FailureKind::Http,
        match phase {
            Phase::Transfer if in_body => format!("cut off in the body: {why}"),
            Phase::Transfer => format!("cut off in the head: {why}"),
            _ => format!("no response: {why}"),
        },
    )
}

/// The failure behind an error of the socket, by the phase it happened in.
pub(super) fn from_socket(error: &io::Error) -> Failure<'static> {
    if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
        return timings::timed_out();
    }
    if is_own_trouble(error) {
        return Failure::new(FailureKind::Internal, words(error));
    }
    match timings::with(|context| context.phase()) {
        Phase::Resolve => Failure::new(FailureKind::Dns, words(error)),
        Phase::Connect => Failure::new(FailureKind::Connect, words(error)),
        Phase::Tls if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::new(FailureKind::Tls, "handshake cut off: connection closed")
        }
        Phase::Tls => {
            Failure::new(FailureKind::Tls, format!("handshake cut off: {}", words(error)))
        }
        Phase::Send | Phase::Processing | Phase::Transfer => connection_lost(Some(error)),
    }
}

/// The failure behind an error of a TLS connection.
pub(super) fn from_tls(error: &TlsError) -> Failure<'static> {
    match error {
        TlsError::Socket(error) => from_socket(error),
        TlsError::Tls(error) => Failure::new(FailureKind::Tls, tls_detail(error)),
    }
}

/// The operating system's words, without its number.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn tls_detail(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

    match error {
        Error::InvalidCertificate(error) => certificate_detail(error),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "not TLS: plain text on this port?".to_owned()
        }
        Error::InvalidMessage(what) => format!("broken TLS: {what:?}"),
        Error::PeerMisbehaved(what) => format!("broken TLS: {what:?}"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a client certificate".to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "no common TLS version: the server refuses 1.2 and 1.3".to_owned(),
        Error::AlertReceived(alert) => format!("the server refuses: alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("no common ground: {why:?}"),
        other => other.to_string(),
    }
}

fn certificate_detail(error: &CertificateError) -> String {
    let at = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    };
    let (self_signed, chain_is_good) =
        timings::with(|context| (context.self_signed, context.chain_is_good));
    match error {
        CertificateError::Expired => "certificate expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("certificate expired at {}", at(not_after))
        }
        CertificateError::NotValidYet => "certificate not yet valid".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("certificate not yet valid, only from {}", at(not_before))
        }
        CertificateError::NotValidForName => "certificate for another host".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "certificate without a host name".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let shown: Vec<String> =
                presented.iter().take(NAMES_SHOWN).map(|name| plain_name(name)).collect();
            let more = if presented.len() > NAMES_SHOWN { ", …" } else { "" };
            format!("certificate for another host: {}{more}", shown.join(", "))
        }
        _ if self_signed => "self-signed certificate".to_owned(),
        CertificateError::BadSignature if chain_is_good => {
            "bad certificate: the server doesn't have its key".to_owned()
        }
        // Signed in the name of an authority we know, with a key that is not that one's.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate from an unknown issuer".to_owned()
        }
        CertificateError::Revoked => "certificate revoked".to_owned(),
        CertificateError::BadEncoding => "bad certificate: not readable".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "bad certificate: not for servers".to_owned()
        }
        CertificateError::Other(why) => {
            format!("bad certificate: {}", in_words(&why.0.to_string()))
        }
        other => format!("bad certificate: {other}"),
    }
}

/// What webpki has only a name for.
fn in_words(name: &str) -> &str {
    match name {
        "CaUsedAsEndEntity" => "an authority's, not a server's",
        "EndEntityUsedAsCa" => "its issuer is no authority",
        "NameConstraintViolation" => "its authority may not vouch for this name",
        "PathLenConstraintViolated" => "its authority may not make others",
        other => other,
    }
}

/// A name as webpki lists it, `DnsName("example.org")`, without the wrapping.
fn plain_name(presented: &str) -> String {
    let inner = presented.split_once('(').map_or(presented, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn kind(error: impl Into<io::Error>) -> FailureKind {
        from_socket(&error.into()).kind
    }

    #[test]
    fn own_trouble_is_never_the_sites() {
        timings::begin(std::time::Duration::ZERO, std::time::Duration::ZERO);
        timings::with(|context| {
            context.open_hop();
            context.resolved();
            context.connecting();
        });
        for errno in [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        {
            assert_eq!(kind(errno), FailureKind::Internal, "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH] {
            assert_eq!(kind(errno), FailureKind::Connect, "{errno}");
        }
        // The kernel's own connect time-out is no end of the check's time.
        assert_eq!(kind(Errno::TIMEDOUT), FailureKind::Connect);
        assert_eq!(kind(io::ErrorKind::TimedOut), FailureKind::Timeout);
    }

    #[test]
    fn words_have_no_numbers() {
        assert_eq!(words(&Errno::CONNREFUSED.into()), "Connection refused");
        assert_eq!(words(&io::Error::other("x")), "x");
    }

    #[test]
    fn names_are_shown_plain() {
        assert_eq!(plain_name("DnsName(\"a.org\")"), "a.org");
        assert_eq!(plain_name("a.org"), "a.org");
    }
}
