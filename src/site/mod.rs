//! What to watch: a site and what is expected of it, valid by construction.
//!
//! [`SiteSpec`] is what somebody wrote, in the configuration, in the table or in a request;
//! [`SiteSpec::build`] makes a [`Site`] of it or lists every fault.

mod more;
mod pattern;
mod search;
mod secrets;
mod settings;
mod simulation;
mod status;

use std::time::Duration;

use url::{ParseError, Url};

pub use more::{
    Access, FollowRedirects, HeaderPattern, IpVersion, More, Proxy, TlsSettings, is_secret,
};
pub use pattern::{PATTERN_COMPILED_MAX, PATTERN_MAX, Pattern};
pub use search::{IsLate, Late};
pub use secrets::{fill_secrets, has_secret};
pub use settings::{SETTINGS, Setting, SettingKind, SettingValue, Settings, setting};
pub use status::StatusSet;

/// Shortest interval between two checks of a site, in seconds.
pub const INTERVAL_MIN_S: u32 = 5;
/// Longest interval between two checks of a site, in seconds: a day.
pub const INTERVAL_MAX_S: u32 = 86_400;
/// Longest name of a site, in bytes.
pub const NAME_MAX: usize = 200;
/// Longest URL, in bytes: what servers commonly take.
pub const URL_MAX: usize = 2048;
/// Largest request body, in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// Most request headers of one site.
pub const HEADERS_MAX: usize = 64;

/// Longest interval of a site whose connection is kept, in seconds: address translators forget
/// idle connections silently, commonly after 350 s or more.
pub const KEPT_INTERVAL_MAX_S: u32 = 300;

/// The keys that sites commonly have, in the order they are shown; those of [`SETTINGS`] follow.
pub const SITE_KEYS: [&str; 9] =
    ["name", "url", "interval", "timeout", "regex", "method", "headers", "body", "expected_status"];

/// The methods a check may use.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A site as somebody wrote it; nothing is checked yet. Absent values take the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SiteSpec {
    /// Unique name.
    pub name: String,
    /// What to request, `http` or `https`.
    pub url: String,
    /// Seconds between checks.
    pub interval: Option<u32>,
    /// Seconds a whole check may take; less than the interval.
    pub timeout: Option<u32>,
    /// Pattern that must be found in the body.
    pub regex: Option<String>,
    /// HTTP method, `GET` when absent.
    pub method: Option<String>,
    /// Request headers.
    pub headers: Vec<(String, String)>,
    /// Request body.
    pub body: Option<String>,
    /// Good answers, such as `200-299,301`; `200-299` when absent.
    pub expected_status: Option<String>,
    /// Everything else that may be set.
    pub settings: Settings,
}

/// Values for what a [`SiteSpec`] leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteDefaults {
    /// Seconds between checks.
    pub interval: u32,
    /// Seconds a whole check may take; cut to one second under the interval of a site that has a
    /// shorter interval.
    pub timeout: u32,
}

/// One fault of a [`SiteSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteFault {
    /// The key at fault, as in the configuration; `settings` for one that is no key.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl std::fmt::Display for SiteFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Time between two checks of a site, [`INTERVAL_MIN_S`] to [`INTERVAL_MAX_S`] whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u32);

impl Interval {
    /// The interval of so many seconds, if it is in the range.
    #[must_use]
    pub fn from_secs(seconds: u32) -> Option<Self> {
        (INTERVAL_MIN_S..=INTERVAL_MAX_S).contains(&seconds).then_some(Self(seconds))
    }

    /// In seconds.
    #[must_use]
    pub fn secs(self) -> u32 {
        self.0
    }

    /// In milliseconds.
    #[must_use]
    pub fn millis(self) -> i64 {
        i64::from(self.0) * 1000
    }
}

/// What to request and what to expect, valid by construction.
///
/// A process may hold hundreds of thousands: what few sites have is in [`More`], and what no
/// check needs, such as the name, is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// The table's key; names the site in every message.
    pub website_id: i64,
    /// What to request; scheme `http` or `https`, with a host, without credentials and fragment.
    pub url: Box<str>,
    /// Time between checks.
    pub interval: Interval,
    /// Time for a whole check; less than the interval.
    pub timeout: Duration,
    /// One of [`METHODS`].
    pub method: &'static str,
    /// Good answers.
    pub expected_status: StatusSet,
    /// Pattern that must be found in the body.
    pub pattern: Option<Pattern>,
    /// Whatever is not usual; absent when all is.
    pub more: Option<Box<More>>,
}

impl Site {
    /// What few sites have, usual or not.
    #[must_use]
    pub fn more(&self) -> &More {
        self.more.as_deref().unwrap_or(&more::NOTHING)
    }
}

