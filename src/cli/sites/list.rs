//! `sites list`: page by page, however many there are.

use std::collections::HashMap;
use std::io::{BufWriter, Write};

use serde_json::Value;

use super::super::exit::Exit;
use super::super::output::written;
use super::super::sites_args::{ListArgs, StatusArg};
use super::super::table::{Cell, Colour, Column, Screen, Table};
use super::{Context, last_json, note, object};
use crate::store::{LastCheck, SiteFilter, SiteRow, SiteStatus};
use crate::wire::website::Secrets;

/// Sites that are held at once, and the longest list with last checks that nobody asked for. The
/// help of `--last` says it too.
const PAGE: u32 = 500;

const COLUMNS: [Column; 7] = [
    Column::number("ID"),
    Column::text("NAME"),
    Column::whole("STATUS"),
    Column::number("INTERVAL"),
    Column::whole("LAST"),
    Column::whole("WHEN"),
    Column::text("URL"),
];

pub(super) fn list(context: &Context, args: &ListArgs) -> Result<(), Exit> {
    let mut pages = Pages::new(context, args);
    if context.is_json { as_json(&mut pages) } else { as_table(context, &mut pages) }
}

/// The pages of a list.
struct Pages<'a> {
    context: &'a Context,
    filter: SiteFilter,
    left: Option<u32>,
    with_last: bool,
    is_first: bool,
    /// Where to go on after the limit.
    next: Option<i64>,
    is_done: bool,
}

/// Sites with what was last seen of them.
struct Page {
    rows: Vec<SiteRow>,
    /// Absent when it was not asked for.
    last: Option<HashMap<i64, LastCheck>>,
}

impl<'a> Pages<'a> {
    fn new(context: &'a Context, args: &ListArgs) -> Self {
        Self {
            context,
            filter: SiteFilter {
                keyword: args.keyword.clone(),
                statuses: StatusArg::statuses(args.status),
                after: args.after,
                limit: 0,
            },
            left: args.limit,
            // A program finds the same keys however many there are.
            with_last: args.last || context.is_json,
            is_first: true,
            next: None,
            is_done: false,
        }
    }

    fn next_page(&mut self) -> Result<Option<Page>, Exit> {
        if self.is_done {
            return Ok(None);
        }
        let wanted = self.left.map_or(PAGE, |left| left.min(PAGE));
        // One more than wanted tells whether there are more.
        self.filter.limit = wanted + 1;
        let store = &self.context.store;
        let mut rows = store.find_sites(&self.filter).map_err(|error| Exit::of_store(&error))?;
        let has_more = rows.len() > wanted as usize;
        rows.truncate(wanted as usize);
        let end = rows.last().map(|row| row.website_id);
        self.left = self.left.map(|left| left - wanted);
        self.is_done = !has_more || self.left == Some(0);
        self.next = end.filter(|_| has_more && self.left == Some(0));
        self.filter.after = end.unwrap_or(self.filter.after);
        // One look into an index for each: unasked only where they are few.
        self.with_last |= self.is_first && self.is_done;
        self.is_first = false;
        let mut last = None;
        if self.with_last {
            let ids: Vec<i64> = rows.iter().map(|row| row.website_id).collect();
            let checks = store.last_checks(&ids).map_err(|error| Exit::of_store(&error))?;
            last = Some(checks.into_iter().map(|check| (check.website_id, check)).collect());
        }
        Ok((!rows.is_empty()).then_some(Page { rows, last }))
    }
}

fn as_table(context: &Context, pages: &mut Pages<'_>) -> Result<(), Exit> {
    let mut table = None;
    let mut is_left_out = false;
    while let Some(page) = pages.next_page()? {
        let with_last = page.last.is_some();
        is_left_out |= !with_last;
        let columns: Vec<Column> = COLUMNS
            .into_iter()
            .enumerate()
            .filter(|(at, _)| with_last || !(4..=5).contains(at))
            .map(|(_, column)| column)
            .collect();
        let rows: Vec<Vec<Cell>> = page.rows.iter().map(|row| cells(context, &page, row)).collect();
        table.get_or_insert_with(|| Table::new(&columns, Screen::of_stdout())).print(&rows)?;
    }
    if table.is_none() {
        note("no sites");
    }
    if is_left_out {
        note(&format!("last checks are left out of a list of more than {PAGE}: add --last"));
    }
    if let Some(next) = pages.next {
        note(&format!("there are more: add --after {next}"));
    }
    Ok(())
}

fn cells(context: &Context, page: &Page, row: &SiteRow) -> Vec<Cell> {
    let status = Cell::new(row.status.as_str());
    let status = match row.status {
        SiteStatus::Active => status,
        SiteStatus::Paused => status.coloured(Colour::Yellow),
        SiteStatus::Deleted => status.coloured(Colour::Grey),
    };
    let interval = row.spec.interval.unwrap_or(context.defaults.interval);
    let mut cells = vec![
        Cell::from(row.website_id.to_string()),
        Cell::new(&row.spec.name),
        status,
        Cell::from(format!("{interval} s")),
    ];
    if let Some(last) = &page.last {
        let last = last.get(&row.website_id);
        cells.push(match last {
            Some(last) => Cell::new(last.outcome.as_str()).coloured(last.outcome.into()),
            None => Cell::new("-"),
        });
        cells.push(Cell::or_dash(last.map(|last| format!("{:.0}", last.timestamp))));
    }
    let object = object(row, Secrets::Masked);
    cells.push(Cell::new(object["url"].as_str().unwrap_or_default()));
    cells
}

/// One object in all, written as the pages come.
fn as_json(pages: &mut Pages<'_>) -> Result<(), Exit> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut separator = "{\"items\":[";
    while let Some(page) = pages.next_page()? {
        for row in &page.rows {
            let mut object = object(row, Secrets::Masked);
            if let Some(last) = &page.last {
                object.insert("last".to_owned(), last_json(last.get(&row.website_id)));
            }
            written(write!(out, "{separator}{}", Value::Object(object)))?;
            separator = ",";
        }
    }
    let begin = if separator == "," { "" } else { separator };
    let next = Value::from(pages.next);
    written(writeln!(out, "{begin}],\"next\":{next}}}").and_then(|()| out.flush()))
}
