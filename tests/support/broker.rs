//! Kafka for tests: the shared broker of the test services, and brokers of a test's own.

#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, outside their functions

#[path = "brokers.rs"]
pub(crate) mod brokers;
#[allow(clippy::duplicate_mod)] // a test with this file alone has no other
#[path = "ports.rs"]
mod ports;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use webmon::kafka::{Compression, KafkaOptions, topics};
use webmon::runtime::{Stop, now};

/// Longest wait for anything in a test.
pub(crate) const CAP: Duration = Duration::from_secs(60);

const NO_SERVICES: &str =
    "no test services: run ./test.sh, or scripts/services up; eval \"$(scripts/services env)\"";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{NO_SERVICES} ({name} is not set)"))
}

/// The shared broker's addresses. Never stop it.
pub(crate) fn shared_servers() -> Vec<String> {
    variable("WEBMON_TEST_KAFKA").split(',').map(str::to_owned).collect()
}

/// The directory with Kafka's jars.
fn jars() -> PathBuf {
    PathBuf::from(variable("WEBMON_TEST_KAFKA_LIBS"))
}

/// Options for the given servers, without TLS.
pub(crate) fn options(servers: Vec<String>) -> KafkaOptions {
    KafkaOptions {
        servers,
        client_id: "webmon-test".to_owned(),
        tls: None,
        sasl: None,
        compression: Compression::None,
    }
}

/// Options for the shared broker.
pub(crate) fn shared() -> KafkaOptions {
    options(shared_servers())
}

/// A name nobody else uses.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = now().wall.as_millisecond();
    format!("{prefix}-{}-{count}-{time}", std::process::id())
}

/// A topic's name on a broker; the topic, if somebody made it, is deleted at the end.
pub(crate) struct TestTopic {
    pub(crate) name: String,
    options: KafkaOptions,
}

impl TestTopic {
    pub(crate) fn new(options: KafkaOptions, prefix: &str) -> Self {
        Self { name: unique(prefix), options }
    }

    pub(crate) fn create(&self, partitions: i32) {
        self.create_with(partitions, &[]);
    }

    /// Makes the topic, with settings that the room doesn't offer.
    pub(crate) fn create_with(&self, partitions: i32, configs: &[(&str, &str)]) {
        let mut topic = kafka::client::TopicConfig::new(&self.name).with_partitions(partitions);
        for (key, value) in configs {
            topic = topic.with_config(*key, *value);
        }
        let answer = admin(&self.options).create_topics(&[topic], Duration::from_secs(10)).unwrap();
        assert_eq!(answer.results[0].error_code, 0, "{answer:?}");
        until("the topic has leaders", || {
            let found = topics::describe(&self.options, &self.name).unwrap();
            found.is_some_and(|topic| topic.partitions.iter().all(|p| p.leader.is_some()))
        });
    }

    /// Adds partitions, up to `partitions`.
    pub(crate) fn grow(&self, partitions: i32) {
        let spec = kafka::client::CreatePartitionsTopicSpec::new(&self.name, partitions);
        let answer = admin(&self.options).create_partitions(&[spec]).unwrap();
        assert!(format!("{answer:?}").contains("error_code: 0"), "{answer:?}");
    }

    /// Deletes the records before `offset`.
    pub(crate) fn delete_before(&self, partition: i32, offset: i64) {
        use kafka::client::{DeleteRecordsPartitionSpec, DeleteRecordsTopicSpec};
        let part = DeleteRecordsPartitionSpec::new(partition, offset);
        let spec = DeleteRecordsTopicSpec::new(&self.name, [part]);
        let answer = admin(&self.options).delete_records(&[spec], Duration::from_secs(10)).unwrap();
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{answer:?}");
    }
}

impl Drop for TestTopic {
    fn drop(&mut self) {
        let _ = admin(&self.options).delete_topics(&[&self.name], Duration::from_secs(2));
    }
}

fn admin(options: &KafkaOptions) -> kafka::client::KafkaClient {
    kafka::client::KafkaClient::builder()
        .with_hosts(options.servers.clone())
        .with_conn_rw_timeout(15)
        .build()
}

