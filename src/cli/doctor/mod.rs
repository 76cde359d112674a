//! `doctor`: looks for faults in the configuration, the services and this machine. Each look is
//! bounded in time and made whatever the others found; each fault comes with its cure.

mod brokers;
mod database;
mod machine;
mod report;
mod spool;

use std::net::ToSocketAddrs;
use std::time::Duration;

use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::ops_args::DoctorArgs;
use super::{options, presence};
use crate::config::{self, Settings};
use crate::runtime::BoundedCall;
use report::{Kind, Report};

/// For looking up one name: longer than a resolver tries a server that is away.
const LOOKUP: Duration = Duration::from_secs(6);
/// Looked up where the configuration names no public host: IANA keeps it for such uses.
const PUBLIC_NAME: &str = "example.org";

pub(super) fn doctor(common: &CommonArgs, args: &DoctorArgs) -> Result<(), Exit> {
    let mut report = Report::new(args.json);
    let loaded = match config::load(&options::sources(common, [])) {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in &faults.0 {
                report.bad(Kind::Configuration, "configuration", fault.to_string(), &fault.cure);
            }
            report.warning(
                "the rest",
                "was not looked at: without a good configuration nobody knows what to look at",
                "cure the faults above, then run 'webmon doctor' again",
            );
            return report.end();
        }
    };
    quiet_logs(&loaded);
    let file = loaded.file.as_ref().map(|file| file.display().to_string());
    let file = file.unwrap_or_else(|| "no file, environment and defaults".to_owned());
    report.ok("configuration", format!("is good ({file})"));
    let settings = &loaded.settings;
    machine::secrets(&mut report, &loaded);
    names(&mut report, [settings.database.host.as_str()]);
    let store = database::look(&mut report, settings)?;
    let rows = store.and_then(|store| store.daemons().ok()).unwrap_or_default();
    match presence::local_bus(&rows) {
        Some(row) => {
            let (host, pid) = (&row.daemon.host, row.daemon.pid);
            let why = format!("not needed: 'run --bus local' runs (on {host}, pid {pid})");
            for subject in ["broker", "topic", "group"] {
                report.ok(subject, why.as_str());
            }
        }
        None => {
            names(&mut report, settings.kafka.servers.iter().map(|server| host_of(server)));
            brokers::look(&mut report, settings, &rows);
        }
    }
    public_name(&mut report, settings);
    spool::look(&mut report, settings);
    machine::look(&mut report, settings);
    report.end()
}

/// Whether names of a service become addresses.
fn names<'a>(report: &mut Report, hosts: impl IntoIterator<Item = &'a str>) {
    let mut hosts: Vec<&str> = hosts.into_iter().collect();
    hosts.sort_unstable();
    hosts.dedup();
    for host in hosts {
        // A directory is that of a Unix socket.
        if host.starts_with('/') || host.parse::<std::net::IpAddr>().is_ok() {
            continue;
        }
        match look_up(host) {
            Ok(count) => report.ok(
                "name",
                format!("{host} has {count} address{}", if count == 1 { "" } else { "es" }),
            ),
            Err(cause) => report.bad(
                Kind::Away,
                "name",
                format!("{host} can't be looked up: {cause}"),
                "see that the name is right, and that the servers of /etc/resolv.conf answer",
            ),
        }
    }
}

/// Whether a public name becomes an address.
fn public_name(report: &mut Report, settings: &Settings) {
    let targets = &settings.monitoring.connectivity;
    let is_name = |host: &&str| host.parse::<std::net::IpAddr>().is_err();
    let public = match targets.is_empty() {
        true => Some(PUBLIC_NAME),
        false => targets.iter().map(|(host, _)| host.as_str()).find(is_name),
    };
    let Some(public) = public else { return };
    match look_up(public) {
        Ok(_) => report.ok("name", format!("{public}, a public name, can be looked up")),
        Err(cause) => report.warning(
            "name",
            format!("{public}, a public name, can't be looked up: {cause}"),
            "without a way out only sites of this network can be checked; else see /etc/resolv.conf",
        ),
    }
}

/// `host` of `host:port`, without brackets.
fn host_of(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    host.trim_matches(['[', ']'])
}

fn look_up(host: &str) -> Result<usize, String> {
    let host = host.to_owned();
    let mut call = BoundedCall::start("lookup", || ()).map_err(|error| error.to_string())?;
    let answer = call.call(LOOKUP, move |()| {
        (host.as_str(), 0).to_socket_addrs().map(Iterator::count).map_err(|e| e.to_string())
    });
    answer.map_err(|error| error.to_string())?
}
