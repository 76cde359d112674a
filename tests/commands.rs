//! The commands as a user types them: output, errors, exit codes.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;

use support::daemon::Lab;
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

#[test]
fn check_tells_up_from_down() {
    let web = Web::start(|path| match path {
        "/down" => (500, "no".to_owned()),
        _ => (200, "Hello, World 42".to_owned()),
    });
    let lab = Lab::new("check");
    let up = lab.run(&["check", &web.url("/ok"), "--regex", r"World (\d+)"]);
    assert_eq!(code(&up), Some(0), "{}", stderr(&up));
    for part in ["up", " 200 ", "connect", "processing", "captures     42", "15 bytes"] {
        assert!(stdout(&up).contains(part), "'{part}' in:\n{}", stdout(&up));
    }
    let down = lab.run(&["check", "-u", &web.url("/down")]);
    assert_eq!(code(&down), Some(1));
    assert!(
        stdout(&down).contains("down") && stdout(&down).contains("status: "),
        "{}",
        stdout(&down)
    );

    let json = lab.run(&["check", &web.url("/ok"), "--regex", "nothing such", "--json"]);
    assert_eq!(code(&json), Some(1));
    let message: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one message");
    assert_eq!(message["failure"]["kind"], "regex");
    assert_eq!(message["regex_match"], false);
    assert_eq!(message["http_status"], 200);
    assert!(webmon::wire::decode(stdout(&json).trim().as_bytes()).is_ok());
}

#[test]
fn check_sends_and_expects_what_the_options_say() {
    let lab = Lab::new("check_options");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let url = format!("http://{address}/");
    let (request, output) = std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("a request");
            let (mut request, mut part) = (String::new(), [0; 1024]);
            while !request.ends_with("ping") {
                let read = stream.read(&mut part).expect("more of it");
                assert!(read > 0, "{request}");
                request.push_str(&String::from_utf8_lossy(&part[..read]));
            }
            let answer = b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\npong";
            stream.write_all(answer).expect("the answer is out");
            request
        });
        let output = lab.run(&[
            "check",
            &url,
            "--method",
            "post",
            "-H",
            "X-One: 1",
            "--header",
            "X-Two: a: b",
            "--body",
            "ping",
            "--expected-status",
            "404",
            "--set",
            "username=me",
            "--set",
            "password=hunter2",
        ]);
        // Whoever waits for a request that never came gets an empty one.
        drop(TcpStream::connect(address));
        (server.join().expect("the request"), output)
    });
    assert_eq!(code(&output), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    let request = request.to_ascii_lowercase();
    for line in ["x-one: 1\r\n", "x-two: a: b\r\n", "authorization: basic bwu6ahvudgvymg=="] {
        assert!(request.contains(line), "no '{line}' in {request}");
    }
    assert!(!stdout(&output).contains("hunter2"));
}

