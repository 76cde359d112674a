//! What `check` is asked to check.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use url::Url;

use super::check_args::CheckArgs;
use super::exit::Exit;
use super::sites::find_living;
use super::table::printable;
use crate::config::Settings;
use crate::probe::Target;
use crate::site::{INTERVAL_MAX_S, SiteDefaults, SiteFault, SiteSpec};
use crate::store::{SiteRow, Store};

/// Largest list of URLs, in bytes: some 100,000 of usual length.
const LIST_MAX: u64 = 8 << 20;
/// Sites asked for by URL at once, and most that may have them.
const SITES_AT_ONCE: u32 = 1000;

/// Faults of a list that are told; the rest is counted.
const FAULTS_MAX: usize = 20;

/// One to be checked.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The site's name, or the URL.
    pub(super) name: String,
    pub(super) target: Target,
}

impl Wanted {
    /// Of no site: its website_id is 0. `command` stands before what is wrong.
    pub(super) fn typed(
        command: &str,
        spec: SiteSpec,
        timeout: u32,
        region: &str,
    ) -> Result<Self, Exit> {
        Self::built(spec, timeout, region).map_err(|faults| refused(command, &faults))
    }

    fn built(spec: SiteSpec, timeout: u32, region: &str) -> Result<Self, Vec<SiteFault>> {
        let spec = SiteSpec { name: "check".to_owned(), timeout: Some(timeout), ..spec };
        let defaults = SiteDefaults { interval: INTERVAL_MAX_S, timeout };
        let target = Target::new(spec.build(0, defaults)?, region);
        Ok(Self { name: target.url().to_owned(), target })
    }

    /// Of the table.
    fn of(row: SiteRow, args: &CheckArgs, settings: &Settings) -> Result<Self, Exit> {
        let SiteRow { website_id, spec, .. } = row;
        let (name, timeout) = (spec.name.clone(), args.timeout.or(spec.timeout));
        let spec = args.apply(SiteSpec { timeout, ..spec })?;
        let site = spec
            .build(website_id, settings.monitoring.defaults())
            .map_err(|faults| refused(&format!("webmon check: site '{name}'"), &faults))?;
        let region = settings.monitoring.region.as_str();
        Ok(Self { name, target: Target::new(site, region) })
    }
}

fn refused(what: &str, faults: &[SiteFault]) -> Exit {
    let faults: Vec<String> = faults.iter().map(|fault| format!("{what}: {fault}")).collect();
    Exit::Usage(faults.join("\n"))
}

/// All that were asked for, in the order of the options; `store` is there where it is needed.
pub(super) fn find(
    args: &CheckArgs,
    settings: &Settings,
    store: Option<&Store>,
) -> Result<Vec<Wanted>, Exit> {
    let typed = args.urls.iter().chain(&args.url_flags).cloned();
    let mut urls: Vec<Typed> = typed.map(|url| Typed { place: String::new(), url }).collect();
    if let Some(file) = &args.file {
        urls.extend(list(file)?);
    }
    let timeout = args.timeout.unwrap_or(settings.monitoring.timeout);
    let mut wanted = Vec::with_capacity(urls.len() + args.sites.len());
    match store.filter(|_| args.save) {
        Some(store) => {
            let urls: Vec<String> = urls.into_iter().map(|typed| typed.url).collect();
            for row in rows_at(store, &urls)? {
                wanted.push(Wanted::of(row, args, settings)?);
            }
        }
        None => {
            let mut faults = Vec::new();
            for typed in &urls {
                let url = typed.url.clone();
                let spec = args.apply(SiteSpec { url, ..SiteSpec::default() })?;
                match Wanted::built(spec, timeout, &settings.monitoring.region) {
                    Ok(one) => wanted.push(one),
                    Err(found) => faults.extend(found.iter().map(|fault| typed.told(fault))),
                }
            }
            all_told(faults)?;
        }
    }
    if let Some(store) = store {
        for site in &args.sites {
            wanted.push(Wanted::of(find_living(store, "webmon check", site)?, args, settings)?);
        }
    }
    if wanted.is_empty() {
        return Err(Exit::Usage("webmon check: the list has no URL".to_owned()));
    }
    Ok(wanted)
}

/// A URL as it was typed.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    /// `FILE:LINE: ` where it stands in a file.
    place: String,
    url: String,
}

