//! Which values of a site are secrets, and what is shown in their place.

use url::Url;

use crate::site::has_secret;

/// What stands for a secret that is not shown.
pub const MASK: &str = "********";

/// Headers whose values are secrets, by a part of their lower-case name.
const SECRET_HEADERS: [&str; 9] =
    ["auth", "cookie", "token", "secret", "key", "passw", "session", "credential", "signature"];
/// What may stand before a reference in a header, in lower case: it tells nothing.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// Whether the header's value is a secret, as far as its name tells.
#[must_use]
pub fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_HEADERS.iter().any(|part| name.contains(part))
}

/// Whether `value` is one reference such as `{secret:NAME}`, or `Bearer ` or `Basic ` with one, and
/// so tells nothing. Beside a reference may stand a secret.
#[must_use]
pub fn is_reference(value: &str) -> bool {
    let scheme = SCHEMES.into_iter().find(|scheme| {
        value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    });
    let value = &value[scheme.map_or(0, str::len)..];
    let inner = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    has_secret(value) && inner.is_some_and(|inner| !inner.contains(['{', '}']))
}

/// User and password of a URL as they stand before its `@`. Takes every spelling that readers of
/// URLs take, such as backslashes, or more slashes than two.
fn user_info(url: &str) -> Option<(usize, &str)> {
    let start = url.find(':')? + 1;
    let skipped = url[start..].trim_start_matches(['/', '\\', '\t', '\n', '\r']);
    let start = url.len() - skipped.len();
    let end = skipped.find(['/', '\\', '?', '#']).unwrap_or(skipped.len());
    skipped[..end].rfind('@').map(|at| (start, &skipped[..at]))
}

/// The URL as it is shown: its password masked, or a user without a password, which may be a
/// token; a password that is a reference is shown.
#[must_use]
pub fn masked_url(url: &str) -> String {
    let Some((start, info)) = user_info(url) else { return url.to_owned() };
    let masked = match info.split_once(':') {
        Some((_, password)) if is_reference(password) => return url.to_owned(),
        Some((user, password)) if !password.is_empty() => format!("{user}:{MASK}"),
        Some(("", _)) => return url.to_owned(),
        Some(_) => format!("{MASK}:"),
        None if info.is_empty() => return url.to_owned(),
        None => MASK.to_owned(),
    };
    format!("{}{masked}{}", &url[..start], &url[start + info.len()..])
}

/// Whether nothing of the proxy's URL is a secret but for a reference to one. Where there is no
/// password, too, it is taken for a secret.
pub(super) fn is_reference_proxy(url: &str) -> bool {
    user_info(url)
        .and_then(|(_, info)| info.split_once(':'))
        .is_some_and(|(_, password)| is_reference(password))
}

/// The URL without user and password.
#[must_use]
pub fn public_url(url: &str) -> String {
    match user_info(url) {
        Some((start, info)) => format!("{}{}", &url[..start], &url[start + info.len() + 1..]),
        None => url.to_owned(),
    }
}

/// Scheme, host and port to which a URL's requests go; the text itself where it is no URL.
#[must_use]
pub fn origin(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urls_password_is_masked_however_it_is_written() {
        for (url, shown, public) in [
            ("https://a.org/b@c", "https://a.org/b@c", "https://a.org/b@c"),
            ("https://me:x@a.org/?y=1", "https://me:********@a.org/?y=1", "https://a.org/?y=1"),
            ("http:///me:x@a.org/", "http:///me:********@a.org/", "http:///a.org/"),
            (r"http:/\me:x@a.org/", r"http:/\me:********@a.org/", r"http:/\a.org/"),
            ("http:me:x@a.org", "http:me:********@a.org", "http:a.org"),
            ("http:/\t/me:x@a.org", "http:/\t/me:********@a.org", "http:/\t/a.org"),
            ("https://me:x@y@a.org", "https://me:********@a.org", "https://a.org"),
            ("https://token@a.org/", "https://********@a.org/", "https://a.org/"),
            ("https://token:@a.org/", "https://********:@a.org/", "https://a.org/"),
            ("https://@a.org/", "https://@a.org/", "https://a.org/"),
            ("https://me:{secret:p}@a.org/", "https://me:{secret:p}@a.org/", "https://a.org/"),
            ("https://me:x{secret:p}@a.org/", "https://me:********@a.org/", "https://a.org/"),
            (r"https://a.org\@b.org", r"https://a.org\@b.org", r"https://a.org\@b.org"),
            ("no url", "no url", "no url"),
        ] {
            assert_eq!((masked_url(url).as_str(), public_url(url).as_str()), (shown, public));
        }
    }

    #[test]
    fn only_a_whole_reference_is_none() {
        for reference in ["{secret:a}", "Bearer {secret:a}", "basic {secret:a}"] {
            assert!(is_reference(reference), "{reference}");
        }
        for other in ["", "x", "x{secret:a}", "{secret:a}x", "{secret:a}{secret:b}", "é{secret:a}"]
        {
            assert!(!is_reference(other), "{other}");
        }
        assert!(is_reference_proxy("http://me:{secret:a}@p.example:3128"));
        for other in ["http://me:x{secret:a}@p.example:3128", "http://{secret:a}", "{secret:a}"] {
            assert!(!is_reference_proxy(other), "{other}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin("HTTPS://me:x@A.org:443/b"), origin("https://a.org"));
        for other in ["http://a.org:443/", "https://b.org/", "https://a.org:444/"] {
            assert_ne!(origin(other), origin("https://a.org/"), "{other}");
        }
    }
}
