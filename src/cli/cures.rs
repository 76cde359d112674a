//! The parts of a daemon's health: what each means when it is unwell, and what to do. The same list
//! as docs/operations-unwell.md; a test holds the two and the code together.

use crate::config::Settings;
use crate::kafka::KafkaError;
use crate::store::{ErrorKind, StoreError};

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
        cure: "see that PostgreSQL runs and is reachable from that host, then 'webmon doctor' \
               there; a producer goes on with the sites it knows meanwhile",
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

/// What the trouble with the database is, in a few words.
pub(super) fn trouble(error: &StoreError) -> &'static str {
    match error.kind() {
        _ if error.wants_migration() => "the tables are not up to date",
        ErrorKind::Outage | ErrorKind::Again => "PostgreSQL is away",
        ErrorKind::Configuration | ErrorKind::Migration | ErrorKind::Data => {
            "PostgreSQL can't be asked"
        }
    }
}

/// What to do about what the database said.
pub(super) fn of_store(error: &StoreError, settings: &Settings) -> String {
    let (user, db) = (&settings.database.user, &settings.database.db);
    match error.kind() {
        _ if error.wants_migration() => {
            "run 'webmon migrate', or start a daemon, which does it; where a newer webmon is asked \
             for, install that one"
                .to_owned()
        }
        _ if error.wants_password() => PASSWORD.to_owned(),
        _ if error.lacks_database() => format!(
            "as an administrator: CREATE DATABASE \"{db}\" OWNER \"{user}\"; or correct database.db"
        ),
        ErrorKind::Outage | ErrorKind::Again => {
            "see that PostgreSQL runs there, listens on that address (listen_addresses) and that \
             nothing between refuses the port"
                .to_owned()
        }
        ErrorKind::Configuration | ErrorKind::Migration | ErrorKind::Data => {
            "see database.user, its password, database.db and database.ssl; the server's \
             pg_hba.conf must let that user in from here"
                .to_owned()
        }
    }
}

/// What to do where the server wants a password and none is set.
pub(super) const PASSWORD: &str = "set WEBMON_DATABASE_PASSWORD, or WEBMON_DATABASE_PASSWORD_FILE to \
                                   a file that has it, or add -W, which asks for it";

/// What to do about what a broker said, or did not say.
pub(super) fn of_kafka(error: &KafkaError) -> &'static str {
    match error {
        KafkaError::Configuration(_) => "name PEM files that exist in kafka.ssl",
        KafkaError::Certificate { .. } => {
            "set kafka.ssl.cafile to the authority of the broker's certificate, and name the broker \
             as its certificate does; if it wants ours, set kafka.ssl.certfile and keyfile"
        }
        KafkaError::Authentication { .. } => {
            "see kafka.sasl.user, its password and kafka.sasl.mechanism; the user must exist in the \
             broker"
        }
        KafkaError::Unreachable { cause, .. } if cause.contains("closed by the broker") => {
            "the port may want TLS or a password: set kafka.ssl or kafka.sasl, or take the \
             listener's other port"
        }
        KafkaError::Unreachable { .. } => {
            "see that the broker runs and that nothing between refuses the port; an address that \
             only the broker knows is cured by its advertised.listeners"
        }
        KafkaError::Refused { .. } => {
            "give the user rights to the topic and the groups (kafka-acls.sh)"
        }
        KafkaError::Protocol { .. } => "see that it is a Kafka broker's port",
        KafkaError::NoLeader { .. } => "start the brokers that hold its copies",
    }
}
