//! This machine: limits of files, threads and memory, ports, and who may read the secrets.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, geteuid, getrlimit};

use super::report::{Kind, Report};
use crate::cli::ask;
use crate::cli::options;
use crate::config::{Loaded, Origin, Settings};

/// Sockets of a check: the connection, and another while two addresses are tried.
const FILES_PER_CHECK: u64 = 2;
/// Of a connection to PostgreSQL: its socket and its event loop.
const FILES_PER_CONNECTION: u64 = 5;
/// Of a consumer's thread: a connection to each of some brokers, twice.
const FILES_PER_CONSUMER: u64 = 10;
/// Logs, spool, listener with its connections, Kafka.
const FILES_BESIDE: u64 = 96;
/// Threads of a producer beside its workers and resolvers.
const THREADS_BESIDE: u64 = 40;
/// Memory of a daemon beside the bodies it reads, in bytes.
const MEMORY_BESIDE: u64 = 96 << 20;
/// A body is held twice while it is decoded.
const BODIES: u64 = 2;

pub(super) fn look(report: &mut Report, settings: &Settings) {
    let producer = &settings.producer;
    let workers = (producer.threads + producer.slow_threads) as u64;
    let resolvers = options::probe(settings).resolver_threads as u64;
    let pool = u64::from(settings.database.pool) * FILES_PER_CONNECTION;
    let of_producer = workers * FILES_PER_CHECK + resolvers + pool + FILES_BESIDE;
    let of_consumer = settings.consumer.threads as u64 * FILES_PER_CONSUMER + pool + FILES_BESIDE;
    let of_api = u64::try_from(settings.api.connections).unwrap_or(u64::MAX) + pool + FILES_BESIDE;
    files(report, of_producer.max(of_consumer).max(of_api));
    threads(report, workers + resolvers + u64::from(settings.database.pool) + THREADS_BESIDE);
    memory(report, MEMORY_BESIDE + workers * settings.monitoring.max_body * BODIES);
    let listeners = [
        ("producer.listen", settings.producer.listen),
        ("consumer.listen", settings.consumer.listen),
        ("api.listen", settings.api.listen),
    ];
    for (key, address) in listeners {
        port(report, key, address);
    }
    if options::access(settings).is_open(settings.api.listen) {
        report.warning(
            "api.listen",
            "others can reach it, and no token keeps them out: the API will not start",
            "make a token with 'webmon token NAME' and put its line into api.tokens, or listen on \
             127.0.0.1",
        );
    }
}

fn files(report: &mut Report, wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    match limit.current {
        Some(current) if current < wanted => report.bad(
            Kind::Other,
            "open files",
            format!("{current} may be open, a daemon of this configuration opens up to {wanted}"),
            format!(
                "raise it before the start: 'ulimit -n {0}', LimitNOFILE={0} in a unit of systemd, \
                 or ulimits.nofile in compose; or lower producer.threads and slow_threads",
                wanted.next_power_of_two()
            ),
        ),
        current => {
            let current = current.map_or_else(|| "any number".to_owned(), |n| n.to_string());
            report.ok("open files", format!("{current} may be open, {wanted} are enough"));
        }
    }
}

fn threads(report: &mut Report, wanted: u64) {
    // The limit of a user doesn't hold for root.
    let of_user = (!geteuid().is_root()).then(|| getrlimit(Resource::Nproc).current).flatten();
    let of_group = group_file("pids", "pids.max").zip(group_file("pids", "pids.current"));
    let of_group = of_group.and_then(|(max, now)| {
        Some(max.parse::<u64>().ok()?.saturating_sub(now.parse::<u64>().ok()?))
    });
    let Some(least) = of_user.into_iter().chain(of_group).min() else {
        return report.ok("threads", format!("no limit; a producer takes up to {wanted}"));
    };
    let said = format!("{least} more may be started, a producer takes up to {wanted}");
    if least < wanted {
        report.bad(
            Kind::Other,
            "threads",
            said,
            "raise 'ulimit -u', TasksMax= in a unit of systemd, or pids_limit of the container; or \
             lower producer.threads and slow_threads",
        );
    } else {
        report.ok("threads", said);
    }
}

