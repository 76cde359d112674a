//! `tail`: results as they come.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::args::{CommonArgs, TailArgs, TailFrom};
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::sites::find_living;
use super::{options, output};
use crate::check::{Check, Failure, FailureKind, Outcome};
use crate::config::Settings;
use crate::kafka::{Fetcher, topics};
use crate::runtime::{Backoff, Stop, now, stop_on_signals};
use crate::store::{Store, StoreError, StoredCheck};
use crate::wire;

/// How often the table is asked.
const POLL: Duration = Duration::from_millis(500);
/// Rows are shown when they appear at most this long after their due time: a consumer that has a
/// longer backlog is behind, and tail shows what is new.
const WINDOW: SignedDuration = SignedDuration::from_secs(120);
/// Rows of one page.
const ROWS: u32 = 5000;
/// Bytes of one partition in one fetch.
const FETCH_BYTES: i32 = 1 << 20;
/// A service that was away when the command began is an error at once; one that goes away later
/// is waited for.
const RETRY_CAP: Duration = Duration::from_secs(5);

pub(super) fn tail(common: &CommonArgs, args: &TailArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let stop = Stop::new();
    stop_on_signals(&stop)
        .map_err(|error| Exit::Failed(format!("webmon tail: cannot handle signals: {error}")))?;
    let settings = &loaded.settings;
    match args.from {
        TailFrom::Table => {
            let store = options::store(settings, "webmon-tail")?;
            let mut printer = Printer::new(args, &store)?;
            from_table(&store, &mut printer, &stop)
        }
        TailFrom::Topic => {
            // Of the table only names are wanted, and nobody is asked for a password for them.
            let store = options::store_unasked(settings, "webmon-tail")?;
            let mut printer = Printer::new(args, &store)?;
            from_topic(settings, store, &mut printer, &stop)
        }
    }
}

struct Printer {
    is_json: bool,
    is_coloured: bool,
    left: u64,
    /// Only these sites; none: all.
    sites: Vec<i64>,
    /// Only these outcomes; none: all.
    outcomes: Vec<Outcome>,
}

impl Printer {
    fn new(args: &TailArgs, store: &Store) -> Result<Self, Exit> {
        Ok(Self {
            is_json: args.json,
            is_coloured: output::is_coloured(),
            left: args.limit.unwrap_or(u64::MAX),
            sites: args.sites.iter().map(|site| id(store, site)).collect::<Result<_, _>>()?,
            outcomes: args.outcomes.clone(),
        })
    }

    fn wants(&self, website_id: i64, outcome: Outcome) -> bool {
        self.left > 0
            && (self.sites.is_empty() || self.sites.contains(&website_id))
            && (self.outcomes.is_empty() || self.outcomes.contains(&outcome))
    }

    /// Prints one that is wanted.
    fn print(&mut self, check: &Check<'_>, name: &str) -> Result<(), Exit> {
        self.left -= 1;
        if self.is_json {
            output::message(check)
        } else {
            output::line(&output::summary(check, name, self.is_coloured))
        }
    }
}

/// The id of a site; without the database a number is taken for it.
fn id(store: &Store, site: &str) -> Result<i64, Exit> {
    match (find_living(store, "webmon tail", site), site.parse()) {
        (Ok(row), _) => Ok(row.website_id),
        (Err(Exit::Away(_)), Ok(id)) => Ok(id),
        (Err(exit), _) => Err(exit),
    }
}

/// Name and URL of a site.
type Name = (String, String);

/// Sites by id, each asked for once.
#[derive(Default)]
struct Names(HashMap<i64, Name>);

impl Names {
    fn of(&mut self, store: &Store, website_id: i64) -> Result<&Name, StoreError> {
        match self.0.entry(website_id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let row = store.site(website_id)?;
                let name = row.map_or_else(
                    || (format!("website {website_id}"), String::new()),
                    |row| (row.spec.name, row.spec.url),
                );
                Ok(place.insert(name))
            }
        }
    }
}

