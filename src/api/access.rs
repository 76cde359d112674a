//! Who may ask: tokens, the names this server goes by, pages of other sites, and how often.
//!
//! Invariants:
//! - A token is known by its SHA-256 alone, and compared with all of them in constant time.
//! - Without tokens everybody who reaches the server may do everything. What then keeps others out
//!   is the loopback address, the `Host` header (a page whose name was made to mean this machine
//!   sends its own name) and the `Origin` of changes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::head::{Head, split_authority};
use super::rate::{Rates, Who};
use super::request::{Caller, Method, Role};
use super::response::{Problem, Response};

/// How long a browser may remember what a page of another site may send, in seconds.
const PREFLIGHT_AGE: &str = "600";
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key";
/// What such a page may see of an answer beside its body.
const EXPOSED: &str = "ETag, Link, Location, Retry-After";

/// A token that is known.
#[derive(Clone)]
pub struct Token {
    /// Whose it is; in logs.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// The SHA-256 of the token.
    pub sha256: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {})", self.name, self.role.as_str())
    }
}

/// A new token: 32 random bytes of the operating system, with a name in front by which a lost one
/// can be found.
///
/// # Errors
/// The operating system's.
pub fn make_token() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(format!("webmon_{}", hex(&bytes)))
}

/// What is kept of a token.
#[must_use]
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who may use the server.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    /// All tokens; none: everybody is an admin.
    pub tokens: Vec<Token>,
    /// Names the server goes by, in lower case, beside `localhost` and its addresses.
    pub hosts: Vec<String>,
    /// Origins whose pages may ask, such as `https://status.example`.
    pub cors_origins: Vec<String>,
    /// Requests a second of one token, or of one address without one; 0: no limit.
    pub rate_limit: u32,
}

impl AccessOptions {
    /// Whether strangers could do everything at `listen`.
    #[must_use]
    pub fn is_open(&self, listen: SocketAddr) -> bool {
        self.tokens.is_empty() && !listen.ip().to_canonical().is_loopback()
    }
}

/// Where a request came from and came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The client's address.
    pub(super) peer: IpAddr,
    /// Our address of the connection.
    pub(super) local: IpAddr,
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) response: Response,
    /// For the metric.
    pub(super) reason: &'static str,
}

fn refused(reason: &'static str, status: u16, detail: &str) -> Refused {
    Refused { response: Problem::new(status, detail).response(), reason }
}

/// Looks at heads.
#[derive(Debug)]
pub(super) struct Access {
    options: AccessOptions,
    rates: Rates,
}

impl Access {
    pub(super) fn new(options: AccessOptions) -> Self {
        let rates = Rates::new(options.rate_limit);
        Self { options, rates }
    }

    /// The caller, or what to answer at once. `time` is monotonic.
    pub(super) fn admit(
        &mut self,
        head: &Head,
        ends: Ends,
        time: Duration,
    ) -> Result<Caller, Refused> {
        self.check_host(head, ends.local)?;
        if let Some(answer) = self.preflight(head) {
            self.count(Who::at(ends.peer), time)?;
            return Err(answer);
        }
        self.check_site(head)?;
        self.caller(head, ends.peer, time)
    }

    /// What a browser must be told so that the page that asked sees the answer.
    pub(super) fn sharing(&self, head: &Head) -> Vec<(&'static str, String)> {
        if self.options.cors_origins.is_empty() {
            return Vec::new();
        }
        let mut headers = vec![("Vary", "Origin".to_owned())];
        if let Some(origin) = head.header("origin").filter(|origin| self.is_listed(origin)) {
            headers.push(("Access-Control-Allow-Origin", origin.to_owned()));
            headers.push(("Access-Control-Expose-Headers", EXPOSED.to_owned()));
        }
        headers
    }

    fn is_listed(&self, origin: &str) -> bool {
        self.options.cors_origins.iter().any(|listed| listed == origin)
    }

