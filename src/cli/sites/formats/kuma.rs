//! uptime-kuma 1.x: the list `monitorList` of its backup.

use serde_json::Value;

use super::fields::Fields;
use super::statuses::Statuses;
use super::{Content, Entry, Note};

/// Fields that say nothing about a site: uptime-kuma's own numbers, and those of monitors of other
/// types, which every monitor has.
const NOT_OF_HTTP: [&str; 45] = [
    "id",
    "pathName",
    "childrenIDs",
    "weight",
    "screenshot",
    "maintenance",
    "forceInactive",
    "certExpiryDaysRemaining",
    "validCert",
    "includeSensitiveData",
    "hostname",
    "port",
    "packetSize",
    "dns_resolve_type",
    "dns_resolve_server",
    "dns_last_result",
    "docker_container",
    "docker_host",
    "pushToken",
    "mqttTopic",
    "mqttSuccessMessage",
    "mqttUsername",
    "mqttPassword",
    "databaseQuery",
    "databaseConnectionString",
    "grpcUrl",
    "grpcProtobuf",
    "grpcMethod",
    "grpcServiceName",
    "grpcEnableTls",
    "grpcBody",
    "grpcMetadata",
    "radiusUsername",
    "radiusPassword",
    "radiusSecret",
    "radiusCalledStationId",
    "radiusCallingStationId",
    "game",
    "gamedigGivenPortOnly",
    "kafkaProducerTopic",
    "kafkaProducerBrokers",
    "kafkaProducerSsl",
    "kafkaProducerAllowAutoTopicCreation",
    "kafkaProducerMessage",
    "kafkaProducerSaslOptions",
];
/// Seconds between checks where a monitor has none.
const INTERVAL_S: f64 = 60.0;
/// Of its interval so much is a monitor's timeout where it has none.
const TIMEOUT_PART: f64 = 0.8;
/// Most tries after a first one that a site may have.
const RETRIES_MAX: f64 = 5.0;
/// Longest pause before each of them, in seconds.
const PAUSE_MAX: f64 = 60.0;
/// Most redirects that a site may say.
const REDIRECTS_MAX: f64 = 30.0;

pub(super) fn read(root: &Value) -> Result<Content, String> {
    let Some(Value::Array(monitors)) = root.get("monitorList") else {
        return Err("has no monitorList: it is no backup of uptime-kuma 1.x".to_owned());
    };
    let mut content = Content::default();
    for (at, monitor) in monitors.iter().enumerate() {
        content.entries.push(monitor_site(monitor, at + 1));
    }
    let others = root.as_object().into_iter().flatten().filter(|(key, value)| {
        !matches!(key.as_str(), "monitorList" | "version") && value.as_array() != Some(&Vec::new())
    });
    content.notes.extend(others.map(|(key, _)| Note::new(key, "is not about monitors")));
    Ok(content)
}

fn monitor_site(monitor: &Value, number: usize) -> Entry {
    let mut fields = Fields::new(monitor, number);
    fields.entry.spec.name = fields.text("name").unwrap_or_default();
    let kind = fields.text("type").unwrap_or_default();
    if !matches!(kind.as_str(), "http" | "keyword" | "json-query") {
        return fields.refuse("type", format!("is {kind}; webmon checks http and https"));
    }
    if fields.flag("upsideDown") == Some(true) {
        let problem = "webmon has no monitors that are up while the site is down";
        return fields.refuse("upsideDown", problem);
    }
    fields.entry.spec.url = fields.text("url").unwrap_or_default();
    let interval = fields.number("interval").unwrap_or(INTERVAL_S);
    fields.interval("interval", interval);
    match fields.number("timeout").filter(|timeout| *timeout > 0.0) {
        Some(timeout) => fields.timeout("timeout", timeout),
        None => fields.timeout("timeout", (interval * TIMEOUT_PART).floor().max(1.0)),
    }
    request(&mut fields);
    answer(&mut fields, &kind);
    access(&mut fields);
    retries(&mut fields);
    if fields.flag("active") == Some(false) || monitor["forceInactive"] == true {
        fields.pause();
    }
    if fields.flag("expiryNotification") == Some(true) {
        let problem = "is a notification; as a fault it is min_certificate_days";
        fields.note("expiryNotification", problem);
    }
    fields.forget(&NOT_OF_HTTP);
    fields.done("webmon has nothing like it")
}

