//! A look as text and as JSON.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::findings::{Finding, kafka_trouble};
use super::look::{Database, Group, Kafka, Look, Partition, Seen};
use crate::cli::cures::trouble;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::table::{Cell, Colour, Column, Screen, Table, printable};
use crate::store::{Outcomes, Overview, REJECTED_COUNT_MAX};
use crate::wire::time_text;

/// A duration as a person says it: `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

fn since(now: Timestamp, then: Timestamp) -> String {
    let age: SignedDuration = now.duration_since(then);
    span(Duration::try_from(age).unwrap_or_default())
}

/// Bytes with a unit.
fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

pub(super) fn text(look: &Look, findings: &[Finding]) -> Result<(), Exit> {
    let screen = Screen::of_stdout();
    let unwell = Cell::new("unwell").coloured(Colour::Red);
    let state = match findings.len() {
        0 => "all is well".to_owned(),
        1 => "1 thing is unwell".to_owned(),
        count => format!("{count} things are unwell"),
    };
    let away = look.database.as_ref().err().map(trouble).into_iter();
    let away = away.chain(look.kafka.iter().flat_map(|k| k.as_ref().err()).map(kafka_trouble));
    let state = away.map(|what| format!("; {what}")).fold(state, |all, more| all + &more);
    output::line(&format!("webmon at {:.0}: {state}", look.at))?;
    match &look.database {
        Ok(database) => {
            daemons(database, screen, &unwell)?;
            summary(database)?;
        }
        Err(error) => {
            output::line(&format!("\n{}: see below.", trouble(error)))?;
            local(look)?;
        }
    }
    match &look.kafka {
        Some(Ok(found)) => kafka(found, look.at, screen)?,
        Some(Err(error)) => {
            output::line(&format!("\n{}: see below.", kafka_trouble(error)))?;
        }
        None => {}
    }
    for finding in findings {
        let mark = if screen.is_coloured { Colour::Red.paint("!") } else { "!".to_owned() };
        output::line(&format!("\n{mark} {}", printable(&finding.what)))?;
        output::line(&format!("  what to do: {}", printable(&finding.cure)))?;
    }
    Ok(())
}

fn daemons(database: &Database, screen: Screen, unwell: &Cell) -> Result<(), Exit> {
    let now = database.overview.server_time;
    output::line("")?;
    if database.daemons.is_empty() {
        return output::line("No daemon runs.");
    }
    let columns = [
        Column::whole("ROLE"),
        Column::text("HOST"),
        Column::number("PID"),
        Column::text("REGION"),
        Column::number("PARTITIONS"),
        Column::number("SITES"),
        Column::number("SPOOL"),
        Column::number("UP"),
        Column::number("SEEN"),
        Column::whole("STATE"),
    ];
    let rows: Vec<Vec<Cell>> = database
        .daemons
        .iter()
        .map(|seen| {
            let daemon = &seen.row.daemon;
            let partitions = match (seen.share(), seen.number("partitions")) {
                (Some((part, of)), _) => Some(format!("{part} of {of}")),
                (None, Some(count)) => Some(count.to_string()),
                (None, None) if seen.checks() => Some("all".to_owned()),
                (None, None) => None,
            };
            let state = match (seen.is_live(), seen.unwell().is_empty()) {
                (false, _) => Cell::new("not seen").coloured(Colour::Red),
                (true, false) => unwell.clone(),
                (true, true) => Cell::new("well").coloured(Colour::Green),
            };
            vec![
                Cell::new(&daemon.role),
                Cell::new(&daemon.host),
                Cell::from(daemon.pid.to_string()),
                Cell::or_dash(daemon.region.as_deref()),
                Cell::or_dash(partitions),
                Cell::or_dash(seen.number("sites")),
                Cell::or_dash(seen.number("spool_records")),
                Cell::from(since(now, daemon.started_at)),
                Cell::from(since(now, seen.row.seen_at)),
                state,
            ]
        })
        .collect();
    Table::new(&columns, screen).print(&rows)
}

