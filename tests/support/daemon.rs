//! webmon's own binaries as child processes, as a user runs them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use webmon::runtime::now;

use super::services::{TestDatabase, kafka_servers, unique};
use super::web::Web;

/// Where one test's processes live: an own database, topic, group and directory.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub database: TestDatabase,
    pub topic: String,
    pub env: BTreeMap<String, String>,
    /// Of a program, the words before its own: what it is started by.
    pub wrappers: BTreeMap<String, Vec<String>>,
}

impl Lab {
    /// At the shared services.
    pub fn new(prefix: &str) -> Self {
        Self::at(TestDatabase::create(prefix), &kafka_servers().join(","), prefix)
    }

    /// At services of the test's own.
    pub fn at(database: TestDatabase, kafka_servers: &str, prefix: &str) -> Self {
        let topic = unique(prefix);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut env = BTreeMap::new();
        let mut set = |key: &str, value: &str| env.insert(key.to_owned(), value.to_owned());
        set("WEBMON_DATABASE_HOST", &database.host);
        set("WEBMON_DATABASE_PORT", &database.port.to_string());
        set("WEBMON_DATABASE_DB", &database.name);
        set("WEBMON_DATABASE_USER", &database.user);
        set("WEBMON_DATABASE_PASSWORD", &database.password);
        set("WEBMON_KAFKA_SERVERS", kafka_servers);
        set("WEBMON_KAFKA_TOPIC", &topic);
        set("WEBMON_KAFKA_CONSUMER_GROUP", &unique("group"));
        set("WEBMON_MONITORING_REGION", &topic);
        set("WEBMON_PRODUCER_SPOOL_DIR", &dir.path().join("spool").display().to_string());
        // Port 0: the kernel chooses, so that tests run side by side.
        set("WEBMON_PRODUCER_LISTEN", "127.0.0.1:0");
        set("WEBMON_CONSUMER_LISTEN", "127.0.0.1:0");
        set("WEBMON_API_LISTEN", "127.0.0.1:0");
        set("WEBMON_LOG_FORMAT", "json");
        Self { dir, database, topic, env, wrappers: BTreeMap::new() }
    }

    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.env.insert(key.to_owned(), value.to_owned());
        self
    }

    /// A configuration file of this text, used by all processes from now on.
    pub fn config(&mut self, text: &str) -> &mut Self {
        let file = self.dir.path().join("config.yaml");
        std::fs::write(&file, text).expect("configuration is written");
        let file = file.display().to_string();
        self.set("WEBMON_CONFIG_FILE", &file)
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&self.env).current_dir(self.dir.path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Starts a daemon.
    pub fn start(&self, program: &str, args: &[&str]) -> Daemon {
        self.start_with(program, args, &BTreeMap::new())
    }

    /// Starts a daemon with further variables.
    pub fn start_with(
        &self,
        program: &str,
        args: &[&str],
        env: &BTreeMap<String, String>,
    ) -> Daemon {
        let path = binary(program);
        let mut words: Vec<&str> =
            self.wrappers.get(program).into_iter().flatten().map(String::as_str).collect();
        words.push(path.to_str().expect("a readable path"));
        words.extend(args);
        let mut command = self.command(Path::new(words[0]), &words[1..]);
        command.envs(env);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Daemon::spawn(program, command)
    }

    /// Starts a daemon whose standard output is `file`.
    pub fn start_into(&self, file: &str, program: &str, args: &[&str]) -> Daemon {
        let file = std::fs::OpenOptions::new().write(true).open(file).expect("output opens");
        let mut command = self.command(&binary(program), args);
        command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped());
        Daemon::spawn(program, command)
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(&binary("webmon"), args).stdin(Stdio::null()).output().expect("webmon runs")
    }

    /// The first answer of a query, or why there is none.
    pub fn query<T: postgres::types::FromSqlOwned>(&self, sql: &str) -> Result<T, String> {
        let row = self.database.client().query_one(sql, &[]).map_err(|e| format!("{e:?}"))?;
        row.try_get(0).map_err(|e| format!("{e:?}"))
    }

    /// Waits until each request that `web` has answered so far is a row.
    pub fn wait_for_every_check(&self, web: &Web) {
        self.wait_for_count(
            "every check has its row",
            "SELECT count(*) FROM check_entry WHERE outcome <> 'missed'",
            i64::try_from(web.all_hits()).expect("a count"),
        );
    }

    /// Waits until the first answer of a count is at least `least`.
    pub fn wait_for_count(&self, what: &str, sql: &str, least: i64) -> i64 {
        super::eventually(what, || match self.query::<i64>(sql) {
            Ok(count) if count >= least => Ok(count),
            other => Err(format!("{other:?}")),
        })
    }
}

