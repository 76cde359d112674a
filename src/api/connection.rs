//! One connection: requests one after another, each answered before the next is looked at.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::PollFlags;

use super::access::{Access, Ends};
use super::encode::{Manner, encode};
use super::head::Head;
use super::pool::{Job, Pool};
use super::reader::{Reader, Step};
use super::request::{Caller, Method, Request};
use super::response::{Problem, Response};
use super::server::Limits;
use crate::telemetry::{ByReason, ByRequest, metrics};

/// How long a client gets to read an answer that came at the deadline, and to stop sending behind
/// the last answer: closing with unread bytes would reset the connection and could take the
/// answer with it.
const LINGER: Duration = Duration::from_secs(2);
/// What it may still send meanwhile: the rest of a body that was refused at its head.
const EXCESS_MAX: usize = 4 << 20;
/// Who has moved fewer than [`PACE`] bytes for this long, while it should send a request or take an
/// answer, does not do as honest clients do: where there is no room for others, it goes.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than those send who drip to seem busy, less than the slowest link carries in that time.
const PACE: usize = 4 << 10;
/// Bytes sent in one turn: others want theirs.
const TURN: usize = 1 << 20;
/// Bytes read at once.
const PIECE: usize = 16 << 10;

/// What all connections share while they go on.
pub(super) struct Context<'c> {
    pub(super) access: &'c mut Access,
    pub(super) pool: &'c Pool,
    pub(super) limits: &'c Limits,
    /// Monotonic.
    pub(super) time: Duration,
    pub(super) is_stopping: bool,
}

/// What comes behind the bytes that are being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The body that the client was told to send.
    Body,
    /// The next request.
    Next,
    /// Nothing.
    Close,
}

#[derive(Debug)]
enum Phase {
    /// Nothing came of the next request.
    Waiting,
    /// Something came.
    Receiving,
    /// A thread answers; the value goes when nobody waits for it any more.
    Handling { _wanted: Arc<()> },
    /// Bytes go out.
    Sending { sent: usize, then: Then },
    /// All is said; so many bytes of the client are still passed over.
    Draining { left: usize },
}

/// The request being received or answered.
#[derive(Debug)]
struct Exchange {
    head: Box<Head>,
    caller: Caller,
    sharing: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) ends: Ends,
    id: u64,
    phase: Phase,
    reader: Reader,
    exchange: Option<Exchange>,
    /// What goes out: the first, then the second.
    output: [Vec<u8>; 2],
    /// When this phase, or the whole request, must be over; monotonic.
    deadline: Duration,
    /// Since when it is idle, or when the request's first byte came.
    since: Duration,
    /// When the request was whole.
    whole_at: Duration,
    /// Since when fewer than [`PACE`] bytes have moved, and how many.
    pace: (Duration, usize),
    /// Whether the last request's caller may do anything.
    is_known: bool,
}

/// What goes first where there is no room: smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expendable {
    /// Nothing came of a request since then.
    Idle(Duration),
    /// It has all but stopped, and showed no token.
    Stranger(Duration),
    /// It has all but stopped.
    Known(Duration),
}

impl Connection {
    pub(super) fn new(
        id: u64,
        stream: TcpStream,
        ends: Ends,
        limits: &Limits,
        time: Duration,
    ) -> Self {
        Self {
            stream,
            ends,
            id,
            phase: Phase::Waiting,
            reader: Reader::new(limits.body_max),
            exchange: None,
            output: Default::default(),
            deadline: time + limits.first_byte,
            since: time,
            whole_at: time,
            pace: (time, 0),
            is_known: false,
        }
    }

