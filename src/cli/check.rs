//! `check` and `healthcheck`: one check, now.

use super::args::{CheckArgs, CommonArgs, HealthcheckArgs};
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::{options, output};
use crate::check::{Check, Outcome};
use crate::probe::{ProbeOptions, Prober, Target};
use crate::runtime::now;
use crate::site::{INTERVAL_MAX_S, SiteDefaults, SiteSpec};

/// Seconds for a health check: what Docker and Kubernetes give a probe by default.
const HEALTH_TIMEOUT_S: u32 = 5;

pub(super) fn check(common: &CommonArgs, args: &CheckArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let url = args.url.as_ref().or(args.url_flag.as_ref()).cloned().unwrap_or_default();
    let spec = SiteSpec { url, regex: args.regex.clone(), ..SiteSpec::default() };
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
    // What sites may not point at says nothing about the daemon's own address.
    let probe = ProbeOptions { allow_private_addresses: true, ..options::probe(&loaded.settings) };
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
    let phases = &check.phases;
    let phase = |name: &str, seconds: Option<f64>| {
        seconds.map(|seconds| format!("{name:<12} {seconds:.6} s"))
    };
    let mut lines: Vec<String> = [
        phase("resolve", phases.resolve),
        phase("connect", phases.connect),
        phase("tls", phases.tls),
        phase("processing", phases.processing),
        phase("transfer", phases.transfer),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut fact = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<12} {value}")));
    };
    fact("address", check.remote_address.as_ref().map(ToString::to_string));
    fact("redirects", check.redirects.filter(|n| *n > 0).map(|n| n.to_string()));
    let cut = if check.body_truncated == Some(true) { " (cut at the limit)" } else { "" };
    fact("body", check.body_bytes.map(|n| format!("{n} bytes{cut}")));
    fact("certificate", check.certificate_expires_at.map(|t| format!("until {t}")));
    fact(
        "pattern",
        check.regex_match.map(|found| if found { "found" } else { "not found" }.into()),
    );
    fact("captures", check.regex_captures.as_ref().filter(|c| !c.is_empty()).map(|c| c.join(", ")));
    lines
}
