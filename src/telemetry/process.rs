//! What the operating system says about this process, read at each scrape.

use std::fs;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Clock ticks per second in /proc: `USER_HZ`, which Linux fixes at 100 towards user space.
const TICKS: f64 = 100.0;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// One reading of /proc/self.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    /// Since the machine's start.
    started_seconds: f64,
    threads: i64,
    resident_bytes: i64,
}

/// Fields of `proc_pid_stat(5)` behind the program's name, which may contain anything.
fn usage(stat: &str, status: &str) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // The first field here is the page's third: `utime` is 14, `num_threads` 20, `starttime` 22.
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u32>().ok().map(f64::from);
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(Usage {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
        started_seconds: fields.get(22 - 3)?.parse::<u64>().ok()? as f64 / TICKS,
        threads: fields.get(20 - 3)?.parse().ok()?,
        resident_bytes: kib * 1024,
    })
}

/// When the machine started, in seconds since 1970, from /proc/stat.
fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Appends the process's metrics, without the closing line. Those that can't be read are absent.
pub(super) fn encode(out: &mut String) {
    let mut registry = Registry::default();
    let r = &mut registry;
    let version = env!("CARGO_PKG_VERSION");
    r.register("webmon_build", "The running version", Info::new(Build { version }));
    let read = |path: &str| fs::read_to_string(path).ok();
    let used = read("/proc/self/stat")
        .zip(read("/proc/self/status"))
        .and_then(|(stat, status)| usage(&stat, &status));
    if let Some(used) = used {
        let resident = ConstGauge::new(used.resident_bytes);
        r.register_with_unit("process_resident_memory", "Memory in use", Unit::Bytes, resident);
        let cpu = ConstCounter::new(used.cpu_seconds);
        r.register_with_unit("process_cpu", "Processor time used", Unit::Seconds, cpu);
        r.register("process_threads", "Threads", ConstGauge::new(used.threads));
        if let Some(boot) = read("/proc/stat").as_deref().and_then(boot_seconds) {
            let start = ConstGauge::new(boot + used.started_seconds);
            r.register_with_unit("process_start_time", "Start, since 1970", Unit::Seconds, start);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Without the one that reads the directory.
        let count = i64::try_from(open.count()).unwrap_or(i64::MAX).saturating_sub(1);
        r.register("process_open_fds", "Open file descriptors", ConstGauge::new(count));
    }
    // Writing to a String can't fail.
    let _ = encode_registry(out, &registry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_says_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 12 0 4200 9 9 9";
        let status = "Name:\tx\nVmRSS:\t    1024 kB\nThreads:\t12\n";
        let wanted =
            Usage { cpu_seconds: 3.0, started_seconds: 42.0, threads: 12, resident_bytes: 1 << 20 };
        assert_eq!(usage(stat, status), Some(wanted));
        assert_eq!(usage("nonsense", status), None);
        assert_eq!(usage(stat, "Name:\tx\n"), None);
        assert_eq!(boot_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1.7e9));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let mut text = String::new();
        encode(&mut text);
        for name in [
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_threads ",
            "process_start_time_seconds ",
            "process_open_fds ",
            "webmon_build_info{version=\"",
        ] {
            assert!(text.contains(&format!("\n{name}")), "no {name} in {text}");
        }
    }
}
