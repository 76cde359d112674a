//! The limit of checks at once to one address.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::probe::{Lookup, ProbeOptions, ProbeParts};

/// A server that counts how many requests it has at once, over all its ports.
#[derive(Clone, Debug, Default)]
struct Server {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
}

impl Server {
    /// One more port on `address`; a request takes `time`.
    #[allow(clippy::disallowed_methods)] // ends with the test's process
    fn listen(&self, address: &str, time: Duration) -> SocketAddr {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let at = listener.local_addr().unwrap();
        let server = self.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let server = server.clone();
                // Counted from the connection on, not from the request.
                let now = server.now.fetch_add(1, Ordering::SeqCst) + 1;
                server.most.fetch_max(now, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut request = [0; 1024];
                    let read = stream.read(&mut request).unwrap_or(0);
                    let is_first = request[..read].starts_with(b"GET /moved");
                    let _ = Stop::new().wait(time);
                    server.all.fetch_add(1, Ordering::SeqCst);
                    // Before the answer: whoever has it may begin the next.
                    server.now.fetch_sub(1, Ordering::SeqCst);
                    let head = if is_first { "302 Found\r\nLocation: /" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes());
                });
            }
        });
        at
    }
}

#[derive(Debug)]
struct Probing {
    prober: Prober,
    records: Mutex<Records>,
    /// Jobs that a worker took up.
    taken: AtomicUsize,
}

impl Probing {
    fn new() -> Arc<Self> {
        // Some names have an address first that nobody listens on.
        let lookup: Lookup = Arc::new(|name| {
            let local = Ipv4Addr::LOCALHOST.into();
            let dead = Ipv4Addr::new(127, 9, 9, 9).into();
            Ok(if name.starts_with("two") { vec![dead, local] } else { vec![local] })
        });
        let options = ProbeOptions {
            region: "test".to_owned(),
            user_agent: "test".to_owned(),
            max_body: 1 << 20,
            max_redirects: 5,
            allow_private_addresses: true,
            resolver_threads: 4,
            connectivity: Vec::new(),
        };
        let parts = ProbeParts { lookup: Some(lookup), ..ProbeParts::default() };
        let prober = Prober::with_parts(options, parts).unwrap();
        Arc::new(Self { prober, records: Mutex::default(), taken: AtomicUsize::new(0) })
    }

    fn wait_for(&self, sites: usize) -> Records {
        until("all sites are recorded", || match self.records.lock().unwrap().len() {
            recorded if recorded == sites => Ok(()),
            recorded => Err(recorded),
        });
        self.records.lock().unwrap().clone()
    }
}

impl Work for Probing {
    fn check(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        gate: Option<Arc<dyn Gate>>,
    ) -> Result<Check<'static>, IpAddr> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        match gate {
            None => Ok(self.prober.check(target, scheduled_at)),
            Some(gate) => self.prober.check_through(target, scheduled_at, gate),
        }
    }

    fn record(&self, check: &Check<'_>) {
        let detail = check.failure.as_ref().map(|f| f.detail.to_string()).unwrap_or_default();
        let mut records = self.records.lock().unwrap();
        records.entry(check.website_id).or_default().push((check.outcome, detail));
    }
}

/// 50 sites on one address, by different names and ports, some redirected.
fn sites(server: &Server, time: Duration) -> Vec<Arc<Entry>> {
    let ports: Vec<u16> = (0..4).map(|_| server.listen("127.0.0.1", time).port()).collect();
    let hosts = ["127.0.0.1", "one.test", "two.test", "[::ffff:127.0.0.1]", "localhost", "0x7f.1"];
    (0..50)
        .map(|n| {
            let path = if n % 5 == 0 { "moved" } else { "" };
            let url = format!("http://{}:{}/{path}", hosts[n % hosts.len()], ports[n % 4]);
            Arc::new(Entry::new(target(n as i64, &url), false))
        })
        .collect()
}

