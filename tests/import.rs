//! `webmon sites import` and `export` as a user types them.
//!
//! `tests/data/import/NAME` must become what `NAME.expected` says: the report and the sites.
//! `WEBMON_UPDATE_GOLDEN=1` writes it anew.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use support::daemon::Lab;
use webmon::site::{METHODS, SETTINGS, SettingKind, SettingValue, SiteDefaults, SiteSpec};
use webmon::store::{ImportMode, ImportSite, SiteStatus, Store};

/// Sites of the round trips.
const SITES: usize = 300;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lab(prefix: &str) -> Lab {
    let lab = Lab::new(prefix);
    assert!(lab.run(&["migrate"]).status.success());
    clear(&lab);
    lab
}

fn clear(lab: &Lab) {
    lab.database.client().batch_execute("TRUNCATE website RESTART IDENTITY").unwrap();
}

/// Runs `webmon sites …`; its exit code must be this.
fn run(lab: &Lab, args: &[&str], code: i32) -> Output {
    let output = lab.run(&[&["sites"], args].concat());
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    output
}

fn json(lab: &Lab, args: &[&str], code: i32) -> Value {
    let output = run(lab, &[args, &["--json"]].concat(), code);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// The names of the sites that a report has as added.
fn added(report: &Value) -> Vec<&str> {
    let sites = report["added"].as_array().unwrap_or_else(|| panic!("{report}"));
    sites.iter().map(|site| site["name"].as_str().unwrap()).collect()
}

fn file(lab: &Lab, name: &str, content: &str) -> String {
    let path = lab.dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name)
}

