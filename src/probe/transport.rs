//! ureq's resolver, connector and transport on our own sockets.
//!
//! ureq's own time-outs are off: everything here ends by the check's one deadline. All three
//! stamp the phases where they happen, and report every failure as a [`fault`], so that ureq
//! can't take it for something else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver as UreqResolver};
use ureq::unversioned::transport::{
    Buffers as UreqBuffers, ConnectionDetails, Connector as UreqConnector, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use crate::check::{Failure, FailureKind};
use crate::runtime::now;
use crate::site::IpVersion;

use super::buffers::Buffers;
use super::failure::{fault, from_socket, from_tls};
use super::gate;
use super::guard::Guard;
use super::kept::Line;
use super::proxy::{self, Via};
use super::reach::Reach;
use super::resolver::{ADDRESSES_MAX, LookupError, Resolver};
use super::route::{self, Route};
use super::socket::{Socket, is_own_trouble};
use super::timings;
use super::tls::{Tls, TlsError};

/// Largest head of an answer, in bytes.
pub(super) const HEAD_MAX: usize = 64 << 10;
/// Most bytes before the body, over all heads: a server may send interim answers (1xx) for ever,
/// and ureq has no bound over them all.
const BEFORE_BODY_MAX: u64 = 128 << 10;

/// A ureq agent that does one request at a time and nothing else: no redirects, no proxy from
/// the environment, no kept connections, no headers of its own.
pub(super) fn agent(reach: &Reach, tls: Arc<ClientConfig>) -> Agent {
    use ureq::config::{AutoHeaderValue, Config};

    let config = Config::builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .max_response_header_size(HEAD_MAX)
        .timeout_await_100(None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .user_agent(AutoHeaderValue::None)
        .build();
    let Reach { guard, resolver } = reach.clone();
    Agent::with_parts(config, Connector { tls, guard }, Names(resolver))
}

/// The host without the brackets of an IPv6 address.
fn bare_host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[derive(Debug)]
struct Names(Arc<Resolver>);

impl UreqResolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        timings::with(timings::Context::open_hop);
        #[cfg(test)]
        panic_if_told(timings::Phase::Resolve);
        let mut addresses = self.empty();
        if let Some(address) = timings::with(timings::Context::reuse) {
            addresses.push(address);
            return Ok(addresses);
        }
        let route = current_route();
        match route.as_deref().and_then(|route| route.proxy.as_deref()) {
            None => self.add(bare_host(uri), port(uri), route.as_deref(), &mut addresses),
            Some(via) => self
                .add(&via.host, via.port, route.as_deref(), &mut addresses)
                .map_err(|failure| proxy::blamed(failure, "proxy:")),
        }
        .map_err(fault)?;
        timings::with(timings::Context::resolved);
        Ok(addresses)
    }
}

/// The port of `uri`, its scheme's if it names none.
fn port(uri: &Uri) -> u16 {
    let https = uri.scheme_str() == Some("https");
    uri.port_u16().unwrap_or(if https { 443 } else { 80 })
}

fn current_route() -> Option<Arc<Route>> {
    timings::with(|context| context.route.clone())
}

impl Names {
    /// Adds the addresses of `host` that may be dialled, in the order in which they shall be.
    fn add(
        &self,
        host: &str,
        port: u16,
        route: Option<&Route>,
        addresses: &mut ResolvedSocketAddrs,
    ) -> Result<(), Failure<'static>> {
        let version = route.map_or(IpVersion::Any, |route| route.ip_version);
        let only = route::only(version);
        // A literal address needs no look-up, and no other thread: 17 µs less.
        if let Ok(address) = host.parse::<IpAddr>() {
            if let Some((_, family)) = only.filter(|(is_wanted, _)| !is_wanted(&address)) {
                let detail = format!("{address} is no {family} address");
                return Err(Failure::new(FailureKind::Dns, detail));
            }
            addresses.push(SocketAddr::new(address, port));
            return Ok(());
        }
        let found = self.0.addresses(host, timings::deadline()).map_err(lookup_failure)?;
        let mut push = |address: &IpAddr| addresses.push(SocketAddr::new(*address, port));
        if version == IpVersion::Any {
            found.iter().take(ADDRESSES_MAX).for_each(push);
            return Ok(());
        }
        let mut wanted = found.to_vec();
        if let Some((is_wanted, family)) = only {
            wanted.retain(is_wanted);
            if wanted.is_empty() {
                let detail = format!("the name has no {family} address");
                return Err(Failure::new(FailureKind::Dns, detail));
            }
        }
        route::sort(&mut wanted, version);
        wanted.iter().take(ADDRESSES_MAX).for_each(&mut push);
        Ok(())
    }
}

fn lookup_failure(error: LookupError) -> Failure<'static> {
    match error {
        LookupError::Failed(why) => Failure::new(FailureKind::Dns, why),
        LookupError::NoAddress => Failure::new(FailureKind::Dns, "the name has no address"),
        LookupError::Late => timings::timed_out(),
        LookupError::Saturated => Failure::new(FailureKind::Internal, "resolver saturated"),
    }
}

