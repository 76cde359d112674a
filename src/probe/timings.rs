//! What one check knows while it runs: its deadline, the phase it is in, what it saw on the way.
//!
//! ureq calls resolver, connector and transport without a place for a caller's own state, so it
//! lives in this thread: a check runs on one thread from its begin to its end.
//!
//! Invariants:
//! - There is one deadline, fixed by [`begin`]; nothing prolongs it.
//! - Phases are facts, stamped where they happen. A hop that ended well gives all its phases; the
//!   hop a check failed in gives the phases it reached, the last one up to the failure.
//! - Nothing here is kept from one check to the next but the buffers. A connection that a site
//!   keeps is here only while a check of that site runs.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::check::{Failure, FailureKind, Phases, seconds};
use crate::runtime::now;

use super::buffers::Buffers;
use super::gate::Gate;
use super::kept::Line;
use super::route::Route;
use super::secrets::Hidden;

/// Sets of buffers kept per thread: a redirect opens the next connection when the last is gone.
const BUFFERS_KEPT: usize = 1;
/// A body buffer larger than this, in bytes, is given back after the check: a large limit shall
/// not fix that much memory in every worker. Twice the default limit of 1 MiB, and some: buffers
/// grow by doubling.
const BODY_KEPT: usize = 3 << 20;
/// Bytes kept of the beginning of an answer, to show what it was if it was not HTTP.
const BEGINNING: usize = 32;

/// A step of a check, as the detail of a time-out names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Resolve,
    Connect,
    Tls,
    Send,
    Processing,
    Transfer,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Send => "send",
            Self::Processing => "processing",
            Self::Transfer => "transfer",
        }
    }
}

/// One request of a check and the times of its steps, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hop {
    start: Duration,
    resolved: Option<Duration>,
    connecting: Option<Duration>,
    connected: Option<Duration>,
    tls: Option<Duration>,
    sent: Option<Duration>,
    first: Option<Duration>,
    last: Option<Duration>,
    is_tls: bool,
    /// It goes over a connection that an earlier check made.
    is_reused: bool,
}

/// Durations in the order of [`Phases`].
type Durations = [Option<Duration>; 5];

impl Hop {
    fn new(start: Duration) -> Self {
        Self {
            start,
            resolved: None,
            connecting: None,
            connected: None,
            tls: None,
            sent: None,
            first: None,
            last: None,
            is_tls: false,
            is_reused: false,
        }
    }

    fn phase(&self) -> Phase {
        if self.first.is_some() {
            Phase::Transfer
        } else if self.sent.is_some() {
            Phase::Processing
        } else if self.tls.is_some() || (self.connected.is_some() && !self.is_tls) || self.is_reused
        {
            Phase::Send
        } else if self.connected.is_some() {
            Phase::Tls
        } else if self.connecting.is_some() {
            Phase::Connect
        } else {
            Phase::Resolve
        }
    }

    /// The phases of a hop that ended well, or, with `failed_at`, of one that failed then.
    fn durations(&self, failed_at: Option<Duration>) -> Durations {
        let tls_start = self.connected.filter(|_| self.is_tls);
        // The last byte known is the transfer's end, unless the transfer is what failed.
        let last = if failed_at.is_some() { None } else { self.last };
        [
            (Some(self.start).filter(|_| !self.is_reused), self.resolved),
            (self.connecting, self.connected),
            (tls_start, self.tls),
            (self.sent, self.first),
            (self.first, last),
        ]
        .map(|(from, to)| Some(to.or(failed_at)?.saturating_sub(from?)))
    }
}

/// The state of the check under way in this thread.
#[derive(Debug)]
pub(super) struct Context {
    start: Duration,
    deadline: Duration,
    hop: Option<Hop>,
    /// Requests begun.
    hops: u32,
    totals: Durations,
    /// Of the last request that ended.
    last_hop: Durations,
    beginning: [u8; BEGINNING],
    beginning_len: usize,
    /// The head is whole: what follows is the body.
    pub(super) in_body: bool,
    /// The other side has ended the connection.
    pub(super) ended: bool,
    /// The request has a body, which goes out in a send of its own.
    pub(super) sends_body: bool,
    /// Most bytes that may come after the head, framing included.
    pub(super) transfer_limit: u64,
    /// The address last dialled with success.
    pub(super) remote: Option<SocketAddr>,
    /// Earliest end of the certificates shown so far, in seconds since the epoch.
    pub(super) certificate_end: Option<i64>,
    /// The same before a connection was used again.
    pub(super) certificate_before: Option<i64>,
    /// The certificate that was refused names itself as its issuer.
    pub(super) self_signed: bool,
    /// Asked before each dial; set around the check.
    pub(super) gate: Option<Arc<dyn Gate>>,
    /// An earlier try of the same check may have sent something: it can't be handed back.
    pub(super) is_later_try: bool,
    /// Where the gate refused the first connection: the check counts as not begun.
    pub(super) refused_at: Option<IpAddr>,
    /// The chain shown last was accepted; what fails then is the proof of its key.
    pub(super) chain_is_good: bool,
    /// What is unusual about the way of the request under way.
    pub(super) route: Option<Arc<Route>>,
    /// The connection that the site under check keeps.
    pub(super) kept: Option<Line>,
    /// Secrets that the check must not tell.
    pub(super) hidden: Hidden,
    /// For tests: where to panic.
    #[cfg(test)]
    pub(super) panic_in: Option<Phase>,
    buffers: Vec<Buffers>,
    bodies: Bodies,
}

