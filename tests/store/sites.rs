//! Sites, and noticing that they changed.

use std::time::Duration;

use webmon::site::{Settings, SiteDefaults, SiteSpec, setting};
use webmon::store::{SiteListener, SiteStatus, StoreError};

use super::migrated;
use super::support::eventually;

fn spec(name: &str) -> SiteSpec {
    SiteSpec { name: name.to_owned(), url: format!("https://{name}.test/"), ..SiteSpec::default() }
}

fn settings(texts: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (name, text) in texts {
        settings.set(name, setting(name).unwrap().parse(text).unwrap()).unwrap();
    }
    settings
}

#[test]
fn a_setting_that_is_none_is_a_fault_of_its_site_alone() {
    let (database, store) = migrated("settings");
    let mut client = database.client();
    client.batch_execute("DELETE FROM website").unwrap();
    store.add_missing_sites(&[spec("a"), spec("b"), spec("c"), spec("d")]).unwrap();
    let set = |name: &str, json: &str| {
        let change = "UPDATE website SET settings = $2::text::jsonb WHERE name = $1";
        database.client().execute(change, &[&name, &json])
    };
    set("a", r#"{"colour": "blue", "retries": 2}"#).unwrap();
    set("b", r#"{"retry_pause": "soon"}"#).unwrap();
    set("c", r#"{"retry_pause": 1e999}"#).unwrap();
    set("d", r#"{"retry_pause": 0.25, "proxy": null}"#).unwrap();
    let defaults = SiteDefaults { interval: 30, timeout: 10 };
    let results: Vec<String> = store
        .sites()
        .unwrap()
        .iter()
        .map(|row| match row.spec.build(row.website_id, defaults) {
            Ok(site) => format!("{:?}", site.more().retry_pause),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        })
        .collect();
    assert_eq!(
        results,
        [
            "settings: colour is no setting of a site",
            "settings: retry_pause must be seconds from 0 to 60",
            "settings: the whole is no readable JSON object",
            "250ms",
        ]
    );
    assert!(set("d", "[1]").is_err(), "the table takes objects only");
}

#[test]
fn sites_are_added_by_name_and_read_as_written() {
    let (database, store) = migrated("sites");
    database.client().batch_execute("DELETE FROM website").unwrap();
    let full = SiteSpec {
        interval: Some(30),
        timeout: Some(3),
        regex: Some("a+".to_owned()),
        method: Some("POST".to_owned()),
        headers: vec![("B".into(), "1".into()), ("A".into(), "2".into()), ("B".into(), "3".into())],
        body: Some("{}".to_owned()),
        expected_status: Some("200-299,404".to_owned()),
        settings: settings(&[
            ("retries", "2"),
            ("retry_pause", "0.5"),
            ("tls_verify", "no"),
            ("follow_redirects", "none"),
            ("password", "ä\"{secret:x}"),
            ("expected_headers", "Server: ^nginx"),
        ]),
        ..spec("full")
    };
    let added = store.add_missing_sites(&[spec("plain"), full.clone(), spec("plain")]).unwrap();
    assert_eq!(added, ["plain", "full"]);
    let rows = store.sites().unwrap();
    let specs: Vec<&SiteSpec> = rows.iter().map(|row| &row.spec).collect();
    assert_eq!(specs, [&spec("plain"), &full]);
    assert!(rows.iter().all(|row| row.status == SiteStatus::Active));

    database
        .client()
        .batch_execute(
            "UPDATE website SET status = 'paused' WHERE name = 'plain'; \
             UPDATE website SET headers = '{\"X\": 1}', interval_seconds = -5 WHERE name = 'full'",
        )
        .unwrap();
    let before = store.change_counter().unwrap();
    assert!(store.add_missing_sites(&[spec("plain")]).unwrap().is_empty());
    assert_eq!(store.change_counter().unwrap(), before);
    let rows = store.sites().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].spec.headers, [("X".to_owned(), "1".to_owned())]);
    assert_eq!(rows[0].spec.interval, Some(0));
}

#[test]
fn a_long_list_is_read_in_pages() {
    let (database, store) = migrated("pages");
    database.client().batch_execute("DELETE FROM website").unwrap();
    let specs: Vec<SiteSpec> = (0..25).map(|n| spec(&format!("p{n}"))).collect();
    store.add_missing_sites(&specs).unwrap();
    let paused = "UPDATE website SET status = 'paused' WHERE name IN ('p3', 'p24')";
    database.client().batch_execute(paused).unwrap();
    let (mut after, mut found) = (i64::MIN, Vec::new());
    loop {
        let page = store.sites_after(after, 10).unwrap();
        let Some(last) = page.last() else { break };
        after = last.website_id;
        found.extend(page);
    }
    assert_eq!(found.len(), 23);
    assert_eq!(found, store.sites().unwrap());
}

#[test]
fn every_kind_of_change_counts_and_touches_its_row() {
    let (database, store) = migrated("counter");
    let mut client = database.client();
    let mut last = store.change_counter().unwrap();
    for change in [
        "INSERT INTO website (name, url) VALUES ('a', 'http://a/')",
        "UPDATE website SET url = 'http://b/' WHERE name = 'a'",
        "DELETE FROM website WHERE name = 'a'",
        "TRUNCATE website",
    ] {
        client.batch_execute(change).unwrap();
        let counter = store.change_counter().unwrap();
        assert!(counter > last, "{change}");
        last = counter;
    }
    client.batch_execute("INSERT INTO website (name, url) VALUES ('a', 'http://a/')").unwrap();
    client.batch_execute("UPDATE website SET url = 'http://b/'").unwrap();
    let question = "SELECT updated_at > \"timestamp\" FROM website";
    assert!(client.query_one(question, &[]).unwrap().get::<_, bool>(0));
    let bad = client.batch_execute("UPDATE website SET status = 'gone'");
    assert!(bad.is_err());
}

#[test]
fn a_listener_sees_changes_and_heals() {
    let (database, store) = migrated("listener");
    let mut listener = SiteListener::start(&store);
    assert!(listener.wait(Duration::ZERO).unwrap(), "the first wait tells to read everything");
    assert!(!listener.wait(Duration::ZERO).unwrap());

    let change = "UPDATE website SET url = url || '?' WHERE name = 'Example'";
    let long = Duration::from_secs(15);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let start = webmon::runtime::now().mono;
            (listener.wait(long).unwrap(), webmon::runtime::now().mono - start)
        });
        eventually("the listener listens", || {
            let question = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
                            AND query LIKE '%website_change%' AND state = 'idle'";
            database.client().query_one(question, &[])
        });
        database.client().batch_execute(change).unwrap();
        let (changed, took) = waiting.join().unwrap();
        assert!(changed && took < long, "{changed} after {took:?}");
    });
    assert!(!listener.wait(Duration::ZERO).unwrap());

    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'webmon-test'";
    let killed: i64 = database.client().query_one(kill, &[]).unwrap().get(0);
    assert!(killed >= 1);
    eventually("the listener heals", || match listener.wait(Duration::from_millis(100)) {
        Ok(true) => Ok(()),
        other => Err(other),
    });
    database.client().batch_execute(change).unwrap();
    let seen: Result<bool, StoreError> = listener.wait(long);
    assert_eq!(seen, Ok(true));
}
