//! `history`: what was seen of one site.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::sites::{described, find_site};
use super::sites_args::HistoryArgs;
use super::table::{Cell, Colour, Column, Screen, Table};
use super::{options, output};
use crate::api::json as api;
use crate::check::Outcome;
use crate::runtime::now;
use crate::store::{Bucket, Histogram, Store, StoredCheck, Uptime};

/// The last hours that are summed up: how many, the name, and what the API calls it.
pub(super) type Span = (i64, &'static str, &'static str);
const WINDOWS: [Span; 3] = [DAY, (7 * 24, "7 d", "7d"), (30 * 24, "30 d", "30d")];
/// The last 24 hours.
pub(super) const DAY: Span = (24, "24 h", "24h");
/// Bars of a sparkline, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_BARS: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

const COLUMNS: [Column; 6] = [
    Column::whole("DUE"),
    Column::whole("OUTCOME"),
    Column::number("STATUS"),
    Column::number("SECONDS"),
    Column::whole("REGION"),
    Column::text("FAILURE"),
];

pub(super) fn history(common: &CommonArgs, args: &HistoryArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let store = options::store(&loaded.settings, "webmon-history")?;
    let failed = |error| Exit::of_store(&error);
    let site = find_site(&store, "webmon history", &args.site)?;
    let now = now().wall;
    let from = args.from.unwrap_or(Timestamp::UNIX_EPOCH);
    let to = args.to.unwrap_or(now);
    if from >= to {
        let problem = "webmon history: --from is not before --to";
        return Err(Exit::Usage(problem.to_owned()));
    }
    let rows = store.checks_of(site.website_id, from, to, args.limit, None).map_err(failed)?;
    let mut windows = Vec::with_capacity(WINDOWS.len());
    for span in WINDOWS {
        windows.push(Window::read(&store, site.website_id, span, now)?);
    }
    if args.json {
        let items: Vec<Value> = rows.iter().map(|row| api::check(row, Some(&site))).collect();
        let windows: Vec<Value> = windows.iter().map(Window::json).collect();
        let value = json!({
            "website_id": site.website_id, "name": site.spec.name, "items": items,
            "windows": windows,
        });
        return output::line(&value.to_string());
    }
    let screen = Screen::of_stdout();
    output::line(&described(&site))?;
    for window in &windows {
        output::line(&format!("uptime {:>4}  {}", window.span.1, window.words()))?;
    }
    if rows.is_empty() {
        output::note("no rows in this time");
        return Ok(());
    }
    let bars = if is_utf8() { BARS } else { ASCII_BARS };
    let line = sparkline(&rows, bars, screen.width.unwrap_or(usize::MAX));
    output::line(&format!("\n{line}\n"))?;
    let cells: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    Table::new(&COLUMNS, screen).print(&cells)
}

/// Whether the terminal, or whoever reads, is said to understand UTF-8.
fn is_utf8() -> bool {
    // The first that is set decides, as in POSIX; `C.UTF-8` and `de_DE.utf8` say it.
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}

/// A site's checks of the last hours, of all regions together.
pub(super) struct Window {
    span: Span,
    to: Timestamp,
    regions: Vec<Uptime>,
    up: u64,
    down: u64,
    missed: u64,
    unreachable_self: u64,
    median: Option<f64>,
    p95: Option<f64>,
}

impl Window {
    /// Reads it; `now` is its end.
    pub(super) fn read(
        store: &Store,
        website_id: i64,
        span: Span,
        now: Timestamp,
    ) -> Result<Self, Exit> {
        let from = now - SignedDuration::from_hours(span.0);
        let failed = |error| Exit::of_store(&error);
        let regions = store.uptime(&[website_id], from, now).map_err(failed)?;
        let periods =
            store.response_times(website_id, None, from, now, Bucket::Hour).map_err(failed)?;
        let mut times = Histogram::default();
        let (mut min, mut max) = (f64::INFINITY, 0.0_f64);
        let mut window = Self { regions, ..Self::empty(span, now) };
        for period in &periods {
            window.up += period.up;
            window.down += period.down;
            window.missed += period.missed;
            window.unreachable_self += period.unreachable_self;
            times.merge(&period.histogram);
            min = period.min.unwrap_or(min).min(min);
            max = period.max.unwrap_or(max).max(max);
        }
        // The middle of a bucket may be outside of what was seen.
        let quantile = |q: f64| times.quantile(q).map(|near| near.max(min).min(max));
        (window.median, window.p95) = (quantile(0.5), quantile(0.95));
        Ok(window)
    }

    fn empty(span: Span, to: Timestamp) -> Self {
        Self {
            span,
            to,
            regions: Vec::new(),
            up: 0,
            down: 0,
            missed: 0,
            unreachable_self: 0,
            median: None,
            p95: None,
        }
    }

    /// up / (up + down), without what our own network is to blame for; absent when nothing was
    /// seen of the site.
    fn ratio(&self) -> Option<f64> {
        let seen = self.up + self.down.saturating_sub(self.unreachable_self);
        (seen > 0).then(|| self.up as f64 / seen as f64)
    }

