//! Prometheus: the targets of `file_sd_configs`, as JSON or YAML.

use serde_json::Value;
use url::Url;

use super::fields::{Fields, duration_ms};
use super::{Content, Entry};

const NO_LABELS: &str = "webmon has no labels";

pub(super) fn read(root: &Value) -> Result<Content, String> {
    let Value::Array(groups) = root else {
        return Err("has no list of targets with labels".to_owned());
    };
    let mut content = Content::default();
    for group in groups {
        let targets = match group.get("targets") {
            Some(Value::Array(targets)) => targets.as_slice(),
            _ => return Err("has an entry without a list targets".to_owned()),
        };
        for target in targets {
            let number = content.entries.len() + 1;
            content.entries.push(target_site(group, target, targets.len() == 1, number));
        }
    }
    Ok(content)
}

/// The site of one target; `is_alone` says whether its labels are its own.
fn target_site(group: &Value, target: &Value, is_alone: bool, number: usize) -> Entry {
    let nothing = Value::Object(serde_json::Map::new());
    let labels = group.get("labels").filter(|labels| !labels.is_null()).unwrap_or(&nothing);
    let mut fields = Fields::new(labels, number);
    let Some(target) = target.as_str().filter(|target| !target.is_empty()) else {
        fields.fault("targets", "must be texts");
        return fields.entry;
    };
    // Targets of blackbox_exporter: what it shall ask stands as its parameter.
    let address = fields.text("__param_target").unwrap_or_else(|| target.to_owned());
    let scheme = fields.text("__scheme__");
    let path = fields.text("__metrics_path__");
    let url = match address.split_once("://") {
        Some((scheme, _)) if scheme != "http" && scheme != "https" => {
            let problem = format!("is {scheme}; webmon checks http and https");
            fields.entry.spec.name = address.clone();
            return fields.refuse("targets", problem);
        }
        Some(_) => address.clone(),
        None => {
            let path = path.clone().unwrap_or_default();
            format!("{}://{address}{path}", scheme.as_deref().unwrap_or("http"))
        }
    };
    let name = fields.text("name").or_else(|| fields.text("instance"));
    match name.filter(|_| is_alone) {
        Some(name) => fields.entry.spec.name = name,
        None => fields.entry.spec.name = address,
    }
    if !is_alone {
        for key in ["name", "instance"] {
            if labels.get(key).is_some() {
                fields.note(key, "is of several targets, so none has it as its name");
            }
        }
    }
    fields.entry.spec.url = with_parameters(&url, labels, &mut fields);
    for (key, is_interval) in [("__scrape_interval__", true), ("__scrape_timeout__", false)] {
        let Some(text) = fields.text(key) else { continue };
        match duration_ms(&text) {
            Some(milliseconds) if is_interval => fields.interval(key, milliseconds / 1000.0),
            Some(milliseconds) => fields.timeout(key, milliseconds / 1000.0),
            None => fields.fault(key, "must be a duration, such as 30s or 5m"),
        }
    }
    fields.done(NO_LABELS)
}

/// `url` with the parameters of labels such as `__param_page`.
fn with_parameters(url: &str, labels: &Value, fields: &mut Fields) -> String {
    let parameters: Vec<(String, String)> = labels
        .as_object()
        .into_iter()
        .flatten()
        // The probe's module says what blackbox_exporter expects.
        .filter(|(key, _)| *key != "__param_target" && *key != "__param_module")
        .filter_map(|(key, value)| Some((key.strip_prefix("__param_")?, value.as_str()?)))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if fields.has("__param_module") {
        let problem = "is in blackbox_exporter's configuration: set what it expects by hand";
        fields.note("__param_module", problem);
        fields.forget(&["__param_module"]);
    }
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    if parameters.is_empty() {
        return url.to_owned();
    }
    for (name, value) in parameters {
        parsed.query_pairs_mut().append_pair(&name, &value);
        fields.forget(&[&format!("__param_{name}")]);
    }
    parsed.into()
}
