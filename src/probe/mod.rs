//! One HTTP check under one deadline.
//!
//! ureq speaks HTTP; names, connections, TLS, redirects, decoding and time are ours, because
//! there the truth of a measurement is decided (see `docs/decisions/`, and the modules).
//!
//! Invariants:
//! - A try takes at most its site's timeout, whatever the other side does. Its one deadline is
//!   fixed when it begins. Only further tries and a look at the own network come on top of that.
//! - A check always gives a [`Check`], and never a panic.
//! - Nothing of one check is seen by the next: no cookies, no TLS sessions, and no connections
//!   but of a site that wants to keep one (see `kept.rs`).
//! - Every address is judged by the guard right before it is dialled, on every redirect.
//! - Credentials go to the origin they were given for, and into no text.

mod body;
mod buffers;
mod charset;
mod connectivity;
mod cookies;
mod failure;
mod gate;
mod guard;
mod judge;
mod kept;
mod proxy;
mod reach;
mod request;
mod resolver;
mod retry;
mod route;
mod secrets;
mod socket;
mod target;
mod timings;
mod tls;
mod transport;
mod trust;
mod verifier;

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use ureq::http::{HeaderMap, HeaderValue, Response, Version, header};
use ureq::{Agent, Body};

use crate::check::{Check, Failure, FailureKind, Outcome, seconds};
use crate::runtime::{Stop, now};
use crate::site::FollowRedirects;
use crate::telemetry::{ByDaemonThread, metrics};

use connectivity::Connectivity;
use kept::Borrowed;
use reach::Reach;
use request::Step;
use route::Own;
use secrets::Secrets;
use timings::Bodies;
use trust::Trust;

pub use gate::Gate;
pub use resolver::Lookup;
pub use target::Target;

/// Most bytes of framing that may come per byte of body: a chunk of one byte takes six.
const FRAMING_MAX: u64 = 8;
/// Bytes that may come beside the body in any case: the head and the last chunk's trailers.
const BESIDE_BODY: u64 = 256 << 10;
/// Largest body that may be read, in bytes: it is held in memory, twice if it is encoded.
const MAX_BODY_MAX: usize = 256 << 20;

/// How checks are made.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Where this process checks from.
    pub region: String,
    /// The `User-Agent` header of sites that don't set their own.
    pub user_agent: String,
    /// Bytes of a body that are read, and at most that many after decoding; up to 256 MiB.
    pub max_body: usize,
    /// Redirects that are followed; 0 takes a redirect as the answer.
    pub max_redirects: u32,
    /// Whether loopback, private and other special addresses may be dialled. Metadata addresses
    /// of clouds never are.
    pub allow_private_addresses: bool,
    /// Networks that may be dialled although special addresses may not.
    pub allowed_addresses: Vec<IpNet>,
    /// Networks that may not be dialled, whatever else allows them.
    pub denied_addresses: Vec<IpNet>,
    /// Where webmon itself listens: never dialled. The unspecified address is every address of
    /// this machine.
    pub own_listeners: Vec<SocketAddr>,
    /// Look-ups of names that may be under way at once, 1 to 256.
    pub resolver_threads: usize,
    /// Hosts, names or addresses, and ports that are dialled when a check fails, to see whether
    /// the own network is there; none: nobody looks.
    pub connectivity: Vec<(String, u16)>,
    /// How long the addresses of a name are used again; zero looks up each time.
    pub dns_cache: Duration,
    /// The directory of the secrets that sites refer to, a file each.
    pub secrets_dir: Option<PathBuf>,
    /// Secrets for which there is no file, as `WEBMON_SECRET_` and the name in capitals, with `_`
    /// for `-` and `.`.
    pub secret_variables: BTreeMap<String, SecretString>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            region: "default".to_owned(),
            user_agent: concat!("webmon/", env!("CARGO_PKG_VERSION")).to_owned(),
            max_body: 1 << 20,
            max_redirects: 10,
            allow_private_addresses: true,
            allowed_addresses: Vec::new(),
            denied_addresses: Vec::new(),
            own_listeners: Vec::new(),
            resolver_threads: 4,
            connectivity: Vec::new(),
            dns_cache: Duration::ZERO,
            secrets_dir: None,
            secret_variables: BTreeMap::new(),
        }
    }
}

