//! Named threads that are joined.

use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::{Stop, now};

/// How often [`Threads::join`] looks whether a thread has ended.
const JOIN_POLL: Duration = Duration::from_millis(5);

/// The threads of one component. A thread whose body panics is logged and, as the component
/// can't work without it, asks for the daemon's stop.
#[derive(Debug)]
pub struct Threads {
    stop: Stop,
    running: Vec<(String, JoinHandle<()>)>,
}

impl Threads {
    /// No threads yet; `stop` is asked for when one of them panics.
    #[must_use]
    pub fn new(stop: Stop) -> Self {
        Self { stop, running: Vec::new() }
    }

    /// Starts a thread named `name` (the first 15 bytes are what the kernel shows).
    ///
    /// # Errors
    /// The operating system's, when it has no room for one more thread.
    #[allow(clippy::disallowed_methods)] // the one place where threads are started
    pub fn spawn<F>(&mut self, name: &str, body: F) -> std::io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let (stop, thread_name) = (self.stop.clone(), name.to_owned());
        let handle = Builder::new().name(name.to_owned()).spawn(move || {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
                log::error!(thread = thread_name.as_str(); "thread panicked, stopping");
                stop.request();
            }
        })?;
        self.running.push((name.to_owned(), handle));
        Ok(())
    }

    /// Waits up to `limit` for all threads to end; the names of those that did not.
    #[must_use]
    pub fn join(mut self, limit: Duration) -> Vec<String> {
        let end = now().mono.saturating_add(limit);
        let never = Stop::new();
        loop {
            let (ended, running): (Vec<_>, Vec<_>) =
                self.running.drain(..).partition(|(_, handle)| handle.is_finished());
            for (_, handle) in ended {
                // The body's panic was caught and logged where it happened.
                let _ = handle.join();
            }
            self.running = running;
            if self.running.is_empty() || now().mono >= end {
                return self.running.into_iter().map(|(name, _)| name).collect();
            }
            let _ = never.wait(JOIN_POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_what_ends_and_names_what_does_not() {
        let (stop, hold) = (Stop::new(), Stop::new());
        let mut threads = Threads::new(stop.clone());
        threads.spawn("quick", || ()).unwrap();
        let held = hold.clone();
        threads.spawn("held", move || held.wait_forever()).unwrap();
        assert_eq!(threads.join(Duration::from_millis(30)), ["held"]);
        hold.request();
        assert!(!stop.is_requested());
    }

    #[test]
    fn a_panic_asks_for_the_stop() {
        let stop = Stop::new();
        let mut threads = Threads::new(stop.clone());
        threads.spawn("bad", || panic!("on purpose")).unwrap();
        assert!(threads.join(Duration::from_secs(10)).is_empty());
        assert!(stop.is_requested());
    }
}
