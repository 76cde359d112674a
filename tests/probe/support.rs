//! Servers with a script, a prober that knows their certificates and names, and the one helper
//! that compares a check with what is expected of it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use webmon::check::{Check, FailureKind, Outcome};
use webmon::probe::{Lookup, ProbeOptions, ProbeParts, Prober, Target};
use webmon::runtime::{Stop, Threads, now};
use webmon::site::{SettingValue, Site, SiteDefaults, SiteSpec};

/// When every check is due.
pub(crate) const DUE: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// Time of a check that is meant to run out of it.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
/// What a check may take longer than its timeout before a test fails: a loaded machine is no bug.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// Largest body the test prober reads.
pub(crate) const MAX_BODY: usize = 64 << 10;
/// Redirects the test prober follows.
pub(crate) const MAX_REDIRECTS: u32 = 5;

/// One step of a server after it read a request.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes one by one, a few milliseconds apart, again and again.
    Drip(&'static [u8]),
    /// Sends these bytes again and again, as fast as they are taken.
    Flood(Vec<u8>),
    /// Says nothing and keeps the connection, until the other side is gone.
    Hang,
    /// Waits a moment, so that what comes next comes by itself.
    Pause,
    /// Ends the connection with a reset.
    Reset,
}

pub(crate) fn send(text: impl AsRef<[u8]>) -> Do {
    Do::Send(text.as_ref().to_vec())
}

/// A whole answer with this body.
pub(crate) fn answer(head: &str, body: impl AsRef<[u8]>) -> Do {
    let body = body.as_ref();
    let mut bytes = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Do::Send(bytes)
}

pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A server on a port of its own, until the process ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Does `script` on each connection, after the request was read.
    pub(crate) fn script(script: &[Do]) -> Self {
        let script = script.to_vec();
        Self::answering(move |_| script.clone())
    }

    /// Does what `script` says to each request.
    pub(crate) fn answering(script: impl Fn(&str) -> Vec<Do> + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let address = accept("127.0.0.1", move |mut stream| {
            let request = read_request(&mut stream);
            seen.lock().unwrap().push(request.clone());
            let script = script(&request);
            play(&script, &mut stream);
        });
        Self { address, requests }
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

/// Accepts on `ip` and gives each connection to `serve`, on a thread of its own.
pub(crate) fn accept(ip: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    let mut threads = Threads::new(Stop::new());
    threads
        .spawn("accept", move || {
            let mut threads = Threads::new(Stop::new());
            for stream in listener.incoming().flatten() {
                let serve = serve.clone();
                threads.spawn("serve", move || serve(stream)).unwrap();
            }
        })
        .unwrap();
    address
}

/// The `https` URL of a server that doesn't speak TLS.
pub(crate) fn no_tls() -> String {
    let serve = |mut stream: TcpStream| {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    };
    format!("https://{}/", accept("127.0.0.1", serve))
}

/// Reads one request with its body; what came until then if the other side ends.
pub(crate) fn read_request(stream: &mut dyn Stream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if request.len() >= head + 4 + length {
                return text;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return text,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
}

/// All steps on a socket; whether the other side is still there.
pub(crate) fn play(script: &[Do], stream: &mut TcpStream) -> bool {
    script.iter().all(|step| {
        if matches!(step, Do::Reset) {
            let _ = rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO));
        }
        act(step, stream)
    })
}

/// Waits for `condition`, with a cap.
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let pause = Stop::new();
    let limit = now().mono + Duration::from_secs(20);
    while !condition() {
        assert!(now().mono < limit, "waited in vain");
        let _ = pause.wait(Duration::from_millis(1));
    }
}

/// One step; whether the other side is still there.
pub(crate) fn act(step: &Do, stream: &mut dyn Stream) -> bool {
    let pause = Stop::new();
    match step {
        Do::Send(bytes) => stream.write_all(bytes).and_then(|()| stream.flush()).is_ok(),
        Do::Drip(bytes) => {
            for byte in bytes.iter().cycle() {
                if stream.write_all(&[*byte]).and_then(|()| stream.flush()).is_err() {
                    return false;
                }
                let _ = pause.wait(Duration::from_millis(5));
            }
            false
        }
        Do::Flood(bytes) => {
            while stream.write_all(bytes).is_ok() {}
            false
        }
        Do::Hang => {
            let _ = stream.read_to_end(&mut Vec::new());
            false
        }
        Do::Pause => !pause.wait(Duration::from_millis(30)),
        Do::Reset => false,
    }
}

