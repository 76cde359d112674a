//! Sites as JSON Schema, from the tables of their keys.

use serde_json::{Map, Value, json};

use super::schemas::time;
use crate::site::{
    BODY_MAX, INTERVAL_MAX_S, INTERVAL_MIN_S, METHODS, NAME_MAX, PATTERN_MAX, SETTINGS, SITE_KEYS,
    Setting, SettingKind, URL_MAX,
};
use crate::store::SiteStatus;

/// A site as it is shown. What stands in the table may have come from elsewhere, so only types are
/// promised.
pub(super) fn website() -> Value {
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
pub(super) fn input(doc: &str, required: &[&str], read_only: &[&str]) -> Value {
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
        if key == "headers" && !is_whole {
            schema["anyOf"][0]["additionalProperties"] = text_or_none();
        }
        schema["description"] = doc(key).into();
        properties.insert(key.to_owned(), schema);
    }
    let pattern = json!({ "type": ["string", "null"], "maxLength": PATTERN_MAX, "description": "The same as regex, under its older name." });
    properties.insert("pattern".to_owned(), pattern);
    for setting in &SETTINGS {
        let mut schema = of_setting(setting);
        if setting.kind == SettingKind::Map && !is_whole {
            schema["additionalProperties"] = text_or_none();
        }
        properties.insert(setting.name.to_owned(), schema);
    }
    properties
}

/// An entry of a map in a change: `null` takes it away.
fn text_or_none() -> Value {
    json!({ "type": ["string", "null"] })
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

pub(super) fn check_request() -> Value {
    json!({
        "type": "object",
        "description": "A site to check once.",
        "required": ["url"],
        "properties": input_keys(true),
        "additionalProperties": false,
    })
}
