//! A site's settings as one JSON object: in the table of sites, and in the copy that a producer
//! keeps. Names and kinds are those of [`crate::site::SETTINGS`].

use serde_json::{Map, Number, Value};

use crate::site::{SettingKind, SettingValue, Settings, setting};

/// The object of `settings`; nothing when none is set.
#[must_use]
pub fn encode(settings: &Settings) -> Option<Value> {
    let object: Map<String, Value> =
        settings.iter().map(|(name, value)| (name.to_owned(), json(value))).collect();
    (!object.is_empty()).then_some(Value::Object(object))
}

/// The settings of an object. What is none, or has a value that it can't have, is noted as a
/// fault of the site; `null` is what is not set.
#[must_use]
pub fn decode(object: Value) -> Settings {
    let mut settings = Settings::default();
    let Value::Object(object) = object else {
        settings.note_fault("the whole", "is no readable JSON object");
        return settings;
    };
    for (name, value) in object.into_iter().filter(|(_, value)| !value.is_null()) {
        let read = match setting(&name) {
            Some(setting) => read(setting.kind, value)
                .ok_or_else(|| format!("must be {}", setting.kind.wanted()))
                .and_then(|value| settings.set(&name, value)),
            None => Err("is no setting of a site".to_owned()),
        };
        if let Err(problem) = read {
            settings.note_fault(&name, problem);
        }
    }
    settings
}

pub(super) fn json(value: &SettingValue) -> Value {
    match value {
        SettingValue::Text(text) => Value::from(text.as_str()),
        SettingValue::Whole(number) => Value::from(*number),
        // Whole seconds without a fraction, as people write them.
        SettingValue::Millis(millis) if millis % 1000 == 0 => Value::from(millis / 1000),
        SettingValue::Millis(millis) => Value::from(f64::from(*millis) / 1000.0),
        SettingValue::Flag(flag) => Value::from(*flag),
        SettingValue::Map(map) => {
            map.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect()
        }
    }
}

/// A value of `kind`, whatever its range.
pub(super) fn read(kind: SettingKind, value: Value) -> Option<SettingValue> {
    let whole = |number: &Number| number.as_u64().and_then(|number| u32::try_from(number).ok());
    match (kind, value) {
        (SettingKind::Text | SettingKind::Secret | SettingKind::Choice(_), Value::String(text)) => {
            Some(SettingValue::Text(text))
        }
        (SettingKind::Whole(..), Value::Number(number)) => whole(&number).map(SettingValue::Whole),
        (SettingKind::Seconds(..), Value::Number(number)) => {
            number.as_f64().and_then(SettingValue::from_seconds)
        }
        (SettingKind::Flag, Value::Bool(flag)) => Some(SettingValue::Flag(flag)),
        (SettingKind::Map, Value::Object(map)) => {
            let entry = |(name, text): (String, Value)| match text {
                Value::String(text) => Some((name, text)),
                _ => None,
            };
            map.into_iter().map(entry).collect::<Option<_>>().map(SettingValue::Map)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::site::SETTINGS;

    /// Every setting with some value.
    pub(in crate::wire) fn every() -> Settings {
        let mut settings = Settings::default();
        for setting in &SETTINGS {
            let text = match setting.kind {
                SettingKind::Text | SettingKind::Secret => "a text",
                SettingKind::Choice(words) => words[1],
                SettingKind::Whole(..) => "3",
                SettingKind::Seconds(..) => "1.25",
                SettingKind::Flag => "false",
                SettingKind::Map => "X-Long-Name: a",
            };
            settings.set(setting.name, setting.parse(text).unwrap()).unwrap();
        }
        settings
    }

    #[test]
    fn every_kind_reads_back() {
        let object = encode(&every()).unwrap();
        assert_eq!(object.as_object().unwrap().len(), SETTINGS.len());
        assert_eq!(object["retry_pause"], 1.25);
        assert_eq!(object["expected_headers"], serde_json::json!({"X-Long-Name": "a"}));
        assert_eq!(decode(object), every());
        assert_eq!(encode(&Settings::default()), None);
    }

    #[test]
    fn what_does_not_fit_is_noted_by_name_without_its_value() {
        let settings = decode(serde_json::json!({
            "colour": "hunter2", "password": ["hunter2"], "retries": 1.5, "retry_pause": "2",
            "tls_verify": 0, "connection": "hunter2", "expected_headers": {"A": 1},
            "max_redirects": 31, "proxy": null, "username": "u",
        }));
        assert_eq!(settings.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["username"]);
        let faults: Vec<String> =
            settings.faults().iter().map(|(name, problem)| format!("{name} {problem}")).collect();
        assert_eq!(
            faults,
            [
                "colour is no setting of a site",
                "password must be text",
                "retries must be a whole number from 0 to 5",
                "retry_pause must be seconds from 0 to 60",
                "tls_verify must be true or false",
                "connection must be one of fresh, kept",
                "expected_headers must be names with texts",
                "max_redirects must be a whole number from 0 to 30",
            ]
        );
        assert_eq!(decode(Value::from(7)).faults().len(), 1);
    }
}
