//! How webmon itself is.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Response;
use super::refusal::Answer;
use super::service::Call;
use crate::store::{DaemonRow, Outcomes};
use crate::telemetry::health;
use crate::wire::time_text;

const TEXT: &str = "text/plain; charset=utf-8";

/// `GET /status`.
pub(super) fn status(call: &Call<'_>) -> Answer {
    let store = call.store();
    let overview = store.overview()?;
    let (active, paused, deleted) = overview.sites;
    let outcomes = |checks: &Outcomes| json!({ "up": checks.up, "down": checks.down, "missed": checks.missed });
    let daemons: Vec<Value> = store.daemons()?.iter().map(daemon).collect();
    Ok(Response::json(
        200,
        &json!({
            "database": "ok",
            "schema_version": store.schema_version()?,
            "sites": { "active": active, "paused": paused, "deleted": deleted },
            "checks": {
                "last_minute": outcomes(&overview.last_minute),
                "last_5_minutes": outcomes(&overview.last_five_minutes),
            },
            "newest_check": overview.newest_check.map(time_text),
            "rejected": overview.rejected,
            "rejected_last_hour": overview.rejected_last_hour,
            "daemons": daemons,
        }),
    ))
}

fn daemon(row: &DaemonRow) -> Value {
    let daemon = &row.daemon;
    json!({
        "daemon_id": daemon.daemon_id.to_string(),
        "role": daemon.role,
        "host": daemon.host,
        "pid": daemon.pid,
        "version": daemon.version,
        "region": daemon.region,
        "started_at": time_text(daemon.started_at),
        "seen_at": time_text(row.seen_at),
        "is_late": row.is_late(),
        "facts": serde_json::from_str::<Value>(&daemon.facts).unwrap_or_default(),
    })
}

/// `GET /livez`.
pub(super) fn livez(_: &Call<'_>) -> Answer {
    Ok(Response::new(200, TEXT, "ok\n").with("Cache-Control", "no-store"))
}

/// `GET /readyz`: the database, and whatever else of this process is known.
pub(super) fn readyz(call: &Call<'_>) -> Answer {
    let is_verbose = call.query.text("verbose").is_some();
    // Reasons name addresses: they are for those who may read.
    let is_known = call.request.caller.role.is_some();
    let own = ("database", call.api.database_fault());
    let others = health().parts().into_iter().filter(|(name, _)| *name != own.0);
    let mut parts: Vec<(&str, Option<String>)> = others.chain([own.clone()]).collect();
    parts.sort();
    let is_ready = parts.iter().all(|(_, reason)| reason.is_none());
    let mut body = String::new();
    for (part, reason) in &parts {
        // Writing to a String can't fail.
        let _ = match reason {
            Some(_) if !is_known => writeln!(body, "{part}: not ready"),
            Some(reason) => writeln!(body, "{part}: {}", reason.replace(char::is_control, " ")),
            None if is_verbose => writeln!(body, "{part}: ok"),
            None => Ok(()),
        };
    }
    if is_ready && !is_verbose {
        body.push_str("ok\n");
    }
    let status = if is_ready { 200 } else { 503 };
    let response = Response::new(status, TEXT, body).with("Cache-Control", "no-store");
    Ok(if is_ready { response } else { response.with("Retry-After", "5") })
}
