//! The running services that tests use, named by the environment.

use std::sync::atomic::{AtomicU32, Ordering};

use postgres::config::Host;
use postgres::{Client, Config, NoTls};
use webmon::store::{SslMode, SslOptions, StoreOptions};

const CURE: &str =
    "no test services: run ./test.sh, or scripts/services up; eval \"$(scripts/services env)\"";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{CURE} ({name} is not set)"))
}

/// Kafka's servers, `host:port` each.
pub fn kafka_servers() -> Vec<String> {
    variable("WEBMON_TEST_KAFKA").split(',').map(|server| server.trim().to_owned()).collect()
}

/// PostgreSQL as a superuser, `postgres://user:password@host:port/db`.
pub fn postgres_url() -> String {
    variable("WEBMON_TEST_POSTGRES")
}

/// A name nobody else uses: for databases, topics and groups. Letters, digits and `_`.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let time = webmon::runtime::now().wall.as_microsecond();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}_{}_{count}_{time}", std::process::id())
}

/// A database of its own, dropped with this value.
pub struct TestDatabase {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub name: String,
    server: Config,
}

impl TestDatabase {
    /// A fresh empty database on the test server.
    pub fn create(prefix: &str) -> Self {
        Self::create_at(&postgres_url(), prefix)
    }

    /// A fresh empty database on the server of `url`.
    pub fn create_at(url: &str, prefix: &str) -> Self {
        let server: Config = url.parse().expect("the server's URL is readable");
        let host = match server.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            other => panic!("the server's URL has no host: {other:?}"),
        };
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"")).into();
        let name = unique(prefix);
        let mut admin = server.connect(NoTls).unwrap_or_else(|e| panic!("{CURE} ({e:?})"));
        admin.batch_execute(&format!("CREATE DATABASE {name}")).expect("database is created");
        Self {
            host,
            port: server.get_ports().first().copied().unwrap_or(5432),
            user: server.get_user().unwrap_or("postgres").to_owned(),
            password: text(server.get_password()),
            name,
            server,
        }
    }

    /// How a store reaches this database.
    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            host: self.host.clone(),
            port: self.port,
            db: self.name.clone(),
            user: self.user.clone(),
            password: Some(self.password.clone().into()),
            pool: 4,
            ssl: SslOptions { mode: SslMode::Disable, ..SslOptions::default() },
            application_name: "webmon-test".to_owned(),
            sample_sites: true,
        }
    }

    /// From now on it is asked at the server of `url`, which has a copy of it.
    pub fn move_to(&mut self, url: &str) {
        self.server = url.parse().expect("the server's URL is readable");
    }

    /// A connection to this database, for a test's own questions.
    pub fn client(&self) -> Client {
        let mut config = self.server.clone();
        config.dbname(&self.name).application_name("test").connect(NoTls).expect("test connects")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // A failed test, or a stopped server, must not hide the first error behind another.
        if let Ok(mut admin) = self.server.connect(NoTls) {
            let _ = admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
