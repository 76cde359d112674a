//! Brokers and databases that freeze, restart, fail over, and refuse.

use std::time::Duration;

use postgres::{Client, Config, NoTls};

use crate::broker::brokers::{BrokerCluster, IDS};
use crate::lab::{FaultLab, Plan, Who, now_ms};
use crate::random::is_full;
use crate::support::eventually;
use crate::support::services::TestDatabase;
use crate::wires::{Path, Wires};

const PRODUCER: Who = Who::Producer(0);
const CONSUMER: Who = Who::Consumer(0);
/// What the connections of webmon's daemons are told apart by.
const DAEMONS: &str = "datname = current_database() AND application_name LIKE 'webmon-%'";

/// A counter that doesn't change for so long has come to rest: with checks at 20 a second it
/// otherwise changes with every batch.
const REST: Duration = Duration::from_secs(2);

/// What is done to the services, and how often, in words.
type Fault = fn(&mut Wires, &mut FaultLab) -> String;

/// How long something is away or frozen.
fn while_away() -> Duration {
    Duration::from_secs(if is_full() { 20 } else { 4 })
}

/// A counter of a daemon; it stands still when what feeds it does.
fn counter(lab: &FaultLab, who: Who, name: &str) -> f64 {
    lab.metric(who, name).unwrap_or_else(|| panic!("{who:?} has no {name}"))
}

/// Waits until `/readyz` of a daemon names the cause `text`.
fn wait_for_cause(lab: &FaultLab, who: Who, text: &str) {
    eventually(&format!("{who:?} says '{text}'"), || {
        let (status, cause) = lab.daemon(who).get("/readyz?verbose");
        if status == 503 && cause.contains(text) { Ok(()) } else { Err((status, cause)) }
    });
}

/// Lets the time pass in which `name` must stand still while checks go on.
fn stands_still(lab: &FaultLab, who: Who, name: &str) -> usize {
    // What was answered before the freeze may be counted after it.
    let mut last = counter(lab, who, name);
    let before = eventually(&format!("{name} comes to rest"), || {
        lab.let_run(REST);
        let now = counter(lab, who, name);
        if std::mem::replace(&mut last, now) == now { Ok(now) } else { Err(now) }
    });
    let asked = lab.web.count();
    lab.let_run(while_away());
    let more = lab.web.count() - asked;
    assert_eq!(counter(lab, who, name), before, "{name} stands still");
    assert!(more > 0, "checks go on");
    more
}

fn frozen_broker(wires: &mut Wires, lab: &mut FaultLab) -> String {
    let from_ms = now_ms();
    wires.broker.freeze();
    let more = stands_still(lab, PRODUCER, "webmon_published_total");
    wires.broker.thaw();
    lab.history.kafka_away.push((from_ms, now_ms()));
    format!("{} s; nothing was acknowledged, {more} checks went on", while_away().as_secs())
}

fn frozen_database(wires: &mut Wires, lab: &mut FaultLab) -> String {
    let frozen = wires.database.freeze();
    let more = stands_still(lab, CONSUMER, "webmon_rows_inserted_total");
    drop(frozen);
    format!("{} s; nothing was inserted, {more} checks went on", while_away().as_secs())
}

fn database_restart(wires: &mut Wires, lab: &mut FaultLab) -> String {
    wires.database.stop_at_once();
    wait_for_cause(lab, CONSUMER, "storing");
    lab.let_run(Duration::from_secs(2));
    wires.database.restart();
    "stopped with -m immediate; the consumer could not save".to_owned()
}

fn broker_restart(wires: &mut Wires, lab: &mut FaultLab) -> String {
    let from_ms = now_ms();
    wires.broker.stop();
    wait_for_cause(lab, PRODUCER, "kafka");
    wait_for_cause(lab, CONSUMER, "fetching");
    wires.broker.restart();
    lab.history.kafka_away.push((from_ms, now_ms()));
    "SIGTERM; both daemons were unready".to_owned()
}

