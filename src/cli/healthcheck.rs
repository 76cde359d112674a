//! `healthcheck`: is the daemon there?

use super::args::{CommonArgs, HealthcheckArgs};
use super::check_targets::Wanted;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::{check, options, output};
use crate::check::Outcome;
use crate::probe::ProbeOptions;
use crate::site::SiteSpec;

/// Seconds for a health check: what Docker and Kubernetes give a probe by default.
const HEALTH_TIMEOUT_S: u32 = 5;

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
        resolver_threads: 1,
        ..options::probe(&loaded.settings)
    };
    let wanted = Wanted::typed("webmon healthcheck", spec, HEALTH_TIMEOUT_S, &probe.region)?;
    let prober = check::prober("webmon healthcheck", probe)?;
    let check = prober.check(&wanted.target, check::due());
    if args.json {
        output::message(&check)?;
    } else {
        output::line(&output::summary(&check, &check.url, false))?;
    }
    if check.outcome == Outcome::Up { Ok(()) } else { Err(Exit::Bad) }
}
