//! The database: reachable, of the right version and set-up, with the rights webmon needs.

use std::time::Duration;

use super::report::{Kind, Report};
use crate::cli::exit::Exit;
use crate::cli::output::counted;
use crate::cli::{cures, options};
use crate::config::Settings;
use crate::runtime::now;
use crate::store::{CLOCKS_APART_MAX, ErrorKind, Limits, Server, Store, StoreError};

/// For each call.
const CALL: Duration = Duration::from_secs(8);
/// `DETACH PARTITION … CONCURRENTLY` came with 14.
const VERSION_MIN: i32 = 140_000;
/// Clocks further apart than this show in the times of checks.
const CLOCKS_NEAR_MS: i64 = 2_000;
/// Tables are made days ahead.
const TABLES_MIN: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
/// Connections of a process beside its pool: the listener for sites, and the leads.
const BESIDE_POOL: i64 = 3;
/// At least so many processes: a producer and a consumer.
const PROCESSES_MIN: usize = 2;

/// Looks at it; the store, if it answers.
pub(super) fn look(report: &mut Report, settings: &Settings) -> Result<Option<Store>, Exit> {
    let limits = Limits { call: CALL, schema: CALL };
    let store = options::store_within(settings, "webmon-doctor", limits)?;
    let server = match store.server() {
        Ok(server) => server,
        Err(error) => {
            let cure = cures::of_store(&error, settings);
            report.bad(kind(&error), "database", error.to_string(), cure);
            return Ok(None);
        }
    };
    set_up(report, settings, &store, &server);
    rights(report, settings, &server);
    tables(report, &store, &server);
    connections(report, settings, &store, &server);
    clock(report, server.clock_ahead_ms);
    Ok(Some(store))
}

fn kind(error: &StoreError) -> Kind {
    match error.kind() {
        ErrorKind::Outage | ErrorKind::Again => Kind::Away,
        ErrorKind::Configuration | ErrorKind::Migration | ErrorKind::Data => Kind::Configuration,
    }
}

fn set_up(report: &mut Report, settings: &Settings, store: &Store, server: &Server) {
    let address = store.address();
    if server.version_num < VERSION_MIN {
        report.bad(
            Kind::Other,
            "database",
            format!("{address} is PostgreSQL {}", server.version),
            "14 is the oldest that works: upgrade the server",
        );
    } else {
        report.ok("database", format!("{address} answers, PostgreSQL {}", server.version));
    }
    if server.encoding != "UTF8" {
        report.bad(
            Kind::Other,
            "database",
            format!("its encoding is {}", server.encoding),
            "make the database by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        );
    }
    if server.is_standby {
        report.bad(
            Kind::Other,
            "database",
            "it is a standby, which takes no writes",
            "set database.host to the primary, or promote this one",
        );
    }
    let host = &settings.database.host;
    let is_near = host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match &server.tls {
        Some(version) => report.ok("database TLS", version.clone()),
        None if is_near => report.ok("database TLS", "none, on this machine"),
        None => report.warning(
            "database TLS",
            "none: password and results can be read on the way",
            "switch ssl on in the server, and set database.ssl.mode to verify-full",
        ),
    }
}

fn rights(report: &mut Report, settings: &Settings, server: &Server) {
    let (user, db) = (&settings.database.user, &settings.database.db);
    let subject = "database rights";
    match &server.schema {
        None => report.bad(
            Kind::Other,
            subject,
            format!("{user} has no schema of its search_path"),
            format!("GRANT USAGE, CREATE ON SCHEMA public TO \"{user}\""),
        ),
        Some(schema) if !server.may_create => report.bad(
            Kind::Other,
            subject,
            format!(
                "{user} may not make tables in the schema {schema}: a day's table is made daily"
            ),
            format!("GRANT USAGE, CREATE ON SCHEMA \"{schema}\" TO \"{user}\", as its owner"),
        ),
        Some(schema) => report.ok(subject, format!("{user} may make tables in {schema}")),
    }
    if let Some(owner) = &server.foreign_owner {
        report.bad(
            Kind::Other,
            subject,
            format!("webmon's tables belong to {owner}, whom {user} may not act as"),
            format!("GRANT \"{owner}\" TO \"{user}\", or set database.user to {owner}"),
        );
    }
    if !server.has_trgm && !server.may_create_trgm {
        report.bad(
            Kind::Other,
            "database",
            "the extension pg_trgm is not there, and can't be made by this user",
            format!(
                "install the server's contrib package, then as an administrator in {db}: CREATE \
                 EXTENSION pg_trgm"
            ),
        );
    }
}

fn tables(report: &mut Report, store: &Store, server: &Server) {
    match store.pending_migrations() {
        Ok(pending) if pending.is_empty() => {
            report.ok("tables", "are those of this version");
            match server.tables_until {
                Some(until) if until.duration_since(now().wall) >= TABLES_MIN => {
                    report.ok("tables", format!("are there for checks until {until:.0}"));
                }
                Some(until) => report.warning(
                    "tables",
                    format!("for checks end at {until:.0}"),
                    "a running consumer makes them days ahead; 'webmon migrate' makes some now",
                ),
                None => report.bad(
                    Kind::Other,
                    "tables",
                    "there is none for the checks of now",
                    "start a consumer, or run 'webmon migrate'",
                ),
            }
        }
        Ok(pending) => report.warning(
            "tables",
            format!(
                "{} to be applied: {}",
                counted(pending.len(), "migration"),
                pending.join(", ")
            ),
            "run 'webmon migrate', or start a daemon, which does it",
        ),
        Err(error) => {
            let cure = "the message says what to do; 'webmon migrate --dry-run' shows it again";
            report.bad(kind(&error), "tables", error.to_string(), cure);
        }
    }
}

fn connections(report: &mut Report, settings: &Settings, store: &Store, server: &Server) {
    let processes = store.daemons().map_or(0, |rows| rows.len()).max(PROCESSES_MIN);
    let each = i64::from(settings.database.pool) + BESIDE_POOL;
    let wanted = each * i64::try_from(processes).unwrap_or(i64::MAX);
    let (may, has) = (server.connections_max, server.connections);
    let said = format!(
        "{processes} processes take up to {wanted} ({each} each), {may} are allowed, {has} are open"
    );
    if wanted > may {
        let cure = format!(
            "raise max_connections (or the limit of the role or database) above {wanted}, or lower \
             database.pool"
        );
        report.warning("connections", said, cure);
    } else {
        report.ok("connections", said);
    }
}

fn clock(report: &mut Report, ahead_ms: i64) {
    let seconds = ahead_ms.abs() as f64 / 1000.0;
    // The server is ahead where this host is behind.
    let direction = if ahead_ms > 0 { "behind" } else { "ahead of" };
    let cure = "have both hosts ask a time server (chrony, systemd-timesyncd)";
    let said = format!("this host's clock is {seconds:.1} s {direction} the database's");
    if ahead_ms.abs() > CLOCKS_APART_MAX.as_millis() as i64 {
        let said = format!("{said}: no tables are made or removed, and Kafka may refuse results");
        report.bad(Kind::Other, "clock", said, cure);
    } else if ahead_ms.abs() > CLOCKS_NEAR_MS {
        report.warning("clock", said, cure);
    } else {
        report.ok("clock", "agrees with the database's");
    }
}