    /// What it waits for; nothing while a thread answers, when only its end is noticed.
    pub(super) fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Waiting | Phase::Receiving | Phase::Draining { .. } => PollFlags::IN,
            Phase::Handling { .. } => PollFlags::empty(),
            Phase::Sending { .. } => PollFlags::OUT,
        }
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether it no longer takes part: its last answer is decided.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.phase, Phase::Draining { .. } | Phase::Sending { then: Then::Close, .. })
    }

    /// Whether nothing came of a request.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// Bytes of an answer that it holds.
    pub(super) fn held(&self) -> usize {
        self.output.iter().map(Vec::len).sum()
    }

    /// Whether, and how easily, it could be closed for the sake of others.
    pub(super) fn expendable(&self, time: Duration) -> Option<Expendable> {
        match self.phase {
            Phase::Waiting => Some(Expendable::Idle(self.since)),
            Phase::Receiving | Phase::Sending { .. } if time >= self.pace.0 + PATIENCE => {
                let kind = if self.is_known { Expendable::Known } else { Expendable::Stranger };
                Some(kind(self.since))
            }
            _ => None,
        }
    }

    /// So many bytes went one way or the other.
    fn moved(&mut self, count: usize, time: Duration) {
        self.pace.1 += count;
        if self.pace.1 >= PACE {
            self.pace = (time, 0);
        }
    }

    /// Goes as far as it can without waiting; whether there is more to come.
    pub(super) fn advance(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match self.run(context) {
                Ok(()) => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It has to wait.
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// The poll found something; while a thread answers that is the client's end.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) -> bool {
        !matches!(self.phase, Phase::Handling { .. }) && self.advance(context)
    }

    /// A thread has answered; `has_room`: whether its answer may wait for the client.
    pub(super) fn complete(
        &mut self,
        response: Response,
        has_room: bool,
        context: &mut Context<'_>,
    ) -> bool {
        let is_wanted = matches!(self.phase, Phase::Handling { .. });
        if is_wanted && !has_room {
            let problem = Problem::new(503, "too many answers wait for their clients");
            let response = problem.response().with("Retry-After", "1");
            self.refuse(response, "output", context.time);
        } else if is_wanted {
            let is_kept = !context.is_stopping
                && self.exchange.as_ref().is_some_and(|exchange| exchange.head.is_kept);
            self.answer(response, if is_kept { Then::Next } else { Then::Close }, context.time);
        }
        self.advance(context)
    }

    /// Its time is up; whether it is still to say so.
    pub(super) fn expire(&mut self, context: &mut Context<'_>) -> bool {
        let problem = match self.phase {
            Phase::Waiting | Phase::Sending { .. } | Phase::Draining { .. } => return false,
            Phase::Receiving => Problem::new(408, "the request did not come in time"),
            Phase::Handling { .. } => Problem::new(503, "there was no answer in time"),
        };
        let mut response = problem.response();
        if problem.status == 503 {
            response = response.with("Retry-After", "1");
        }
        self.refuse(response, "deadline", context.time);
        self.deadline = context.time + LINGER;
        self.advance(context)
    }

    /// Says so and ends.
    pub(super) fn refuse(&mut self, response: Response, reason: &'static str, time: Duration) {
        if !reason.is_empty() {
            metrics().api_refused.get_or_create(&ByReason { reason }).inc();
        }
        self.answer(response, Then::Close, time);
    }

    /// Until it would have to wait, or to its end.
    fn run(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let mut turn = TURN;
        loop {
            match self.phase {
                Phase::Waiting | Phase::Receiving => {
                    if !self.receive(context)? {
                        return Ok(());
                    }
                }
                Phase::Handling { .. } => return Err(ErrorKind::WouldBlock.into()),
                Phase::Sending { ref mut sent, then } => {
                    let [first, second] = &self.output;
                    let rest = match sent.checked_sub(first.len()) {
                        Some(sent) => &second[sent..],
                        None => &first[*sent..],
                    };
                    if rest.is_empty() {
                        self.output = Default::default();
                        self.go_on(then, context)?;
                    } else if turn == 0 {
                        return Err(ErrorKind::WouldBlock.into());
                    } else {
                        let count = self.stream.write(&rest[..rest.len().min(turn)])?;
                        *sent += count;
                        turn -= count;
                        self.moved(count, context.time);
                    }
                }
                Phase::Draining { ref mut left } => {
                    let count = self.stream.read(&mut [0; PIECE])?;
                    *left = left.saturating_sub(count);
                    if count == 0 || *left == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// What comes behind an answer.
    fn go_on(&mut self, then: Then, context: &Context<'_>) -> io::Result<()> {
        match then {
            Then::Body => self.phase = Phase::Receiving,
            Then::Next => {
                self.since = context.time;
                self.pace = (context.time, 0);
                if self.reader.has_input() {
                    self.is_known = false;
                    self.phase = Phase::Receiving;
                    self.deadline = context.time + context.limits.deadline;
                } else {
                    self.phase = Phase::Waiting;
                    self.deadline = context.time + context.limits.keep_alive;
                }
            }
            Then::Close => {
                self.stream.shutdown(Shutdown::Write)?;
                self.phase = Phase::Draining { left: EXCESS_MAX };
                self.deadline = context.time + LINGER;
            }
        }
        Ok(())
    }

    /// One step of a request; false at the client's end.
    fn receive(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        match self.reader.next() {
            Step::More => {
                let mut bytes = [0; PIECE];
                let count = self.stream.read(&mut bytes)?;
                self.reader.add(&bytes[..count]);
                self.moved(count, context.time);
                if count > 0 && self.is_idle() {
                    self.phase = Phase::Receiving;
                    self.since = context.time;
                    self.pace = (context.time, count);
                    self.is_known = false;
                    self.deadline = context.time + context.limits.deadline;
                }
                return Ok(count > 0);
            }
            Step::Head(head) => self.take_head(head, context),
            Step::Body(body) => self.hand_on(body, context),
            Step::Bad(problem) => {
                let reason = match problem.status {
                    413 | 414 | 431 => "too_large",
                    _ => "malformed",
                };
                self.refuse(problem.response(), reason, context.time);
            }
        }
        Ok(true)
    }

    fn take_head(&mut self, head: Box<Head>, context: &mut Context<'_>) {
        let sharing = context.access.sharing(&head);
        let admitted = context.access.admit(&head, self.ends, context.time);
        let nobody = Caller { name: String::new(), role: None, address: self.ends.peer };
        let expects = head.expects_continue && head.has_body() && !self.reader.has_input();
        let is_for_server = head.path == "*";
        let (caller, refused) = match admitted {
            Ok(caller) => (caller, None),
            Err(refused) => (nobody, Some(refused)),
        };
        self.is_known = caller.role.is_some();
        self.exchange = Some(Exchange { head, caller, sharing });
        self.whole_at = context.time;
        if let Some(refused) = refused {
            self.refuse(refused.response, refused.reason, context.time);
        } else if is_for_server {
            let allow = Method::ALL.map(Method::as_str).join(", ");
            self.refuse(Response::empty(204).with("Allow", allow), "", context.time);
        } else if expects {
            self.output = [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), Vec::new()];
            self.phase = Phase::Sending { sent: 0, then: Then::Body };
        }
    }

    /// The request is whole.
    fn hand_on(&mut self, body: Vec<u8>, context: &mut Context<'_>) {
        let Some(exchange) = &mut self.exchange else { return };
        self.whole_at = context.time;
        let head = &mut exchange.head;
        let request = Request {
            method: head.method,
            path: head.path.clone(),
            query: std::mem::take(&mut head.query),
            headers: std::mem::take(&mut head.headers),
            body,
            caller: exchange.caller.clone(),
            deadline: self.deadline,
        };
        let wanted = Arc::new(());
        let job = Job { connection: self.id, request, wanted: Arc::downgrade(&wanted) };
        if context.pool.give(job) {
            self.phase = Phase::Handling { _wanted: wanted };
        } else {
            let problem = Problem::new(503, "too many requests wait already");
            self.refuse(problem.response().with("Retry-After", "1"), "queue", context.time);
        }
    }

    fn answer(&mut self, response: Response, then: Then, time: Duration) {
        let exchange = self.exchange.take();
        let head = exchange.as_ref().map(|exchange| &exchange.head);
        let manner = Manner {
            is_head: head.is_some_and(|head| head.method == Method::Head),
            is_kept: then == Then::Next,
            is_old: head.is_some_and(|head| head.is_old),
            sharing: exchange.as_ref().map_or(&[], |exchange| &exchange.sharing),
        };
        let code = response.status;
        self.output = encode(response, manner);
        self.phase = Phase::Sending { sent: 0, then };
        self.pace = (time, 0);
        let took = time.saturating_sub(self.whole_at);
        let method = head.map_or("none", |head| head.method.as_str());
        let status = match code {
            0..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        metrics().api_requests.get_or_create(&ByRequest { method, status }).inc();
        if exchange.is_some() {
            metrics().api_duration.observe(took.as_secs_f64());
        }
        // Not the query: URLs in it may hold what others must not see.
        let path = head.map_or("", |head| head.path.as_str());
        let caller = exchange.as_ref().map_or("", |exchange| exchange.caller.name.as_str());
        log::debug!(method, path, status = code, ms = took.as_secs_f64() * 1000.0,
            caller, address:% = self.ends.peer; "request");
    }
}
