//! A site's past, counted.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Response;
use super::json::uptime_window;
use super::monitoring::end;
use super::refusal::{Answer, Refusal};
use super::service::Call;
use super::websites::row_or_deleted;
use crate::runtime::wall;
use crate::store::{Bucket, Period, Uptime};
use crate::wire::time_text;

pub(super) const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What is counted where no bounds are given.
const WINDOWS: [(&str, SignedDuration); 3] = [
    ("24h", DAY),
    ("7d", SignedDuration::from_hours(7 * 24)),
    ("30d", SignedDuration::from_hours(30 * 24)),
];

/// Longest time that is answered by hour: two months, 1488 items.
const BY_HOUR_MAX: SignedDuration = SignedDuration::from_hours(62 * 24);
/// Longest time that is answered by day: ten years.
const BY_DAY_MAX: SignedDuration = SignedDuration::from_hours(3660 * 24);

/// `GET /websites/{website_id}/uptime`.
pub(super) fn uptime(call: &Call<'_>) -> Answer {
    let id = row_or_deleted(call)?.website_id;
    let asked = (call.query.time("from"), call.query.time("to"));
    let windows = match asked {
        (None, None) => {
            let now = wall();
            WINDOWS.into_iter().map(|(name, length)| (Some(name), now - length, now)).collect()
        }
        (from, _) => {
            let to = end(call);
            let (_, longest) = WINDOWS[2];
            let from = from.unwrap_or_else(|| before(to, longest));
            in_order(call, from, to)?;
            vec![(None, from, to)]
        }
    };
    let mut counted: Vec<Value> = Vec::new();
    for (name, from, to) in windows {
        let regions = call.store().uptime(&[id], from, to)?;
        counted.push(uptime_window(name, from, to, &regions));
    }
    Ok(Response::json(200, &json!({ "website_id": id, "windows": counted })))
}

pub(super) fn region(counted: &Uptime) -> Value {
    json!({
        "region": counted.region,
        "ratio": counted.ratio(),
        "up": counted.up,
        "down": counted.down,
        "missed": counted.missed,
        "unreachable_self": counted.unreachable_self,
        "hours": counted.hours,
    })
}

/// All regions together.
pub(super) fn total(regions: &[Uptime]) -> Value {
    let sum = |of: fn(&Uptime) -> u64| regions.iter().map(of).sum();
    let all = Uptime {
        website_id: 0,
        region: String::new(),
        up: sum(|counted| counted.up),
        down: sum(|counted| counted.down),
        missed: sum(|counted| counted.missed),
        unreachable_self: sum(|counted| counted.unreachable_self),
        hours: 0,
    };
    json!({
        "ratio": all.ratio(),
        "up": all.up,
        "down": all.down,
        "missed": all.missed,
        "unreachable_self": all.unreachable_self,
    })
}

/// `GET /websites/{website_id}/response-times`.
pub(super) fn response_times(call: &Call<'_>) -> Answer {
    let id = row_or_deleted(call)?.website_id;
    let (name, bucket, length, usual, longest) = match call.query.text("bucket") {
        Some("day") => ("day", Bucket::Day, DAY, WINDOWS[2].1, BY_DAY_MAX),
        _ => ("hour", Bucket::Hour, HOUR, DAY, BY_HOUR_MAX),
    };
    let to = end(call);
    let from = call.query.time("from").unwrap_or_else(|| before(to, usual));
    in_order(call, from, to)?;
    if to.duration_since(from) > longest {
        let days = longest.as_hours() / 24;
        let message = format!("is more than {days} days before to, the longest time by {name}");
        return Err(Refusal::of_field("from", message));
    }
    let region = call.query.text("region");
    let periods = call.store().response_times(id, region, from, to, bucket)?;
    Ok(Response::json(
        200,
        &json!({
            "website_id": id,
            "bucket": name,
            "region": region,
            "from": time_text(down_to(from, length)),
            "to": time_text(up_to(to, length)),
            "items": periods.iter().map(period).collect::<Vec<_>>(),
        }),
    ))
}

fn period(period: &Period) -> Value {
    let failures: BTreeMap<&str, u64> =
        period.failures.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    json!({
        "start": time_text(period.start),
        "up": period.up,
        "down": period.down,
        "missed": period.missed,
        "unreachable_self": period.unreachable_self,
        "ratio": period.uptime(),
        "failures": failures,
        "count": period.response_times,
        "min": period.min,
        "mean": period.mean(),
        "p50": period.quantile(0.5),
        "p90": period.quantile(0.9),
        "p95": period.quantile(0.95),
        "p99": period.quantile(0.99),
        "max": period.max,
    })
}

/// Whether there is time between the bounds, all of it such that a check may have been due.
fn in_order(call: &Call<'_>, from: Timestamp, to: Timestamp) -> Result<(), Refusal> {
    for name in ["from", "to"] {
        if call.query.time(name).is_some_and(|time| time < Timestamp::UNIX_EPOCH) {
            return Err(Refusal::of_field(name, "must not be before 1970-01-01T00:00:00Z"));
        }
    }
    match call.query.time("to") {
        _ if from < to => Ok(()),
        Some(_) => Err(Refusal::of_field("to", "must be after from")),
        None => Err(Refusal::of_field("from", "must be before now, as long as to is not given")),
    }
}

/// So long before `time`, but not before there was any check.
fn before(time: Timestamp, length: SignedDuration) -> Timestamp {
    let earlier = time.checked_sub(length).unwrap_or(Timestamp::MIN);
    earlier.max(Timestamp::UNIX_EPOCH)
}

pub(super) fn down_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let over = time.as_second().rem_euclid(length.as_secs());
    Timestamp::from_second(time.as_second() - over).unwrap_or(time)
}

pub(super) fn up_to(time: Timestamp, length: SignedDuration) -> Timestamp {
    let down = down_to(time, length);
    if down == time { time } else { down.checked_add(length).unwrap_or(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_moved_outwards() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (at, hour) = (time("2026-01-01T10:30:00.5Z"), time("2026-01-01T10:00:00Z"));
        assert_eq!((down_to(at, HOUR), up_to(at, HOUR)), (hour, time("2026-01-01T11:00:00Z")));
        assert_eq!((down_to(hour, HOUR), up_to(hour, HOUR)), (hour, hour));
        assert_eq!(down_to(at, DAY), time("2026-01-01T00:00:00Z"));
        assert_eq!(down_to(time("1969-12-31T23:30:00Z"), HOUR), time("1969-12-31T23:00:00Z"));
        assert_eq!(up_to(Timestamp::MAX, DAY), Timestamp::MAX);
    }
}