/// What a [`Prober`] is made with beside its options; the default is the operating system's.
#[derive(Clone, Default)]
pub struct ProbeParts {
    /// How names are looked up.
    pub lookup: Option<Lookup>,
    /// Roots to trust beside Mozilla's and the system's, DER.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Ends the pauses between tries, and with them the tries.
    pub stop: Stop,
}

impl std::fmt::Debug for ProbeParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeParts")
            .field("lookup", &self.lookup.is_some())
            .field("extra_roots", &self.extra_roots.len())
            .finish()
    }
}

/// Why there is no [`Prober`].
#[derive(Debug)]
pub enum ProbeError {
    /// The user agent can't be a header's value.
    UserAgent,
    /// TLS can't be set up.
    Tls(String),
    /// The resolver threads can't be started.
    Resolver(std::io::Error),
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UserAgent => f.write_str("the user agent has characters no header may have"),
            Self::Tls(why) => write!(f, "TLS can't be set up: {why}"),
            Self::Resolver(why) => write!(f, "resolver threads can't be started: {why}"),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolver(why) => Some(why),
            Self::UserAgent | Self::Tls(_) => None,
        }
    }
}

/// Makes checks; shared by all workers.
#[derive(Debug)]
pub struct Prober {
    agent: Agent,
    headers: HeaderMap,
    trust: Trust,
    secrets: Secrets,
    options: ProbeOptions,
    connectivity: Option<Connectivity>,
    reach: Reach,
    stop: Stop,
}

impl Prober {
    /// A prober with the operating system's resolver and roots. Starts the resolver threads,
    /// which live as long as the prober, and uses TLS once so that no check is the first.
    ///
    /// # Errors
    /// A [`ProbeError`].
    pub fn new(options: ProbeOptions) -> Result<Self, ProbeError> {
        Self::with_parts(options, ProbeParts::default())
    }