fn from_table(store: &Store, printer: &mut Printer, stop: &Stop) -> Result<(), Exit> {
    store.ping().map_err(|error| Exit::of_store(&error))?;
    let mut names = Names::default();
    let mut seen: HashMap<Uuid, Timestamp> = HashMap::new();
    let mut backoff = Backoff::new(POLL, RETRY_CAP);
    let begin = now().wall;
    // The first look decides whether there is something to look at.
    let mut is_first = true;
    while printer.left > 0 && !stop.is_requested() {
        // Rows come in any order: the window is read again and again, and what was shown is known.
        let from = begin.max(now().wall.saturating_sub(WINDOW).unwrap_or(begin));
        let shown = window(store, from).and_then(|rows| {
            seen.retain(|_, due| *due >= from);
            show(store, printer, &rows, &mut names, &mut seen)
        });
        match shown {
            Ok(done) => {
                done?;
                is_first = false;
                backoff.reset();
                let _ = stop.wait(POLL);
            }
            Err(error) if is_first => return Err(Exit::of_store(&error)),
            Err(error) => {
                log::warn!(cause = error.to_string().as_str(); "cannot read the table");
                let _ = stop.wait(backoff.next_delay());
            }
        }
    }
    Ok(())
}

/// Prints the rows that were not seen yet. The outer result is the database's, the inner one the
/// output's.
fn show(
    store: &Store,
    printer: &mut Printer,
    rows: &[StoredCheck],
    names: &mut Names,
    seen: &mut HashMap<Uuid, Timestamp>,
) -> Result<Result<(), Exit>, StoreError> {
    for row in rows {
        let outcome = Outcome::parse(&row.outcome).unwrap_or(Outcome::Missed);
        if seen.contains_key(&row.check_entry_id) {
            continue;
        }
        if printer.wants(row.website_id, outcome) {
            let (name, url) = names.of(store, row.website_id)?;
            if let Err(exit) = printer.print(&stored(row, url), name) {
                return Ok(Err(exit));
            }
        }
        seen.insert(row.check_entry_id, row.timestamp);
    }
    Ok(Ok(()))
}

/// All rows due since `from`, page by page.
fn window(store: &Store, from: Timestamp) -> Result<Vec<StoredCheck>, StoreError> {
    let mut rows = store.recent_checks(Some((from, Uuid::nil())), ROWS)?;
    let mut page = rows.len();
    while page == ROWS as usize {
        let after = rows.last().map(|row| (row.timestamp, row.check_entry_id));
        let more = store.recent_checks(after, ROWS)?;
        page = more.len();
        rows.extend(more);
    }
    Ok(rows)
}

/// A row as the check it was.
fn stored<'a>(row: &'a StoredCheck, url: &'a str) -> Check<'a> {
    let failure = row.failure_kind.as_deref().and_then(FailureKind::parse);
    let detail = row.failure_detail.as_deref().unwrap_or_default();
    Check {
        check_entry_id: row.check_entry_id,
        website_id: row.website_id,
        url: Cow::Borrowed(url),
        region: Cow::Borrowed(&row.region),
        scheduled_at: row.timestamp,
        started_at: row.started_at,
        outcome: Outcome::parse(&row.outcome).unwrap_or(Outcome::Missed),
        failure: failure.map(|kind| Failure { kind, detail: Cow::Borrowed(detail) }),
        response_time: row.response_time,
        phases: row.phases,
        http_status: row.http_status.and_then(|n| u16::try_from(n).ok()),
        http_version: None,
        redirects: row.redirects.and_then(|n| u16::try_from(n).ok()),
        body_bytes: row.body_bytes.and_then(|n| u32::try_from(n).ok()),
        body_truncated: None,
        regex: row.regex.as_deref().map(Cow::Borrowed),
        regex_match: row.regex_match,
        regex_captures: row
            .regex_captures
            .as_ref()
            .map(|captures| captures.iter().map(|c| Cow::Borrowed(c.as_str())).collect()),
        certificate_expires_at: row.certificate_expires_at,
        remote_address: None,
        last_hop: row.last_hop,
        tries: row.tries.and_then(|n| u8::try_from(n).ok()),
        unreachable_self: row.unreachable_self,
    }
}

