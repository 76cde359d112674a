//! The one list of metric names.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),+ }
    )+};
}

labels! {
    /// Checks by how they ended.
    ByOutcome {
        /// `up`, `down` or `missed`.
        outcome: &'static str
    }
    /// Failed checks by the step that failed.
    ByFailure {
        /// A failure kind's name.
        kind: &'static str
    }
    /// Work by lane.
    ByLane {
        /// `fast` or `slow`.
        lane: &'static str
    }
    /// Things refused or lost, by reason.
    ByReason {
        /// A fixed word; never a text from outside.
        reason: &'static str
    }
    /// By partition of the topic.
    ByPartition {
        /// Its number.
        partition: i32
    }
    /// Requests of the API.
    ByRequest {
        /// The method, or `none` where no request could be read.
        method: &'static str,
        /// `2xx`, `3xx`, `4xx` or `5xx`.
        status: &'static str
    }
    /// Panics by the thread's kind.
    ByDaemonThread {
        /// A fixed name without number.
        thread: &'static str
    }
}

/// Every metric of the daemons. Names in `/metrics` are `webmon_` + the name in
/// `Metrics::register`, with `_total` behind counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Sites this producer checks.
    pub sites: Gauge,
    /// Checks ended.
    pub checks: Family<ByOutcome, Counter>,
    /// Checks that are down.
    pub failures: Family<ByFailure, Counter>,
    /// Checks under way.
    pub checks_running: Family<ByLane, Gauge>,
    /// Checks waiting for a worker.
    pub checks_queued: Family<ByLane, Gauge>,
    /// Seconds from due time to start.
    pub lateness: Seconds,
    /// Seconds a check took.
    pub response_time: Seconds,
    /// Whether the own network was there when somebody looked last.
    pub own_network_reachable: Reachable,
    /// Failed checks that say nothing about their sites: the own network was away.
    pub checks_unreachable_self: Counter,
    /// Due times that nobody could record, such as those of a suspended machine.
    pub unrecorded: Family<ByReason, Counter>,
    /// Results in the spool, not yet acknowledged by the broker.
    pub spool_records: Gauge,
    /// Their bytes.
    pub spool_bytes: Gauge,
    /// Results that could not be kept.
    pub spool_lost: Family<ByReason, Counter>,
    /// Commits of the spool.
    pub spool_commits: Counter,
    /// Results acknowledged by the broker; those it refuses for ever are not among them.
    pub published: Counter,
    /// Tries to publish that failed.
    pub publish_failures: Counter,
    /// Results set aside because the broker will never take them.
    pub publish_refused: Family<ByReason, Counter>,
    /// Kafka group rebalances this process took part in.
    pub rebalances: Counter,
    /// Messages fetched.
    pub fetched: Counter,
    /// Messages between the last fetched one and the partition's end.
    pub lag: Family<ByPartition, Gauge>,
    /// Offsets skipped because the broker no longer has them.
    pub offsets_lost: Counter,
    /// Rows inserted.
    pub rows_inserted: Counter,
    /// Rows that were there already: replays.
    pub rows_known: Counter,
    /// Messages put aside into `rejected_message`.
    pub rejected: Family<ByReason, Counter>,
    /// Messages not shown on the console since nobody read it fast enough.
    pub console_dropped: Counter,
    /// Insert transactions that failed and were repeated.
    pub insert_failures: Counter,
    /// Seconds per insert transaction.
    pub insert_duration: Seconds,
    /// Seconds from a check's due time to its row's commit; rows that were there already don't
    /// count again.
    pub end_to_end: Seconds,
    /// Ended hours that wait to be counted; this and the next two of the process that counts.
    pub rollup_waiting: Gauge,
    /// Seconds since the oldest of them ended.
    pub rollup_oldest: Gauge,
    /// Seconds the last round of counting took.
    pub rollup_duration: Gauge<f64, AtomicU64>,
    /// Requests that the API answered, however.
    pub api_requests: Family<ByRequest, Counter>,
    /// Seconds from a whole request to its answer.
    pub api_duration: Seconds,
    /// Connections to the API.
    pub api_connections: Gauge,
    /// Requests and connections that the API's server refused by itself.
    pub api_refused: Family<ByReason, Counter>,
    /// Calls that hung and were left behind, since the start.
    pub calls_left_behind: Counter,
    /// Panics caught.
    pub panics: Family<ByDaemonThread, Counter>,
}

/// A histogram of seconds, half a millisecond to 2 minutes: narrow where lateness has its bounds
/// (3 ms and 20 ms at the 99th percentile).
#[derive(Clone, Debug)]
pub struct Seconds(pub Histogram);

impl Default for Seconds {
    fn default() -> Self {
        Self(Histogram::new([
            0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
            10.0, 30.0, 120.0,
        ]))
    }
}

