//! The fields of another tool's entry: each is taken once, and what is left is told.

use serde_json::{Map, Value};

use super::{Entry, Note};
use crate::site::{INTERVAL_MAX_S, INTERVAL_MIN_S, setting};
use crate::store::SiteStatus;

/// An entry on its way to become a site.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Before the names of fields in notes, such as `client.`.
    prefix: &'static str,
    pub(super) entry: Entry,
}

impl Fields {
    /// The fields of `value`; not being an object is a fault.
    pub(super) fn new(value: &Value, number: usize) -> Self {
        let mut entry = Entry { number, ..Entry::default() };
        let map = match value {
            Value::Object(map) => map.clone(),
            _ => {
                entry.faults.push(Note::new("entry", "has no fields"));
                Map::new()
            }
        };
        Self { map, prefix: "", entry }
    }

    /// Goes on with the fields of the section `key`, if there is one, then with the others.
    pub(super) fn within(
        &mut self,
        key: &'static str,
        prefix: &'static str,
        f: impl Fn(&mut Self),
    ) {
        let section = match self.take(key) {
            Some(Value::Object(section)) => section,
            Some(_) => return self.fault(key, "has no fields"),
            None => return,
        };
        let outer = std::mem::replace(&mut self.map, section);
        self.prefix = prefix;
        f(self);
        self.prefix = "";
        self.map = outer;
    }

    /// Says that something of the field `key` has no counterpart, or another one.
    pub(super) fn note(&mut self, key: &str, message: impl Into<String>) {
        self.entry.notes.push(Note::new(format!("{}{key}", self.prefix), message));
    }

    pub(super) fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.entry.faults.push(Note::new(format!("{}{key}", self.prefix), message));
    }

    /// Says why the entry is no site for webmon.
    pub(super) fn refuse(mut self, key: &str, message: impl Into<String>) -> Entry {
        self.entry.refusal = Some(Note::new(key, message));
        self.entry.notes.clear();
        self.entry
    }

    /// Takes a field; what is null is not there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key).filter(|value| !value.is_null())
    }

    /// Whether a field is there and says something.
    pub(super) fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !is_nothing(value))
    }

    /// Takes text that is not empty.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => {
                self.fault(key, "must be text");
                None
            }
        }
    }

    /// Takes yes or no, also as 1 or 0.
    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Bool(flag) => Some(flag),
            Value::Number(number) if number.as_u64().is_some_and(|n| n < 2) => {
                Some(number.as_u64() == Some(1))
            }
            _ => {
                self.fault(key, "must be true or false");
                None
            }
        }
    }

    /// Takes a number that is not negative.
    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        let number = match self.take(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let good = number.filter(|number: &f64| number.is_finite() && *number >= 0.0);
        if good.is_none() {
            self.fault(key, "must be a number that is not negative");
        }
        good
    }

    /// Takes names with texts.
    pub(super) fn pairs(&mut self, key: &str) -> Vec<(String, String)> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let pair = |(name, value): (String, Value)| match value {
            Value::String(text) => Some((name, text)),
            Value::Number(number) => Some((name, number.to_string())),
            Value::Bool(flag) => Some((name, flag.to_string())),
            _ => None,
        };
        let pairs = match value {
            Value::Object(map) => map.into_iter().map(pair).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        pairs.unwrap_or_else(|| {
            self.fault(key, "must be names with texts");
            Vec::new()
        })
    }

    /// Sets a setting of the site, written as text.
    pub(super) fn set(&mut self, key: &str, name: &str, text: &str) {
        let Some(setting) = setting(name) else { return };
        let set = setting.parse(text).and_then(|value| self.entry.spec.settings.set(name, value));
        if let Err(problem) = set {
            self.fault(key, problem);
        }
    }

    /// Sets the interval, from seconds that may have a fraction.
    pub(super) fn interval(&mut self, key: &str, seconds: f64) {
        let (min, max) = (f64::from(INTERVAL_MIN_S), f64::from(INTERVAL_MAX_S));
        let whole = seconds.round().clamp(min, max);
        if (whole - seconds).abs() > f64::EPSILON {
            self.note(key, format!("is {whole} s now: webmon has whole seconds, {min} to {max}"));
        }
        // Clamped.
        self.entry.spec.interval = Some(whole as u32);
    }

    /// Sets the timeout; the interval must be set before.
    pub(super) fn timeout(&mut self, key: &str, seconds: f64) {
        let interval = self.entry.spec.interval.unwrap_or(INTERVAL_MAX_S);
        let whole = seconds.ceil().clamp(1.0, f64::from(interval - 1));
        if (whole - seconds).abs() > f64::EPSILON {
            let why = "webmon has whole seconds, less than the interval";
            self.note(key, format!("is {whole} s now: {why}"));
        }
        self.entry.spec.timeout = Some(whole as u32);
    }

    /// Adds a header unless one of its name is there.
    pub(super) fn default_header(&mut self, name: &str, value: &str) {
        let headers = &mut self.entry.spec.headers;
        if !headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }

    pub(super) fn pause(&mut self) {
        self.entry.status = Some(SiteStatus::Paused);
    }

    /// Forgets fields that say nothing about the site.
    pub(super) fn forget(&mut self, keys: &[&str]) {
        for key in keys {
            self.map.shift_remove(*key);
        }
    }

    /// Tells of every field that is left and says something.
    pub(super) fn tell_rest(&mut self, message: &str) {
        for (key, value) in std::mem::take(&mut self.map) {
            if !is_nothing(&value) {
                self.note(&key, message);
            }
        }
    }

    /// The entry, after the rest was told of.
    pub(super) fn done(mut self, message: &str) -> Entry {
        self.tell_rest(message);
        self.entry
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) => false,
    }
}

/// Milliseconds of a duration as Go and Prometheus write it: `1h30m`, `500ms`, `1.5s`, `2d`.
pub(super) fn duration_ms(text: &str) -> Option<f64> {
    let mut rest = text.trim();
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-6,
            "us" | "µs" => 1e-3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            "d" => 86_400e3,
            "w" => 7.0 * 86_400e3,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expect) in [
            ("30s", Some(30e3)),
            ("1h30m", Some(5400e3)),
            ("1.5s", Some(1500.0)),
            ("500ms", Some(500.0)),
            ("2d", Some(172_800e3)),
            ("10", None),
            ("", None),
            ("s", None),
            ("1y", None),
        ] {
            assert_eq!(duration_ms(text), expect, "{text}");
        }
    }
}
