//! The page /docs in a real browser: Debian's chromium, driven by its chromedriver.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests too

#[path = "support/mod.rs"]
mod support;

#[path = "api/support.rs"]
mod server;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use server::Server;
use support::eventually;
use support::ports::free_port;

/// chromedriver and the browser that it starts.
struct Browser {
    driver: Child,
    session: String,
    agent: ureq::Agent,
    // The browser's own profile.
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "no chromedriver here ({error}): ./test.sh installs it when run as root; \
                     elsewhere: apt-get install chromium chromium-driver"
                )
            });
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            session: format!("http://127.0.0.1:{port}"),
            agent: ureq::Agent::new_with_config(config),
            _profile: profile,
        };
        eventually("chromedriver is there", || browser.try_ask("GET", "/status", &Value::Null));
        let profile = browser._profile.path().display();
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--no-first-run".to_owned(),
            "--window-size=1280,1600".to_owned(),
            // Whatever is asked of other hosts fails, and is seen in the log.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1".to_owned(),
            format!("--user-data-dir={profile}"),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        }}});
        let session = browser.ask("POST", "/session", &wanted);
        let id = session["sessionId"].as_str().unwrap_or_else(|| panic!("{session}")).to_owned();
        browser.session = format!("{}/session/{id}", browser.session);
        browser
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let answer = match method {
            "GET" => self.agent.get(&url).call(),
            "DELETE" => self.agent.delete(&url).call(),
            _ => self.agent.post(&url).content_type("application/json").send(body.to_string()),
        };
        let text = answer.and_then(|mut answer| {
            answer.body_mut().with_config().limit(64 << 20).read_to_string()
        });
        let text = text.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match &answer["value"] {
            Value::Object(value) if value.contains_key("error") => Err(text),
            value => Ok(value.clone()),
        }
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What a script in the page returns.
    #[track_caller]
    fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Clicks the first element that is found, once it is there.
    #[track_caller]
    fn click(&self, selector: &str) {
        eventually(&format!("{selector} is clicked"), || {
            let wanted = json!({ "using": "css selector", "value": selector });
            let element = self.try_ask("POST", "/element", &wanted)?;
            let id = element.as_object().and_then(|o| o.values().next()).and_then(Value::as_str);
            let id = id.ok_or("no element")?;
            self.try_ask("POST", &format!("/element/{id}/click"), &json!({}))
        });
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        let log = self.ask("POST", "/se/log", &json!({ "type": kind }));
        log.as_array().unwrap().clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; chromedriver alone would leave it.
        let _ = self.try_ask("DELETE", "", &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[test]
fn the_page_shows_every_operation_and_tries_one_out() {
    let server = Server::start("api_docs");
    server.add(&json!({"name": "Seen in the browser", "url": "https://a.example/"}));
    let browser = Browser::start();
    let base = format!("http://{}", server.address);
    browser.ask("POST", "/url", &json!({ "url": format!("{base}/") }));

    let document = server.get("/openapi.json").json(200);
    let paths = document["paths"].as_object().unwrap();
    let mut expect: Vec<String> = paths
        .iter()
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    expect.sort();
    let shown = "return [...document.querySelectorAll('.opblock')].map(block => \
        block.querySelector('.opblock-summary-method').textContent + ' ' + \
        block.querySelector('[data-path]').dataset.path)";
    eventually("every operation is shown", || {
        let found = browser.run(shown);
        let found = found.as_array().ok_or("no list")?;
        let mut found: Vec<String> =
            found.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect();
        found.sort();
        if found == expect { Ok(()) } else { Err(format!("{found:?}")) }
    });
    assert_eq!(browser.run("return location.pathname"), "/docs");

    let block = "#operations-websites-listWebsites";
    browser.click(&format!("{block} .opblock-summary-control"));
    browser.click(&format!("{block} .try-out__btn"));
    browser.click(&format!("{block} .execute"));
    let body = format!(
        "return document.querySelector('{block} .live-responses-table tbody .response-col_description')\
         ?.textContent"
    );
    eventually("the answer is shown", || {
        let text = browser.run(&body);
        let text = text.as_str().unwrap_or_default().to_owned();
        if text.contains("Seen in the browser") { Ok(()) } else { Err(text) }
    });
    if let Some(file) = std::env::var_os("WEBMON_TEST_SCREENSHOT") {
        let picture = browser.ask("GET", "/screenshot", &Value::Null);
        let picture = picture.as_str().unwrap();
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, picture).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    let complaints = browser.log("browser");
    assert!(complaints.is_empty(), "{complaints:?}");
    let requests: Vec<String> = browser
        .log("performance")
        .iter()
        .filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().map(str::to_owned))?
        })
        .collect();
    assert!(requests.len() > 4, "{requests:?}");
    // The page that a browser begins with is in the browser.
    let own = |url: &&String| {
        let starts = [&format!("{base}/"), "data:", "chrome://"];
        starts.iter().any(|start| url.starts_with(*start))
    };
    let foreign: Vec<&String> = requests.iter().filter(|url| !own(url)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn the_pages_files_come_packed_and_plain() {
    let server = Server::start("api_assets");
    let page = server.get("/docs");
    assert!(page.header("Content-Security-Policy").unwrap().starts_with("default-src 'none'"));
    let text = page.text();
    let names: Vec<&str> = text.split('"').filter(|part| part.starts_with("/docs/")).collect();
    assert_eq!(names.len(), 3, "{text}");
    for name in names {
        let plain = server.get(name);
        assert_eq!((plain.status, plain.header("Content-Encoding")), (200, None), "{name}");
        assert!(plain.header("Cache-Control").unwrap().contains("immutable"), "{name}");
        for (accepted, is_packed) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("identity", false)]
        {
            let answer = server.ask("GET", name, &[("Accept-Encoding", accepted)], "");
            let is_packed = is_packed && !name.starts_with("/docs/docs.");
            assert_eq!(answer.header("Content-Encoding"), is_packed.then_some("gzip"), "{name}");
            let body = match is_packed {
                true => {
                    let mut body = Vec::new();
                    let mut decoder = flate2::read::GzDecoder::new(answer.body.as_slice());
                    std::io::Read::read_to_end(&mut decoder, &mut body).unwrap();
                    body
                }
                false => answer.body,
            };
            assert_eq!(body, plain.body, "{name}");
        }
    }
}
