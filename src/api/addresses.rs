//! Where sites that come in over HTTP may be.
//!
//! Unless `api.allow_private_addresses` is set, a site that is added here, or whose request is
//! changed here, has `addresses: public`, and each of its checks keeps to that. What can be seen
//! at once is refused at once. A site that an operator has added stays as it is while only its
//! times and expectations are changed; its patterns, which tell of a page that may be private, only
//! by an admin.

use std::time::Duration;

use url::{Host, Url};

use super::refusal::Refusal;
use super::service::Call;
use super::{Problem, Role};
use crate::site::{SettingValue, SiteSpec};
use crate::wire::masks::public_url;
use crate::wire::website::Fault;

/// Longest look-up of a name of the own network.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);
const KEY: &str = "addresses";
const PUBLIC: &str = "public";

/// Settings that say what is requested, and where.
const OF_THE_REQUEST: [&str; 13] = [
    "username",
    "password",
    "bearer_token",
    "follow_redirects",
    "max_redirects",
    "tls_verify",
    "tls_ca",
    "server_name",
    "ip_version",
    "proxy",
    "tls_certificate",
    "tls_key",
    KEY,
];

/// Patterns that tell something of a page: `regex` what is on it, the others whether it is so.
const OF_THE_PAGE: [&str; 3] = ["forbidden_regex", "expected_headers", "forbidden_headers"];

/// `spec` as it may be stored; `before` is what it replaces.
pub(super) fn keep_public(
    call: &Call<'_>,
    mut spec: SiteSpec,
    before: Option<&SiteSpec>,
) -> Result<SiteSpec, Refusal> {
    if call.api.options.allow_private_addresses {
        return Ok(spec);
    }
    let was_public = before.is_none_or(is_public);
    if spec.settings.get(KEY).is_none() && was_public {
        set_public(&mut spec);
    }
    if let Some(before) = before
        && is_same_request(&spec, before)
        && (was_public
            || call.request.caller.role == Some(Role::Admin)
            || is_same_look(&spec, before))
    {
        return Ok(spec);
    }
    let mut faults = Vec::new();
    if spec.settings.get(KEY).is_some() && !is_public(&spec) {
        let message =
            "must be public: api.allow_private_addresses is false in webmon's configuration";
        faults.push(Fault::new(KEY, message));
    }
    set_public(&mut spec);
    faults.extend(refused(call, &spec));
    if faults.is_empty() { Ok(spec) } else { Err(Problem::invalid(faults).into()) }
}

fn is_public(spec: &SiteSpec) -> bool {
    matches!(spec.settings.get(KEY), Some(SettingValue::Text(text)) if text == PUBLIC)
}

fn set_public(spec: &mut SiteSpec) {
    // The table of settings has this word for it.
    let _ = spec.settings.set(KEY, SettingValue::Text(PUBLIC.to_owned()));
}

fn is_same_request(spec: &SiteSpec, before: &SiteSpec) -> bool {
    let same = |key: &&str| spec.settings.get(key) == before.settings.get(key);
    spec.url == before.url
        && spec.method == before.method
        && spec.headers == before.headers
        && spec.body == before.body
        && OF_THE_REQUEST.iter().all(same)
}

fn is_same_look(spec: &SiteSpec, before: &SiteSpec) -> bool {
    let same = |key: &&str| spec.settings.get(key) == before.settings.get(key);
    spec.regex == before.regex && OF_THE_PAGE.iter().all(same)
}

/// What is known at once to be no public address.
fn refused(call: &Call<'_>, spec: &SiteSpec) -> Vec<Fault> {
    let proxy = match spec.settings.get("proxy") {
        Some(SettingValue::Text(text)) => Some(("proxy", text.as_str())),
        _ => None,
    };
    let places = std::iter::once(("url", spec.url.as_str())).chain(proxy);
    let refused = places.filter_map(|(field, text)| {
        let url = Url::parse(text).ok()?;
        let host = match url.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        let why = call.api.options.prober.refused_as_public(&host, port, LOOKUP_LIMIT)?;
        let message =
            format!("{why}: api.allow_private_addresses is false in webmon's configuration");
        Some(Fault::new(field, message))
    });
    refused.collect()
}

/// The ways in which `url` may stand in the table, but for user and password, which can't be
/// searched for: who may not see them could try some.
pub(super) fn spellings(url: &str) -> Vec<String> {
    let mut spellings = vec![public_url(url)];
    if let Ok(normal) = Url::parse(&spellings[0]) {
        let normal = normal.as_str();
        // People leave out the slash of the root.
        let bare = normal.strip_suffix('/').filter(|bare| bare.matches('/').count() == 2);
        for other in [Some(normal), bare].into_iter().flatten() {
            if !spellings.iter().any(|known| known == other) {
                spellings.push(other.to_owned());
            }
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_found_in_its_usual_spellings() {
        for (url, expect) in [
            ("https://a.org", &["https://a.org", "https://a.org/"][..]),
            ("https://a.org/", &["https://a.org/", "https://a.org"]),
            ("HTTPS://A.org:443/b", &["HTTPS://A.org:443/b", "https://a.org/b"]),
            ("https://a.org/b/", &["https://a.org/b/"]),
            ("no url", &["no url"]),
            ("https://me:x@a.org/", &["https://a.org/", "https://a.org"]),
        ] {
            assert_eq!(spellings(url), expect, "{url}");
        }
    }
}
