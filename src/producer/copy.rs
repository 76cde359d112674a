//! The copy of the site list in the spool: what a producer starts with while the database is away.
//!
//! Invariants:
//! - The copy is in pages of neighbouring ids, so that a change of one site writes one page, and
//!   nobody ever holds the whole list. A page is the compressed list of [`site_list`].
//! - The state [`INDEX`] names the pages. It is put after them: states of one round are committed
//!   together or in the order they were put.
//! - Only one thread writes it. Another one that reads it meanwhile may find pages of two rounds, or
//!   one that has just gone, which is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::site::SiteSpec;
use crate::spool::{STATE_MAX, Spool};
use crate::wire::site_list;

/// The state that names the pages: its version, then their numbers, separated by blanks. What
/// begins with a brace is the whole list as one, which earlier releases wrote.
const INDEX: &str = "sites";
const VERSION: &str = "pages-1";
/// Ids of one page: 40 KB uncompressed for usual sites.
const PAGE_IDS: i64 = 512;

/// See the module.
pub(super) struct SiteCopy {
    spool: Spool,
    /// The pages of the copy, each with a digest of its content.
    pages: BTreeMap<i64, u64>,
}

fn name(page: i64) -> String {
    format!("{INDEX}/{page}")
}

impl SiteCopy {
    pub(super) fn new(spool: Spool) -> Self {
        Self { spool, pages: BTreeMap::new() }
    }

    /// Hands over the copy's sites in the order of their ids; `take` answers with the digest of
    /// each. `false` when there is no copy.
    ///
    /// # Errors
    /// Why the copy ends early, on one line.
    pub(super) fn read(
        &mut self,
        mut take: impl FnMut(i64, &SiteSpec) -> u64,
    ) -> Result<bool, String> {
        let Some(index) = self.spool.get_state(INDEX) else { return Ok(false) };
        if index.starts_with(b"{") {
            for (website_id, spec) in
                site_list::decode(&index).map_err(|error| error.to_string())?
            {
                take(website_id, &spec);
            }
            return Ok(true);
        }
        let index = String::from_utf8_lossy(&index);
        let mut words = index.split(' ');
        if words.next() != Some(VERSION) {
            return Err("it is of another release".to_owned());
        }
        for page in words.filter_map(|word| word.parse().ok()) {
            let sites = self.page(page).map_err(|cause| format!("page {page}: {cause}"))?;
            let digest = sites.iter().fold(0, |digest, (website_id, spec)| {
                with_site(digest, *website_id, take(*website_id, spec))
            });
            self.pages.insert(page, digest);
        }
        Ok(true)
    }

    fn page(&self, page: i64) -> Result<Vec<(i64, SiteSpec)>, String> {
        let packed = self.spool.get_state(&name(page)).ok_or("is not there")?;
        let mut list = Vec::new();
        let mut unpacked = ZlibDecoder::new(packed.as_slice()).take(STATE_MAX as u64);
        unpacked.read_to_end(&mut list).map_err(|error| error.to_string())?;
        site_list::decode(&list).map_err(|error| error.to_string())
    }

    /// Begins a new round of all sites.
    pub(super) fn rewrite(&mut self) -> Rewrite<'_> {
        if self.spool.get_state(INDEX).is_none() {
            // It is the first one, or the spool has lost its file: every page is to be written.
            self.pages.clear();
        }
        Rewrite { copy: self, seen: BTreeSet::new(), page: None, digest: 0, sites: Vec::new() }
    }

    /// Whether it was taken.
    fn put(&self, name: &str, bytes: Vec<u8>) -> bool {
        let result = self.spool.put_state(name, bytes);
        if let Err(error) = &result {
            log::warn!(cause = error.to_string().as_str(); "site list cannot be kept");
        }
        result.is_ok()
    }
}

/// A round of all sites, in the order of their ids. Dropped before its end it leaves the copy
/// with the pages of before and after side by side; the next round makes that good.
pub(super) struct Rewrite<'a> {
    copy: &'a mut SiteCopy,
    seen: BTreeSet<i64>,
    page: Option<i64>,
    digest: u64,
    sites: Vec<(i64, SiteSpec)>,
}

