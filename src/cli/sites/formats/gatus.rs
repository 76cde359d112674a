//! gatus: the list `endpoints` of its configuration.

use serde_json::Value;

use super::conditions::Conditions;
use super::fields::{Fields, duration_ms};
use super::{Content, Entry, Note};

/// Seconds between checks where gatus is told nothing else.
const INTERVAL_S: f64 = 60.0;
const NOTHING_LIKE_IT: &str = "webmon has nothing like it";

pub(super) fn read(root: &Value) -> Result<Content, String> {
    let Some(Value::Array(endpoints)) = root.get("endpoints") else {
        return Err("has no list endpoints".to_owned());
    };
    let mut content = Content::default();
    for (at, endpoint) in endpoints.iter().enumerate() {
        content.entries.push(endpoint_site(endpoint, at + 1));
    }
    // Suites and external endpoints are watched otherwise; the rest is about gatus itself.
    let others = root.as_object().into_iter().flatten().filter(|(key, _)| *key != "endpoints");
    let note = |(key, _)| Note::new(key, "is not about endpoints; webmon has its own");
    content.notes.extend(others.map(note));
    Ok(content)
}

fn endpoint_site(endpoint: &Value, number: usize) -> Entry {
    let mut fields = Fields::new(endpoint, number);
    variables(endpoint, "", &mut fields);
    let name = fields.text("name").unwrap_or_default();
    fields.entry.spec.name = match fields.text("group") {
        Some(group) => format!("{group}/{name}"),
        None => name,
    };
    fields.entry.spec.url = fields.text("url").unwrap_or_default();
    for (key, kind) in [("dns", "DNS"), ("ssh", "SSH")] {
        if fields.has(key) {
            return fields
                .refuse(key, format!("is a check of {kind}; webmon checks http and https"));
        }
    }
    let scheme = fields.entry.spec.url.split_once("://").map(|(scheme, _)| scheme.to_owned());
    if let Some(scheme) = scheme.filter(|scheme| scheme != "http" && scheme != "https") {
        return fields.refuse("url", format!("is {scheme}; webmon checks http and https"));
    }
    fields.entry.spec.method = fields.text("method");
    fields.entry.spec.headers = fields.pairs("headers");
    fields.entry.spec.body = fields.text("body");
    if fields.flag("graphql") == Some(true) {
        let body = fields.entry.spec.body.take().unwrap_or_default();
        fields.entry.spec.body = Some(serde_json::json!({ "query": body }).to_string());
        fields.default_header("Content-Type", "application/json");
    }
    let interval = seconds(&mut fields, "interval").unwrap_or(INTERVAL_S);
    fields.interval("interval", interval);
    fields.within("client", "client.", client);
    let follows = fields.entry.spec.settings.get("follow_redirects").is_none();
    let conditions = fields.take("conditions");
    match conditions.as_ref().map(texts) {
        Some(Some(conditions)) => Conditions::apply(&conditions, follows, &mut fields),
        Some(None) => fields.fault("conditions", "must be a list of texts"),
        // gatus refuses such an endpoint.
        None => fields.fault("conditions", "is missing"),
    }
    if fields.flag("enabled") == Some(false) {
        fields.pause();
    }
    fields.done(NOTHING_LIKE_IT)
}

fn client(fields: &mut Fields) {
    if fields.flag("insecure") == Some(true) {
        fields.set("insecure", "tls_verify", "false");
    }
    if fields.flag("ignore-redirect") == Some(true) {
        fields.set("ignore-redirect", "follow_redirects", "none");
    }
    if let Some(timeout) = seconds(fields, "timeout") {
        fields.timeout("timeout", timeout);
    }
    if let Some(proxy) = fields.text("proxy-url") {
        if proxy.starts_with("http://") {
            fields.set("proxy-url", "proxy", &proxy);
        } else {
            fields.note("proxy-url", "webmon goes through HTTP proxies only");
        }
    }
    fields.tell_rest(NOTHING_LIKE_IT);
}

fn seconds(fields: &mut Fields, key: &str) -> Option<f64> {
    let text = fields.text(key)?;
    let milliseconds = duration_ms(&text);
    if milliseconds.is_none() {
        fields.fault(key, "must be a duration, such as 30s or 5m");
    }
    milliseconds.map(|milliseconds| milliseconds / 1000.0)
}

fn texts(list: &Value) -> Option<Vec<String>> {
    list.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
}

/// Tells of the fields that refer to variables of gatus's environment.
fn variables(value: &Value, path: &str, fields: &mut Fields) {
    let name = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| variables(value, &name(key), fields));
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                variables(value, &format!("{path}[{at}]"), fields);
            }
        }
        Value::String(text) => {
            let begins = |c: char| c == '{' || c == '_' || c.is_ascii_alphabetic();
            if text.split('$').skip(1).any(|rest| rest.starts_with(begins)) {
                fields.note(path, "refers to a variable of gatus's environment: taken as written");
            }
        }
        _ => {}
    }
}
