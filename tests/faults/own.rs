//! A broker and a database of a scenario's own, and their ends.

use std::net::TcpStream;

use crate::broker::OwnBroker;
use crate::lab::{FaultLab, Plan, now_ms};
use crate::support::cluster::Cluster;
use crate::support::services::TestDatabase;

/// See the module.
pub(crate) struct Services {
    pub(crate) broker: OwnBroker,
    pub(crate) database: Cluster,
    /// When the broker was killed, while it is gone.
    pub(crate) broker_gone_ms: Option<i64>,
    pub(crate) database_is_gone: bool,
}

impl Services {
    pub(crate) fn start() -> Self {
        // Both take some seconds.
        let (broker, database) = std::thread::scope(|scope| {
            let broker = scope.spawn(|| OwnBroker::start(&[], &[], &[]));
            let database = Cluster::start(&[], &[], &[]);
            (broker.join().expect("the broker starts"), database)
        });
        Self { broker, database, broker_gone_ms: None, database_is_gone: false }
    }

    /// A lab at these services.
    pub(crate) fn lab(&self, plan: Plan) -> FaultLab {
        let database = TestDatabase::create_at(&self.database.url(), plan.name);
        FaultLab::new(plan, database, &self.broker.address("LOCAL"))
    }

    /// `kill -9`; nobody listens then.
    pub(crate) fn kill_broker(&mut self) {
        self.broker_gone_ms = Some(now_ms());
        self.broker.kill();
        let address = self.broker.address("LOCAL");
        assert!(TcpStream::connect(&address).is_err(), "the broker is gone");
    }

    /// Starts the broker again; the time it was away goes into the lab's history.
    pub(crate) fn restart_broker(&mut self) -> (i64, i64) {
        let from_ms = self.broker_gone_ms.take().expect("it was killed");
        self.broker.restart();
        (from_ms, now_ms())
    }

    /// `kill -9` of every process of the server; nobody listens then.
    pub(crate) fn kill_database(&mut self) {
        assert!(self.database.kill().len() > 1, "the server has several processes");
        let address = ("127.0.0.1", self.database.port);
        assert!(TcpStream::connect(address).is_err(), "the database is gone");
        self.database_is_gone = true;
    }

    pub(crate) fn restart_database(&mut self) {
        self.database.restart();
        self.database_is_gone = false;
    }
}