impl SiteSpec {
    /// The faults of a site to add or to change, in the order of the fields: those of
    /// [`SiteSpec::build`], and a name that does not read as it is written. A site that has such a
    /// name already is checked all the same.
    #[must_use]
    pub fn faults(&self, defaults: SiteDefaults) -> Vec<SiteFault> {
        let mut faults = self.build(0, defaults).err().unwrap_or_default();
        let marks = "must not have line separators or marks of the direction of text";
        let problem = match self.name.as_str() {
            _ if faults.iter().any(|fault| fault.field == "name") => None,
            name if name.contains(is_unprintable) => Some(marks),
            name if name.trim() != name => Some("must not begin or end with blanks"),
            _ => None,
        };
        if let Some(problem) = problem {
            faults.insert(0, SiteFault { field: "name", message: problem.to_owned() });
        }
        faults
    }

    /// Makes a site of it, with `website_id` as its key.
    ///
    /// # Errors
    /// Every fault, in the order of the fields.
    pub fn build(&self, website_id: i64, defaults: SiteDefaults) -> Result<Site, Vec<SiteFault>> {
        let mut faults = Vec::new();
        let mut fault = |field, message: String| faults.push(SiteFault { field, message });

        if self.name.trim().is_empty() || self.name.len() > NAME_MAX {
            fault("name", format!("must have 1 to {NAME_MAX} bytes"));
        } else if self.name.contains(char::is_control) {
            fault("name", "must not have control characters".to_owned());
        }
        let url = parse_url(&self.url).map_err(|message| fault("url", message)).ok();
        if url.as_ref().is_some_and(|url| url.username().starts_with("%7Bsecret")) {
            // The colon in the reference has ended the user.
            fault("url", "can refer to a secret only in its password".to_owned());
        }
        let seconds = self.interval.unwrap_or(defaults.interval);
        let interval = Interval::from_secs(seconds);
        if interval.is_none() {
            fault(
                "interval",
                format!("{seconds} is not within {INTERVAL_MIN_S} to {INTERVAL_MAX_S} seconds"),
            );
        }
        let timeout = self.timeout.unwrap_or(defaults.timeout.min(seconds.saturating_sub(1)));
        if timeout == 0 || timeout >= seconds {
            fault(
                "timeout",
                format!(
                    "{timeout} is not within 1 to {} seconds, less than the interval of {seconds}",
                    seconds.saturating_sub(1)
                ),
            );
        }
        let pattern = self
            .regex
            .as_deref()
            .filter(|source| !source.is_empty())
            .and_then(|source| Pattern::new(source).map_err(|m| fault("regex", m)).ok());
        let wanted = self.method.as_deref().unwrap_or("GET");
        let method = METHODS.into_iter().find(|m| m.eq_ignore_ascii_case(wanted));
        if method.is_none() {
            fault("method", format!("'{wanted}' is none of {}", METHODS.join(", ")));
        }
        for message in more::headers(&self.headers) {
            fault("headers", message);
        }
        if self.body.as_ref().is_some_and(|body| body.len() > BODY_MAX) {
            fault("body", format!("has more than {BODY_MAX} bytes"));
        }
        let expected_status = match self.expected_status.as_deref() {
            None => Some(StatusSet::default()),
            Some(text) => StatusSet::parse(text).map_err(|m| fault("expected_status", m)).ok(),
        };
        let around = more::Around {
            url: url.as_ref(),
            interval_s: seconds,
            headers: &self.headers,
            body: self.body.as_deref(),
        };
        let more = more::build(&self.settings, &around, &mut faults);
        match (url, interval, method, expected_status) {
            (Some(url), Some(interval), Some(method), Some(expected_status))
                if faults.is_empty() =>
            {
                Ok(Site {
                    website_id,
                    url: public_url(&url).into_boxed_str(),
                    interval,
                    timeout: Duration::from_secs(u64::from(timeout)),
                    method,
                    expected_status,
                    pattern,
                    more,
                })
            }
            _ => Err(faults),
        }
    }
}

/// Whether a terminal or a page would obey `c` rather than show it: control characters, line
/// separators, what turns the direction of text (as in CVE-2021-42574), and the byte order mark.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200E}' | '\u{200F}' | '\u{061C}' | '\u{2028}'..='\u{202E}')
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

fn parse_url(text: &str) -> Result<Url, String> {
    if text.len() > URL_MAX {
        return Err(format!("has {} bytes; at most {URL_MAX}", text.len()));
    }
    let url = Url::parse(text).map_err(|error| match error {
        ParseError::RelativeUrlWithoutBase => "must begin with http:// or https://".to_owned(),
        other => format!("is no URL: {other}"),
    })?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "http" | "https" => Err("has no host".to_owned()),
        other => Err(format!("has scheme '{other}'; must be http or https")),
    }
}