/// Listens on 127.0.0.2:`port` and fills the queue, so that further connections hang; keep what
/// it gives.
pub(crate) fn black_hole(port: u16) -> (std::os::fd::OwnedFd, Vec<TcpStream>) {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

    let address = SocketAddr::from(([127, 0, 0, 2], port));
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, SHORT) {
            Ok(stream) => waiting.push(stream),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "the queue is not full");
                return (listener, waiting);
            }
        }
        assert!(waiting.len() < 64, "the queue doesn't fill");
    }
}

/// The addresses of the test names, and how often each name was looked up does not matter.
fn lookup() -> Lookup {
    let hang = Stop::new();
    Arc::new(move |host| {
        let addresses = |list: &[[u8; 4]]| Ok(list.iter().map(|a| IpAddr::from(*a)).collect());
        let failed = |why| {
            Err(std::io::Error::other(format!("failed to lookup address information: {why}")))
        };
        match host {
            "site.test." | "under_score.test" | "deep.www.site.test" | "site.test"
            | "other.test" | "www.site.test" => addresses(&[[127, 0, 0, 1]]),
            // Nobody listens on the first ones.
            "second.test" => addresses(&[[127, 0, 0, 3], [127, 0, 0, 1]]),
            "blackhole.test" => addresses(&[[127, 0, 0, 2], [127, 0, 0, 1]]),
            "mixed.test" => addresses(&[[169, 254, 169, 254], [127, 0, 0, 1]]),
            "metadata.test" => addresses(&[[169, 254, 169, 254]]),
            "public-then-local.test" => addresses(&[[224, 0, 0, 1], [127, 0, 0, 1]]),
            "multicast.test" => addresses(&[[224, 0, 0, 1]]),
            "nodata.test" => failed("No address associated with hostname"),
            "servfail.test" => failed("Temporary failure in name resolution"),
            "broken.test" => failed("Non-recoverable failure in name resolution"),
            "empty.test" => addresses(&[]),
            "hang.test" => {
                hang.wait_forever();
                addresses(&[])
            }
            _ => failed("Name or service not known"),
        }
    })
}

pub(crate) fn options() -> ProbeOptions {
    ProbeOptions {
        region: "test".to_owned(),
        user_agent: "webmon-test".to_owned(),
        max_body: MAX_BODY,
        max_redirects: MAX_REDIRECTS,
        ..ProbeOptions::default()
    }
}

pub(crate) fn prober_with(options: ProbeOptions) -> Prober {
    let extra_roots = vec![super::certificates::authority().certificate()];
    let lookup = Some(lookup());
    Prober::with_parts(options, ProbeParts { lookup, extra_roots, ..ProbeParts::default() })
        .unwrap()
}

/// The prober that most tests share.
pub(crate) fn prober() -> &'static Prober {
    static PROBER: OnceLock<Prober> = OnceLock::new();
    PROBER.get_or_init(|| prober_with(options()))
}

pub(crate) fn spec(url: &str) -> SiteSpec {
    SiteSpec { name: "test".to_owned(), url: url.to_owned(), ..SiteSpec::default() }
}

pub(crate) fn build(spec: &SiteSpec) -> Site {
    spec.build(7, SiteDefaults { interval: 60, timeout: 20 }).unwrap()
}

/// Like [`spec`], with these further settings.
pub(crate) fn spec_with<const N: usize>(url: &str, more: [(&str, SettingValue); N]) -> SiteSpec {
    super::settings::set(spec(url), more)
}

/// A site that has [`SHORT`] time.
pub(crate) fn hurried(url: &str) -> Site {
    Site { timeout: SHORT, ..build(&spec(url)) }
}

/// What a check should say.
#[derive(Clone, Debug)]
pub(crate) struct Expect {
    kind: Option<FailureKind>,
    detail: String,
    phases: Option<&'static str>,
}