/// A connection of the test's own.
fn connect(wires: &Wires, lab: &FaultLab) -> Result<Client, postgres::Error> {
    let url = wires.database.url();
    let mut config: Config = url.parse().expect("the server's URL");
    config.dbname(&lab.lab.database.name).application_name("crowd").connect(NoTls)
}

/// Ends all connections of webmon's daemons.
fn cut_daemons(client: &mut Client) -> i64 {
    let cut =
        format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {DAEMONS}");
    client.query_one(&cut, &[]).expect("an answer").get(0)
}

fn too_many_connections(wires: &mut Wires, lab: &mut FaultLab) -> String {
    let mut admin = connect(wires, lab).expect("a connection");
    let mut crowd = Vec::new();
    eventually("the daemons find no place", || {
        // Whatever place the daemons leave is taken, until they have none.
        cut_daemons(&mut admin);
        loop {
            match connect(wires, lab) {
                Ok(client) => crowd.push(client),
                Err(error) if error.code().is_some_and(|code| code.code() == "53300") => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        let (_, text) = lab.daemon(CONSUMER).get("/readyz?verbose");
        if text.contains("53300") { Ok(()) } else { Err(text) }
    });
    lab.let_run(Duration::from_secs(2));
    format!("{} connections of others; the consumer was told 53300", crowd.len() + 1)
}

/// Has each insert of checks do `what` as long as the trigger is there.
fn with_trigger(client: &mut Client, what: &str) {
    let sql = format!(
        "CREATE SEQUENCE met;
         CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN {what}; RETURN NULL; END$$;
         CREATE TRIGGER meet AFTER INSERT ON check_entry EXECUTE FUNCTION meet()"
    );
    client.batch_execute(&sql).expect("the trigger");
}

fn without_trigger(client: &mut Client) -> i64 {
    let met = client.query_one("SELECT last_value FROM met", &[]).expect("an answer").get(0);
    client.batch_execute("DROP FUNCTION meet CASCADE; DROP SEQUENCE met").expect("it goes");
    met
}

fn deadlock(wires: &mut Wires, lab: &mut FaultLab) -> String {
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let mut other = connect(wires, lab).expect("a connection");
    let mut holder = connect(wires, lab).expect("a connection");
    // The consumer looks for deadlocks, and so is the one that gives way; the holder never looks.
    let name = &lab.lab.database.name;
    other
        .batch_execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '2s'"))
        .expect("set");
    with_trigger(&mut other, "PERFORM nextval('met'); PERFORM pg_advisory_xact_lock(1)");
    holder
        .batch_execute("SET deadlock_timeout = '5min'; BEGIN; SELECT pg_advisory_xact_lock(1)")
        .expect("the lock");
    cut_daemons(&mut other);
    eventually("the consumer waits", || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        match other.query_one(waiting, &[]).expect("an answer").get::<_, i64>(0) {
            0 => Err("nobody"),
            _ => Ok(()),
        }
    });
    // It holds a lock on the table: now each waits for the other.
    holder.batch_execute("LOCK TABLE check_entry").expect("the table, once the consumer gave way");
    without_trigger(&mut holder);
    holder.batch_execute("COMMIT").expect("commit");
    let met = eventually("the deadlock is counted", || {
        match other.query_one(deadlocks, &[]).expect("an answer").get::<_, i64>(0) {
            0 => Err("none"),
            met => Ok(met),
        }
    });
    other.batch_execute(&format!("ALTER DATABASE {name} RESET deadlock_timeout")).expect("reset");
    format!("{met}, counted by PostgreSQL")
}

fn statement_timeout(wires: &mut Wires, lab: &mut FaultLab) -> String {
    let mut client = connect(wires, lab).expect("a connection");
    with_trigger(&mut client, "PERFORM nextval('met'); PERFORM pg_sleep(60)");
    wait_for_cause(lab, CONSUMER, "57014");
    let met = without_trigger(&mut client);
    format!("{met} inserts slept; the consumer was told 57014")
}

/// Each with a lab of its own in the full run, in which they are lines of the table.
#[test]
fn services_that_freeze_restart_and_refuse_cost_nothing() {
    let mut wires = Wires::start();
    let faults: [(&str, Fault); 7] = [
        ("Broker frozen (SIGSTOP)", frozen_broker),
        ("Database frozen (SIGSTOP)", frozen_database),
        ("Broker restarted", broker_restart),
        ("Database restarted", database_restart),
        ("Too many connections to the database", too_many_connections),
        ("Deadlock with another transaction", deadlock),
        ("Statements that time out", statement_timeout),
    ];
    if is_full() {
        for (place, (name, inject)) in (300..).zip(faults) {
            let mut lab = wires.lab(Plan::new("services"));
            lab.start_all();
            let injected = inject(&mut wires, &mut lab);
            lab.finish(place, name, &injected);
        }
        return;
    }
    let mut lab = wires.lab(Plan::new("services"));
    lab.start_all();
    // A statement's time is 15 s: that is for the full run.
    for (name, inject) in &faults[..6] {
        println!("{name}: {}", inject(&mut wires, &mut lab));
        lab.wait_until_stored();
    }
    lab.finish(300, "Services frozen, restarted and refusing", "six faults, each met");
}

/// The primary dies; its address leads to the standby, which takes no writes until it is promoted.
#[test]
fn a_failover_to_a_server_that_is_still_read_only_costs_nothing() {
    let wires = Wires::start();
    let standby = wires.database.standby();
    let mut lab = wires.lab(Plan::new("failover"));
    lab.start_all();
    let killed = wires.database.kill().len();
    let address = format!("127.0.0.1:{}", standby.port);
    for path in [Path::ProducerDatabase, Path::ConsumerDatabase] {
        wires.proxy(path).lead_to(&address);
        wires.proxy(path).cut();
    }
    lab.lab.database.move_to(&standby.url());
    assert_eq!(standby.ask("SELECT pg_is_in_recovery()"), "t");
    wait_for_cause(&lab, CONSUMER, "25006");
    lab.let_run(Duration::from_secs(if is_full() { 20 } else { 3 }));
    standby.promote();
    lab.daemon(CONSUMER).wait_for_log("\"saving\"");
    let injected = format!(
        "primary gone by `kill -9` ({killed} processes); the consumer was told 25006 until the \
         standby was promoted"
    );
    lab.finish(310, "Failover to a server that is read-only at first", &injected);
}

/// Three brokers: the leader of a partition is killed, later the coordinator of the group, which
/// leads partitions as well.
#[test]
fn of_three_brokers_leader_and_coordinator_are_killed() {
    let mut brokers = BrokerCluster::start(|_| Vec::new());
    let plan = Plan { session: 10, ..Plan::new("three") };
    let servers = brokers.addresses("LOCAL").join(",");
    let mut lab = FaultLab::new(plan, TestDatabase::create(plan.name), &servers);
    lab.lab.set("WEBMON_KAFKA_REPLICATION_FACTOR", "3");
    lab.start_all();
    let topic = lab.lab.topic.clone();
    let group = lab.lab.env["WEBMON_KAFKA_CONSUMER_GROUP"].clone();
    brokers.wait_until_in_sync(&topic);
    let mut kills = Vec::new();
    for what in if is_full() { &["leader", "coordinator"][..] } else { &["coordinator"] } {
        let now = |brokers: &BrokerCluster| match *what {
            "leader" => brokers.leader(&topic, 0),
            _ => brokers.coordinator(&group),
        };
        let id = now(&brokers).expect("there is one");
        let leads = (0..8).filter(|n| brokers.leader(&topic, *n) == Some(id)).count();
        assert!(leads > 0, "each broker leads some partition");
        brokers.broker_mut(id).kill();
        eventually(&format!("another {what}"), || match now(&brokers) {
            Some(now) if now != id && IDS.contains(&now) => Ok(()),
            other => Err(other),
        });
        lab.wait_until_stored();
        brokers.broker_mut(id).restart();
        brokers.wait_until_in_sync(&topic);
        kills.push(format!("{what} (broker {id}, which led {leads} of 8 partitions)"));
    }
    let injected =
        format!("{} times, another took over each time: {}", kills.len(), kills.join(", "));
    lab.finish(320, "`kill -9` of leader and coordinator of three brokers", &injected);
}