fn summary(database: &Database) -> Result<(), Exit> {
    let overview = &database.overview;
    let outcomes = |of: &Outcomes, minutes: i64| {
        let per_minute = |count: i64| match minutes {
            1 => count.to_string(),
            _ => format!("{:.1}", count as f64 / minutes as f64),
        };
        format!(
            "{} ({} up, {} down, {} missed)",
            per_minute(of.total()),
            per_minute(of.up),
            per_minute(of.down),
            per_minute(of.missed)
        )
    };
    let (active, paused, _) = overview.sites;
    let newest = overview.newest_check.map_or_else(
        || "none in the last day".to_owned(),
        |time| format!("due {} ago", since(overview.server_time, time)),
    );
    let rejected = match overview.rejected {
        count if count > REJECTED_COUNT_MAX => format!("more than {REJECTED_COUNT_MAX}"),
        count => count.to_string(),
    };
    let waiting = match overview.rollup_oldest {
        None => "up to date".to_owned(),
        Some(oldest) => {
            let age = since(overview.server_time, oldest);
            format!("{} waiting, the oldest {age}", output::counted(overview.rollup_hours, "hour"))
        }
    };
    output::line("")?;
    for (name, value) in [
        ("sites", format!("{active} active, {paused} paused")),
        ("rows a minute", outcomes(&overview.last_minute, 1)),
        ("over five", outcomes(&overview.last_five_minutes, 5)),
        ("newest check", newest),
        ("rejected", format!("{rejected}, {} in the last hour", overview.rejected_last_hour)),
        ("rollups", waiting),
        ("database", size(overview.database_bytes)),
    ] {
        output::line(&format!("{name:<14} {value}"))?;
    }
    Ok(())
}

fn kafka(kafka: &Kafka, at: Timestamp, screen: Screen) -> Result<(), Exit> {
    let Some(partitions) = &kafka.partitions else {
        return output::line(&format!("\nThe topic {} is absent.", kafka.topic));
    };
    let lag: i64 = partitions.iter().filter_map(|partition| partition.lag).sum();
    output::line(&format!("\nTopic {}: lag {lag}", kafka.topic))?;
    let columns = [
        Column::number("PARTITION"),
        Column::number("END"),
        Column::number("COMMITTED"),
        Column::number("LAG"),
        Column::number("OLDEST"),
        Column::text("CONSUMER"),
        Column::text("LEADER"),
        Column::number("IN SYNC"),
    ];
    let rows: Vec<Vec<Cell>> = partitions
        .iter()
        .map(|p| {
            vec![
                Cell::from(p.id.to_string()),
                Cell::or_dash(p.end),
                Cell::or_dash(p.committed),
                Cell::or_dash(p.lag),
                Cell::or_dash(p.oldest_waiting.map(|time| since(at, time))),
                Cell::or_dash(p.member.as_deref()),
                Cell::or_dash(p.leader.as_deref()),
                Cell::from(format!("{}/{}", p.in_sync, p.copies)),
            ]
        })
        .collect();
    Table::new(&columns, screen).print(&rows)?;
    for group in std::iter::once(&kafka.consumers).chain(&kafka.producers) {
        let members = group.found.members.len();
        let shares: Vec<String> =
            group.found.members.iter().map(|m| m.partitions.len().to_string()).collect();
        let shares = if members > 1 { format!(" ({})", shares.join(" + ")) } else { String::new() };
        let state = if group.found.state.is_empty() { "unknown" } else { &group.found.state };
        output::line(&format!("group {}: {state}, members: {members}{shares}", group.name))?;
    }
    Ok(())
}

fn local(look: &Look) -> Result<(), Exit> {
    for local in &look.local {
        let head = format!("\n{} on this host, {}:", local.role, local.address);
        match &local.parts {
            Err(why) => output::line(&format!("{head} {why}"))?,
            Ok(parts) => {
                output::line(&head)?;
                for (part, why) in parts {
                    let why = why.as_deref().unwrap_or("ok");
                    output::line(&format!("  {part:<10} {}", printable(why)))?;
                }
            }
        }
    }
    Ok(())
}

