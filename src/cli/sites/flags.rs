//! Flags into what a site has.

use super::super::sites_args::{SiteFlags, UpdateArgs};
use crate::config::nearest;
use crate::site::{SETTINGS, SettingValue, SiteSpec, setting};
use crate::wire::website;

/// Puts what was typed into `spec`; every fault by its option goes to `faults`. No value is shown:
/// many are secrets.
pub(super) fn apply(spec: &mut SiteSpec, flags: &SiteFlags, faults: &mut Vec<String>) {
    let mut seconds = |option: &str, text: &Option<String>, into: &mut Option<u32>| match text
        .as_deref()
        .map(str::parse)
    {
        Some(Ok(seconds)) => *into = Some(seconds),
        Some(Err(_)) => faults.push(format!("{option}: must be whole seconds")),
        None => {}
    };
    seconds("--interval", &flags.interval, &mut spec.interval);
    seconds("--timeout", &flags.timeout, &mut spec.timeout);
    for (typed, into) in [
        (&flags.regex, &mut spec.regex),
        (&flags.method, &mut spec.method),
        (&flags.body, &mut spec.body),
        (&flags.expected_status, &mut spec.expected_status),
    ] {
        if typed.is_some() {
            into.clone_from(typed);
        }
    }
    let mut headers = Vec::with_capacity(flags.headers.len());
    for text in &flags.headers {
        match text.split_once(':') {
            Some((name, value)) => headers.push((name.trim().to_owned(), value.trim().to_owned())),
            None => faults.push("--header: must be 'Name: value'".to_owned()),
        }
    }
    // One that is named replaces those of its name; several of one name stay several.
    let is_named = |name: &str| headers.iter().any(|(new, _)| new.eq_ignore_ascii_case(name));
    spec.headers.retain(|(name, _)| !is_named(name));
    spec.headers.extend(headers);
    for text in &flags.settings {
        let (key, result) = match text.split_once('=') {
            Some((key, value)) => (format!("--set {}", key.trim()), set(spec, key.trim(), value)),
            None => {
                let problem = "must be KEY=VALUE, such as retry_pause=0.5";
                ("--set".to_owned(), Err(problem.to_owned()))
            }
        };
        faults.extend(result.err().map(|problem| format!("{key}: {problem}")));
    }
}

/// Sets what the table of settings has as `key`; entries of a map come one by one.
fn set(spec: &mut SiteSpec, key: &str, text: &str) -> Result<(), String> {
    let Some(setting) = setting(key) else {
        return Err(unknown(key, SETTINGS.iter().map(|setting| setting.name)));
    };
    let value = match (setting.parse(text)?, spec.settings.get(key)) {
        (SettingValue::Map(new), Some(SettingValue::Map(old))) => {
            let is_new = |name: &str| new.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
            let kept = old.iter().filter(|(name, _)| !is_new(name)).cloned();
            SettingValue::Map(kept.chain(new.iter().cloned()).collect())
        }
        (value, _) => value,
    };
    spec.settings.set(key, value)
}

fn unknown(key: &str, keys: impl Iterator<Item = &'static str>) -> String {
    let keys: Vec<&str> = keys.collect();
    match nearest(key, keys.iter().copied()) {
        Some(meant) => format!("is no setting of a site; did you mean '{meant}'?"),
        None => format!("is no setting of a site; these are: {}", keys.join(", ")),
    }
}

/// What `update` makes of a site.
pub(super) fn update(spec: &SiteSpec, args: &UpdateArgs, faults: &mut Vec<String>) -> SiteSpec {
    let mut spec = spec.clone();
    for key in &args.unset {
        if let Err(problem) = unset(&mut spec, key) {
            faults.push(format!("--unset {key}: {problem}"));
        }
    }
    if let Some(name) = &args.name {
        spec.name.clone_from(name);
    }
    if let Some(url) = &args.url {
        spec.url.clone_from(url);
    }
    apply(&mut spec, &args.flags, faults);
    spec
}

fn unset(spec: &mut SiteSpec, key: &str) -> Result<(), String> {
    match key {
        "name" | "url" => return Err("no site can do without it".to_owned()),
        "interval" => spec.interval = None,
        "timeout" => spec.timeout = None,
        "regex" => spec.regex = None,
        "method" => spec.method = None,
        "headers" => spec.headers.clear(),
        "body" => spec.body = None,
        "expected_status" => spec.expected_status = None,
        other => match other.strip_prefix("headers.") {
            Some(name) => {
                let before = spec.headers.len();
                spec.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(name));
                if spec.headers.len() == before {
                    return Err("the site has no such header".to_owned());
                }
            }
            None if setting(other).is_some() => spec.settings.unset(other),
            None => return Err(unknown(other, website::keys())),
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn faults_are_all_listed_without_values() {
        let flags = SiteFlags {
            interval: Some("hunter2".to_owned()),
            headers: texts(&["hunter2"]),
            settings: texts(&["hunter2", "retrys=hunter2", "retry_pause=hunter2"]),
            ..SiteFlags::default()
        };
        let (mut spec, mut faults) = (SiteSpec::default(), Vec::new());
        apply(&mut spec, &flags, &mut faults);
        assert_eq!(
            faults,
            [
                "--interval: must be whole seconds",
                "--header: must be 'Name: value'",
                "--set: must be KEY=VALUE, such as retry_pause=0.5",
                "--set retrys: is no setting of a site; did you mean 'retries'?",
                "--set retry_pause: must be seconds from 0 to 60",
            ]
        );
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut before = SiteSpec {
            interval: Some(60),
            timeout: Some(5),
            headers: vec![header("Accept", "a"), header("X-A", "b"), header("X-B", "c")],
            ..SiteSpec::default()
        };
        set(&mut before, "expected_headers", "Server: old").unwrap();
        set(&mut before, "expected_headers", "Via: x").unwrap();
        let args = UpdateArgs {
            site: String::new(),
            name: Some("n".to_owned()),
            url: None,
            flags: SiteFlags {
                timeout: Some("7".to_owned()),
                headers: texts(&["accept: d", "Accept: e"]),
                settings: texts(&["expected_headers=server: new"]),
                ..SiteFlags::default()
            },
            unset: texts(&["interval", "headers.x-a", "retries"]),
        };
        let mut faults = Vec::new();
        let spec = update(&before, &args, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((spec.name.as_str(), spec.interval, spec.timeout), ("n", None, Some(7)));
        let headers = [header("X-B", "c"), header("accept", "d"), header("Accept", "e")];
        assert_eq!(spec.headers, headers);
        let patterns = SettingValue::Map(vec![header("Via", "x"), header("server", "new")]);
        assert_eq!(spec.settings.get("expected_headers"), Some(&patterns));
        for (key, problem) in [
            ("url", "no site can do without it"),
            ("headers.Accept", "the site has no such header"),
            ("colour", "is no setting of a site; these are: name, url"),
        ] {
            let found = unset(&mut SiteSpec::default(), key).unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }
}
