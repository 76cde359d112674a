//! What was seen: one check's identity, outcome, failure and phases.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::site::Interval;

/// Most kept matches of a pattern in one check.
pub const CAPTURES_MAX: usize = 20;
/// Longest kept match, in bytes; cut at a character boundary.
pub const CAPTURE_MAX: usize = 1024;
/// Longest failure detail, in bytes; cut at a character boundary.
pub const DETAIL_MAX: usize = 500;
/// Longest region, in bytes.
pub const REGION_MAX: usize = 64;

/// Who is checked and from where. With a due time it makes the check's id, and with an interval
/// the site's place on the lattice: all processes derive the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity([u8; 18]);

impl Identity {
    /// The identity of `website_id` as checked from `region`: the first 18 bytes of SHA-256 over
    /// the id (8 bytes, big-endian) and the region's UTF-8. Bytes 0 to 7 place the site on the
    /// lattice, bytes 8 to 17 go into the ids, so that neither says anything about the other.
    #[must_use]
    pub fn new(website_id: i64, region: &str) -> Self {
        let digest =
            Sha256::new().chain_update(website_id.to_be_bytes()).chain_update(region).finalize();
        let mut bytes = [0; 18];
        bytes.copy_from_slice(&digest[..18]);
        Self(bytes)
    }

    /// The id of the check that is due at `scheduled_at`: a UUID in version 7 layout, whose
    /// 48-bit time is `scheduled_at` in ms. Same due time, same id.
    #[must_use]
    pub fn check_entry_id(&self, scheduled_at: Timestamp) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&scheduled_at.as_millisecond().to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&self.0[8..]);
        bytes[6] = bytes[6] & 0x0f | 0x70;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid::from_bytes(bytes)
    }

    /// The site's offset on the lattice, 0 up to the interval, in ms.
    #[must_use]
    pub fn offset_ms(&self, interval: Interval) -> i64 {
        let mut high = [0; 8];
        high.copy_from_slice(&self.0[..8]);
        let hash = u64::from_be_bytes(high);
        // The remainder is below the interval's milliseconds: at most 86,400,000.
        (hash % interval.millis().unsigned_abs()) as i64
    }
}

/// How a due time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Everything that is expected of the site was seen.
    Up,
    /// Something expected was not seen; the failure says what.
    Down,
    /// The check was not started before its next due time, or there was no room for it.
    Missed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Missed];

    /// Its name in messages, tables and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Missed => "missed",
        }
    }

    /// The outcome of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }
}

/// What went wrong, by the step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The host has no address, or the look-up failed.
    Dns,
    /// The address may not be checked.
    Blocked,
    /// No TCP connection.
    Connect,
    /// The TLS handshake failed, or the certificate is not good, or not for long enough.
    Tls,
    /// The time of a try ran out, and the detail names the phase; or a whole answer came later than
    /// the site is allowed.
    Timeout,
    /// A redirect that can't or may not be followed.
    Redirect,
    /// The answer breaks HTTP, or ended early.
    Http,
    /// The status is not an expected one.
    Status,
    /// What was to be found was not, or what must not be there was: in the body, or in a header.
    Regex,
    /// webmon's own trouble, such as no file descriptors: says nothing about the site.
    Internal,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::Blocked,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Redirect,
        Self::Http,
        Self::Status,
        Self::Regex,
        Self::Internal,
    ];

    /// Its name in messages, tables and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Blocked => "blocked",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Redirect => "redirect",
            Self::Http => "http",
            Self::Status => "status",
            Self::Regex => "regex",
            Self::Internal => "internal",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Why a check is not up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// The step that failed.
    pub kind: FailureKind,
    /// What happened there, on one line of at most [`DETAIL_MAX`] bytes.
    pub detail: Cow<'a, str>,
}

impl Failure<'static> {
    /// A failure whose detail is cut to [`DETAIL_MAX`] and freed of control characters.
    #[must_use]
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        truncate(&mut detail, DETAIL_MAX);
        if detail.contains(char::is_control) {
            detail = detail.replace(char::is_control, " ");
        }
        Self { kind, detail: Cow::Owned(detail) }
    }
}

/// Cuts `text` to at most `max` bytes, at a character boundary.
pub fn truncate(text: &mut String, max: usize) {
    text.truncate(text.floor_char_boundary(max));
}

/// Where a check's time went, in seconds; absent where the phase was not reached. Redirects are
/// summed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Phases {
    /// From name to addresses.
    pub resolve: Option<f64>,
    /// TCP connect.
    pub connect: Option<f64>,
    /// TLS handshake.
    pub tls: Option<f64>,
    /// From the request sent to the first byte of the answer.
    pub processing: Option<f64>,
    /// From the first to the last byte read.
    pub transfer: Option<f64>,
}

