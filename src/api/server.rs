//! HTTP/1.1 for a [`Service`].
//!
//! Invariants:
//! - One thread polls all connections and waits for none of them: it takes bytes as they come,
//!   hands whole requests to a fixed pool and sends answers as clients take them. A client that is
//!   silent, drips or stops reading holds one connection until its deadline, and no thread.
//! - From its first byte to the last one of its answer a request has [`Limits::deadline`]. What a
//!   thread answers later is thrown away.
//! - At the cap on connections, or on those of one network, idle ones are closed first, oldest
//!   first, then those that have all but stopped, without a token first; then newcomers are refused.
//! - Answers that wait for their clients take bounded memory, all together.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::access::{Access, AccessOptions, Ends};
use super::connection::{Connection, Context};
use super::pool::{Bell, Done, Pool};
use super::response::Problem;
use super::{Service, rate};
use crate::runtime::{Stop, Threads, mono};
use crate::telemetry::metrics;

/// The wait after a failed accept (no file descriptor left): the connection stays in the queue
/// and would wake at once again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Newcomers taken in before the others get their turn again.
const ACCEPTS_MAX: usize = 64;
/// Connections beside the cap that were told their last answer and end within seconds.
const LEAVING_MAX: usize = 64;
/// Bytes of answers that clients have not taken yet, of all connections together. Past that, and
/// after those that take nothing were closed, larger answers than [`SMALL`] are not given.
const HELD_MAX: usize = 256 << 20;
/// Answers of up to so many bytes are always given: for each connection one is little.
const SMALL: usize = 64 << 10;
/// Bytes of an answer that the kernel keeps for each connection, besides; left to itself it takes
/// megabytes, which count against the memory that a container may have.
const SEND_BUFFER: usize = 256 << 10;
/// How long requests under way may take to end at a stop.
const STOPPING: Duration = Duration::from_secs(10);

/// How long things may take and how much there may be of them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that answer.
    pub threads: usize,
    /// Connections at once; half of them from one address, or one IPv6 network of 64 bits.
    pub connections: usize,
    /// From a request's first byte to the last one of its answer.
    pub deadline: Duration,
    /// Until the first byte of a new connection.
    pub first_byte: Duration,
    /// Between an answer and the next request.
    pub keep_alive: Duration,
    /// Longest body of a request in bytes.
    pub body_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: 8,
            connections: 256,
            deadline: Duration::from_secs(10),
            first_byte: Duration::from_secs(5),
            keep_alive: Duration::from_secs(30),
            body_max: 1 << 20,
        }
    }
}

/// Serves on `listen` until the stop, then ends the requests under way, for 10 s at most; port 0
/// is one that the kernel picks. Returns the address.
///
/// # Errors
/// The operating system's, with the address: in use, not ours, not allowed.
pub fn serve(
    listen: SocketAddr,
    limits: Limits,
    access: AccessOptions,
    service: &Arc<dyn Service>,
    threads: &mut Threads,
    stop: &Stop,
) -> io::Result<SocketAddr> {
    let tried = |error: io::Error| {
        io::Error::new(error.kind(), format!("listening on {listen} failed: {error}"))
    };
    // The standard library sets SO_REUSEADDR, so that a restart doesn't wait for old connections.
    let listener = TcpListener::bind(listen).map_err(tried)?;
    listener.set_nonblocking(true).map_err(tried)?;
    let bound = listener.local_addr().map_err(tried)?;
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let bell = Bell(Arc::new(eventfd(0, flags).map_err(|error| tried(error.into()))?));
    let pool = Pool::start(limits.threads.max(1), service, &bell, threads)?;
    let (waiting, ringing) = (stop.clone(), bell.clone());
    threads.spawn("api-stop", move || {
        waiting.wait_forever();
        ringing.ring();
    })?;
    let server = Server {
        listener: Some(listener),
        bell,
        pool,
        limits,
        access: Access::new(access),
        connections: BTreeMap::new(),
        last_id: 0,
        resting_until: None,
        is_short_of_files: false,
        stop: stop.clone(),
    };
    threads.spawn("api", move || server.run())?;
    log::info!(address:% = bound; "serving the API");
    Ok(bound)
}

