//! What stands beside the daemons in compose.yaml, held to it without Docker: images, ports, files,
//! and that dashboards and alerts ask for what there is.
#![allow(clippy::expect_used, clippy::panic)] // helpers of tests too

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::tz::TimeZone;
use regex::Regex;
use serde_json::Value;
use support::eventually;
use support::services::{TestDatabase, unique};
use webmon::runtime::now;
use webmon::store::{Rolled, Store};
use webmon::telemetry::{Described, described, metrics};

const PROFILES: [(&str, &[&str]); 2] = [
    ("tools", &["pgadmin", "kafka-ui"]),
    ("observability", &["prometheus", "grafana-reader", "grafana"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A YAML file as JSON, merge keys resolved.
fn yaml(path: &str) -> Value {
    let mut value: serde_yaml::Value = serde_yaml::from_str(&text(path)).expect(path);
    value.apply_merge().expect("merge keys");
    serde_json::to_value(value).expect("as JSON")
}

fn services() -> Vec<(String, Value)> {
    let compose = yaml("compose.yaml");
    let services = compose["services"].as_object().expect("services");
    services.iter().map(|(name, service)| (name.clone(), service.clone())).collect()
}

fn service(name: &str) -> Value {
    services().into_iter().find(|(own, _)| own == name).expect(name).1
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|item| item.as_str().expect("a string").to_owned()).collect()
}

#[test]
fn every_image_has_a_version() {
    let tag = Regex::new(r"^[a-z0-9./-]+:v?[0-9]+(\.[0-9]+)*$").expect("a pattern");
    for (name, service) in services() {
        let image = service["image"].as_str().expect("an image");
        if image == "webmon:latest" {
            // Built here; a public image of that name would be somebody else's.
            let policy = service["pull_policy"].as_str();
            assert!(matches!(policy, Some("build" | "never")), "{name}: {policy:?}");
        } else {
            assert!(tag.is_match(image), "{name}: {image}");
        }
    }
}

#[test]
fn ports_are_published_on_loopback_alone_and_once() {
    let mut published = BTreeSet::new();
    for (name, service) in services() {
        assert_eq!(service["network_mode"], Value::Null, "{name}");
        for port in strings(&service["ports"]) {
            let rest = port.strip_prefix("127.0.0.1:${HOST_PORT_").unwrap_or_else(|| {
                panic!("{name}: {port}: neither on loopback alone nor changeable")
            });
            let (_, rest) = rest.split_once(":-").expect("a default");
            let (host, _) = rest.split_once("}:").expect("a port of the container");
            assert!(published.insert(host.to_owned()), "{name}: {host} is taken");
        }
    }
    for port in ["8080", "5050", "8081", "9090", "3000", "5432", "9092"] {
        assert!(published.contains(port), "{port}");
    }
}

#[test]
fn what_is_mounted_exists_and_cannot_be_written() {
    let compose = yaml("compose.yaml");
    let mut named = BTreeSet::new();
    for (name, service) in services() {
        for volume in strings(&service["volumes"]) {
            let mut parts = volume.split(':');
            let (from, mode) = (parts.next().expect("a source"), parts.nth(1));
            if from.starts_with("./") {
                assert!(root().join(from).exists(), "{name}: {volume}");
                assert_eq!(mode, Some("ro"), "{name}: {volume}");
            } else {
                assert!(compose["volumes"].get(from).is_some(), "{name}: {volume}");
                named.insert(from.to_owned());
            }
        }
    }
    let declared = compose["volumes"].as_object().expect("volumes");
    assert!(declared.keys().all(|volume| named.contains(volume)), "{declared:?}");
}

#[test]
fn each_service_restarts_logs_little_and_says_whether_it_is_well() {
    for (name, service) in services() {
        let profile = PROFILES.iter().find(|(_, members)| members.contains(&name.as_str()));
        let expected = profile.map_or_else(Vec::new, |(profile, _)| vec![(*profile).to_owned()]);
        assert_eq!(strings(&service["profiles"]), expected, "{name}");
        assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}");
        let options = strings(&service["security_opt"]);
        assert_eq!(options, ["no-new-privileges:true"], "{name}");
        // The one that sets up a role and ends has no state to ask for.
        if name == "grafana-reader" {
            continue;
        }
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["healthcheck"]["test"].is_array(), "{name}");
    }
}

#[test]
fn the_api_listens_without_tokens_only_because_of_the_loopback_port() {
    let api = service("api");
    assert_eq!(strings(&api["command"]), ["webmon", "api"]);
    assert_eq!(api["environment"]["WEBMON_API_LISTEN"], "0.0.0.0:8080");
    assert_eq!(strings(&api["ports"]), ["127.0.0.1:${HOST_PORT_API:-8080}:8080"]);
}

