//! The list of sites: from the table, live; from the spool's copy while the database is away.
//!
//! Two threads: one follows the table, and may be held up by a database that does not answer; the
//! other follows the share of this producer, and takes a changed one up from the copy when the
//! first does not come to it.
//!
//! It may be long, so it goes through in pages: at no time is more than one page held beside what
//! the dispatcher needs.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::copy::SiteCopy;
use super::dispatcher::Changes;
use super::ownership::Ownership;
use crate::probe::Target;
use crate::runtime::{Backoff, MailSender, Stop, mono};
use crate::site::{SiteDefaults, SiteSpec};
use crate::spool::Spool;
use crate::store::{SiteListener, Store, StoreError};
use crate::telemetry::health;

/// How long one look for changes takes: bounds how late a stop or a changed share is seen.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether the share has changed.
const SHARE_LOOK: Duration = Duration::from_millis(250);
/// How long the table's thread has for a changed share: it looks every second, and the table is
/// newer than the copy.
const TABLE_FIRST: Duration = Duration::from_millis(1500);
/// Least time between two rounds, in which changes gather: a change is in force within 2 s, and
/// thousands of them, one by one, don't mean as many rounds.
const ROUND_GAP: Duration = Duration::from_millis(250);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// This room's part of the process's health.
const PART: &str = "database";

/// Sites read at once.
const PAGE: usize = 1000;
/// Most sites that one change hands over: the dispatcher goes on with due checks in between.
const CHANGES_AT_ONCE: usize = 1000;

pub(super) struct Sites {
    store: Store,
    copy: SiteCopy,
    websites: Vec<SiteSpec>,
    shared: Arc<Shared>,
    /// Whether the tables are there, with the configuration's sites.
    is_prepared: bool,
}

impl Sites {
    pub(super) fn new(
        store: Store,
        spool: Spool,
        ownership: Ownership,
        defaults: SiteDefaults,
        websites: Vec<SiteSpec>,
        region: String,
        changes: MailSender<Changes>,
    ) -> Self {
        let handover = Handover {
            ownership: ownership.clone(),
            defaults,
            region: region.into(),
            changes,
            known: HashMap::new(),
            round: 0,
            pending: Changes::default(),
        };
        let handover = Mutex::new(handover);
        let shared = Arc::new(Shared { ownership, handover, taken_up: AtomicU64::new(0) });
        Self { store, copy: SiteCopy::new(spool), websites, shared, is_prepared: false }
    }

    /// The other thread's part.
    pub(super) fn follower(&self, spool: Spool) -> Follower {
        Follower { shared: self.shared.clone(), spool }
    }

    /// Until the stop: loads, hands over, waits for changes.
    pub(super) fn run(mut self, stop: &Stop) {
        let mut listener = SiteListener::start(&self.store);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut version = self.shared.ownership.version();
        // What was read may be old: the table is to be read, whether or not anything is told.
        let mut is_stale = true;
        // Nothing waits for the database, not even for its refusal.
        self.shared.read_copy(&mut self.copy, version);
        while !stop.is_requested() {
            let current = self.shared.ownership.version();
            is_stale |= version != current;
            version = current;
            match self.update(&mut listener, &mut is_stale, version, stop) {
                Ok(None) => {}
                Ok(Some(sites)) => {
                    backoff.reset();
                    if health().well(PART) {
                        log::info!(sites; "site list loaded");
                    }
                    let _ = stop.wait(ROUND_GAP);
                }
                Err(error) => {
                    // A notification may have been taken without its sites.
                    is_stale = true;
                    // What was read is in force, however long the rest will take.
                    self.shared.handover().send();
                    let cause = error.to_string();
                    if health().unwell(PART, cause.as_str()) {
                        log::warn!(cause = cause.as_str(); "site list cannot be loaded");
                    }
                    let _ = stop.wait(backoff.next_delay());
                }
            }
        }
    }

    /// Waits for a change, at most [`LOOK`], and reads the table if there was one; how many sites
    /// it has then.
    fn update(
        &mut self,
        listener: &mut SiteListener,
        is_stale: &mut bool,
        version: u64,
        stop: &Stop,
    ) -> Result<Option<usize>, StoreError> {
        if !self.is_prepared {
            self.store.migrate()?;
            for name in self.store.add_missing_sites(&self.websites)? {
                log::info!(name = name.as_str(); "site of the configuration added");
            }
            self.is_prepared = true;
        }
        *is_stale |= listener.wait(if *is_stale { Duration::ZERO } else { LOOK })?;
        if !*is_stale {
            return Ok(None);
        }
        let sites = self.read_table(stop)?;
        if sites.is_some() {
            *is_stale = false;
            self.shared.take_up(version);
        }
        Ok(sites)
    }

