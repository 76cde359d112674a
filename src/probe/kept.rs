//! Connections that are kept from check to check, for the sites that ask for it.
//!
//! Invariants:
//! - A site has one place for one connection, and only its own checks use it.
//! - A connection is kept only when ureq would: the answer was read to its end, HTTP/1.1 and both
//!   sides allow it, and nothing came after it. It is kept for the site's own origin alone.
//! - It is used only while nothing came on it, for the same TLS configuration, and its address is
//!   judged by the guard again. A connection that ends before the first byte of an answer is
//!   followed by a fresh one: servers close idle connections whenever they like.
//! - After [`USES_MAX`] checks the next one dials anew: otherwise nobody would see that the name is
//!   gone or the certificate has changed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;

use crate::runtime::{now, wall};

use crate::site::KEPT_INTERVAL_MAX_S;

use super::socket::Socket;
use super::timings::{self, Context};
use super::tls::Tls;

/// Most checks over one connection; at an interval of 30 s close to an hour.
const USES_MAX: u32 = 100;
/// Longest time between two checks over one connection: address translators forget idle ones
/// silently, commonly after 350 s or more, and the check would run out of its time.
const IDLE_MAX: Duration = Duration::from_secs(KEPT_INTERVAL_MAX_S as u64);

/// A connection and what is known of it.
pub(super) struct Line {
    pub(super) socket: Socket,
    pub(super) tls: Option<Tls>,
    /// The address that was dialled.
    pub(super) address: SocketAddr,
    /// The TLS configuration, if the site has its own.
    pub(super) config: Option<Arc<ClientConfig>>,
    /// Earliest end of the certificates that its handshake showed.
    pub(super) certificate_end: Option<i64>,
    /// When it was made, in seconds since the epoch.
    made_s: i64,
    uses: u32,
    idle_since: Duration,
}

// Its configuration has the client's key.
impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Line {
    pub(super) fn new(socket: Socket, address: SocketAddr) -> Self {
        Self {
            socket,
            tls: None,
            address,
            config: None,
            certificate_end: None,
            made_s: wall().as_second(),
            uses: 0,
            idle_since: Duration::ZERO,
        }
    }

    /// Whether it stands, and nothing came that nobody asked for.
    fn is_idle(&mut self) -> bool {
        self.tls.as_mut().is_none_or(Tls::is_idle) && self.socket.is_idle()
    }

    /// Whether its certificate has come to its end since its handshake: the next visitor would see
    /// that, so the next check has to.
    fn has_expired(&self, now_s: i64) -> bool {
        self.certificate_end.is_some_and(|end| (self.made_s..=now_s).contains(&end))
    }

    /// Whether nobody on the way will have forgotten it at the time `now`.
    fn is_young(&self, now: Duration) -> bool {
        now.saturating_sub(self.idle_since) <= IDLE_MAX
    }

    fn is_for(&self, config: Option<&Arc<ClientConfig>>) -> bool {
        match (&self.config, config) {
            (Some(own), Some(wanted)) => Arc::ptr_eq(own, wanted),
            (own, wanted) => own.is_none() && wanted.is_none(),
        }
    }
}

impl Context {
    /// Keeps `line` after its answer, if the request under way is to keep its connection.
    pub(super) fn keep(&mut self, mut line: Line) {
        line.uses += 1;
        let keeps = self.route.as_ref().is_some_and(|route| route.keeps);
        if keeps && line.uses < USES_MAX && line.is_idle() {
            line.idle_since = now().mono;
            self.kept = Some(line);
        }
    }

    /// The address of the kept connection, if the request that begins now may use it.
    pub(super) fn reuse(&mut self) -> Option<SocketAddr> {
        let route = self.route.as_ref().filter(|route| route.keeps)?;
        let mut line = self.kept.take()?;
        let now = now();
        if !line.is_young(now.mono)
            || line.has_expired(now.wall.as_second())
            || !line.is_for(route.tls.as_ref())
            || !line.is_idle()
        {
            return None;
        }
        let address = line.address;
        self.kept = Some(line);
        self.reused();
        Some(address)
    }

    /// A connection that stands already is the check's: its address, and its certificate.
    pub(super) fn connected_before(&mut self, line: &Line) {
        self.remote = Some(line.address);
        self.certificate_before = self.certificate_end;
        if let Some(end) = line.certificate_end {
            self.saw_chain_until(end);
        }
    }

    /// The connection that [`Self::reuse`] told of.
    pub(super) fn take_reused(&mut self) -> Option<Line> {
        if !self.is_reused() {
            return None;
        }
        let mut line = self.kept.take()?;
        line.socket.set_deadline(self.deadline());
        Some(line)
    }
}

/// A site's place for its connection.
pub(super) type Place = Arc<Mutex<Option<Line>>>;

/// Has the connection of a place in the thread's context, until it is dropped.
pub(super) struct Borrowed<'p>(&'p Place);

impl<'p> Borrowed<'p> {
    pub(super) fn from(place: &'p Place) -> Self {
        let line = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        timings::with(|context| context.kept = line);
        Self(place)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(line) = timings::take_kept() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_grows_old() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = now().mono + Duration::from_secs(20);
        let socket = Socket::connect(&address, deadline).unwrap();
        let again = || Socket::connect(&address, deadline).unwrap();
        let line = Line { idle_since: Duration::from_secs(7), ..Line::new(socket, address) };
        let last = Duration::from_secs(307);
        assert!(line.is_young(Duration::ZERO) && line.is_young(last));
        assert!(!line.is_young(last + Duration::from_millis(1)));

        let ends = |made_s, end| Line {
            made_s,
            certificate_end: Some(end),
            ..Line::new(again(), address)
        };
        assert!(ends(100, 200).has_expired(200) && !ends(100, 200).has_expired(199));
        // One that was shown expired, where that doesn't matter, is no reason to dial again.
        assert!(!ends(100, 50).has_expired(200));
    }
}
