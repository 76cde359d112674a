//! What bodies hold, as JSON Schema (2020-12): sites from the tables of their keys, checks from
//! the table of columns and the schema of the message.

use serde_json::{Map, Value, json};

use super::site_schemas;
use crate::check::{FailureKind, Outcome};
use crate::store::SiteStatus;

/// The message of Kafka, which a one-shot check is answered with.
const MESSAGE: &str = include_str!("../../docs/message.schema.json");

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// All schemas by name.
pub(super) fn all() -> Value {
    json!({
        "Website": site_schemas::website(),
        "WebsiteInput": site_schemas::input("A site as it is added: what is left out is left open.", &["name", "url"], &[]),
        "WebsiteReplacement": site_schemas::input(
            "A site as it shall be in full: what is left out is left open. What was read may be sent back: `timestamp` and `updated_at` count for nothing.",
            &["name", "url"],
            &["website_id", "timestamp", "updated_at"],
        ),
        "WebsitePatch": site_schemas::input(
            "What shall be different in a site.",
            &[],
            &["website_id", "timestamp", "updated_at"],
        ),
        "WebsiteList": list("Website"),
        "CheckRequest": site_schemas::check_request(),
        "CheckMessage": message(),
        "Check": check(),
        "CheckList": list("Check"),
        "Uptime": uptime(),
        "ResponseTimes": response_times(),
        "Status": status(),
        "Problem": problem(),
    })
}

/// An example of the schema of that name.
pub(super) fn example(name: &str) -> Option<Value> {
    Some(match name {
        "WebsiteInput" | "WebsiteReplacement" => json!({
            "name": "Example", "url": "https://example.org/", "interval": 60, "regex": "Example Domain",
        }),
        "WebsitePatch" => json!({ "interval": 300, "regex": null, "retries": 2 }),
        "CheckRequest" => {
            json!({ "url": "https://example.org/", "regex": "Example (\\w+)", "timeout": 5 })
        }
        _ => return None,
    })
}

fn list(of: &str) -> Value {
    json!({
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "maxItems": super::query::LIMIT_MAX, "items": reference(of) },
            "next": { "type": ["string", "null"], "description": "The cursor of the next page; null on the last one." },
        },
    })
}

pub(super) fn time(doc: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": doc })
}

pub(super) fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

fn count(doc: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": doc })
}

fn seconds(doc: &str) -> Value {
    json!({ "type": ["number", "null"], "minimum": 0, "description": doc })
}

/// The message's schema, with its own references led to where it stands here.
fn message() -> Value {
    let text = MESSAGE.replace("#/$defs/", "#/components/schemas/CheckMessage/$defs/");
    // A test of the document reads it.
    let mut schema: Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(object) = schema.as_object_mut() {
        object.shift_remove("$schema");
    }
    schema
}