#[test]
fn pgadmin_knows_the_server_and_its_password() {
    let servers: Value =
        serde_json::from_str(&text("scripts/compose/pgadmin/servers.json")).expect("JSON");
    let (server, postgres) = (&servers["Servers"]["1"], service("postgres"));
    let environment = &postgres["environment"];
    assert_eq!(server["Host"], "postgres");
    assert_eq!(server["Username"], environment["POSTGRES_USER"]);
    assert_eq!(server["MaintenanceDB"], environment["POSTGRES_DB"]);
    // What the import refuses to do without.
    for key in ["Name", "Group", "Port"] {
        assert!(!server[key].is_null(), "{key}");
    }
    // Where the image's start script copies the file to that PGPASS_FILE names.
    let passfile = &server["ConnectionParameters"]["passfile"];
    assert_eq!(passfile, "/var/lib/pgadmin/.pgpass");
    let pgpass = yaml("compose.yaml")["configs"]["pgpass"]["content"].clone();
    let password = environment["POSTGRES_PASSWORD"].as_str().expect("a password");
    assert_eq!(pgpass.as_str(), Some(&*format!("postgres:5432:*:webmon:{password}\n")));
    let pgadmin = service("pgadmin");
    assert_eq!(pgadmin["environment"]["PGPASS_FILE"], pgadmin["configs"][0]["target"]);
}

/// Every name that a query can ask `/metrics` for, with its labels.
fn known_metrics() -> BTreeMap<String, &'static [&'static str]> {
    let text = metrics().render(None);
    let mut known = BTreeMap::new();
    for Described { name, labels, .. } in described() {
        if text.contains(&format!("# TYPE {name} histogram")) {
            let parts = ["bucket", "count", "sum"].map(|part| (format!("{name}_{part}"), labels));
            known.extend(parts);
        } else {
            known.insert(name, labels);
        }
    }
    // Those of every process.
    let words = text.lines().filter_map(|line| line.split(' ').next());
    known.extend(words.filter(|w| w.starts_with("process_")).map(|w| (w.to_owned(), &[][..])));
    assert!(known.contains_key("webmon_checks_total") && known.len() > 40, "{known:?}");
    known
}

/// Labels that Prometheus adds, and a histogram's.
const LABELS: [&str; 4] = ["job", "instance", "le", "alertstate"];

/// All metrics and labels that a query names are there; how many metrics.
fn assert_known(place: &str, query: &str) -> usize {
    let known = known_metrics();
    let pattern = |text: &str| Regex::new(text).expect("a pattern");
    let metric = pattern(r"\b(?:webmon|process)_[a-z0-9_]+");
    let used: Vec<&str> = metric.find_iter(query).map(|found| found.as_str()).collect();
    let mut labels = LABELS.to_vec();
    for name in &used {
        let own = known.get(*name);
        labels.extend(*own.unwrap_or_else(|| panic!("{place}: no metric {name} in: {query}")));
    }
    let grouped = pattern(r"\bby \(([^)]*)\)");
    let grouped = grouped.captures_iter(query).flat_map(|found| {
        let (_, [names]) = found.extract();
        names.split(", ").collect::<Vec<_>>()
    });
    let chosen = pattern(r#"[{,]([a-z_]+)(?:=|=~|!=)""#);
    let chosen = chosen.captures_iter(query).map(|found| found.extract::<1>().1[0]);
    for label in grouped.chain(chosen) {
        assert!(labels.contains(&label), "{place}: no label {label} in: {query}");
    }
    used.len()
}

#[test]
fn prometheus_scrapes_what_listens() {
    let config = yaml("scripts/compose/prometheus/prometheus.yml");
    let mounts = strings(&service("prometheus")["volumes"]).join("\n");
    for file in strings(&config["rule_files"]) {
        assert!(mounts.contains(&format!("prometheus/{file}:/etc/prometheus/{file}:ro")), "{file}");
    }
    let jobs = config["scrape_configs"].as_array().expect("jobs");
    for name in ["producer", "consumer", "api"] {
        let job = jobs.iter().find(|job| job["job_name"] == name).expect(name);
        let found = &job["dns_sd_configs"][0];
        assert_eq!(strings(&found["names"]), [name]);
        let listen = format!("WEBMON_{}_LISTEN", name.to_uppercase());
        let wanted = format!("0.0.0.0:{}", found["port"]);
        assert_eq!(service(name)["environment"][&listen], wanted.as_str());
    }
}

#[test]
fn every_alert_asks_for_metrics_that_exist_and_is_tried() {
    let rules = yaml("scripts/compose/prometheus/rules.yml");
    let tests = text("scripts/compose/prometheus/rules_test.yml");
    let guide = text("docs/operations.md");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() > 10);
    for rule in rules {
        let (alert, query) = (rule["alert"].as_str().expect("a name"), rule["expr"].as_str());
        assert_known(alert, query.expect("a query"));
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tried");
        assert!(guide.contains(alert), "{alert} is not in docs/operations.md");
        for key in ["summary", "description"] {
            assert!(rule["annotations"][key].is_string(), "{alert}: no {key}");
        }
    }
    for line in tests.lines().filter(|line| line.contains("{series:")) {
        assert_known("rules_test.yml", line);
    }
}

