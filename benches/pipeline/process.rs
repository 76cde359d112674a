//! What the kernel and a daemon's own metrics say about a process.

use std::time::Duration;

use webmon::runtime::now;

use crate::support::daemon::Daemon;

/// The kernel's unit of CPU time (USER_HZ) is 1/100 s on every Linux.
const TICK_US: f64 = 10_000.0;

/// User and system time of a process, in µs.
pub(crate) fn cpu_us(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    ticks(&stat, 11) * TICK_US
}

/// The same of all children of this process that have ended.
pub(crate) fn children_cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    ticks(&stat, 13) * TICK_US
}

/// The sum of two neighbouring fields, counted after the command's closing parenthesis.
fn ticks(stat: &str, field: usize) -> f64 {
    let rest = stat.rsplit(") ").next().expect("fields");
    rest.split(' ').skip(field).take(2).map(|f| f.parse::<f64>().expect("a number")).sum()
}

/// Resident memory in MB (10⁶ bytes): now, and the most there ever was.
pub(crate) fn resident_mb(pid: i32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let mb = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        let kib: f64 = line.split_whitespace().nth(1).expect("kB").parse().expect("a number");
        kib * 1024.0 / 1e6
    };
    (mb("VmRSS"), mb("VmHWM"))
}

/// The sum of a metric over its labels.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let values = text.lines().filter(|l| l.split([' ', '{']).next() == Some(name));
    values.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A daemon at one moment.
pub(crate) struct Snapshot {
    pub(crate) text: String,
    pub(crate) cpu_us: f64,
    pub(crate) mono: Duration,
    pub(crate) wall_ms: i64,
}

impl Snapshot {
    pub(crate) fn take(daemon: &Daemon) -> Self {
        let (_, text) = daemon.get("/metrics");
        let moment = now();
        Self {
            text,
            cpu_us: cpu_us(daemon.pid()),
            mono: moment.mono,
            wall_ms: moment.wall.as_millisecond(),
        }
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(&self.text, name)
    }

    /// How many observations of lateness were at most `le` seconds, and how many there were.
    fn lateness(&self, le: &str) -> (f64, f64) {
        let name = "webmon_check_lateness_seconds";
        let bucket = format!("{name}_bucket{{le=\"{le}\"}} ");
        let within = self.text.lines().find_map(|line| line.strip_prefix(&bucket)?.parse().ok());
        (within.unwrap_or_default(), self.metric(&format!("{name}_count")))
    }
}

/// From one moment to another.
pub(crate) struct Span {
    pub(crate) begin: Snapshot,
    pub(crate) end: Snapshot,
}

impl Span {
    /// Looks now and again after so many seconds.
    pub(crate) fn measure(daemon: &Daemon, seconds: u64) -> Self {
        let begin = Snapshot::take(daemon);
        crate::report::pause(seconds);
        Self { begin, end: Snapshot::take(daemon) }
    }

    pub(crate) fn grown(&self, name: &str) -> f64 {
        self.end.metric(name) - self.begin.metric(name)
    }

    pub(crate) fn seconds(&self) -> f64 {
        (self.end.mono - self.begin.mono).as_secs_f64()
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        self.end.cpu_us - self.begin.cpu_us
    }

    /// The part of the checks that began at most 100 ms late; a bound of the histogram's buckets.
    pub(crate) fn within_100_ms(&self) -> f64 {
        let (begin, end) = (self.begin.lateness("0.1"), self.end.lateness("0.1"));
        (end.0 - begin.0) / (end.1 - begin.1).max(1.0)
    }

    /// Checks that were made: a missed one costs next to nothing, and would flatter the others.
    pub(crate) fn checks(&self) -> f64 {
        self.grown("webmon_checks_total") - self.missed()
    }

    /// Checks recorded as missed.
    pub(crate) fn missed(&self) -> f64 {
        let missed = |snapshot: &Snapshot| -> f64 {
            let lines = snapshot.text.lines();
            let values = lines
                .filter_map(|line| line.strip_prefix("webmon_checks_total{outcome=\"missed\"} "));
            values.filter_map(|value| value.parse::<f64>().ok()).sum()
        };
        missed(&self.end) - missed(&self.begin)
    }
}