impl Seconds {
    /// Records one value.
    pub fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

/// A gauge that is 1 until somebody finds out otherwise.
#[derive(Clone, Debug)]
pub struct Reachable(Gauge);

impl Default for Reachable {
    fn default() -> Self {
        let gauge = Gauge::default();
        gauge.set(1);
        Self(gauge)
    }
}

impl Reachable {
    /// Records what was found.
    pub fn set(&self, is_reachable: bool) {
        self.0.set(i64::from(is_reachable));
    }

    /// What was found last.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.get() != 0
    }
}

impl Metrics {
    /// Registers every metric under its name.
    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("webmon");
        let r = &mut registry;
        r.register("sites", "Sites this producer checks", self.sites.clone());
        r.register("checks", "Checks ended", self.checks.clone());
        r.register(
            "check_failures",
            "Checks that are down, by failure kind",
            self.failures.clone(),
        );
        r.register("checks_running", "Checks under way", self.checks_running.clone());
        r.register("checks_queued", "Checks waiting for a worker", self.checks_queued.clone());
        let seconds = |r: &mut Registry, name: &str, help: &str, metric: &Seconds| {
            r.register_with_unit(name, help, Unit::Seconds, metric.0.clone());
        };
        seconds(r, "check_lateness", "From due time to start", &self.lateness);
        seconds(r, "check_response_time", "Duration of checks", &self.response_time);
        r.register(
            "own_network_reachable",
            "1, or 0 while no connectivity target answers",
            self.own_network_reachable.0.clone(),
        );
        r.register(
            "checks_unreachable_self",
            "Failed checks while the own network was away",
            self.checks_unreachable_self.clone(),
        );
        r.register("checks_unrecorded", "Due times without a row", self.unrecorded.clone());
        r.register("spool_records", "Results not yet acknowledged", self.spool_records.clone());
        r.register_with_unit("spool", "Their size", Unit::Bytes, self.spool_bytes.clone());
        r.register("spool_lost", "Results that could not be kept", self.spool_lost.clone());
        r.register("spool_commits", "Commits of the spool", self.spool_commits.clone());
        r.register("published", "Results acknowledged by the broker", self.published.clone());
        r.register(
            "publish_failures",
            "Tries to publish that failed",
            self.publish_failures.clone(),
        );
        r.register(
            "publish_refused",
            "Results the broker never takes",
            self.publish_refused.clone(),
        );
        r.register("group_rebalances", "Kafka group rebalances", self.rebalances.clone());
        r.register("fetched", "Messages fetched", self.fetched.clone());
        r.register("lag_messages", "Messages not yet fetched", self.lag.clone());
        r.register("offsets_lost", "Offsets the broker no longer had", self.offsets_lost.clone());
        r.register("rows_inserted", "Rows inserted", self.rows_inserted.clone());
        r.register("rows_known", "Rows that were there already", self.rows_known.clone());
        r.register("rejected", "Messages put into rejected_message", self.rejected.clone());
        r.register(
            "console_dropped",
            "Messages stored and not shown on the console",
            self.console_dropped.clone(),
        );
        r.register("insert_failures", "Insert transactions repeated", self.insert_failures.clone());
        seconds(r, "insert_duration", "Duration of insert transactions", &self.insert_duration);
        seconds(r, "end_to_end", "From due time to the row's commit", &self.end_to_end);
        r.register("rollup_hours_waiting", "Hours to be counted", self.rollup_waiting.clone());
        let oldest = self.rollup_oldest.clone();
        r.register_with_unit("rollup_oldest_waiting", "Age of the oldest", Unit::Seconds, oldest);
        let duration = self.rollup_duration.clone();
        r.register_with_unit("rollup_last_run", "Duration", Unit::Seconds, duration);
        r.register("api_requests", "Requests answered", self.api_requests.clone());
        seconds(r, "api_request_duration", "From a request to its answer", &self.api_duration);
        r.register("api_connections", "Connections to the API", self.api_connections.clone());
        r.register("api_refused", "Requests the server refused", self.api_refused.clone());
        r.register("calls_left_behind", "Calls that hung", self.calls_left_behind.clone());
        r.register("panics", "Panics caught", self.panics.clone());
        registry
    }

    /// All metrics, and those of the process, in Prometheus' text format (OpenMetrics).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode_registry(&mut text, &self.register());
        super::process::encode(&mut text);
        let _ = encode_eof(&mut text);
        text
    }
}

/// This process's metrics.
#[must_use]
pub fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_names_with_units() {
        let metrics = Metrics::default();
        metrics.checks.get_or_create(&ByOutcome { outcome: "up" }).inc();
        metrics.lateness.observe(0.0025);
        let text = metrics.render();
        assert!(text.contains("webmon_checks_total{outcome=\"up\"} 1"), "{text}");
        assert!(text.contains("webmon_check_lateness_seconds_bucket{le=\"0.003\"} 1"), "{text}");
        assert!(text.contains("webmon_spool_bytes 0"), "{text}");
    }
}
