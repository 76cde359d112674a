//! `kill -9` of everything, at random moments.

use std::time::Duration;

use crate::broker::OwnBroker;
use crate::lab::{FaultLab, Plan, Who, now_ms};
use crate::support::cluster::Cluster;
use crate::support::services::TestDatabase;

/// A broker and a database of a scenario's own.
pub(crate) struct Services {
    pub(crate) broker: OwnBroker,
    pub(crate) database: Cluster,
}

impl Services {
    pub(crate) fn start() -> Self {
        let broker = OwnBroker::start(&[], &[], &[]);
        Self { broker, database: Cluster::start(&[], &[], &[]) }
    }

    /// A lab at these services.
    pub(crate) fn lab(&self, plan: Plan) -> FaultLab {
        let database = TestDatabase::create_at(&self.database.url(), plan.name);
        FaultLab::new(plan, database, &self.broker.address("LOCAL"))
    }
}

#[test]
fn a_producer_alone_is_killed() {
    let services = Services::start();
    let mut lab = services.lab(Plan::new("alone"));
    lab.start_all();
    const KILLS: u32 = 4;
    for _ in 0..KILLS {
        let pause = lab.random.between(Duration::ZERO, Duration::from_secs(2));
        lab.let_run(pause);
        lab.kill9(Who::Producer(0));
        lab.start(Who::Producer(0));
        lab.wait_until_ready(Who::Producer(0));
    }
    let _ = now_ms();
    lab.finish(
        10,
        "`kill -9` of the only producer",
        &format!("{KILLS} times, all gone by signal 9"),
    );
}
