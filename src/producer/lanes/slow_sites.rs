//! The ids of the slow sites, kept over a restart: a producer that starts again while many sites
//! hang would else hold a worker of its fast lane for each of them.
//!
//! The state `slow_sites` of the spool: a byte 1, then the ids as 8 bytes big-endian each, in
//! growing order.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::spool::Spool;

/// The name among the spool's state.
const NAME: &str = "slow_sites";
/// The first byte.
const FORMAT: u8 = 1;
/// Most ids: 800 KB. Sites beyond are learnt again after a restart.
const MAX: usize = 100_000;
/// How often a changed list is put into the spool.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// The list; clones are the same one.
#[derive(Clone, Debug)]
pub(in crate::producer) struct SlowSites {
    list: Arc<Mutex<List>>,
    spool: Spool,
}

#[derive(Debug, Default)]
struct List {
    ids: HashSet<i64>,
    has_changed: bool,
    next_keep: Duration,
}

impl SlowSites {
    /// What the last run of this producer left in the spool.
    pub(in crate::producer) fn load(spool: Spool) -> Self {
        let ids = match spool.get_state(NAME).map(|bytes| decode(&bytes)) {
            None => HashSet::new(),
            Some(Some(ids)) => ids,
            Some(None) => {
                log::warn!("list of slow sites is unreadable: all sites are new");
                HashSet::new()
            }
        };
        let list = List { ids, ..List::default() };
        Self { list: Arc::new(Mutex::new(list)), spool }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::producer) fn contains(&self, website_id: i64) -> bool {
        self.lock().ids.contains(&website_id)
    }

    pub(in crate::producer) fn set(&self, website_id: i64, is_slow: bool) {
        let mut list = self.lock();
        let has_changed = if is_slow {
            list.ids.len() < MAX && list.ids.insert(website_id)
        } else {
            list.ids.remove(&website_id)
        };
        list.has_changed |= has_changed;
    }

    /// Puts the list into the spool, if it has changed and `time` (monotonic) has come for it.
    pub(in crate::producer) fn keep_at(&self, time: Duration) {
        let mut list = self.lock();
        if list.has_changed && list.next_keep <= time {
            list.next_keep = time + KEEP_EVERY;
            self.keep(list);
        }
    }

    /// The same now.
    pub(in crate::producer) fn keep_now(&self) {
        let list = self.lock();
        if list.has_changed {
            self.keep(list);
        }
    }

    fn keep(&self, mut list: MutexGuard<'_, List>) {
        list.has_changed = false;
        let mut ids: Vec<i64> = list.ids.iter().copied().collect();
        drop(list);
        ids.sort_unstable();
        if let Err(error) = self.spool.put_state(NAME, encode(&ids)) {
            log::warn!(cause = error.to_string().as_str(); "list of slow sites cannot be kept");
        }
    }
}

fn encode(ids: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 8 * ids.len());
    bytes.push(FORMAT);
    bytes.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
    bytes
}

/// `None` for what [`encode`] never made.
fn decode(bytes: &[u8]) -> Option<HashSet<i64>> {
    let (FORMAT, bytes) = bytes.split_first().map(|(format, rest)| (*format, rest))? else {
        return None;
    };
    let (ids, rest) = bytes.as_chunks::<8>();
    let ids: Vec<i64> = ids.iter().map(|id| i64::from_be_bytes(*id)).collect();
    let is_whole = rest.is_empty() && ids.len() <= MAX && ids.is_sorted_by(|a, b| a < b);
    is_whole.then(|| ids.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Stop, Threads};
    use crate::spool::SpoolOptions;

    #[test]
    fn round_trips_and_refuses_damage() {
        let ids: Vec<i64> = vec![-1, 0, 7, i64::MAX];
        let bytes = encode(&ids);
        assert_eq!(decode(&bytes), Some(ids.into_iter().collect()));
        assert_eq!(decode(&encode(&[])), Some(HashSet::new()));
        let too_many: Vec<i64> = (0..=MAX as i64).collect();
        for damaged in [
            &b""[..],
            &bytes[1..],
            &bytes[..bytes.len() - 1],
            &encode(&[2, 1]),
            &encode(&[1, 1]),
            &encode(&too_many),
            b"\x02\0\0\0\0\0\0\0\x01",
        ] {
            assert_eq!(decode(damaged), None, "{} bytes", damaged.len());
        }
    }

    #[test]
    fn lives_through_a_restart_and_is_written_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let options = SpoolOptions {
            dir: dir.path().to_owned(),
            max_bytes: 1 << 20,
            max_records: 10,
            sync: false,
        };
        let mut threads = Threads::new(Stop::new());
        let spool = Spool::open(options, &mut threads).unwrap();
        let sites = SlowSites::load(spool.clone());
        let kept = || SlowSites::load(spool.clone()).lock().ids.len();
        assert!(!sites.contains(1));
        for id in 0..=MAX as i64 {
            sites.set(id, true);
        }
        sites.set(1, false);
        let time = Duration::from_secs(1);
        sites.keep_at(time);
        assert_eq!(kept(), MAX - 1, "at the first change");
        sites.set(2, false);
        sites.keep_at(time + KEEP_EVERY - Duration::from_millis(1));
        assert_eq!(kept(), MAX - 1, "not yet");
        sites.keep_at(time + KEEP_EVERY);
        assert_eq!(kept(), MAX - 2);
        sites.set(3, false);
        sites.keep_now();
        assert_eq!(kept(), MAX - 3, "at the stop");
        spool.put_state(NAME, b"junk".to_vec()).unwrap();
        assert_eq!(kept(), 0);
    }
}
