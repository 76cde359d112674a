//! `check` and `healthcheck`: one check, now.

use super::args::{CommonArgs, HealthcheckArgs};
use super::check_args::CheckArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::{options, output};
use crate::check::{Check, Outcome, Phases};
use crate::probe::{ProbeOptions, Prober, Target};
use crate::runtime::now;
use crate::site::{INTERVAL_MAX_S, SiteDefaults, SiteSpec};

/// Seconds for a health check: what Docker and Kubernetes give a probe by default.
const HEALTH_TIMEOUT_S: u32 = 5;

pub(super) fn check(common: &CommonArgs, args: &CheckArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let spec = args.spec()?;
    let timeout = args.timeout.unwrap_or(loaded.settings.monitoring.timeout);
    let check = once("check", options::probe(&loaded.settings), spec, timeout)?;
    if args.json {
        output::message(&check)?;
    } else {
        output::line(&output::summary(&check, &check.url, output::is_coloured()))?;
        for detail in details(&check) {
            output::line(&format!("  {detail}"))?;
        }
    }
    if check.outcome == Outcome::Up { Ok(()) } else { Err(Exit::Bad) }
}

pub(super) fn healthcheck(common: &CommonArgs, args: &HealthcheckArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let mut listen = loaded.settings.producer.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = args.url.clone().unwrap_or_else(|| format!("http://{listen}/livez"));
    let spec = SiteSpec { url, ..SiteSpec::default() };
    let probe = ProbeOptions {
        // What sites may not point at says nothing about the daemon's own address.
        allow_private_addresses: true,
        // Nor does the network.
        connectivity: Vec::new(),
        denied_addresses: Vec::new(),
        own_listeners: Vec::new(),
        ..options::probe(&loaded.settings)
    };
    let check = once("healthcheck", probe, spec, HEALTH_TIMEOUT_S)?;
    if args.json {
        output::message(&check)?;
    } else {
        output::line(&output::summary(&check, &check.url, false))?;
    }
    if check.outcome == Outcome::Up { Ok(()) } else { Err(Exit::Bad) }
}

/// Checks once what `spec` says. The check belongs to no site: its website_id is 0.
fn once(
    command: &str,
    probe: ProbeOptions,
    spec: SiteSpec,
    timeout: u32,
) -> Result<Check<'static>, Exit> {
    let spec = SiteSpec { name: "check".to_owned(), timeout: Some(timeout), ..spec };
    let defaults = SiteDefaults { interval: INTERVAL_MAX_S, timeout };
    let site = spec.build(0, defaults).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(|f| format!("webmon {command}: {f}")).collect();
        Exit::Usage(faults.join("\n"))
    })?;
    let probe = ProbeOptions { resolver_threads: 1, ..probe };
    let region = probe.region.clone();
    let prober =
        Prober::new(probe).map_err(|error| Exit::Failed(format!("webmon {command}: {error}")))?;
    let target = Target::new(site, region);
    // Whole milliseconds, as every due time.
    let now = jiff::Timestamp::from_millisecond(now().wall.as_millisecond()).unwrap_or_default();
    Ok(prober.check(&target, now))
}

fn details(check: &Check<'_>) -> Vec<String> {
    let mut lines = phases(&check.phases);
    if let Some(last_hop) = &check.last_hop {
        lines.push("of the last request alone".to_owned());
        lines.extend(phases(last_hop).into_iter().map(|line| format!("  {line}")));
    }
    let mut fact = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<12} {value}")));
    };
    fact("tries", check.tries.filter(|n| *n > 1).map(|n| n.to_string()));
    fact("address", check.remote_address.as_ref().map(ToString::to_string));
    fact("redirects", check.redirects.filter(|n| *n > 0).map(|n| n.to_string()));
    let cut = if check.body_truncated == Some(true) { " (cut at the limit)" } else { "" };
    fact("body", check.body_bytes.map(|n| format!("{n} bytes{cut}")));
    fact("certificate", check.certificate_expires_at.map(|t| format!("until {t}")));
    fact(
        "pattern",
        check.regex_match.map(|found| if found { "found" } else { "not found" }.into()),
    );
    let away = "unreachable: this says nothing about the site";
    fact("own network", check.unreachable_self.then(|| away.to_owned()));
    fact("captures", check.regex_captures.as_ref().filter(|c| !c.is_empty()).map(|c| c.join(", ")));
    lines
}

fn phases(phases: &Phases) -> Vec<String> {
    [
        ("resolve", phases.resolve),
        ("connect", phases.connect),
        ("tls", phases.tls),
        ("processing", phases.processing),
        ("transfer", phases.transfer),
    ]
    .into_iter()
    .filter_map(|(name, seconds)| Some(format!("{name:<12} {:.6} s", seconds?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::check::Identity;

    #[test]
    fn tries_and_the_last_request_are_told_where_there_is_something_to_tell() {
        let (url, region) = ("http://a/".to_owned(), "default".to_owned());
        let identity = Identity::new(1, &region);
        let plain = Check::empty(&identity, 1, url, region, Timestamp::UNIX_EPOCH);
        let last_hop = Some(Phases { connect: Some(0.25), ..Phases::default() });
        let plain = Check { tries: Some(1), redirects: Some(0), ..plain };
        assert!(details(&plain).is_empty(), "{:?}", details(&plain));
        let told =
            Check { tries: Some(3), redirects: Some(1), last_hop, unreachable_self: true, ..plain };
        assert_eq!(
            details(&told),
            [
                "of the last request alone",
                "  connect      0.250000 s",
                "tries        3",
                "redirects    1",
                "own network  unreachable: this says nothing about the site",
            ]
        );
    }
}
