//! Checks to write and read: a full one, a minimal one and arbitrary ones.

use std::borrow::Cow;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use webmon::check::{
    CAPTURE_MAX, CAPTURES_MAX, Check, DETAIL_MAX, Failure, FailureKind, Identity, Outcome, Phases,
    REGION_MAX, truncate,
};
use webmon::wire::{ADDRESS_MAX, BODY_BYTES_MAX, HTTP_VERSION_MAX, REDIRECTS_MAX, encode};

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

/// A check with every field; down, so that it may have a failure.
pub(crate) fn full() -> Check<'static> {
    Check {
        started_at: Some(at(1_767_225_600_004)),
        outcome: Outcome::Down,
        failure: Some(Failure::new(FailureKind::Regex, "pattern \"Example (\\w+)\" not found")),
        response_time: Some(0.123),
        phases: Phases {
            resolve: Some(0.01),
            connect: Some(0.02),
            tls: Some(0.03),
            processing: Some(0.050_001),
            transfer: Some(0.0),
        },
        http_status: Some(200),
        http_version: Some("1.1".into()),
        redirects: Some(0),
        body_bytes: Some(1234),
        body_truncated: Some(false),
        regex: Some("Example (\\w+)".into()),
        regex_match: Some(false),
        regex_captures: Some(vec!["Domäne\n".into(), "".into()]),
        certificate_expires_at: Some(at(1_790_000_000_000)),
        remote_address: Some("93.184.216.34:443".into()),
        last_hop: Some(Phases {
            resolve: Some(0.001),
            connect: Some(0.002),
            tls: Some(0.003),
            processing: Some(0.004),
            transfer: Some(0.000_001),
        }),
        tries: Some(2),
        unreachable_self: true,
        ..minimal()
    }
}

/// A check with the required fields only.
pub(crate) fn minimal() -> Check<'static> {
    Check {
        outcome: Outcome::Missed,
        ..Check::empty(
            &Identity::new(42, "default"),
            42,
            "https://example.org/".to_owned(),
            "default".to_owned(),
            at(1_767_225_600_000),
        )
    }
}

pub(crate) fn encoded(check: &Check<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    encode(check, &mut message);
    message
}

/// Text of `least` to `most` bytes without NUL, with all that JSON has to escape.
fn text(least: usize, most: usize) -> impl Strategy<Value = Cow<'static, str>> {
    let character = prop_oneof![
        8 => any::<char>(),
        4 => proptest::char::range(' ', '~'),
        1 => Just('"'),
        1 => Just('\\'),
        1 => Just('\n'),
    ];
    vec(character.prop_filter("no NUL", |c| *c != '\0'), least..=most.min(100)).prop_map(
        move |chars| {
            let mut text: String = chars.into_iter().collect();
            truncate(&mut text, most);
            Cow::Owned(text)
        },
    )
}

fn seconds() -> impl Strategy<Value = Option<f64>> {
    // As `check::seconds` makes them: whole microseconds.
    option::of((0..=1_000_000_000_000_u64).prop_map(|us| us as f64 / 1e6))
}

fn phases() -> impl Strategy<Value = Phases> {
    (seconds(), seconds(), seconds(), seconds(), seconds()).prop_map(
        |(resolve, connect, tls, processing, transfer)| Phases {
            resolve,
            connect,
            tls,
            processing,
            transfer,
        },
    )
}

fn verdict() -> impl Strategy<Value = (Outcome, Option<Failure<'static>>)> {
    let kind = proptest::sample::select(&FailureKind::ALL[..]);
    let failure =
        (kind, text(0, DETAIL_MAX)).prop_map(|(kind, detail)| Failure { kind, detail }).boxed();
    prop_oneof![
        Just((Outcome::Up, None)),
        failure.clone().prop_map(|failure| (Outcome::Down, Some(failure))),
        option::of(failure).prop_map(|failure| (Outcome::Missed, failure)),
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (946_684_800_000..4_102_444_800_000_i64).prop_map(at)
}

/// Any check that is within the limits.
pub(crate) fn arbitrary() -> impl Strategy<Value = Check<'static>> {
    let who = (1..=i64::MAX, text(1, 8192), text(1, REGION_MAX), time())
        .prop_filter("a cut at a character boundary may leave nothing", |(_, url, region, _)| {
            !url.is_empty() && !region.is_empty()
        });
    let answer = (
        option::of(100_u16..=999),
        option::of(text(1, HTTP_VERSION_MAX)),
        option::of(0..=REDIRECTS_MAX),
        option::of(0..=BODY_BYTES_MAX),
        any::<Option<bool>>(),
        option::of(text(1, ADDRESS_MAX)),
    );
    let found = (
        option::of(text(0, 1024)),
        any::<Option<bool>>(),
        option::of(vec(text(0, CAPTURE_MAX), 0..=CAPTURES_MAX)),
    );
    let of_tries = (option::of(phases()), option::of(1_u8..=u8::MAX), any::<bool>());
    let times =
        (option::of(time()), option::of((-631_152_000_000..=253_402_207_200_000_i64).prop_map(at)));
    (who, verdict(), times, seconds(), phases(), answer, found, of_tries).prop_map(
        |(who, verdict, times, response_time, phases, answer, found, of_tries)| {
            let (website_id, url, region, scheduled_at) = who;
            let some = |text: Option<Cow<'static, str>>| text.filter(|text| !text.is_empty());
            Check {
                check_entry_id: Identity::new(website_id, &region).check_entry_id(scheduled_at),
                website_id,
                url,
                region,
                scheduled_at,
                started_at: times.0,
                outcome: verdict.0,
                failure: verdict.1,
                response_time,
                phases,
                http_status: answer.0,
                http_version: some(answer.1),
                redirects: answer.2,
                body_bytes: answer.3,
                body_truncated: answer.4,
                regex: found.0,
                regex_match: found.1,
                regex_captures: found.2,
                certificate_expires_at: times.1,
                remote_address: some(answer.5),
                last_hop: of_tries.0,
                tries: of_tries.1,
                unreachable_self: of_tries.2,
            }
        },
    )
}
