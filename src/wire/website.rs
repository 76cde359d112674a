//! A site as one JSON object with the configuration's keys: in the API, and in the operator's
//! command.
//!
//! Invariants:
//! - What [`encode`] writes with secrets, [`decode`] reads back as the same spec.
//! - Without secrets, [`MASK`] stands for each; where a site is changed it is understood as the
//!   value that was there before.

use serde_json::{Map, Value};

use super::headers::{self, headers_json};
use super::masks::{is_reference, is_reference_proxy, masked_url};
use super::settings;
use crate::site::{
    SETTINGS, SITE_KEYS, SettingKind, SettingValue, Settings, SiteFault, SiteSpec, is_secret,
    setting,
};

pub use super::masks::MASK;

/// Whether secrets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// As they are.
    Shown,
    /// [`MASK`] in their place. What is a reference such as `{secret:NAME}` and nothing else is
    /// shown.
    Masked,
}

/// One fault of an object: the key, and what is wrong and would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key.
    pub field: String,
    /// What is wrong with it, on one line; no secret is in it.
    pub message: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl From<SiteFault> for Fault {
    fn from(fault: SiteFault) -> Self {
        Self::new(fault.field, fault.message)
    }
}

/// The object of `spec`: the common keys always, `null` where they are left open; the others
/// where they are set.
#[must_use]
pub fn encode(spec: &SiteSpec, secrets: Secrets) -> Map<String, Value> {
    let is_masked = secrets == Secrets::Masked;
    let url = if is_masked { masked_url(&spec.url) } else { spec.url.clone() };
    let headers = headers_json(&spec.headers, is_masked);
    let mut object = Map::new();
    let common: [Value; SITE_KEYS.len()] = [
        Value::from(spec.name.as_str()),
        Value::from(url),
        Value::from(spec.interval),
        Value::from(spec.timeout),
        Value::from(spec.regex.as_deref()),
        Value::from(spec.method.as_deref()),
        headers,
        Value::from(spec.body.as_deref()),
        Value::from(spec.expected_status.as_deref()),
    ];
    object.extend(SITE_KEYS.iter().map(|key| (*key).to_owned()).zip(common));
    for (name, value) in spec.settings.iter() {
        let hidden = is_masked && is_secret(name) && !is_shown(name, value);
        let value = if hidden { Value::from(MASK) } else { settings::json(value) };
        object.insert(name.to_owned(), value);
    }
    object
}

/// The spec of an object in which what is absent is left open. `before` is what the site was:
/// masks stand for its secrets.
///
/// # Errors
/// Every key that is none of a site or has a value of the wrong type. Ranges are looked at by
/// [`SiteSpec::build`].
pub fn decode(
    object: Map<String, Value>,
    before: Option<&SiteSpec>,
) -> Result<SiteSpec, Vec<Fault>> {
    read(object, SiteSpec::default(), before)
}

/// `before` with what `object` says (RFC 7396): `null` leaves a key open; headers, and settings
/// of several names, are taken name by name.
///
/// # Errors
/// As [`decode`].
pub fn patch(mut object: Map<String, Value>, before: &SiteSpec) -> Result<SiteSpec, Vec<Fault>> {
    for (key, value) in &mut object {
        let Value::Object(changes) = &mut *value else { continue };
        let old = match (key.as_str(), before.settings.get(key)) {
            ("headers", _) => before.headers.as_slice(),
            (_, Some(SettingValue::Map(map))) => map.as_slice(),
            _ => &[],
        };
        let is_map = setting(key).is_some_and(|setting| setting.kind == SettingKind::Map);
        if key != "headers" && !is_map {
            continue;
        }
        let text = |(name, text): &(String, String)| (name.clone(), Value::from(text.as_str()));
        let mut merged: Vec<(String, Value)> = old.iter().map(text).collect();
        for (name, value) in std::mem::take(changes) {
            // Names of headers have no case.
            merged.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
            if !value.is_null() {
                merged.push((name, value));
            }
        }
        *value = if is_map {
            Value::Object(merged.into_iter().collect())
        } else {
            // Pairs: a name may be there more than once.
            merged.into_iter().map(|(name, value)| Value::from(vec![name.into(), value])).collect()
        };
    }
    read(object, before.clone(), Some(before))
}