fn request(fields: &mut Fields) {
    fields.entry.spec.method = fields.text("method").filter(|method| method != "GET");
    if let Some(text) = fields.text("headers") {
        match serde_json::from_str::<Value>(&text) {
            Ok(headers @ Value::Object(_)) => {
                let mut inner = Fields::new(&serde_json::json!({ "headers": headers }), 0);
                fields.entry.spec.headers = inner.pairs("headers");
                fields.entry.faults.append(&mut inner.entry.faults);
            }
            _ => fields.fault("headers", "must be a JSON object"),
        }
    }
    fields.entry.spec.body = fields.text("body");
    let encoding = fields.text("httpBodyEncoding");
    if fields.entry.spec.body.is_some() {
        match encoding.as_deref() {
            None | Some("json") => fields.default_header("Content-Type", "application/json"),
            Some("xml") => fields.default_header("Content-Type", "text/xml; charset=utf-8"),
            Some(_) => fields.note("httpBodyEncoding", "is not known: the body is sent as it is"),
        }
    }
    if fields.flag("ignoreTls") == Some(true) {
        fields.set("ignoreTls", "tls_verify", "false");
    }
}

fn answer(fields: &mut Fields, kind: &str) {
    let redirects = fields.number("maxredirects");
    if let Some(redirects) = redirects {
        if redirects > REDIRECTS_MAX {
            fields.note("maxredirects", format!("is {REDIRECTS_MAX} now, the most"));
        }
        let text = redirects.min(REDIRECTS_MAX).to_string();
        fields.set("maxredirects", "max_redirects", &text);
    }
    match fields.take("accepted_statuscodes") {
        None => {}
        Some(Value::Array(list)) if !list.is_empty() => {
            let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            match crate::site::StatusSet::parse(&texts.unwrap_or_default().join(",")) {
                Ok(set) => {
                    let mut statuses = Statuses::all();
                    statuses.keep(|code| set.contains(code));
                    if redirects != Some(0.0) {
                        statuses = statuses.without_followed();
                    }
                    let statuses = statuses.to_string();
                    fields.entry.spec.expected_status =
                        Some(statuses).filter(|statuses| statuses != "200-299");
                }
                Err(problem) => fields.fault("accepted_statuscodes", problem),
            }
        }
        Some(_) => fields.fault("accepted_statuscodes", "must be a list of codes and ranges"),
    }
    let keyword = fields.text("keyword");
    let is_inverted = fields.flag("invertKeyword") == Some(true);
    match keyword.map(|keyword| regex::escape(&keyword)) {
        Some(keyword) if kind == "keyword" && is_inverted => {
            fields.set("keyword", "forbidden_regex", &keyword);
        }
        Some(keyword) if kind == "keyword" => fields.entry.spec.regex = Some(keyword),
        None if kind == "keyword" => fields.fault("keyword", "is missing"),
        // Left from when the monitor was of another type.
        _ => {}
    }
    if kind == "json-query" {
        fields.note("jsonPath", "webmon has no JSON queries; a regex may do");
    }
    fields.forget(&["jsonPath", "expectedValue"]);
}

fn access(fields: &mut Fields) {
    let method = fields.text("authMethod");
    let user = fields.text("basic_auth_user");
    let password = fields.text("basic_auth_pass");
    let (certificate, key) = (fields.text("tlsCert"), fields.text("tlsKey"));
    let ca = fields.text("tlsCa");
    match method.as_deref() {
        None | Some("basic") => {
            for (field, name, value) in
                [("basic_auth_user", "username", &user), ("basic_auth_pass", "password", &password)]
            {
                if let (Some(value), true) = (value, user.is_some()) {
                    fields.set(field, name, value);
                }
            }
        }
        Some("mtls") => {
            for (field, name, value) in [
                ("tlsCert", "tls_certificate", certificate),
                ("tlsKey", "tls_key", key),
                ("tlsCa", "tls_ca", ca),
            ] {
                if let Some(value) = value {
                    fields.set(field, name, &value);
                }
            }
        }
        Some(other) => fields.note("authMethod", format!("webmon has no {other}")),
    }
    let oauth = ["client_id", "client_secret", "token_url", "scopes", "auth_method"];
    oauth.iter().for_each(|name| fields.forget(&[&format!("oauth_{name}")]));
    fields.forget(&["authWorkstation", "authDomain"]);
}

fn retries(fields: &mut Fields) {
    let tries = fields.number("maxretries").unwrap_or_default();
    let pause = fields.number("retryInterval");
    if tries == 0.0 {
        return;
    }
    if tries > RETRIES_MAX {
        fields.note("maxretries", format!("is {RETRIES_MAX} now, the most"));
    }
    let tries = tries.min(RETRIES_MAX).floor();
    fields.set("maxretries", "retries", &tries.to_string());
    // uptime-kuma goes over to this interval; webmon tries within the site's own.
    let interval = f64::from(fields.entry.spec.interval.unwrap_or(1));
    let Some(pause) = pause.filter(|pause| *pause > 0.0) else { return };
    if pause <= PAUSE_MAX && pause * tries < interval {
        fields.set("retryInterval", "retry_pause", &pause.to_string());
    } else {
        let problem = "is longer than fits between two checks: 1 s now";
        fields.note("retryInterval", problem);
    }
}