/// One check as it travels from the worker to the table. Text is borrowed where it was decoded
/// from a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Check<'a> {
    /// From [`Identity::check_entry_id`].
    pub check_entry_id: Uuid,
    /// The site.
    pub website_id: i64,
    /// What was requested, without credentials.
    pub url: Cow<'a, str>,
    /// Where it was checked from.
    pub region: Cow<'a, str>,
    /// The due time, whole milliseconds.
    pub scheduled_at: Timestamp,
    /// When a worker began; absent for a missed one.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it is not up.
    pub failure: Option<Failure<'a>>,
    /// Seconds from the start of the last try to its end, redirects and body included.
    pub response_time: Option<f64>,
    /// Where the time went.
    pub phases: Phases,
    /// Status of the last answer.
    pub http_status: Option<u16>,
    /// `1.0` or `1.1`.
    pub http_version: Option<Cow<'a, str>>,
    /// Redirects followed.
    pub redirects: Option<u16>,
    /// Bytes of the body that were read, after decoding.
    pub body_bytes: Option<u32>,
    /// Whether the body was longer than what is read of it.
    pub body_truncated: Option<bool>,
    /// The pattern that was looked for.
    pub regex: Option<Cow<'a, str>>,
    /// Whether it was found; absent when there was no body to look in.
    pub regex_match: Option<bool>,
    /// All matches (the first group, if the pattern has one), at most [`CAPTURES_MAX`] of at most
    /// [`CAPTURE_MAX`] bytes.
    pub regex_captures: Option<Vec<Cow<'a, str>>>,
    /// Earliest end of the certificates the site showed.
    pub certificate_expires_at: Option<Timestamp>,
    /// The address that answered, with port.
    pub remote_address: Option<Cow<'a, str>>,
    /// The phases of the last request alone, where redirects were followed.
    pub last_hop: Option<Phases>,
    /// Tries it took, the first included; absent for a missed one.
    pub tries: Option<u8>,
    /// The failure came while webmon itself had no network: it says nothing about the site.
    pub unreachable_self: bool,
}

impl Check<'static> {
    /// The check of a due time at which nothing could be done; `reason` on one line.
    #[must_use]
    pub fn missed(
        identity: &Identity,
        website_id: i64,
        url: String,
        region: String,
        scheduled_at: Timestamp,
        reason: &str,
    ) -> Self {
        Self {
            outcome: Outcome::Missed,
            failure: Some(Failure::new(FailureKind::Internal, reason)),
            ..Self::empty(identity, website_id, url, region, scheduled_at)
        }
    }

    /// A check of which only the identity is known yet; `down` until something else is said.
    #[must_use]
    pub fn empty(
        identity: &Identity,
        website_id: i64,
        url: String,
        region: String,
        scheduled_at: Timestamp,
    ) -> Self {
        Self {
            check_entry_id: identity.check_entry_id(scheduled_at),
            website_id,
            url: Cow::Owned(url),
            region: Cow::Owned(region),
            scheduled_at,
            started_at: None,
            outcome: Outcome::Down,
            failure: None,
            response_time: None,
            phases: Phases::default(),
            http_status: None,
            http_version: None,
            redirects: None,
            body_bytes: None,
            body_truncated: None,
            regex: None,
            regex_match: None,
            regex_captures: None,
            certificate_expires_at: None,
            remote_address: None,
            last_hop: None,
            tries: None,
            unreachable_self: false,
        }
    }
}

/// `time` as seconds, as messages and tables hold it.
#[must_use]
pub fn seconds(time: Duration) -> f64 {
    // Whole microseconds: more digits are noise, and cost bytes in every message.
    time.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn ids_are_derived_and_sort_by_time() {
        let identity = Identity::new(42, "default");
        let (early, late) = (at(1_767_225_600_000), at(1_767_225_600_001));
        let id = identity.check_entry_id(early);
        assert_eq!(id, Identity::new(42, "default").check_entry_id(early));
        assert!(id < identity.check_entry_id(late));
        assert_ne!(id, Identity::new(43, "default").check_entry_id(early));
        assert_ne!(id, Identity::new(42, "other").check_entry_id(early));
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.as_u128() >> 80, 1_767_225_600_000);
        // Other programs and earlier rows depend on these very bytes.
        assert_eq!(id.to_string(), "019b76da-a800-7f5b-85e7-5e67b4989bfb");
    }

    #[test]
    fn offsets_spread_over_the_interval() {
        let interval = Interval::from_secs(60).unwrap();
        let mut quarters = [0; 4];
        for id in 0..4000 {
            let offset = Identity::new(id, "default").offset_ms(interval);
            assert!((0..60_000).contains(&offset));
            quarters[offset as usize / 15_000] += 1;
        }
        assert!(quarters.iter().all(|n| (900..1100).contains(n)), "{quarters:?}");
    }

    #[test]
    fn names_round_trip() {
        assert!(Outcome::ALL.into_iter().all(|o| Outcome::parse(o.as_str()) == Some(o)));
        assert!(FailureKind::ALL.into_iter().all(|k| FailureKind::parse(k.as_str()) == Some(k)));
        assert_eq!(Outcome::parse("UP"), None);
    }

    #[test]
    fn details_are_one_short_line() {
        let failure = Failure::new(FailureKind::Http, format!("a\n{}", "ä".repeat(400)));
        assert!(failure.detail.len() <= DETAIL_MAX && failure.detail.starts_with("a ä"));
    }
}