    fn check_host(&self, head: &Head, local: IpAddr) -> Result<(), Refused> {
        // HTTP/1.0 alone; no browser speaks it.
        let Some(authority) = &head.authority else { return Ok(()) };
        let host = split_authority(authority).map(|(host, _)| host).unwrap_or_default();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let is_ours = match bare.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) => {
                address == local.to_canonical()
                    || [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]
                        .contains(&address)
            }
            Err(_) => host == "localhost",
        };
        if is_ours || self.options.hosts.iter().any(|name| name == host) {
            return Ok(());
        }
        let detail = "this server does not go by the name in Host; api.hosts lists its names";
        Err(refused("host", 421, detail))
    }

    /// The answer to a browser that asks what a page of another site may send.
    fn preflight(&self, head: &Head) -> Option<Refused> {
        let origin = head.header("origin").filter(|_| head.method == Method::Options)?;
        head.header("access-control-request-method")?;
        if !self.is_listed(origin) {
            return Some(refused("origin", 403, "api.cors_origins does not list this origin"));
        }
        let response = Response::empty(204)
            .with("Access-Control-Allow-Methods", METHODS)
            .with("Access-Control-Allow-Headers", HEADERS)
            .with("Access-Control-Max-Age", PREFLIGHT_AGE);
        Some(Refused { response, reason: "" })
    }

    /// No page of another site changes anything, unless its origin is listed: a browser on this
    /// machine reaches the loopback address, where nobody needs a token.
    fn check_site(&self, head: &Head) -> Result<(), Refused> {
        if matches!(head.method, Method::Get | Method::Head | Method::Options) {
            return Ok(());
        }
        let mut origins = head.values("origin").peekable();
        let is_fine = if origins.peek().is_some() {
            let authority = head.authority.as_deref().unwrap_or_default();
            origins.all(|origin| self.is_listed(origin) || is_same_origin(origin, authority))
        } else {
            head.values("sec-fetch-site").all(|site| matches!(site, "same-origin" | "none"))
        };
        if is_fine {
            return Ok(());
        }
        let detail = "a page of another site may not change anything; api.cors_origins lists \
                      those that may";
        Err(refused("origin", 403, detail))
    }

    fn caller(&mut self, head: &Head, peer: IpAddr, time: Duration) -> Result<Caller, Refused> {
        let caller = |name: &str, role| Caller { name: name.to_owned(), role, address: peer };
        if self.options.tokens.is_empty() {
            self.count(Who::at(peer), time)?;
            return Ok(caller("local", Some(Role::Admin)));
        }
        let mut sent = head.values("authorization").peekable();
        if sent.peek().is_none() {
            self.count(Who::at(peer), time)?;
            if head.has_body() {
                // What needs no token takes no body: nobody's memory is for strangers.
                return Err(unauthorized("Bearer realm=\"webmon\"", "a token is needed"));
            }
            return Ok(caller("", None));
        }
        let token = sent.next().and_then(bearer).filter(|_| sent.next().is_none());
        if let Some(index) = token.and_then(|token| find(&self.options.tokens, token)) {
            self.count(Who::Token(index), time)?;
            let token = &self.options.tokens[index];
            return Ok(caller(&token.name, Some(token.role)));
        }
        self.count(Who::at(peer), time)?;
        let challenge = "Bearer realm=\"webmon\", error=\"invalid_token\"";
        Err(unauthorized(challenge, "the Authorization header holds no token known here"))
    }

    fn count(&mut self, who: Who, time: Duration) -> Result<(), Refused> {
        self.rates.take(who, time).map_err(|wait| {
            let limit = self.options.rate_limit;
            let mut refused =
                refused("rate", 429, &format!("{limit} requests a second are allowed"));
            refused.response = refused.response.with("Retry-After", whole_seconds(wait));
            refused
        })
    }
}

/// Seconds, rounded up, as `Retry-After` takes them.
pub(super) fn whole_seconds(wait: Duration) -> String {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1).to_string()
}

fn unauthorized(challenge: &str, detail: &str) -> Refused {
    let mut refused = refused("token", 401, detail);
    refused.response = refused.response.with("WWW-Authenticate", challenge);
    refused
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_start())
}