#[derive(Debug)]
struct Connector {
    tls: Arc<ClientConfig>,
    guard: Arc<Guard>,
}

impl UreqConnector for Connector {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let is_tls = details.needs_tls();
        let route = current_route();
        let route = route.as_deref();
        let via = route.and_then(|route| route.proxy.as_ref());
        if via.is_some()
            && let Ok(address) = bare_host(details.uri).parse()
        {
            // The proxy would dial it for us. What a name is for it we don't know.
            self.judge(&SocketAddr::new(address, port(details.uri))).map_err(fault)?;
        }
        if timings::with(|context| context.is_reused())
            && let Some(address) = details.addrs.first()
        {
            self.judge(address).and_then(|()| gate::pass(address.ip())).map_err(fault)?;
        }
        let reused = timings::with(timings::Context::take_reused);
        let is_reused = reused.is_some();
        let line = match reused {
            Some(line) => {
                timings::with(|context| context.connected_before(&line));
                line
            }
            None => {
                let line = self.line(details, via).map_err(fault)?;
                let keeps = route.is_some_and(|route| route.keeps);
                if keeps || timings::with(|context| context.sends_body) {
                    line.socket.send_at_once().map_err(|error| fault(from_socket(&error)))?;
                }
                line
            }
        };
        #[cfg(test)]
        panic_if_told(timings::Phase::Connect);
        let mut buffers = timings::with(timings::Context::take_buffers);
        buffers.open(is_tls);
        let absolute = via
            .filter(|_| !is_tls)
            .and_then(|via| Some(Box::new((details.uri.authority()?.to_string(), via.clone()))));
        let mut connection =
            Connection { line: Some(line), is_tls, buffers, received: 0, absolute };
        if is_tls && !is_reused {
            connection.secure(&self.tls, route, bare_host(details.uri)).map_err(fault)?;
        }
        Ok(Some(connection))
    }
}

impl Connector {
    /// Refuses an address that may not be dialled.
    fn judge(&self, address: &SocketAddr) -> Result<(), Failure<'static>> {
        let public_only = current_route().is_some_and(|route| route.public_only);
        match self.guard.refusal(address, public_only) {
            None => Ok(()),
            Some(why) => Err(Failure::new(FailureKind::Blocked, why)),
        }
    }

    /// A connection of TCP, through the proxy if there is one.
    fn line(
        &self,
        details: &ConnectionDetails<'_>,
        via: Option<&Arc<Via>>,
    ) -> Result<Line, Failure<'static>> {
        let is_tls = details.needs_tls();
        let dialled = self.dial(&details.addrs);
        let (mut socket, address) = match via {
            None => dialled?,
            Some(_) => dialled.map_err(|failure| proxy::blamed(failure, "proxy"))?,
        };
        if let Some(via) = via.filter(|_| is_tls) {
            let host = details.uri.host().unwrap_or_default();
            proxy::tunnel(&mut socket, via, &format!("{host}:{}", port(details.uri)))?;
        }
        timings::with(|context| context.connected(address, is_tls));
        Ok(Line::new(socket, address))
    }

    /// Connects to the first of `addresses` that can be reached, past those that may not be.
    fn dial(&self, addresses: &[SocketAddr]) -> Result<(Socket, SocketAddr), Failure<'static>> {
        let mut refused = None;
        let mut allowed: Vec<&SocketAddr> = addresses
            .iter()
            .filter(|address| {
                let verdict = self.judge(address);
                let is_allowed = verdict.is_ok();
                refused = refused.take().or(verdict.err());
                is_allowed
            })
            .collect();
        let deadline = timings::deadline();
        let mut failure =
            refused.unwrap_or_else(|| Failure::new(FailureKind::Dns, "the name has no address"));
        if !allowed.is_empty() {
            timings::with(timings::Context::connecting);
        }
        gate::sort(&mut allowed);
        let mut has_real_failure = false;
        for (index, address) in allowed.iter().enumerate() {
            gate::pass(address.ip())?;
            let start = now().mono;
            // Half of what is left, so that one dead address can't take all the time.
            let limit = match allowed.len() - index {
                1 => deadline,
                _ => start.saturating_add(deadline.saturating_sub(start) / 2),
            };
            match Socket::connect(address, limit) {
                Ok(mut socket) => {
                    socket.set_deadline(deadline);
                    return Ok((socket, **address));
                }
                // That this machine has no way there, such as no IPv6, is worth telling only if
                // no address told anything better.
                Err(error) if has_real_failure && is_no_way(&error) => {}
                Err(error) => {
                    has_real_failure = !is_no_way(&error);
                    failure = connect_failure(&error, address, start);
                }
            }
        }
        Err(failure)
    }
}

fn is_no_way(error: &io::Error) -> bool {
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    is_own_trouble(error)
        || error.kind() == io::ErrorKind::NetworkUnreachable
        || error.raw_os_error() == Some(no_family)
}

