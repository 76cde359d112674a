//! Many connections, and no file descriptors.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use webmon::api::{AccessOptions, Limits, Role, Token, hash_token};
use webmon::runtime::mono;

use super::lab::{Answer, BIG, CAP, Client, Server, get, home, start};

fn limits() -> Limits {
    Limits { connections: 40, deadline: Duration::from_secs(5), ..Limits::default() }
}

#[test]
fn silent_ones_make_room_for_a_good_client() {
    let server = start(limits(), AccessOptions::default());
    let mut silent: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for _ in 0..10 {
        assert_eq!(server.get("/good").status(), 200);
    }
    // The first to be idle went first.
    assert!(silent[0].ended().is_empty());
    let last = silent.last_mut().unwrap();
    last.send(get("/last").as_bytes());
    assert_eq!(last.answer().json()["path"], "/last");
}

#[test]
fn an_idle_one_goes_before_one_that_works() {
    let server = start(limits(), AccessOptions::default());
    let mut working = server.connect();
    working.send(get("/hang").as_bytes());
    let mut kept = server.connect();
    kept.send(get("/").as_bytes());
    assert_eq!(kept.answer().status(), 200);
    let crowd: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    assert_eq!(server.get("/good").status(), 200);
    assert!(kept.ended().is_empty());
    server.echo.release.request();
    assert_eq!(working.answer().status(), 200);
    drop(crowd);
}

#[test]
fn one_address_takes_half_and_the_rest_is_told() {
    let server = start(limits(), AccessOptions::default());
    let begin = |last: u8| {
        let mut client = server.connect_from(last);
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx");
        client
    };
    let mut held: Vec<Client> = (0..20).map(|_| begin(1)).collect();
    let refused = server.get("/");
    refused.is_problem(503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let mut other = server.connect_from(2);
    other.send(get("/").as_bytes());
    assert_eq!(other.answer().json()["address"], home(2).to_string());
    drop(other);
    let others: Vec<Client> = (0..20).map(|_| begin(3)).collect();
    // Now all are taken, whoever asks.
    let mut fourth = server.connect_from(4);
    fourth.send(get("/").as_bytes());
    fourth.answer().is_problem(503);
    // At their deadline they are gone, and their places are free.
    for client in &mut held {
        Answer::of(&client.ended()).is_problem(408);
    }
    assert_eq!(server.get("/").status(), 200);
    drop(others);
}

#[test]
fn heads_that_drip_make_room() {
    let limits = Limits { deadline: CAP, first_byte: CAP, ..limits() };
    let server = start(limits, AccessOptions::default());
    let mut held: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    held.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nX: "));
    // Honest heads come in one go; these have a while before they are taken for none.
    let begin = mono();
    while server.get("/good").status() != 200 {
        assert!(mono() - begin < CAP / 2, "nobody made room");
    }
    // One of them was enough.
    let last = held.last_mut().unwrap();
    last.send(b"y\r\nHost: localhost\r\n\r\n");
    assert_eq!(last.answer().status(), 200);
}

/// Long enough for those that all but stop to be taken for such.
fn patient() -> Limits {
    Limits { connections: 8, deadline: CAP, first_byte: CAP, ..Limits::default() }
}

/// Asks from an address of its own until there is room, while `busy` goes on.
fn gets_in(server: &Server, last: u8, mut busy: impl FnMut()) {
    let begin = mono();
    loop {
        let mut client = server.connect_from(last);
        client.send(get("/good").as_bytes());
        if client.answer().status() == 200 {
            return;
        }
        assert!(mono() - begin < CAP / 2, "nobody made room");
        busy();
    }
}

#[test]
fn bodies_that_drip_make_room() {
    let server = start(patient(), AccessOptions::default());
    let begin = |n: u8| {
        let mut client = server.connect_from(1 + 4 * (n % 2));
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\nx");
        client
    };
    let mut held: Vec<Client> = (0..8).map(begin).collect();
    // Some hundred bytes a second, however quick this machine is: far below what counts as going on.
    let mut sent_at = mono();
    gets_in(&server, 9, || {
        if mono() - sent_at >= Duration::from_millis(10) {
            sent_at = mono();
            held.iter_mut().for_each(|client| client.send(b"x"));
        }
    });
}

#[test]
fn who_takes_no_answer_makes_room_and_strangers_first() {
    let access = AccessOptions {
        tokens: vec![Token {
            name: "known".to_owned(),
            role: Role::Read,
            sha256: hash_token("secret"),
        }],
        ..AccessOptions::default()
    };
    let server = start(patient(), access);
    let big = "GET /big HTTP/1.1\r\nHost: localhost\r\n";
    let known = format!("{big}Authorization: Bearer secret\r\n\r\n");
    // The strangers first: they are the first to have all but stopped, however quick this is.
    let mut strangers: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = server.connect_from(5);
            client.send(format!("{big}\r\n").as_bytes());
            client.stream.peek(&mut [0]).unwrap();
            client
        })
        .collect();
    let mut known: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = server.connect_from(1);
            client.send(known.as_bytes());
            // Its answer is there, and begins.
            client.stream.peek(&mut [0]).unwrap();
            client
        })
        .collect();
    gets_in(&server, 9, || ());
    // All of it would be there for the one that went.
    let cut = strangers.iter_mut().map(|c| c.ended_within(BIG)).filter(|is_cut| *is_cut).count();
    assert!(cut >= 1, "no stranger went");
    assert!(known.iter_mut().all(|client| client.answer().body.len() == BIG));
}

#[test]
fn what_was_answered_and_refused_is_counted() {
    let server = start(limits(), AccessOptions::default());
    assert_eq!(server.ask(b"PATCH / HTTP/1.1\r\nHost: localhost\r\n\r\n").status(), 200);
    server.ask(b"DELETE / HTTP/1.1\r\nHost: evil.example\r\n\r\n").is_problem(421);
    let text = webmon::telemetry::metrics().render(None);
    let count = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
    };
    assert!(count("webmon_api_requests_total{method=\"PATCH\",status=\"2xx\"}") >= 1);
    assert!(count("webmon_api_requests_total{method=\"DELETE\",status=\"4xx\"}") >= 1);
    assert!(count("webmon_api_refused_total{reason=\"host\"}") >= 1);
    assert!(count("webmon_api_request_duration_seconds_count") >= 2);
    assert!(!text.contains("evil.example"), "{text}");
}

/// The child of the next test: few file descriptors, and a server. It ends with its input.
#[test]
fn child_with_few_files() {
    if std::env::var_os("WEBMON_TEST_FEW_FILES").is_none() {
        return;
    }
    let few = Rlimit { current: Some(40), maximum: Some(40) };
    setrlimit(Resource::Nofile, few).unwrap();
    let server = start(Limits { threads: 2, ..Limits::default() }, AccessOptions::default());
    println!("\nserving {}", server.addr);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn without_file_descriptors_it_recovers() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crowds::child_with_few_files", "--exact", "--nocapture"])
        .env("WEBMON_TEST_FEW_FILES", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("serving ")).unwrap();
    let addr = line.rsplit(' ').next().unwrap();
    // More of them at work than there are descriptors: those that wait are not idle.
    let mut held: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = Client::to(addr);
            client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nx");
            client
        })
        .collect();
    let mut asked = Client::to(addr);
    asked.send(get("/waited").as_bytes());
    // They come to their end one by one; each makes room for one that waits.
    for client in &mut held {
        client.send(b"yzw");
        let answer = client.answer();
        assert_eq!(answer.json()["body"], "xyzw");
        client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    assert_eq!(asked.answer().json()["path"], "/waited");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