fn read(
    object: Map<String, Value>,
    mut spec: SiteSpec,
    before: Option<&SiteSpec>,
) -> Result<SiteSpec, Vec<Fault>> {
    let mut faults = Vec::new();
    if object.contains_key("regex") && object.contains_key("pattern") {
        faults.push(Fault::new("pattern", "is set together with regex; keep regex"));
    }
    for (key, value) in object {
        if let Err(message) = field(&mut spec, &key, value, before) {
            faults.push(Fault::new(key, message));
        }
    }
    if faults.is_empty() { Ok(spec) } else { Err(faults) }
}

fn field(
    spec: &mut SiteSpec,
    key: &str,
    value: Value,
    before: Option<&SiteSpec>,
) -> Result<(), String> {
    match key {
        "name" => spec.name = text(value)?.unwrap_or_default(),
        "url" => {
            let url = text(value)?.unwrap_or_default();
            spec.url = match before {
                Some(before) if url.contains(MASK) && url == masked_url(&before.url) => {
                    before.url.clone()
                }
                _ if url.contains(MASK) => return Err(no_mask()),
                _ => url,
            };
        }
        "interval" => spec.interval = seconds(&value)?,
        "timeout" => spec.timeout = seconds(&value)?,
        "regex" | "pattern" => spec.regex = text(value)?.filter(|regex| !regex.is_empty()),
        "method" => spec.method = text(value)?,
        "headers" => spec.headers = headers::read(value, before)?,
        "body" => spec.body = text(value)?,
        "expected_status" => spec.expected_status = statuses(value)?,
        other => return setting_value(&mut spec.settings, other, value, before),
    }
    Ok(())
}

fn setting_value(
    settings: &mut Settings,
    key: &str,
    value: Value,
    before: Option<&SiteSpec>,
) -> Result<(), String> {
    let Some(setting) = setting(key) else {
        return Err("is no key of a site".to_owned());
    };
    let value = match value {
        Value::Null => None,
        Value::String(mask) if setting.kind == SettingKind::Secret && mask == MASK => {
            let known = before.and_then(|before| before.settings.get(key));
            Some(known.cloned().ok_or_else(no_mask)?)
        }
        value => {
            let read = settings::read(setting.kind, value);
            let read = read.ok_or_else(|| format!("must be {}", setting.kind.wanted()))?;
            if has_nul(&read) {
                return Err(NUL.to_owned());
            }
            // Without entries it says nothing.
            Some(read).filter(|read| !matches!(read, SettingValue::Map(map) if map.is_empty()))
        }
    };
    match value {
        Some(value) => settings.set(key, value),
        None => {
            settings.unset(key);
            Ok(())
        }
    }
}

/// What no column takes.
pub(super) const NUL: &str = "has a NUL";

fn has_nul(value: &SettingValue) -> bool {
    match value {
        SettingValue::Text(text) => text.contains('\0'),
        SettingValue::Map(map) => map.iter().any(|(k, v)| k.contains('\0') || v.contains('\0')),
        _ => false,
    }
}

pub(super) fn no_mask() -> String {
    format!("has {MASK}, which stands for a value that is not shown: write the value")
}

fn text(value: Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.contains('\0') => Err(NUL.to_owned()),
        Value::String(text) => Ok(Some(text)),
        _ => Err("must be text".to_owned()),
    }
}

fn seconds(value: &Value) -> Result<Option<u32>, String> {
    let whole = |value: &Value| value.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    match value {
        Value::Null => Ok(None),
        value => whole(value).map(Some).ok_or_else(|| "must be whole seconds".to_owned()),
    }
}

