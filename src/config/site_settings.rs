//! The keys of a site that few sites have, read by their kinds.

use super::faults::Trouble;
use super::keys::Kind;
use super::values::{MASK, Value, quoted};
use super::websites::Entry;
use super::yaml::Node;
use crate::site::{SettingKind, SettingValue, Settings, is_secret};

/// Reads `node` as a value of `kind`; nothing when it is left open.
pub(super) fn read(
    entry: &Entry<'_, '_>,
    kind: SettingKind,
    node: &Node,
) -> Result<Option<SettingValue>, Trouble> {
    let value = |kind| entry.value(node, kind);
    // As everywhere in the file: what is empty is left open.
    let set = |text: Option<String>| text.filter(|text| !text.is_empty()).map(SettingValue::Text);
    Ok(match kind {
        SettingKind::Text => set(entry.text(node)?),
        SettingKind::Secret => set(entry.text(node).map_err(Trouble::hidden)?),
        SettingKind::Choice(words) => value(Kind::Choice(words))?.and_then(|value| match value {
            Value::Text(word) => Some(SettingValue::Text(word)),
            _ => None,
        }),
        SettingKind::Whole(min, max) => {
            let kind = Kind::Whole { min: min.into(), max: max.into(), unit: "" };
            value(kind)?.and_then(|value| match value {
                Value::Whole(number) => u32::try_from(number).ok().map(SettingValue::Whole),
                _ => None,
            })
        }
        SettingKind::Flag => value(Kind::Flag)?.and_then(|value| match value {
            Value::Flag(flag) => Some(SettingValue::Flag(flag)),
            _ => None,
        }),
        SettingKind::Seconds(min, max) => seconds(entry, node, (min, max))?,
        SettingKind::Map => {
            Some(entry.headers(node)?).filter(|map| !map.is_empty()).map(SettingValue::Map)
        }
    })
}

/// Seconds with a fraction; `range` in milliseconds.
fn seconds(
    entry: &Entry<'_, '_>,
    node: &Node,
    range: (u32, u32),
) -> Result<Option<SettingValue>, Trouble> {
    let wanted = format!("write {}, such as 1.5", SettingKind::Seconds(range.0, range.1).wanted());
    let expanded = entry.expanded(node)?;
    let (number, problem) = match (&expanded, node) {
        (_, Node::Null) => return Ok(None),
        (Some(text), _) if text.is_empty() => return Ok(None),
        (Some(text), _) => (text.trim().parse().ok(), "is no number"),
        // Far beyond any range before it loses digits.
        (None, Node::Whole(number)) => (Some(*number as f64), ""),
        (None, Node::Decimal(number)) => (Some(*number), ""),
        (None, Node::Text(text)) if text.is_empty() => return Ok(None),
        (None, Node::Text(text)) if text.trim().parse::<f64>().is_ok() => {
            let trouble = Trouble::new("is text, not a number", "write it without quotes");
            return Err(trouble.of(text));
        }
        (None, other) => {
            let trouble = Trouble::new(format!("is {}, not a number", other.what()), wanted);
            return Err(other.scalar().map_or(trouble.clone(), |text| trouble.of(text)));
        }
    };
    let (min, max) = (f64::from(range.0) / 1000.0, f64::from(range.1) / 1000.0);
    let problem = match number {
        None => problem,
        // A NaN is in no range.
        Some(number) if !(min..=max).contains(&number) => "is out of range",
        Some(number) => match SettingValue::from_seconds(number) {
            Some(value) => return Ok(Some(value)),
            None => "is finer than a millisecond",
        },
    };
    let written = expanded.or_else(|| node.scalar()).unwrap_or_default();
    Err(Trouble::new(problem, wanted).of(written))
}

/// Whether a fault of `field` may come from the fault of `other` alone.
pub(super) fn follows(field: &str, other: &str) -> bool {
    match field {
        // Both are measured by the interval.
        "timeout" => other == "interval",
        "retry_pause" => matches!(other, "interval" | "retries"),
        "password" => other == "username",
        "tls_certificate" => other == "tls_key",
        "tls_key" => other == "tls_certificate",
        _ => false,
    }
}

/// The value of a setting as a fault may show it, where the fault doesn't name it itself.
pub(super) fn value_of(settings: &Settings, field: &str) -> Option<String> {
    match settings.get(field) {
        Some(SettingValue::Text(text)) if matches!(field, "forbidden_regex" | "username") => {
            Some(text.clone())
        }
        _ => None,
    }
}

pub(super) fn cure_of(field: &str, problem: &str) -> &'static str {
    match field {
        "username" | "password" | "bearer_token" if problem.starts_with("is set ") => {
            "set username and password, or bearer_token, and no header Authorization with them"
        }
        "expected_headers" | "forbidden_headers" => "mend or remove that entry",
        "tls_certificate" | "tls_key" => {
            "set tls_certificate and tls_key, each as PEM or as {secret:NAME}"
        }
        "tls_ca" => "write the PEM, or {secret:NAME}",
        "server_name" => "write a host name, such as www.example.org",
        "proxy" => "write http://proxy.example:3128",
        "retry_pause" => "make it smaller, or retries, or the interval longer",
        _ => "mend it",
    }
}

/// The value of a setting as one would write it in the file, secrets masked.
pub(super) fn shown(name: &str, value: &SettingValue) -> String {
    match value {
        _ if is_secret(name) => format!("\"{MASK}\""),
        SettingValue::Text(text) => quoted(text),
        SettingValue::Whole(number) => number.to_string(),
        SettingValue::Millis(millis) => (f64::from(*millis) / 1000.0).to_string(),
        SettingValue::Flag(flag) => flag.to_string(),
        SettingValue::Map(map) => {
            let entry = |(name, text): &(String, String)| {
                format!("{}: {}", quoted(name), serde_json::Value::from(text.as_str()))
            };
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}
