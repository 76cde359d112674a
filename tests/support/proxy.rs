//! A TCP forwarder on loopback that can be down, slow or faulty, switched while it runs.
//!
//! It is bound before it has a target: a server can so be told to advertise the proxy's address.
//! Each way has conditions of its own, looked at anew for each piece that passes. The counters
//! prove that somebody met the fault.

mod link;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use link::Link;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// Both of them.
pub const BOTH: [Way; 2] = [Way::ToServer, Way::ToClient];

/// What happens to bytes on one way; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Each byte comes so much later, and up to `jitter` on top. Order is kept.
    pub latency: Duration,
    pub jitter: Duration,
    /// Bytes per second of each connection.
    pub bandwidth: Option<u64>,
    /// Bytes are taken and go nowhere; connections stay open, and so does their end.
    pub black_hole: bool,
    /// A connection that has something to send is reset (RST).
    pub reset: bool,
    /// At most so many bytes in a write.
    pub slice: Option<usize>,
    /// A connection is closed after this many bytes of its life.
    pub limit: Option<u64>,
    /// One bit is flipped every so many bytes, on average.
    pub corrupt_every: Option<u64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Connections that came while it was up.
    Connections,
    /// Connections that came while it was down: reset at once.
    Refused,
    /// Connections that came while nobody listened at the target: reset as well.
    Unreachable,
    /// Open connections that were closed by going down, or by [`Proxy::cut`].
    Cut,
    /// Open connections that were reset.
    Reset,
    /// Open connections that were closed at their data limit.
    Limited,
    /// Bytes that came through.
    Forwarded,
    /// Bytes that came later.
    Delayed,
    /// Bytes that waited for the bandwidth.
    Throttled,
    /// Bytes that a black hole took.
    Swallowed,
    /// Writes that were smaller than what there was to write.
    Sliced,
    /// Bytes that were changed.
    Corrupted,
}

const COUNTS: usize = 12;

struct Shared {
    target: Mutex<Option<String>>,
    is_up: AtomicBool,
    seed: AtomicU64,
    conditions: [Mutex<Conditions>; 2],
    counts: [AtomicU64; COUNTS],
    links: Mutex<Vec<Weak<Link>>>,
}

impl Shared {
    fn add(&self, count: Count, much: u64) {
        self.counts[count as usize].fetch_add(much, Ordering::SeqCst);
    }

    fn conditions(&self, way: Way) -> Conditions {
        self.conditions[way as usize].lock().expect("conditions").clone()
    }

    fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }

    fn links(&self) -> Vec<Arc<Link>> {
        let mut links = self.links.lock().expect("links");
        links.retain(|link| link.strong_count() > 0);
        links.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Lives until the test's process ends.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy without a target, down.
    #[allow(clippy::disallowed_methods)] // a test's proxy ends with the test's process
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            is_up: AtomicBool::new(false),
            seed: AtomicU64::new(1),
            conditions: Default::default(),
            counts: Default::default(),
            links: Mutex::default(),
        });
        let common = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = common.clone();
                std::thread::spawn(move || accept(client, &shared));
            }
        });
        Self { address, shared }
    }

    /// Forwards to `target` when it is up; it begins down.
    pub fn down(target: &str) -> Self {
        let proxy = Self::new();
        proxy.lead_to(target);
        proxy
    }

    /// Forwards to `target`.
    pub fn up(target: &str) -> Self {
        let proxy = Self::down(target);
        proxy.set_up();
        proxy
    }

    /// Where new connections go from now on; those that are open stay where they are.
    pub fn lead_to(&self, target: &str) {
        *self.shared.target.lock().expect("target") = Some(target.to_owned());
    }

    pub fn set_up(&self) {
        self.shared.is_up.store(true, Ordering::SeqCst);
    }

    /// Cuts what is open and refuses what comes.
    pub fn set_down(&self) {
        self.shared.is_up.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Where the random parts (jitter, flipped bits) of new connections come from.
    pub fn set_seed(&self, seed: u64) {
        self.shared.seed.store(seed, Ordering::SeqCst);
    }

    /// Conditions of one way, for open connections as well.
    pub fn set(&self, way: Way, conditions: Conditions) {
        *self.shared.conditions[way as usize].lock().expect("conditions") = conditions;
    }

    /// The same conditions on both ways.
    pub fn set_both(&self, conditions: &Conditions) {
        BOTH.into_iter().for_each(|way| self.set(way, conditions.clone()));
    }

    /// A good network again. Connections that lost bytes in a black hole are reset: no network
    /// takes bytes out of the middle of a stream.
    pub fn clear(&self) {
        self.set_both(&Conditions::default());
        for link in self.shared.links() {
            if link.has_lost() {
                link.reset(&self.shared);
            }
        }
    }

    /// Closes all open connections; new ones are welcome.
    pub fn cut(&self) {
        self.shared.links().iter().for_each(|link| link.close(&self.shared, Count::Cut));
    }

    /// Resets all open connections; new ones are welcome.
    pub fn reset(&self) {
        self.shared.links().iter().for_each(|link| link.reset(&self.shared));
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.links().len()
    }

    /// How often so far.
    pub fn count(&self, count: Count) -> u64 {
        self.shared.counts[count as usize].load(Ordering::SeqCst)
    }

    /// Connections refused so far: the proof that somebody met the fault.
    pub fn refused(&self) -> u64 {
        self.count(Count::Refused)
    }
}

fn accept(client: TcpStream, shared: &Arc<Shared>) {
    if !shared.is_up() {
        link::reset_at_close(&client);
        // Counted before the other side knows.
        shared.add(Count::Refused, 1);
        return;
    }
    let target = shared.target.lock().expect("target").clone();
    let Some(server) = target.and_then(|target| TcpStream::connect(target).ok()) else {
        link::reset_at_close(&client);
        shared.add(Count::Unreachable, 1);
        return;
    };
    shared.add(Count::Connections, 1);
    let link = Arc::new(Link::new(client, server));
    shared.links.lock().expect("links").push(Arc::downgrade(&link));
    // It may have gone down after the look above.
    if !shared.is_up() {
        link.close(shared, Count::Cut);
    }
    link::forward(&link, shared);
}

/// A small generator of random numbers (SplitMix64), the same for each seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is 1 or more.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
