//! The one list of metric names.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::MetricType;
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

        impl Labels for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];
        }
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

/// Whose metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The producer's: sites, checks, spool, publishing.
    Producer,
    /// The consumer's: fetching, rows, rollups.
    Consumer,
    /// The API's: requests and connections.
    Api,
}

/// One metric, as somebody who reads `/metrics` meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, with unit and `_total`; a histogram's without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// The daemon that has it; `None`: both.
    pub role: Option<Role>,
}

/// A set of labels.
pub(super) trait Labels {
    /// Their names.
    const NAMES: &'static [&'static str];
}

/// A metric that tells its labels.
trait Labelled: prometheus_client::registry::Metric {
    fn labels(&self) -> &'static [&'static str] {
        &[]
    }
}

impl Labelled for Counter {}
impl Labelled for Gauge {}
impl Labelled for Gauge<f64, AtomicU64> {}
impl Labelled for Histogram {}

impl<S, M> Labelled for Family<S, M>
where
    Self: prometheus_client::registry::Metric,
    S: Labels + Clone + std::hash::Hash + Eq,
{
    fn labels(&self) -> &'static [&'static str] {
        S::NAMES
    }
}

/// What is registered, and what could be.
struct Listing {
    registry: Registry,
    described: Vec<Described>,
    /// Of what comes next.
    role: Option<Role>,
    shown: Option<Role>,
}

impl Listing {
    fn new(shown: Option<Role>) -> Self {
        let registry = Registry::with_prefix("webmon");
        Self { registry, described: Vec::new(), role: None, shown }
    }

    fn register(&mut self, name: &str, help: &str, metric: impl Labelled) {
        if self.describe(name, &metric) {
            self.registry.register(name, help, metric);
        }
    }

    fn register_with_unit(&mut self, name: &str, help: &str, unit: Unit, metric: impl Labelled) {
        if self.describe(&format!("{name}_{}", unit.as_str()), &metric) {
            self.registry.register_with_unit(name, help, unit, metric);
        }
    }

    /// Whether it is shown.
    fn describe(&mut self, name: &str, metric: &impl Labelled) -> bool {
        let total = if matches!(metric.metric_type(), MetricType::Counter) { "_total" } else { "" };
        let (name, labels) = (format!("webmon_{name}{total}"), metric.labels());
        self.described.push(Described { name, labels, role: self.role });
        self.shown.is_none() || self.role.is_none() || self.shown == self.role
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
    /// Names every metric, for the daemons that have it.
    fn register(&self, r: &mut Listing) {
        r.role = Some(Role::Producer);
        r.register("sites", "Sites this producer checks", self.sites.clone());
        r.register("checks", "Checks ended", self.checks.clone());
        r.register(
            "check_failures",
            "Checks that are down, by failure kind",
            self.failures.clone(),
        );
        r.register("checks_running", "Checks under way", self.checks_running.clone());
        r.register("checks_queued", "Checks waiting for a worker", self.checks_queued.clone());
        let seconds = |r: &mut Listing, name: &str, help: &str, metric: &Seconds| {
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
        r.role = Some(Role::Consumer);
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
        r.role = Some(Role::Api);
        r.register("api_requests", "Requests answered", self.api_requests.clone());
        seconds(r, "api_request_duration", "From a request to its answer", &self.api_duration);
        r.register("api_connections", "Connections to the API", self.api_connections.clone());
        r.register("api_refused", "Requests the server refused", self.api_refused.clone());
        r.role = None;
        r.register("group_rebalances", "Kafka group rebalances", self.rebalances.clone());
        r.register("calls_left_behind", "Calls that hung", self.calls_left_behind.clone());
        r.register("panics", "Panics caught", self.panics.clone());
    }

    /// What a process of this role has to tell, and that of the process itself, in Prometheus' text
    /// format (OpenMetrics); without a role everything.
    #[must_use]
    pub fn render(&self, shown: Option<Role>) -> String {
        let mut listing = Listing::new(shown);
        self.register(&mut listing);
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode_registry(&mut text, &listing.registry);
        super::process::encode(&mut text);
        let _ = encode_eof(&mut text);
        text
    }
}

/// Every metric's name in `/metrics`, its labels and the daemon that has it, for its documentation.
#[must_use]
pub fn described() -> Vec<Described> {
    let mut listing = Listing::new(None);
    Metrics::default().register(&mut listing);
    listing.described
}

static SHOWN: OnceLock<Role> = OnceLock::new();

/// From now on `/metrics` has only what a process of this role has to tell. Of a process that runs
/// several nothing is said, and all is shown; what was said first holds.
pub fn show_only(role: Role) {
    let _ = SHOWN.set(role);
}

/// The role of [`show_only`].
#[must_use]
pub fn shown() -> Option<Role> {
    SHOWN.get().copied()
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
        let text = metrics.render(None);
        assert!(text.contains("webmon_checks_total{outcome=\"up\"} 1"), "{text}");
        assert!(text.contains("webmon_check_lateness_seconds_bucket{le=\"0.003\"} 1"), "{text}");
        assert!(text.contains("webmon_spool_bytes 0"), "{text}");
        assert!(text.contains("webmon_rows_inserted_total 0"), "{text}");
    }

    #[test]
    fn a_role_shows_its_own_metrics_under_the_names_described() {
        let metrics = Metrics::default();
        for role in [Role::Producer, Role::Consumer] {
            let text = metrics.render(Some(role));
            let has = |name: &str| text.lines().any(|l| l.starts_with(&format!("{name} ")));
            for metric in described().iter().filter(|metric| metric.labels.is_empty()) {
                // Of a histogram the sum stands for the rest.
                let is_there = has(&metric.name) || has(&format!("{}_sum", metric.name));
                let wanted = metric.role.is_none_or(|of| of == role);
                assert_eq!(is_there, wanted, "{metric:?} in {text}");
            }
        }
    }
}
