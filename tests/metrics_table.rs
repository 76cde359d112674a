//! docs/metrics.md and the code say the same, and each daemon shows its own metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::daemon::Lab;
use webmon::telemetry::{Role, described};

/// Of the process itself, whichever daemon it is.
const PROCESS: [&str; 6] = [
    "webmon_build_info",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_threads",
    "process_start_time_seconds",
    "process_open_fds",
];

/// A row of the page's table.
#[derive(Debug, PartialEq)]
struct Row {
    labels: Vec<String>,
    unit: String,
    daemon: String,
}

/// The rows by metric.
fn page() -> BTreeMap<String, Row> {
    let text = include_str!("../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, labels, unit, daemon, meaning, alert] = cells.as_slice() else {
            panic!("six cells: {line}");
        };
        assert!(!meaning.is_empty() && !alert.is_empty(), "{line}");
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| label != "-").collect();
        let row = Row { labels, unit: (*unit).to_owned(), daemon: (*daemon).to_owned() };
        (name.trim_matches('`').to_owned(), row)
    })
    .collect()
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let page = page();
    let mut known: BTreeSet<&str> = PROCESS.into();
    let described = described();
    for metric in &described {
        let row = page.get(&metric.name).unwrap_or_else(|| panic!("no row of {}", metric.name));
        let daemon = match metric.role {
            Some(Role::Producer) => "producer",
            Some(Role::Consumer) => "consumer",
            Some(Role::Api) => "api",
            None => "all",
        };
        assert_eq!((row.daemon.as_str(), row.labels.as_slice()), (daemon, &labels(metric)[..]));
        let has_unit = |unit: &str| metric.name.trim_end_matches("_total").ends_with(unit);
        assert_eq!(has_unit("_seconds"), row.unit == "seconds", "{}", metric.name);
        assert_eq!(has_unit("_bytes"), row.unit == "bytes", "{}", metric.name);
        known.insert(&metric.name);
    }
    for name in page.keys() {
        assert!(known.contains(name.as_str()), "{name} is no metric");
    }
    for name in PROCESS {
        assert!(page.contains_key(name), "no row of {name}");
    }
}

fn labels(metric: &webmon::telemetry::Described) -> Vec<String> {
    metric.labels.iter().map(|label| (*label).to_owned()).collect()
}

/// The metrics in an answer of /metrics, by the lines that give their type, and their labels.
fn scraped(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        names.insert(match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        });
    }
    names
}

#[test]
fn each_daemon_shows_what_is_its_own() {
    let mut lab = Lab::new("metrics");
    lab.config("websites: []\n");
    let page = page();
    for (program, args) in
        [("producer", &[][..]), ("consumer", &[]), ("webmon", &["run", "--no-api"])]
    {
        let daemon = lab.start(program, args);
        let (status, text) = daemon.get("/metrics");
        assert_eq!(status, 200);
        let found = scraped(&text);
        for name in &found {
            let row = page.get(name).unwrap_or_else(|| panic!("no row of {name}"));
            let is_own = program == "webmon" || row.daemon == program || row.daemon == "all";
            assert!(is_own, "{program} shows {name}");
        }
        // What has no labels is there from the start.
        for (name, row) in page.iter().filter(|(_, row)| row.labels.is_empty()) {
            let is_own = program == "webmon" || row.daemon == program || row.daemon == "all";
            assert_eq!(found.contains(name), is_own, "{program}: {name} in {text}");
        }
        daemon.stop();
    }
}
