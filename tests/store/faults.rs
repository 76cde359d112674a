//! A database that is away, frozen, or refuses.

use std::time::Duration;

use webmon::runtime::now;
use webmon::store::{ErrorKind, LATE_MAX, Limits, SiteListener, Store, StoreError};

use super::support::cluster::Cluster;
use super::support::eventually;
use super::support::ports::free_port;
use super::support::services::TestDatabase;
use super::{checks, count, with_site};

/// Runs `work` and fails if it takes longer than `limit`.
fn within<T>(limit: Duration, what: &str, work: impl FnOnce() -> T) -> T {
    let start = now().mono;
    let result = work();
    let took = now().mono - start;
    assert!(took < limit, "{what} took {took:?}");
    result
}

#[test]
fn no_server_is_an_outage_at_once() {
    let database = TestDatabase::create("away");
    let mut options = database.options();
    options.port = free_port();
    let address = format!("127.0.0.1:{}", options.port);
    let store = Store::new(options).unwrap();
    let soon = Duration::from_secs(8);
    type Call = fn(&Store) -> Option<StoreError>;
    let calls: [(&str, Call); 6] = [
        ("ping", |s| s.ping().err()),
        ("sites", |s| s.sites().err()),
        ("migrate", |s| s.migrate().err()),
        ("save", |s| s.save_batch(&checks(1, 3), &[]).err()),
        ("lead", |s| s.try_lead("x").err()),
        ("listener", |s| SiteListener::start(s).wait(Duration::from_secs(1)).err()),
    ];
    for (name, call) in calls {
        let error = within(soon, name, || call(&store)).unwrap();
        assert!(error.is_outage(), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(&address) && text.contains("onnection refused"), "{name}: {text}");
    }
}

#[test]
fn a_server_that_refuses_us_needs_a_person() {
    let database = TestDatabase::create("refuses");
    let mut options = database.options();
    options.password = Some("s3cret-and-wrong".into());
    let error = Store::new(options).unwrap().ping().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("28P01") && !error.to_string().contains("s3cret"));
    let mut options = database.options();
    options.db = "no_such_database".to_owned();
    let error = Store::new(options).unwrap().ping().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let mut options = database.options();
    options.password = None;
    let error = Store::new(options).unwrap().ping().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
}

#[test]
fn killed_connections_are_replaced() {
    let (database, store, site) = with_site("killed");
    let all = checks(site, 60);
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'webmon-test'";
    let mut client = database.client();
    for (index, batch) in all.chunks(10).enumerate() {
        let killed: i64 = client.query_one(kill, &[]).unwrap().get(0);
        assert!(killed > 0 || index > 0, "nothing was killed");
        eventually("the batch is stored", || store.insert_checks(batch));
    }
    assert_eq!(count(&database, "check_entry"), 60);
}

#[test]
fn a_server_that_is_only_slow_gives_up_itself() {
    let (database, _, site) = with_site("slow");
    let limits = Limits { call: Duration::from_secs(2), ..Limits::default() };
    let store = Store::with_limits(database.options(), limits).unwrap();
    let mut client = database.client();
    let mut holder = client.transaction().unwrap();
    holder.batch_execute("LOCK TABLE check_entry").unwrap();
    let error = store.insert_checks(&checks(site, 5)).unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert!(error.to_string().contains("55P03"), "{error}");
    holder.rollback().unwrap();
    assert_eq!(store.insert_checks(&checks(site, 5)).unwrap().inserted, 5);
}

#[test]
fn a_frozen_server_holds_nobody_and_works_again_afterwards() {
    let cluster = Cluster::start(&[], &[], &[]);
    let database = TestDatabase::create_at(&cluster.url(), "frozen");
    let limits = Limits { call: Duration::from_secs(1), schema: Duration::from_secs(10) };
    let store = Store::with_limits(database.options(), limits).unwrap();
    store.migrate().unwrap();
    let site = store.sites().unwrap()[0].website_id;
    let batch = checks(site, 50);
    assert_eq!(store.insert_checks(&batch[..10]).unwrap().inserted, 10);
    let mut listener = SiteListener::start(&store);
    assert!(listener.wait(Duration::ZERO).unwrap());
    let mut lead = store.try_lead("maintenance").unwrap().unwrap();

    let frozen = cluster.freeze();
    let soon = Duration::from_secs(4);
    let mut late = 0;
    for call in 0..3 * LATE_MAX {
        let error = within(soon, "a batch", || store.insert_checks(&batch)).unwrap_err();
        assert!(error.is_outage(), "call {call}: {error}");
        late += usize::from(error.message().contains("no answer in time"));
    }
    let error = within(soon, "the listener", || listener.wait(Duration::ZERO)).unwrap_err();
    assert!(error.is_outage(), "{error}");
    assert!(!within(soon, "the lead", || lead.is_held()));
    assert!(within(soon, "migrating", || store.migrate()).unwrap_err().is_outage());
    within(soon, "dropping", || drop(listener));
    assert!(late >= 1, "the fault was not reached");
    assert!(webmon::runtime::left_behind() >= 1);

    drop(frozen);
    eventually("the batch is stored", || store.insert_checks(&batch));
    assert_eq!(count(&database, "check_entry"), 50);
    eventually("all late calls ended", || match webmon::runtime::left_behind() {
        0 => Ok(()),
        left => Err(left),
    });

    // A frozen server does not hold the end of the process either.
    let _frozen = cluster.freeze();
    within(soon, "closing", || drop(store));
}

/// A server notices a host that vanished, and gives up its locks and leads.
#[test]
fn the_server_looks_for_hosts_that_vanished() {
    let cluster = Cluster::start(&[], &["local all all scram-sha-256"], &[]);
    let database = TestDatabase::create_at(&cluster.url(), "keepalive");
    let mut options = database.options();
    let store = Store::new(options.clone()).unwrap();
    store.migrate().unwrap();
    let site = store.sites().unwrap()[0].website_id;
    let names = ["keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout"];
    let values = names.map(|name| format!("current_setting('tcp_{name}')")).join(" || ' ' || ");
    let meddle = format!(
        "CREATE TABLE seen (way text, settings text); \
         CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO seen VALUES (inet_client_addr()::text, {values}); RETURN NULL; END $$; \
         CREATE TRIGGER meddle BEFORE INSERT ON check_entry \
         FOR EACH STATEMENT EXECUTE FUNCTION meddle()"
    );
    database.client().batch_execute(&meddle).unwrap();
    assert_eq!(store.insert_checks(&checks(site, 1)).unwrap().inserted, 1);
    // A Unix socket has none, and refuses none.
    options.host = cluster.directory().display().to_string();
    let by_socket = Store::new(options).unwrap();
    assert_eq!(by_socket.insert_checks(&checks(site, 2)).unwrap().inserted, 1);
    let question = "SELECT settings FROM seen WHERE way IS NOT NULL";
    let row = database.client().query_one(question, &[]).unwrap();
    assert_eq!(row.get::<_, String>(0), "30 10 3 60000");
    assert!(count(&database, "seen WHERE way IS NULL") > 0);
}