fn check() -> Value {
    let integer = |doc: &str| json!({ "type": ["integer", "null"], "description": doc });
    let text = |doc: &str| json!({ "type": ["string", "null"], "description": doc });
    let phases = [
        ("resolve", "Seconds from name to addresses."),
        ("connect", "Seconds of the TCP connect."),
        ("tls", "Seconds of the TLS handshake."),
        ("processing", "Seconds from the request sent to the first byte of the answer."),
        ("transfer", "Seconds from the first to the last byte read."),
    ];
    let phase = |(name, doc): (&str, &str)| (name.to_owned(), seconds(doc));
    let last_hop = json!({
        "type": ["object", "null"],
        "description": "The phases of the last request alone, where redirects were followed.",
        "properties": phases.into_iter().map(phase).collect::<Map<_, _>>(),
    });
    let outcomes = Outcome::ALL.map(Outcome::as_str);
    let kinds: Vec<Value> = FailureKind::ALL
        .into_iter()
        .map(|kind| Value::from(kind.as_str()))
        .chain([Value::Null])
        .collect();
    let captures = json!({
        "type": ["array", "null"],
        "items": { "type": ["string", "null"] },
        "description": "What the pattern found.",
    });
    let mut columns = vec![
        (
            "check_entry_id",
            json!({ "type": "string", "format": "uuid", "description": "From site, region and due time." }),
        ),
        ("website_id", json!({ "type": "integer", "description": "The site." })),
        ("name", text("The site's name now; null where the site is gone.")),
        ("url", text("The site's URL now; null where the site is gone.")),
        ("timestamp", time("When it was due.")),
        ("started_at", or_null(time("When a worker began; null of a missed check."))),
        ("certificate_expires_at", or_null(time("Earliest end of the site's certificates."))),
        ("response_time", seconds("Seconds in all.")),
    ];
    columns.extend(phases.into_iter().map(|(name, doc)| (name, seconds(doc))));
    columns.extend([
        ("http_status", integer("Status of the last answer.")),
        ("body_bytes", integer("Bytes of the body that were read.")),
        ("redirects", integer("Redirects followed.")),
        ("outcome", json!({ "enum": outcomes, "description": "How the due time ended." })),
        ("failure_kind", json!({ "enum": kinds, "description": "The step that failed." })),
        ("region", json!({ "type": "string", "description": "Where it was checked from." })),
        (
            "regex_match",
            json!({ "type": ["boolean", "null"], "description": "Whether the pattern was found." }),
        ),
        ("regex", text("The pattern.")),
        ("failure_detail", text("What happened in the step that failed.")),
        ("regex_captures", captures),
        ("tries", integer("Tries it took.")),
        ("last_hop", last_hop),
        (
            "unreachable_self",
            json!({ "type": "boolean", "description": "Whether webmon itself had no network." }),
        ),
    ]);
    let required: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let description = "A check, with the names of the columns of check_entry.";
    let properties: Map<String, Value> =
        columns.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    object(description, &required, properties)
}

fn object(doc: &str, required: &[&str], properties: impl Into<Value>) -> Value {
    let mut schema = json!({ "type": "object", "description": doc, "required": required });
    schema["properties"] = properties.into();
    schema
}

fn ratio() -> Value {
    json!({
        "type": ["number", "null"], "minimum": 0, "maximum": 1,
        "description": "up / (up + down - unreachable_self); null when nothing was seen of the site.",
    })
}