struct Server {
    /// Gone while stopping.
    listener: Option<TcpListener>,
    bell: Bell,
    pool: Pool,
    limits: Limits,
    access: Access,
    /// By a number that is never used again: oldest first.
    connections: BTreeMap<u64, Connection>,
    last_id: u64,
    /// Not accepting before (monotonic), after a failure.
    resting_until: Option<Duration>,
    /// Whether the last accept failed; said once.
    is_short_of_files: bool,
    stop: Stop,
}

/// What `poll` found.
struct Ready {
    has_rung: bool,
    has_new: bool,
    connections: Vec<u64>,
}

impl Server {
    fn run(mut self) {
        let mut ends_at = None;
        loop {
            let ready = self.wait(ends_at);
            let time = mono();
            if ready.has_rung {
                self.bell.hush();
            }
            if ends_at.is_none() && self.stop.is_requested() {
                ends_at = Some(time + STOPPING);
                self.listener = None;
            }
            self.take_answers(time);
            self.each(ready.connections, time, Connection::wake);
            let late = |c: &Connection| c.deadline() <= time;
            let late =
                self.connections.iter().filter(|(_, c)| late(c)).map(|(id, _)| *id).collect();
            self.each(late, time, Connection::expire);
            self.resting_until = self.resting_until.filter(|until| *until > time);
            if ready.has_new {
                self.accept(time);
            }
            if let Some(end) = ends_at {
                self.connections.retain(|_, connection| !connection.is_idle());
                if self.connections.is_empty() || end <= time {
                    break;
                }
            }
            metrics().api_connections.set(i64::try_from(self.connections.len()).unwrap_or(0));
        }
        metrics().api_connections.set(0);
    }

    fn wait(&self, ends_at: Option<Duration>) -> Ready {
        let time = mono();
        let deadlines = self.connections.values().map(Connection::deadline);
        let next = deadlines.chain(self.resting_until).chain(ends_at).min();
        let timeout = next.map(|at| {
            let wait = at.saturating_sub(time);
            // Rounded up, so as not to wake a moment too early and find nothing to do.
            let millis = i64::try_from(wait.as_millis()).unwrap_or(0) + 1;
            Timespec { tv_sec: millis / 1000, tv_nsec: (millis % 1000) * 1_000_000 }
        });
        let mut watched = vec![PollFd::new(&self.bell.0, PollFlags::IN)];
        watched.extend(
            self.connections
                .values()
                .map(|c| PollFd::from_borrowed_fd(c.stream.as_fd(), c.interest())),
        );
        if let Some(listener) = self.listener.as_ref().filter(|_| self.resting_until.is_none()) {
            watched.push(PollFd::new(listener, PollFlags::IN));
        }
        // An interrupted wait is one that found nothing.
        let found = poll(&mut watched, timeout.as_ref()).is_ok();
        let is_ready =
            |fd: Option<&PollFd<'_>>| found && fd.is_some_and(|fd| !fd.revents().is_empty());
        let end = 1 + self.connections.len();
        let ids = self.connections.keys().zip(&watched[1..end]);
        Ready {
            has_rung: is_ready(watched.first()),
            has_new: is_ready(watched.get(end)),
            connections: ids.filter(|(_, fd)| is_ready(Some(fd))).map(|(id, _)| *id).collect(),
        }
    }

