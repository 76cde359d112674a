//! From a check to the message.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::VERSION;
use super::time::Time;
use crate::check::{Check, Failure, Phases};

/// Appends the message of `check` to `out`: one JSON object without a line break.
///
/// Times are cut to milliseconds. A NUL in a text becomes U+FFFD, since PostgreSQL has no place
/// for it; a number of seconds that is not finite counts as absent. Other limits are the writer's
/// to keep.
pub fn encode(check: &Check<'_>, out: &mut Vec<u8>) {
    // Writing to a Vec can't fail, and no map here has keys other than strings.
    let _ = serde_json::to_writer(out, &Message::from(check));
}

/// The message: the order of the fields here is the order on the wire.
#[derive(Serialize)]
struct Message<'a> {
    v: u32,
    check_entry_id: Id,
    website_id: i64,
    url: Text<'a>,
    region: Text<'a>,
    scheduled_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Time>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<FailureMessage<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_time: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<PhasesMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_version: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirects: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_truncated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex_match: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regex_captures: Option<Captures<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_expires_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_address: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hop: Option<PhasesMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreachable_self: bool,
}

#[derive(Serialize)]
struct FailureMessage<'a> {
    kind: &'static str,
    detail: Text<'a>,
}

#[derive(Serialize)]
struct PhasesMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    resolve: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processing: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<f64>,
}

impl<'a> From<&'a Check<'_>> for Message<'a> {
    fn from(check: &'a Check<'_>) -> Self {
        Self {
            v: VERSION,
            check_entry_id: Id(check.check_entry_id),
            website_id: check.website_id,
            url: Text(&check.url),
            region: Text(&check.region),
            scheduled_at: Time(check.scheduled_at),
            started_at: check.started_at.map(Time),
            outcome: check.outcome.as_str(),
            failure: check.failure.as_ref().map(FailureMessage::from),
            response_time: finite(check.response_time),
            phases: (check.phases != Phases::default()).then(|| PhasesMessage::from(check.phases)),
            http_status: check.http_status,
            http_version: check.http_version.as_deref().map(Text),
            redirects: check.redirects,
            body_bytes: check.body_bytes,
            body_truncated: check.body_truncated,
            regex: check.regex.as_deref().map(Text),
            regex_match: check.regex_match,
            regex_captures: check.regex_captures.as_deref().map(Captures),
            certificate_expires_at: check.certificate_expires_at.map(Time),
            remote_address: check.remote_address.as_deref().map(Text),
            last_hop: check.last_hop.map(PhasesMessage::from),
            tries: check.tries,
            unreachable_self: check.unreachable_self,
        }
    }
}

impl<'a> From<&'a Failure<'_>> for FailureMessage<'a> {
    fn from(failure: &'a Failure<'_>) -> Self {
        Self { kind: failure.kind.as_str(), detail: Text(&failure.detail) }
    }
}

impl From<Phases> for PhasesMessage {
    fn from(phases: Phases) -> Self {
        Self {
            resolve: finite(phases.resolve),
            connect: finite(phases.connect),
            tls: finite(phases.tls),
            processing: finite(phases.processing),
            transfer: finite(phases.transfer),
        }
    }
}

fn finite(seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|seconds| seconds.is_finite())
}

/// The hyphenated form, without a detour over a `String`.
struct Id(Uuid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

struct Text<'a>(&'a str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.contains('\0') {
            return serializer.serialize_str(&self.0.replace('\0', "\u{fffd}"));
        }
        serializer.serialize_str(self.0)
    }
}

struct Captures<'a>(&'a [Cow<'a, str>]);

impl Serialize for Captures<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|capture| Text(capture)))
    }
}