/// Where bodies are read and decoded into; kept from check to check so that no page is faulted
/// in twice.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// As it came. Never shrunk, so that it is zeroed only once; its length says nothing.
    pub(super) wire: Vec<u8>,
    /// After decoding.
    pub(super) decoded: Vec<u8>,
}

thread_local! {
    static CONTEXT: RefCell<Context> = const {
        RefCell::new(Context {
            start: Duration::ZERO,
            deadline: Duration::ZERO,
            hop: None,
            hops: 0,
            totals: [None; 5],
            last_hop: [None; 5],
            beginning: [0; BEGINNING],
            beginning_len: 0,
            in_body: false,
            ended: false,
            sends_body: false,
            transfer_limit: 0,
            remote: None,
            certificate_end: None,
            certificate_before: None,
            self_signed: false,
            gate: None,
            is_later_try: false,
            refused_at: None,
            chain_is_good: false,
            route: None,
            kept: None,
            hidden: Hidden::none(),
            #[cfg(test)]
            panic_in: None,
            buffers: Vec::new(),
            bodies: Bodies { wire: Vec::new(), decoded: Vec::new() },
        })
    };
}

/// Runs `work` on this thread's context.
pub(super) fn with<R>(work: impl FnOnce(&mut Context) -> R) -> R {
    CONTEXT.with_borrow_mut(work)
}

/// Begins a check that started at `start` and may take `limit`.
pub(super) fn begin(start: Duration, limit: Duration) {
    with(|context| {
        context.start = start;
        context.deadline = start.saturating_add(limit);
        context.hop = None;
        context.hops = 0;
        context.totals = [None; 5];
        context.last_hop = [None; 5];
        context.remote = None;
        context.certificate_end = None;
        context.certificate_before = None;
        context.self_signed = false;
        context.chain_is_good = false;
        context.route = None;
        context.kept = None;
        context.hidden = Hidden::none();
        context.begin_answer();
    });
}

/// The check's deadline, on the monotonic clock.
pub(super) fn deadline() -> Duration {
    with(|context| context.deadline)
}

/// The failure of a check whose time ran out now; names the phase it is in.
pub(super) fn timed_out() -> Failure<'static> {
    timed_out_in(with(|context| context.phase()).as_str())
}

/// The failure of a check whose time ran out in `step`.
pub(super) fn timed_out_in(step: &str) -> Failure<'static> {
    let limit = with(|context| context.deadline.saturating_sub(context.start)).as_secs_f64();
    Failure::new(FailureKind::Timeout, format!("in {step}, after {limit:.3} s"))
}

impl Context {
    fn begin_answer(&mut self) {
        self.in_body = false;
        self.ended = false;
        self.beginning_len = 0;
    }

    /// A new request begins with its look-up.
    pub(super) fn open_hop(&mut self) {
        self.hop = Some(Hop::new(now().mono));
        self.hops += 1;
        self.begin_answer();
    }

    /// The request under way ended well.
    pub(super) fn close_hop(&mut self) {
        if let Some(hop) = self.hop.take() {
            self.add(hop.durations(None));
        }
    }