#[test]
fn promtool_agrees_where_there_is_one() {
    let promtool = |args: &[&str]| -> Option<Output> {
        Command::new("promtool").args(args).current_dir(root()).output().ok()
    };
    if promtool(&["--version"]).is_none() {
        return;
    }
    for args in [
        &["check", "config", "scripts/compose/prometheus/prometheus.yml"][..],
        &["test", "rules", "scripts/compose/prometheus/rules_test.yml"],
    ] {
        let output = promtool(args).expect("promtool runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let folder = root().join("scripts/compose/grafana/dashboards");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("readable");
        (file, serde_json::from_str(&text).expect("JSON"))
    };
    files.into_iter().map(read).collect()
}

/// Each query of the dashboards: where it stands, its data source, its text.
fn queries() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for (file, board) in dashboards() {
        let file = file.file_name().expect("a name").to_string_lossy().into_owned();
        for panel in board["panels"].as_array().expect("panels") {
            let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
            assert!(panel["type"] == "row" || !targets.is_empty(), "{file}: {panel}");
            for target in targets {
                let place = format!("{file}: {}", panel["title"].as_str().expect("a title"));
                let source = target["datasource"]["uid"].as_str().expect("a data source");
                assert_eq!(panel["datasource"]["uid"], source, "{place}");
                let query = target["expr"].as_str().or(target["rawSql"].as_str());
                found.push((place, source.to_owned(), query.expect("a query").to_owned()));
            }
        }
        for variable in board["templating"]["list"].as_array().expect("variables") {
            let source = variable["datasource"]["uid"].as_str().expect("a data source");
            let query = variable["query"].as_str().expect("a query");
            found.push((format!("{file}: ${}", variable["name"]), source.into(), query.into()));
        }
    }
    found
}

#[test]
fn dashboards_are_distinct_and_their_panels_do_not_overlap() {
    let mut uids = BTreeSet::new();
    for (file, board) in dashboards() {
        let file = file.display();
        assert!(uids.insert(board["uid"].as_str().expect("a uid").to_owned()), "{file}");
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().expect("panels") {
            let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
            assert!(ids.insert(panel["id"].as_u64()), "{file}: {}", panel["title"]);
            assert!(at("x") + at("w") <= 24, "{file}: {}", panel["title"]);
            for cell in (at("x")..at("x") + at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y)))
            {
                let (x, y) = (cell.0, cell.1 + at("y"));
                assert!(taken.insert((x, y)), "{file}: {} lies on another", panel["title"]);
            }
        }
    }
    let sources = yaml("scripts/compose/grafana/datasources.yaml");
    let sources = sources["datasources"].as_array().expect("data sources");
    let known: BTreeSet<&str> =
        sources.iter().filter_map(|source| source["uid"].as_str()).collect();
    for (place, source, _) in queries() {
        assert!(known.contains(source.as_str()), "{place}: {source}");
    }
    let mounts = strings(&service("grafana")["volumes"]).join("\n");
    let provider = yaml("scripts/compose/grafana/dashboards.yaml");
    let path = provider["providers"][0]["options"]["path"].as_str().expect("a path");
    assert!(mounts.contains(&format!("grafana/dashboards:{path}:ro")), "{mounts}");
    let environment = service("grafana")["environment"].clone();
    let home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().expect("home");
    let home = home.strip_prefix(path).expect("one of the dashboards");
    assert!(root().join(format!("scripts/compose/grafana/dashboards{home}")).exists(), "{home}");
}

#[test]
fn dashboards_ask_prometheus_for_metrics_that_exist() {
    let mut used = 0;
    for (place, source, query) in queries() {
        if source == "webmon-prometheus" {
            used += assert_known(&place, &query);
        }
    }
    assert!(used > 30, "{used}");
}

/// What Grafana puts in the place of its macros and variables.
fn as_sql(query: &str, site: i64) -> String {
    let filter = Regex::new(r"\$__timeFilter\(([^)]+)\)").expect("a pattern");
    let sql = filter.replace_all(query, "$1 BETWEEN now() - interval '7 days' AND now()");
    let sql = sql.replace("${site:sqlstring}", &format!("'{site}'"));
    assert!(!sql.contains('$'), "a macro that nobody replaces: {sql}");
    sql
}

