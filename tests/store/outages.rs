//! Each class of errors, as the real server says it: the batch is kept, nothing is rejected, and
//! when the fault is over the same batch goes in, every row once.

use std::time::Duration;

use postgres::Client;
use webmon::check::Check;
use webmon::store::{ErrorKind, Limits, Rejected, Store, StoreError};

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::services::TestDatabase;
use super::{check_at, checks, count, recently, with_site};

/// A batch of checks and a message to put aside with them.
fn save(store: &Store, batch: &[Check<'_>]) -> Result<usize, StoreError> {
    let message =
        Rejected { topic: "t", partition: 0, offset: 7, reason: "odd", payload: b"no json" };
    let saved = store.save_batch(batch, &[message])?;
    assert!(saved.refused.is_empty(), "{:?}", saved.refused);
    Ok(saved.inserted + saved.known)
}

/// Saving fails with `code` for as long as the fault lasts, and works after `heal`.
fn check(
    database: &TestDatabase,
    store: &Store,
    site: i64,
    (kind, code): (ErrorKind, &str),
    heal: impl FnOnce(),
) {
    let batch = checks(site, 30);
    for _ in 0..3 {
        let error = save(store, &batch).expect_err(code);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(code), "{code}: {error}");
    }
    heal();
    assert_eq!(eventually("the batch is stored", || save(store, &batch)), 30);
    assert_eq!(count(database, "check_entry"), 30, "every row once");
    assert_eq!(count(database, "rejected_message"), 1, "what was put aside, and nothing else");
}

/// Every insert of a check first calls `body`.
fn before_insert(client: &mut Client, body: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} \
             RETURN NULL; END $$; \
             CREATE TRIGGER meddle BEFORE INSERT ON check_entry \
             FOR EACH STATEMENT EXECUTE FUNCTION meddle()"
        ))
        .unwrap();
}

const LET_GO: &str = "DROP TRIGGER meddle ON check_entry; DROP FUNCTION meddle";

#[test]
fn a_server_that_became_read_only() {
    let (database, store, site) = with_site("read_only");
    let mut client = database.client();
    let set = |client: &mut Client, to: &str| {
        client
            .batch_execute(&format!(
                "ALTER DATABASE {} SET default_transaction_read_only = {to}",
                database.name
            ))
            .unwrap();
    };
    set(&mut client, "on");
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'webmon-test'";
    client.execute(kill, &[]).unwrap();
    // The killed connection may be met first.
    eventually("the server is met again", || store.ping());
    check(&database, &store, site, (ErrorKind::Outage, "25006"), || {
        client.batch_execute("SET default_transaction_read_only = off").unwrap();
        // No connection is killed: the store must leave those that a standby gave it.
        set(&mut client, "off");
    });
}

#[test]
fn a_full_disk() {
    let (database, store, site) = with_site("disk");
    let mut client = database.client();
    before_insert(&mut client, "RAISE 'No space left on device' USING ERRCODE = '53100';");
    check(&database, &store, site, (ErrorKind::Outage, "53100"), || {
        client.batch_execute(LET_GO).unwrap();
    });
}

#[test]
fn a_statement_that_takes_too_long() {
    let (database, _, site) = with_site("statement");
    let limits = Limits { call: Duration::from_secs(2), ..Limits::default() };
    let store = Store::with_limits(database.options(), limits).unwrap();
    let mut client = database.client();
    before_insert(&mut client, "PERFORM pg_sleep(60);");
    check(&database, &store, site, (ErrorKind::Outage, "57014"), || {
        client.batch_execute(LET_GO).unwrap();
    });
}

#[test]
fn a_lock_that_takes_too_long() {
    let (database, _, site) = with_site("lock");
    let limits = Limits { call: Duration::from_secs(2), ..Limits::default() };
    let store = Store::with_limits(database.options(), limits).unwrap();
    let mut client = database.client();
    client.batch_execute("BEGIN; LOCK TABLE check_entry IN SHARE MODE").unwrap();
    check(&database, &store, site, (ErrorKind::Outage, "55P03"), || {
        client.batch_execute("ROLLBACK").unwrap();
    });
}

