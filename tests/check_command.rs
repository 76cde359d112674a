//! `webmon check` as a user types it: several at once, again and again, of the table and into it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod support;

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;
use support::daemon::Lab;
use support::eventually;
use support::web::Web;

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// The messages of `--json`.
fn messages(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in: {line}")))
        .collect()
}

/// `text` with each of `parts`, in this order.
fn check_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let (_, behind) =
            rest.split_once(part).unwrap_or_else(|| panic!("no '{part}', or out of order: {text}"));
        rest = behind;
    }
}

/// Answers `/last` at once, and everything else only after `/last` was asked for.
fn last_first() -> Web {
    let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    Web::start(move |path| {
        let (open, changed) = &*gate;
        let mut open = open.lock().unwrap();
        if path == "/last" {
            *open = true;
            changed.notify_all();
        }
        drop(changed.wait_while(open, |open| !*open).unwrap());
        (200, "ok".to_owned())
    })
}

#[test]
fn several_are_checked_side_by_side_and_told_in_the_order_of_what_was_typed() {
    let (web, lab) = (last_first(), Lab::new("several"));
    let list = format!("# a list\n\n{}\n", web.url("/last"));
    std::fs::write(lab.dir.path().join("urls"), list).unwrap();
    let (first, second) = (web.url("/first"), web.url("/second"));
    let output = lab.run(&["check", &first, "-u", &second, "--file", "urls", "--jobs", "3"]);
    assert_eq!(code(&output), Some(0), "{}{}", stdout(&output), stderr(&output));
    check_order(&stdout(&output), &[&first, "connect", &second, "connect", "/last", "connect"]);

    // One after the other the gate stays shut.
    let web = last_first();
    let (first, last) = (web.url("/first"), web.url("/last"));
    let output = lab.run(&["check", &first, &last, "--jobs", "1", "--timeout", "1", "--json"]);
    assert_eq!(code(&output), Some(1), "{}{}", stdout(&output), stderr(&output));
    let kinds: Vec<Value> =
        messages(&output).iter().map(|m| m["failure"]["kind"].clone()).collect();
    assert_eq!(kinds, [Value::from("timeout"), Value::Null]);
}