/// Header names a check sets itself.
const RESERVED_HEADERS: [&str; 5] =
    ["connection", "content-length", "transfer-encoding", "te", "proxy-authorization"];

fn header_faults(headers: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    if headers.len() > HEADERS_MAX {
        faults.push(format!("has {} entries; at most {HEADERS_MAX}", headers.len()));
    }
    for (name, value) in headers {
        if !is_header_name(name) {
            faults.push(format!("'{name}' is no header name"));
        } else if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            faults.push(format!("'{name}' is set by the check itself"));
        }
        if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            faults.push(format!("the value of '{name}' has control characters"));
        }
    }
    faults
}

fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}

/// The user and password of a URL, decoded.
#[must_use]
pub fn access_of(url: &Url) -> Option<Access> {
    more::access_of(url)
}

/// `url` as it may be stored, sent and logged: without user, password and fragment.
#[must_use]
pub fn public_url(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() && url.fragment().is_none() {
        return url.as_str().to_owned();
    }
    let mut public = url.clone();
    // Both fail only for URLs that can't have a user at all.
    let _ = public.set_username("");
    let _ = public.set_password(None);
    public.set_fragment(None);
    public.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: SiteDefaults = SiteDefaults { interval: 30, timeout: 10 };

    fn spec(url: &str) -> SiteSpec {
        SiteSpec { name: "x".to_owned(), url: url.to_owned(), ..SiteSpec::default() }
    }

    fn faults(spec: &SiteSpec) -> Vec<String> {
        spec.faults(DEFAULTS).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_fill_what_is_open() {
        let site = spec("https://example.org/").build(7, DEFAULTS).unwrap();
        assert_eq!((site.website_id, site.interval.secs(), site.method), (7, 30, "GET"));
        assert_eq!(site.timeout, Duration::from_secs(10));
        assert!(site.expected_status.contains(204) && !site.expected_status.contains(301));
        let quick = SiteSpec { interval: Some(5), ..spec("http://example.org") };
        assert_eq!(quick.build(1, DEFAULTS).unwrap().timeout, Duration::from_secs(4));
    }

    #[test]
    fn every_fault_is_listed() {
        let bad = SiteSpec {
            name: " ".to_owned(),
            url: "ftp://example.org".to_owned(),
            interval: Some(4),
            timeout: Some(9),
            regex: Some("a(".to_owned()),
            method: Some("BREW".to_owned()),
            headers: vec![("a b".to_owned(), "x\ny".to_owned())],
            body: Some("x".repeat(BODY_MAX + 1)),
            expected_status: Some("20".to_owned()),
            settings: Settings::default(),
        };
        let text = faults(&bad).join("\n");
        for field in [
            "name",
            "url",
            "interval",
            "timeout",
            "regex",
            "method",
            "headers",
            "body",
            "expected_status",
        ] {
            assert!(text.lines().any(|l| l.starts_with(field)), "{field} missing in:\n{text}");
        }
    }

    #[test]
    fn a_name_is_one_line_that_reads_as_it_is_written() {
        let named = |name: &str| SiteSpec { name: name.to_owned(), ..spec("http://a/") };
        for good in ["a b", "名前", "it's", "a\u{200D}b", "שלום"] {
            assert!(faults(&named(good)).is_empty(), "{good}");
        }
        for c in ['\u{7}', '\u{85}', '\u{200E}', '\u{202E}', '\u{2028}', '\u{2069}', '\u{FEFF}'] {
            let found = faults(&named(&format!("a{c}b")));
            assert!(found[0].starts_with("name: must not have"), "{c:?}: {found:?}");
        }
        for blank in [" a", "a ", "a\u{3000}"] {
            let wanted = ["name: must not begin or end with blanks"];
            assert_eq!(faults(&named(blank)), wanted, "{blank:?}");
            assert!(named(blank).build(1, DEFAULTS).is_ok(), "one that is there is checked");
        }
    }

    #[test]
    fn what_is_no_setting_is_a_fault_of_its_site() {
        let mut bad = spec("https://example.org/");
        bad.settings.note_fault("colour", "is no setting of a site");
        assert_eq!(faults(&bad), ["settings: colour is no setting of a site"]);
    }

    #[test]
    fn a_user_in_a_url_is_no_secret() {
        assert!(faults(&spec("http://me:{secret:p}@a/")).is_empty());
        assert_eq!(
            faults(&spec("http://{secret:u}:{secret:p}@a/")),
            ["url: can refer to a secret only in its password"]
        );
    }

    #[test]
    fn credentials_stay_out_of_public_urls() {
        let url = Url::parse("https://user:secret@example.org/a?b=c#d").unwrap();
        assert_eq!(public_url(&url), "https://example.org/a?b=c");
    }
}