#[test]
fn wrong_use_is_2_and_says_why() {
    let lab = Lab::new("usage");
    for args in [
        &["check", "ftp://example.org/"][..],
        &["check", "http://127.0.0.1/", "--regex", "a("],
        &["check", "http://127.0.0.1/", "--timeout", "0"],
        &["check", "http://127.0.0.1/", "--method", "BREW"],
        &["check", "http://127.0.0.1/", "-H", "no colon"],
        &["check", "http://127.0.0.1/", "--expected-status", "20"],
        &["check", "http://127.0.0.1/", "--forbidden-regex", "a("],
        &["check", "http://127.0.0.1/", "--ipv4", "--ipv6"],
        &["check", "http://127.0.0.1/", "--no-follow", "--max-redirects", "3"],
        &["check", "http://127.0.0.1/", "--max-redirects", "31"],
        &["check", "http://127.0.0.1/", "--server-name", "not a host"],
        &["check", "http://127.0.0.1/", "--proxy", "https://127.0.0.1/"],
        &["check", "http://127.0.0.1/", "--retries", "6"],
        &["check", "http://127.0.0.1/", "--set", "retries"],
        &["check", "http://127.0.0.1/", "--set", "colour=blue"],
        &["check"],
        &["nonsense"],
        &["config", "check", "--config", "/no/such/file.yaml"],
        &["run", "--interval", "4"],
    ] {
        let output = lab.run(args);
        assert_eq!(code(&output), Some(2), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty() && stdout(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn help_has_examples_and_ignores_the_environment() {
    let mut lab = Lab::new("help");
    lab.set("WEBMON_NO_SUCH_KEY", "x");
    for command in [&["--help"][..], &["check", "--help"], &["tail", "--help"], &["drop", "--help"]]
    {
        let output = lab.run(command);
        assert_eq!(code(&output), Some(0));
        assert!(stdout(&output).contains("Examples:"), "{command:?}");
    }
    assert!(stdout(&lab.run(&["check", "--help"])).contains("--set min_certificate_days=14"));
    assert!(stdout(&lab.run(&["--version"])).starts_with("webmon "));
    for program in ["producer", "consumer"] {
        let mut daemon = lab.start(program, &["--help"]);
        assert_eq!(daemon.wait().code(), Some(0));
        support::eventually("help is read", || {
            let text = daemon.output().join("\n");
            if text.contains("Examples:") && text.contains("--check-config") {
                Ok(())
            } else {
                Err(text)
            }
        });
    }
}

#[test]
fn faults_of_the_configuration_come_all_at_once_and_hide_secrets() {
    let mut lab = Lab::new("faults");
    lab.config("monitoring: {interval: 3}\nkafka: {prot: 9092}\nconsumer: {threads: many}\n");
    lab.set("WEBMON_DATABASE_PASSWORD", "hunter2secret");
    for args in [&["config", "check"][..], &["config", "show"], &["run"]] {
        let output = lab.run(args);
        assert_eq!(code(&output), Some(2));
        for part in ["monitoring.interval", "kafka.prot", "consumer.threads"] {
            assert!(stderr(&output).contains(part), "{part} in:\n{}", stderr(&output));
        }
    }
    let mut producer = lab.start("producer", &["--check-config"]);
    assert_eq!(producer.wait().code(), Some(2));

    lab.config("monitoring: {interval: 60}\n");
    let show = lab.run(&["config", "show"]);
    assert_eq!(code(&show), Some(0), "{}", stderr(&show));
    assert!(stdout(&show).contains("interval: 60"), "{}", stdout(&show));
    assert!(!stdout(&show).contains("hunter2secret"));
    let mut consumer = lab.start("consumer", &["--check-config"]);
    assert_eq!(consumer.wait().code(), Some(0));
}

#[test]
fn migrate_and_drop() {
    let lab = Lab::new("drop");
    let dry = lab.run(&["migrate", "--dry-run"]);
    assert_eq!(code(&dry), Some(0), "{}", stderr(&dry));
    assert!(stdout(&dry).contains("would apply"));
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(lab.query::<i64>(tables), Ok(0));
    assert!(stdout(&lab.run(&["migrate"])).contains("applied"));
    assert!(stdout(&lab.run(&["migrate"])).contains("up to date"));
    assert!(lab.query::<i64>(tables).unwrap() >= 4);

    let wrong = lab.run(&["drop", "wrong"]);
    assert_eq!(code(&wrong), Some(2));
    assert!(stderr(&wrong).contains("nothing was deleted"), "{}", stderr(&wrong));
    assert_eq!(code(&lab.run(&["drop"])), Some(2), "no terminal to ask on");
    assert!(lab.query::<i64>(tables).unwrap() >= 4);
    let right = lab.run(&["drop", &lab.database.password]);
    assert_eq!(code(&right), Some(0), "{}", stderr(&right));
    assert_eq!(lab.query::<i64>(tables), Ok(0));
}

#[test]
fn a_service_that_is_away_is_4() {
    let mut lab = Lab::new("away");
    lab.set("WEBMON_DATABASE_PORT", "1").set("WEBMON_KAFKA_SERVERS", "127.0.0.1:1");
    for args in [&["migrate"][..], &["tail"], &["tail", "--from", "topic"]] {
        let output = lab.run(args);
        assert_eq!(code(&output), Some(4), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("127.0.0.1:1"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn tail_follows_table_and_topic() {
    let web = Web::start(|_| (200, "ok".to_owned()));
    let mut lab = Lab::new("tail");
    lab.config(&format!("websites:\n- {{name: one, url: \"{}\", interval: 5}}\n", web.url("/")));
    let consumer = lab.start("consumer", &[]);
    let producer = lab.start("producer", &[]);
    lab.wait_for_count("a first row", "SELECT count(*) FROM check_entry", 1);
    let mut topic = lab.start("webmon", &["tail", "--from", "topic", "--json", "--limit", "1"]);
    let mut table = lab.start("webmon", &["tail", "--limit", "1"]);
    assert_eq!(topic.wait().code(), Some(0));
    assert_eq!(table.wait().code(), Some(0));
    support::eventually("the table's line", || match table.output().as_slice() {
        [line] if line.contains("up") && line.contains("one") => Ok(()),
        other => Err(other.to_vec()),
    });
    let line = support::eventually("the topic's line", || topic.output().first().cloned().ok_or(0));
    assert!(webmon::wire::decode(line.as_bytes()).is_ok(), "{line}");
    producer.stop();
    consumer.stop();
}

#[test]
fn healthcheck_asks_the_daemon() {
    let mut lab = Lab::new("health");
    lab.config("websites: []\n");
    let producer = lab.start("producer", &[]);
    let url = format!("http://{}/livez", producer.address());
    let alive = lab.run(&["healthcheck", "--url", &url]);
    assert_eq!(code(&alive), Some(0), "{}{}", stdout(&alive), stderr(&alive));
    producer.stop();
    assert_eq!(code(&lab.run(&["healthcheck", "--url", &url])), Some(1));
}

#[test]
fn a_spool_or_a_port_in_use_is_a_clear_error() {
    let mut lab = Lab::new("taken");
    lab.config("websites: []\n");
    let first = lab.start("producer", &[]);
    first.wait_for_log("site list loaded");
    let mut second = lab.start("producer", &[]);
    assert_eq!(second.wait().code(), Some(2));
    second.wait_for_log("spool");
    let address = first.address();
    lab.set("WEBMON_CONSUMER_LISTEN", &address);
    let mut consumer = lab.start("consumer", &[]);
    assert_eq!(consumer.wait().code(), Some(2));
    consumer.wait_for_log(&address);
    first.stop();
}
