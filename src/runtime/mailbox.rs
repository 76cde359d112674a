//! A bounded queue between threads whose receiver sleeps at once.
//!
//! A general channel spins and yields for some microseconds before it lets a thread sleep. That
//! is right where the next message comes soon. Workers and dispatcher wait for milliseconds, some
//! hundred times a second: their spinning took as much CPU as the checks themselves.
//!
//! Invariants:
//! - What was sent is received once, in order, or dropped with the last of the two ends.
//! - A change of the queue, or of who is left, is made under the lock and told after it: no wait
//!   misses it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock::mono;

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    has_receiver: bool,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    arrived: Condvar,
    left: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that gives. Clones lead to the same queue.
#[derive(Debug)]
pub struct MailSender<T>(Arc<Shared<T>>);

/// The end that takes.
#[derive(Debug)]
pub struct MailReceiver<T>(Arc<Shared<T>>);

/// Why there is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMail {
    /// None came in time.
    Late,
    /// Nobody is left who could send one.
    Ended,
}

/// A queue of at most `capacity` messages.
#[must_use]
pub fn mailbox<T>(capacity: usize) -> (MailSender<T>, MailReceiver<T>) {
    let state = State { queue: VecDeque::with_capacity(capacity), senders: 1, has_receiver: true };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        capacity,
        arrived: Condvar::new(),
        left: Condvar::new(),
    });
    (MailSender(shared.clone()), MailReceiver(shared))
}

impl<T> MailSender<T> {
    /// Sends without waiting.
    ///
    /// # Errors
    /// The message, when the queue is full or its receiver is gone.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if !state.has_receiver || state.queue.len() >= self.0.capacity {
            return Err(message);
        }
        state.queue.push_back(message);
        drop(state);
        self.0.arrived.notify_one();
        Ok(())
    }

    /// Sends as soon as there is room.
    ///
    /// # Errors
    /// The message, when the receiver is gone.
    pub fn send(&self, message: T) -> Result<(), T> {
        let mut state = self.0.lock();
        while state.has_receiver && state.queue.len() >= self.0.capacity {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.has_receiver {
            return Err(message);
        }
        state.queue.push_back(message);
        drop(state);
        self.0.arrived.notify_one();
        Ok(())
    }
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for MailSender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let is_last = state.senders == 0;
        drop(state);
        if is_last {
            self.0.arrived.notify_all();
        }
    }
}

impl<T> MailReceiver<T> {
    /// Waits for the next message; `None` when nobody is left who could send one.
    #[must_use]
    pub fn recv(&self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            if let Some(message) = state.queue.pop_front() {
                drop(state);
                self.0.left.notify_one();
                return Some(message);
            }
            if state.senders == 0 {
                return None;
            }
            state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same for at most `limit`.
    ///
    /// # Errors
    /// [`NoMail`].
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, NoMail> {
        let end = mono().saturating_add(limit);
        let mut state = self.0.lock();
        loop {
            if let Some(message) = state.queue.pop_front() {
                drop(state);
                self.0.left.notify_one();
                return Ok(message);
            }
            if state.senders == 0 {
                return Err(NoMail::Ended);
            }
            let left = end.saturating_sub(mono());
            if left.is_zero() {
                return Err(NoMail::Late);
            }
            state =
                self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T> Drop for MailReceiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.has_receiver = false;
        // Nobody takes it any more; what it holds may be an end of another queue.
        let rest = std::mem::take(&mut state.queue);
        drop(state);
        drop(rest);
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_once_through_a_short_queue() {
        let (sender, receiver) = mailbox(2);
        std::thread::scope(|scope| {
            for first in [0, 1000] {
                let sender = sender.clone();
                scope.spawn(move || {
                    for number in first..first + 500 {
                        sender.send(number).unwrap();
                    }
                });
            }
            drop(sender);
            let all: Vec<u32> = std::iter::from_fn(|| receiver.recv()).collect();
            let (low, high): (Vec<u32>, Vec<u32>) = all.into_iter().partition(|n| *n < 1000);
            assert!(low.into_iter().eq(0..500) && high.into_iter().eq(1000..1500));
        });
    }

    #[test]
    fn a_full_queue_a_silence_and_an_end_are_told_apart() {
        let (sender, receiver) = mailbox(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(2));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(1));
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Err(NoMail::Late));
        let other = sender.clone();
        other.try_send(3).unwrap();
        drop((sender, other));
        assert_eq!(receiver.recv(), Some(3));
        assert_eq!(receiver.recv(), None);
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Err(NoMail::Ended));
    }

    #[test]
    fn a_sender_that_waits_for_room_hears_that_nobody_takes_any_more() {
        let (sender, receiver) = mailbox(1);
        sender.send(1).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| sender.send(2));
            drop(receiver);
            assert_eq!(waiting.join().unwrap(), Err(2));
        });
        assert_eq!(sender.try_send(3), Err(3));
    }
}
