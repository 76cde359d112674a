//! The token that ends a daemon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Uninhabited: a stop is the channel's end, never a message on it.
#[derive(Debug)]
pub enum Never {}

/// A request to stop, shared by all threads of a daemon. Clones are the same token.
///
/// A stop is a disconnected channel, so a thread can wait for work and for the stop in one
/// `select!` (see [`Stop::channel`]) and nobody has to poll a flag. The flag beside it is for
/// those who only look: each look at a channel takes its lock, and workers look with every check.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
    done: Receiver<Never>,
}

#[derive(Debug)]
struct Shared {
    /// Set before the channel ends: whoever saw its end sees the flag as well.
    requested: AtomicBool,
    open: Mutex<Option<Sender<Never>>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A token that nobody has asked to stop yet.
    #[must_use]
    pub fn new() -> Self {
        let (open, done) = bounded(0);
        let open = Mutex::new(Some(open));
        Self { shared: Arc::new(Shared { requested: AtomicBool::new(false), open }), done }
    }

    /// Asks everyone who holds this token to stop. Asking again changes nothing.
    pub fn request(&self) {
        self.shared.requested.store(true, Ordering::Release);
        drop(self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.shared.requested.load(Ordering::Acquire)
    }

    /// Waits up to `limit`; `true` as soon as a stop is asked for.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        matches!(self.done.recv_timeout(limit), Err(RecvTimeoutError::Disconnected))
    }

    /// Waits until a stop is asked for.
    pub fn wait_forever(&self) {
        let _ = self.done.recv();
    }

    /// For `select!`: becomes ready (disconnected) with the stop, never carries a message.
    #[must_use]
    pub fn channel(&self) -> &Receiver<Never> {
        &self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_every_clone_and_every_wait() {
        let stop = Stop::new();
        let other = stop.clone();
        assert!(!other.is_requested());
        assert!(!other.wait(Duration::from_millis(1)));
        stop.request();
        stop.request();
        assert!(other.is_requested());
        assert!(other.wait(Duration::from_secs(3600)));
        other.wait_forever();
    }
}
