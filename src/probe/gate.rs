//! Whether a check may connect now: asked right before each dial, with the numeric address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use jiff::Timestamp;

use super::Prober;
use super::target::Target;
use super::timings;
use crate::check::{Check, Failure, FailureKind};

/// Who decides that, and counts.
pub trait Gate: std::fmt::Debug + Send + Sync {
    /// A connection to `address` is about to be made. With `begins` the check has no connection
    /// yet, and an answer of `false` ends it as if it had never begun; else it only tells.
    fn admit(&self, address: IpAddr, begins: bool) -> bool;

    /// The address this check has a place at already: of a name's addresses it is dialled first.
    fn place(&self) -> Option<IpAddr>;
}

impl Prober {
    /// Checks `target` now, as [`Prober::check`] does, if `gate` lets it.
    ///
    /// # Errors
    /// The address for which the gate refused the check's first connection. Nothing was sent to
    /// anybody then.
    pub fn check_through(
        &self,
        target: &Target,
        scheduled_at: Timestamp,
        gate: Arc<dyn Gate>,
    ) -> Result<Check<'static>, IpAddr> {
        timings::with(|context| {
            context.gate = Some(gate);
            context.refused_at = None;
            context.may_refuse = true;
        });
        let check = self.check(target, scheduled_at);
        timings::with(|context| {
            context.gate = None;
            context.refused_at.take().map_or(Ok(check), Err)
        })
    }
}

/// The first try is over: whether the gate refused it. Further tries belong to a check that has
/// begun, and are only counted.
pub(super) fn refused_first_try() -> bool {
    timings::with(|context| {
        context.may_refuse = false;
        context.refused_at.is_some()
    })
}

/// Puts the address at which this check has a place first.
pub(super) fn sort(addresses: &mut [&SocketAddr]) {
    if let Some(gate) = timings::with(|context| context.gate.clone())
        && let Some(place) = gate.place()
    {
        addresses.sort_by_key(|address| address.ip().to_canonical() != place);
    }
}

/// Asks the gate, if there is one.
pub(super) fn pass(address: IpAddr) -> Result<(), Failure<'static>> {
    let (gate, begins) = timings::with(|context| {
        (context.gate.clone(), context.may_refuse && context.remote.is_none())
    });
    let Some(gate) = gate else { return Ok(()) };
    let address = address.to_canonical();
    if gate.admit(address, begins) || !begins {
        return Ok(());
    }
    timings::with(|context| context.refused_at = Some(address));
    // Nobody sees it: the check is handed back.
    Err(Failure::new(FailureKind::Internal, format!("{address} has as many checks as it may")))
}
