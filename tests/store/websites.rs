//! Sites one by one and many at once, as operators and programs change them.

use std::sync::Barrier;

use webmon::runtime::{Stop, Threads};
use webmon::site::{SettingValue, SiteSpec};
use webmon::store::{
    Change, Changed, Created, ImportMode, ImportSite, Imported, SiteFilter, SiteRow, SiteStatus,
    Store,
};

use super::migrated;
use super::support::CAP;
use super::support::services::TestDatabase;

fn spec(name: &str) -> SiteSpec {
    let url = format!("http://{name}.example/");
    SiteSpec { name: name.to_owned(), url, ..SiteSpec::default() }
}

fn empty(prefix: &str) -> (TestDatabase, Store) {
    let (database, store) = migrated(prefix);
    database.client().batch_execute("TRUNCATE website RESTART IDENTITY").unwrap();
    (database, store)
}

fn create(store: &Store, spec: &SiteSpec) -> SiteRow {
    match store.create_site(spec, SiteStatus::Active).unwrap() {
        Created::Done(row) => *row,
        other => panic!("{other:?}"),
    }
}

fn change(store: &Store, id: i64, revision: Option<i64>, status: SiteStatus) -> Changed {
    store.change_site(id, revision, &Change { spec: None, status: Some(status) }).unwrap()
}

fn found(store: &Store, keyword: &str, statuses: &[SiteStatus]) -> Vec<String> {
    let filter = SiteFilter {
        keyword: keyword.to_owned(),
        statuses: statuses.to_vec(),
        after: 0,
        limit: 100,
    };
    store.find_sites(&filter).unwrap().into_iter().map(|row| row.spec.name).collect()
}

#[test]
fn sites_are_found_by_page_keyword_status_and_url() {
    let (_database, store) = empty("find");
    for name in ["a%b", "AxB", "c", "d"] {
        let url = format!("http://{}.example/", name.replace('%', "-"));
        create(&store, &SiteSpec { url, ..spec(name) });
    }
    change(&store, 3, None, SiteStatus::Paused);
    change(&store, 4, None, SiteStatus::Deleted);
    assert_eq!(found(&store, "", &[]), ["a%b", "AxB", "c"]);
    assert_eq!(found(&store, "A%B", &[]), ["a%b"], "a keyword is no pattern");
    assert_eq!(found(&store, "axb.EXAMPLE", &[]), ["AxB"], "in the URL, whatever the case");
    assert_eq!(found(&store, "", &[SiteStatus::Paused]), ["c"]);
    assert_eq!(found(&store, "", &[SiteStatus::Deleted, SiteStatus::Paused]), ["c", "d"]);
    let page = |after, limit| {
        let filter = SiteFilter { keyword: String::new(), statuses: Vec::new(), after, limit };
        store.find_sites(&filter).unwrap().iter().map(|row| row.website_id).collect::<Vec<_>>()
    };
    assert_eq!((page(0, 2), page(2, 2)), (vec![1, 2], vec![3]));
    let urls = ["http://c.example/", "http://d.example/"].map(str::to_owned);
    let at: Vec<i64> = store.sites_at(&urls, 10).unwrap().iter().map(|r| r.website_id).collect();
    assert_eq!(at, [3], "deleted ones are not at their URL");
    assert_eq!(store.site_named("d").unwrap().unwrap().status, SiteStatus::Deleted);
    assert_eq!((store.site(9).unwrap(), store.site_named("axb").unwrap()), (None, None));
}

#[test]
fn a_name_is_one_sites_and_a_deleted_one_comes_back() {
    let (_database, store) = empty("names");
    let first = create(&store, &spec("a"));
    let other = SiteSpec { interval: Some(60), ..spec("a") };
    let taken = store.create_site(&other, SiteStatus::Active).unwrap();
    assert_eq!(taken, Created::NameTaken(first.website_id));
    change(&store, first.website_id, None, SiteStatus::Deleted);
    let Created::Done(back) = store.create_site(&other, SiteStatus::Paused).unwrap() else {
        panic!("it is free again")
    };
    assert_eq!((back.website_id, back.status), (first.website_id, SiteStatus::Paused));
    assert_eq!(back.spec, other, "nothing of before is left");
    assert!(back.timestamp > first.timestamp && back.revision > first.revision);
}