#[test]
fn a_list_comes_from_standard_input_too() {
    let (web, lab) = (Web::start(|_| (200, "ok".to_owned())), Lab::new("stdin"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_webmon"));
    command.args(["check", "--file", "-", "--json"]).env_clear().envs(&lab.env);
    let list = std::fs::File::create(lab.dir.path().join("list")).unwrap();
    std::io::Write::write_all(&mut &list, format!("{0}\n{0}\n", web.url("/")).as_bytes()).unwrap();
    let list = std::fs::File::open(lab.dir.path().join("list")).unwrap();
    let output = command.current_dir(lab.dir.path()).stdin(Stdio::from(list)).output().unwrap();
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let ids: Vec<String> =
        messages(&output).iter().map(|m| m["check_entry_id"].to_string()).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");

    for (file, problem) in [("none", "can't be read"), ("/dev/null", "has no URL")] {
        let output = lab.run(&["check", "--file", file]);
        assert_eq!(code(&output), Some(2), "{file}");
        assert!(stderr(&output).contains(problem), "{file}: {}", stderr(&output));
    }
}

#[test]
fn all_that_is_wrong_is_told_with_its_place() {
    let lab = Lab::new("places");
    std::fs::write(lab.dir.path().join("urls"), "http://127.0.0.1/\n\nbar://x\nftp://u:pw@y\n")
        .unwrap();
    let output =
        lab.run(&["check", "http://127.0.0.1/", "foo", "--file", "urls", "--set", "retries=1"]);
    assert_eq!((code(&output), stdout(&output)), (Some(2), String::new()));
    let said = stderr(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    let starts = [
        "webmon check: 'foo': ",
        "webmon check: urls:3: 'bar://x': ",
        "webmon check: urls:4: 'ftp://…@y': ",
    ];
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "'{start}' in:\n{said}");
    }
    // What is wrong with an option is so for all of them, and told once.
    let output = lab.run(&["check", "http://127.0.0.1/a", "http://127.0.0.1/b", "--regex", "("]);
    assert_eq!(code(&output), Some(2));
    assert_eq!(stderr(&output).matches("regex").count(), 1, "{}", stderr(&output));
}

#[test]
fn what_is_needed_and_what_fits_is_said() {
    let lab = Lab::new("needed");
    let output = lab.run(&["check"]);
    assert_eq!(code(&output), Some(2));
    let said = stderr(&output);
    assert!(said.contains("<URL|--url <URL>|--file <FILE>|--site <"), "{said}");
    for wrong in ["0", "0.5", "86400"] {
        let output = lab.run(&["check", "http://127.0.0.1/", "--timeout", wrong]);
        assert_eq!(code(&output), Some(2));
        let said = stderr(&output);
        assert!(said.contains("must be whole seconds from 1 to 86399"), "{said}");
        assert!(!said.contains("interval"), "a check has none:\n{said}");
    }
}

#[test]
fn rounds_end_with_a_summary() {
    let web = Web::start(|path| (if path == "/down" { 500 } else { 200 }, "ok".to_owned()));
    let lab = Lab::new("rounds");
    let (up, down) = (web.url("/"), web.url("/down"));
    let rounds = ["--repeat", "3", "--every", "0.1"];
    let output = lab.run(&[&["check", &up][..], &rounds].concat());
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 5, "a line a check and two of the summary: {text}");
    check_order(
        &text,
        &[&format!("{up}: 3 checks, 3 up, 0 down"), "min ", "mean ", "p95 ", "max "],
    );

    let output = lab.run(&[&["check", &up, &down, "--json"][..], &rounds].concat());
    assert_eq!(code(&output), Some(1));
    assert_eq!(messages(&output).len(), 6);
    check_order(&stderr(&output), &["3 checks, 3 up", "3 checks, 0 up, 3 down (status 3)"]);
    assert_eq!((web.hits("/"), web.hits("/down")), (6, 3));
}

#[test]
fn ctrl_c_ends_the_rounds_with_their_summary() {
    let lab = Lab::new("ctrl_c");
    for (status, expected) in [(200, 0), (404, 1)] {
        let web = Web::start(move |_| (status, "ok".to_owned()));
        let args = ["check", &web.url("/"), "--repeat", "0", "--every", "0.1"];
        let mut check = lab.start("webmon", &args);
        eventually("some rounds", || match check.output().len() {
            0..3 => Err(check.output()),
            _ => Ok(()),
        });
        check.signal(rustix::process::Signal::INT);
        assert_eq!(check.wait().code(), Some(expected));
        eventually("the summary", || {
            let text = check.output().join("\n");
            if text.contains("p95") { Ok(()) } else { Err(text) }
        });
    }
    // A check that hangs doesn't hold the end up.
    let asked = Arc::new(AtomicBool::new(false));
    let seen = asked.clone();
    let web = Web::start(move |_| {
        seen.store(true, Ordering::Release);
        loop {
            std::thread::park();
        }
    });
    let url = web.url("/");
    let mut check = lab.start("webmon", &["check", &url, "--repeat", "0", "--timeout", "3600"]);
    eventually("a check under way", || {
        if asked.load(Ordering::Acquire) { Ok(()) } else { Err(check.log()) }
    });
    check.signal(rustix::process::Signal::INT);
    assert_eq!(check.wait().code(), Some(0));
}

