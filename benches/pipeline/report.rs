//! The command's words, progress on standard error and the table on standard output.

use webmon::runtime::{Stop, now};

/// The parts, in the order they run.
pub(crate) const PARTS: [&str; 8] =
    ["idle", "http", "https", "highest", "fleet", "consumer", "history", "api"];
/// What `producer` stands for.
const PRODUCER: [&str; 5] = ["idle", "http", "https", "highest", "fleet"];

/// How much is measured.
pub(crate) struct Plan {
    /// The parts that were asked for.
    pub(crate) parts: Vec<&'static str>,
    /// Seconds of one measurement.
    pub(crate) seconds: u64,
    /// Messages for the consumer.
    pub(crate) rows: u64,
    /// Rows for the questions about the past.
    pub(crate) history_rows: u64,
    /// Sites that the API knows.
    pub(crate) api_sites: u64,
    /// Requests a second to the API.
    pub(crate) api_rate: u64,
    /// Workers of the producer's fast lane.
    pub(crate) threads: u64,
    /// Numbers of sites whose memory is taken, all at 60 s; the last one's start is looked at.
    pub(crate) fleets: &'static [u32],
    /// How long a fleet runs: once round, or less when it has to be quick.
    pub(crate) fleet_seconds: u64,
}

impl Plan {
    /// From the arguments and the environment; what is wrong with them.
    pub(crate) fn read() -> Result<Self, String> {
        let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let is_quick = args.iter().any(|arg| arg == "--quick");
        let wanted: Vec<&str> =
            args.iter().map(String::as_str).filter(|a| *a != "--quick").collect();
        for arg in &wanted {
            if *arg != "producer" && !PARTS.contains(arg) {
                return Err(format!("no part '{arg}': {}, producer, --quick", PARTS.join(", ")));
            }
        }
        let is_wanted = |part: &&str| {
            let is_named = wanted.contains(part);
            let is_meant = wanted.contains(&"producer") && PRODUCER.contains(part);
            wanted.is_empty() || is_named || is_meant
        };
        let (seconds, rows, past, sites) = if is_quick {
            (5, 200_000, 1_000_000, 10_000)
        } else {
            (20, 1_000_000, 20_000_000, 100_000)
        };
        Ok(Self {
            parts: PARTS.into_iter().filter(is_wanted).collect(),
            seconds: number("WEBMON_BENCH_SECONDS", seconds).max(2),
            rows: number("WEBMON_BENCH_ROWS", rows),
            history_rows: number("WEBMON_BENCH_HISTORY_ROWS", past),
            api_sites: number("WEBMON_BENCH_API_SITES", sites).max(1_000),
            api_rate: number("WEBMON_BENCH_API_RATE", 50).max(1),
            threads: number("WEBMON_BENCH_THREADS", 32),
            fleets: if is_quick { &[1_000, 10_000] } else { &[1_000, 10_000, 100_000] },
            fleet_seconds: if is_quick { 15 } else { 65 },
        })
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One line of progress.
pub(crate) fn say(text: &str) {
    eprintln!("[{}] {text}", now().wall.strftime("%H:%M:%S"));
}

pub(crate) fn pause(seconds: u64) {
    let _ = Stop::new().wait(std::time::Duration::from_secs(seconds));
}

pub(crate) fn head() {
    println!("| what | webmon | rate | × wrk | goal | peers |\n|---|---|---|---|---|---|");
}

/// One line of the table.
pub(crate) fn row(what: &str, figure: &str, rate: &str, ratio: &str, goal: &str, peers: &str) {
    println!("| {what} | {figure} | {rate} | {ratio} | {goal} | {peers} |");
}