    /// A prober with its own look-up or roots.
    ///
    /// # Errors
    /// A [`ProbeError`].
    pub fn with_parts(mut options: ProbeOptions, parts: ProbeParts) -> Result<Self, ProbeError> {
        options.max_body = options.max_body.min(MAX_BODY_MAX);
        let user_agent = HeaderValue::from_bytes(options.user_agent.as_bytes())
            .map_err(|_| ProbeError::UserAgent)?;
        let headers = HeaderMap::from_iter([
            (header::USER_AGENT, user_agent),
            (header::ACCEPT, HeaderValue::from_static("*/*")),
            (header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br")),
            // Then the server ends the connection, and keeps its port in TIME_WAIT: ours would
            // run out at some thousand checks per second to one address.
            (header::CONNECTION, HeaderValue::from_static("close")),
        ]);
        let trust = Trust::new(&parts.extra_roots).map_err(ProbeError::Tls)?;
        tls::warm_up(trust.usual()).map_err(ProbeError::Tls)?;
        let lookup = parts.lookup.unwrap_or_else(resolver::system_lookup);
        let reach = Reach::new(&options, &lookup).map_err(ProbeError::Resolver)?;
        let connectivity =
            Connectivity::new(options.connectivity.clone(), &lookup, parts.stop.clone())
                .map_err(ProbeError::Resolver)?;
        let agent = transport::agent(&reach, trust.usual().clone());
        let secrets = Secrets::new(options.secrets_dir.clone(), options.secret_variables.clone());
        Ok(Self { agent, headers, trust, secrets, options, connectivity, reach, stop: parts.stop })
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &ProbeOptions {
        &self.options
    }

    /// One try of [`Prober::check`].
    fn try_once(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        limit: Duration,
    ) -> Check<'static> {
        let site = &target.site;
        let mut check = Check::empty(
            &target.identity,
            site.website_id,
            target.url().to_owned(),
            target.region.to_string(),
            scheduled_at,
        );
        check.regex = site.pattern.as_ref().map(|p| Cow::Owned(p.source().to_owned()));
        let start = now();
        // Whole milliseconds, as `scheduled_at` has.
        check.started_at = Timestamp::from_millisecond(start.wall.as_millisecond()).ok();
        timings::begin(start.mono, limit);
        let result = catch_unwind(AssertUnwindSafe(|| self.run(target, &mut check)));
        let end = now().mono;
        let took = end.saturating_sub(start.mono);
        let failure = match result {
            Ok(result) => result.err().or_else(|| judge::too_slow(site, took)),
            Err(panic) => Some(panicked(panic.as_ref())),
        };
        timings::with(|context| {
            (check.phases, check.last_hop) = context.finish(end);
            check.remote_address = context.remote.map(|address| address.to_string().into());
            check.certificate_expires_at =
                context.certificate_end.and_then(|end| Timestamp::from_second(end).ok());
        });
        check.response_time = Some(seconds(took));
        check.outcome = if failure.is_none() { Outcome::Up } else { Outcome::Down };
        check.failure = failure;
        secrets::clean(&mut check);
        check
    }

    /// Requests, follows redirects, reads and judges; writes into `check` what it sees.
    fn run(&self, target: &Target, check: &mut Check<'static>) -> Result<(), Failure<'static>> {
        let own = Own::new(target, &self.secrets)?;
        let place = target.own.as_ref().and_then(|own| own.place.as_ref());
        let _kept = place.map(Borrowed::from);
        let more = target.site.more();
        let max_redirects = more.max_redirects.unwrap_or(self.options.max_redirects);
        let mut step = Step::first(target, own.headers());
        let mut redirects = 0;
        loop {
            let answer = self.exchange(&step, &own)?;
            let status = answer.status().as_u16();
            check.http_status = Some(status);
            check.http_version = version(answer.version());
            check.redirects = Some(u16::try_from(redirects).unwrap_or(u16::MAX));
            let is_answer = !request::is_redirect(status)
                || max_redirects == 0
                || more.follow_redirects == FollowRedirects::None
                // A redirect that is expected is what was asked for.
                || target.site.expected_status.contains(status);
            if is_answer {
                return self.conclude(target, &step, answer, check);
            }
            if redirects == max_redirects {
                let detail = format!("more than {redirects} redirects");
                return Err(Failure::new(FailureKind::Redirect, detail));
            }
            timings::with(timings::Context::close_hop);
            step.follow(&answer)?;
            redirects += 1;
            // The redirect's own body is not read: the connection ends here.
            drop(answer);
        }
    }

    /// One request, up to the head of its answer.
    fn exchange(&self, step: &Step<'_>, own: &Own<'_>) -> Result<Response<Body>, Failure<'static>> {
        let route = own.route(step, &self.trust)?;
        let keeps = route.as_ref().is_some_and(|route| route.keeps);
        let through_proxy = route.as_ref().is_some_and(|route| route.proxy.is_some());
        timings::with(|context| context.route = route);
        let mut answer = self.send(step, keeps);
        if answer.as_ref().is_err_and(is_the_connections)
            && timings::with(timings::Context::forget_vain_hop)
        {
            // The server ended the connection while it was idle. That says nothing about the site.
            answer = self.send(step, keeps);
        }
        let answer = answer?;
        if through_proxy && !step.is_https() && answer.status() == proxy::WANTS_ACCESS {
            return Err(proxy::refused(proxy::WANTS_ACCESS));
        }
        timings::with(|context| {
            context.in_body = true;
            context.transfer_limit =
                (self.options.max_body as u64).saturating_mul(FRAMING_MAX) + BESIDE_BODY;
        });
        Ok(answer)
    }

    fn send(&self, step: &Step<'_>, keeps: bool) -> Result<Response<Body>, Failure<'static>> {
        let (mut head, ()) = step.request(&self.headers)?.into_parts();
        if keeps {
            head.headers.remove(header::CONNECTION);
        }
        let body = step.body();
        timings::with(|context| context.sends_body = body.is_some());
        let answer = match body {
            None => self.agent.run(ureq::http::Request::from_parts(head, ())),
            Some(body) => self.agent.run(ureq::http::Request::from_parts(head, body)),
        };
        answer.map_err(failure::from_ureq)
    }

    /// Reads the body of the last answer and judges it.
    fn conclude(
        &self,
        target: &Target,
        step: &Step<'_>,
        answer: Response<Body>,
        check: &mut Check<'static>,
    ) -> Result<(), Failure<'static>> {
        let status = answer.status().as_u16();
        let has_body = !(step.is_head() || status < 200 || matches!(status, 204 | 304));
        // A panic loses the buffers, nothing else.
        let mut bodies = timings::with(timings::Context::take_bodies);
        let result = self.read_and_judge(target, has_body, answer, &mut bodies, check);
        timings::with(|context| context.give_bodies(bodies));
        result
    }

    fn read_and_judge(
        &self,
        target: &Target,
        has_body: bool,
        answer: Response<Body>,
        bodies: &mut Bodies,
        check: &mut Check<'static>,
    ) -> Result<(), Failure<'static>> {
        let (head, body) = answer.into_parts();
        let (status, headers) = (head.status.as_u16(), &head.headers);
        let body = match has_body {
            true => Some(body::read(headers, body, bodies, self.options.max_body)?),
            false => None,
        };
        timings::with(timings::Context::close_hop);
        judge::judge(&target.site, judge::Answer { status, headers, body }, check)
    }
}

