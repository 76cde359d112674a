//! Migrations, samples, dropping, passwords.

use std::sync::Barrier;

use webmon::store::{AHEAD_DAYS, BACK_DAYS, ErrorKind, Store};

use super::support::services::TestDatabase;
use super::{count, migrated};

const FILES: [&str; 8] = [
    "001_website.sql",
    "002_check_entry.sql",
    "003_rejected_message.sql",
    "004_sample_sites.sql",
    "005_site_settings.sql",
    "006_rollups.sql",
    "007_rejected_message.sql",
    "008_api.sql",
];

#[test]
fn a_second_migration_does_nothing() {
    let database = TestDatabase::create("migrate");
    let store = Store::new(database.options()).unwrap();
    assert_eq!(store.pending_migrations().unwrap(), FILES);
    assert_eq!(count(&database, "pg_class WHERE relname = 'schema_migration'"), 0);
    assert_eq!(store.migrate().unwrap(), FILES);
    assert!(store.migrate().unwrap().is_empty());
    assert!(store.pending_migrations().unwrap().is_empty());
    assert_eq!(count(&database, "schema_migration"), 8);
    let days = i64::from(BACK_DAYS + AHEAD_DAYS) + 1;
    assert_eq!(count(&database, "pg_inherits WHERE inhparent = 'check_entry'::regclass"), days);
}

#[test]
fn concurrent_migrations_apply_once() {
    let database = TestDatabase::create("migrate_all");
    let barrier = Barrier::new(8);
    let applied: Vec<Vec<String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::new(database.options()).unwrap();
                    barrier.wait();
                    store.migrate().unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(applied.iter().filter(|names| *names == &FILES).count(), 1, "{applied:?}");
    assert_eq!(applied.iter().filter(|names| names.is_empty()).count(), 7);
}

#[test]
fn an_edited_file_is_refused_by_name() {
    let (database, store) = migrated("edited");
    let sql = "UPDATE schema_migration SET checksum = 'abc' WHERE version = 2 RETURNING 1";
    database.client().query_one(sql, &[]).unwrap();
    for error in [store.migrate().unwrap_err(), store.pending_migrations().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Migration);
        let text = error.to_string();
        assert!(text.contains("sql/002_check_entry.sql was edited"), "{text}");
        assert!(text.contains("the applied one's abc; restore the file"), "{text}");
    }
}

#[test]
fn a_newer_database_is_refused() {
    let (database, store) = migrated("newer");
    let sql = "INSERT INTO schema_migration VALUES (999, '999_later.sql', 'x') RETURNING 1";
    database.client().query_one(sql, &[]).unwrap();
    let error = store.migrate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    let expected = "has version 999 (999_later.sql), this program knows 8 at most: install";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn dropped_and_made_again() {
    let (database, store) = migrated("dropped");
    database.client().batch_execute("CREATE TABLE check_entry_y2001m01d01 (a int)").unwrap();
    store.drop_everything().unwrap();
    store.drop_everything().unwrap();
    // Only the extension's own things are left.
    assert_eq!(count(&database, "pg_class WHERE relnamespace = 'public'::regnamespace"), 0);
    let functions = "pg_proc p WHERE pronamespace = 'public'::regnamespace AND NOT EXISTS \
                     (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')";
    assert_eq!(count(&database, functions), 0);
    assert_eq!(store.migrate().unwrap(), FILES);
    assert!(count(&database, "website") > 0);
}

#[test]
fn a_table_that_is_not_there_is_named_with_the_cure() {
    let database = TestDatabase::create("absent");
    let store = Store::new(database.options()).unwrap();
    let error = store.sites().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().ends_with("(42P01); run 'webmon migrate'"), "{error}");
}

#[test]
fn samples_come_once_and_only_into_an_empty_table() {
    let (database, store) = migrated("samples");
    let names: Vec<String> = store.sites().unwrap().into_iter().map(|r| r.spec.name).collect();
    assert!(names.contains(&"webmon producer".to_owned()), "{names:?}");
    assert!(store.sites().unwrap().iter().any(|row| row.spec.regex.is_some()));

    database.client().batch_execute("DELETE FROM website").unwrap();
    assert!(store.migrate().unwrap().is_empty());
    assert_eq!(count(&database, "website"), 0);

    let add = "INSERT INTO website (name, url) VALUES ('a', 'http://a/'); \
               DELETE FROM schema_migration WHERE version = 4";
    database.client().batch_execute(add).unwrap();
    assert_eq!(store.migrate().unwrap(), ["004_sample_sites.sql"]);
    assert_eq!(count(&database, "website"), 1);
}

#[test]
fn without_the_right_to_the_extension_the_cure_is_named() {
    let database = TestDatabase::create("extension");
    let role = super::support::services::unique("role");
    let make =
        format!("CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO {role}");
    database.client().batch_execute(&make).unwrap();
    let mut options = database.options();
    (options.user, options.password) = (role.clone(), Some("x".into()));
    let error = Store::new(options).unwrap().migrate().unwrap_err();
    let clean = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    database.client().batch_execute(&clean).unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let text = error.to_string();
    assert!(text.contains("sql/001_website.sql") && text.contains("CREATE EXTENSION"), "{text}");
}

#[test]
fn passwords_are_verified_by_connecting() {
    let database = TestDatabase::create("password");
    let store = Store::new(database.options()).unwrap();
    assert!(store.verify_password(&database.password.clone().into()).unwrap());
    assert!(!store.verify_password(&"wrong".into()).unwrap());

    // Nothing to compare with: the server decides.
    let mut options = database.options();
    options.password = None;
    let store = Store::new(options).unwrap();
    assert!(store.verify_password(&database.password.clone().into()).unwrap());
    assert!(!store.verify_password(&"wrong".into()).unwrap());

    // The configured password is wrong: equal is not enough.
    let mut options = database.options();
    options.password = Some("wrong".into());
    assert!(!Store::new(options).unwrap().verify_password(&"wrong".into()).unwrap());
}

#[test]
fn a_database_that_cannot_hold_every_text_is_refused() {
    let database = TestDatabase::create("encoding");
    let name = super::support::services::unique("latin");
    let mut client = database.client();
    let make = format!(
        "CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    client.batch_execute(&make).unwrap();
    let mut options = database.options();
    options.db = name.clone();
    let error = Store::new(options).unwrap().migrate().unwrap_err();
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).unwrap();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.message().contains("the database's encoding is LATIN1"), "{error}");
}