#[test]
fn redirects_captures_and_odd_bytes_are_told() {
    let web = Web::start(|path| match path {
        "/old" => (302, "/new".to_owned()),
        _ => (200, "<b>one</b><b>two\x1b[2J</b>".to_owned()),
    });
    let mut lab = Lab::new("details");
    let args = ["check", &web.url("/old"), "--regex", "(?s)<b>(.*?)</b>"];
    let output = lab.run(&args);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    check_order(
        &text,
        &["all 2 requests together", "connect", "#", "the last request alone", "connect", "#"],
    );
    check_order(&text, &["captures     one\n", "               two\\u{1b}[2J\n"]);
    assert!(text.is_ascii(), "no locale, no blocks: {text}");
    lab.set("LC_ALL", "C.UTF-8");
    // How long a bar is, and so which block ends it, is a matter of timing.
    let text = stdout(&lab.run(&args));
    assert!(text.contains(|c: char| ('█'..='▏').contains(&c)), "{text}");
}

#[test]
fn a_secret_that_is_not_there_is_no_fault_of_the_site() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("secret");
    let args = ["check", &web.url("/"), "--set", "bearer_token={secret:shop}"];
    let output = lab.run(&args);
    assert_eq!(code(&output), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("secret 'shop' is not there"), "{}", stderr(&output));
    assert_eq!(web.all_hits(), 0);
    lab.set("WEBMON_SECRET_SHOP", "hunter2");
    assert_eq!(code(&lab.run(&args)), Some(0));
    // Given and wrong is the page's business.
    lab.set("WEBMON_MONITORING_USER_AGENT", "a\u{1f}b");
    assert_eq!(code(&lab.run(&args)), Some(2));
}

#[test]
fn sites_of_the_table_are_checked_and_results_stored() {
    let web = Web::start(|_| (200, "hello".to_owned()));
    let lab = Lab::new("save");
    assert_eq!(code(&lab.run(&["migrate"])), Some(0));
    let mut client = lab.database.client();
    let mut add = |name: &str, url: &str, regex: &str| -> i64 {
        let sql = "INSERT INTO website (name, url, regex) VALUES ($1, $2, $3) RETURNING website_id";
        client.query_one(sql, &[&name, &url, &regex]).unwrap().get(0)
    };
    let plain = web.url("");
    let good = add("good", &plain, "hel+o");
    let bad = add("bad", &web.url("/bad"), "goodbye");
    let _ = (add("twin 1", &web.url("/twin"), "."), add("twin 2", &web.url("/twin"), "."));

    // Its settings, by name and by id; what is typed has the last word.
    let both = lab.run(&["check", "--site", "good", "--site", &bad.to_string(), "--json"]);
    assert_eq!(code(&both), Some(1), "{}", stderr(&both));
    let told = messages(&both);
    assert_eq!((&told[0]["outcome"], &told[0]["website_id"]), (&"up".into(), &good.into()));
    assert_eq!(told[1]["failure"]["kind"], "regex");
    let typed = lab.run(&["check", "--site", "bad", "--regex", "ell"]);
    assert_eq!(code(&typed), Some(0), "{}", stdout(&typed));
    assert!(stdout(&typed).contains("  bad\n"), "its name: {}", stdout(&typed));
    let rows = "SELECT count(*) FROM check_entry";
    assert_eq!(lab.query::<i64>(rows), Ok(0), "nobody asked for a row");

    // By URL, however it is written.
    let saved = lab.run(&["check", &web.url("/"), "--save", "--json", "--repeat", "3"]);
    assert_eq!(code(&saved), Some(0), "{}", stderr(&saved));
    for message in messages(&saved) {
        let row = format!(
            "SELECT count(*) FROM check_entry WHERE check_entry_id = '{}' AND website_id = {good} \
             AND outcome = 'up' AND http_status = 200 AND regex = 'hel+o' AND region = '{}' \
             AND timestamp = '{}'",
            message["check_entry_id"].as_str().unwrap(),
            lab.topic,
            message["scheduled_at"].as_str().unwrap()
        );
        assert_eq!(lab.query::<i64>(&row), Ok(1), "{message}");
    }
    let saved = lab.run(&["check", "--site", "bad", "--save"]);
    assert_eq!(code(&saved), Some(1));
    assert!(stdout(&saved).contains("stored as    "), "{}", stdout(&saved));
    assert_eq!(lab.query::<i64>(rows), Ok(4));

    let unknown = lab.run(&["check", &web.url("/unknown"), "--save"]);
    assert_eq!(code(&unknown), Some(3), "{}", stderr(&unknown));
    check_order(&stderr(&unknown), &["no site has the URL", "webmon sites add NAME '"]);
    let twins = lab.run(&["check", &web.url("/twin"), "--save"]);
    assert_eq!(code(&twins), Some(2));
    check_order(&stderr(&twins), &["several sites", "--site", "twin 1, twin 2"]);
    assert_eq!(code(&lab.run(&["check", "--site", "nobody"])), Some(3));
    assert_eq!(lab.query::<i64>(rows), Ok(4));
    assert_eq!((web.hits("/unknown"), web.hits("/twin")), (0, 0));
}