/// Whether a failure may be no more than a connection that had ended before.
fn is_the_connections(failure: &Failure<'_>) -> bool {
    matches!(failure.kind, FailureKind::Http | FailureKind::Tls)
}

fn version(version: Version) -> Option<Cow<'static, str>> {
    match version {
        Version::HTTP_10 => Some("1.0".into()),
        Version::HTTP_11 => Some("1.1".into()),
        _ => None,
    }
}

/// A panic is our own fault, and costs one check.
fn panicked(panic: &(dyn Any + Send)) -> Failure<'static> {
    metrics().panics.get_or_create(&ByDaemonThread { thread: "probe" }).inc();
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Failure::new(FailureKind::Internal, format!("panic: {message}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::timings::Phase;
    use super::*;
    use crate::site::{SettingValue, SiteDefaults, SiteSpec};

    /// Accepts `connections` and answers each; its URL.
    fn server(connections: usize) -> String {
        use std::io::{Read, Write};

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut threads = crate::runtime::Threads::new(crate::runtime::Stop::new());
        let serve = move || {
            for stream in listener.incoming().take(connections) {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        };
        threads.spawn("server", serve).unwrap();
        url
    }

    fn prober() -> Prober {
        Prober::new(ProbeOptions::default()).unwrap()
    }

    fn target(spec: &SiteSpec) -> Target {
        Target::new(spec.build(1, SiteDefaults { interval: 60, timeout: 20 }).unwrap(), "test")
    }

    #[test]
    fn a_panic_costs_one_check() {
        let prober = prober();
        let spec = SiteSpec { name: "x".to_owned(), url: server(3), ..SiteSpec::default() };
        let target = target(&spec);
        for phase in [Phase::Resolve, Phase::Connect, Phase::Transfer] {
            timings::with(|context| context.panic_in = Some(phase));
            let check = prober.check(&target, Timestamp::UNIX_EPOCH);
            let failure = check.failure.unwrap();
            assert_eq!(failure.kind, FailureKind::Internal);
            assert_eq!(failure.detail, format!("panic: told to panic in {phase:?}"));
            assert!(check.response_time.is_some());
        }
        timings::with(|context| context.panic_in = None);
        let check = prober.check(&target, Timestamp::UNIX_EPOCH);
        assert_eq!(check.outcome, Outcome::Up, "{check:?}");
    }

    #[test]
    fn a_panic_tells_no_secret_and_takes_no_connection_along() {
        let prober = prober();
        let url = server(2);
        let mut spec = SiteSpec { name: "x".to_owned(), url, ..SiteSpec::default() };
        for (name, text) in [("bearer_token", "told to panic"), ("connection", "kept")] {
            spec.settings.set(name, SettingValue::Text(text.to_owned())).unwrap();
        }
        let target = target(&spec);
        timings::with(|context| context.panic_in = Some(Phase::Connect));
        let check = prober.check(&target, Timestamp::UNIX_EPOCH);
        assert_eq!(check.failure.unwrap().detail, "panic: *** in Connect");
        timings::with(|context| context.panic_in = None);
        let check = prober.check(&target, Timestamp::UNIX_EPOCH);
        assert_eq!(check.outcome, Outcome::Up, "{check:?}");
        assert!(check.phases.connect.is_some());
    }
}
