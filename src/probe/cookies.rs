//! The cookies of one check: set by a redirect's answer, sent with the next request.
//!
//! Many sites redirect until a cookie comes back. Nothing is kept for the next check.

use url::Url;

/// Most cookies of one check.
const COOKIES_MAX: usize = 32;
/// Longest cookie, name and value, in bytes: as browsers have it.
const COOKIE_MAX: usize = 4096;
/// Longest header made of them: it must fit into one line of a request.
const HEADER_MAX: usize = 8192;

#[derive(Debug)]
struct Cookie {
    host: String,
    /// Also for hosts below `host`.
    for_subdomains: bool,
    only_https: bool,
    name: String,
    value: String,
}

/// The cookies seen in one check.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<Cookie>);

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

impl Jar {
    /// Takes the value of a `Set-Cookie` header that came from `url`. One that breaks the rules
    /// is passed over, as browsers do.
    pub(super) fn store(&mut self, url: &Url, set_cookie: &str) {
        let Some(host) = url.host_str() else {
            return;
        };
        let mut parts = set_cookie.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
            return;
        };
        let mut cookie = Cookie {
            host: host.to_owned(),
            for_subdomains: false,
            only_https: false,
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
        };
        let mut keep = !cookie.name.is_empty() && name.len() + value.len() <= COOKIE_MAX;
        for attribute in parts {
            let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            match (key.trim().to_ascii_lowercase().as_str(), value.trim()) {
                ("secure", _) => cookie.only_https = true,
                ("max-age", age) if age == "0" || age.starts_with('-') => keep = false,
                ("domain", domain) => {
                    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
                    let is_parent =
                        url.domain().is_some() && is_below(host, &domain) && domain.contains('.');
                    if domain == host || is_parent {
                        cookie.host = domain;
                        cookie.for_subdomains = true;
                    } else if !domain.is_empty() {
                        return;
                    }
                }
                _ => {}
            }
        }
        self.0.retain(|known| known.host != cookie.host || known.name != cookie.name);
        if keep && self.0.len() < COOKIES_MAX {
            self.0.push(cookie);
        }
    }

    /// The `Cookie` header for a request to `url`, behind what the site itself is set to send.
    pub(super) fn header(&self, url: &Url, own: Option<&str>) -> Option<String> {
        let host = url.host_str()?;
        let mut header = own.unwrap_or_default().to_owned();
        for cookie in &self.0 {
            let fits = cookie.host == host || cookie.for_subdomains && is_below(host, &cookie.host);
            let secure = !cookie.only_https || url.scheme() == "https";
            let length = header.len() + cookie.name.len() + cookie.value.len() + 3;
            if fits && secure && length <= HEADER_MAX {
                let separator = if header.is_empty() { "" } else { "; " };
                header.push_str(&format!("{separator}{}={}", cookie.name, cookie.value));
            }
        }
        (!header.is_empty()).then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent to `to` after `set` came from `from`.
    fn sent(from: &str, set: &[&str], to: &str) -> Option<String> {
        let mut jar = Jar::default();
        let from = Url::parse(from).unwrap();
        set.iter().for_each(|set| jar.store(&from, set));
        jar.header(&Url::parse(to).unwrap(), None)
    }

    #[test]
    fn cookies_go_where_they_belong() {
        let (a, www) = ("https://a.org/", "https://www.a.org/");
        for (from, set, to, expect) in [
            (a, vec!["k=v; Path=/"], a, Some("k=v")),
            (a, vec!["k=v", "l=w"], a, Some("k=v; l=w")),
            (a, vec!["k=v", "k=w"], a, Some("k=w")),
            (a, vec!["k=v", "k=; Max-Age=0"], a, None),
            (a, vec!["k=v"], www, None),
            (a, vec!["k=v; domain=a.org"], www, Some("k=v")),
            (www, vec!["k=v; Domain=.A.org"], a, Some("k=v")),
            (a, vec!["k=v; domain=b.org"], "https://b.org/", None),
            (a, vec!["k=v; domain=org"], "https://b.org/", None),
            (a, vec!["k=v; domain=a.org"], "https://ba.org/", None),
            (a, vec!["k=v; Secure"], "http://a.org/", None),
            (a, vec!["k=v"], "http://a.org/", Some("k=v")),
            (a, vec!["novalue", "=x"], a, None),
            ("http://1.2.3.4/", vec!["k=v; domain=3.4"], "http://9.9.3.4/", None),
        ] {
            assert_eq!(sent(from, &set, to).as_deref(), expect, "{set:?} from {from} to {to}");
        }
    }

    #[test]
    fn the_jar_has_limits_and_adds_to_the_sites_own() {
        let mut jar = Jar::default();
        let url = Url::parse("http://a.org/").unwrap();
        for number in 0..100 {
            jar.store(&url, &format!("k{number}={}", "v".repeat(1000)));
        }
        jar.store(&url, &format!("long={}", "v".repeat(5000)));
        assert_eq!(jar.0.len(), COOKIES_MAX);
        let header = jar.header(&url, Some("own=1")).unwrap();
        assert!(header.starts_with("own=1; k0=v") && header.len() <= HEADER_MAX);
    }
}
