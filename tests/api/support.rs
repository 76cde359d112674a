//! `webmon api` on a database of its own, and a client that asks it.

// Each test uses a part of it, and is a crate of its own.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use webmon::store::{Store, StoreOptions};

use crate::support::daemon::{Daemon, Lab};
use crate::support::services::TestDatabase;
use crate::support::{CAP, eventually};

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, which must be JSON of an answer with this status.
    #[track_caller]
    pub(crate) fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let kind = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(self.header("Content-Type"), Some(kind), "{}", self.text());
        let value: Value = serde_json::from_slice(&self.body).unwrap();
        if status >= 400 {
            assert_eq!(value["status"], status);
            assert!(value["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{value}");
        }
        value
    }

    /// The fields that a 422 names.
    #[track_caller]
    pub(crate) fn fields(&self) -> Vec<String> {
        let problem = self.json(422);
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("{problem}"));
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub(crate) fn empty(&self, status: u16) -> &Self {
        assert_eq!((self.status, self.text().as_str()), (status, ""));
        self
    }
}

/// A running `webmon api`, and who asks it.
#[derive(Clone)]
pub(crate) struct Server {
    running: Arc<(Lab, Daemon)>,
    pub(crate) address: String,
    token: Option<String>,
}

impl Server {
    /// On a fresh database, with sites anywhere.
    pub(crate) fn start(prefix: &str) -> Self {
        Self::start_with(prefix, &[])
    }

    pub(crate) fn start_with(prefix: &str, env: &[(&str, &str)]) -> Self {
        Self::at(TestDatabase::create(prefix), env)
    }

    pub(crate) fn at(database: TestDatabase, env: &[(&str, &str)]) -> Self {
        let mut lab = Lab::at(database, "127.0.0.1:1", "api");
        store(&lab.database).migrate().unwrap();
        lab.set("WEBMON_API_RATE_LIMIT", "0");
        lab.set("WEBMON_API_ALLOW_PRIVATE_ADDRESSES", "true");
        for (name, value) in env {
            lab.set(name, value);
        }
        let daemon = lab.start("webmon", &["api"]);
        let address = daemon.address();
        Self { running: Arc::new((lab, daemon)), address, token: None }
    }

    pub(crate) fn database(&self) -> &TestDatabase {
        &self.running.0.database
    }

    pub(crate) fn store(&self) -> Store {
        store(self.database())
    }

    pub(crate) fn pid(&self) -> i32 {
        self.running.1.pid()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.running.1.log()
    }

    /// The same API, asked with this token.
    pub(crate) fn by(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(CAP)).unwrap();
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        let length = answer.parse(&bytes).unwrap().unwrap();
        let status = answer.code.unwrap();
        let headers = answer.headers.iter().map(|header| {
            (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned())
        });
        Answer { status, headers: headers.collect(), body: bytes[length..].to_vec() }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "")
    }

    pub(crate) fn send(&self, method: &str, target: &str, body: &Value) -> Answer {
        self.send_with(method, target, &[], body)
    }

    pub(crate) fn send_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let headers = [headers, &[("Content-Type", "application/json")]].concat();
        self.ask(method, target, &headers, &body.to_string())
    }

    /// Adds a site; its id.
    #[track_caller]
    pub(crate) fn add(&self, body: &Value) -> i64 {
        self.send("POST", "/websites", body).json(201)["website_id"].as_i64().unwrap()
    }

    /// All pages of a list; `between` is called after each.
    pub(crate) fn pages(&self, target: &str, mut between: impl FnMut()) -> Vec<Value> {
        let (mut items, mut target) = (Vec::new(), target.to_owned());
        loop {
            let answer = self.get(&target);
            let page = answer.json(200);
            items.extend(page["items"].as_array().unwrap().clone());
            let link = answer.header("Link").map(str::to_owned);
            assert_eq!(link.is_some(), page["next"].is_string(), "{page}");
            let Some(link) = link else { return items };
            between();
            target = link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
            assert!(link.ends_with("; rel=\"next\""), "{link}");
        }
    }

    /// Waits until a GET has this status.
    pub(crate) fn wait_for_status(&self, target: &str, status: u16) -> Answer {
        eventually(&format!("{target} answers {status}"), || {
            let answer = self.get(target);
            if answer.status == status { Ok(answer) } else { Err(answer.text()) }
        })
    }
}

pub(crate) fn store(database: &TestDatabase) -> Store {
    let options = StoreOptions { sample_sites: false, ..database.options() };
    Store::new(options).unwrap()
}

/// A list of tokens as the configuration has it: the token `NAME` for each name and role.
pub(crate) fn tokens(names: &[(&str, &str)]) -> String {
    let entry = |(name, role): &(&str, &str)| {
        let hash: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{name}:{role}:{hash}")
    };
    names.iter().map(entry).collect::<Vec<_>>().join(",")
}
