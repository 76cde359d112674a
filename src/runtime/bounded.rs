//! A bounded call into a library that can hang.
//!
//! Kafka's client doesn't bound its connect and handshake, PostgreSQL's synchronous client waits
//! for ever on a frozen server. Such a value lives on a thread of its own; the caller waits with
//! a deadline. A call that is past it is left behind with its thread and its value: it ends by
//! itself when the other side comes back. At most [`LEFT_BEHIND_MAX`] may be left behind in the
//! whole process; past that a call fails at once, so that an outage can't eat all threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

/// How many late calls may be left behind at once in this process: enough for every pool
/// connection of a default configuration, few enough to notice.
pub const LEFT_BEHIND_MAX: usize = 8;

static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// How many calls are left behind now.
#[must_use]
pub fn left_behind() -> usize {
    LEFT_BEHIND.load(Ordering::Relaxed)
}

/// Why a bounded call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The call did not end in time and was left behind, with its value.
    Late,
    /// [`LEFT_BEHIND_MAX`] calls are left behind already: nothing was tried.
    Saturated,
    /// The call panicked; its value is gone.
    Panicked,
    /// The operating system has no room for one more thread.
    NoThread,
    /// An earlier call failed: there is no value any more.
    Gone,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Late => "no answer in time",
            Self::Saturated => "too many calls without an answer",
            Self::Panicked => "the client panicked",
            Self::NoThread => "no thread could be started",
            Self::Gone => "the client was given up",
        })
    }
}

impl std::error::Error for CallError {}

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A value that is only used on its own thread, through calls with a deadline.
///
/// After an error the value is gone and every further call fails with [`CallError::Gone`]: the
/// owner makes a new one.
pub struct BoundedCall<T> {
    jobs: Option<Sender<Job<T>>>,
}

impl<T> std::fmt::Debug for BoundedCall<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundedCall").field("usable", &self.is_usable()).finish()
    }
}

/// Held by the call's thread; whoever settles second, caller or thread, knows that the call was
/// left behind and has now ended.
struct Settle(Arc<AtomicBool>);

impl Drop for Settle {
    fn drop(&mut self) {
        if self.0.swap(true, Ordering::AcqRel) {
            LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<T> BoundedCall<T> {
    /// Whether no call failed yet.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.jobs.is_some()
    }
}

impl<T: 'static> BoundedCall<T> {
    /// Starts the thread named `name` that holds the value made there by `make`.
    ///
    /// # Errors
    /// [`CallError::Saturated`] or [`CallError::NoThread`].
    #[allow(clippy::disallowed_methods)] // not in `Threads`: it may have to be left behind
    pub fn start<M>(name: &str, make: M) -> Result<Self, CallError>
    where
        M: FnOnce() -> T + Send + 'static,
    {
        if left_behind() >= LEFT_BEHIND_MAX {
            return Err(CallError::Saturated);
        }
        let (jobs, inbox) = bounded::<Job<T>>(1);
        Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut value = make();
                while let Ok(job) = inbox.recv() {
                    job(&mut value);
                }
            })
            .map_err(|_| CallError::NoThread)?;
        Ok(Self { jobs: Some(jobs) })
    }

    /// Runs `work` on the value's thread and waits up to `limit` for its answer.
    ///
    /// # Errors
    /// A [`CallError`]; the value is then gone.
    pub fn call<R, F>(&mut self, limit: Duration, work: F) -> Result<R, CallError>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> R + Send + 'static,
    {
        let jobs = self.jobs.take().ok_or(CallError::Gone)?;
        let (answer, inbox) = bounded::<R>(1);
        let settled = Arc::new(AtomicBool::new(false));
        let theirs = Settle(settled.clone());
        let job: Job<T> = Box::new(move |value| {
            let _settle = theirs;
            // The receiver is gone when the caller gave up.
            let _ = answer.send(work(value));
        });
        jobs.send(job).map_err(|_| CallError::Panicked)?;
        let result = match inbox.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => return Err(CallError::Panicked),
            Err(RecvTimeoutError::Timeout) => {
                // Counted up first, so that the thread never counts down from zero.
                LEFT_BEHIND.fetch_add(1, Ordering::Relaxed);
                if !settled.swap(true, Ordering::AcqRel) {
                    return Err(CallError::Late);
                }
                LEFT_BEHIND.fetch_sub(1, Ordering::Relaxed);
                inbox.recv().map_err(|_| CallError::Panicked)?
            }
        };
        self.jobs = Some(jobs);
        Ok(result)
    }
}