/// Imports a file of another tool; report and sites must be those of the golden file.
fn check(name: &str) {
    let lab = lab("foreign");
    let path = data(name).display().to_string();
    let dry = json(&lab, &["import", &path, "--dry-run"], 0);
    assert_eq!(dry["imported"], false);
    assert_eq!(json(&lab, &["list"], 0)["items"].as_array().unwrap().len(), 0, "a dry run");
    let mut report = json(&lab, &["import", &path], 0);
    assert_eq!((added(&dry), &dry["refused"]), (added(&report), &report["refused"]));
    let with_id = |report: &Value| {
        report["added"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|site| site["website_id"].is_i64())
            .count()
    };
    assert_eq!((with_id(&dry), with_id(&report)), (0, added(&report).len()));
    report.as_object_mut().unwrap().retain(|key, _| key != "dry_run");
    let mut found: Vec<String> = Vec::new();
    for key in ["refused", "not_translated"] {
        found.push(format!("{key}:"));
        found.extend(report[key].as_array().unwrap().iter().map(|item| format!("  {item}")));
    }
    found.push(text(&run(&lab, &["export"], 0).stdout));
    let found = found.join("\n");
    let golden = data(&format!("{name}.expected"));
    if std::env::var_os("WEBMON_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&golden).unwrap_or_default(), "{name}");
    // What was imported is there, and the same.
    let again = json(&lab, &["import", &path, "--update"], 0);
    assert!(added(&again).is_empty());
    assert_eq!(again["unchanged"], added(&report).len());
}

#[test]
fn gatus_endpoints_become_sites() {
    check("gatus.yaml");
}

#[test]
fn prometheus_targets_become_sites() {
    check("file_sd.yaml");
    check("file_sd.json");
}

#[test]
fn uptime_kuma_monitors_become_sites() {
    check("kuma.json");
}

#[test]
fn sites_are_added_changed_and_left() {
    let lab = lab("own");
    let path = file(
        &lab,
        "config.yaml.txt",
        "database: {host: nowhere}\nwebsites:\n- {name: a, url: 'http://a.example/', regex: \"x$$\"}\n\
         - name: b\n  url: http://b.example/\n  headers: [[Accept, a], [Accept, b]]\n  status: paused\n",
    );
    let out = text(&run(&lab, &["import", &path], 0).stdout);
    assert_eq!(out, "2 added, 0 differ and are left, 0 unchanged, 0 refused\n");
    let items = json(&lab, &["list"], 0)["items"].clone();
    assert_eq!((&items[0]["regex"], &items[0]["status"]), (&"x$".into(), &"active".into()));
    assert_eq!(items[1]["status"], "paused");
    assert_eq!(items[1]["headers"], serde_json::json!([["Accept", "a"], ["Accept", "b"]]));

    // CSV, a site that differs: left, said, and changed when that is asked for.
    let csv = "name,url,interval,expected_headers,status\n\
               a,http://a.example/,60,\"{\"\"Server\"\": \"\"x,y\"\"}\",paused\n\
               \"c, d\",http://c.example/,,,\n";
    let path = file(&lab, "sites.csv", csv);
    let dry = text(&run(&lab, &["import", &path, "--dry-run"], 0).stdout);
    assert_eq!(
        dry,
        "+ c, d\n! a (1): interval, regex, expected_headers, status\n\
         1 would be added, 1 differ and are left, 0 unchanged, 0 refused\n"
    );
    let left = run(&lab, &["import", &path], 0);
    assert!(text(&left.stdout).starts_with("! a (1): "), "{}", text(&left.stdout));
    assert!(text(&left.stderr).contains("add --update"));
    let report = json(&lab, &["import", &path, "--update"], 0);
    assert_eq!(report["changed"][0]["website_id"], 1);
    assert_eq!((added(&report).len(), &report["unchanged"]), (0, &1.into()));
    let shown = json(&lab, &["show", "a"], 0);
    assert_eq!((&shown["interval"], &shown["status"]), (&60.into(), &"paused".into()));
    assert_eq!(shown["expected_headers"]["Server"], "x,y");

    // One that was removed comes back with its id; a format that can't be told is asked for.
    run(&lab, &["remove", "c, d", "--yes"], 0);
    assert_eq!(added(&json(&lab, &["import", &path], 0)), ["c, d"]);
    let again = json(&lab, &["show", "c, d"], 0);
    assert_eq!((&again["status"], &again["website_id"]), (&"active".into(), &3.into()));
    let path = file(&lab, "what.txt", "hello\n");
    assert!(text(&run(&lab, &["import", &path], 2).stderr).contains("add --format"));
    assert!(text(&run(&lab, &["import", "nowhere.csv"], 2).stderr).contains("no such file"));
}

#[test]
fn all_faults_are_listed_and_nothing_is_imported() {
    let lab = lab("faulty");
    let yaml = "- {name: good, url: 'http://a.example/'}\n\
                - {name: bad, url: 'ftp://b.example/', interval: 3}\n\
                - {name: good, url: 'http://c.example/', status: asleep}\n\
                - {name: mask, url: 'http://u:********@d.example/', username: u, password: '********'}\n\
                - 7\n";
    let path = file(&lab, "sites.yaml", yaml);
    let refused = run(&lab, &["import", &path], 2);
    let said = text(&refused.stderr);
    for part in [
        "entry 2, line 2, 'bad': url: 'ftp://b.example/' has scheme 'ftp'",
        "entry 2, line 2, 'bad': interval: '3' is out of range",
        "entry 3, line 3, 'good': name: ",
        "entry 3, line 3, 'good': status: must be active or paused",
        "entry 4, 'mask': url: has ********",
        "entry 4, 'mask': password: has ********",
        "entry 5, line 5: ",
        "4 of 5 entries are faulty; nothing was imported",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(refused.stdout.is_empty());
    assert_eq!(json(&lab, &["list"], 0)["items"].as_array().unwrap().len(), 0);
    let report = json(&lab, &["import", &path, "--skip-faulty"], 0);
    assert_eq!(added(&report), ["good"]);
    assert_eq!(
        (&report["added"][0]["entry"], &report["added"][0]["website_id"]),
        (&1.into(), &1.into())
    );
    assert!(report["refused"].as_array().unwrap().len() >= 6, "{report}");

    let csv = "name,url,interval,retries,headers,tls_verify\na,http://a/,soon,9,[1],perhaps\nb\n";
    let path = file(&lab, "sites.csv", csv);
    let said = text(&run(&lab, &["import", &path], 2).stderr);
    for part in [
        "entry 1, line 2, 'a': interval: must be whole seconds",
        "entry 1, line 2, 'a': retries: must be a whole number from 0 to 5",
        "entry 1, line 2, 'a': headers: ",
        "entry 1, line 2, 'a': tls_verify: must be true or false",
        "entry 2, line 3, 'b': entry: has 1 cells",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let path = file(&lab, "sites.csv", "name,ulr\na,http://a/\n");
    let said = text(&run(&lab, &["import", &path], 2).stderr);
    assert!(said.contains("did you mean 'url'?") && said.contains("has no column url"), "{said}");
}

/// Texts that files get wrong: quotes, references, what looks like another type.
fn word() -> impl Strategy<Value = String> {
    proptest::prop_oneof![
        "[a-zA-Z0-9 .,:;#'\"{}$%&*!?|<>=@`~-]{1,24}",
        "[\\PC]{1,12}",
        proptest::sample::select(vec![
            "no", "~", "null", "1e3", "0x1F", "- a", "${X}", "$$", " a "
        ])
        .prop_map(str::to_owned),
    ]
}

fn lines() -> impl Strategy<Value = String> {
    proptest::collection::vec(word(), 1..4).prop_map(|lines| lines.join("\n"))
}

fn pairs(names: &'static str) -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::vec((names, word()), 1..4)
}

fn setting(kind: SettingKind) -> proptest::strategy::BoxedStrategy<SettingValue> {
    match kind {
        SettingKind::Text | SettingKind::Secret => word().prop_map(SettingValue::Text).boxed(),
        SettingKind::Choice(words) => proptest::sample::select(words)
            .prop_map(|word| SettingValue::Text((*word).to_owned()))
            .boxed(),
        SettingKind::Whole(min, max) => (min..=max).prop_map(SettingValue::Whole).boxed(),
        SettingKind::Seconds(min, max) => (min..=max).prop_map(SettingValue::Millis).boxed(),
        SettingKind::Flag => proptest::bool::ANY.prop_map(SettingValue::Flag).boxed(),
        SettingKind::Map => pairs("[A-Z][a-z]{1,6}")
            .prop_map(|mut pairs| {
                pairs.sort();
                pairs.dedup_by(|a, b| a.0 == b.0);
                SettingValue::Map(pairs)
            })
            .boxed(),
    }
}

fn site() -> impl Strategy<Value = ImportSite> {
    use proptest::option::of;
    let common = (word(), "[a-z]{1,8}", of(word()), of(lines()), of(5_u32..=86_400));
    let method = of(proptest::sample::select(&METHODS[..]));
    let settings: Vec<_> =
        SETTINGS.iter().map(|row| proptest::option::weighted(0.15, setting(row.kind))).collect();
    let headers = proptest::option::weighted(0.5, pairs("[A-Za-z-]{1,8}"));
    (common, method, settings, headers, proptest::bool::ANY).prop_map(
        |((name, path, regex, body, interval), method, settings, headers, is_paused)| {
            let mut spec = SiteSpec {
                name,
                url: format!("http://u:p%40@{path}.example/{path}?a=${{X}}&b=1#c"),
                interval,
                regex,
                body,
                method: method.map(str::to_owned),
                headers: headers.unwrap_or_default(),
                ..SiteSpec::default()
            };
            for (row, value) in SETTINGS.iter().zip(settings) {
                if let Some(value) = value {
                    spec.settings.set(row.name, value).unwrap();
                }
            }
            let status = if is_paused { SiteStatus::Paused } else { SiteStatus::Active };
            ImportSite { spec, status: Some(status) }
        },
    )
}

/// Many different sites, all good.
fn sites() -> Vec<ImportSite> {
    let defaults = SiteDefaults { interval: 30, timeout: 10 };
    // A seed of its own: the same sites each time.
    let mut runner = TestRunner::deterministic();
    let mut sites: Vec<ImportSite> = Vec::new();
    let mut tries = 0;
    while sites.len() < SITES {
        tries += 1;
        assert!(tries < 100 * SITES, "hardly any site is good: {}", sites.len());
        let site = site().new_tree(&mut runner).unwrap().current();
        let is_new = sites.iter().all(|other| other.spec.name != site.spec.name);
        if is_new && site.spec.faults(defaults).is_empty() {
            sites.push(site);
        }
    }
    sites
}

#[test]
fn an_export_reads_back_to_the_same() {
    let lab = lab("round");
    let sites = sites();
    let store = Store::new(lab.database.options()).unwrap();
    let different = sites.iter().filter(|site| !site.spec.settings.is_empty()).count();
    assert!(different > SITES / 4, "{different} sites with settings");
    store.import_sites(&sites, ImportMode::Add).unwrap();
    let path = lab.dir.path().join("export").display().to_string();
    for format in ["yaml", "csv", "json"] {
        let first = run(&lab, &["export", "--format", format], 0);
        std::fs::write(&path, &first.stdout).unwrap();
        // Over the same: nothing to do.
        let counter: i64 = lab.query("SELECT counter FROM website_change").unwrap();
        let same = json(&lab, &["import", &path, "--format", format, "--update"], 0);
        assert_eq!(same["unchanged"], SITES, "{format}: {same}");
        let after: i64 = lab.query("SELECT counter FROM website_change").unwrap();
        assert_eq!(after, counter, "nobody is woken");
        // Into nothing: the same again.
        clear(&lab);
        let report = json(&lab, &["import", &path, "--format", format], 0);
        assert_eq!(added(&report).len(), SITES, "{format}: {report}");
        let again = run(&lab, &["export", "--format", format], 0);
        assert!(again.stdout == first.stdout, "{format}: byte by byte");
    }
    let rows = store.find_sites(&webmon::store::SiteFilter {
        keyword: String::new(),
        statuses: Vec::new(),
        after: 0,
        limit: 1000,
    });
    for (row, site) in rows.unwrap().iter().zip(&sites) {
        assert_eq!((&row.spec, Some(row.status)), (&site.spec, site.status));
    }
}

#[test]
fn a_file_with_secrets_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let lab = lab("secrets");
    run(&lab, &["add", "a", "http://u:hunter2@a.example/", "--set", "bearer_token=hunter3"], 0);
    let path = lab.dir.path().join("sites.yaml");
    std::fs::write(&path, "before").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let name = path.display().to_string();
    let said = text(&run(&lab, &["export", "--output", &name], 0).stderr);
    assert!(said.starts_with("1 sites written to ") && said.contains("passwords"), "{said}");
    let content = std::fs::read_to_string(&path).unwrap();
    assert!(content.contains("hunter2") && content.contains("hunter3"), "{content}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for format in ["yaml", "csv", "json"] {
        let masked = run(&lab, &["export", "--format", format, "--mask-secrets"], 0);
        assert!(!text(&masked.stdout).contains("hunter"), "{format}");
    }
    let nowhere = lab.dir.path().join("none/sites.yaml").display().to_string();
    run(&lab, &["export", "--output", &nowhere], 1);
    let left: Vec<_> = std::fs::read_dir(lab.dir.path()).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| !text(entry.file_name().as_encoded_bytes()).contains("part")));
}

