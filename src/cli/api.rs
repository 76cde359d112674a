//! `api` and `token`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::api_args::{ApiArgs, TokenArgs};
use super::args::CommonArgs;
use super::daemon::Daemon;
use super::exit::Exit;
use super::presence::Views;
use super::{options, output};
use crate::api::{self, Api, ApiOptions, Service};
use crate::config::{Settings, token_name};
use crate::probe::Prober;
use crate::runtime::{Stop, Threads};
use crate::site::SiteDefaults;
use crate::store::Store;
use crate::telemetry::{self, Role};

/// Requests under way at a stop get 10 s from the server; its threads end right after.
const CLOSING: Duration = Duration::from_secs(12);
const NAME: &str = "webmon api";

pub(super) fn api(common: &CommonArgs, args: &ApiArgs) -> Result<(), Exit> {
    let flags = args.listen.iter().map(|listen| ("api.listen", listen.as_str()));
    let loaded = options::load(common, flags)?;
    let settings = &loaded.settings;
    check_access(NAME, settings)?;
    if args.check_config {
        return output::line("the configuration is good");
    }
    telemetry::show_only(Role::Api);
    let mut daemon = Daemon::prepare(NAME, &loaded)?;
    let store = options::store_unasked(settings, "webmon-api")?;
    let server = Server::start(NAME, settings, &store, &daemon.stop)?;
    daemon.announce(&loaded, server.address);
    daemon.tell("api", None, &store, Views::default())?;
    daemon.stop.wait_forever();
    server.end();
    daemon.end();
    Ok(())
}

/// The API beside what else a process does.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    threads: Threads,
}

impl Server {
    /// Listens and serves until `stop`.
    pub(super) fn start(
        name: &str,
        settings: &Settings,
        store: &Store,
        stop: &Stop,
    ) -> Result<Self, Exit> {
        check_access(name, settings)?;
        let service = service(name, settings, store)?;
        let mut threads = Threads::new(stop.clone());
        let (limits, access) = (options::limits(settings), options::access(settings));
        let address = api::serve(settings.api.listen, limits, access, &service, &mut threads, stop)
            .map_err(|error| {
                let cure = "set api.listen to an address of this machine that is free";
                Exit::Failed(format!("{name}: {error}; {cure}"))
            })?;
        Ok(Self { address, threads })
    }

    /// After the stop: waits for the requests under way.
    pub(super) fn end(self) {
        let late = self.threads.join(CLOSING);
        if !late.is_empty() {
            log::warn!(threads = late.join(","); "threads did not end in time");
        }
    }
}

fn service(name: &str, settings: &Settings, store: &Store) -> Result<Arc<dyn Service>, Exit> {
    let mut probe = options::probe(settings);
    // Whoever asks for a check must not have us ask ourselves.
    probe.own_listeners.push(settings.api.listen);
    let checks_max = (settings.api.threads / 2).max(1);
    probe.resolver_threads = checks_max * 2;
    let prober = Prober::new(probe).map_err(|error| Exit::Failed(format!("{name}: {error}")))?;
    let monitoring = &settings.monitoring;
    Ok(Arc::new(Api::new(ApiOptions {
        store: store.clone(),
        defaults: SiteDefaults { interval: monitoring.interval, timeout: monitoring.timeout },
        prober: Arc::new(prober),
        checks_max,
        allow_private_addresses: settings.api.allow_private_addresses,
    })))
}

/// Strangers get in with a token or not at all.
fn check_access(name: &str, settings: &Settings) -> Result<(), Exit> {
    let listen = settings.api.listen;
    if settings.api.allow_without_tokens || !options::access(settings).is_open(listen) {
        return Ok(());
    }
    Err(Exit::Usage(format!(
        "{name}: others can reach api.listen, {listen}, and no token keeps them out; make one with \
         `webmon token NAME --role admin` and put its line into api.tokens, or set api.listen to \
         127.0.0.1:{}",
        listen.port()
    )))
}

pub(super) fn token(args: &TokenArgs) -> Result<(), Exit> {
    token_name(&args.name)
        .map_err(|problem| Exit::Usage(format!("webmon token: '{}' {problem}", args.name)))?;
    let token = api::make_token()
        .map_err(|error| Exit::Failed(format!("webmon token: no random bytes: {error}")))?;
    let (role, sha256) = (args.role.role().as_str(), api::hex(&api::hash_token(&token)));
    let entry = format!("{}:{role}:{sha256}", args.name);
    if args.json {
        let answer = json!({
            "name": args.name, "role": role, "token": token, "sha256": sha256, "entry": entry,
        });
        return output::line(&answer.to_string());
    }
    output::line(&format!("token, shown only now:  {token}"))?;
    output::line(&format!("line for api.tokens:    {entry}"))
}
