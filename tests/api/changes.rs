//! Changes of several at once, and requests that are sent again.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::server::{Answer, Server, tokens};

/// What `count` threads get that begin together.
fn together<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    let (barrier, work) = (&barrier, &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|n| {
                scope.spawn(move || {
                    barrier.wait();
                    work(n)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn of_two_who_read_the_same_one_is_told_that_it_is_stale() {
    let server = Server::start("api_etag");
    let id = server.add(&json!({"name": "a", "url": "https://a.example/"}));
    let path = format!("/websites/{id}");
    let mut tag = server.get(&path).header("ETag").unwrap().to_owned();
    for round in 0..10 {
        let statuses = together(2, |n| {
            let body = json!({"interval": 60 + round * 10 + n as u32});
            server.send_with("PATCH", &path, &[("If-Match", &tag)], &body).status
        });
        let mut sorted = statuses.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [200, 412], "{statuses:?}");
        tag = server.get(&path).header("ETag").unwrap().to_owned();
    }
    for (method, target) in [
        ("PUT", path.clone()),
        ("PUT", "/websites".to_owned()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/pause")),
        ("POST", format!("{path}/resume")),
    ] {
        let body = json!({"name": "a", "url": "https://a.example/"});
        for stale in ["\"1\"", "W/\"11\"", "\"\""] {
            let answer = server.send_with(method, &target, &[("If-Match", stale)], &body);
            answer.json(412);
        }
        let answer = server.send_with(method, "/websites/999", &[("If-Match", "\"1\"")], &body);
        if method != "POST" && target != "/websites" {
            answer.json(404);
        }
    }
    let many = format!("\"1\", {tag}");
    server.send_with("PATCH", &path, &[("If-Match", &many)], &json!({"interval": 5})).json(200);
    server.send_with("PATCH", &path, &[("If-Match", "*")], &json!({"interval": 6})).json(200);
}

#[test]
fn changes_without_a_tag_all_come_in() {
    let server = Server::start("api_patches");
    let id = server.add(&json!({"name": "a", "url": "https://a.example/"}));
    let path = format!("/websites/{id}");
    let bodies = [
        json!({"interval": 90}),
        json!({"regex": "x"}),
        json!({"retries": 1}),
        json!({"headers": {"A": "b"}}),
    ];
    let answers = together(bodies.len(), |n| server.send("PATCH", &path, &bodies[n]).status);
    assert_eq!(answers, [200; 4]);
    let site = server.get(&path).json(200);
    assert_eq!((&site["interval"], &site["regex"]), (&json!(90), &json!("x")));
    assert_eq!((&site["retries"], &site["headers"]["A"]), (&json!(1), &json!("b")));
}

#[test]
fn many_changes_without_a_tag_are_in_nobodys_way() {
    let server = Server::start("api_crowd");
    let path =
        format!("/websites/{}", server.add(&json!({"name": "a", "url": "https://a.example/"})));
    // Who comes when all places are taken is sent away, and comes again.
    let persist = |ask: &dyn Fn() -> Answer| loop {
        let answer = ask();
        if answer.status != 503 {
            return answer.status;
        }
    };
    let statuses = together(40, |n| {
        let verb = if n % 2 == 0 { "pause" } else { "resume" };
        persist(&|| server.ask("POST", &format!("{path}/{verb}"), &[], ""))
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let statuses =
        together(20, |n| persist(&|| server.send("PATCH", &path, &json!({"interval": 60 + n}))));
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[test]
fn a_request_that_is_sent_again_gets_the_same_answer() {
    let tokens = tokens(&[("ann", "write"), ("bob", "write")]);
    let server = Server::start_with("api_again", &[("WEBMON_API_TOKENS", &tokens)]);
    let (ann, bob) = (server.by("ann"), server.by("bob"));
    let body = json!({"name": "a", "url": "https://a.example/"});
    let key = [("Idempotency-Key", "4711")];
    let first = ann.send_with("POST", "/websites", &key, &body);
    first.json(201);
    assert_eq!(first.header("Idempotency-Replayed"), None);
    let id = first.json(201)["website_id"].as_i64().unwrap();
    ann.send("PATCH", &format!("/websites/{id}"), &json!({"name": "b"})).json(200);
    let again = ann.send_with("POST", "/websites", &key, &body);
    assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for name in ["Content-Type", "ETag", "Location"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    let other = json!({"name": "c", "url": "https://a.example/"});
    assert_eq!(ann.send_with("POST", "/websites", &key, &other).fields(), ["Idempotency-Key"]);
    // A key is one client's.
    bob.send_with("POST", "/websites", &key, &other).json(201);
    // What failed may be tried again with the same key.
    let key = [("Idempotency-Key", "4712")];
    ann.send_with("POST", "/websites", &key, &other).json(409);
    ann.send_with("POST", "/websites", &key, &json!({"name": "d"})).json(422);
    let fresh = json!({"name": "d", "url": "https://a.example/"});
    ann.send_with("POST", "/websites", &key, &fresh).json(201);
    let (longest, long) = ("k".repeat(255), "k".repeat(256));
    ann.send_with(
        "POST",
        "/websites",
        &[("Idempotency-Key", &longest)],
        &json!({"name": "e", "url": "https://a.example/"}),
    )
    .json(201);
    for bad in [long.as_str(), ""] {
        let answer = ann.send_with("POST", "/websites", &[("Idempotency-Key", bad)], &fresh);
        assert_eq!(answer.fields(), ["Idempotency-Key"]);
    }
    // After a day a key is forgotten, and its row goes with the next request.
    let mut client = server.database().client();
    client
        .execute("UPDATE idempotency_key SET created_at = now() - interval '25 hours'", &[])
        .unwrap();
    let later = json!({"name": "f", "url": "https://a.example/"});
    let answer = ann.send_with("POST", "/websites", &[("Idempotency-Key", "4711")], &later);
    answer.json(201);
    assert_eq!(answer.header("Idempotency-Replayed"), None);
    let rows: i64 = client.query_one("SELECT count(*) FROM idempotency_key", &[]).unwrap().get(0);
    assert_eq!(rows, 1);
}

#[test]
fn many_requests_with_one_key_add_one_site() {
    let server = Server::start("api_once");
    for round in 0..5 {
        let body = json!({"name": format!("site {round}"), "url": "https://a.example/"});
        let key = format!("key {round}");
        let answers = together(8, |_| {
            // Who comes while the first is under way is told so, and asks again.
            loop {
                let headers = [("Idempotency-Key", key.as_str())];
                let answer = server.send_with("POST", "/websites", &headers, &body);
                if answer.status != 409 {
                    return answer;
                }
                assert!(answer.text().contains("under way"), "{}", answer.text());
                assert_eq!(answer.header("Retry-After"), Some("1"));
            }
        });
        let ids: Vec<Value> = answers.iter().map(|a| a.json(201)["website_id"].clone()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let fresh = answers.iter().filter(|a| a.header("Idempotency-Replayed").is_none()).count();
        assert_eq!(fresh, 1, "one has added it");
    }
    assert_eq!(server.get("/websites").json(200)["items"].as_array().unwrap().len(), 5);
}