    fn add(&mut self, durations: Durations) {
        self.last_hop = durations;
        for (total, duration) in self.totals.iter_mut().zip(durations) {
            *total = match (*total, duration) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            };
        }
    }

    /// All phases of the check, and those of its last request if it had several; one that is
    /// still under way failed at `end`.
    pub(super) fn finish(&mut self, end: Duration) -> (Phases, Option<Phases>) {
        if let Some(hop) = self.hop.take() {
            self.add(hop.durations(Some(end)));
        }
        (phases(self.totals), (self.hops > 1).then(|| phases(self.last_hop)))
    }

    pub(super) fn phase(&self) -> Phase {
        self.hop.as_ref().map_or(Phase::Resolve, Hop::phase)
    }

    fn stamp(&mut self, set: impl FnOnce(&mut Hop, Duration)) {
        if let Some(hop) = &mut self.hop {
            set(hop, now().mono);
        }
    }

    pub(super) fn resolved(&mut self) {
        self.stamp(|hop, now| hop.resolved = Some(now));
    }

    pub(super) fn connecting(&mut self) {
        self.stamp(|hop, now| hop.connecting = Some(now));
    }

    pub(super) fn connected(&mut self, remote: SocketAddr, is_tls: bool) {
        self.remote = Some(remote);
        self.stamp(|hop, now| {
            hop.connected = Some(now);
            hop.is_tls = is_tls;
        });
    }

    pub(super) fn tls_done(&mut self) {
        self.stamp(|hop, now| hop.tls = Some(now));
    }

    /// The request goes over a connection that stands already.
    pub(super) fn reused(&mut self) {
        self.stamp(|hop, _| hop.is_reused = true);
    }

    pub(super) fn is_reused(&self) -> bool {
        self.hop.as_ref().is_some_and(|hop| hop.is_reused)
    }

    /// Forgets the request under way if it went over a connection that stood already and gave no
    /// byte of an answer; whether it did.
    pub(super) fn forget_vain_hop(&mut self) -> bool {
        let in_vain = self.hop.as_ref().is_some_and(|hop| hop.is_reused && hop.first.is_none());
        if in_vain {
            self.hop = None;
            self.hops -= 1;
            // The fresh connection shows the certificates that count.
            self.certificate_end = self.certificate_before;
        }
        in_vain
    }

    /// A certificate that was shown ends then.
    pub(super) fn saw_chain_until(&mut self, end: i64) {
        self.certificate_end = Some(self.certificate_end.map_or(end, |known| known.min(end)));
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Some of the request is about to go out.
    pub(super) fn sending(&mut self) {
        self.stamp(|hop, _| hop.sent = None);
    }

    pub(super) fn sent(&mut self) {
        self.stamp(|hop, now| hop.sent = Some(now));
    }

    /// `bytes` arrived; none is the end.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.ended = bytes.is_empty();
        self.stamp(|hop, now| {
            if !bytes.is_empty() {
                hop.first.get_or_insert(now);
            }
            hop.last = Some(now);
        });
        let room = &mut self.beginning[self.beginning_len..];
        let kept = room.len().min(bytes.len());
        room[..kept].copy_from_slice(&bytes[..kept]);
        self.beginning_len += kept;
    }

    /// How the answer began.
    pub(super) fn beginning(&self) -> &[u8] {
        &self.beginning[..self.beginning_len]
    }

    pub(super) fn take_buffers(&mut self) -> Buffers {
        self.buffers.pop().unwrap_or_default()
    }

    pub(super) fn take_bodies(&mut self) -> Bodies {
        std::mem::take(&mut self.bodies)
    }

    pub(super) fn give_bodies(&mut self, bodies: Bodies) {
        if bodies.wire.capacity().max(bodies.decoded.capacity()) <= BODY_KEPT {
            self.bodies = bodies;
        }
    }
}

fn phases(durations: Durations) -> Phases {
    let [resolve, connect, tls, processing, transfer] = durations.map(|t| t.map(seconds));
    Phases { resolve, connect, tls, processing, transfer }
}

/// The connection to keep; also called while a panic unwinds.
pub(super) fn take_kept() -> Option<Line> {
    let kept = CONTEXT.try_with(|context| context.try_borrow_mut().ok()?.kept.take());
    kept.ok().flatten()
}

/// Gives a connection's buffers back for the next one; also called while a panic unwinds.
pub(super) fn give_buffers(mut buffers: Buffers) {
    let _ = CONTEXT.try_with(|context| {
        if let Ok(mut context) = context.try_borrow_mut()
            && context.buffers.len() < BUFFERS_KEPT
            && buffers.reset()
        {
            context.buffers.push(buffers);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn hop() -> Hop {
        Hop {
            resolved: Some(1 * MS),
            connecting: Some(1 * MS),
            connected: Some(3 * MS),
            is_tls: true,
            ..Hop::new(Duration::ZERO)
        }
    }

    #[test]
    fn a_failed_phase_lasts_until_the_failure() {
        assert_eq!(hop().phase(), Phase::Tls);
        let durations = hop().durations(Some(10 * MS));
        assert_eq!(durations, [Some(1 * MS), Some(2 * MS), Some(7 * MS), None, None]);
    }

    #[test]
    fn a_hop_that_ended_well_ends_with_its_last_byte() {
        let hop = Hop {
            tls: Some(4 * MS),
            sent: Some(5 * MS),
            first: Some(9 * MS),
            last: Some(11 * MS),
            ..hop()
        };
        let durations = hop.durations(None);
        assert_eq!(durations, [1, 2, 1, 4, 2].map(|ms| Some(ms * MS)));
    }

    #[test]
    fn a_connection_that_stood_already_has_no_phases_of_its_own() {
        let reused = Hop { is_reused: true, ..Hop::new(Duration::ZERO) };
        assert_eq!(reused.phase(), Phase::Send);
        assert_eq!(reused.durations(Some(9 * MS)), [None; 5]);
        let reused = Hop { sent: Some(2 * MS), first: Some(3 * MS), last: Some(5 * MS), ..reused };
        let durations = reused.durations(None);
        assert_eq!(durations, [None, None, None, Some(1 * MS), Some(2 * MS)]);
    }

    #[test]
    fn plain_http_has_no_tls_phase_and_a_refused_address_no_connect() {
        let plain = Hop { is_tls: false, ..hop() };
        assert_eq!(plain.phase(), Phase::Send);
        assert_eq!(plain.durations(Some(9 * MS))[2], None);
        let refused = Hop { connecting: None, connected: None, ..hop() };
        assert_eq!(refused.durations(Some(9 * MS)), [Some(1 * MS), None, None, None, None]);
    }
}
