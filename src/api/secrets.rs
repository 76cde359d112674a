//! What a caller may do with secrets.
//!
//! Who can't read a secret can't have it sent elsewhere either: where a change sends a site's
//! requests elsewhere, or trusts others with them, each secret of it must be written again. A
//! reference, which stands for a file on the producers' machine, is an admin's to set.

use serde_json::{Map, Value};

use super::refusal::Refusal;
use super::{Caller, Problem, Role};
use crate::site::{SettingValue, SiteSpec, has_secret};
use crate::wire::masks::{MASK, is_reference, is_secret_header, masked_url, origin};
use crate::wire::website::{Fault, Secrets, encode};

/// Settings that are secrets of the one whom the requests go to.
const SECRETS: [&str; 4] = ["password", "bearer_token", "tls_key", "proxy"];
/// Settings in which a reference is filled in.
const REFERRING: [&str; 7] =
    ["username", "password", "bearer_token", "tls_ca", "tls_certificate", "tls_key", "proxy"];

/// Looks at the change from `before`, which is absent where a site is added or only checked, to
/// `after`, as `body` asks for it.
pub(super) fn guard(
    caller: &Caller,
    body: &Map<String, Value>,
    before: Option<&SiteSpec>,
    after: &SiteSpec,
) -> Result<(), Refusal> {
    let is_moved = before.is_none_or(|before| is_moved(before, after));
    if caller.role != Some(Role::Admin)
        && let Some(field) = new_reference(before.filter(|_| !is_moved), after)
    {
        let detail = format!(
            "{field}: only the role admin may set a reference to a secret, or send one elsewhere"
        );
        return Err(Problem::new(403, detail).into());
    }
    if before.is_none() || !is_moved {
        return Ok(());
    }
    let faults = kept(body, after);
    if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults).into()) }
}

fn text<'s>(spec: &'s SiteSpec, key: &str) -> Option<&'s str> {
    match spec.settings.get(key) {
        Some(SettingValue::Text(text)) => Some(text),
        _ => None,
    }
}

/// Whether requests go elsewhere, or others are trusted.
fn is_moved(before: &SiteSpec, after: &SiteSpec) -> bool {
    let same = |key| before.settings.get(key) == after.settings.get(key);
    let is_lax =
        |spec: &SiteSpec| spec.settings.get("tls_verify") == Some(&SettingValue::Flag(false));
    let hosts = |spec: &SiteSpec| -> Vec<String> {
        let hosts = spec.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host"));
        hosts.map(|(_, host)| host.clone()).collect()
    };
    origin(&before.url) != origin(&after.url)
        || !["proxy", "tls_ca", "server_name"].into_iter().all(same)
        || (is_lax(after) && !is_lax(before))
        || hosts(before) != hosts(after)
}

/// The first key with a reference that `before` does not have in the same place.
fn new_reference(before: Option<&SiteSpec>, after: &SiteSpec) -> Option<&'static str> {
    if has_secret(&after.url) && before.is_none_or(|before| before.url != after.url) {
        return Some("url");
    }
    let is_known = |header| before.is_some_and(|before| before.headers.contains(header));
    if after.headers.iter().any(|header| has_secret(&header.1) && !is_known(header)) {
        return Some("headers");
    }
    REFERRING.into_iter().find(|key| {
        let new = text(after, key);
        new.is_some_and(has_secret) && before.and_then(|before| text(before, key)) != new
    })
}

