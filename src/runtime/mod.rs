//! What every daemon thread stands on: named joined threads, the [`Stop`] token, backoff,
//! signals, the clock, mailboxes, and the bounded call.
//!
//! Invariants:
//! - No thread of the program is started but through [`Threads`] or [`BoundedCall`]: each has a
//!   name, each is joined or counted as left behind.
//! - Nobody sleeps but in [`Stop::wait`], so that a stop is never later than the work under way.
//! - [`now`], [`mono`] and [`wall`] are the only readers of the clocks.

mod backoff;
mod bounded;
mod clock;
mod mailbox;
mod signals;
mod stop;
mod threads;

pub use backoff::Backoff;
pub use bounded::{BoundedCall, CallError, LEFT_BEHIND_MAX, left_behind};
pub use clock::{Moment, mono, now, wall};
pub use mailbox::{MailReceiver, MailSender, NoMail, mailbox};
pub use signals::stop_on_signals;
pub use stop::Stop;
pub use threads::Threads;
