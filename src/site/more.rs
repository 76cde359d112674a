//! What few sites have, valid by construction.

use std::sync::LazyLock;
use std::time::Duration;

use url::{Host, Url};

use super::secrets;
use super::settings::{SETTINGS, SettingKind, SettingValue, Settings};
use super::{KEPT_INTERVAL_MAX_S, Pattern, SiteFault, header_faults, is_header_name};

/// Most header patterns of one kind.
const HEADER_PATTERNS_MAX: usize = 16;
/// Longest PEM text or secret, in bytes.
const TEXT_MAX: usize = 32 << 10;

/// How a site knows who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// User and password.
    Basic(String, String),
    /// A token.
    Bearer(String),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Basic(..) => "basic",
            Self::Bearer(_) => "bearer",
        })
    }
}

/// Which redirects are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FollowRedirects {
    /// All.
    #[default]
    All,
    /// None from https to http.
    Secure,
    /// Only to the host of the site's own URL.
    SameHost,
    /// None: a redirect is the answer.
    None,
}

/// Which addresses are dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpVersion {
    /// In the resolver's order.
    #[default]
    Any,
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
    /// IPv4 first.
    PreferV4,
    /// IPv6 first.
    PreferV6,
}

/// A header of the answer and a pattern for its value.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderPattern {
    /// In lower case.
    pub name: String,
    /// What its value is looked at with.
    pub pattern: Pattern,
}

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, if it wants any.
    pub access: Option<(String, String)>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Settings of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate need not be good.
    pub unverified: bool,
    /// PEM of the roots to trust instead of the usual ones, or a reference to it.
    pub ca: Option<String>,
    /// PEM of the client's certificate and its key, or references.
    pub client: Option<(String, String)>,
    /// The name to ask for and to verify, if not the URL's host.
    pub server_name: Option<String>,
}

/// What few sites have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct More {
    /// Request headers.
    pub headers: Vec<(String, String)>,
    /// Request body.
    pub body: Option<String>,
    /// How the site knows who asks.
    pub access: Option<Access>,
    /// Pattern that must not be found in the body.
    pub forbidden: Option<Pattern>,
    /// Each must match.
    pub expected_headers: Vec<HeaderPattern>,
    /// None may match.
    pub forbidden_headers: Vec<HeaderPattern>,
    /// An answer that took longer is too late.
    pub max_response_time: Option<Duration>,
    /// Days the certificates must still be good for.
    pub min_certificate_days: Option<u32>,
    /// Which redirects are followed.
    pub follow_redirects: FollowRedirects,
    /// How many; the configuration's number when absent.
    pub max_redirects: Option<u32>,
    /// TLS.
    pub tls: TlsSettings,
    /// Which addresses are dialled.
    pub ip_version: IpVersion,
    /// Private and other special addresses are refused, also where the configuration allows them.
    pub public_only: bool,
    /// The proxy to go through.
    pub proxy: Option<Proxy>,
    /// One connection is kept for many checks.
    pub keeps_connection: bool,
    /// Tries after a first one that failed.
    pub retries: u8,
    /// Time before each of them; 1 s unless something else is said.
    pub retry_pause: Duration,
}

/// Before a try after a failed one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a site has that has nothing of this.
pub(super) static NOTHING: LazyLock<More> = LazyLock::new(usual);

fn usual() -> More {
    More { retry_pause: RETRY_PAUSE, ..More::default() }
}

/// What else of a site the settings are measured by.
pub(super) struct Around<'a> {
    pub(super) url: Option<&'a Url>,
    pub(super) interval_s: u32,
    pub(super) headers: &'a [(String, String)],
    pub(super) body: Option<&'a str>,
}

