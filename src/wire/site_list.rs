//! The copy of the site list that a producer keeps, for starting while the database is away.
//!
//! JSON, read only by the same program; what an older release wrote and this one can't read is
//! an error, and the producer waits for the database.

use serde::{Deserialize, Serialize};

use super::settings;
use crate::site::{Settings, SiteSpec};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct List {
    v: u32,
    sites: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    website_id: i64,
    name: String,
    url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interval: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected_status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<serde_json::Value>,
    /// Names and problems of what was no setting: the site is no better for being read again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    setting_faults: Vec<(String, String)>,
}

/// Why a copy can't be read.
#[derive(Debug)]
pub struct ListError(String);

impl std::fmt::Display for ListError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ListError {}

/// The copy of these sites.
#[must_use]
pub fn encode(sites: &[(i64, SiteSpec)]) -> Vec<u8> {
    let entry = |(website_id, spec): &(i64, SiteSpec)| Entry {
        website_id: *website_id,
        name: spec.name.clone(),
        url: spec.url.clone(),
        interval: spec.interval,
        timeout: spec.timeout,
        regex: spec.regex.clone(),
        method: spec.method.clone(),
        headers: spec.headers.clone(),
        body: spec.body.clone(),
        expected_status: spec.expected_status.clone(),
        settings: settings::encode(&spec.settings),
        setting_faults: spec.settings.faults().to_vec(),
    };
    let list = List { v: VERSION, sites: sites.iter().map(entry).collect() };
    // A struct of text and numbers always serialises.
    serde_json::to_vec(&list).unwrap_or_default()
}

/// The sites of a copy.
///
/// # Errors
/// When it is none of this version's.
pub fn decode(copy: &[u8]) -> Result<Vec<(i64, SiteSpec)>, ListError> {
    let list: List = serde_json::from_slice(copy).map_err(|e| ListError(e.to_string()))?;
    if list.v != VERSION {
        return Err(ListError(format!("version {}, not {VERSION}", list.v)));
    }
    Ok(list
        .sites
        .into_iter()
        .map(|entry| {
            let mut settings = entry.settings.map_or_else(Settings::default, settings::decode);
            for (name, problem) in entry.setting_faults {
                settings.note_fault(&name, problem);
            }
            let spec = SiteSpec {
                name: entry.name,
                url: entry.url,
                interval: entry.interval,
                timeout: entry.timeout,
                regex: entry.regex,
                method: entry.method,
                headers: entry.headers,
                body: entry.body,
                expected_status: entry.expected_status,
                settings,
            };
            (entry.website_id, spec)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_reads_back() {
        let full = SiteSpec {
            name: "a".to_owned(),
            url: "https://example.org/".to_owned(),
            interval: Some(60),
            timeout: Some(5),
            regex: Some("x+".to_owned()),
            method: Some("POST".to_owned()),
            headers: vec![("accept".to_owned(), "*/*".to_owned())],
            body: Some("{}".to_owned()),
            expected_status: Some("200".to_owned()),
            settings: settings::tests::every(),
        };
        let mut faulty = full.clone();
        faulty.settings.note_fault("colour", "is no setting of a site");
        let bare = SiteSpec { name: "b".to_owned(), url: "http://b/".to_owned(), ..full.clone() };
        let sites = vec![(1, full), (2, bare), (3, SiteSpec::default()), (4, faulty)];
        assert_eq!(decode(&encode(&sites)).unwrap(), sites);
        let old = br#"{"v":1,"sites":[{"website_id":3,"name":"","url":""}]}"#;
        assert_eq!(decode(old).unwrap(), sites[2..3]);
        assert!(decode(b"{}").is_err());
        assert!(decode(br#"{"v":2,"sites":[]}"#).unwrap_err().to_string().contains("version 2"));
    }
}
