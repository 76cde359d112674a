//! The producer: sites on schedule through the probe into the spool, and from there to the bus.
//!
//! ```text
//! sites ──changes──► dispatcher ──jobs──► lanes (workers) ──results──► spool ──► publisher ──► bus
//!   ▲ ownership         wheel       bounded        probe                 durable
//! ```
//!
//! Invariants:
//! - Every due time that the schedule hands out ends as one record in the spool: the check's, or
//!   a missed one. Nobody but the publisher reads the spool.
//! - The cursor of the spool moves only after the bus has taken the records before it.
//! - The dispatcher never waits for a worker, a disk or a network.

mod copy;
mod dispatcher;
mod lanes;
mod ownership;
mod publishing;
mod recorder;
mod sites;
mod view;

use std::sync::Arc;
use std::time::Duration;

use self::lanes::{LaneOptions, Lanes, Live, Running, SlowSites, Work};
use self::recorder::Recorder;
use crate::kafka::{GroupOptions, KafkaError, KafkaOptions};
use crate::probe::{ProbeError, ProbeOptions, ProbeParts, Prober};
use crate::runtime::{Stop, Threads};
use crate::site::{SiteDefaults, SiteSpec};
use crate::spool::{Spool, SpoolError, SpoolOptions};
use crate::store::Store;
use crate::telemetry::health;

pub use ownership::Ownership;
pub use publishing::{Delivery, KafkaDelivery, Outgoing, Undelivered};
pub use view::{ProducerView, Seen};

/// Time that running checks get to end after a stop was asked for.
pub const GRACE: Duration = Duration::from_secs(10);
/// Time for everything else at the stop: the spool's last commit, the publisher's last batch,
/// leaving the group.
const CLOSING: Duration = Duration::from_secs(10);

/// How long a producer that leaves the group goes on with its sites: the others notice within a
/// heartbeat (1 s), join again, and take the new share up within 2 s. What both check meanwhile is
/// one row.
const HANDOVER: Duration = Duration::from_secs(6);
/// Time for the site list's thread, which looks every second.
const LISTING: Duration = Duration::from_secs(2);

/// What a producer needs to know.
#[derive(Debug)]
pub struct ProducerOptions {
    /// The probe's.
    pub probe: ProbeOptions,
    /// The spool's.
    pub spool: SpoolOptions,
    /// Workers of the fast lane.
    pub threads: usize,
    /// Workers of the slow lane.
    pub slow_threads: usize,
    /// Checks that may be under way to one address at once; `None`: no limit.
    pub per_address: Option<usize>,
    /// For sites without interval or timeout of their own.
    pub defaults: SiteDefaults,
    /// Sites of the configuration, put into the table when absent by name.
    pub websites: Vec<SiteSpec>,
    /// How sites are shared with other producers; `None`: this producer owns all.
    pub sharing: Option<Sharing>,
}

/// How producers of one region share the sites.
#[derive(Debug)]
pub struct Sharing {
    /// The brokers.
    pub kafka: KafkaOptions,
    /// The group of this region's producers, on the topic whose partitions are the shares.
    pub group: GroupOptions,
}

/// A running producer.
#[derive(Debug)]
pub struct Producer {
    stop: Stop,
    /// Ends the checks, after the sites were handed over.
    handed_over: Stop,
    /// Ends the publisher and the spool, after the workers.
    drained: Stop,
    ownership: Ownership,
    listing: Threads,
    checking: Threads,
    sharing: Threads,
    keeping: Threads,
    publishing: Threads,
    spool: Spool,
    recorder: Recorder,
    running: Running,
    slow_sites: SlowSites,
}

/// Why a producer could not be started.
#[derive(Debug)]
pub enum ProducerError {
    /// The spool can't be opened.
    Spool(SpoolError),
    /// The probe can't be set up.
    Probe(ProbeError),
    /// The settings of the group can't be used.
    Group(KafkaError),
    /// The operating system has no room for the threads.
    Thread(std::io::Error),
}