fn binary(name: &str) -> PathBuf {
    match name {
        "producer" => env!("CARGO_BIN_EXE_producer"),
        "consumer" => env!("CARGO_BIN_EXE_consumer"),
        _ => env!("CARGO_BIN_EXE_webmon"),
    }
    .into()
}

/// A running process; killed with this value.
pub struct Daemon {
    name: String,
    child: Child,
    log: Lines,
    out: Lines,
}

/// Lines as they came, each with its time.
type Lines = Arc<Mutex<Vec<(Timestamp, String)>>>;

fn texts(lines: &Lines) -> Vec<String> {
    lines.lock().expect("lines").iter().map(|(_, line)| line.clone()).collect()
}

impl Daemon {
    pub fn spawn(name: &str, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name} starts: {e}"));
        let log = lines(child.stderr.take());
        let out = lines(child.stdout.take());
        Self { name: name.to_owned(), child, log, out }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Everything on standard error so far.
    pub fn log(&self) -> Vec<String> {
        texts(&self.log)
    }

    /// When the first log line that holds `text` came, by this process's clock.
    pub fn logged_at(&self, text: &str) -> Option<Timestamp> {
        let log = self.log.lock().expect("log");
        log.iter().find(|(_, line)| line.contains(text)).map(|(time, _)| *time)
    }

    /// Everything on standard output so far.
    pub fn output(&self) -> Vec<String> {
        texts(&self.out)
    }

    /// Waits for a log line that holds `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        super::eventually(&format!("{} logs '{text}'", self.name), || {
            let log = self.log();
            log.iter().find(|l| l.contains(text)).cloned().ok_or_else(|| log.join("\n"))
        })
    }

    /// Where its listener is, from its first log line.
    pub fn address(&self) -> String {
        let line = self.wait_for_log("\"listen\"");
        let value: serde_json::Value = serde_json::from_str(&line).expect("a JSON log line");
        value["listen"].as_str().expect("listen").to_owned()
    }

    /// A GET of its listener: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = ureq_get(&format!("http://{}{path}", self.address()));
        let status = answer.0;
        (status, std::mem::take(&mut answer.1))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signal is sent");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let log = self.log.clone();
        super::eventually(&format!("{name} ends"), || {
            self.child
                .try_wait()
                .expect("wait")
                .ok_or_else(|| texts(&log).into_iter().rev().take(5).collect::<Vec<_>>())
        })
    }

    /// SIGTERM, and the orderly end within the cap.
    pub fn stop(mut self) -> Vec<String> {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{} ends well: {:?}", self.name, self.log());
        self.log()
    }

    /// SIGKILL; how it ended.
    pub fn kill(mut self) -> ExitStatus {
        self.child.kill().expect("kill");
        self.child.wait().expect("its status")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ureq_get(url: &str) -> (u16, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build();
    match ureq::Agent::new_with_config(config).get(url).call() {
        Ok(mut answer) => {
            let body = answer.body_mut().read_to_string().unwrap_or_default();
            (answer.status().as_u16(), body)
        }
        Err(error) => (0, error.to_string()),
    }
}

#[allow(clippy::disallowed_methods)] // ends with the pipe
fn lines(pipe: Option<impl Read + Send + 'static>) -> Lines {
    let lines = Lines::default();
    if let Some(pipe) = pipe {
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                sink.lock().expect("lines").push((now().wall, line));
            }
        });
    }
    lines
}