impl Typed {
    /// What is wrong with it; the other options are the same for all.
    fn told(&self, fault: &SiteFault) -> String {
        let Self { place, url } = self;
        // Before the host there may be a password.
        let shown = match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
            (None, Some((_, host))) => format!("…@{host}"),
            (_, None) => url.clone(),
        };
        match fault.field {
            "url" => format!("webmon check: {place}'{}': {}", printable(&shown), fault.message),
            _ => format!("webmon check: {fault}"),
        }
    }
}

/// Fails with all of them, each once, if there are any.
fn all_told(mut faults: Vec<String>) -> Result<(), Exit> {
    let mut told = HashSet::new();
    faults.retain(|fault| told.insert(fault.clone()));
    if faults.is_empty() {
        return Ok(());
    }
    let more = faults.len().saturating_sub(FAULTS_MAX);
    faults.truncate(FAULTS_MAX);
    if more > 0 {
        faults.push(format!("webmon check: … and {more} more"));
    }
    Err(Exit::Usage(faults.join("\n")))
}

/// The lines of a file, or of standard input.
fn list(file: &Path) -> Result<Vec<Typed>, Exit> {
    let failed = |problem: String| {
        Exit::Usage(format!("webmon check: --file {}: {problem}", file.display()))
    };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(LIST_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LIST_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|error| failed(format!("can't be read: {error}")))?;
    if text.len() as u64 > LIST_MAX {
        return Err(failed(format!("has more than {} MiB", LIST_MAX >> 20)));
    }
    Ok(lines(&file.display().to_string(), &text))
}

fn lines(file: &str, text: &str) -> Vec<Typed> {
    (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line): &(u32, &str)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| Typed { place: format!("{file}:{number}: "), url: line.to_owned() })
        .collect()
}

/// How a URL may stand in the table: as typed, in its normal form, and without the slash of an
/// empty path.
fn spellings(url: &str) -> Vec<String> {
    let mut spellings = vec![url.to_owned()];
    if let Ok(normal) = Url::parse(url).map(String::from) {
        spellings.extend(normal.strip_suffix('/').map(str::to_owned));
        spellings.push(normal);
    }
    spellings.dedup();
    spellings
}

/// The site of each URL.
fn rows_at(store: &Store, urls: &[String]) -> Result<Vec<SiteRow>, Exit> {
    let mut rows: HashMap<String, Vec<SiteRow>> = HashMap::new();
    for some in urls.chunks(SITES_AT_ONCE as usize / 4) {
        let wanted: Vec<String> = some.iter().flat_map(|url| spellings(url)).collect();
        let found = store.sites_at(&wanted, SITES_AT_ONCE).map_err(|e| Exit::of_store(&e))?;
        for row in found {
            let same = rows.entry(row.spec.url.clone()).or_default();
            if !same.iter().any(|other| other.website_id == row.website_id) {
                same.push(row);
            }
        }
    }
    urls.iter()
        .map(|url| {
            let found: Vec<&SiteRow> =
                spellings(url).iter().filter_map(|spelling| rows.get(spelling)).flatten().collect();
            match found.as_slice() {
                [row] => Ok((*row).clone()),
                [] => Err(Exit::NotFound(format!(
                    "webmon check: no site has the URL {url}, so there is nothing to store its \
                     result with; add it: webmon sites add NAME '{url}'"
                ))),
                several => {
                    let names: Vec<&str> = several.iter().map(|r| r.spec.name.as_str()).collect();
                    Err(Exit::Usage(format!(
                        "webmon check: several sites have the URL {url}: say which with --site: {}",
                        names.join(", ")
                    )))
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_urls_and_remarks() {
        let typed = |place: &str, url: &str| Typed { place: place.to_owned(), url: url.to_owned() };
        assert_eq!(
            lines("list", "# mine\n\n http://a/ \r\nhttp://b/#x\n  # http://c/"),
            [typed("list:3: ", "http://a/"), typed("list:4: ", "http://b/#x")]
        );
    }

    #[test]
    fn a_url_is_found_however_it_was_written() {
        assert_eq!(spellings("http://a.org"), ["http://a.org", "http://a.org/"]);
        assert_eq!(spellings("HTTP://a.org/x"), ["HTTP://a.org/x", "http://a.org/x"]);
        assert_eq!(spellings("nonsense"), ["nonsense"]);
    }
}
