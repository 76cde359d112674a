//! The settings in force, as YAML that says where each came from.

use std::fmt::Write;

use super::Loaded;
use super::faults::public;
use super::keys::WEBSITES;
use super::site_settings;
use super::values::{MASK, quoted};
use super::websites::Website;

/// All settings as YAML, with the origin of each as comment. Secrets are masked; so are users in
/// the URLs of sites, values of their headers, and their bodies.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut open: Vec<&str> = Vec::new();
    for entry in &loaded.origins {
        let mut sections: Vec<&str> = entry.key.split('.').collect();
        let name = sections.pop().unwrap_or_default();
        let common = open.iter().zip(&sections).take_while(|(a, b)| a == b).count();
        for (depth, section) in sections.iter().enumerate().skip(common) {
            line(&mut text, depth, section, "", "");
        }
        let value = entry.value.as_deref().unwrap_or_default();
        line(&mut text, sections.len(), name, value, &entry.origin.to_string());
        open = sections;
    }
    if loaded.websites.is_empty() {
        line(&mut text, 0, WEBSITES, "[]", "");
    } else {
        line(&mut text, 0, WEBSITES, "", "");
        for website in &loaded.websites {
            site(&mut text, website);
        }
    }
    text
}

fn line(text: &mut String, depth: usize, name: &str, value: &str, origin: &str) {
    let begin = text.len();
    let _ = write!(text, "{:width$}{name}:", "", width = depth * 2);
    if !value.is_empty() {
        let _ = write!(text, " {value}");
    }
    if !origin.is_empty() {
        // Origins stand below each other where values are short.
        let used = text.len() - begin;
        let _ = write!(text, "{:width$}  # {origin}", "", width = 44_usize.saturating_sub(used));
    }
    text.push('\n');
}

fn site(text: &mut String, website: &Website) {
    let spec = &website.spec;
    let shown = |value: &Option<String>| value.as_deref().map(quoted);
    let headers: Vec<String> =
        spec.headers.iter().map(|(name, _)| format!("{}: \"{MASK}\"", quoted(name))).collect();
    let fields = [
        ("name", Some(quoted(&spec.name))),
        ("url", Some(quoted(&public(&spec.url)))),
        ("interval", spec.interval.map(|seconds| seconds.to_string())),
        ("timeout", spec.timeout.map(|seconds| seconds.to_string())),
        ("regex", shown(&spec.regex)),
        ("method", shown(&spec.method)),
        ("headers", (!headers.is_empty()).then(|| format!("{{{}}}", headers.join(", ")))),
        ("body", spec.body.is_some().then(|| format!("\"{MASK}\""))),
        ("expected_status", shown(&spec.expected_status)),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let settings = spec.settings.iter();
    let settings = settings.map(|(name, value)| (name, site_settings::shown(name, value)));
    let mut origin = website.origin.to_string();
    let mut first = true;
    for (name, value) in fields.chain(settings) {
        let name = if first { format!("- {name}") } else { format!("  {name}") };
        line(text, 1, &name, &value, &std::mem::take(&mut origin));
        first = false;
    }
}