/// The secrets of `after` that `body` does not have in full: they were there before.
fn kept(body: &Map<String, Value>, after: &SiteSpec) -> Vec<Fault> {
    let mut fields = Vec::new();
    let sent = |key: &str| body.get(key).and_then(Value::as_str);
    if masked_url(&after.url) != after.url && sent("url") != Some(&after.url) {
        fields.push("url");
    }
    let is_sent = |(name, value): &(String, String)| match body.get("headers") {
        Some(Value::Object(sent)) => {
            sent.iter().any(|(other, text)| other.eq_ignore_ascii_case(name) && text == value)
        }
        Some(Value::Array(sent)) => sent.iter().any(|pair| {
            let part = |at: usize| pair.get(at).and_then(Value::as_str).unwrap_or_default();
            part(0).eq_ignore_ascii_case(name) && part(1) == value
        }),
        _ => false,
    };
    let is_secret = |(name, value): &&(String, String)| {
        // Beside a reference in any header may stand a secret.
        (is_secret_header(name) || has_secret(value)) && !is_reference(value)
    };
    if after.headers.iter().filter(is_secret).any(|header| !is_sent(header)) {
        fields.push("headers");
    }
    // What is shown, such as a reference, is no secret.
    let shown = encode(after, Secrets::Masked);
    let is_masked = |key: &&str| shown.get(*key).is_some_and(|shown| shown == MASK);
    fields
        .extend(SECRETS.into_iter().filter(is_masked).filter(|key| sent(key) != text(after, key)));
    let message = "is a secret, and the change has it sent elsewhere or less safely: \
                   write its value again";
    fields.into_iter().map(|field| Fault::new(field, message)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::website::patch;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("no object: {value}") };
        object
    }

    fn by(role: Role) -> Caller {
        let address = std::net::IpAddr::from([127, 0, 0, 1]);
        Caller { name: "a".to_owned(), role: Some(role), address }
    }

    /// The status and what is refused, of a change by `role`.
    fn refused(role: Role, before: &SiteSpec, change: Value) -> Option<(u16, String)> {
        let body = object(change);
        let after = patch(body.clone(), before).unwrap();
        let refusal = guard(&by(role), &body, Some(before), &after).err()?.response();
        Some((refusal.status, String::from_utf8(refusal.body).unwrap()))
    }

    fn site(more: Value) -> SiteSpec {
        let plain = SiteSpec { url: "https://a.example/x".to_owned(), ..SiteSpec::default() };
        patch(object(more), &plain).unwrap()
    }

    #[test]
    fn a_secret_goes_nowhere_else() {
        for (field, secret) in [
            ("headers", json!({"headers": {"Authorization": "Bearer hunter2"}})),
            ("headers", json!({"headers": [["Cookie", "a"], ["Cookie", "b"]]})),
            ("password", json!({"username": "u", "password": "hunter2"})),
            ("bearer_token", json!({"bearer_token": "hunter2"})),
            ("tls_key", json!({"tls_key": "hunter2"})),
            ("url", json!({"url": "https://me:hunter2@a.example/"})),
        ] {
            let before = site(secret.clone());
            for change in [
                json!({"url": "https://b.example/x"}),
                json!({"url": "http://a.example/x"}),
                json!({"url": "https://a.example:444/x"}),
                json!({"proxy": "http://p.example:3128"}),
                json!({"tls_verify": false}),
                json!({"tls_ca": "x"}),
                json!({"server_name": "b.example"}),
                json!({"headers": {"Host": "b.example"}}),
            ] {
                if field == "url" && change.get("url").is_some() {
                    continue;
                }
                let (status, said) = refused(Role::Admin, &before, change.clone()).unwrap();
                assert_eq!(status, 422, "{change}: {said}");
                assert!(said.contains(&format!("\"field\":\"{field}\"")), "{change}: {said}");
                assert!(!said.contains("hunter2"), "{said}");
                let mut again = change;
                if field == "headers" && again.get("headers").is_some() {
                    continue;
                }
                again.as_object_mut().unwrap().extend(object(secret.clone()));
                assert_eq!(refused(Role::Write, &before, again.clone()), None, "{again}");
            }
            for change in [json!({"interval": 60}), json!({"tls_verify": true})] {
                assert_eq!(refused(Role::Write, &before, change), None);
            }
        }
        let before = site(json!({"proxy": "http://me:hunter2@p.example:3128"}));
        let (_, said) = refused(Role::Admin, &before, json!({"tls_verify": false})).unwrap();
        assert!(said.contains("\"field\":\"proxy\""), "{said}");
        let before = site(json!({"headers": {"X": "hunter2{secret:a}"}}));
        assert_eq!(refused(Role::Admin, &before, json!({"tls_verify": false})).unwrap().0, 422);
    }

    #[test]
    fn references_are_an_admins() {
        let plain = site(json!({}));
        for (field, change) in [
            ("headers", json!({"headers": {"X": "{secret:shop}"}})),
            ("password", json!({"username": "u", "password": "{secret:shop}"})),
            ("tls_ca", json!({"tls_ca": "{secret:shop}"})),
            ("username", json!({"username": "{secret:shop}"})),
            ("proxy", json!({"proxy": "http://me:{secret:shop}@p.example:3128"})),
            ("url", json!({"url": "https://me:{secret:shop}@a.example/x"})),
        ] {
            let (status, said) = refused(Role::Write, &plain, change.clone()).unwrap();
            assert!(status == 403 && said.contains(field), "{change}: {said}");
            assert_eq!(refused(Role::Admin, &plain, change.clone()), None, "{change}");
            let has = site(change.clone());
            assert_eq!(refused(Role::Write, &has, json!({"interval": 60})), None, "{change}");
            let moved = json!({"tls_verify": false});
            assert_eq!(refused(Role::Write, &has, moved.clone()).unwrap().0, 403, "{change}");
            assert_eq!(refused(Role::Admin, &has, moved), None, "{change}");
            let added = guard(&by(Role::Write), &object(change.clone()), None, &has);
            assert_eq!(added.unwrap_err().response().status, 403, "{change}");
        }
        let has = site(json!({"headers": {"A": "{secret:shop}"}}));
        let renamed = json!({"headers": {"A": null, "B": "{secret:shop}"}});
        assert_eq!(refused(Role::Write, &has, renamed).unwrap().0, 403);
        assert_eq!(refused(Role::Write, &has, json!({"headers": null})), None);
    }
}
