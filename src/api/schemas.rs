//! What bodies hold, as JSON Schema (2020-12): sites from the tables of their keys, checks from
//! the table of columns and the schema of the message.

use serde_json::{Map, Value, json};

use crate::check::{FailureKind, Outcome};
use crate::site::{
    BODY_MAX, INTERVAL_MAX_S, INTERVAL_MIN_S, METHODS, NAME_MAX, PATTERN_MAX, SETTINGS, SITE_KEYS,
    Setting, SettingKind, URL_MAX,
};
use crate::store::SiteStatus;

/// The message of Kafka, which a one-shot check is answered with.
const MESSAGE: &str = include_str!("../../docs/message.schema.json");

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// All schemas by name.
pub(super) fn all() -> Value {
    json!({
        "Website": website(),
        "WebsiteInput": input("A site as it is added: what is left out is left open.", &["name", "url"], &[]),
        "WebsiteReplacement": input(
            "A site as it shall be in full: what is left out is left open. What was read may be sent back: `timestamp` and `updated_at` count for nothing.",
            &["name", "url"],
            &["website_id", "timestamp", "updated_at"],
        ),
        "WebsitePatch": input(
            "What shall be different in a site.",
            &[],
            &["website_id", "timestamp", "updated_at"],
        ),
        "WebsiteList": list("Website"),
        "CheckRequest": check_request(),
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

fn time(doc: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": doc })
}

fn or_null(mut schema: Value) -> Value {
    schema["type"] = json!([schema["type"], "null"]);
    schema
}

fn count(doc: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": doc })
}

fn seconds(doc: &str) -> Value {
    json!({ "type": ["number", "null"], "minimum": 0, "description": doc })
}

/// A site as it is shown. What stands in the table may have come from elsewhere, so only types are
/// promised.
fn website() -> Value {
    let mut properties = Map::new();
    let mut put = |name: &str, schema: Value| drop(properties.insert(name.to_owned(), schema));
    put("website_id", json!({ "type": "integer", "description": "The site's key." }));
    for key in SITE_KEYS {
        let kind = match key {
            "name" | "url" => json!("string"),
            "interval" | "timeout" => json!(["integer", "null"]),
            "headers" => json!(["object", "array", "null"]),
            _ => json!(["string", "null"]),
        };
        put(key, json!({ "type": kind, "description": doc(key) }));
    }
    for setting in &SETTINGS {
        let kind = match setting.kind {
            SettingKind::Text | SettingKind::Secret | SettingKind::Choice(_) => "string",
            SettingKind::Whole(..) => "integer",
            SettingKind::Seconds(..) => "number",
            SettingKind::Flag => "boolean",
            SettingKind::Map => "object",
        };
        put(setting.name, json!({ "type": kind, "description": setting.doc }));
    }
    let statuses = SiteStatus::ALL.map(SiteStatus::as_str);
    put("status", json!({ "enum": statuses, "description": "Whether it is checked." }));
    put("timestamp", time("When it was added."));
    put("updated_at", time("When it was last changed."));
    let required: Vec<&str> = ["website_id"]
        .into_iter()
        .chain(SITE_KEYS)
        .chain(["status", "timestamp", "updated_at"])
        .collect();
    json!({
        "type": "object",
        "description": "A site. Keys of the few settings that most sites don't have are there only when they are set.",
        "required": required,
        "properties": properties,
    })
}

/// A site as it is sent.
fn input(doc: &str, required: &[&str], read_only: &[&str]) -> Value {
    let mut properties = Map::new();
    for key in read_only {
        let schema = match *key {
            "website_id" => {
                json!({ "type": ["integer", "null"], "minimum": 1, "description": "The site's key; it can't be changed." })
            }
            _ => json!({ "type": "string", "description": "Counts for nothing." }),
        };
        properties.insert((*key).to_owned(), schema);
    }
    properties.append(&mut input_keys(!required.is_empty()));
    let statuses = [SiteStatus::Active.as_str(), SiteStatus::Paused.as_str()];
    properties.insert(
        "status".to_owned(),
        json!({ "enum": [statuses[0], statuses[1], null], "description": "Whether it is checked." }),
    );
    json!({
        "type": "object",
        "description": doc,
        "required": required,
        "properties": properties,
        "additionalProperties": false,
    })
}

fn input_keys(is_whole: bool) -> Map<String, Value> {
    let mut properties = Map::new();
    for key in SITE_KEYS {
        let mut schema = common(key);
        schema["description"] = doc(key).into();
        properties.insert(key.to_owned(), schema);
    }
    let pattern = json!({ "type": ["string", "null"], "maxLength": PATTERN_MAX, "description": "The same as regex, under its older name." });
    if is_whole {
        properties.insert("pattern".to_owned(), pattern);
    }
    for setting in &SETTINGS {
        properties.insert(setting.name.to_owned(), of_setting(setting));
    }
    properties
}

/// What a common key means.
fn doc(key: &str) -> &'static str {
    match key {
        "name" => "unique name",
        "url" => "what to request, http or https",
        "interval" => "seconds between checks; open: monitoring.interval",
        "timeout" => "seconds for a whole check, less than the interval; open: monitoring.timeout",
        "regex" => "pattern that must be found in the body; all matches are kept",
        "method" => "how it is requested; open: GET",
        "headers" => "request headers: names with texts, or pairs where a name occurs twice",
        "body" => "request body",
        _ => "good answers, such as 200-299,301; open: 200-299",
    }
}

fn common(key: &str) -> Value {
    let text = |max: usize| json!({ "type": ["string", "null"], "maxLength": max });
    match key {
        "name" => json!({ "type": "string", "minLength": 1, "maxLength": NAME_MAX }),
        "url" => {
            json!({ "type": "string", "format": "uri", "pattern": "^https?://", "maxLength": URL_MAX })
        }
        "interval" => {
            json!({ "type": ["integer", "null"], "minimum": INTERVAL_MIN_S, "maximum": INTERVAL_MAX_S })
        }
        "timeout" => {
            json!({ "type": ["integer", "null"], "minimum": 1, "maximum": INTERVAL_MAX_S - 1 })
        }
        "regex" => text(PATTERN_MAX),
        "method" => {
            let methods: Vec<Value> =
                METHODS.map(Value::from).into_iter().chain([Value::Null]).collect();
            json!({ "enum": methods })
        }
        "headers" => json!({
            "anyOf": [
                { "type": ["object", "null"], "additionalProperties": { "type": "string" } },
                { "type": "array", "items": { "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2 } },
            ],
        }),
        "body" => text(BODY_MAX),
        _ => json!({
            "anyOf": [
                { "type": ["string", "null"], "pattern": "^[0-9]{3}(-[0-9]{3})?(,[0-9]{3}(-[0-9]{3})?)*$" },
                { "type": "integer", "minimum": 100, "maximum": 599 },
                { "type": "array", "items": { "type": ["string", "integer"] } },
            ],
        }),
    }
}

fn of_setting(setting: &Setting) -> Value {
    let thousandth = |millis: u32| f64::from(millis) / 1000.0;
    let mut schema = match setting.kind {
        SettingKind::Text | SettingKind::Secret => json!({ "type": ["string", "null"] }),
        SettingKind::Choice(words) => {
            let words: Vec<Value> =
                words.iter().copied().map(Value::from).chain([Value::Null]).collect();
            json!({ "enum": words })
        }
        SettingKind::Whole(min, max) => {
            json!({ "type": ["integer", "null"], "minimum": min, "maximum": max })
        }
        SettingKind::Seconds(min, max) => {
            let (min, max) = (thousandth(min), thousandth(max));
            json!({ "type": ["number", "null"], "minimum": min, "maximum": max })
        }
        SettingKind::Flag => json!({ "type": ["boolean", "null"] }),
        SettingKind::Map => {
            json!({ "type": ["object", "null"], "additionalProperties": { "type": "string" } })
        }
    };
    schema["description"] = setting.doc.into();
    schema
}

fn check_request() -> Value {
    json!({
        "type": "object",
        "description": "A site to check once.",
        "required": ["url"],
        "properties": input_keys(true),
        "additionalProperties": false,
    })
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
    object(description, &required, properties.into())
}

fn object(doc: &str, required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "description": doc, "required": required, "properties": properties })
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
        region.into(),
    );
    let window = object(
        "Its checks in some time.",
        &["window", "from", "to", "total", "regions"],
        json!({
            "window": { "enum": ["24h", "7d", "30d", null], "description": "null where bounds were given." },
            "from": time("Counted from here, a whole hour."),
            "to": time("Up to before here, a whole hour."),
            "total": object("All regions together.", &COUNTS, counts().into()),
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
            "items": { "type": "array", "items": object("An hour or a day.", &required, period.into()) },
        }),
    )
}

fn status() -> Value {
    let by_status: Map<String, Value> =
        SiteStatus::ALL.into_iter().map(|status| (status.as_str().to_owned(), count(""))).collect();
    let recent = json!({
        "type": "object",
        "required": ["last_minute", "last_5_minutes"],
        "properties": { "last_minute": count(""), "last_5_minutes": count("") },
    });
    let by_outcome: Map<String, Value> =
        Outcome::ALL.into_iter().map(|o| (o.as_str().to_owned(), recent.clone())).collect();
    object(
        "What the tables tell.",
        &["database", "schema_version", "sites", "checks", "newest_check", "rejected"],
        json!({
            "database": { "enum": ["ok"] },
            "schema_version": count("The last migration that was applied."),
            "sites": { "type": "object", "description": "Sites by status.", "properties": by_status },
            "checks": { "type": "object", "description": "Checks that were due lately, by outcome.", "properties": by_outcome },
            "newest_check": or_null(time("When the newest check of the last day was due.")),
            "rejected": count("Messages that could not be stored and are kept."),
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