/// Makes the typed settings, or lists every fault. `None`: nothing is unusual.
pub(super) fn build(
    settings: &Settings,
    around: &Around<'_>,
    faults: &mut Vec<SiteFault>,
) -> Option<Box<More>> {
    let mut builder = Builder { settings, faults };
    for (name, problem) in settings.faults() {
        builder.fault("settings", format!("{name} {problem}"));
    }
    builder.texts();
    let more = More {
        headers: around.headers.to_vec(),
        body: around.body.map(str::to_owned),
        access: builder.access(around),
        forbidden: builder.pattern("forbidden_regex"),
        expected_headers: builder.header_patterns("expected_headers"),
        forbidden_headers: builder.header_patterns("forbidden_headers"),
        max_response_time: settings.number("max_response_time").map(millis),
        min_certificate_days: settings.number("min_certificate_days"),
        follow_redirects: match settings.text("follow_redirects") {
            Some("secure") => FollowRedirects::Secure,
            Some("same_host") => FollowRedirects::SameHost,
            Some("none") => FollowRedirects::None,
            _ => FollowRedirects::All,
        },
        max_redirects: settings.number("max_redirects"),
        tls: builder.tls(),
        ip_version: match settings.text("ip_version") {
            Some("ipv4") => IpVersion::V4,
            Some("ipv6") => IpVersion::V6,
            Some("prefer_ipv4") => IpVersion::PreferV4,
            Some("prefer_ipv6") => IpVersion::PreferV6,
            _ => IpVersion::Any,
        },
        public_only: settings.text("addresses") == Some("public"),
        proxy: builder.proxy(),
        keeps_connection: settings.text("connection") == Some("kept"),
        // The table allows at most 5.
        retries: settings.number("retries").map_or(0, |number| number.min(5) as u8),
        retry_pause: settings.number("retry_pause").map_or(RETRY_PAUSE, millis),
    };
    if more.keeps_connection && around.interval_s > KEPT_INTERVAL_MAX_S {
        let problem =
            format!("can't be kept for more than {KEPT_INTERVAL_MAX_S} s, the interval is longer");
        builder.fault("connection", problem);
    }
    let pauses = more.retry_pause.saturating_mul(u32::from(more.retries));
    if pauses >= Duration::from_secs(u64::from(around.interval_s)) {
        builder.fault("retry_pause", "the pauses of all tries take the whole interval");
    }
    if more.access.is_some() && has_authorization(around.headers) {
        let field =
            if settings.text("bearer_token").is_some() { "bearer_token" } else { "username" };
        // The URL's own credentials have always given way to a header.
        if settings.text(field).is_some() {
            builder.fault(field, "is set together with the header Authorization");
        }
    }
    (more != *NOTHING).then(|| Box::new(more))
}

fn has_authorization(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
}

fn millis(number: u32) -> Duration {
    Duration::from_millis(u64::from(number))
}

struct Builder<'a> {
    settings: &'a Settings,
    faults: &'a mut Vec<SiteFault>,
}