pub(super) fn json(look: &Look, findings: &[Finding]) -> Value {
    let database = match &look.database {
        Ok(database) => overview(database),
        Err(error) => json!({ "error": error.to_string() }),
    };
    let daemons: Vec<Value> = look.database.iter().flat_map(|d| &d.daemons).map(daemon).collect();
    let kafka = look.kafka.as_ref().map(|kafka| match kafka {
        Ok(kafka) => whole(kafka),
        Err(error) => json!({ "error": error.to_string() }),
    });
    let local: Vec<Value> = look
        .local
        .iter()
        .map(|local| {
            let parts = local.parts.as_ref().map(|parts| {
                let part = |(name, why): &(String, Option<String>)| (name.clone(), json!(why));
                Value::Object(parts.iter().map(part).collect())
            });
            json!({
                "role": local.role,
                "address": local.address.to_string(),
                "parts": parts.as_ref().ok(),
                "error": local.parts.as_ref().err(),
            })
        })
        .collect();
    let mut whole = json!({
        "at": time_text(look.at),
        "is_well": findings.is_empty(),
        "findings": findings.iter().map(|f| json!({ "what": f.what, "cure": f.cure })).collect::<Vec<_>>(),
        "daemons": daemons,
        "database": database,
        "kafka": kafka,
        "local": local,
    });
    for (name, value) in counts(look.database.as_ref().ok().map(|d| &d.overview)) {
        whole[name] = value;
    }
    whole
}

/// What `GET /status` has too, by the same names; null while the database is away.
fn counts(overview: Option<&Overview>) -> [(&'static str, Value); 5] {
    let outcomes = |of: &Outcomes| json!({ "up": of.up, "down": of.down, "missed": of.missed });
    [
        (
            "sites",
            json!(overview.map(|overview| {
                let (active, paused, deleted) = overview.sites;
                json!({ "active": active, "paused": paused, "deleted": deleted })
            })),
        ),
        (
            "checks",
            json!(overview.map(|overview| {
                json!({
                    "last_minute": outcomes(&overview.last_minute),
                    "last_5_minutes": outcomes(&overview.last_five_minutes),
                })
            })),
        ),
        ("newest_check", json!(overview.and_then(|o| o.newest_check).map(time_text))),
        ("rejected", json!(overview.map(|o| o.rejected))),
        ("rejected_last_hour", json!(overview.map(|o| o.rejected_last_hour))),
    ]
}

fn overview(database: &Database) -> Value {
    let overview = &database.overview;
    json!({
        "time": time_text(overview.server_time),
        "clock_ahead_ms": overview.clock_ahead_ms,
        "bytes": overview.database_bytes,
        "rollup_hours_waiting": overview.rollup_hours,
        "rollup_oldest_waiting": overview.rollup_oldest.map(time_text),
        "tables_until": overview.tables_until.map(time_text),
    })
}

fn daemon(seen: &Seen) -> Value {
    let daemon = &seen.row.daemon;
    json!({
        "daemon_id": daemon.daemon_id.to_string(),
        "role": daemon.role,
        "host": daemon.host,
        "pid": daemon.pid,
        "version": daemon.version,
        "region": daemon.region,
        "started_at": time_text(daemon.started_at),
        "seen_at": time_text(seen.row.seen_at),
        "is_late": seen.row.is_late(),
        "facts": seen.facts,
    })
}

fn whole(kafka: &Kafka) -> Value {
    let partition = |p: &Partition| {
        json!({
            "partition": p.id,
            "leader": p.leader,
            "copies": p.copies,
            "in_sync": p.in_sync,
            "end": p.end,
            "committed": p.committed,
            "lag": p.lag,
            "oldest_waiting": p.oldest_waiting.map(time_text),
            "consumer": p.member,
        })
    };
    let partitions =
        kafka.partitions.as_ref().map(|all| all.iter().map(partition).collect::<Vec<_>>());
    json!({
        "topic": kafka.topic,
        "partitions": partitions,
        "consumers": group(&kafka.consumers),
        "producers": kafka.producers.iter().map(group).collect::<Vec<_>>(),
    })
}

fn group(group: &Group) -> Value {
    let members: Vec<Value> = group
        .found
        .members
        .iter()
        .map(|m| {
            // Kafka puts a slash before an address.
            let host = m.host.trim_start_matches('/');
            json!({ "client_id": m.client_id, "host": host, "partitions": m.partitions })
        })
        .collect();
    json!({ "group": group.name, "state": group.found.state, "members": members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_said_shortly() {
        let check = |seconds, expected: &str| {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        };
        check(0, "0 s");
        check(59, "59 s");
        check(200, "3 min 20 s");
        check(7500, "2 h 5 min");
        check(86_400 * 4 + 3600 * 3, "4 d 3 h");
        assert_eq!((size(12), size(1536)), ("12 B".to_owned(), "1.5 KiB".to_owned()));
        assert_eq!(size(3 << 40), "3.0 TiB");
    }
}
