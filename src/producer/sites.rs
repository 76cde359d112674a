//! The list of sites: from the table, live; from the spool's copy while the database is away.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::dispatcher::Changes;
use super::ownership::Ownership;
use crate::probe::Target;
use crate::runtime::{Backoff, Stop, now};
use crate::site::{Site, SiteDefaults, SiteSpec};
use crate::spool::Spool;
use crate::store::{SiteListener, SiteRow, Store, StoreError};
use crate::telemetry::health;
use crate::wire::site_list;

/// The name of the copy among the spool's state.
const COPY: &str = "sites";
/// A notification can be lost with its connection, so the table is also read this often.
const POLL: Duration = Duration::from_secs(30);
/// How long one look for notifications takes: bounds how late a stop or a changed share is seen.
const LOOK: Duration = Duration::from_millis(250);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// This room's part of the process's health.
const PART: &str = "database";

/// Most sites that one change hands over: the dispatcher goes on with due checks in between.
const CHANGES_AT_ONCE: usize = 1000;

pub(super) struct Sites {
    store: Store,
    spool: Spool,
    ownership: Ownership,
    defaults: SiteDefaults,
    websites: Vec<SiteSpec>,
    region: Arc<str>,
    changes: Sender<Changes>,
    /// All active sites, as last seen; absent before the first look.
    rows: Option<Vec<(i64, SiteSpec)>>,
    /// What the dispatcher has: each site with a digest of its settings.
    handed_over: HashMap<i64, u64>,
    /// Faulty sites that were logged, with a digest of their settings.
    faulty: HashSet<(i64, u64)>,
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
        changes: Sender<Changes>,
    ) -> Self {
        Self {
            store,
            spool,
            ownership,
            defaults,
            websites,
            region: region.into(),
            changes,
            rows: None,
            handed_over: HashMap::new(),
            faulty: HashSet::new(),
            is_prepared: false,
        }
    }

    /// Until the stop: loads, hands over, waits for changes.
    pub(super) fn run(mut self, stop: &Stop) {
        let mut listener = SiteListener::start(&self.store);
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut next_poll = now().mono;
        let mut version = self.ownership.version();
        // Nothing waits for the database, not even for its refusal.
        self.read_copy();
        self.hand_over();
        while !stop.is_requested() {
            let current = self.ownership.version();
            let share_changed = version != current;
            version = current;
            match self.look(&mut listener, next_poll) {
                Ok(Some(rows)) => {
                    next_poll = now().mono + POLL;
                    backoff.reset();
                    if health().well(PART) {
                        log::info!(sites = rows.len(); "site list loaded");
                    }
                    self.adopt(rows);
                    self.hand_over();
                }
                Ok(None) if share_changed => self.hand_over(),
                Ok(None) => {}
                Err(error) => {
                    let cause = error.to_string();
                    if health().unwell(PART, cause.as_str()) {
                        log::warn!(cause = cause.as_str(); "site list cannot be loaded");
                    }
                    // A notification may have been taken without its sites.
                    next_poll = now().mono;
                    self.hand_over();
                    let _ = stop.wait(backoff.next_delay());
                }
            }
        }
    }

    /// The table's sites, when they changed or it is time to look anyway.
    fn look(
        &mut self,
        listener: &mut SiteListener,
        next_poll: Duration,
    ) -> Result<Option<Vec<SiteRow>>, StoreError> {
        if !self.is_prepared {
            self.store.migrate()?;
            for name in self.store.add_missing_sites(&self.websites)? {
                log::info!(name = name.as_str(); "site of the configuration added");
            }
            self.is_prepared = true;
        }
        let has_changed = listener.wait(LOOK)?;
        if has_changed || now().mono >= next_poll {
            return self.store.sites().map(Some);
        }
        Ok(None)
    }

    fn adopt(&mut self, rows: Vec<SiteRow>) {
        let rows: Vec<(i64, SiteSpec)> =
            rows.into_iter().map(|row| (row.website_id, row.spec)).collect();
        if self.rows.as_ref() != Some(&rows) {
            if let Err(error) = self.spool.put_state(COPY, site_list::encode(&rows)) {
                log::warn!(cause = error.to_string().as_str(); "site list cannot be kept");
            }
            self.rows = Some(rows);
        }
    }

    fn read_copy(&mut self) {
        match self.spool.get_state(COPY).map(|copy| site_list::decode(&copy)) {
            Some(Ok(rows)) => {
                log::info!(sites = rows.len(); "using the site list last seen");
                self.rows = Some(rows);
            }
            Some(Err(error)) => {
                log::error!(cause = error.to_string().as_str(); "copy of the site list is unreadable");
            }
            None => log::info!("no site list yet: waiting for the database"),
        }
    }

    /// Tells the dispatcher what is different from what it has.
    fn hand_over(&mut self) {
        let mut changes = Changes::default();
        // Taken out for the loop, which changes other fields.
        let Some(rows) = self.rows.take() else { return };
        let mut wanted: HashSet<i64> = HashSet::with_capacity(rows.len());
        for (website_id, spec) in &rows {
            if !self.ownership.owns(*website_id) {
                continue;
            }
            let digest = digest(spec);
            if self.handed_over.get(website_id) == Some(&digest) {
                wanted.insert(*website_id);
                continue;
            }
            match spec.build(*website_id, self.defaults) {
                Ok(site) => {
                    wanted.insert(*website_id);
                    self.handed_over.insert(*website_id, digest);
                    changes.set.push(self.target(site));
                }
                Err(faults) if self.faulty.insert((*website_id, digest)) => {
                    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    log::error!(website_id, name = spec.name.as_str(),
                        faults = faults.join("; ").as_str(); "site cannot be checked");
                }
                Err(_) => {}
            }
            if changes.set.len() >= CHANGES_AT_ONCE {
                self.send(std::mem::take(&mut changes));
            }
        }
        changes.gone = self.handed_over.keys().copied().filter(|id| !wanted.contains(id)).collect();
        for website_id in &changes.gone {
            self.handed_over.remove(website_id);
        }
        self.send(changes);
        self.rows = Some(rows);
    }

    fn target(&self, site: Site) -> Target {
        Target::new(site, self.region.clone())
    }

    fn send(&self, changes: Changes) {
        if !changes.set.is_empty() || !changes.gone.is_empty() {
            log::info!(set = changes.set.len(), gone = changes.gone.len(); "sites changed");
            // The dispatcher ends only at the stop; nothing is to be changed then.
            let _ = self.changes.send(changes);
        }
    }
}

fn digest(spec: &SiteSpec) -> u64 {
    let SiteSpec {
        name,
        url,
        interval,
        timeout,
        regex,
        method,
        headers,
        body,
        expected_status,
        settings,
    } = spec;
    let mut hasher = DefaultHasher::new();
    (name, url, interval, timeout, regex, method).hash(&mut hasher);
    (headers, body, expected_status, settings).hash(&mut hasher);
    hasher.finish()
}
