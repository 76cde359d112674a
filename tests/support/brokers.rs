//! Three brokers as one cluster: one may die, and nothing that was acknowledged is lost.

use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{
    CAP, KafkaOptions, Listener, OwnBroker, admin, became, new_dir, options, ports, topics,
};

/// The ids of the brokers.
pub(crate) const IDS: [i32; 3] = [1, 2, 3];

/// Each is broker and controller; each record has three copies, and two of them must be there for
/// an acknowledgement.
pub(crate) struct BrokerCluster {
    brokers: Vec<OwnBroker>,
}

impl BrokerCluster {
    /// Starts three brokers. `listeners` says which further listeners a broker has, by its id;
    /// their names are the same for all.
    pub(crate) fn start(listeners: impl Fn(i32) -> Vec<Listener>) -> Self {
        let names: Vec<&'static str> = listeners(IDS[0]).iter().map(|l| l.name).collect();
        let per_broker = names.len() + 2;
        let held = ports::hold(per_broker * IDS.len());
        let numbers: Vec<u16> = held.iter().map(|l| l.local_addr().unwrap().port()).collect();
        let names: Vec<&'static str> = ["CONTROLLER", "LOCAL"].into_iter().chain(names).collect();
        let ports_of = |index: usize| -> Vec<(&'static str, u16)> {
            let own = &numbers[index * per_broker..(index + 1) * per_broker];
            names.iter().copied().zip(own.iter().copied()).collect()
        };
        let voters: Vec<String> = (0..IDS.len())
            .map(|index| format!("{}@127.0.0.1:{}", IDS[index], ports_of(index)[0].1))
            .collect();
        let properties = properties();
        let mut brokers: Vec<OwnBroker> = (0..IDS.len())
            .map(|index| OwnBroker {
                dir: new_dir(),
                id: IDS[index],
                voters: voters.join(","),
                ports: ports_of(index),
                keeper: None,
            })
            .collect();
        std::thread::scope(|scope| {
            for broker in &mut brokers {
                let (own, properties) = (listeners(broker.id), &properties);
                scope.spawn(move || broker.format(&own, properties, &[]));
            }
        });
        drop(held);
        brokers.iter_mut().for_each(OwnBroker::spawn);
        let cluster = Self { brokers };
        cluster.brokers.iter().for_each(OwnBroker::wait_until_up);
        cluster.wait_until_whole();
        cluster
    }

    /// Options for all three, through the listeners without TLS.
    pub(crate) fn options(&self) -> KafkaOptions {
        options(self.addresses("LOCAL"))
    }

    /// The addresses of one listener on all brokers, by id.
    pub(crate) fn addresses(&self, listener: &str) -> Vec<String> {
        self.brokers.iter().map(|broker| broker.address(listener)).collect()
    }

    pub(crate) fn broker(&self, id: i32) -> &OwnBroker {
        self.brokers.iter().find(|broker| broker.id == id).unwrap()
    }

    /// For killing and restarting one.
    pub(crate) fn broker_mut(&mut self, id: i32) -> &mut OwnBroker {
        self.brokers.iter_mut().find(|broker| broker.id == id).unwrap()
    }

    /// Who leads a partition now.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let found = topics::describe(&self.options(), topic).ok()??;
        let partition = found.partitions.into_iter().find(|p| p.id == partition)?;
        self.id_of(&partition.leader?)
    }

    /// Who coordinates a group now.
    pub(crate) fn coordinator(&self, group: &str) -> Option<i32> {
        let request = FindCoordinatorRequest::default()
            .with_key(StrBytes::from_string(group.to_owned()))
            .with_key_type(0);
        let answer: FindCoordinatorResponse = self.any(|client| {
            client.send_raw_protocol_request(ApiKey::FindCoordinator as i16, 3, &request).ok()
        })?;
        (answer.error_code == 0).then_some(answer.node_id.0)
    }

    /// Waits until all partitions of a topic have all their copies again.
    pub(crate) fn wait_until_in_sync(&self, topic: &str) {
        let mut last = None;
        let is_whole = became(CAP, || {
            last = topics::describe(&self.options(), topic).ok().flatten();
            last.as_ref()
                .is_some_and(|topic| topic.partitions.iter().all(|p| p.in_sync.len() == IDS.len()))
        });
        assert!(is_whole, "not all copies are there: {last:?}");
    }

    /// Waits until each broker knows all three.
    pub(crate) fn wait_until_whole(&self) {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let is_whole = became(CAP, || {
            self.brokers.iter().all(|broker| {
                let answer: Option<MetadataResponse> = admin(&broker.options())
                    .send_raw_protocol_request(ApiKey::Metadata as i16, 9, &request)
                    .ok();
                answer.is_some_and(|answer| answer.brokers.len() == IDS.len())
            })
        });
        assert!(is_whole, "the three brokers did not find each other");
    }

    fn id_of(&self, address: &str) -> Option<i32> {
        let broker = self.brokers.iter().find(|broker| broker.address("LOCAL") == address)?;
        Some(broker.id)
    }

    /// The first answer of any broker.
    fn any<T>(&self, ask: impl Fn(&mut kafka::client::KafkaClient) -> Option<T>) -> Option<T> {
        self.brokers.iter().find_map(|broker| ask(&mut admin(&broker.options())))
    }
}

fn properties() -> Vec<(String, String)> {
    [
        ("default.replication.factor", "3"),
        ("min.insync.replicas", "2"),
        ("offsets.topic.replication.factor", "3"),
        ("transaction.state.log.replication.factor", "3"),
        ("transaction.state.log.min.isr", "2"),
        ("share.coordinator.state.topic.replication.factor", "3"),
        ("share.coordinator.state.topic.min.isr", "2"),
        // Two busy cores give each of three JVMs its turn late: no election because of that.
        ("controller.quorum.election.timeout.ms", "2000"),
        ("controller.quorum.fetch.timeout.ms", "4000"),
        // How long a dead broker keeps its partitions; 9 s by default.
        ("broker.session.timeout.ms", "6000"),
        ("broker.heartbeat.interval.ms", "1000"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}