/// `200`, `"200-299,301"` or `[200, "300-399"]`.
fn statuses(value: Value) -> Result<Option<String>, String> {
    let wrong = || "must be codes and ranges, such as \"200-299,301\"".to_owned();
    let part = |value: &Value| match value {
        Value::Number(code) if code.is_u64() => Some(code.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(parts) if !parts.is_empty() => {
            let parts: Option<Vec<String>> = parts.iter().map(part).collect();
            parts.map(|parts| Some(parts.join(","))).ok_or_else(wrong)
        }
        value => part(&value).map(Some).ok_or_else(wrong),
    }
}

fn is_shown(name: &str, value: &SettingValue) -> bool {
    match value {
        SettingValue::Text(text) if name == "proxy" => is_reference_proxy(text),
        SettingValue::Text(text) => is_reference(text),
        _ => false,
    }
}

/// All keys of a site, in the order they are shown.
pub fn keys() -> impl Iterator<Item = &'static str> {
    SITE_KEYS.into_iter().chain(SETTINGS.iter().map(|setting| setting.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("no object: {value}") };
        object
    }

    fn full() -> SiteSpec {
        SiteSpec {
            name: "a".to_owned(),
            url: "https://me:hunter2@a.example/x?y=1".to_owned(),
            interval: Some(60),
            timeout: Some(5),
            regex: Some("a+".to_owned()),
            method: Some("POST".to_owned()),
            headers: vec![
                ("Accept".to_owned(), "text/plain".to_owned()),
                ("X-Api-Key".to_owned(), "hunter3".to_owned()),
                ("Authorization".to_owned(), "Bearer {secret:t}".to_owned()),
            ],
            body: Some("{}".to_owned()),
            expected_status: Some("200-299".to_owned()),
            settings: settings::tests::every(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(decode(encode(&full(), Secrets::Shown), None).unwrap(), full());
        let repeated = ["a", "b"].map(|value| ("Accept".to_owned(), value.to_owned())).to_vec();
        for spec in [SiteSpec::default(), SiteSpec { headers: repeated, ..SiteSpec::default() }] {
            assert_eq!(decode(encode(&spec, Secrets::Shown), None).unwrap(), spec);
        }
    }

    #[test]
    fn secrets_are_masked_and_masks_stand_for_what_was_there() {
        let mut spec = full();
        let password = SettingValue::Text("hunter4".to_owned());
        spec.settings.set("password", password).unwrap();
        let masked = encode(&spec, Secrets::Masked);
        let shown = Value::Object(masked.clone()).to_string();
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("{secret:t}") && shown.contains("text/plain"), "{shown}");
        assert_eq!(masked["url"], "https://me:********@a.example/x?y=1");
        assert_eq!(decode(masked.clone(), Some(&spec)).unwrap(), spec);
        assert_eq!(patch(masked.clone(), &spec).unwrap(), spec, "the order of headers, too");
        let fields: Vec<String> =
            decode(masked, None).unwrap_err().into_iter().map(|fault| fault.field).collect();
        for field in ["url", "headers", "password"] {
            assert!(fields.iter().any(|found| found == field), "{field} in {fields:?}");
        }
        // The URL's password is not sent to another host.
        let moved = object(json!({"name": "a", "url": "https://me:********@b.example/"}));
        assert_eq!(decode(moved, Some(&spec)).unwrap_err()[0].field, "url");
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let spec = full();
        let changes = object(json!({
            "interval": null, "headers": {"accept": null, "X-B": "1"}, "retries": 3,
            "expected_headers": {"X-New": "b"}, "retry_pause": null, "expected_status": [200, "301-302"],
        }));
        let patched = patch(changes, &spec).unwrap();
        let names: Vec<&str> = patched.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["X-Api-Key", "Authorization", "X-B"]);
        assert_eq!((patched.interval, patched.timeout), (None, Some(5)));
        assert_eq!(patched.expected_status.as_deref(), Some("200,301-302"));
        assert_eq!(patched.settings.get("retries"), Some(&SettingValue::Whole(3)));
        assert_eq!(patched.settings.get("retry_pause"), None);
        let Some(SettingValue::Map(map)) = patched.settings.get("expected_headers") else {
            panic!("no headers");
        };
        assert_eq!(map.len(), 2, "the one that was there stays");
    }

    #[test]
    fn a_patch_merges_by_name() {
        let plain = SiteSpec::default();
        for nothing in [
            json!({"headers": {"X": null}}),
            json!({"expected_headers": {"X": null}}),
            json!({"expected_headers": {}}),
        ] {
            assert_eq!(patch(object(nothing.clone()), &plain), Ok(plain.clone()), "{nothing}");
        }
        let mut has = plain.clone();
        let map = vec![("X".to_owned(), "a".to_owned())];
        has.settings.set("expected_headers", SettingValue::Map(map)).unwrap();
        let last = object(json!({"expected_headers": {"x": null}}));
        assert_eq!(patch(last, &has), Ok(plain), "without entries it is not set");

        // Headers of which a name is there twice are merged, too.
        let pairs = |pairs: &[(&str, &str)]| -> headers::Headers {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let twice = pairs(&[("Cookie", "a"), ("Cookie", "b"), ("X", "1")]);
        let spec = SiteSpec { headers: twice, ..SiteSpec::default() };
        let patched = patch(object(json!({"headers": {"x": null, "Y": "2"}})), &spec).unwrap();
        assert_eq!(patched.headers, pairs(&[("Cookie", "a"), ("Cookie", "b"), ("Y", "2")]));
        let patched = patch(object(json!({"headers": {"cookie": "c"}})), &spec).unwrap();
        assert_eq!(patched.headers, pairs(&[("X", "1"), ("cookie", "c")]));
        assert!(patch(object(json!({"headers": {"Y": 2}})), &spec).is_err());

        // Which of two is meant can't be told, unless both are there.
        let masked = json!({"headers": [["Cookie", MASK], ["Cookie", MASK], ["X", "1"]]});
        assert_eq!(patch(object(masked), &spec).unwrap(), spec);
        for unclear in [
            json!({"headers": [["Cookie", MASK], ["X", "1"]]}),
            json!({"headers": {"Cookie": MASK}}),
            json!({"headers": [["Cookie", MASK], ["Cookie", MASK], ["Cookie", MASK]]}),
        ] {
            let faults = patch(object(unclear.clone()), &spec).unwrap_err();
            assert!(faults[0].message.contains("2 of that name"), "{unclear}: {faults:?}");
        }
    }

    #[test]
    fn no_text_has_a_nul() {
        for (field, value) in [
            ("tls_ca", json!("a\u{0}")),
            ("tls_certificate", json!("\u{0}")),
            ("username", json!("a\u{0}b")),
            ("expected_headers", json!({"X": "a\u{0}"})),
            ("forbidden_headers", json!({"X\u{0}": "a"})),
            ("headers", json!({"X": "a\u{0}"})),
            ("body", json!("\u{0}")),
        ] {
            let faults = decode(object(json!({field: value})), None).unwrap_err();
            assert_eq!(
                (faults[0].field.as_str(), faults[0].message.as_str()),
                (field, "has a NUL")
            );
        }
    }

    #[test]
    fn a_secret_beside_a_reference_is_masked() {
        let mut spec = SiteSpec {
            url: "https://hunter2@a.example/".to_owned(),
            headers: vec![
                ("Cookie".to_owned(), "session=hunter3; csrf={secret:csrf}".to_owned()),
                ("X-Auth".to_owned(), "hunter4".to_owned()),
                ("X-Session".to_owned(), "hunter5".to_owned()),
            ],
            ..SiteSpec::default()
        };
        for (name, value) in [
            ("password", "hunter6{secret:a}"),
            ("proxy", "http://me:hunter7{secret:a}@p.example:3128"),
        ] {
            spec.settings.set(name, SettingValue::Text(value.to_owned())).unwrap();
        }
        let masked = encode(&spec, Secrets::Masked);
        let shown = Value::Object(masked.clone()).to_string();
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(decode(masked, Some(&spec)).unwrap(), spec);
    }

    #[test]
    fn every_fault_is_listed() {
        let wrong = json!({
            "name": 1, "url": true, "interval": "60", "timeout": 1.5, "regex": [], "method": 1,
            "headers": {"A": 1}, "body": {}, "expected_status": {}, "retries": 9, "colour": "blue",
            "password": MASK,
        });
        let faults = decode(object(wrong.clone()), None).unwrap_err();
        assert_eq!(faults.len(), wrong.as_object().unwrap().len(), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.message.contains("0 to 5")), "{faults:?}");
        let both = object(json!({"regex": "a", "pattern": "b"}));
        assert_eq!(decode(both, None).unwrap_err()[0].field, "pattern");
        assert!(decode(object(json!({"name": "a\u{0}"})), None).is_err());
    }
}
