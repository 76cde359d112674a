//! Every fault of the proxy on each of the four paths.

use std::time::Duration;

use crate::lab::{FaultLab, Plan};
use crate::random;
use crate::support::eventually;
use crate::support::proxy::{Conditions, Count, Proxy};
use crate::wires::{PATHS, Path, Wires};

/// How long a fault lasts after it was met.
fn fault_time() -> Duration {
    Duration::from_secs(if random::is_full() { 4 } else { 2 })
}

/// A network that is not as it should be.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Down,
    Latency,
    Bandwidth,
    BlackHole,
    Reset,
    Slicing,
    DataLimit,
    Corruption,
}

/// Those that leave the bytes as they are.
const ALL: [Fault; 7] = [
    Fault::Down,
    Fault::Latency,
    Fault::Bandwidth,
    Fault::BlackHole,
    Fault::Reset,
    Fault::Slicing,
    Fault::DataLimit,
];

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Self::Down => "connections cut and refused",
            Self::Latency => "latency of 300 ms, jitter of 200 ms",
            Self::Bandwidth => "bandwidth of 4 kB/s",
            Self::BlackHole => "black hole: open connections, no answers",
            Self::Reset => "reset of whoever has something to say",
            Self::Slicing => "slices of 5 bytes",
            Self::DataLimit => "connections closed after 1,500 bytes",
            Self::Corruption => "a flipped bit every 2 kB, with TLS",
        }
    }

    fn begin(self, proxy: &Proxy) {
        let none = Conditions::default();
        let conditions = match self {
            Self::Down => return proxy.set_down(),
            Self::Latency => Conditions {
                latency: Duration::from_millis(300),
                jitter: Duration::from_millis(200),
                ..none
            },
            Self::Bandwidth => Conditions { bandwidth: Some(4000), ..none },
            Self::BlackHole => Conditions { black_hole: true, ..none },
            Self::Reset => Conditions { reset: true, ..none },
            Self::Slicing => Conditions { slice: Some(5), ..none },
            Self::DataLimit => Conditions { limit: Some(1500), ..none },
            Self::Corruption => Conditions { corrupt_every: Some(2000), ..none },
        };
        proxy.set_both(&conditions);
    }

    fn end(proxy: &Proxy) {
        proxy.set_up();
        proxy.clear();
    }

    /// How often it was met so far.
    fn met(self, proxy: &Proxy) -> u64 {
        proxy.count(match self {
            Self::Down => Count::Refused,
            Self::Latency => Count::Delayed,
            Self::Bandwidth => Count::Throttled,
            Self::BlackHole => Count::Swallowed,
            Self::Reset => Count::Reset,
            Self::Slicing => Count::Sliced,
            Self::DataLimit => Count::Limited,
            Self::Corruption => Count::Corrupted,
        })
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Down => "connections refused",
            Self::Latency => "bytes delayed",
            Self::Bandwidth => "bytes held back",
            Self::BlackHole => "bytes swallowed",
            Self::Reset => "connections reset",
            Self::Slicing => "small writes",
            Self::DataLimit => "connections closed",
            Self::Corruption => "bits flipped",
        }
    }
}

/// The fault on one path, and then a good network again; how often it was met.
fn inject(wires: &Wires, lab: &mut FaultLab, path: Path, fault: Fault) -> u64 {
    let proxy = wires.proxy(path);
    let before = fault.met(proxy);
    fault.begin(proxy);
    eventually(&format!("{path:?} meets {fault:?}"), || match fault.met(proxy) - before {
        0 => Err(lab.daemon(path.who()).log().len()),
        met => Ok(met),
    });
    lab.let_run(fault_time());
    Fault::end(proxy);
    fault.met(proxy) - before
}

/// Some of each, one after the other; the full run has them all.
#[test]
fn a_bad_network_costs_nothing() {
    let wires = Wires::start();
    if random::is_full() {
        for (place, fault) in (100..).zip(ALL) {
            let mut lab = wires.lab(Plan::new("network"));
            lab.start_all();
            let met: Vec<String> = PATHS
                .into_iter()
                .map(|path| {
                    let met = inject(&wires, &mut lab, path, fault);
                    lab.wait_until_stored();
                    format!("{} {met}", path.name())
                })
                .collect();
            let injected = format!("on each path; {}: {}", fault.unit(), met.join(", "));
            lab.finish(place, &format!("Network: {}", fault.words()), &injected);
        }
        return;
    }
    let mut lab = wires.lab(Plan::new("network"));
    lab.start_all();
    let some = [
        (Path::ProducerKafka, Fault::Reset),
        (Path::ConsumerDatabase, Fault::BlackHole),
        (Path::ConsumerKafka, Fault::DataLimit),
        (Path::ProducerDatabase, Fault::Down),
        (Path::ProducerKafka, Fault::Latency),
        (Path::ConsumerDatabase, Fault::Slicing),
    ];
    for (path, fault) in some {
        inject(&wires, &mut lab, path, fault);
    }
    lab.finish(100, "Network: six faults on the four paths", "each was met");
}

/// With TLS a changed byte is a broken connection, and nothing else. Without it nobody can tell:
/// Kafka's checksum covers records, not their offsets, and PostgreSQL's protocol has none.
#[test]
fn changed_bytes_are_noticed_and_cost_nothing_with_tls() {
    let wires = Wires::encrypted();
    let mut lab = wires.lab(Plan::new("corruption"));
    lab.start_all();
    let met: Vec<String> = PATHS
        .into_iter()
        .map(|path| {
            wires.proxy(path).set_seed(random::seed());
            let met = inject(&wires, &mut lab, path, Fault::Corruption);
            format!("{} {met}", path.name())
        })
        .collect();
    let injected = format!("on each path; {}: {}", Fault::Corruption.unit(), met.join(", "));
    lab.finish(110, &format!("Network: {}", Fault::Corruption.words()), &injected);
}