fn from_topic(
    settings: &Settings,
    store: Store,
    printer: &mut Printer,
    stop: &Stop,
) -> Result<(), Exit> {
    let (kafka, topic) = (options::kafka(settings, "webmon-tail"), settings.kafka.topic.as_str());
    let servers = settings.kafka.servers.join(",");
    let away = |error| Exit::of_kafka(&format!("webmon tail: Kafka {servers}"), &error);
    if topics::describe(&kafka, topic).map_err(away)?.is_none() {
        return Err(Exit::NotFound(format!(
            "webmon tail: there is no topic '{topic}' at Kafka {servers} yet; a producer makes it"
        )));
    }
    let ends = topics::end_offsets(&kafka, topic).map_err(away)?;
    let mut positions: Vec<(i32, i64)> = ends.into_iter().collect();
    let mut fetcher = Fetcher::new(kafka, topic);
    let mut backoff = Backoff::new(POLL, RETRY_CAP);
    // Without the database the URL stands for the name.
    let (mut store, mut names) = (Some(store).filter(|_| !printer.is_json), Names::default());
    let mut unreadable: HashSet<&'static str> = HashSet::new();
    while printer.left > 0 && !stop.is_requested() {
        let fetched = match fetcher.fetch(&positions, POLL, FETCH_BYTES) {
            Ok(fetched) => fetched,
            Err(error) => {
                log::warn!(cause = error.to_string().as_str(); "cannot fetch");
                let _ = stop.wait(backoff.next_delay());
                continue;
            }
        };
        backoff.reset();
        for partition in fetched {
            for record in &partition.records {
                match wire::decode(record.value.as_deref().unwrap_or_default()) {
                    Ok(check) if printer.wants(check.website_id, check.outcome) => {
                        let name = store.as_ref().map(|store| names.of(store, check.website_id));
                        match name {
                            Some(Ok((name, _))) => printer.print(&check, name)?,
                            other => {
                                // It is asked no more: each time would hold up all results.
                                store = store.filter(|_| other.is_none());
                                printer.print(&check, &check.url)?;
                            }
                        }
                    }
                    Ok(_) => {}
                    Err(error) if unreadable.insert(error.reason()) => {
                        log::warn!(partition = partition.partition, offset = record.offset,
                            cause = error.to_string().as_str(); "message is none of webmon's");
                    }
                    Err(_) => {}
                }
            }
            if let Some(position) = positions.iter_mut().find(|p| p.0 == partition.partition) {
                position.1 = partition.next_offset;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Phases;

    #[test]
    fn only_what_is_asked_for_is_wanted() {
        let all = Printer {
            is_json: false,
            is_coloured: false,
            left: 1,
            sites: Vec::new(),
            outcomes: Vec::new(),
        };
        assert!(all.wants(1, Outcome::Up) && all.wants(2, Outcome::Missed));
        let some = Printer { sites: vec![2, 3], outcomes: vec![Outcome::Down], ..all };
        assert!(some.wants(3, Outcome::Down));
        assert!(!some.wants(1, Outcome::Down) && !some.wants(2, Outcome::Up));
        assert!(!Printer { left: 0, ..some }.wants(3, Outcome::Down));
    }

    #[test]
    fn a_row_becomes_the_check_it_was() {
        let phases = Phases { resolve: Some(0.5), ..Phases::default() };
        let last_hop = Phases { tls: Some(0.25), ..Phases::default() };
        let row = StoredCheck {
            check_entry_id: Uuid::nil(),
            website_id: 7,
            timestamp: Timestamp::UNIX_EPOCH,
            started_at: Some(Timestamp::UNIX_EPOCH),
            certificate_expires_at: Some(Timestamp::UNIX_EPOCH),
            response_time: Some(1.5),
            phases,
            http_status: Some(301),
            body_bytes: Some(5),
            redirects: Some(2),
            outcome: "down".to_owned(),
            failure_kind: Some("status".to_owned()),
            region: "default".to_owned(),
            regex_match: Some(false),
            regex: Some("x".to_owned()),
            failure_detail: Some("301".to_owned()),
            regex_captures: Some(vec!["y".to_owned()]),
            tries: Some(3),
            last_hop: Some(last_hop),
            unreachable_self: true,
        };
        let check = stored(&row, "http://a/");
        assert_eq!((check.outcome, check.http_status), (Outcome::Down, Some(301)));
        assert_eq!(
            check.failure,
            Some(Failure { kind: FailureKind::Status, detail: "301".into() })
        );
        assert_eq!((check.phases, check.last_hop), (phases, Some(last_hop)));
        assert_eq!((check.tries, check.unreachable_self), (Some(3), true));
        assert_eq!((check.redirects, check.body_bytes), (Some(2), Some(5)));
    }
}