/// Which of `tokens` it is; takes as long whichever it is.
fn find(tokens: &[Token], token: &str) -> Option<usize> {
    let hash = hash_token(token);
    let (mut index, mut is_known) = (0, Choice::from(0));
    for (place, token) in (0u64..).zip(tokens) {
        let is_this = token.sha256[..].ct_eq(&hash[..]);
        index.conditional_assign(&place, is_this);
        is_known |= is_this;
    }
    usize::try_from(index).ok().filter(|_| bool::from(is_known))
}

/// Whether a page of `origin` was loaded from `authority`; a missing port is the origin's scheme's
/// on both sides, as a proxy may speak TLS for us.
fn is_same_origin(origin: &str, authority: &str) -> bool {
    let Some((scheme, place)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let whole = |text| split_authority(text).map(|(host, port)| (host, port.unwrap_or(usual)));
    whole(place).is_some_and(|place| whole(authority) == Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::head::parse;

    const HOME: Ends = Ends {
        peer: IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 9)),
        local: IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 5)),
    };

    fn head(method: &str, headers: &str) -> Head {
        let text = format!("{method} / HTTP/1.1\r\n{headers}\r\n\r\n");
        parse(text.as_bytes(), 1000).unwrap().unwrap().0
    }

    fn status(access: &mut Access, method: &str, headers: &str) -> u16 {
        let time = Duration::from_secs(1);
        match access.admit(&head(method, headers), HOME, time) {
            Ok(_) => 200,
            Err(refused) => refused.response.status,
        }
    }

    fn token(name: &str, role: Role, text: &str) -> Token {
        Token { name: name.to_owned(), role, sha256: hash_token(text) }
    }

    #[test]
    fn made_tokens_differ_and_are_long() {
        let (one, other) = (make_token().unwrap(), make_token().unwrap());
        assert_ne!(one, other);
        assert!(one.len() == 7 + 64 && one.starts_with("webmon_"), "{one}");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&hash_token("abc")), abc);
    }

    #[test]
    fn hosts() {
        let hosts = vec!["webmon.example".to_owned()];
        let mut access = Access::new(AccessOptions { hosts, ..AccessOptions::default() });
        for (host, expected) in [
            ("localhost", 200),
            ("LOCALHOST:8080", 200),
            ("localhost.", 200),
            ("127.0.0.1:1", 200),
            ("[::1]:8080", 200),
            ("[::ffff:127.0.0.1]", 200),
            ("127.0.0.5", 200),
            ("webmon.example:9", 200),
            ("Webmon.Example.", 200),
            ("127.0.0.6", 421),
            ("192.0.2.1", 421),
            ("[2001:db8::1]", 421),
            ("evil.example", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("xwebmon.example", 421),
            ("a.webmon.example", 421),
            ("2130706433", 421),
        ] {
            assert_eq!(status(&mut access, "GET", &format!("Host: {host}")), expected, "{host}");
        }
    }

    #[test]
    fn tokens_and_their_roles() {
        let tokens = vec![
            token("r", Role::Read, "read-token"),
            token("w", Role::Write, "write-token"),
            token("a", Role::Admin, "admin-token"),
        ];
        let mut access = Access::new(AccessOptions { tokens, ..AccessOptions::default() });
        let mut caller = |headers: &str| {
            let head = head("GET", &format!("Host: localhost\r\n{headers}"));
            let caller = access.admit(&head, HOME, Duration::ZERO);
            caller.map(|caller| (caller.name, caller.role)).map_err(|r| r.response.status)
        };
        let is = |name: &str, role| Ok((name.to_owned(), role));
        assert_eq!(caller("Authorization: Bearer read-token"), is("r", Some(Role::Read)));
        assert_eq!(caller("Authorization: bearer  write-token"), is("w", Some(Role::Write)));
        assert_eq!(caller("Authorization: BEARER admin-token"), is("a", Some(Role::Admin)));
        assert_eq!(caller("X: y"), is("", None));
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer read-token2",
            "Bearer READ-TOKEN",
            "Basic read-token",
            "read-token",
            "Bearer read-token x",
            "Bearer read-token\r\nAuthorization: Bearer read-token",
        ] {
            assert_eq!(caller(&format!("Authorization: {wrong}")), Err(401), "{wrong}");
        }
        let body = "Host: localhost\r\nContent-Length: 1";
        assert_eq!(status(&mut access, "POST", body), 401);
    }

    #[test]
    fn nobody_is_told_apart_without_tokens() {
        let mut access = Access::new(AccessOptions::default());
        let head = head("GET", "Host: localhost\r\nAuthorization: Bearer x");
        let caller = access.admit(&head, HOME, Duration::ZERO).unwrap();
        assert_eq!((caller.name.as_str(), caller.role), ("local", Some(Role::Admin)));
        let at = |text: &str| AccessOptions::default().is_open(text.parse().unwrap());
        assert!(at("0.0.0.0:1") && at("[::]:1") && at("192.0.2.1:1"));
        assert!(!at("127.0.0.2:1") && !at("[::1]:1") && !at("[::ffff:127.0.0.1]:1"));
        let tokens = vec![token("r", Role::Read, "x")];
        let closed = AccessOptions { tokens, ..AccessOptions::default() };
        assert!(!closed.is_open("0.0.0.0:1".parse().unwrap()));
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let cors_origins = vec!["https://status.example".to_owned()];
        let mut access = Access::new(AccessOptions { cors_origins, ..AccessOptions::default() });
        for (headers, expected) in [
            ("", 200),
            ("Origin: http://localhost:8080", 200),
            ("Origin: https://status.example", 200),
            ("Sec-Fetch-Site: same-origin", 200),
            ("Sec-Fetch-Site: none", 200),
            ("Origin: http://localhost:8080\r\nSec-Fetch-Site: same-site", 200),
            ("Origin: http://localhost", 403),
            ("Origin: http://localhost:8081", 403),
            ("Origin: http://evil.example", 403),
            ("Origin: http://status.example", 403),
            ("Origin: https://status.example:444", 403),
            ("Origin: https://status.example.evil", 403),
            ("Origin: null", 403),
            ("Origin:", 403),
            ("Origin: file://", 403),
            ("Sec-Fetch-Site: cross-site", 403),
            ("Sec-Fetch-Site: same-site", 403),
            ("Origin: https://status.example\r\nOrigin: http://evil.example", 403),
        ] {
            let headers = format!("Host: localhost:8080\r\n{headers}");
            let headers = headers.trim_end();
            for method in ["POST", "PUT", "PATCH", "DELETE"] {
                assert_eq!(status(&mut access, method, headers), expected, "{headers}");
            }
            assert_eq!(status(&mut access, "GET", headers), 200, "{headers}");
        }
        assert!(is_same_origin("https://a.example", "a.example"));
        assert!(is_same_origin("https://a.example", "A.example:443"));
        assert!(!is_same_origin("https://a.example", "a.example:80"));
    }

    #[test]
    fn preflights() {
        let asks = "Access-Control-Request-Method: PUT\r\nHost: localhost\r\nOrigin:";
        let mut off = Access::new(AccessOptions::default());
        assert_eq!(status(&mut off, "OPTIONS", &format!("{asks} https://a.example")), 403);
        let cors_origins = vec!["https://a.example".to_owned()];
        let mut on = Access::new(AccessOptions { cors_origins, ..AccessOptions::default() });
        assert_eq!(status(&mut on, "OPTIONS", &format!("{asks} https://a.example")), 204);
        assert_eq!(status(&mut on, "OPTIONS", &format!("{asks} https://b.example")), 403);
        assert_eq!(status(&mut on, "OPTIONS", "Host: localhost\r\nOrigin: https://a.example"), 200);
    }

    #[test]
    fn a_wrong_token_counts_for_the_address_and_a_right_one_for_itself() {
        let tokens = vec![token("r", Role::Read, "x")];
        let mut access =
            Access::new(AccessOptions { tokens, rate_limit: 1, ..AccessOptions::default() });
        let mut ask = |token: &str| {
            status(&mut access, "GET", &format!("Host: localhost\r\nAuthorization: Bearer {token}"))
        };
        assert_eq!([ask("y"), ask("y"), ask("y")], [401, 401, 429]);
        assert_eq!([ask("x"), ask("x"), ask("x")], [200, 200, 429]);
    }
}