#[test]
fn of_many_who_add_one_name_one_does() {
    let (_database, store) = empty("race");
    let barrier = std::sync::Arc::new(Barrier::new(4));
    let results = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut threads = Threads::new(Stop::new());
    for n in 0..4 {
        let (store, barrier, results) = (store.clone(), barrier.clone(), results.clone());
        threads
            .spawn(&format!("add-{n}"), move || {
                barrier.wait();
                let created = store.create_site(&spec("a"), SiteStatus::Active).unwrap();
                results.lock().unwrap().push(created);
            })
            .unwrap();
    }
    assert!(threads.join(CAP).is_empty(), "all have ended");
    let results = results.lock().unwrap();
    let done = results.iter().filter(|created| matches!(created, Created::Done(_))).count();
    let id = store.site_named("a").unwrap().unwrap().website_id;
    let taken = results.iter().filter(|created| **created == Created::NameTaken(id)).count();
    assert_eq!((done, taken), (1, 3), "{results:?}");
}

#[test]
fn a_change_is_of_what_was_read() {
    let (_database, store) = empty("change");
    let (a, b) = (create(&store, &spec("a")), create(&store, &spec("b")));
    let counter = store.change_counter().unwrap();
    let same = Change { spec: Some(a.spec.clone()), status: Some(SiteStatus::Active) };
    let unchanged = store.change_site(a.website_id, Some(a.revision), &same).unwrap();
    assert_eq!(unchanged, Changed::Done(Box::new(a.clone())));
    assert_eq!(store.change_counter().unwrap(), counter, "nobody is woken for nothing");

    let longer =
        Change { spec: Some(SiteSpec { interval: Some(60), ..a.spec.clone() }), status: None };
    let Changed::Done(now) = store.change_site(a.website_id, Some(a.revision), &longer).unwrap()
    else {
        panic!("it was as it was read")
    };
    assert_eq!((now.spec.interval, now.status), (Some(60), SiteStatus::Active));
    assert!(store.change_counter().unwrap() > counter && now.revision > a.revision);
    let stale = store.change_site(a.website_id, Some(a.revision), &same).unwrap();
    assert_eq!(stale, Changed::Stale(now.revision));
    let renamed = Change { spec: Some(spec("b")), status: None };
    let taken = store.change_site(a.website_id, None, &renamed).unwrap();
    assert_eq!(taken, Changed::NameTaken(b.website_id));
    change(&store, b.website_id, None, SiteStatus::Deleted);
    assert_eq!(change(&store, b.website_id, None, SiteStatus::Active), Changed::NotFound);
    assert_eq!(change(&store, 99, None, SiteStatus::Paused), Changed::NotFound);
    assert_eq!(store.site(a.website_id).unwrap().unwrap(), *now);
}

#[test]
fn a_deleted_site_leaves_its_name_to_another() {
    let (_database, store) = empty("rename");
    let long = "é".repeat(100);
    let (a, gone) = (create(&store, &spec("a")), create(&store, &spec("gone")));
    let old = create(&store, &SiteSpec { name: long.clone(), ..spec("old") });
    for row in [&gone, &old] {
        change(&store, row.website_id, None, SiteStatus::Deleted);
    }
    for (name, now) in [
        ("gone", format!("gone (deleted {})", gone.website_id)),
        // A name has at most 200 bytes.
        (&*long, format!("{} (deleted {})", "é".repeat(94), old.website_id)),
    ] {
        let wanted = SiteSpec { name: name.to_owned(), ..spec("a") };
        let renamed = Change { spec: Some(wanted.clone()), status: None };
        let Changed::Done(row) = store.change_site(a.website_id, None, &renamed).unwrap() else {
            panic!("{name} is free")
        };
        assert_eq!((row.website_id, row.spec), (a.website_id, wanted));
        assert_eq!(store.site_named(&now).unwrap().unwrap().status, SiteStatus::Deleted, "{now}");
    }
}

#[test]
fn user_and_password_are_not_searched() {
    let (database, store) = empty("oracle");
    let urls = [
        "https://me:hunter2@a.example/",
        "http:///me:hunter2@a.example/x",
        r"http:\\me:hunter2@a.example/x",
        "http:/\t/me:hunter2@a.example/x",
        "http:me:hunter2@a.example/x",
        "https://a.example/@hunter3",
    ];
    for (n, url) in urls.iter().enumerate() {
        let spec = SiteSpec { url: (*url).to_owned(), ..spec(&format!("site {n}")) };
        create(&store, &spec);
        let public: String = database
            .client()
            .query_one("SELECT website_public_url($1)", &[&spec.url])
            .unwrap()
            .get(0);
        assert_eq!(public, webmon::wire::masks::public_url(url), "here as there");
    }
    assert!(found(&store, "hunter2", &[]).is_empty());
    assert!(found(&store, "me:", &[]).is_empty());
    assert_eq!(found(&store, "@HUNTER3", &[]), ["site 5"], "a path is searched");
    assert_eq!(found(&store, "a.example", &[]).len(), urls.len());
    let at = |url: &str| store.sites_at(&[url.to_owned()], 10).unwrap().len();
    for url in ["https://a.example/", "https://me:********@a.example/", "https://x:y@a.example/"] {
        assert_eq!(at(url), 1, "{url}");
    }
}