impl Builder<'_> {
    fn fault(&mut self, field: &'static str, message: impl Into<String>) {
        self.faults.push(SiteFault { field, message: message.into() });
    }

    /// What holds for every text.
    fn texts(&mut self) {
        for (name, value) in self.settings.iter() {
            let SettingValue::Text(text) = value else { continue };
            let is_pem = name.starts_with("tls_");
            if text.len() > TEXT_MAX {
                self.fault(name, format!("has more than {TEXT_MAX} bytes"));
            } else if !is_pem && text.contains(char::is_control) {
                self.fault(name, "must not have control characters");
            } else if let Err(problem) = secrets::check(text) {
                self.fault(name, problem);
            }
        }
    }

    fn pattern(&mut self, field: &'static str) -> Option<Pattern> {
        let source = self.settings.text(field)?;
        Pattern::new(source).map_err(|problem| self.fault(field, problem)).ok()
    }

    fn header_patterns(&mut self, field: &'static str) -> Vec<HeaderPattern> {
        let map = self.settings.map(field);
        if map.len() > HEADER_PATTERNS_MAX {
            self.fault(field, format!("has {} entries; at most {HEADER_PATTERNS_MAX}", map.len()));
        }
        let mut patterns = Vec::with_capacity(map.len());
        for (name, source) in map {
            if !is_header_name(name) {
                self.fault(field, format!("'{name}' is no header name"));
                continue;
            }
            match Pattern::new(source) {
                Ok(pattern) => {
                    patterns.push(HeaderPattern { name: name.to_ascii_lowercase(), pattern });
                }
                Err(problem) => self.fault(field, format!("{name}: {problem}")),
            }
        }
        patterns
    }

    fn access(&mut self, around: &Around<'_>) -> Option<Access> {
        let settings = self.settings;
        let (user, password) = (settings.text("username"), settings.text("password"));
        match (settings.text("bearer_token"), user) {
            (Some(_), Some(_)) => {
                self.fault("bearer_token", "is set together with username");
                None
            }
            (Some(token), None) => Some(Access::Bearer(token.to_owned())),
            (None, Some(user)) if secrets::without(user).contains(':') => {
                self.fault("username", "must not have a colon");
                None
            }
            (None, Some(user)) => {
                Some(Access::Basic(user.to_owned(), password.unwrap_or_default().to_owned()))
            }
            (None, None) => {
                if password.is_some() {
                    self.fault("password", "is set without username");
                }
                let own = around.url.and_then(access_of);
                own.filter(|_| !has_authorization(around.headers))
            }
        }
    }

    fn tls(&mut self) -> TlsSettings {
        let text = |name: &str| self.settings.text(name).map(str::to_owned);
        let (certificate, key) = (text("tls_certificate"), text("tls_key"));
        let (ca, server_name) = (text("tls_ca"), text("server_name"));
        match (&certificate, &key) {
            (Some(_), None) => self.fault("tls_key", "is missing: the certificate has no key"),
            (None, Some(_)) => self.fault("tls_certificate", "is missing: the key has none"),
            _ => {}
        }
        if let Some(name) = &server_name
            && !matches!(Host::parse(name), Ok(Host::Domain(_)))
        {
            self.fault("server_name", format!("'{name}' is no host name"));
        }
        TlsSettings {
            unverified: self.settings.flag("tls_verify") == Some(false),
            ca,
            client: certificate.zip(key),
            server_name,
        }
    }

    fn proxy(&mut self) -> Option<Proxy> {
        let text = self.settings.text("proxy")?;
        let url = Url::parse(text).ok().filter(|url| url.scheme() == "http" && url.path() == "/");
        let found = url.as_ref().and_then(|url| Some((url.host_str()?, url)));
        let Some((host, url)) = found else {
            self.fault("proxy", "must be http://host:port, with user:password@ if need be");
            return None;
        };
        let access = match access_of(url) {
            Some(Access::Basic(user, password)) => Some((user, password)),
            _ => None,
        };
        if access.as_ref().is_some_and(|(user, _)| user.starts_with("{secret")) {
            // The colon in the reference would have ended the user.
            self.fault("proxy", "can refer to a secret only in the password");
        }
        let host = host.trim_matches(['[', ']']).to_owned();
        Some(Proxy { host, port: url.port_or_known_default().unwrap_or(80), access })
    }
}

/// The user and password of a URL, decoded. What is no UTF-8 then is taken as it is written.
pub(super) fn access_of(url: &Url) -> Option<Access> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain =
        |text: &str| String::from_utf8(percent_decoded(text)).unwrap_or_else(|_| text.to_owned());
    Some(Access::Basic(plain(url.username()), plain(url.password().unwrap_or_default())))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    while let [first, rest @ ..] = bytes {
        (decoded, bytes) = match (first, hex(rest.first()), hex(rest.get(1))) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits: at most 255.
                decoded.push((high * 16 + low) as u8);
                (decoded, &rest[2..])
            }
            _ => {
                decoded.push(*first);
                (decoded, rest)
            }
        };
    }
    decoded
}

/// Faults of request headers, those of their references included.
pub(super) fn headers(headers: &[(String, String)]) -> Vec<String> {
    let mut faults = header_faults(headers);
    for (name, value) in headers {
        if let Err(problem) = secrets::check(value) {
            faults.push(format!("the value of '{name}' {problem}"));
        }
    }
    faults
}

/// Whether a fault's field may hold a secret, so that its value is not shown.
#[must_use]
pub fn is_secret(field: &str) -> bool {
    SETTINGS.iter().any(|s| s.name == field && s.kind == SettingKind::Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_are_decoded() {
        for (url, expect) in [
            ("http://a.org/", None),
            ("http://user:pass@a.org/", Some(("user", "pass"))),
            ("http://user@a.org/", Some(("user", ""))),
            ("http://:pass@a.org/", Some(("", "pass"))),
            ("http://us%40er:p%3ass%zz@a.org/", Some(("us@er", "p:ss%zz"))),
        ] {
            let found = access_of(&Url::parse(url).unwrap());
            let expect = expect.map(|(u, p)| Access::Basic(u.to_owned(), p.to_owned()));
            assert!(found == expect, "{url}");
        }
    }
}