impl std::fmt::Display for ProducerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spool(error) => write!(f, "{error}"),
            Self::Probe(error) => write!(f, "{error}"),
            Self::Group(error) => write!(f, "{error}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for ProducerError {}

impl Producer {
    /// Starts all threads. Neither the database nor the broker has to be there.
    ///
    /// # Errors
    /// A [`ProducerError`]; what was started by then ends with the process.
    pub fn start(
        options: ProducerOptions,
        store: Store,
        delivery: Box<dyn Delivery>,
        stop: &Stop,
    ) -> Result<Self, ProducerError> {
        for part in [delivery.part(), "database"] {
            health().expect(part);
        }
        let (handed_over, drained) = (Stop::new(), Stop::new());
        let mut listing = Threads::new(stop.clone());
        let mut checking = Threads::new(stop.clone());
        let mut sharing = Threads::new(stop.clone());
        let mut keeping = Threads::new(stop.clone());
        let mut publishing = Threads::new(stop.clone());

        let spool = Spool::open(options.spool, &mut keeping).map_err(ProducerError::Spool)?;
        let region = options.probe.region.clone();
        let parts = ProbeParts { stop: handed_over.clone(), ..ProbeParts::default() };
        let prober = Prober::with_parts(options.probe, parts).map_err(ProducerError::Probe)?;
        let recorder = Recorder::new(spool.clone());
        let work: Arc<dyn Work> = Arc::new(Live { prober, recorder: recorder.clone() });
        let slow_sites = SlowSites::load(spool.clone());
        let ownership = Ownership::all();

        publishing::start(spool.clone(), delivery, &drained, &mut publishing)
            .map_err(ProducerError::Thread)?;
        if let Some(with) = options.sharing {
            ownership::start(with, &ownership, stop, &mut sharing).map_err(ProducerError::Group)?;
        }
        let wanted = LaneOptions {
            fast: options.threads,
            slow: options.slow_threads,
            per_address: options.per_address,
        };
        let (lanes, running) =
            Lanes::start(wanted, &work, &slow_sites, &handed_over, &mut checking)
                .map_err(ProducerError::Thread)?;
        let (results, slow) = (recorder.clone(), slow_sites.clone());
        let changes = dispatcher::start(lanes, results, slow, &handed_over, &mut checking)
            .map_err(ProducerError::Thread)?;
        let sites = sites::Sites::new(
            store,
            spool.clone(),
            ownership.clone(),
            options.defaults,
            options.websites,
            region,
            changes,
        );
        let (follower, their_stop) = (sites.follower(spool.clone()), handed_over.clone());
        listing.spawn("share", move || follower.run(&their_stop)).map_err(ProducerError::Thread)?;
        let their_stop = handed_over.clone();
        listing.spawn("sites", move || sites.run(&their_stop)).map_err(ProducerError::Thread)?;
        Ok(Self {
            stop: stop.clone(),
            handed_over,
            drained,
            ownership,
            listing,
            checking,
            sharing,
            keeping,
            publishing,
            spool,
            recorder,
            running,
            slow_sites,
        })
    }

    /// What others may see of it.
    #[must_use]
    pub fn view(&self) -> ProducerView {
        ProducerView::new(self.ownership.clone(), self.spool.clone())
    }

    /// Waits for the stop, then stops in order:
    ///
    /// 1. the group is left, so that other producers take over; if there are any, this one goes
    ///    on with its sites for some seconds, so that no due time falls between two;
    /// 2. no more due times; running checks get [`GRACE`]; what waits for a worker is recorded as missed, and so is
    ///    what is still running then; the list of slow sites is put into the spool;
    /// 3. the spool commits what it holds;
    /// 4. the publisher delivers what the bus takes now; the rest stays in the spool.
    pub fn run_until_stopped(self) {
        self.stop.wait_forever();
        if self.ownership.is_shared() {
            log::info!(seconds = HANDOVER.as_secs(); "handing the sites over");
            // Nothing asks for it but the next line.
            let _ = self.handed_over.wait(HANDOVER);
        }
        self.handed_over.request();
        let late = self.checking.join(GRACE);
        if !late.is_empty() {
            let checks = self.running.abandon(&self.recorder);
            log::warn!(checks, threads = late.join(","); "checks did not end in time");
        }
        self.slow_sites.keep_now();
        if !self.spool.flush(CLOSING) {
            log::error!("spool could not commit its last results");
        }
        self.drained.request();
        let mut late = self.publishing.join(CLOSING);
        self.spool.close();
        late.extend(self.keeping.join(CLOSING));
        late.extend(self.sharing.join(CLOSING));
        // It may be in a call to a database that doesn't answer, and holds nothing.
        late.extend(self.listing.join(LISTING));
        if !late.is_empty() {
            log::warn!(threads = late.join(","); "threads did not end in time");
        }
    }
}
