//! A PostgreSQL server of a test's own, for what can't be done to a shared one: freezing it,
//! TLS, other ways in.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ports::free_port;

/// The superuser, its password and its database.
pub const ADMIN: &str = "webmon";

/// A running server on 127.0.0.1, stopped and removed with this value.
pub struct Cluster {
    pub port: u16,
    directory: TempDir,
}

/// The directory of the server's programs.
fn programs() -> PathBuf {
    if let Some(path) = std::env::var_os("WEBMON_TEST_PG_BIN") {
        return path.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, path)| path.join("bin/initdb").exists())
        .collect();
    found.sort();
    let (_, newest) = found.pop().expect("PostgreSQL's programs: set WEBMON_TEST_PG_BIN");
    newest.join("bin")
}

fn run(mut command: Command) {
    let output = command.output().expect("program starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
}

/// A server program; the server refuses to run as root, so then as `postgres`.
fn program(name: &str) -> Command {
    let path = programs().join(name);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    // Not in a directory that the other user may not enter.
    command.current_dir("/");
    command
}

impl Cluster {
    /// Starts a server. `settings` are lines of postgresql.conf, `ways_in` of pg_hba.conf before
    /// the last, which asks for a password. `files` (name, content) land in the data directory.
    pub fn start(settings: &[&str], ways_in: &[&str], files: &[(&str, &str)]) -> Self {
        let directory = TempDir::with_prefix("webmon-pg-").expect("temporary directory");
        let mut cluster = Self { port: 0, directory };
        let password = cluster.directory.path().join("password");
        std::fs::write(&password, ADMIN).expect("password file");
        cluster.hand_over();
        let mut initdb = program("initdb");
        initdb.args(["--no-sync", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256", "-U", ADMIN]);
        initdb.arg("--pwfile").arg(&password).arg("-D").arg(cluster.data());
        run(initdb);
        let ways_in = format!(
            "{}\nhost all all 127.0.0.1/32 scram-sha-256\n\
             host replication all 127.0.0.1/32 scram-sha-256\n",
            ways_in.join("\n")
        );
        cluster.write("pg_hba.conf", &ways_in);
        for (name, content) in files {
            cluster.write(name, content);
        }
        for attempt in 1.. {
            cluster.port = free_port();
            let conf = format!(
                "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
                 fsync = off\n{}\n",
                cluster.port,
                cluster.directory.path().display(),
                settings.join("\n"),
            );
            cluster.write("postgresql.auto.conf", &conf);
            // Another process may take the port before the server does.
            match cluster.control(&["-w", "start"]) {
                Ok(()) => break,
                Err(log) => assert!(attempt < 5, "{log}"),
            }
        }
        cluster
    }

    /// A second server that follows this one, and only reads until [`Cluster::promote`]. From now
    /// on this one acknowledges nothing that the second doesn't have.
    pub fn standby(&self) -> Self {
        let directory = TempDir::with_prefix("webmon-pg-").expect("temporary directory");
        let standby = Self { port: free_port(), directory };
        standby.hand_over();
        let mut copy = program("pg_basebackup");
        copy.args([
            "-h",
            "127.0.0.1",
            "-U",
            ADMIN,
            "-X",
            "stream",
            "-c",
            "fast",
            "-R",
            "--no-sync",
        ]);
        copy.arg("-p").arg(self.port.to_string()).arg("-D").arg(standby.data());
        copy.env("PGPASSWORD", ADMIN);
        run(copy);
        // The copy has the first one's settings; the last line of a name counts.
        let own = standby.data().join("postgresql.auto.conf");
        let settings = std::fs::read_to_string(own).expect("settings");
        let socket = standby.directory.path().display();
        let conf =
            format!("{settings}port = {}\nunix_socket_directories = '{socket}'\n", standby.port);
        standby.write("postgresql.auto.conf", &conf);
        standby.control(&["-w", "start"]).expect("the standby starts");
        self.ask("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.reload();
        super::eventually("the standby follows", || {
            let state = "SELECT coalesce(max(sync_state), 'none') FROM pg_stat_replication";
            match self.ask(state).as_str() {
                "sync" => Ok(()),
                other => Err(other.to_owned()),
            }
        });
        standby
    }

    /// Ends the following: the server takes writes from now on.
    pub fn promote(&self) {
        self.control(&["-w", "promote"]).expect("promote");
    }

    /// Stops at once, without the leave of anybody, as an operator in a hurry does.
    pub fn stop_at_once(&self) {
        self.control(&["-w", "-m", "immediate", "stop"]).expect("stop");
    }

    /// Runs one statement; the first column of its first row, or nothing.
    pub fn ask(&self, sql: &str) -> String {
        let mut client = postgres::Client::connect(&self.url(), postgres::NoTls).expect("connect");
        let answers = client.simple_query(sql).expect("an answer");
        let value = answers.into_iter().find_map(|answer| match answer {
            postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        value.unwrap_or_default()
    }

    /// As a URL for [`super::services::TestDatabase::create_at`].
    pub fn url(&self) -> String {
        format!("postgres://{ADMIN}:{ADMIN}@127.0.0.1:{}/postgres", self.port)
    }

    /// Where its Unix socket is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Replaces a file of the data directory; only the server's user may read it.
    pub fn write(&self, name: &str, content: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.data().join(name);
        std::fs::write(&path, content).expect("server file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        self.hand_over();
    }

    /// Makes the server read its files again.
    pub fn reload(&self) {
        self.control(&["reload"]).expect("reload");
    }

    /// Stops every process of the server where it stands, until the returned value is dropped.
    /// It answers nothing, and the kernel goes on acknowledging what it is sent.
    pub fn freeze(&self) -> Frozen<'_> {
        self.signal(Signal::STOP);
        Frozen(self)
    }

    /// Asks the server to end when its last client has gone: until then it refuses others.
    pub fn stop_smart(&self) {
        let main = self.main_process().expect("the server runs");
        kill_process(main, Signal::TERM).expect("signal");
    }

    /// Starts the server again after it has ended.
    pub fn start_again(&self) {
        super::eventually("the server has ended", || match self.main_process() {
            Some(pid) => Err(pid),
            None => Ok(()),
        });
        self.control(&["-w", "start"]).expect("the server starts again");
    }

    /// `kill -9` of every process of the server; the pids that are gone then.
    pub fn kill(&self) -> Vec<i32> {
        let main = self.main_process().expect("the server runs");
        let mut all = vec![main];
        // Stopped first, so that it starts no further one between the look and the kill.
        let _ = kill_process(main, Signal::STOP);
        all.extend(children(main));
        for pid in &all {
            let _ = kill_process(*pid, Signal::KILL);
        }
        for pid in &all {
            super::eventually("a killed server process ends", || match is_gone(*pid) {
                true => Ok(()),
                false => Err(*pid),
            });
        }
        all.iter().map(|pid| pid.as_raw_nonzero().get()).collect()
    }

    /// Starts it again with its data, after [`Cluster::kill`]. It repairs itself first.
    pub fn restart(&self) {
        super::eventually("the server starts again", || self.control(&["-w", "start"]));
    }

    fn signal(&self, signal: Signal) {
        let main = self.main_process().expect("the server runs");
        // The main process first: then it can start no further one.
        kill_process(main, signal).expect("signal");
        for child in children(main) {
            // It may have ended by itself.
            let _ = kill_process(child, signal);
        }
    }

    fn main_process(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn hand_over(&self) {
        if rustix::process::geteuid().is_root() {
            let mut chown = Command::new("chown");
            chown.args(["-R", "postgres"]).arg(self.directory.path());
            run(chown);
        }
    }

    /// Runs `pg_ctl`; the server's log when it fails.
    fn control(&self, arguments: &[&str]) -> Result<(), String> {
        let mut control = program("pg_ctl");
        control.arg("-D").arg(self.data()).arg("-l").arg(self.directory.path().join("log"));
        // The server would keep a captured pipe open.
        control.args(arguments).stdout(std::process::Stdio::null());
        let status = control.stderr(std::process::Stdio::null()).status().expect("pg_ctl starts");
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(format!("{control:?}: {status}\n{log}")) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.main_process().is_some() {
            let mut stop = program("pg_ctl");
            stop.arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]);
            let _ = stop.output();
        }
    }
}

/// A frozen server. Made so that a failing test doesn't wait for it in its own end.
pub struct Frozen<'a>(&'a Cluster);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// Whether a process has ended, be it that nobody has asked for its status yet.
fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.map_or(true, |stat| {
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

fn children(parent: Pid) -> Vec<Pid> {
    let parent_of = |path: &Path| -> Option<i32> {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        // "pid (name) state parent …"; the name may have anything in it.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| parent_of(&entry.path()) == Some(parent.as_raw_nonzero().get()))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}
