//! One check, now.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::body::{JSON, object};
use super::refusal::{Answer, Refusal};
use super::service::Call;
use super::{Problem, Response, addresses, input, secrets};
use crate::probe::Target;
use crate::runtime::now;
use crate::site::{KEPT_INTERVAL_MAX_S, SiteSpec};
use crate::wire;
use crate::wire::website::{self, Fault};

/// Longest timeout, in seconds.
const TIMEOUT_MAX_S: u32 = 30;
/// What a request takes beside its check: a look at the own network after a failure, and the
/// answer. Of a short deadline it is a part only.
const BESIDE: Duration = Duration::from_secs(2);
const BESIDE_PART: u32 = 4;
/// Tries are a second apart, unless something else is said.
const PAUSE: Duration = Duration::from_secs(1);

/// A place among the checks under way.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(checks: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |count: usize| (count < most).then_some(count + 1);
        checks.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Self(checks))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// `POST /check`.
pub(super) fn check(call: &Call<'_>) -> Answer {
    let options = &call.api.options;
    let mut body = object(call.request, &[JSON])?;
    // No column is as long, and nobody sees the name.
    body.entry("name").or_insert_with(|| "check".into());
    let mut faults = Vec::new();
    let left = without_rest(call.request.deadline.saturating_sub(now().mono));
    let usual = options.defaults.timeout.min(TIMEOUT_MAX_S).min(whole_seconds(left));
    let decode = |object| {
        website::decode(object, None).map(|spec| SiteSpec {
            timeout: spec.timeout.or(Some(usual.max(1))),
            interval: spec.interval.or(Some(KEPT_INTERVAL_MAX_S)),
            ..spec
        })
    };
    let spec = input::spec(call, body.clone(), decode, &mut faults);
    let Some(spec) = spec else { return Err(Problem::invalid(faults).into()) };
    secrets::guard(&call.request.caller, &body, None, &spec)?;
    let spec = addresses::keep_public(call, spec, None)?;
    let site = spec
        .build(0, options.defaults)
        .map_err(|found| Problem::invalid(found.into_iter().map(Fault::from).collect()))?;
    let longest = Duration::from_secs(u64::from(TIMEOUT_MAX_S)).min(left);
    if site.timeout > longest {
        let message = format!("must be at most {} seconds here", longest.as_secs());
        return Err(Refusal::of_field("timeout", message));
    }
    let (retries, pause) = site.more.as_deref().map_or((0, PAUSE), |m| (m.retries, m.retry_pause));
    let tries = u32::from(retries) + 1;
    if site.timeout.saturating_mul(tries) + pause.saturating_mul(tries - 1) > left {
        let message = format!("tries and pauses take more than {} seconds", left.as_secs());
        return Err(Refusal::of_field("retries", message));
    }
    let Some(_place) = Place::take(&call.api.checks, options.checks_max) else {
        let detail = format!("{} checks are under way; try again", options.checks_max);
        return Err(Refusal::from(Problem::new(429, detail)).with("Retry-After", "1"));
    };
    let target = Target::new(site, options.prober.options().region.clone());
    // Whole milliseconds, as every due time.
    let due = Timestamp::from_millisecond(now().wall.as_millisecond()).unwrap_or_default();
    let mut message = Vec::new();
    wire::encode(&options.prober.check(&target, due), &mut message);
    Ok(Response::new(200, JSON, message))
}

/// What a check may take of the time that a request has left.
fn without_rest(time: Duration) -> Duration {
    time.saturating_sub(BESIDE.min(time / BESIDE_PART))
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_deadline_has_time_for_a_check() {
        for (deadline, left) in [(2, 1), (4, 3), (8, 6), (10, 8), (300, 298)] {
            let time = Duration::from_secs(deadline) - Duration::from_millis(100);
            assert_eq!(whole_seconds(without_rest(time) + Duration::from_millis(100)), left);
        }
    }
}
