//! The threads that answer.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Service;
use super::request::Request;
use super::response::{Problem, Response};
use crate::runtime::{Threads, mono};
use crate::telemetry::{ByDaemonThread, metrics};

/// Requests that may wait for a thread, for each thread. An answer takes milliseconds: those at
/// the end still come long before their deadline, and what a burst leaves over is told so at once.
const WAITING_PER_THREAD: usize = 8;

/// The same for the one thread that gives what needs nothing but this process: it takes a moment.
const WAITING_QUICK: usize = 64;

/// A request with the connection it came from.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) connection: u64,
    pub(super) request: Request,
    /// Gone when nobody waits for the answer any more.
    pub(super) wanted: Weak<()>,
}

/// The answer to a connection's request.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) connection: u64,
    pub(super) response: Response,
}

/// Rings whoever polls.
#[derive(Clone, Debug)]
pub(super) struct Bell(pub(super) Arc<OwnedFd>);

impl Bell {
    pub(super) fn ring(&self) {
        // Can't fail: the counter is far from its end.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn hush(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

/// The way to the threads and back.
pub(super) struct Pool {
    service: Arc<dyn Service>,
    jobs: Sender<Job>,
    /// To a thread that nothing holds up.
    quick: Sender<Job>,
    done: Receiver<Done>,
}

impl Pool {
    /// Starts so many threads, and one for what is quick; they end when this value is gone.
    pub(super) fn start(
        count: usize,
        service: &Arc<dyn Service>,
        bell: &Bell,
        threads: &mut Threads,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = bounded(count * WAITING_PER_THREAD);
        let (quick, quick_inbox) = bounded(WAITING_QUICK);
        // Each thread's answer has room, so that none of them waits for the one that polls.
        let (outbox, done) = bounded(count * (WAITING_PER_THREAD + 1) + WAITING_QUICK + 1);
        let usual = (1..=count).map(|number| (format!("api-{number}"), &inbox));
        for (name, inbox) in usual.chain([("api-quick".to_owned(), &quick_inbox)]) {
            let (inbox, outbox) = (inbox.clone(), outbox.clone());
            let (service, bell) = (service.clone(), bell.clone());
            threads.spawn(&name, move || work(&*service, &inbox, &outbox, &bell))?;
        }
        Ok(Self { service: service.clone(), jobs, quick, done })
    }

    /// Hands a request on, unless too many wait already.
    pub(super) fn give(&self, job: Job) -> bool {
        let way = if self.service.is_quick(&job.request) { &self.quick } else { &self.jobs };
        way.try_send(job).is_ok()
    }

    /// An answer that has come.
    pub(super) fn take(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

fn work(service: &dyn Service, inbox: &Receiver<Job>, outbox: &Sender<Done>, bell: &Bell) {
    while let Ok(Job { connection, request, wanted }) = inbox.recv() {
        if wanted.strong_count() == 0 || mono() >= request.deadline {
            continue;
        }
        let answer = catch_unwind(AssertUnwindSafe(|| service.respond(&request)));
        let response = answer.unwrap_or_else(|_| {
            metrics().panics.get_or_create(&ByDaemonThread { thread: "api" }).inc();
            log::error!(method = request.method.as_str(), path = request.path.as_str();
                "a request's handler panicked");
            Problem::new(500, "a fault of webmon; its log says more").response()
        });
        if outbox.send(Done { connection, response }).is_err() {
            return;
        }
        bell.ring();
    }
}
