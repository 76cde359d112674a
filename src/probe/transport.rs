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

use super::buffers::Buffers;
use super::failure::{fault, from_socket, from_tls};
use super::gate;
use super::guard::Guard;
use super::resolver::{LookupError, Resolver};
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
pub(super) fn agent(resolver: Resolver, tls: Arc<ClientConfig>, guard: Guard) -> Agent {
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
    Agent::with_parts(config, Connector { tls, guard }, Names(resolver))
}

/// The host without the brackets of an IPv6 address.
fn bare_host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[derive(Debug)]
struct Names(Resolver);

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
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        let host = bare_host(uri);
        let mut addresses = self.empty();
        // A literal address needs no look-up, and no other thread: 17 µs less.
        if let Ok(address) = host.parse::<IpAddr>() {
            addresses.push(SocketAddr::new(address, port));
        } else {
            let found = self.0.addresses(host, timings::deadline());
            for address in found.map_err(|error| fault(lookup_failure(error)))?.iter() {
                addresses.push(SocketAddr::new(*address, port));
            }
        }
        timings::with(timings::Context::resolved);
        Ok(addresses)
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
    guard: Guard,
}

impl UreqConnector for Connector {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let is_tls = details.needs_tls();
        let (socket, address) = self.dial(&details.addrs).map_err(fault)?;
        let sends_body = timings::with(|context| {
            context.connected(address, is_tls);
            context.sends_body
        });
        if sends_body {
            socket.send_at_once().map_err(|error| fault(from_socket(&error)))?;
        }
        #[cfg(test)]
        panic_if_told(timings::Phase::Connect);
        let mut buffers = timings::with(timings::Context::take_buffers);
        buffers.open(is_tls);
        let mut connection = Connection { socket, tls: None, buffers, received: 0 };
        if is_tls {
            let name = ServerName::try_from(bare_host(details.uri).to_owned()).map_err(|_| {
                fault(Failure::new(FailureKind::Tls, "the host is no name for a certificate"))
            })?;
            let Connection { socket, buffers, .. } = &mut connection;
            let tls = Tls::handshake(self.tls.clone(), name, socket, &mut buffers.records)
                .map_err(|error| fault(from_tls(&error)))?;
            connection.tls = Some(tls);
            timings::with(timings::Context::tls_done);
        }
        Ok(Some(connection))
    }
}

impl Connector {
    /// Connects to the first of `addresses` that can be reached, past those that may not be.
    fn dial(&self, addresses: &[SocketAddr]) -> Result<(Socket, SocketAddr), Failure<'static>> {
        let mut refused = None;
        let mut allowed: Vec<&SocketAddr> = addresses
            .iter()
            .filter(|address| {
                let refusal = self.guard.refusal(address);
                let may = refusal.is_none();
                refused = refused.take().or(refusal);
                may
            })
            .collect();
        let deadline = timings::deadline();
        let mut failure = match refused {
            Some(why) => Failure::new(FailureKind::Blocked, why),
            None => Failure::new(FailureKind::Dns, "the name has no address"),
        };
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
    socket: Socket,
    tls: Option<Tls>,
    buffers: Buffers,
    received: u64,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        timings::give_buffers(std::mem::take(&mut self.buffers));
    }
}

impl Connection {
    /// One read into the input; how many bytes came, 0 for the end.
    fn receive(&mut self) -> Result<usize, TlsError> {
        let (room, records) = self.buffers.room();
        let read = match &mut self.tls {
            None => self.socket.receive(room)?,
            Some(tls) => tls.receive(&mut self.socket, records, room)?,
        };
        self.buffers.input_appended(read);
        self.received += read as u64;
        Ok(read)
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn UreqBuffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        timings::with(timings::Context::sending);
        let bytes = self.buffers.written(amount);
        let sent = match &mut self.tls {
            None => self.socket.send_all(bytes),
            Some(tls) => tls.send_all(&mut self.socket, bytes),
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

    fn is_open(&mut self) -> bool {
        // Never used a second time.
        false
    }

    fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

#[cfg(test)]
fn panic_if_told(phase: timings::Phase) {
    assert!(timings::with(|context| context.panic_in) != Some(phase), "told to panic in {phase:?}");
}
