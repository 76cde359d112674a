//! How webmon itself is.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::Response;
use super::refusal::Answer;
use super::service::Call;
use crate::telemetry::health;
use crate::wire::time_text;

const TEXT: &str = "text/plain; charset=utf-8";

/// `GET /status`.
pub(super) fn status(call: &Call<'_>) -> Answer {
    let overview = call.store().overview()?;
    let object = |pairs: Vec<(&str, Value)>| -> Map<String, Value> {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let sites = overview.sites.iter().map(|(status, count)| (status.as_str(), json!(count)));
    let checks = overview.checks.iter().map(|(outcome, minute, five_minutes)| {
        let counts = json!({ "last_minute": minute, "last_5_minutes": five_minutes });
        (outcome.as_str(), counts)
    });
    Ok(Response::json(
        200,
        &json!({
            "database": "ok",
            "schema_version": overview.schema_version,
            "sites": object(sites.collect()),
            "checks": object(checks.collect()),
            "newest_check": overview.newest_check.map(time_text),
            "rejected": overview.rejected,
        }),
    ))
}

/// `GET /livez`.
pub(super) fn livez(_: &Call<'_>) -> Answer {
    Ok(Response::new(200, TEXT, "ok\n").with("Cache-Control", "no-store"))
}

/// `GET /readyz`: the database, and whatever else of this process is known.
pub(super) fn readyz(call: &Call<'_>) -> Answer {
    let is_verbose = call.query.text("verbose").is_some();
    let ping = call.store().ping();
    call.api.note_database(ping.as_ref().err());
    let own = ("database", ping.err().map(|error| error.to_string()));
    let others = health().parts().into_iter().filter(|(name, _)| *name != own.0);
    let mut parts: Vec<(&str, Option<String>)> = others.chain([own.clone()]).collect();
    parts.sort();
    let is_ready = parts.iter().all(|(_, reason)| reason.is_none());
    let mut body = String::new();
    for (part, reason) in &parts {
        // Writing to a String can't fail.
        let _ = match reason {
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
