//! The settings of sites that few have; `docs/sites.md` has every key of a site, what it holds, and
//! an example that is read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use webmon::config::show;
use webmon::site::SETTINGS;

use super::{ROOT, setup};

/// The cells of each row whose first is a key.
fn rows() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/sites.md")).unwrap();
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        cells.collect::<Vec<String>>()
    };
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(cells);
    rows.map(|cells| (cells[0].trim_matches('`').to_owned(), cells)).collect()
}

/// What must stand beside a key for it to be good.
fn company(key: &str) -> &'static str {
    match key {
        "password" => "username: me",
        "tls_key" => "tls_certificate: PEM",
        "tls_certificate" => "tls_key: PEM",
        _ => "",
    }
}

#[test]
fn each_setting_has_its_row_and_each_example_is_read() {
    let rows = rows();
    for setting in &SETTINGS {
        let row = rows.get(setting.name).unwrap_or_else(|| panic!("{} has no row", setting.name));
        assert_eq!((&row[1], row[4].as_str()), (&setting.kind.wanted(), setting.doc));
        let example = row[3].trim_matches('`');
        assert!(example.starts_with(&format!("{}: ", setting.name)), "{example}");
        let company = company(setting.name);
        let file =
            format!("websites:\n- name: x\n  url: https://a.example/\n  {example}\n  {company}\n");
        let site = &setup(&file).load().settings.websites[0];
        assert!(site.settings.get(setting.name).is_some(), "{example}");
    }
}

#[test]
fn each_common_key_has_an_example_that_is_read() {
    let rows = rows();
    let usual = ["name: x", "url: https://a.example/"];
    let keys = "name url interval timeout regex method headers body expected_status";
    for key in keys.split(' ') {
        let example = rows[key][4].trim_matches('`');
        assert!(example.starts_with(&format!("{key}: ")), "{example}");
        let other = usual.iter().filter(|line| !line.starts_with(&format!("{key}:")));
        let lines: String = other.chain([&example]).map(|line| format!("  {line}\n")).collect();
        let file = format!("websites:\n-\n{lines}");
        assert_eq!(setup(&file).load().settings.websites.len(), 1, "{example}");
    }
}

#[test]
fn further_settings_of_a_site_are_read_and_shown() {
    let setup = setup(
        "websites:\n- name: One\n  url: https://one.example/\n  username: \"${WHO}\"\n  \
         follow_redirects: NONE\n  retries: ${TRIES}\n  retry_pause: 0.25\n  tls_verify: ${VERIFY}\n  \
         max_response_time: ${LIMIT:-1.5}\n  expected_headers: {Server: '^${WHO}', Age: '.'}\n  \
         forbidden_regex: ${NOTHING:-}\n  server_name: ~\n  min_certificate_days: 14\n",
    )
    .env("WHO", "me")
    .env("TRIES", "2")
    .env("VERIFY", "off");
    let loaded = setup.load();
    let [site] = loaded.settings.websites.as_slice() else { panic!("one site") };
    let built = site.build(1, loaded.settings.monitoring.defaults()).unwrap();
    let more = built.more();
    assert_eq!((more.retries, more.retry_pause.as_millis()), (2, 250));
    assert_eq!(more.max_response_time.map(|time| time.as_millis()), Some(1500));
    assert_eq!((more.tls.unverified, more.min_certificate_days), (true, Some(14)));
    assert_eq!(more.expected_headers[1].pattern.source(), "^me");
    assert_eq!((&more.forbidden, &more.tls.server_name), (&None, &None));
    let shown = show(&loaded);
    for line in [
        "    username: me",
        "    expected_headers: {Age: \".\", Server: \"^me\"}",
        "    max_response_time: 1.5",
        "    min_certificate_days: 14",
        "    follow_redirects: none",
        "    tls_verify: false",
        "    retries: 2",
        "    retry_pause: 0.25",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no line '{line}' in\n{shown}");
    }
    assert!(!shown.contains("forbidden_regex") && !shown.contains("server_name"), "{shown}");
    assert_eq!(super::setup(&shown).load().settings.websites, loaded.settings.websites);
}
