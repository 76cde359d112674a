//! The resources as a [`Service`]: finds the route, looks at the caller, answers.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::query::Query;
use super::refusal::{Answer, Refusal};
use super::routes::{Needs, ROUTES, Route};
use super::{Method, Problem, Request, Response, Service, openapi};
use crate::probe::Prober;
use crate::runtime::mono;
use crate::site::SiteDefaults;
use crate::store::{ErrorKind, Store, StoreError};
use crate::telemetry::{metrics, shown};

/// After a database that did not answer all who need it are told so at once for this long: each
/// of them would hold a thread until the call is given up.
const AWAY: Duration = Duration::from_secs(1);

/// What the resources stand on.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The database.
    pub store: Store,
    /// Values for what sites leave open.
    pub defaults: SiteDefaults,
    /// Makes the checks of `POST /check`, and knows which addresses may be dialled.
    pub prober: Arc<Prober>,
    /// One-shot checks at once, at least 1: each holds a thread of the server up to its timeout.
    pub checks_max: usize,
    /// Whether sites that come in here may be at private and other special addresses.
    pub allow_private_addresses: bool,
}

/// The resources.
#[derive(Debug)]
pub struct Api {
    pub(super) options: ApiOptions,
    /// One-shot checks under way.
    pub(super) checks: AtomicUsize,
    document: String,
    away: Mutex<Option<Away>>,
}

/// The database does not answer.
#[derive(Debug)]
struct Away {
    /// Not asked again before (monotonic).
    until: Duration,
    error: StoreError,
}

/// A request, with its route.
pub(super) struct Call<'a> {
    pub(super) api: &'a Api,
    pub(super) request: &'a Request,
    pub(super) query: Query<'a>,
    path: BTreeMap<&'static str, String>,
}

impl Call<'_> {
    pub(super) fn store(&self) -> &Store {
        &self.api.options.store
    }

    /// The part of the path that stands for `name`, decoded.
    pub(super) fn part(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }
}

impl Api {
    /// The resources on what `options` says. Nothing is asked of the database yet.
    #[must_use]
    pub fn new(options: ApiOptions) -> Self {
        let document = openapi::document().to_string();
        Self { options, checks: AtomicUsize::new(0), document, away: Mutex::new(None) }
    }

    /// The OpenAPI document.
    pub(super) fn document(&self) -> &str {
        &self.document
    }

    fn answer(&self, request: &Request) -> Answer {
        let found: Vec<(&Route, BTreeMap<&'static str, String>)> = ROUTES
            .iter()
            .filter_map(|route| Some((route, matched(route.path, &request.path)?)))
            .collect();
        // A fixed part of a path goes before one that stands for something.
        let fewest = found.iter().map(|(_, parts)| parts.len()).min();
        let found: Vec<_> =
            found.into_iter().filter(|(_, parts)| Some(parts.len()) == fewest).collect();
        if found.is_empty() {
            let detail = "nothing is at this path; /docs lists all there is";
            return Err(Problem::new(404, detail).into());
        }
        let allowed = || {
            let has = |method| found.iter().any(|(route, _)| route.serves(method));
            let methods = Method::ALL.into_iter().filter(|m| *m == Method::Options || has(*m));
            methods.map(Method::as_str).collect::<Vec<_>>().join(", ")
        };
        if request.method == Method::Options {
            return Ok(Response::empty(204).with("Allow", allowed()));
        }
        let Some((route, path)) = found.iter().find(|(route, _)| route.serves(request.method))
        else {
            let detail = format!("this path takes {}", allowed());
            return Err(Refusal::from(Problem::new(405, detail)).with("Allow", allowed()));
        };
        authorize(route, request)?;
        let query = Query::read(route, &request.query)?;
        if route.needs == Needs::Database
            && let Some(error) = self.away()
        {
            return Err(error.into());
        }
        (route.handler)(&Call { api: self, request, query, path: path.clone() })
    }

    /// What the database said a moment ago, if it was away.
    fn away(&self) -> Option<StoreError> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.as_ref().filter(|away| mono() < away.until).map(|away| away.error.clone())
    }

    /// Asks the database whether it is there, unless it was away a moment ago; what is wrong.
    pub(super) fn database_fault(&self) -> Option<String> {
        if let Some(error) = self.away() {
            return Some(error.to_string());
        }
        let ping = self.options.store.ping();
        self.note_database(ping.as_ref().err());
        ping.err().map(|error| error.to_string())
    }

    /// Logs the change from a database that answers to one that doesn't, and back.
    fn note_database(&self, error: Option<&StoreError>) {
        let now_away = error.map(|error| {
            let is_outage = error.kind() == ErrorKind::Outage;
            let until = mono() + if is_outage { AWAY } else { Duration::ZERO };
            Away { until, error: error.clone() }
        });
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let was_away = std::mem::replace(&mut *away, now_away).is_some();
        drop(away);
        match error {
            Some(error) if !was_away => log::warn!(error:%; "database away, API answers 503"),
            None if was_away => log::info!("database back"),
            _ => {}
        }
    }
}

impl Service for Api {
    fn is_quick(&self, request: &Request) -> bool {
        let is_it = |route: &Route| {
            route.serves(request.method) && matched(route.path, &request.path).is_some()
        };
        ROUTES.iter().any(|route| route.needs == Needs::Nothing && is_it(route))
    }

    fn respond(&self, request: &Request) -> Response {
        match self.answer(request) {
            Ok(response) => response,
            Err(refusal) => {
                if let Some(error) = &refusal.cause {
                    self.note_database(Some(error));
                }
                refusal.response()
            }
        }
    }
}

fn authorize(route: &Route, request: &Request) -> Result<(), Refusal> {
    let Some(needed) = route.role else { return Ok(()) };
    match request.caller.role {
        Some(role) if role >= needed => Ok(()),
        Some(role) => {
            let (role, needed) = (role.as_str(), needed.as_str());
            let detail = format!("this needs the role {needed}; the token has {role}");
            Err(Problem::new(403, detail).into())
        }
        None => {
            let detail = "this needs a token: send 'Authorization: Bearer TOKEN'";
            Err(Refusal::from(Problem::new(401, detail))
                .with("WWW-Authenticate", "Bearer realm=\"webmon\""))
        }
    }
}

/// What stands for each name in the template `path`, decoded; `None` where the path is another.
fn matched(template: &str, path: &str) -> Option<BTreeMap<&'static str, String>> {
    let mut parts = BTreeMap::new();
    let (mut wanted, mut found) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(parts),
            (Some(wanted), Some(found)) => {
                let name = super::routes::NAMES
                    .into_iter()
                    .find(|name| wanted.strip_prefix('{') == Some(&format!("{name}}}")));
                match name {
                    Some(_) if found.is_empty() => return None,
                    Some(name) => drop(parts.insert(name, super::query::decoded(found)?)),
                    None if wanted == found => {}
                    None => return None,
                }
            }
            _ => return None,
        }
    }
}

/// `GET /metrics`.
pub(super) fn metrics_page(_: &Call<'_>) -> Answer {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(Response::new(200, content_type, metrics().render(shown()))
        .with("Cache-Control", "no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_part_by_part() {
        let found = |path: &str| {
            let found: Option<BTreeMap<_, _>> = matched("/websites/{website_id}/pause", path);
            found.map(|parts| parts["website_id"].clone())
        };
        assert_eq!(found("/websites/7/pause").as_deref(), Some("7"));
        assert_eq!(found("/websites/%37/pause").as_deref(), Some("7"));
        for other in ["/websites/7", "/websites//pause", "/websites/7/pause/", "/Websites/7/pause"]
        {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
