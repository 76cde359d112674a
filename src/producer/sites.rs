//! The list of sites: from the table, live; from the spool's copy while the database is away.
//!
//! It may be long, so it goes through in pages: at no time is more than one page held beside what
//! the dispatcher needs.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::copy::SiteCopy;
use super::dispatcher::Changes;
use super::ownership::Ownership;
use crate::probe::Target;
use crate::runtime::{Backoff, MailSender, Stop};
use crate::site::{SiteDefaults, SiteSpec};
use crate::spool::Spool;
use crate::store::{SiteListener, Store, StoreError};
use crate::telemetry::health;

/// How long one look for changes takes: bounds how late a stop or a changed share is seen.
const LOOK: Duration = Duration::from_secs(1);
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
    handover: Handover,
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
            ownership,
            defaults,
            region: region.into(),
            changes,
            known: HashMap::new(),
            round: 0,
            pending: Changes::default(),
        };
        Self { store, copy: SiteCopy::new(spool), websites, handover, is_prepared: false }
    }

    /// Until the stop: loads, hands over, waits for changes.
    pub(super) fn run(mut self, stop: &Stop) {
        let mut listener = SiteListener::start(&self.store);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut version = self.handover.ownership.version();
        // What was read may be old: the table is to be read, whether or not anything is told.
        let mut is_stale = true;
        // Nothing waits for the database, not even for its refusal.
        self.read_copy();
        while !stop.is_requested() {
            let current = self.handover.ownership.version();
            let share_changed = version != current;
            version = current;
            is_stale |= share_changed;
            match self.update(&mut listener, &mut is_stale, stop) {
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
                    self.handover.send();
                    let cause = error.to_string();
                    if health().unwell(PART, cause.as_str()) {
                        log::warn!(cause = cause.as_str(); "site list cannot be loaded");
                    }
                    if share_changed {
                        self.read_copy();
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
        *is_stale = false;
        Ok(Some(sites))
    }

    /// A round over the table; how many sites there are. A round that fails has taken in some
    /// changes and leaves the rest to the next one.
    fn read_table(&mut self, stop: &Stop) -> Result<usize, StoreError> {
        self.handover.begin();
        let mut rewrite = self.copy.rewrite();
        let (mut after, mut sites) = (i64::MIN, 0);
        loop {
            let rows = self.store.sites_after(after, PAGE)?;
            let is_last = rows.len() < PAGE;
            sites += rows.len();
            for row in rows {
                after = row.website_id;
                let digest = digest(&row.spec);
                self.handover.take(row.website_id, &row.spec, digest);
                rewrite.add(row.website_id, row.spec, digest);
            }
            if is_last {
                break;
            }
            if stop.is_requested() {
                return Ok(sites);
            }
        }
        rewrite.finish();
        self.handover.end();
        Ok(sites)
    }

    /// A round over the copy.
    fn read_copy(&mut self) {
        self.handover.begin();
        let (handover, mut sites) = (&mut self.handover, 0);
        let found = self.copy.read(|website_id, spec| {
            sites += 1;
            let digest = digest(spec);
            handover.take(website_id, spec, digest);
            digest
        });
        match found {
            Ok(true) => {
                self.handover.end();
                log::info!(sites; "using the site list last seen");
            }
            Ok(false) => log::info!("no site list yet: waiting for the database"),
            Err(cause) => {
                // What could be read is checked; nothing is taken away for it.
                self.handover.send();
                log::error!(sites, cause = cause.as_str(); "copy of the site list is unreadable");
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
    fn begin(&mut self) {
        // What a round that broke off has left must not meet what this one takes away: within one
        // change what goes, goes first.
        self.send();
        self.round = self.round.wrapping_add(1);
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
