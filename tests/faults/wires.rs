//! Services of a scenario's own, each path to them through a proxy.

use crate::broker::{Listener, OwnBroker};
use crate::lab::{FaultLab, Plan, Who};
use crate::support::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::services::TestDatabase;

/// A way from a daemon to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    ProducerKafka,
    ConsumerKafka,
    ProducerDatabase,
    ConsumerDatabase,
}

/// All four.
pub(crate) const PATHS: [Path; 4] =
    [Path::ProducerKafka, Path::ConsumerKafka, Path::ProducerDatabase, Path::ConsumerDatabase];

impl Path {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ProducerKafka => "producer–Kafka",
            Self::ConsumerKafka => "consumer–Kafka",
            Self::ProducerDatabase => "producer–PostgreSQL",
            Self::ConsumerDatabase => "consumer–PostgreSQL",
        }
    }

    /// Whose way it is.
    pub(crate) fn who(self) -> Who {
        match self {
            Self::ProducerKafka | Self::ProducerDatabase => Who::Producer(0),
            Self::ConsumerKafka | Self::ConsumerDatabase => Who::Consumer(0),
        }
    }
}

/// A broker and a database behind four proxies. The lab's own looks go straight to them.
pub(crate) struct Wires {
    pub(crate) broker: OwnBroker,
    pub(crate) database: Cluster,
    proxies: [Proxy; 4],
}

impl Wires {
    /// Starts the services; all proxies are up and do nothing.
    pub(crate) fn start() -> Self {
        let proxies = PATHS.map(|_| Proxy::new());
        // A producer is told to come back through the producers' proxy, a consumer through theirs.
        let listeners = [("PRODUCER", &proxies[0]), ("CONSUMER", &proxies[1])]
            .map(|(name, p)| Listener::new(name, "PLAINTEXT").advertised(&p.address.to_string()));
        let broker = OwnBroker::start(&listeners, &[], &[]);
        let database = Cluster::start(&["max_connections = 40"], &[], &[]);
        let targets = [
            broker.address("PRODUCER"),
            broker.address("CONSUMER"),
            format!("127.0.0.1:{}", database.port),
            format!("127.0.0.1:{}", database.port),
        ];
        for (proxy, target) in proxies.iter().zip(&targets) {
            proxy.lead_to(target);
            proxy.set_up();
        }
        Self { broker, database, proxies }
    }

    /// The proxy of a path.
    pub(crate) fn proxy(&self, path: Path) -> &Proxy {
        &self.proxies[path as usize]
    }

    /// A lab whose daemons reach the services through the proxies.
    pub(crate) fn lab(&self, plan: Plan) -> FaultLab {
        let database = TestDatabase::create_at(&self.database.url(), plan.name);
        let mut lab = FaultLab::new(plan, database, &self.broker.address("LOCAL"));
        let paths = [
            (&mut lab.producer_env, Path::ProducerKafka, Path::ProducerDatabase),
            (&mut lab.consumer_env, Path::ConsumerKafka, Path::ConsumerDatabase),
        ];
        for (env, kafka, database) in paths {
            let database = self.proxy(database).address;
            env.extend([
                ("WEBMON_KAFKA_SERVERS".to_owned(), self.proxy(kafka).address.to_string()),
                ("WEBMON_DATABASE_HOST".to_owned(), database.ip().to_string()),
                ("WEBMON_DATABASE_PORT".to_owned(), database.port().to_string()),
            ]);
        }
        lab
    }
}
