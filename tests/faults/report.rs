//! One line for each scenario: printed, and for the record appended to the file that
//! `WEBMON_TEST_FAULTS_REPORT` names. `scripts/faults` makes the table of docs/faults.md of them.

use std::io::Write;
use std::time::Duration;

use crate::oracle::Verdict;

/// What happened to a scenario.
pub(crate) struct Line<'a> {
    /// Its place in the table.
    pub(crate) place: u32,
    pub(crate) fault: &'a str,
    /// How often, and what proves it.
    pub(crate) injected: &'a str,
    pub(crate) verdict: &'a Verdict,
    /// From the end of the last fault until everything was stored.
    pub(crate) recovery: Duration,
}

impl Line<'_> {
    /// A row of the table.
    fn row(&self) -> String {
        let v = self.verdict;
        let of = |outcome: &str| v.outcomes.get(outcome).copied().unwrap_or(0);
        let cut = match v.cut {
            0 => "0".to_owned(),
            cut => format!("{cut} ({} ms)", v.cut_oldest_ms),
        };
        let orphaned = match v.orphaned {
            0 => "0".to_owned(),
            some => format!("{some} ({:.1} s)", v.orphaned_ms as f64 / 1000.0),
        };
        format!(
            "| {} | {} | {} | {} / {} / {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s |",
            self.fault,
            self.injected,
            v.due,
            of("up"),
            of("down"),
            of("missed"),
            v.requests,
            v.lost.len(),
            v.excused,
            v.twice.len(),
            v.invented.len() + v.wrong.len(),
            cut,
            v.uncovered,
            orphaned,
            self.recovery.as_secs_f64(),
        )
    }

    /// Prints the line, and keeps it for the record.
    pub(crate) fn write(&self) {
        let v = self.verdict;
        println!(
            "{} [checked twice, stored once: {}; failures that the fault explains: {}; rejected: {}; \
             due times without a row: {:.1} %]",
            self.row(),
            v.overlaps,
            v.troubled,
            v.rejected.as_deref().unwrap_or("as expected"),
            v.without_row_percent(),
        );
        let Some(path) = std::env::var_os("WEBMON_TEST_FAULTS_REPORT") else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // One write, so that lines of two scenarios don't mix.
        let line = format!("{:03} {}\n", self.place, self.row());
        file.expect("the report opens").write_all(line.as_bytes()).expect("the report is written");
    }
}