fn import(store: &Store, specs: &[SiteSpec], mode: ImportMode) -> Vec<Imported> {
    let site = |spec: &SiteSpec| ImportSite { spec: spec.clone(), status: None };
    store.import_sites(&specs.iter().map(site).collect::<Vec<_>>(), mode).unwrap()
}

#[test]
fn an_import_adds_leaves_and_changes() {
    let (_database, store) = empty("import");
    let full = SiteSpec {
        interval: Some(60),
        headers: vec![("B".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())],
        body: Some("x".to_owned()),
        ..spec("full")
    };
    let specs = [spec("a"), full.clone(), spec("c")];
    assert_eq!(import(&store, &specs, ImportMode::DryRun), vec![Imported::Added(None); 3]);
    assert!(found(&store, "", &[]).is_empty(), "a dry run writes nothing");
    let added: Vec<Imported> = (1..=3).map(|id| Imported::Added(Some(id))).collect();
    assert_eq!(import(&store, &specs, ImportMode::Add), added, "ids in the order of the file");
    assert_eq!(store.site(2).unwrap().unwrap().spec, full);

    // The same again, with empty for absent: nobody is woken.
    let counter = store.change_counter().unwrap();
    let mut empties = specs.clone();
    empties[0].body = Some(String::new());
    empties[0].settings.set("username", SettingValue::Text(String::new())).unwrap();
    for mode in [ImportMode::DryRun, ImportMode::Add, ImportMode::Update] {
        let unchanged: Vec<Imported> = (1..=3).map(Imported::Unchanged).collect();
        assert_eq!(import(&store, &empties, mode), unchanged);
    }
    assert_eq!(store.change_counter().unwrap(), counter);

    // Others: left unless they are to be changed; the status is kept where none is said.
    change(&store, 1, None, SiteStatus::Paused);
    change(&store, 3, None, SiteStatus::Deleted);
    let mut others = specs.clone();
    others[0].regex = Some("x".to_owned());
    others[1].headers.reverse();
    let differs = |id, key: &str| Imported::Differs(id, vec![key.to_owned()]);
    let outcomes = |third| vec![differs(1, "regex"), differs(2, "headers"), third];
    let dry = import(&store, &others, ImportMode::DryRun);
    assert_eq!(dry, outcomes(Imported::Added(None)));
    let left = import(&store, &others, ImportMode::Add);
    assert_eq!(left, outcomes(Imported::Added(Some(3))), "a deleted one comes back");
    assert_eq!(store.site(1).unwrap().unwrap().spec, specs[0]);
    let changed = import(&store, &others, ImportMode::Update);
    assert_eq!(changed, outcomes(Imported::Unchanged(3)));
    let first = store.site(1).unwrap().unwrap();
    assert_eq!((&first.spec, first.status), (&others[0], SiteStatus::Paused));
    assert_eq!(store.site(2).unwrap().unwrap().spec, others[1]);
    let resumed = ImportSite { spec: others[0].clone(), status: Some(SiteStatus::Active) };
    let resumed = store.import_sites(&[resumed], ImportMode::Update).unwrap();
    assert_eq!(resumed, [differs(1, "status")]);
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let (database, store) = empty("atomic");
    database.client().batch_execute("ALTER TABLE website ADD CHECK (name <> 'bad')").unwrap();
    let site = |name: &str| ImportSite { spec: spec(name), status: None };
    let sites = [site("good"), site("bad")];
    store.import_sites(&sites, ImportMode::Add).unwrap_err();
    assert!(found(&store, "", &[]).is_empty());
}

#[test]
fn names_that_are_nearly_meant_are_found() {
    let (_database, store) = empty("alike");
    for name in ["Shop", "Shopping", "Front page", "Gone shop"] {
        create(&store, &spec(name));
    }
    change(&store, 4, None, SiteStatus::Deleted);
    assert_eq!(store.names_like("Shop").unwrap()[0], "Shop");
    let alike = store.names_like("Shap").unwrap();
    assert_eq!(alike[0], "Shop", "{alike:?}");
    assert!(!alike.contains(&"Gone shop".to_owned()), "{alike:?}");
    assert!(store.names_like("zzzz").unwrap().is_empty());
}