/// A day and two hours of checks of one site: up, down and missed, counted.
fn fill(database: &TestDatabase, store: &Store) -> i64 {
    let mut client = database.client();
    let site = client
        .query_one(
            "INSERT INTO website (name, url) VALUES ('Shop', 'http://u:secret@127.0.0.1/') \
             RETURNING website_id",
            &[],
        )
        .expect("a site")
        .get::<_, i64>(0);
    let statement = format!(
        "INSERT INTO check_entry (check_entry_id, website_id, \"timestamp\", response_time, \
             processing, http_status, certificate_expires_at, outcome, failure_kind, region, tries) \
         SELECT (lpad(to_hex((extract(epoch FROM due) * 1000)::bigint), 12, '0') || \
                 '70000000000000000000')::uuid, {site}, due, CASE WHEN n % 7 > 0 THEN 0.1 END, 0.1, \
             CASE WHEN n % 7 > 0 THEN 200 END, now() + interval '3 days', \
             CASE n % 7 WHEN 0 THEN 'missed' WHEN 1 THEN 'down' ELSE 'up' END, \
             CASE n % 7 WHEN 1 THEN 'status' END, 'default', 1 \
         FROM generate_series(0, 157) AS n, LATERAL (SELECT date_trunc('milliseconds', \
             now() - n * interval '10 min') AS due) AS made"
    );
    assert_eq!(client.execute(&statement, &[]).expect("checks"), 158);
    let mark = "INSERT INTO rollup_dirty SELECT DISTINCT date_bin('1 hour', \"timestamp\", 'epoch') \
                FROM check_entry";
    client.execute(mark, &[]).expect("marks");
    let mut rollups = eventually("the lead", || store.try_rollups().expect("asked").ok_or(()));
    for hour in rollups.waiting(now().wall).expect("asked").hours {
        assert!(matches!(rollups.roll_hour(hour), Ok(Rolled::Written(_))), "{hour}");
    }
    for day in rollups.waiting(now().wall).expect("asked").days {
        assert!(matches!(rollups.roll_day(day), Ok(Rolled::Written(_))), "{day}");
    }
    site
}

/// Where the test services' programs are, else from the path.
fn psql() -> PathBuf {
    std::env::var_os("WEBMON_TEST_PG_BIN").map_or_else(PathBuf::new, PathBuf::from).join("psql")
}

#[test]
fn dashboards_ask_the_database_as_a_reader_who_may_do_nothing_else() {
    let database = TestDatabase::create("grafana");
    let store = Store::new(database.options()).expect("a store");
    store.migrate().expect("migrated");
    let today = TimeZone::UTC.to_datetime(now().wall).date();
    store.ensure_partitions(today, 3, 1).expect("partitions");
    let site = fill(&database, &store);

    let reader = unique("reader");
    let set_up = || {
        Command::new(psql())
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-v", "password=it's", "-v"])
            .args([&format!("reader={reader}"), "-f", "scripts/compose/grafana/reader.sql"])
            .args(["-h", &database.host, "-p", &database.port.to_string(), "-U", &database.user])
            .args(["-d", &database.name])
            .env("PGPASSWORD", &database.password)
            .current_dir(root())
            .output()
            .expect("psql runs")
    };
    // Each start of the service does it again.
    for _ in 0..2 {
        let output = set_up();
        assert!(output.status.success(), "{output:?}");
    }
    let mut client = postgres::Config::new()
        .host(&database.host)
        .port(database.port)
        .dbname(&database.name)
        .user(&reader)
        .password("it's")
        .connect(postgres::NoTls)
        .expect("the reader connects");
    let mut asked = 0;
    for (place, source, query) in queries() {
        if source == "webmon-postgres" {
            let rows = client.query(&as_sql(&query, site), &[]);
            let rows = rows.unwrap_or_else(|e| panic!("{place}: {e:?}"));
            assert!(!rows.is_empty(), "{place}: no rows");
            asked += 1;
        }
    }
    assert!(asked > 10, "{asked}");
    // Whoever sends statements can send this one too.
    client.batch_execute("SET default_transaction_read_only = off").expect("set");
    for forbidden in [
        "SELECT url FROM website",
        "SELECT headers FROM website",
        "SELECT * FROM rejected_message",
        "DELETE FROM check_hour",
        "UPDATE website SET status = 'deleted'",
    ] {
        let error = client.batch_execute(forbidden).expect_err(forbidden);
        assert_eq!(error.code().map(|c| c.code()), Some("42501"), "{forbidden}: {error:?}");
    }
    drop(client);
    // Roles are the server's, not the database's.
    let drop_role = format!("DROP OWNED BY {reader}; DROP ROLE {reader}");
    database.client().batch_execute(&drop_role).expect("the role goes");
}