/// The counts that uptime and response times have in common.
fn counts() -> Map<String, Value> {
    let columns = [
        ("ratio", ratio()),
        ("up", count("Checks that were up.")),
        ("down", count("Checks that were down, those of unreachable_self included.")),
        (
            "missed",
            count("Due times at which nothing was checked; they say nothing about the site."),
        ),
        ("unreachable_self", count("Those of down that came while webmon itself had no network.")),
    ];
    columns.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

const COUNTS: [&str; 5] = ["ratio", "up", "down", "missed", "unreachable_self"];

fn uptime() -> Value {
    let mut region = counts();
    region.insert("region".to_owned(), json!({ "type": "string" }));
    region.insert(
        "hours".to_owned(),
        count("Hours with at least one check; the others have no data."),
    );
    let region = object(
        "Its checks from one region.",
        &[&COUNTS[..], &["region", "hours"]].concat(),
        region,
    );
    let window = object(
        "Its checks in some time.",
        &["window", "from", "to", "total", "regions"],
        json!({
            "window": { "enum": ["24h", "7d", "30d", null], "description": "null where bounds were given." },
            "from": time("Counted from here, a whole hour."),
            "to": time("Up to before here, a whole hour."),
            "total": object("All regions together.", &COUNTS, counts()),
            "regions": { "type": "array", "items": region },
        }),
    );
    let properties = json!({
        "website_id": { "type": "integer" },
        "windows": { "type": "array", "items": window },
    });
    object("A site's checks, counted.", &["website_id", "windows"], properties)
}

fn response_times() -> Value {
    let mut period = counts();
    period.insert("start".to_owned(), time("When the hour or day begins."));
    let kinds: Map<String, Value> =
        FailureKind::ALL.into_iter().map(|kind| (kind.as_str().to_owned(), count(""))).collect();
    let failures = json!({ "type": "object", "description": "Those of down by kind.", "properties": kinds, "additionalProperties": false });
    period.insert("failures".to_owned(), failures);
    period.insert(
        "count".to_owned(),
        count("Checks that were up and have a response time; what follows is of these."),
    );
    const TIMES: [(&str, &str); 7] = [
        ("min", "The shortest, in seconds."),
        ("mean", "The mean, in seconds."),
        ("p50", "Half took no longer."),
        ("p90", "90 % took no longer."),
        ("p95", "95 % took no longer."),
        ("p99", "99 % took no longer."),
        ("max", "The longest, in seconds."),
    ];
    period.extend(TIMES.map(|(name, doc)| (name.to_owned(), seconds(doc))));
    let required: Vec<&str> = COUNTS
        .into_iter()
        .chain(["start", "failures", "count"])
        .chain(TIMES.map(|(name, _)| name))
        .collect();
    object(
        "A site's checks by hour or day.",
        &["website_id", "bucket", "region", "from", "to", "items"],
        json!({
            "website_id": { "type": "integer" },
            "bucket": { "enum": ["hour", "day"] },
            "region": { "type": ["string", "null"], "description": "null: all together." },
            "from": time("Counted from here."),
            "to": time("Up to before here."),
            "items": { "type": "array", "items": object("An hour or a day.", &required, period) },
        }),
    )
}

fn status() -> Value {
    let counts = |names: Vec<&str>| {
        let properties: Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), count(""))).collect();
        json!({ "type": "object", "required": names, "properties": properties })
    };
    let outcomes = counts(Outcome::ALL.map(Outcome::as_str).to_vec());
    let text = json!({ "type": "string" });
    let daemon = object(
        "A daemon as it was when last seen.",
        &[
            "daemon_id",
            "role",
            "host",
            "pid",
            "version",
            "region",
            "started_at",
            "seen_at",
            "is_late",
            "facts",
        ],
        json!({
            "daemon_id": { "type": "string", "format": "uuid" },
            "role": { "type": "string", "description": "producer, consumer, run or api." },
            "host": text,
            "pid": { "type": "integer" },
            "version": text,
            "region": or_null(text.clone()),
            "started_at": time("By its own clock."),
            "seen_at": time("By the database's clock."),
            "is_late": { "type": "boolean", "description": "Whether it has told nothing for 30 s." },
            "facts": { "type": ["object", "null"], "description": "What differs by role." },
        }),
    );
    object(
        "What the tables tell.",
        &[
            "database",
            "schema_version",
            "sites",
            "checks",
            "newest_check",
            "rejected",
            "rejected_last_hour",
            "daemons",
        ],
        json!({
            "database": { "enum": ["ok"] },
            "schema_version": count("The last migration that was applied."),
            "sites": counts(SiteStatus::ALL.map(SiteStatus::as_str).to_vec()),
            "checks": object(
                "Checks that were due lately, by outcome.",
                &["last_minute", "last_5_minutes"],
                json!({ "last_minute": outcomes, "last_5_minutes": outcomes }),
            ),
            "newest_check": or_null(time("When the newest check of the last day was due.")),
            "rejected": count("Messages that could not be stored and are kept; counted up to 10001."),
            "rejected_last_hour": count("Those of the last hour."),
            "daemons": { "type": "array", "items": daemon },
        }),
    )
}

fn problem() -> Value {
    object(
        "Problem details (RFC 9457).",
        &["type", "title", "status", "detail"],
        json!({
            "type": { "type": "string", "description": "about:blank" },
            "title": { "type": "string", "description": "The status code's words." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "What is wrong with this request, and what would be right." },
            "errors": {
                "type": "array",
                "description": "Of a 422: the faults by key or parameter.",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": { "field": { "type": "string" }, "message": { "type": "string" } },
                },
            },
        }),
    )
}
