//! The API on a database of its own, and a client that asks it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use webmon::api::{Api, ApiOptions, Caller, Method, Request, Role, Service};
use webmon::probe::{ProbeOptions, Prober};
use webmon::runtime::now;
use webmon::site::SiteDefaults;
use webmon::store::{Store, StoreOptions};

use crate::support::services::TestDatabase;

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

/// The API of one process.
#[derive(Clone)]
pub(crate) struct Server {
    api: Arc<Api>,
    role: Option<Role>,
    name: &'static str,
}

impl Server {
    pub(crate) fn with(options: StoreOptions, allow_private_addresses: bool) -> Self {
        let prober = Prober::new(ProbeOptions::default()).unwrap();
        let api = Api::new(ApiOptions {
            store: Store::new(options).unwrap(),
            defaults: SiteDefaults { interval: 60, timeout: 10 },
            prober: Arc::new(prober),
            checks_max: 4,
            allow_private_addresses,
        });
        Self { api: Arc::new(api), role: Some(Role::Admin), name: "local" }
    }

    pub(crate) fn on(database: &TestDatabase) -> Self {
        let options = StoreOptions { sample_sites: false, ..database.options() };
        Store::new(options.clone()).unwrap().migrate().unwrap();
        Self::with(options, true)
    }

    /// The same API, asked by somebody with this role.
    pub(crate) fn by(&self, name: &'static str, role: Option<Role>) -> Self {
        Self { role, name, ..self.clone() }
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = url::form_urlencoded::parse(query.as_bytes());
        let lower = |(name, value): &(&str, &str)| (name.to_ascii_lowercase(), (*value).to_owned());
        let request = Request {
            method: Method::parse(method).unwrap(),
            path: path.to_owned(),
            query: query.into_owned().collect(),
            headers: headers.iter().map(lower).collect(),
            body: body.as_bytes().to_vec(),
            caller: Caller {
                name: self.name.to_owned(),
                role: self.role,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            },
            deadline: now().mono + Duration::from_secs(30),
        };
        let response = self.api.respond(&request);
        let headers = response.headers.into_iter().map(|(name, value)| (name.to_owned(), value));
        Answer { status: response.status, headers: headers.collect(), body: response.body }
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
}