#[test]
fn never_more_checks_at_one_address_than_the_limit() {
    let (server, work) = (Server::default(), Probing::new());
    let entries = sites(&server, Duration::from_millis(5));
    let bench = Bench::start(16, 16, Some(3), &work);
    for round in 1..=2 {
        for entry in &entries {
            bench.submit(entry);
        }
        until("all sites are recorded", || {
            let records = work.records.lock().unwrap();
            let recorded: usize = records.values().map(Vec::len).sum();
            if recorded == 50 * round { Ok(()) } else { Err(recorded) }
        });
        bench.wait_for_idle(16, 16);
    }
    bench.end();
    let records = work.records.lock().unwrap().clone();
    let up = (Outcome::Up, String::new());
    assert!(records.values().all(|of_site| of_site[..] == [up.clone(), up.clone()]), "{records:?}");
    assert_eq!(server.most.load(Ordering::SeqCst), 3);
    assert_eq!(server.all.load(Ordering::SeqCst), 2 * (50 + 10), "no request but the checks'");
}

#[test]
fn without_a_limit_there_are_more() {
    let (server, work) = (Server::default(), Probing::new());
    let entries = sites(&server, Duration::from_millis(50));
    let bench = Bench::start(16, 16, None, &work);
    entries.iter().for_each(|entry| bench.submit(entry));
    work.wait_for(50);
    bench.end();
    assert!(server.most.load(Ordering::SeqCst) > 3);
}

#[test]
fn a_full_address_holds_no_worker() {
    let (server, work) = (Server::default(), Probing::new());
    let held = server.listen("127.0.0.1", CAP * 2);
    let free = server.listen("127.0.0.2", Duration::ZERO);
    let bench = Bench::start(2, 1, Some(1), &work);
    for id in 0..20 {
        bench.submit(&Arc::new(Entry::new(target(id, &format!("http://{held}/")), false)));
    }
    until("the others wait for the address", || match bench.lanes.0.waiting() {
        (0, 19) => Ok(()),
        waiting => Err(waiting),
    });
    for id in 100..110 {
        bench.submit(&Arc::new(Entry::new(target(id, &format!("http://{free}/")), false)));
    }
    let records = work.wait_for(10);
    assert!(records.values().all(|of_site| of_site[0].0 == Outcome::Up), "{records:?}");
    assert_eq!(server.most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_site_seen_once_waits_without_a_worker() {
    let (server, work) = (Server::default(), Probing::new());
    let held = server.listen("127.0.0.1", CAP * 2);
    let free = server.listen("127.0.0.1", Duration::ZERO);
    let bench = Bench::start(2, 1, Some(1), &work);
    let site = Arc::new(Entry::new(target(1, &format!("http://{free}/")), false));
    bench.submit(&site);
    work.wait_for(1);
    bench.wait_for_idle(2, 1);
    bench.submit(&Arc::new(Entry::new(target(2, &format!("http://{held}/")), false)));
    until("the other holds the address", || match server.now.load(Ordering::SeqCst) {
        1 => Ok(()),
        now => Err(now),
    });
    bench.submit(&site);
    bench.wait_for_idle(1, 1);
    assert_eq!(bench.lanes.0.waiting(), (0, 1));
    assert_eq!(work.taken.load(Ordering::SeqCst), 2, "no worker had to find out");
}

#[test]
fn who_waits_past_its_next_due_time_is_missed() {
    let work = Arc::new(Held::default());
    work.addresses.lock().unwrap().extend((0..9).map(|id| (id, address(1))));
    let bench = Bench::start(2, 2, Some(1), &work);
    bench.submit(&quick(0));
    work.wait_for_begun(1);
    let site = quick(1);
    let (first, second) = (due(), due());
    bench.lanes.submit(&site, first).unwrap();
    until("it waits for its address", || match bench.lanes.0.waiting() {
        (0, 1) => Ok(()),
        waiting => Err(waiting),
    });
    bench.wait_for_idle(1, 2);
    let missed = bench.lanes.submit(&site, second).unwrap_err().missed();
    assert_eq!(missed.scheduled_at, first);
    assert_eq!(missed.failure.unwrap().detail, "not started before its next due time");
    assert_eq!(bench.lanes.0.waiting(), (0, 1), "the newer one waits");
    assert_eq!(bench.lanes.0.idle(), (1, 2), "and no worker looked at it");
    work.go.request();
    bench.end();
    assert_eq!(work.records()[&1], [(Outcome::Up, String::new())]);
}