#[test]
fn without_the_database_only_what_needs_it_fails() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("check_away");
    lab.set("WEBMON_DATABASE_PORT", "1");
    assert_eq!(code(&lab.run(&["check", &web.url("/")])), Some(0));
    for args in [&["check", &web.url("/"), "--save"][..], &["check", "--site", "a"]] {
        let output = lab.run(args);
        assert_eq!(code(&output), Some(4), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn an_env_file_has_a_short_name() {
    let lab = Lab::new("env_file");
    std::fs::write(lab.dir.path().join("mine.env"), "WEBMON_MONITORING_USER_AGENT=me/1\n").unwrap();
    let output = lab.run(&["config", "show", "-e", "mine.env"]);
    assert!(stdout(&output).contains("me/1"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn config_init_writes_a_good_file_and_never_over_another() {
    let lab = Lab::new("init");
    let file = lab.dir.path().join("config.yaml");
    let output = lab.run(&["config", "init"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), include_str!("../config.yaml"));
    assert_eq!(code(&lab.run(&["config", "check"])), Some(0));
    std::fs::write(&file, "mine").unwrap();
    let again = lab.run(&["config", "init", "--path", "config.yaml"]);
    assert_eq!(code(&again), Some(2));
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let json = lab.run(&["config", "init", "--path", "other.yaml", "--json"]);
    assert_eq!(messages(&json), [serde_json::json!({ "written": "other.yaml" })]);
}

#[test]
fn tail_shows_only_what_is_asked_for() {
    let web = Web::start(|path| (if path == "/b" { 500 } else { 200 }, "ok".to_owned()));
    let mut lab = Lab::new("tail_filter");
    let site = |name: &str, path: &str| {
        format!("- {{name: {name}, url: \"{}\", interval: 5}}\n", web.url(path))
    };
    lab.config(&format!("websites:\n{}{}", site("one", "/a"), site("two", "/b")));
    let mut run = lab.start("webmon", &["run"]);
    lab.wait_for_count("both checked", "SELECT count(DISTINCT website_id) FROM check_entry", 2);
    let id: i64 = lab.query("SELECT website_id FROM website WHERE name = 'two'").unwrap();
    let id = id.to_string();
    let all = [
        (lab.start("webmon", &["tail", "--site", "one", "--limit", "1"]), " one"),
        (lab.start("webmon", &["tail", "--outcome", "down", "--limit", "1"]), " two"),
        (lab.start("webmon", &["tail", "--from", "topic", "--site", &id, "--limit", "1"]), " two"),
    ];
    for (mut tail, wanted) in all {
        assert_eq!(tail.wait().code(), Some(0));
        eventually("its line", || match tail.output().as_slice() {
            [line] if line.contains(wanted) => Ok(()),
            other => Err(other.to_vec()),
        });
    }
    assert_eq!(code(&lab.run(&["tail", "--site", "nobody"])), Some(3));
    assert_eq!(code(&lab.run(&["tail", "--outcome", "sideways"])), Some(2));
    run.signal(rustix::process::Signal::TERM);
    assert_eq!(run.wait().code(), Some(0));
}