fn memory(report: &mut Report, wanted: u64) {
    let limit = group_file("memory", "memory.max")
        .or_else(|| group_file("memory", "memory.limit_in_bytes"))
        .and_then(|max| max.parse::<u64>().ok())
        // What version 1 writes for no limit.
        .filter(|max| *max < 1 << 60);
    let Some(limit) = limit else {
        return report.ok("memory", format!("no limit; {} MiB are enough", wanted >> 20));
    };
    let said = format!("{} MiB may be used, up to {} MiB are", limit >> 20, wanted >> 20);
    if limit < wanted {
        report.warning(
            "memory",
            said,
            "raise the container's limit, or lower monitoring.max_body or producer.threads",
        );
    } else {
        report.ok("memory", said);
    }
}

/// A file of this process's control group, of version 2 or 1.
fn group_file(controller: &str, name: &str) -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let place = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/').to_owned();
        match controllers {
            "" => Some((PathBuf::from("/sys/fs/cgroup"), path)),
            _ if controllers.split(',').any(|one| one == controller) => {
                Some((Path::new("/sys/fs/cgroup").join(controller), path))
            }
            _ => None,
        }
    };
    // Inside a container the path may be the one outside it.
    let files = groups
        .lines()
        .filter_map(place)
        .flat_map(|(root, path)| [root.join(path).join(name), root.join(name)]);
    files.filter_map(|file| fs::read_to_string(file).ok()).next().map(|s| s.trim().to_owned())
}

fn port(report: &mut Report, key: &'static str, address: SocketAddr) {
    if address.port() == 0 {
        return report.ok(key, "a port that the kernel picks");
    }
    match TcpListener::bind(address) {
        Ok(_) => report.ok(key, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            match ask::get(ask::reachable(address), "/livez") {
                Ok((200, body)) if body.trim() == "ok" => {
                    report.ok(key, format!("{address} is webmon's own, and answers"));
                }
                _ => report.bad(
                    Kind::Other,
                    key,
                    format!("{address} is in use by another program"),
                    format!("end that program ('ss -ltnp' names it), or set {key} to another port"),
                ),
            }
        }
        Err(error) => report.bad(
            Kind::Other,
            key,
            format!("{address} can't be listened on: {error}"),
            format!("set {key} to an address of this machine, and a port above 1023"),
        ),
    }
}

/// Files with secrets that others may read.
pub(super) fn secrets(report: &mut Report, loaded: &Loaded) {
    let settings = &loaded.settings;
    let mut files: Vec<PathBuf> = Vec::new();
    for setting in &loaded.origins {
        let is_key = ["password_file", "keyfile"].iter().any(|end| setting.key.ends_with(end));
        if is_key && let Some(value) = &setting.value {
            files.push(value.trim_matches(['"', '\'']).into());
        }
        // A password in a file of settings is a secret of that file.
        if setting.key.ends_with(".password") && setting.value.is_some() {
            match &setting.origin {
                Origin::File { file, .. } | Origin::EnvFile { file, .. } => {
                    files.push(file.clone());
                }
                _ => {}
            }
        }
    }
    if let Some(dir) = &settings.monitoring.secrets_dir {
        match fs::read_dir(dir) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(error) => report.bad(
                Kind::Configuration,
                "secrets",
                format!("{} can't be read: {error}", dir.display()),
                "set monitoring.secrets_dir to a directory that this user may read",
            ),
        }
    }
    files.sort();
    files.dedup();
    let mut open = 0;
    for file in &files {
        let Ok(found) = fs::metadata(file) else { continue };
        if found.is_file() && fs::File::open(file).is_err() {
            report.bad(
                Kind::Configuration,
                "secrets",
                format!("{} can't be read by this user", file.display()),
                "give it to the user that runs webmon: chown, then chmod 600",
            );
        } else if found.permissions().mode() & 0o004 != 0 {
            open += 1;
            report.warning(
                "secrets",
                format!(
                    "{} holds a secret, and everybody on this machine may read it",
                    file.display()
                ),
                format!("chmod 640 {}", file.display()),
            );
        }
    }
    if open == 0 && !files.is_empty() {
        report.ok("secrets", format!("{} files, closed to others", files.len()));
    }
}