#[test]
fn a_table_that_is_not_there() {
    let (database, store, site) = with_site("no_table");
    let mut client = database.client();
    client.batch_execute("ALTER TABLE check_entry RENAME TO elsewhere").unwrap();
    check(&database, &store, site, (ErrorKind::Configuration, "42P01"), || {
        client.batch_execute("ALTER TABLE elsewhere RENAME TO check_entry").unwrap();
    });
}

/// One server of its own goes through what would disturb others.
#[test]
fn too_many_connections_a_shutdown_and_a_wrong_password() {
    let cluster = Cluster::start(&["max_connections = 8"], &[], &[]);
    let mut admin: Client = connect(&cluster.url());
    admin.batch_execute("CREATE ROLE plain LOGIN PASSWORD 'plain'").unwrap();
    let database = TestDatabase::create_at(&cluster.url(), "outages");
    let owner = Store::new(database.options()).unwrap();
    owner.migrate().unwrap();
    let site = owner.sites().unwrap()[0].website_id;
    drop(owner);
    database.client().batch_execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO plain").unwrap();
    let mut options = database.options();
    (options.user, options.password) = ("plain".to_owned(), Some("plain".into()));
    let store = Store::new(options).unwrap();
    eventually("the owner's connections are closed", || {
        match count(&database, "pg_stat_activity WHERE application_name = 'webmon-test'") {
            0 => Ok(()),
            open => Err(open),
        }
    });

    // Reserved ones are left for the superuser, so the others are gone before they are.
    let mut crowd: Vec<Client> = Vec::new();
    eventually("the server is full", || {
        while let Ok(client) = cluster
            .url()
            .parse::<postgres::Config>()
            .unwrap()
            .user("plain")
            .password("plain")
            .connect(postgres::NoTls)
        {
            crowd.push(client);
        }
        met(&store, "53300")
    });
    check(&database, &store, site, (ErrorKind::Outage, "53300"), || drop(crowd));

    admin.batch_execute("ALTER ROLE plain PASSWORD 'other'").unwrap();
    let kill =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'plain'";
    assert!(admin.query_one(kill, &[]).unwrap().get::<_, i64>(0) > 0);
    database.client().batch_execute("TRUNCATE check_entry, rejected_message").unwrap();
    eventually("the killed connections are found", || met(&store, "28P01"));
    check(&database, &store, site, (ErrorKind::Configuration, "28P01"), || {
        admin.batch_execute("ALTER ROLE plain PASSWORD 'plain'").unwrap();
    });

    // One client keeps the server from ending; it lets in nobody else.
    database.client().batch_execute("TRUNCATE check_entry, rejected_message").unwrap();
    cluster.stop_smart();
    eventually("the server is going down", || {
        // The pool may have made a connection more.
        admin.execute(kill, &[]).unwrap();
        met(&store, "57P03")
    });
    check(&database, &store, site, (ErrorKind::Outage, "57P03"), || {
        drop(admin);
        cluster.start_again();
    });
}

/// Whether the store meets `code` now.
fn met(store: &Store, code: &str) -> Result<(), Option<StoreError>> {
    let error = store.ping().err();
    if error.as_ref().is_some_and(|e| e.message().contains(code)) { Ok(()) } else { Err(error) }
}

fn connect(url: &str) -> Client {
    Client::connect(url, postgres::NoTls).unwrap()
}

/// Waits until somebody of the store waits in the middle of its COPY, for `what`.
/// By a client that is in no transaction: there it would see the same again and again.
fn in_copy(database: &TestDatabase, what: &str) -> i32 {
    let mut client = database.client();
    let question = format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'webmon-test' AND query LIKE 'COPY%' AND wait_event_type = '{what}'"
    );
    eventually("a COPY waits", || {
        let found = client.query_opt(&question, &[]).unwrap();
        found.map(|row| row.get(0)).ok_or("none")
    })
}

