//! Names to addresses, bounded: a resolver that hangs must not take the workers with it.
//!
//! `getaddrinfo` can't be given a deadline, so it runs on threads of its own, a bounded number of them.
//!
//! Invariants:
//! - One look-up per name is under way or queued; whoever asks for the same name waits for it.
//! - A waiter leaves at its deadline. A queued look-up that nobody waits for any more is skipped.
//! - The queue is bounded; a full one is an answer at once: the resolver is saturated.
//! - Addresses are used again only if a cache is wanted, for its time from when they came; failures
//!   never are.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::runtime::now;

/// Names that may wait for a resolver thread. More are waiting only when every thread hangs.
const QUEUE: usize = 1024;
/// Stack of a resolver thread: glibc's look-up needs less than 100 KiB.
const STACK: usize = 256 << 10;
/// Most addresses kept of one name and family, and most that are dialled.
pub(super) const ADDRESSES_MAX: usize = 16;

/// How a name is looked up.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The operating system's look-up: hosts file, DNS, whatever it is set up to.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

/// Why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupError {
    /// The look-up failed, with the resolver's own words.
    Failed(String),
    /// The look-up worked, and the name has no address.
    NoAddress,
    /// The waiter's deadline came first.
    Late,
    /// All threads are busy and the queue is full.
    Saturated,
}

type Answer = Result<Arc<[IpAddr]>, LookupError>;

#[derive(Default)]
struct Job {
    state: Mutex<JobState>,
    answered: Condvar,
}

#[derive(Default)]
struct JobState {
    answer: Option<Answer>,
    waiters: usize,
}

type Jobs = Mutex<HashMap<String, Arc<Job>>>;

/// Most names in the cache: 100,000 sites shall fit, at some 150 bytes each.
const CACHED_MAX: usize = 100_000;

/// What names were found to be, for a while.
struct Cache {
    /// How long; zero: nothing is remembered.
    time: Duration,
    found: Mutex<HashMap<String, Found>>,
}

/// Addresses, and the time on the monotonic clock until which they are good.
type Found = (Duration, Arc<[IpAddr]>);

impl Cache {
    fn get(&self, host: &str) -> Option<Arc<[IpAddr]>> {
        if self.time.is_zero() {
            return None;
        }
        let found = locked(&self.found);
        let (until, addresses) = found.get(host)?;
        (now().mono < *until).then(|| addresses.clone())
    }

    fn put(&self, host: &str, addresses: &Arc<[IpAddr]>) {
        if self.time.is_zero() {
            return;
        }
        let now = now().mono;
        let mut found = locked(&self.found);
        if found.len() >= CACHED_MAX {
            found.retain(|_, (until, _)| now < *until);
            if found.len() >= CACHED_MAX {
                found.clear();
            }
        }
        found.insert(host.to_owned(), (now.saturating_add(self.time), addresses.clone()));
    }
}

