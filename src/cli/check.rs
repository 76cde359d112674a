//! `check`: URLs and sites, now.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use super::args::CommonArgs;
use super::check_args::CheckArgs;
use super::check_rounds::{Crew, Tally};
use super::check_targets::Wanted;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::waterfall::Canvas;
use super::{check_save, check_show, check_targets, options, output};
use crate::check::Check;
use crate::probe::{ProbeOptions, Prober};
use crate::runtime::{Stop, now, stop_on_signals};
use crate::store::Store;

/// From one round to the next, where nobody says.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn check(common: &CommonArgs, args: &CheckArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let settings = &loaded.settings;
    let needs_store = args.save || !args.sites.is_empty();
    let store = needs_store.then(|| options::store(settings, "webmon-check")).transpose()?;
    let wanted = Arc::new(check_targets::find(args, settings, store.as_ref())?);
    let jobs = usize::from(args.jobs).clamp(1, wanted.len());
    // A look-up that hangs outlives its check: two threads for each that can be under way.
    let probe = ProbeOptions { resolver_threads: jobs * 2, ..options::probe(settings) };
    let prober = prober("webmon check", probe)?;
    for one in wanted.iter() {
        prober.find_secrets(&one.target).map_err(|failure| {
            Exit::Usage(format!("webmon check: {}: {}", one.name, failure.detail))
        })?;
    }
    let stop = Stop::new();
    if args.repeat.is_some() {
        stop_on_signals(&stop).map_err(|error| {
            Exit::Failed(format!("webmon check: cannot handle signals: {error}"))
        })?;
    }
    let mut report = Report {
        tallies: vec![Tally::of(wanted.len()); wanted.len()],
        wanted: wanted.clone(),
        store: store.filter(|_| args.save),
        canvas: Canvas::of_stdout(output::is_coloured()),
        is_brief: args.brief || args.repeat.is_some(),
        is_json: args.json,
    };
    let crew = Crew::start(prober, &wanted, jobs, &stop)?;
    crew.rounds(args.repeat.unwrap_or(1), args.every.unwrap_or(EVERY), |index, check| {
        report.take(index, &check)
    })?;
    if args.repeat.is_some() {
        report.sum_up()?;
    }
    if report.tallies.iter().any(Tally::is_bad) { Err(Exit::Bad) } else { Ok(()) }
}

/// What is told of the checks.
struct Report {
    wanted: Arc<Vec<Wanted>>,
    tallies: Vec<Tally>,
    /// Where they are stored too.
    store: Option<Store>,
    canvas: Canvas,
    is_brief: bool,
    is_json: bool,
}

impl Report {
    fn take(&mut self, index: usize, check: &Check<'static>) -> Result<(), Exit> {
        self.tallies[index].add(check);
        match self.store.as_ref().map(|store| check_save::save(store, check.clone())) {
            None => self.print(index, check, false),
            Some(Ok(stored)) => self.print(index, &stored, true),
            // The result is there all the same.
            Some(Err(exit)) => self.print(index, check, false).and(Err(exit)),
        }
    }

    fn print(&self, index: usize, check: &Check<'static>, is_stored: bool) -> Result<(), Exit> {
        if self.is_json {
            return output::message(check);
        }
        let name = &self.wanted[index].name;
        output::line(&output::summary(check, name, self.canvas.is_coloured))?;
        if self.is_brief {
            return Ok(());
        }
        let details = check_show::details(check, self.canvas, is_stored);
        details.iter().try_for_each(|line| output::line(&format!("  {line}")))
    }

    /// Behind the last round. With JSON it goes to standard error: the other has messages only.
    fn sum_up(&self) -> Result<(), Exit> {
        for (one, tally) in self.wanted.iter().zip(&self.tallies) {
            for line in tally.lines(&one.name) {
                if self.is_json { output::note(&line) } else { output::line(&line)? }
            }
        }
        Ok(())
    }
}

/// A prober for a command; `command` stands before why there is none.
pub(super) fn prober(command: &str, options: ProbeOptions) -> Result<Prober, Exit> {
    Prober::new(options).map_err(|error| Exit::of_probe(command, &error))
}

/// Now, as a due time: whole milliseconds, and never the same twice in this process, so that each
/// check has an id of its own.
pub(super) fn due() -> Timestamp {
    static LAST: AtomicI64 = AtomicI64::new(i64::MIN);
    let now = now().wall.as_millisecond();
    let next = |last: i64| now.max(last.saturating_add(1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    let due = next(last.unwrap_or_else(|last| last));
    Timestamp::from_millisecond(due).unwrap_or_default()
}
