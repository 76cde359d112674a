//! `/metrics`, `/livez` and `/readyz` over HTTP.
//!
//! Invariants:
//! - One thread serves all connections, none of which it ever waits for: a client that is silent,
//!   slow or stops reading delays nobody. It sleeps in `poll` and wakes for a connection, for the
//!   next deadline or for the stop; idle it costs nothing.
//! - A connection carries one request, has 8 KiB for its head and [`DEADLINE`] for everything,
//!   from its acceptance to its end. There are at most [`CONNECTIONS_MAX`]; one more ends the one
//!   that has been there longest.
//! - No request body is read, and nothing a client sends changes anything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::request::{HEAD_MAX, respond};
use crate::runtime::{Stop, Threads, now};

/// Connections at once: a few scrapers, a health check and a person.
pub const CONNECTIONS_MAX: usize = 32;
/// How long a connection may last in all.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// What a client may still send behind its request without being cut off in the middle of the
/// response.
const EXCESS_MAX: usize = 256 << 10;
/// The wait after a failed accept (no file descriptor left): the connection stays in the queue
/// and would wake at once again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves on `addr` until the stop; port 0 is one that the kernel picks. Returns the address.
///
/// # Errors
/// The operating system's, with the address: in use, not ours, not allowed.
pub fn serve(addr: SocketAddr, threads: &mut Threads, stop: Stop) -> io::Result<SocketAddr> {
    let tried = |error: io::Error| {
        io::Error::new(error.kind(), format!("listening on {addr} failed: {error}"))
    };
    // The standard library sets SO_REUSEADDR, so that a restart doesn't wait for old connections.
    let listener = TcpListener::bind(addr).map_err(tried)?;
    listener.set_nonblocking(true).map_err(tried)?;
    let bound = listener.local_addr().map_err(tried)?;
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(|e| tried(e.into()))?);
    let bell = wake.clone();
    threads.spawn("listener-stop", move || {
        stop.wait_forever();
        // Can't fail: the counter is far from its end.
        let _ = rustix::io::write(&*bell, &1u64.to_ne_bytes());
    })?;
    threads.spawn("listener", move || Listener::new(listener, wake).run())?;
    log::info!(address:% = bound; "listening for metrics and health");
    Ok(bound)
}

/// What a connection waits for.
enum Phase {
    /// The rest of the head.
    Receiving(Vec<u8>),
    /// Room for the rest of the response.
    Sending { response: Vec<u8>, sent: usize },
    /// The client's end: closing with unread bytes would reset the connection and could take the
    /// response with it.
    Draining { left: usize },
}

struct Connection {
    stream: TcpStream,
    /// Monotonic.
    ends: Duration,
    phase: Phase,
}

impl Connection {
    /// What it waits for.
    fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Receiving(_) | Phase::Draining { .. } => PollFlags::IN,
            Phase::Sending { .. } => PollFlags::OUT,
        }
    }

    /// Goes as far as it can without waiting; whether there is more to come.
    fn advance(&mut self) -> bool {
        match self.run() {
            Ok(()) => false,
            // It has to wait, or to be tried again.
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Until the connection's end, or until it would have to wait.
    fn run(&mut self) -> io::Result<()> {
        let mut bytes = [0; 2048];
        loop {
            match &mut self.phase {
                Phase::Receiving(head) => {
                    let room = bytes.len().min(HEAD_MAX - head.len());
                    let count = self.stream.read(&mut bytes[..room])?;
                    if count == 0 {
                        return Ok(());
                    }
                    head.extend_from_slice(&bytes[..count]);
                    if let Some(response) = respond(head) {
                        self.phase = Phase::Sending { response, sent: 0 };
                    }
                }
                Phase::Sending { response, sent } => {
                    *sent += self.stream.write(&response[*sent..])?;
                    if *sent == response.len() {
                        self.stream.shutdown(Shutdown::Write)?;
                        self.phase = Phase::Draining { left: EXCESS_MAX };
                    }
                }
                Phase::Draining { left } => {
                    let count = self.stream.read(&mut bytes)?;
                    *left = left.saturating_sub(count);
                    if count == 0 || *left == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

struct Listener {
    listener: TcpListener,
    wake: Arc<OwnedFd>,
    /// Oldest first.
    connections: Vec<Connection>,
    /// Not accepting before (monotonic), after a failure.
    resting_until: Option<Duration>,
}

/// What `poll` found.
struct Ready {
    is_stopping: bool,
    has_new: bool,
    connections: Vec<bool>,
}

impl Listener {
    fn new(listener: TcpListener, wake: Arc<OwnedFd>) -> Self {
        Self { listener, wake, connections: Vec::new(), resting_until: None }
    }

    fn run(mut self) {
        loop {
            let ready = self.wait();
            if ready.is_stopping {
                return;
            }
            let time = now().mono;
            let mut ready_ones = ready.connections.into_iter();
            self.connections.retain_mut(|connection| {
                let is_ready = ready_ones.next().unwrap_or(false);
                connection.ends > time && (!is_ready || connection.advance())
            });
            self.resting_until = self.resting_until.filter(|until| *until > time);
            if ready.has_new {
                self.accept(time);
            }
        }
    }

    fn wait(&self) -> Ready {
        let time = now().mono;
        let deadlines = self.connections.iter().map(|connection| connection.ends);
        let next = deadlines.chain(self.resting_until).min();
        let timeout = next.map(|at| {
            let wait = at.saturating_sub(time);
            // Rounded up, so as not to wake a moment too early and find nothing to do.
            let millis = i64::try_from(wait.as_millis()).unwrap_or(0) + 1;
            Timespec { tv_sec: millis / 1000, tv_nsec: (millis % 1000) * 1_000_000 }
        });
        let mut watched = vec![PollFd::new(&self.wake, PollFlags::IN)];
        watched.extend(
            self.connections
                .iter()
                .map(|c| PollFd::from_borrowed_fd(c.stream.as_fd(), c.interest())),
        );
        if self.resting_until.is_none() {
            watched.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        // An interrupted wait is one that found nothing.
        let found = poll(&mut watched, timeout.as_ref()).is_ok();
        let is_ready =
            |fd: Option<&PollFd<'_>>| found && fd.is_some_and(|fd| !fd.revents().is_empty());
        let end = 1 + self.connections.len();
        Ready {
            is_stopping: is_ready(watched.first()),
            has_new: is_ready(watched.get(end)),
            connections: watched[1..end].iter().map(|fd| is_ready(Some(fd))).collect(),
        }
    }

    /// Takes in everybody who waits, up to one table full at a time.
    fn accept(&mut self, time: Duration) {
        for _ in 0..CONNECTIONS_MAX {
            let accepted = self.listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok(stream)
            });
            match accepted {
                Ok(stream) => {
                    if self.connections.len() == CONNECTIONS_MAX {
                        self.connections.remove(0);
                    }
                    let phase = Phase::Receiving(Vec::new());
                    self.connections.push(Connection { stream, ends: time + DEADLINE, phase });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client went away while waiting.
                Err(error) if is_client_gone(&error) => {}
                Err(error) => {
                    log::warn!(error:% = error; "connection not accepted");
                    self.resting_until = Some(time + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }
}

fn is_client_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
        || error.kind() == ErrorKind::Interrupted
}