/// An `up`.
pub(crate) fn up() -> Expect {
    Expect { kind: None, detail: String::new(), phases: None }
}

/// A `down` of `kind`, with `detail` somewhere in its text.
pub(crate) fn down(kind: FailureKind, detail: &str) -> Expect {
    Expect { kind: Some(kind), detail: detail.to_owned(), phases: None }
}

impl Expect {
    /// Exactly these phases, by name, in their order.
    pub(crate) fn phases(self, phases: &'static str) -> Self {
        Self { phases: Some(phases), ..self }
    }
}

/// The phases that are there, by name, in their order.
pub(crate) fn phases_of(check: &Check<'_>) -> String {
    let phases = check.phases;
    let named = [
        ("resolve", phases.resolve),
        ("connect", phases.connect),
        ("tls", phases.tls),
        ("processing", phases.processing),
        ("transfer", phases.transfer),
    ];
    let present: Vec<&str> = named.iter().filter(|p| p.1.is_some()).map(|p| p.0).collect();
    present.join(" ")
}

/// Checks `site` with `prober` and compares.
pub(crate) fn check_with(prober: &Prober, site: Site, expect: &Expect) -> Check<'static> {
    let timeout = site.timeout;
    let target = Target::new(site, "test");
    let start = now().mono;
    let check = prober.check(&target, DUE);
    let took = now().mono - start;

    let detail = check.failure.as_ref().map_or("", |failure| &failure.detail);
    assert_eq!(check.failure.as_ref().map(|f| f.kind), expect.kind, "{check:#?}");
    assert!(detail.contains(&expect.detail), "'{}' is not in '{detail}'", expect.detail);
    let outcome = if expect.kind.is_some() { Outcome::Down } else { Outcome::Up };
    assert_eq!(check.outcome, outcome, "{check:#?}");
    if let Some(phases) = expect.phases {
        assert_eq!(phases_of(&check), phases, "{check:#?}");
    }
    assert!(took < timeout + SLACK, "took {took:?} of {timeout:?}");
    assert_sound(&check, &target, took);
    check
}

/// What holds for every check of [`DUE`] that took so long, whatever it found.
pub(crate) fn assert_sound(check: &Check<'_>, target: &Target, took: Duration) {
    let detail = check.failure.as_ref().map_or("", |failure| &failure.detail);
    assert!(!detail.contains(char::is_control), "{detail}");
    let response_time = check.response_time.expect("a check that began has a response time");
    assert!(response_time <= took.as_secs_f64(), "{response_time} of {took:?}");
    let sum: f64 = [
        check.phases.resolve,
        check.phases.connect,
        check.phases.tls,
        check.phases.processing,
        check.phases.transfer,
    ]
    .iter()
    .flatten()
    .sum();
    // Each is rounded to a microsecond.
    assert!(sum <= response_time + 1e-5, "{sum} of {response_time}: {check:#?}");
    assert_eq!(check.check_entry_id, target.identity().check_entry_id(DUE));
    assert_eq!((check.website_id, check.region.as_ref()), (7, "test"));
    assert_eq!(check.scheduled_at, DUE);
    assert!(check.started_at.is_some());
}

/// Checks `site` with the shared prober and compares.
pub(crate) fn check(site: Site, expect: &Expect) -> Check<'static> {
    check_with(prober(), site, expect)
}

/// Checks a server that follows `script`.
pub(crate) fn check_script(script: &[Do], expect: &Expect) -> Check<'static> {
    let server = Server::script(script);
    check(build(&spec(&server.url())), expect)
}

/// Checks a server that follows `script`, with little time.
pub(crate) fn check_hurried(script: &[Do], expect: &Expect) -> Check<'static> {
    let server = Server::script(script);
    check(hurried(&server.url()), expect)
}

/// Runs the test `name` of this binary again as a process of its own, with `variable` set.
pub(crate) fn run_alone(name: &str, variable: &str, value: &str) {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args([name, "--exact", "--nocapture"])
        .env(variable, value)
        .env("WEBMON_TEST_ALONE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:#?}");
}

/// Whether this process was started by [`run_alone`].
pub(crate) fn is_alone() -> bool {
    std::env::var_os("WEBMON_TEST_ALONE").is_some()
}