    fn words(&self) -> String {
        let mut words = uptime_words(self);
        if let (Some(median), Some(p95)) = (self.median, self.p95) {
            words += &format!(", p50 {median:.3} s, p95 {p95:.3} s");
        }
        words
    }

    /// As the API has it, with the percentiles of its response times beside what it counts.
    pub(super) fn json(&self) -> Value {
        let (hours, _, name) = self.span;
        let from = self.to - SignedDuration::from_hours(hours);
        let mut object = api::uptime_window(Some(name), from, self.to, &self.regions);
        object["total"]["p50"] = json!(self.median);
        object["total"]["p95"] = json!(self.p95);
        object
    }
}

/// How much of a window the site was up; no data is neither up nor down.
pub(super) fn uptime_words(window: &Window) -> String {
    let mut words = match window.ratio() {
        None => "no data".to_owned(),
        Some(ratio) => {
            // Cut, not rounded: 100 % is said only where nothing was down.
            let percent = (ratio * 100_000.0).floor() / 1000.0;
            format!("{percent:.3} % ({} up, {} down)", window.up, window.down)
        }
    };
    if window.missed > 0 {
        words += &format!(", {} missed", window.missed);
    }
    if window.unreachable_self > 0 {
        words += &format!(", {} while our own network was away", window.unreachable_self);
    }
    words
}

/// Response times, the newest to the right: a bar each, `x` where the site was down, `_` where
/// nothing was checked.
fn sparkline(rows: &[StoredCheck], bars: [char; 8], width: usize) -> String {
    let shown = &rows[..rows.len().min(width)];
    let times = || shown.iter().filter(|row| is_up(row)).filter_map(|row| row.response_time);
    let (min, max) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let bar = |row: &StoredCheck| match (Outcome::parse(&row.outcome), row.response_time) {
        (Some(Outcome::Up), Some(time)) => {
            let part = if max > min { (time - min) / (max - min) } else { 0.0 };
            // Within 0 to 7.
            bars[((part * 7.0).round() as usize).min(7)]
        }
        (Some(Outcome::Missed), _) => '_',
        _ => 'x',
    };
    shown.iter().rev().map(bar).collect()
}

fn is_up(row: &StoredCheck) -> bool {
    row.outcome == Outcome::Up.as_str()
}

fn cells(row: &StoredCheck) -> Vec<Cell> {
    let outcome = Cell::new(&row.outcome);
    let outcome = match Outcome::parse(&row.outcome) {
        Some(known) => outcome.coloured(Colour::from(known)),
        None => outcome,
    };
    let mut failure = match (&row.failure_kind, &row.failure_detail) {
        (Some(kind), Some(detail)) => format!("{kind}: {detail}"),
        (Some(kind), None) => kind.clone(),
        _ => String::new(),
    };
    if row.unreachable_self {
        failure += " (own network unreachable)";
    }
    vec![
        Cell::from(format!("{:.3}", row.timestamp)),
        outcome,
        Cell::or_dash(row.http_status),
        Cell::or_dash(row.response_time.map(|seconds| format!("{seconds:.3}"))),
        Cell::new(&row.region),
        Cell::from(failure),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Phases;

    fn row(outcome: &str, response_time: Option<f64>) -> StoredCheck {
        StoredCheck {
            check_entry_id: uuid::Uuid::nil(),
            website_id: 1,
            timestamp: Timestamp::UNIX_EPOCH,
            started_at: None,
            certificate_expires_at: None,
            response_time,
            phases: Phases::default(),
            http_status: None,
            body_bytes: None,
            redirects: None,
            outcome: outcome.to_owned(),
            failure_kind: None,
            region: "default".to_owned(),
            regex_match: None,
            regex: None,
            failure_detail: None,
            regex_captures: None,
            tries: None,
            last_hop: None,
            unreachable_self: false,
        }
    }

    #[test]
    fn a_sparkline_has_the_newest_at_its_end() {
        let rows = [
            row("up", Some(0.2)),
            row("down", Some(9.0)),
            row("missed", None),
            row("up", Some(0.1)),
            row("up", Some(0.16)),
        ];
        assert_eq!(sparkline(&rows, BARS, 80), "▅▁_x█");
        assert_eq!(sparkline(&rows, ASCII_BARS, 3), "_x.");
        assert_eq!(sparkline(&[row("up", Some(1.0)), row("up", None)], BARS, 80), "x▁");
    }

    #[test]
    fn no_data_is_neither_up_nor_down_and_nearly_all_is_not_all() {
        let none = || Window::empty(DAY, Timestamp::UNIX_EPOCH);
        let window = |up, down, missed| Window { up, down, missed, ..none() };
        assert_eq!(uptime_words(&window(0, 0, 0)), "no data");
        assert_eq!(uptime_words(&window(0, 0, 3)), "no data, 3 missed");
        assert_eq!(uptime_words(&window(999_999, 1, 0)), "99.999 % (999999 up, 1 down)");
        assert_eq!(uptime_words(&window(2, 0, 0)), "100.000 % (2 up, 0 down)");
    }
}