/// Saves on a thread of its own, while the test meddles.
fn meanwhile(
    store: &Store,
    batch: &[Check<'_>],
    meddle: impl FnOnce(),
) -> Result<usize, StoreError> {
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| save(store, batch));
        meddle();
        saving.join().unwrap()
    })
}

#[test]
fn a_connection_that_is_killed_in_the_middle_of_its_copy() {
    let (database, store, site) = with_site("mid_copy");
    let (mut client, batch) = (database.client(), checks(site, 30));
    before_insert(&mut client, "PERFORM pg_sleep(60);");
    let error = meanwhile(&store, &batch, || {
        let pid = in_copy(&database, "Timeout");
        client.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    })
    .unwrap_err();
    assert!(error.is_outage(), "{error}");
    client.batch_execute(LET_GO).unwrap();
    assert_eq!(save(&store, &batch).unwrap(), 30);
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (30, 1));
}

/// The store is the one that is given up, tries again at once, and its caller hears nothing.
#[test]
fn a_deadlock_is_tried_again() {
    let (database, store, site) = with_site("deadlock");
    let mut client = database.client();
    // The store looks for a deadlock after 3 s of waiting, the test never.
    client
        .batch_execute(&format!(
            "ALTER DATABASE {} SET deadlock_timeout = '3s'; SET deadlock_timeout = '10min'",
            database.name
        ))
        .unwrap();
    let store = {
        drop(store);
        Store::new(database.options()).unwrap()
    };
    let batch = [check_at(site, recently(), 60), check_at(site, recently(), 0)];
    let insert = |client: &mut Client, check: &Check<'_>| {
        let statement = "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", outcome, region) \
                         VALUES ($1, $2, $3, 'up', 'default')";
        let (id, time) = (check.check_entry_id, check.scheduled_at);
        client.execute(statement, &[&id, &site, &time]).unwrap();
    };
    client.batch_execute("BEGIN").unwrap();
    insert(&mut client, &batch[1]);
    let saved = meanwhile(&store, &batch, || {
        // It has the first row, and waits for the second.
        in_copy(&database, "Lock");
        insert(&mut client, &batch[0]);
        client.batch_execute("ROLLBACK").unwrap();
    });
    assert_eq!(saved.unwrap(), 2);
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (2, 1));
    eventually("there was a deadlock", || {
        let question = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        let deadlocks: i64 = database.client().query_one(question, &[]).unwrap().get(0);
        if deadlocks == 1 { Ok(()) } else { Err(deadlocks) }
    });
}

#[test]
fn a_serialization_failure_is_tried_again() {
    let (database, store, site) = with_site("serial");
    let mut client = database.client();
    client
        .batch_execute(&format!(
            "CREATE TABLE tally (n integer); INSERT INTO tally VALUES (0); \
             CREATE SEQUENCE tries; \
             ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
            database.name
        ))
        .unwrap();
    // A sequence goes on whatever becomes of the transaction.
    before_insert(&mut client, "PERFORM nextval('tries'); UPDATE tally SET n = n + 1;");
    drop(store);
    let (store, batch) = (Store::new(database.options()).unwrap(), checks(site, 30));
    client.batch_execute("BEGIN; UPDATE tally SET n = 100").unwrap();
    let saved = meanwhile(&store, &batch, || {
        in_copy(&database, "Lock");
        client.batch_execute("COMMIT").unwrap();
    });
    assert_eq!(saved.unwrap(), 30);
    let tries: i64 = client.query_one("SELECT last_value FROM tries", &[]).unwrap().get(0);
    assert_eq!(tries, 2, "the first was refused");
    let tally: i32 = client.query_one("SELECT n FROM tally", &[]).unwrap().get(0);
    assert_eq!(tally, 101);
    assert_eq!((count(&database, "check_entry"), count(&database, "rejected_message")), (30, 1));
}