#[test]
fn an_export_in_json_is_asked_for_in_two_ways_and_not_in_both_at_odds() {
    let lab = lab("as_json");
    run(&lab, &["add", "a", "http://a.example/"], 0);
    // Its own site is made by `webmon round-trip` itself.
    run(&lab, &["add", "webmon round-trip", "http://127.0.0.1/", "--paused"], 0);
    let plain = run(&lab, &["export", "--format", "json"], 0);
    assert!(text(&plain.stderr).starts_with("1 sites written"), "{}", text(&plain.stderr));
    let exported = json(&lab, &["export"], 0);
    assert_eq!(exported, serde_json::from_slice::<Value>(&plain.stdout).unwrap());
    assert_eq!(exported["websites"].as_array().unwrap().len(), 1, "{exported}");
    let odd = text(&run(&lab, &["export", "--format", "csv", "--json"], 2).stderr);
    assert!(odd.contains("--json is --format json"), "{odd}");
    for format in ["yaml", "csv"] {
        let plain = text(&run(&lab, &["export", "--format", format], 0).stdout);
        assert!(!plain.contains("round-trip"), "{plain}");
    }
}

#[test]
fn a_printed_list_is_imported_and_broken_json_is_shown_where() {
    let lab = lab("printed");
    for (name, url) in [("a", "http://a.example/"), ("b", "http://u:hunter2@b.example/")] {
        run(&lab, &["add", name, url, "--set", "retries=2"], 0);
    }
    let list = text(&run(&lab, &["list", "--keyword", "a.example", "--json"], 0).stdout);
    let path = file(&lab, "list.txt", &list);
    assert_eq!(json(&lab, &["import", &path], 0)["unchanged"], 1);
    // A mask is one fault, and not two.
    let list = text(&run(&lab, &["list", "--json"], 0).stdout);
    let path = file(&lab, "list.txt", &list);
    let report = json(&lab, &["import", &path, "--skip-faulty"], 0);
    assert_eq!(report["refused"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(report["refused"][0]["field"], "url");
    let masked = r#"[{"name": "c", "url": "http://c/", "username": "u", "password": "********"}]"#;
    let path = file(&lab, "list.txt", masked);
    let said = text(&run(&lab, &["import", &path], 2).stderr);
    assert_eq!(said.matches("refused: ").count(), 1, "{said}");
    assert!(said.contains("password: has ********"), "{said}");

    let path = file(&lab, "broken.json", "{\"websites\": [\n  {\"name\": \"a\",}\n]}");
    let said = text(&run(&lab, &["import", &path], 2).stderr);
    assert!(said.contains(": line 2, column 16: is no good JSON"), "{said}");
    let path = file(&lab, "none.json", "[]");
    let none = run(&lab, &["import", &path], 0);
    assert_eq!(text(&none.stderr), "no sites in the file\n");
    assert!(text(&none.stdout).starts_with("0 added"), "{}", text(&none.stdout));
}

#[test]
fn what_is_said_of_many_entries_is_said_once() {
    let lab = lab("many");
    let target = |n: u32| {
        let labels = format!("job: x, team: t{n}");
        format!("- {{targets: ['http://h{n}.example/'], labels: {{{labels}}}}}\n")
    };
    let path = file(&lab, "targets.yaml", &(1..=50).map(target).collect::<String>());
    let said = text(&run(&lab, &["import", &path, "--dry-run"], 0).stderr);
    let first = "entry 1, 'http://h1.example/'; entry 2, 'http://h2.example/'; \
                 entry 3, 'http://h3.example/'; …; --json has all";
    assert_eq!(
        said,
        format!(
            "not translated: job: webmon has no labels: 50 entries: {first}\n\
             not translated: team: webmon has no labels: 50 entries: {first}\n"
        )
    );
    let report = json(&lab, &["import", &path], 0);
    assert_eq!(report["not_translated"].as_array().unwrap().len(), 100);
    assert_eq!(added(&report).len(), 50);
}

#[test]
fn a_table_from_a_spreadsheet_is_read_with_all_its_faults() {
    let lab = lab("table");
    let csv = "name;url;interval;colour\na;http://a.example/;soon;red\nb;http://b.example/;60;\n";
    let path = file(&lab, "sites.csv", csv);
    for more in [&[][..], &["--skip-faulty"]] {
        let said = text(&run(&lab, &[&["import", &path], more].concat(), 2).stderr);
        for part in [
            "refused: the column colour is no key of a site",
            "refused: entry 1, line 2, 'a': interval: must be whole seconds",
            "nothing was imported",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }
    assert_eq!(json(&lab, &["list"], 0)["items"].as_array().unwrap().len(), 0);
    for separator in [";", "\t", ","] {
        let csv = ["name", "url\na", "http://a.example/?x=1\n"].join(separator);
        let path = file(&lab, "sites.txt", &csv);
        let report = json(&lab, &["import", &path, "--dry-run"], 0);
        assert_eq!(added(&report), ["a"], "{separator:?}");
    }
}