fn connect_failure(error: &io::Error, address: &SocketAddr, start: Duration) -> Failure<'static> {
    let now = now().mono;
    if error.kind() == io::ErrorKind::TimedOut && now < timings::deadline() {
        // Its share of the time is over, or the kernel gave up; the check goes on.
        let waited = now.saturating_sub(start).as_secs_f64();
        let detail = format!("{address}: no answer in {waited:.3} s");
        return Failure::new(FailureKind::Connect, detail);
    }
    let failure = from_socket(error);
    match failure.kind {
        FailureKind::Timeout => failure,
        kind => Failure::new(kind, format!("{address}: {}", failure.detail)),
    }
}

/// One connection, for one request; its buffers go back to the thread with it.
struct Connection {
    /// Gone when it was handed on to be kept.
    line: Option<Line>,
    is_tls: bool,
    buffers: Buffers,
    received: u64,
    /// The request is still to be rewritten for a proxy: for this authority.
    absolute: Option<Box<(String, Arc<Via>)>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("line", &self.line).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        timings::give_buffers(std::mem::take(&mut self.buffers));
    }
}

impl Connection {
    /// Shakes hands, by the way's own configuration if it has one.
    fn secure(
        &mut self,
        usual: &Arc<ClientConfig>,
        route: Option<&Route>,
        host: &str,
    ) -> Result<(), Failure<'static>> {
        let Some(line) = &mut self.line else { return Err(gone()) };
        let name = route.and_then(|route| route.server_name.as_deref()).unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Failure::new(FailureKind::Tls, "the host is no name for a certificate"))?;
        line.config = route.and_then(|route| route.tls.clone());
        let config = line.config.as_ref().unwrap_or(usual).clone();
        // What this handshake shows is the connection's; the check's is over all connections.
        let before = timings::with(|context| context.certificate_end.take());
        let tls = Tls::handshake(config, name, &mut line.socket, &mut self.buffers.records);
        line.certificate_end = timings::with(|context| {
            let shown = context.certificate_end;
            if let Some(before) = before {
                context.saw_chain_until(before);
            }
            shown
        });
        line.tls = Some(tls.map_err(|error| from_tls(&error))?);
        timings::with(timings::Context::tls_done);
        Ok(())
    }

    /// One read into the input; how many bytes came, 0 for the end.
    fn receive(&mut self) -> Result<usize, TlsError> {
        let (room, records) = self.buffers.room();
        let read = match &mut self.line {
            None => 0,
            Some(Line { socket, tls: None, .. }) => socket.receive(room)?,
            Some(Line { socket, tls: Some(tls), .. }) => tls.receive(socket, records, room)?,
        };
        self.buffers.input_appended(read);
        self.received += read as u64;
        Ok(read)
    }
}

/// A connection that was handed on is asked for more. ureq never does.
fn gone() -> Failure<'static> {
    Failure::new(FailureKind::Internal, "the connection is gone")
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn UreqBuffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        timings::with(timings::Context::sending);
        let bytes = self.buffers.written(amount);
        let sent = match (&mut self.line, self.absolute.take()) {
            (None, _) => return Err(fault(gone())),
            (Some(Line { socket, tls: Some(tls), .. }), _) => tls.send_all(socket, bytes),
            (Some(line), None) => line.socket.send_all(bytes),
            // The first line is whole: none is longer than the output.
            (Some(line), Some(way)) => {
                line.socket.send_all(&proxy::absolute(bytes, &way.0, &way.1))
            }
        };
        sent.map_err(|error| fault(from_socket(&error)))?;
        timings::with(timings::Context::sent);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let (in_body, transfer_limit) =
            timings::with(|context| (context.in_body, context.transfer_limit));
        self.buffers.may_grow = !in_body;
        let limit = if in_body { transfer_limit } else { BEFORE_BODY_MAX };
        loop {
            if self.buffers.input_append_buf().is_empty() {
                return Ok(false);
            }
            let read = self.receive().map_err(|error| fault(from_tls(&error)))?;
            #[cfg(test)]
            panic_if_told(timings::Phase::Transfer);
            timings::with(|context| context.received(self.buffers.newest(read)));
            if read == 0 {
                return Ok(false);
            }
            if self.received > limit {
                let what = if in_body { "with the body" } else { "before the body" };
                let detail = format!("more than {} KiB {what}", limit >> 10);
                return Err(fault(Failure::new(FailureKind::Http, detail)));
            }
            if in_body || self.buffers.has_head(HEAD_MAX) {
                return Ok(true);
            }
        }
    }

    /// ureq asks when an answer has ended, on a connection that HTTP allows to use again, and has
    /// no more to read: that is the time to keep it. ureq itself keeps none, so that each site has
    /// its own and no more than one.
    fn is_open(&mut self) -> bool {
        if let Some(line) = self.line.take() {
            timings::with(|context| context.keep(line));
        }
        false
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

#[cfg(test)]
fn panic_if_told(phase: timings::Phase) {
    assert!(timings::with(|context| context.panic_in) != Some(phase), "told to panic in {phase:?}");
}