/// Waits until `is_so`; fails after [`CAP`].
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    assert!(became(CAP, &mut is_so), "not within {CAP:?}: {what}");
}

/// Whether `is_so` within `cap`.
pub(crate) fn became(cap: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let (end, never) = (now().mono + cap, Stop::new());
    loop {
        if is_so() {
            return true;
        }
        if now().mono >= end {
            return false;
        }
        let _ = never.wait(Duration::from_millis(5));
    }
}

/// Runs one of Kafka's own tools.
pub(crate) fn tool(class: &str, arguments: &[&str]) -> Output {
    Command::new("java")
        .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=ERROR"])
        .arg("-cp")
        .arg(jars().join("*"))
        .arg(class)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A listener of an own broker.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    name: &'static str,
    protocol: &'static str,
    advertised: Option<String>,
}

impl Listener {
    /// `name` is in capitals; `protocol` is `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`.
    pub(crate) fn new(name: &'static str, protocol: &'static str) -> Self {
        Self { name, protocol, advertised: None }
    }

    /// Clients that came to this listener are told to go to `address` (`host:port`): a proxy's,
    /// that leads to the listener.
    pub(crate) fn advertised(self, address: &str) -> Self {
        Self { advertised: Some(address.to_owned()), ..self }
    }
}

/// A one-node KRaft broker in a temporary directory, on ports of the kernel's choice. Besides
/// the wanted listeners there is always one without TLS and password, `LOCAL`. It is killed at
/// the end, also when the test process is.
pub(crate) struct OwnBroker {
    dir: TempDir,
    id: i32,
    /// All controllers of its cluster, itself among them.
    voters: String,
    ports: Vec<(&'static str, u16)>,
    keeper: Option<Child>,
}

const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// Runs the broker, and kills it when its own input has a line or ends. Without the line the test
/// process has ended without a word, and the directory goes as well.
const KEEPER: &str = r#""$@" >>"$DIR/log" 2>&1 </dev/null & pid=$!; echo $pid >"$DIR/pid.new"
mv "$DIR/pid.new" "$DIR/pid"; word=; read -r word; kill -9 $pid 2>/dev/null; wait
[ "$word" = keep ] || rm -rf "$DIR""#;

impl OwnBroker {
    /// Starts a broker with these listeners and further properties. `scram` are arguments of
    /// `kafka-storage format --add-scram`.
    pub(crate) fn start(
        listeners: &[Listener],
        properties: &[(String, String)],
        scram: &[&str],
    ) -> Self {
        Self::start_in(new_dir(), listeners, properties, scram)
    }

    /// The same in a directory that has the certificates in it.
    pub(crate) fn start_in(
        dir: TempDir,
        listeners: &[Listener],
        properties: &[(String, String)],
        scram: &[&str],
    ) -> Self {
        let names = ["CONTROLLER", "LOCAL"].into_iter().chain(listeners.iter().map(|l| l.name));
        let held = ports::hold(listeners.len() + 2);
        let ports: Vec<(&str, u16)> =
            names.zip(&held).map(|(name, l)| (name, l.local_addr().unwrap().port())).collect();
        let voters = format!("1@127.0.0.1:{}", ports[0].1);
        let mut broker = Self { dir, id: 1, voters, ports, keeper: None };
        broker.format(listeners, properties, scram);
        drop(held);
        broker.launch();
        broker
    }