    /// Lets these go on; those that say so are over.
    fn each(
        &mut self,
        ids: Vec<u64>,
        time: Duration,
        mut go_on: impl FnMut(&mut Connection, &mut Context<'_>) -> bool,
    ) {
        let mut context = Context {
            access: &mut self.access,
            pool: &self.pool,
            limits: &self.limits,
            time,
            is_stopping: self.listener.is_none(),
        };
        for id in ids {
            if let Some(connection) = self.connections.get_mut(&id)
                && !go_on(connection, &mut context)
            {
                self.connections.remove(&id);
            }
        }
    }

    fn take_answers(&mut self, time: Duration) {
        while let Some(done) = self.pool.take() {
            let Done { connection, response } = done;
            let size = response.body.len();
            let has_room = size <= SMALL || self.make_room_for(size, time);
            let mut response = Some(response);
            self.each(vec![connection], time, |connection, context| {
                response
                    .take()
                    .is_some_and(|response| connection.complete(response, has_room, context))
            });
        }
    }

    /// Whether an answer of so many bytes may be held; for its sake those that their clients don't
    /// take are given up.
    fn make_room_for(&mut self, size: usize, time: Duration) -> bool {
        loop {
            let held: usize = self.connections.values().map(Connection::held).sum();
            if held + size <= HELD_MAX {
                return true;
            }
            if !self.make_room(|connection| connection.held() > SMALL, time) {
                return false;
            }
        }
    }

    fn accept(&mut self, time: Duration) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.is_short_of_files = false;
                    // The client went away meanwhile.
                    let _ = self.welcome(stream, peer.ip().to_canonical(), time);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_client_gone(&error) => {}
                Err(error) => {
                    if !self.is_short_of_files {
                        self.is_short_of_files = true;
                        log::warn!(error:% = error; "connection not accepted, trying again");
                    }
                    // An idle one may hold what is missing.
                    if !self.make_room(|_| true, time) {
                        self.resting_until = Some(time + ACCEPT_RETRY);
                        return;
                    }
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: IpAddr, time: Duration) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
        let ends = Ends { peer, local: stream.local_addr()?.ip().to_canonical() };
        self.last_id += 1;
        let id = self.last_id;
        let mut newcomer = Connection::new(id, stream, ends, &self.limits, time);
        let cap = self.limits.connections;
        let network = rate::network(peer);
        let is_in = |c: &Connection| !c.is_leaving();
        let is_near = |c: &Connection| is_in(c) && rate::network(c.ends.peer) == network;
        let has_room = (self.count(is_in) < cap || self.make_room(is_in, time))
            && (self.count(is_near) < (cap / 2).max(1) || self.make_room(is_near, time));
        if !has_room {
            let problem = Problem::new(503, "too many connections");
            let response = problem.response().with("Retry-After", "1");
            newcomer.refuse(response, "connections", time);
        }
        self.connections.insert(id, newcomer);
        // What came already is read now, or the next newcomer would take it for idle.
        self.each(vec![id], time, Connection::advance);
        let mut leaving = self.connections.iter().filter(|(_, c)| c.is_leaving());
        if leaving.clone().count() > LEAVING_MAX
            && let Some(oldest) = leaving.next().map(|(id, _)| *id)
        {
            self.connections.remove(&oldest);
        }
        Ok(())
    }

    fn count(&self, is_one: impl Fn(&Connection) -> bool) -> usize {
        self.connections.values().filter(|c| is_one(c)).count()
    }

    /// Closes the first to go of these, if one can; whether there was one.
    fn make_room(&mut self, is_one: impl Fn(&Connection) -> bool, time: Duration) -> bool {
        let candidates = self
            .connections
            .iter()
            .filter(|(_, connection)| is_one(connection))
            .filter_map(|(id, connection)| Some((connection.expendable(time)?, *id)));
        let mut candidates: Vec<_> = candidates.collect();
        candidates.sort_unstable();
        for (_, id) in candidates {
            // It may have spoken since the poll.
            self.each(vec![id], time, Connection::wake);
            match self.connections.get(&id) {
                Some(other) if other.expendable(time).is_none() => {}
                _ => {
                    self.connections.remove(&id);
                    return true;
                }
            }
        }
        false
    }
}

fn is_client_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
