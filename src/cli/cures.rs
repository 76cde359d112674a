//! The parts of a daemon's health: what each means when it is unwell, and what to do. The same list
//! as docs/operations-unwell.md; a test holds the two and the code together.

/// A part of a daemon's health.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its name in `/readyz` and in the table `daemon`.
    pub(super) name: &'static str,
    /// What to do when it is unwell.
    pub(super) cure: &'static str,
}

/// All of them, by name.
pub(super) const PARTS: [Part; 9] = [
    Part {
        name: "database",
        cure: "the producer goes on with the sites it knows; see that PostgreSQL runs and is \
               reachable from its host, then 'webmon doctor' there",
    },
    Part {
        name: "delivery",
        cure: "results wait in the spool; see that PostgreSQL runs and is reachable from that \
               host, then 'webmon doctor' there",
    },
    Part {
        name: "fetching",
        cure: "messages stay in Kafka; see that the brokers run and each partition has a leader: \
               'webmon topic show'",
    },
    Part {
        name: "group",
        cure: "others take its partitions over; see that the brokers run, and that no other process \
               has the same kafka.consumer.instance_id",
    },
    Part {
        name: "kafka",
        cure: "results wait in the spool; see that the brokers run and are reachable from that \
               host, then 'webmon doctor' there",
    },
    Part {
        name: "rollups",
        cure: "checks are stored, their counts by hour and day come later; see the database's log \
               for the cause that is told",
    },
    Part {
        name: "spool",
        cure: "results are being lost: free the disk of producer.spool.dir, or raise \
               producer.spool.max_bytes, and see why nothing takes the results",
    },
    Part {
        name: "storing",
        cure: "messages stay in Kafka until it works; see that PostgreSQL runs, has room on its disk \
               and takes writes",
    },
    Part {
        name: "tables",
        cure: "run 'webmon migrate' to see the cause; the role needs to own webmon's tables",
    },
];

/// What to do about the part `name`.
pub(super) fn cure(name: &str) -> &'static str {
    let known = PARTS.iter().find(|part| part.name == name);
    known.map_or("see the daemon's log", |part| part.cure)
}