    /// Makes its settings and its storage.
    fn format(&self, listeners: &[Listener], properties: &[(String, String)], scram: &[&str]) {
        self.write_properties(listeners, properties);
        let mut format = vec!["format", "-t", CLUSTER_ID, "-c"];
        let path = self.path("server.properties");
        format.push(path.to_str().unwrap());
        for user in scram {
            format.extend(["--add-scram", user]);
        }
        let output = tool("kafka.tools.StorageTool", &format);
        assert!(output.status.success(), "{output:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_properties(&self, listeners: &[Listener], properties: &[(String, String)]) {
        let port = |name: &str| self.ports.iter().find(|(n, _)| *n == name).unwrap().1;
        let of = |name: &str| format!("{name}://127.0.0.1:{}", port(name));
        let (mut bound, mut advertised) = (of("LOCAL"), of("LOCAL"));
        for listener in listeners {
            bound += &format!(",{}", of(listener.name));
            advertised += &match &listener.advertised {
                Some(address) => format!(",{}://{address}", listener.name),
                None => format!(",{}", of(listener.name)),
            };
        }
        let mut map = "CONTROLLER:PLAINTEXT,LOCAL:PLAINTEXT".to_owned();
        for listener in listeners {
            map += &format!(",{}:{}", listener.name, listener.protocol);
        }
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={}\n\
             controller.quorum.voters={}\n\
             listeners={},{bound}\nadvertised.listeners={advertised}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=LOCAL\n\
             listener.security.protocol.map={map}\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             log.cleaner.dedupe.buffer.size=4194304\n",
            self.id,
            self.voters,
            of("CONTROLLER"),
            self.path("data").display(),
        );
        for (key, value) in properties {
            text += &format!("{key}={value}\n");
        }
        fs::write(self.path("server.properties"), text).unwrap();
        let log4j = "rootLogger.level = WARN\nrootLogger.appenderRef.out.ref = out\n\
                     appender.out.type = Console\nappender.out.name = out\n\
                     appender.out.layout.type = PatternLayout\n\
                     appender.out.layout.pattern = [%d] %p %m (%c)%n\n";
        fs::write(self.path("log4j2.properties"), log4j).unwrap();
    }

    /// The address of a listener.
    pub(crate) fn address(&self, listener: &str) -> String {
        let (_, port) = self.ports.iter().find(|(name, _)| *name == listener).unwrap();
        format!("127.0.0.1:{port}")
    }

    /// Options for the listener without TLS.
    pub(crate) fn options(&self) -> KafkaOptions {
        options(vec![self.address("LOCAL")])
    }

    fn launch(&mut self) {
        self.spawn();
        self.wait_until_up();
    }

    fn spawn(&mut self) {
        let _ = fs::remove_file(self.path("pid"));
        let log4j =
            format!("-Dlog4j2.configurationFile={}", path_text(&self.path("log4j2.properties")));
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", "java", "-Xmx256m", "-XX:+UseSerialGC"])
            .args(["-XX:TieredStopAtLevel=1", &log4j, "-cp"])
            .arg(jars().join("*"))
            .arg("kafka.Kafka")
            .arg(self.path("server.properties"))
            .env("DIR", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.keeper = Some(keeper);
    }

    fn wait_until_up(&self) {
        let options = self.options();
        let is_up = became(CAP, || topics::describe(&options, "none").is_ok());
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        assert!(is_up, "the broker did not start:\n{log}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        let pid = fs::read_to_string(self.path("pid")).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    /// Freezes the process: its sockets stay open and silent. The signal reaches its threads one
    /// after the other, and one of them could still answer meanwhile.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid().as_raw_nonzero()));
        let is_stopped = |task: &Path| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            // A thread that ended meanwhile has no state any more.
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't']))
        };
        until("the broker is frozen", || {
            fs::read_dir(&tasks).unwrap().all(|task| is_stopped(&task.unwrap().path()))
        });
    }

    /// Ends a freeze.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and the broker's orderly end.
    pub(crate) fn stop(&mut self) {
        let pid = self.pid();
        self.signal(Signal::TERM);
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        until("the broker has ended", || {
            let stat = fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
        });
        self.kill();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // The keeper kills it, so that the pid is certainly the broker's.
        if let Some(mut keeper) = self.keeper.take() {
            if let Some(mut input) = keeper.stdin.take() {
                let _ = input.write_all(b"keep\n");
            }
            let _ = keeper.wait();
        }
    }

    /// Starts it again with its data, after [`OwnBroker::kill`] or [`OwnBroker::stop`].
    pub(crate) fn restart(&mut self) {
        assert!(self.keeper.is_none(), "kill it first");
        self.launch();
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A directory for an own broker; deleted at the end.
pub(crate) fn new_dir() -> TempDir {
    TempDir::with_prefix("webmon-broker-").unwrap()
}

/// Writes a file and returns its path.
pub(crate) fn write_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}