/// The threads and their queue. A thread is started when a look-up would have to wait for one,
/// up to the limit; they end when this is dropped and their look-up returns.
pub(super) struct Resolver {
    queue: Sender<(String, Arc<Job>)>,
    jobs: Arc<Jobs>,
    cache: Arc<Cache>,
    /// What a thread works with.
    inbox: Receiver<(String, Arc<Job>)>,
    lookup: Lookup,
    limit: usize,
    /// Threads started; changed under the lock of `jobs`.
    threads: AtomicUsize,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Resolver {
    /// Has at most `limit` threads that use `lookup`, whose answers are good for as long as `cache`.
    /// The first is started now, so that it is known whether that can be done.
    pub(super) fn start(
        limit: usize,
        queue: usize,
        lookup: &Lookup,
        cache: Duration,
    ) -> io::Result<Self> {
        let (sender, inbox) = bounded(queue);
        let cache = Arc::new(Cache { time: cache, found: Mutex::default() });
        let resolver = Self {
            queue: sender,
            jobs: Arc::new(Jobs::default()),
            cache,
            inbox,
            lookup: lookup.clone(),
            limit,
            threads: AtomicUsize::new(0),
        };
        resolver.start_thread()?;
        Ok(resolver)
    }

    // Not in `Threads`: a look-up that hangs can't be told to stop, so nobody could join them.
    #[allow(clippy::disallowed_methods)]
    fn start_thread(&self) -> io::Result<()> {
        let (inbox, jobs) = (self.inbox.clone(), self.jobs.clone());
        let (lookup, cache) = (self.lookup.clone(), self.cache.clone());
        let number = self.threads.load(Ordering::Relaxed);
        Builder::new()
            .name(format!("resolver-{number}"))
            .stack_size(STACK)
            .spawn(move || serve(&inbox, &jobs, &lookup, &cache))?;
        self.threads.store(number + 1, Ordering::Relaxed);
        Ok(())
    }

    /// The same with a queue of the usual length.
    pub(super) fn with_threads(limit: usize, lookup: &Lookup, cache: Duration) -> io::Result<Self> {
        Self::start(limit, QUEUE, lookup, cache)
    }

    /// The addresses of `host`; waits until `deadline` on the monotonic clock.
    pub(super) fn addresses(&self, host: &str, deadline: Duration) -> Answer {
        if let Some(addresses) = self.cache.get(host) {
            return Ok(addresses);
        }
        let job = {
            let mut jobs = locked(&self.jobs);
            let job = match jobs.get(host) {
                Some(job) => job.clone(),
                None => {
                    let job = Arc::new(Job::default());
                    self.queue
                        .try_send((host.to_owned(), job.clone()))
                        .map_err(|_| LookupError::Saturated)?;
                    jobs.insert(host.to_owned(), job.clone());
                    // Each job has a thread, or waits for one: more jobs than threads.
                    let threads = self.threads.load(Ordering::Relaxed);
                    if jobs.len() > threads
                        && threads < self.limit
                        && let Err(error) = self.start_thread()
                    {
                        // Those that are there get to it.
                        log::debug!(error:%, threads; "no further resolver thread");
                    }
                    job
                }
            };
            // Under the map's lock: a resolver thread skips a job only if it has no waiter then.
            locked(&job.state).waiters += 1;
            job
        };
        let mut state = locked(&job.state);
        loop {
            if let Some(answer) = &state.answer {
                return answer.clone();
            }
            let left = deadline.saturating_sub(now().mono);
            if left.is_zero() {
                state.waiters -= 1;
                return Err(LookupError::Late);
            }
            state =
                job.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn serve(queue: &Receiver<(String, Arc<Job>)>, jobs: &Jobs, lookup: &Lookup, cache: &Cache) {
    while let Ok((host, job)) = queue.recv() {
        {
            let mut jobs = locked(jobs);
            if locked(&job.state).waiters == 0 {
                jobs.remove(&host);
                continue;
            }
        }
        let answer = answer(&host, lookup);
        if let Ok(addresses) = &answer {
            cache.put(&host, addresses);
        }
        // Whoever asks from here on gets a look-up of their own.
        locked(jobs).remove(&host);
        locked(&job.state).answer = Some(answer);
        job.answered.notify_all();
    }
}

fn answer(host: &str, lookup: &Lookup) -> Answer {
    let Ok(found) = catch_unwind(AssertUnwindSafe(|| lookup(host))) else {
        return Err(LookupError::Failed("the look-up panicked".to_owned()));
    };
    match found {
        Ok(found) if found.is_empty() => Err(LookupError::NoAddress),
        Ok(found) => {
            let mut kept = [0; 2];
            let has_room = |address: &IpAddr| {
                let kept = &mut kept[usize::from(address.is_ipv6())];
                *kept += 1;
                *kept <= ADDRESSES_MAX
            };
            Ok(found.into_iter().filter(has_room).collect())
        }
        Err(error) => Err(LookupError::Failed(reason(&error))),
    }
}

/// What `getaddrinfo` said. "Name or service not known" is NXDOMAIN, "No address associated with
/// hostname" a name without addresses, "Temporary failure in name resolution" no server.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crossbeam_channel::Sender;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A look-up that counts its calls and hangs until the sender is dropped.
    fn hanging() -> (Lookup, Sender<()>, Arc<AtomicUsize>) {
        let (hold, held) = bounded::<()>(0);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let lookup: Lookup = Arc::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = held.recv();
            Ok(vec![ADDRESS])
        });
        (lookup, hold, calls)
    }

    fn soon(ms: u64) -> Duration {
        now().mono + Duration::from_millis(ms)
    }

    /// Waits for an answer, with a cap.
    fn until<T>(ask: impl Fn() -> Option<T>) -> T {
        let (never, end) = (crate::runtime::Stop::new(), soon(20_000));
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(now().mono < end, "waited in vain");
            let _ = never.wait(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_name_is_looked_up_once_for_all_who_wait() {
        let (lookup, hold, calls) = hanging();
        let resolver = Resolver::start(2, 8, &lookup, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiting: Vec<_> =
                (0..4).map(|_| scope.spawn(|| resolver.addresses("a", soon(20_000)))).collect();
            until(|| {
                let jobs = locked(&resolver.jobs);
                jobs.get("a").filter(|job| locked(&job.state).waiters == 4).map(drop)
            });
            drop(hold);
            for waiter in waiting {
                assert_eq!(*waiter.join().unwrap().unwrap(), [ADDRESS]);
            }
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(locked(&resolver.jobs).is_empty());
    }

    #[test]
    fn waiters_leave_a_hung_look_up_and_a_full_queue_says_so() {
        let (lookup, hold, calls) = hanging();
        let resolver = Resolver::start(1, 1, &lookup, Duration::ZERO).unwrap();
        assert_eq!(resolver.addresses("a", soon(30)), Err(LookupError::Late));
        // The thread hangs in "a"; "b" waits in the queue, "c" has no place.
        until(|| (calls.load(Ordering::SeqCst) > 0).then_some(()));
        assert_eq!(resolver.addresses("b", soon(5)), Err(LookupError::Late));
        assert_eq!(resolver.addresses("c", soon(5)), Err(LookupError::Saturated));
        // Nobody waits for "b" any more: it is never looked up.
        drop(hold);
        let found = until(|| match resolver.addresses("d", soon(20_000)) {
            Err(LookupError::Saturated) => None,
            found => Some(found),
        });
        assert_eq!(*found.unwrap(), [ADDRESS]);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn failures_are_told_apart() {
        let lookup: Lookup = Arc::new(|host| match host {
            "none" => Ok(Vec::new()),
            "panic" => panic!("on purpose"),
            "many" => Ok(vec![ADDRESS; 40]),
            _ => Err(io::Error::other(
                "failed to lookup address information: Name or service not known",
            )),
        });
        let resolver = Resolver::with_threads(1, &lookup, Duration::ZERO).unwrap();
        let failed = |text: &str| Err(LookupError::Failed(text.to_owned()));
        assert_eq!(resolver.addresses("none", soon(20_000)), Err(LookupError::NoAddress));
        assert_eq!(resolver.addresses("panic", soon(20_000)), failed("the look-up panicked"));
        assert_eq!(resolver.addresses("x", soon(20_000)), failed("Name or service not known"));
        assert_eq!(resolver.addresses("many", soon(20_000)).unwrap().len(), ADDRESSES_MAX);
    }

    #[test]
    fn addresses_are_used_again_only_for_the_time_of_the_cache() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let lookup: Lookup = Arc::new(move |host| {
            counted.fetch_add(1, Ordering::SeqCst);
            match host {
                "bad" => Err(io::Error::other("no")),
                _ => Ok(vec![ADDRESS]),
            }
        });
        let look_up = |resolver: &Resolver, host: &str, times: usize| {
            let before = calls.load(Ordering::SeqCst);
            for _ in 0..times {
                let _ = resolver.addresses(host, soon(20_000));
            }
            calls.load(Ordering::SeqCst) - before
        };
        let none = Resolver::with_threads(1, &lookup, Duration::ZERO).unwrap();
        assert_eq!(look_up(&none, "a", 3), 3);
        let long = Resolver::with_threads(1, &lookup, Duration::from_secs(300)).unwrap();
        assert_eq!(look_up(&long, "a", 3), 1);
        assert_eq!(look_up(&long, "b", 3), 1);
        assert_eq!(look_up(&long, "bad", 3), 3);
        let short = Resolver::with_threads(1, &lookup, Duration::from_nanos(1)).unwrap();
        assert_eq!(look_up(&short, "a", 3), 3);
    }
}