impl Rewrite<'_> {
    /// The next site and a digest of its settings.
    pub(super) fn add(&mut self, website_id: i64, spec: SiteSpec, digest: u64) {
        let page = website_id.div_euclid(PAGE_IDS);
        if self.page != Some(page) {
            self.end_page();
            self.page = Some(page);
        }
        self.digest = with_site(self.digest, website_id, digest);
        self.sites.push((website_id, spec));
    }

    fn end_page(&mut self) {
        let Some(page) = self.page.take() else { return };
        let digest = std::mem::take(&mut self.digest);
        self.seen.insert(page);
        if self.copy.pages.get(&page) != Some(&digest) {
            let is_kept = match pack(&site_list::encode(&self.sites)) {
                Ok(packed) => self.copy.put(&name(page), packed),
                Err(error) => {
                    let cause = error.to_string();
                    log::warn!(cause = cause.as_str(); "site list cannot be kept");
                    false
                }
            };
            if is_kept {
                self.copy.pages.insert(page, digest);
            }
        }
        self.sites.clear();
    }

    /// All sites were added: pages without sites go.
    pub(super) fn finish(mut self) {
        self.end_page();
        let Self { copy, seen, .. } = self;
        let index = seen.iter().fold(VERSION.to_owned(), |text, page| format!("{text} {page}"));
        if copy.spool.get_state(INDEX).as_deref() != Some(index.as_bytes()) {
            copy.put(INDEX, index.into_bytes());
        }
        for page in copy.pages.keys().filter(|page| !seen.contains(page)) {
            copy.put(&name(*page), Vec::new());
        }
        copy.pages.retain(|page, _| seen.contains(page));
    }
}

/// The digest of a page with one more site.
fn with_site(page: u64, website_id: i64, site: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (page, website_id, site).hash(&mut hasher);
    hasher.finish()
}

fn pack(list: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(list)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Stop, Threads};
    use crate::spool::SpoolOptions;

    fn spool(dir: &std::path::Path) -> (Spool, Threads) {
        let mut threads = Threads::new(Stop::new());
        let options = SpoolOptions {
            dir: dir.to_owned(),
            max_bytes: 1 << 20,
            max_records: 1000,
            sync: false,
        };
        (Spool::open(options, &mut threads).unwrap(), threads)
    }

    fn spec(id: i64) -> SiteSpec {
        SiteSpec { name: format!("s{id}"), url: format!("http://{id}/"), ..SiteSpec::default() }
    }

    fn write(copy: &mut SiteCopy, ids: &[i64]) {
        let mut round = copy.rewrite();
        for id in ids {
            round.add(*id, spec(*id), id.cast_unsigned());
        }
        round.finish();
    }

    fn read(copy: &mut SiteCopy) -> Option<Vec<i64>> {
        let mut ids = Vec::new();
        let found = copy.read(|id, found| {
            assert_eq!(*found, spec(id));
            ids.push(id);
            id.cast_unsigned()
        });
        found.unwrap_or_default().then_some(ids)
    }

    #[test]
    fn a_copy_reads_back_and_pages_without_sites_go() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _threads) = spool(dir.path());
        let mut copy = SiteCopy::new(spool.clone());
        assert_eq!(read(&mut copy), None);
        let ids = [1, 2, 511, 512, 2000, 900_000];
        write(&mut copy, &ids);
        assert_eq!(read(&mut copy).unwrap(), ids);
        write(&mut copy, &[1, 2000]);
        assert_eq!(read(&mut copy).unwrap(), [1, 2000]);
        assert_eq!(spool.get_state("sites/1"), Some(Vec::new()));
        write(&mut copy, &[]);
        assert_eq!(read(&mut copy).unwrap(), [0_i64; 0]);
        assert!(spool.close());
    }

    #[test]
    fn only_changed_pages_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _threads) = spool(dir.path());
        let mut copy = SiteCopy::new(spool.clone());
        write(&mut copy, &[1, 600]);
        // What stands there shows whether it is written again.
        spool.put_state("sites/0", b"kept".to_vec()).unwrap();
        write(&mut copy, &[1, 600, 601]);
        assert_eq!(spool.get_state("sites/0").as_deref(), Some(b"kept".as_slice()));
        let mut next = SiteCopy::new(spool.clone());
        assert_eq!(read(&mut next), None, "a page that can't be read is no copy");
        spool.put_state("sites/0", pack(&site_list::encode(&[(1, spec(1))])).unwrap()).unwrap();
        assert_eq!(read(&mut next).unwrap(), [1, 600, 601]);
        // The next process knows what stands there.
        spool.put_state("sites/1", b"kept".to_vec()).unwrap();
        write(&mut next, &[600, 601]);
        assert_eq!(spool.get_state("sites/1").as_deref(), Some(b"kept".as_slice()));
        assert_eq!(spool.get_state("sites/0"), Some(Vec::new()));
        assert!(spool.close());
    }

    #[test]
    fn the_list_of_an_earlier_release_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _threads) = spool(dir.path());
        spool.put_state(INDEX, site_list::encode(&[(3, spec(3)), (4, spec(4))])).unwrap();
        let mut copy = SiteCopy::new(spool.clone());
        assert_eq!(read(&mut copy).unwrap(), [3, 4]);
        write(&mut copy, &[3]);
        assert_eq!(read(&mut copy).unwrap(), [3]);
        assert!(spool.close());
    }
}