    /// A round over the table; how many sites there are. A round that fails has taken in some
    /// changes and leaves the rest to the next one; so does one in whose midst the stop came, or a
    /// round over the copy.
    fn read_table(&mut self, stop: &Stop) -> Result<Option<usize>, StoreError> {
        let round = self.shared.handover().begin();
        let mut rewrite = self.copy.rewrite();
        let (mut after, mut sites) = (i64::MIN, 0);
        loop {
            let rows = self.store.sites_after(after, PAGE)?;
            let is_last = rows.len() < PAGE;
            sites += rows.len();
            let mut handover = self.shared.handover();
            if handover.round != round {
                return Ok(None);
            }
            for row in rows {
                after = row.website_id;
                let digest = digest(&row.spec);
                handover.take(row.website_id, &row.spec, digest);
                rewrite.add(row.website_id, row.spec, digest);
            }
            if is_last {
                handover.end();
                break;
            }
            if stop.is_requested() {
                return Ok(None);
            }
        }
        rewrite.finish();
        Ok(Some(sites))
    }
}

/// What both threads work with.
struct Shared {
    ownership: Ownership,
    handover: Mutex<Handover>,
    /// The version of the share with which the last whole round began.
    taken_up: AtomicU64,
}

impl Shared {
    fn handover(&self) -> MutexGuard<'_, Handover> {
        self.handover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_up(&self, version: u64) {
        self.taken_up.fetch_max(version, Ordering::AcqRel);
    }

    /// A round over the copy, with the share's `version`.
    fn read_copy(&self, copy: &mut SiteCopy, version: u64) {
        let mut handover = self.handover();
        handover.begin();
        let mut sites = 0;
        let found = copy.read(|website_id, spec| {
            sites += 1;
            let digest = digest(spec);
            handover.take(website_id, spec, digest);
            digest
        });
        match found {
            Ok(true) => {
                handover.end();
                log::info!(sites; "using the site list last seen");
            }
            Ok(false) => log::info!("no site list yet: waiting for the database"),
            Err(cause) => {
                // What could be read is checked; nothing is taken away for it.
                handover.send();
                log::error!(sites, cause = cause.as_str(); "copy of the site list is unreadable");
            }
        }
        self.take_up(version);
    }
}

/// Follows the share.
pub(super) struct Follower {
    shared: Arc<Shared>,
    spool: Spool,
}

impl Follower {
    /// Until the stop.
    pub(super) fn run(&self, stop: &Stop) {
        let mut changed_at: Option<Duration> = None;
        while !stop.wait(SHARE_LOOK) {
            let version = self.shared.ownership.version();
            if self.shared.taken_up.load(Ordering::Acquire) >= version {
                changed_at = None;
                continue;
            }
            let time = mono();
            if time.saturating_sub(*changed_at.get_or_insert(time)) >= TABLE_FIRST {
                self.shared.read_copy(&mut SiteCopy::new(self.spool.clone()), version);
            }
        }
    }
}

/// What is known of a site of this producer.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Of its settings.
    digest: u64,
    /// The round in which it was last seen.
    round: u32,
    /// It can't be checked; the dispatcher doesn't have it.
    is_faulty: bool,
}

/// Tells the dispatcher what is different from what it has, in rounds over all sites.
struct Handover {
    ownership: Ownership,
    defaults: SiteDefaults,
    region: Arc<str>,
    changes: MailSender<Changes>,
    known: HashMap<i64, Known>,
    round: u32,
    /// Not yet sent.
    pending: Changes,
}

impl Handover {
    /// Begins a round; its number.
    fn begin(&mut self) -> u32 {
        // What a round that broke off has left must not meet what this one takes away: within one
        // change what goes, goes first.
        self.send();
        self.round = self.round.wrapping_add(1);
        self.round
    }

    /// A site of the round.
    fn take(&mut self, website_id: i64, spec: &SiteSpec, digest: u64) {
        if !self.ownership.owns(website_id) {
            return;
        }
        let round = self.round;
        let before = self.known.get_mut(&website_id);
        if let Some(known) = before.filter(|known| known.digest == digest) {
            known.round = round;
            return;
        }
        let built = spec.build(website_id, self.defaults);
        let known = Known { digest, round, is_faulty: built.is_err() };
        let before = self.known.insert(website_id, known);
        match built {
            Ok(site) => self.pending.set.push(Target::new(site, self.region.clone())),
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                log::error!(website_id, name = spec.name.as_str(),
                    faults = faults.join("; ").as_str(); "site cannot be checked");
                if before.is_some_and(|before| !before.is_faulty) {
                    self.pending.gone.push(website_id);
                }
            }
        }
        if self.pending.set.len() + self.pending.gone.len() >= CHANGES_AT_ONCE {
            self.send();
        }
    }

    /// All sites were taken: those of an earlier round that were not are gone.
    fn end(&mut self) {
        let (round, gone) = (self.round, &mut self.pending.gone);
        self.known.retain(|website_id, known| {
            let stays = known.round == round;
            if !stays && !known.is_faulty {
                gone.push(*website_id);
            }
            stays
        });
        self.send();
    }

    fn send(&mut self) {
        let changes = std::mem::take(&mut self.pending);
        if !changes.set.is_empty() || !changes.gone.is_empty() {
            log::info!(set = changes.set.len(), gone = changes.gone.len(); "sites changed");
            // The dispatcher ends only at the stop; nothing is to be changed then.
            let _ = self.changes.send(changes);
        }
    }
}

fn digest(spec: &SiteSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    spec.hash(&mut hasher);
    hasher.finish()
}
