//! `webmon api` and `webmon token` as programs, without a database.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use webmon::api::{hash_token, hex};

use super::lab::{Client, get};

fn webmon(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_webmon"));
    command.args(args).env_clear().env("WEBMON_LOG_FORMAT", "json");
    // Nobody listens there.
    command.env("WEBMON_DATABASE_HOST", "127.0.0.1").env("WEBMON_DATABASE_PORT", "1");
    command.current_dir(env!("CARGO_TARGET_TMPDIR")).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Serving {
    child: Child,
    addr: String,
    log: BufReader<std::process::ChildStderr>,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("\"listen\"") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
        }
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let addr = line["listen"].as_str().unwrap().to_owned();
        Self { child, addr, log }
    }

    /// SIGTERM; how it ended, and what it said.
    fn stop(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let mut log = String::new();
        std::io::Read::read_to_string(&mut self.log, &mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_serves_with_the_database_away_until_a_signal() {
    let serving = Serving::start(webmon(&["api", "--listen", "127.0.0.1:0"]));
    let ask = |path: &str| {
        let mut client = Client::to(&serving.addr);
        client.send(get(path).as_bytes());
        client.answer()
    };
    assert_eq!(ask("/livez").status(), 200);
    assert_eq!(ask("/readyz").status(), 503);
    let (code, log) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("webmon api stopped"), "{log}");
}

#[test]
fn a_made_token_gets_in_and_shows_nowhere() {
    let output = webmon(&["token", "ci", "--role", "write", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["sha256"], hex(&hash_token(token)));
    let entry = made["entry"].as_str().unwrap();
    assert_eq!(entry, format!("ci:write:{}", made["sha256"].as_str().unwrap()));

    let mut command = webmon(&["api", "--listen", "0.0.0.0:0"]);
    command.env("WEBMON_API_TOKENS", entry).env("WEBMON_LOG_LEVEL", "trace");
    let serving = Serving::start(command);
    let addr = serving.addr.replace("0.0.0.0", "127.0.0.1");
    let status = |token: &str| {
        let mut client = Client::to(&addr);
        let head = "GET /nowhere?secret=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization:";
        client.send(format!("{head} Bearer {token}\r\n\r\n").as_bytes());
        client.answer().status()
    };
    assert_eq!((status(token), status(entry), status("x")), (404, 401, 401));
    let (code, log) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("\"caller\":\"ci\"")).unwrap();
    assert!(line.contains("\"path\":\"/nowhere\"") && line.contains("\"status\":404"), "{line}");
    for secret in [token, made["sha256"].as_str().unwrap(), "secret=1"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn strangers_are_not_let_in_without_a_token() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        for args in [&["api"][..], &["run", "--bus", "local"]] {
            let mut command = webmon(args);
            command.env("WEBMON_API_LISTEN", listen).env("WEBMON_PRODUCER_LISTEN", "127.0.0.1:0");
            let Output { status, stderr, .. } = command.output().unwrap();
            let stderr = text(&stderr);
            assert_eq!(status.code(), Some(2), "{listen} {args:?}: {stderr}");
            assert!(stderr.contains(listen) && stderr.contains("webmon token"), "{stderr}");
        }
    }
}

#[test]
fn wrong_use_is_2_and_an_address_in_use_says_the_cure() {
    for args in [&["token", "a b"][..], &["token", ""], &["token", "x", "--role", "root"]] {
        assert_eq!(webmon(args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
    for tokens in ["ci:write:short", "ci:root:0", "x", "ci:read:zz"] {
        let output = webmon(&["api"]).env("WEBMON_API_TOKENS", tokens).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("api.tokens") && !stderr.contains(tokens), "{stderr}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = webmon(&["api", "--listen", &address]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&address) && stderr.contains("set api.listen"), "{stderr}");
}

#[test]
fn strangers_are_let_in_where_the_configuration_says_so() {
    let mut command = webmon(&["api", "--listen", "0.0.0.0:0"]);
    command.env("WEBMON_API_ALLOW_WITHOUT_TOKENS", "true");
    let serving = Serving::start(command);
    let mut client = Client::to(&serving.addr.replace("0.0.0.0", "127.0.0.1"));
    client.send(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
    let (code, log) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
}
