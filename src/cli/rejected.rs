//! `rejected`: messages that could not become rows.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use super::args::CommonArgs;
use super::daemon::quiet_logs;
use super::exit::Exit;
use super::rejected_args::{
    ChoiceArgs, Cursor, DeleteArgs, ListArgs, RejectedArgs, RejectedCommand, ReplayArgs, ShowArgs,
};
use super::table::{Cell, Column, Screen, Table, printable};
use super::{options, output};
use crate::consumer::{Replayed, replay};
use crate::store::{RejectedFilter, RejectedRow, RejectedSummary, Store};
use crate::wire::time_text;

/// Messages of one transaction of a replay.
const REPLAY_ROWS: u32 = 1000;
/// How many of the messages that are still rejected are shown one by one.
const SHOWN_MAX: usize = 10;
/// How far messages are counted before they are deleted: all of a long list would take longer than
/// a call may.
const COUNT_MAX: u32 = 1000;

pub(super) fn rejected(common: &CommonArgs, args: &RejectedArgs) -> Result<(), Exit> {
    let loaded = options::load(common, [])?;
    quiet_logs(&loaded);
    let store = options::store(&loaded.settings, "webmon-rejected")?;
    match &args.command {
        RejectedCommand::List(list) => self::list(&store, list, args.json),
        RejectedCommand::Show(show) => self::show(&store, show, args.json),
        RejectedCommand::Replay(again) => self::replay_all(&store, again, args.json),
        RejectedCommand::Delete(delete) => self::delete(&store, delete, args.json),
    }
}

fn list(store: &Store, args: &ListArgs, is_json: bool) -> Result<(), Exit> {
    let after = args.cursor.clone().map(|Cursor(time, key)| (time, key));
    // One more than asked for tells whether there is a next page.
    let mut rows = store
        .list_rejected(&args.filter.filter(&[]), after, args.limit + 1)
        .map_err(|error| Exit::of_store(&error))?;
    let has_more = rows.len() > args.limit as usize;
    rows.truncate(args.limit as usize);
    let next = rows.last().filter(|_| has_more).map(|row| Cursor(row.rejected_at, row.key.clone()));
    if is_json {
        let items: Vec<Value> = rows.iter().map(summary).collect();
        let next = next.map(|cursor| cursor.to_string());
        return output::line(&json!({ "items": items, "next": next }).to_string());
    }
    if rows.is_empty() {
        return note("no rejected messages");
    }
    let rows: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    Table::new(&COLUMNS, Screen::of_stdout()).print(&rows)?;
    next.map_or(Ok(()), |cursor| note(&format!("there are more: add --cursor {cursor}")))
}

fn summary(row: &RejectedSummary) -> Value {
    json!({
        "message": row.key.to_string(),
        "topic": row.key.topic,
        "partition": row.key.partition,
        "offset": row.key.offset,
        "rejected_at": time_text(row.rejected_at),
        "reason": row.reason,
        "payload_bytes": row.payload_bytes,
    })
}

const COLUMNS: [Column; 4] = [
    Column::whole("REJECTED AT"),
    Column::whole("TOPIC/PARTITION/OFFSET"),
    Column::number("BYTES"),
    Column::text("REASON"),
];

fn cells(row: &RejectedSummary) -> Vec<Cell> {
    let time = format!("{:.0}", row.rejected_at);
    [time, row.key.to_string(), row.payload_bytes.to_string(), row.reason.clone()]
        .map(Cell::from)
        .to_vec()
}

fn show(store: &Store, args: &ShowArgs, is_json: bool) -> Result<(), Exit> {
    let filter = RejectedFilter { keys: vec![args.key.clone()], ..RejectedFilter::default() };
    let rows = store.read_rejected(&filter, None, 1).map_err(|error| Exit::of_store(&error))?;
    let Some(row) = rows.into_iter().next() else {
        return Err(Exit::NotFound(format!("webmon rejected: no rejected message {}", args.key)));
    };
    if args.raw {
        let mut out = std::io::stdout().lock();
        return out.write_all(&row.payload).and_then(|()| out.flush()).map_err(|error| {
            Exit::Failed(format!("webmon rejected: cannot write to standard output: {error}"))
        });
    }
    if is_json {
        return output::line(&whole(&row).to_string());
    }
    output::line(&format!("message      {}", printable(&row.key.to_string())))?;
    output::line(&format!("rejected at  {:.3}", row.rejected_at))?;
    output::line(&format!("reason       {}", printable(&row.reason)))?;
    output::line(&format!("payload      {} bytes\n", row.payload.len()))?;
    payload(&row.payload).iter().try_for_each(|line| output::line(line))
}

/// With the payload as text, or in base 16 when it is none.
fn whole(row: &RejectedRow) -> Value {
    let mut value = summary(&RejectedSummary {
        key: row.key.clone(),
        rejected_at: row.rejected_at,
        reason: row.reason.clone(),
        payload_bytes: i32::try_from(row.payload.len()).unwrap_or(i32::MAX),
    });
    match std::str::from_utf8(&row.payload) {
        Ok(text) => value["payload"] = text.into(),
        Err(_) => value["payload_hex"] = hex(&row.payload).into(),
    }
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A payload for people: JSON by fields, other text as it is, other bytes in base 16.
fn payload(bytes: &[u8]) -> Vec<String> {
    let json: Option<Value> = serde_json::from_slice(bytes).ok();
    let pretty = json.and_then(|value| serde_json::to_string_pretty(&value).ok());
    match (pretty, std::str::from_utf8(bytes)) {
        (Some(pretty), _) => pretty.lines().map(printable).collect(),
        (None, Ok(text)) if !text.contains('\0') => text.lines().map(printable).collect(),
        _ => (0..)
            .step_by(16)
            .zip(bytes.chunks(16))
            .map(|(at, chunk): (usize, &[u8])| {
                let digits: Vec<String> = chunk.iter().map(|b| format!("{b:02x}")).collect();
                let is_text = |b: &u8| b.is_ascii_graphic() || *b == b' ';
                let text = chunk.iter().map(|b| if is_text(b) { char::from(*b) } else { '.' });
                format!("{at:08x}  {:<47}  {}", digits.join(" "), text.collect::<String>())
            })
            .collect(),
    }
}

/// The filter of what was chosen.
fn chosen(args: &ChoiceArgs, verb: &str) -> Result<RejectedFilter, Exit> {
    if args.keys.is_empty() && args.filter.is_empty() && !args.all {
        return Err(Exit::Usage(format!(
            "webmon rejected {verb}: say which: TOPIC/PARTITION/OFFSET, --reason, --since, --before \
             or --all"
        )));
    }
    Ok(args.filter.filter(&args.keys))
}

/// Whether all messages that were named are there.
fn find_all(store: &Store, args: &ChoiceArgs) -> Result<(), Exit> {
    for key in &args.keys {
        let filter = RejectedFilter { keys: vec![key.clone()], ..RejectedFilter::default() };
        if store.count_rejected(&filter).map_err(|error| Exit::of_store(&error))? == 0 {
            return Err(Exit::NotFound(format!("webmon rejected: no rejected message {key}")));
        }
    }
    Ok(())
}

fn replay_all(store: &Store, args: &ReplayArgs, is_json: bool) -> Result<(), Exit> {
    let filter = chosen(&args.choice, "replay")?;
    find_all(store, &args.choice)?;
    // Not of how many: counting a long list takes longer than a call may.
    let progress = Progress { is_shown: std::io::stderr().is_terminal() };
    let (mut total, mut done, mut after) = (Replayed::default(), 0, None);
    loop {
        let page = store.read_rejected(&filter, after.as_ref(), REPLAY_ROWS);
        let page = page.map_err(|error| progress.interrupted(Exit::of_store(&error), &total))?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        let replayed = replay(store, &page, args.dry_run);
        total.add(replayed.map_err(|error| progress.interrupted(Exit::of_store(&error), &total))?);
        done += page.len() as u64;
        progress.show(done);
    }
    progress.clear();
    report(&total, args.dry_run, is_json)?;
    if total.still_rejected == 0 { Ok(()) } else { Err(Exit::Bad) }
}

fn report(total: &Replayed, is_dry: bool, is_json: bool) -> Result<(), Exit> {
    let Replayed { stored, known, still_rejected, rejected: named } = total;
    if is_json {
        let rejected: Vec<Value> = named
            .iter()
            .map(|(key, reason)| {
                json!({
                    "message": key.to_string(),
                    "topic": key.topic,
                    "partition": key.partition,
                    "offset": key.offset,
                    "reason": reason,
                })
            })
            .collect();
        let value = json!({
            "dry_run": is_dry, "stored": stored, "known": known,
            "still_rejected": still_rejected, "rejected": rejected,
            "rejected_left_out": still_rejected - named.len(),
        });
        return output::line(&value.to_string());
    }
    let (would, would_still) = if is_dry { ("would be ", "would still be") } else { ("", "still") };
    let all = stored + known + still_rejected;
    output::line(&format!(
        "{}: {stored} {would}stored, {known} were stored already, {still_rejected} \
         {would_still} rejected",
        output::counted(all, "message")
    ))?;
    for (key, reason) in named.iter().take(SHOWN_MAX) {
        note(&format!("{key}: {}", printable(reason)))?;
    }
    if *still_rejected > SHOWN_MAX {
        note(&format!("… and {} more", still_rejected - SHOWN_MAX))?;
    }
    Ok(())
}

/// How far a long replay is, on a terminal.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn show(&self, done: u64) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r{}", output::counted(done, "message"));
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// `exit`, with what was done before.
    fn interrupted(&self, exit: Exit, total: &Replayed) -> Exit {
        self.clear();
        let done = total.stored + total.known;
        let (done, were) =
            (output::counted(done, "message"), if done == 1 { "was" } else { "were" });
        exit.with(&format!("{done} {were} replayed before: run it again for the rest"))
    }
}

fn delete(store: &Store, args: &DeleteArgs, is_json: bool) -> Result<(), Exit> {
    let filter = chosen(&args.choice, "delete")?;
    find_all(store, &args.choice)?;
    if args.choice.keys.is_empty() && !args.yes {
        // What matches may be far down a long list: then they are not counted in time.
        let count = match store.list_rejected(&filter, None, COUNT_MAX + 1) {
            Ok(rows) if rows.len() > COUNT_MAX as usize => format!("more than {COUNT_MAX}"),
            Ok(rows) => rows.len().to_string(),
            Err(_) => "an unknown number of".to_owned(),
        };
        return Err(Exit::Usage(format!(
            "webmon rejected delete: this removes {} for good; add --yes",
            output::counted(count, "message")
        )));
    }
    let deleted = store.delete_rejected(&filter).map_err(|error| Exit::of_store(&error))?;
    if is_json {
        return output::line(&json!({ "deleted": deleted }).to_string());
    }
    output::line(&format!("{} deleted", output::counted(deleted, "message")))
}

/// A line for whoever sits there, not for a program.
fn note(text: &str) -> Result<(), Exit> {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RejectedKey;

    #[test]
    fn a_table_fits_the_terminal() {
        let row = |offset, reason: &str| RejectedSummary {
            key: RejectedKey { topic: "webmon".to_owned(), partition: 3, offset },
            rejected_at: "2026-01-31T12:00:00.9Z".parse().unwrap(),
            reason: reason.to_owned(),
            payload_bytes: 12,
        };
        let rows = [row(7, "unknown website"), row(123_456, "bad \x1b[2J in the äöü of it all")];
        let rows = rows.map(|row| cells(&row));
        let table = |width| Table::new(&COLUMNS, Screen { width, is_coloured: false });
        let lines = table(None).lines(&rows);
        assert_eq!(
            lines,
            [
                "REJECTED AT           TOPIC/PARTITION/OFFSET  BYTES  REASON",
                "2026-01-31T12:00:00Z  webmon/3/7                 12  unknown website",
                "2026-01-31T12:00:00Z  webmon/3/123456            12  bad  [2J in the äöü of it all",
            ]
        );
        let lines = table(Some(60)).lines(&rows);
        assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:?}");
        assert!(lines[2].ends_with("bad  […"), "{lines:?}");
    }

    #[test]
    fn payloads_are_shown_by_what_they_are() {
        assert_eq!(payload(br#"{"a":"\u001b"}"#), ["{", "  \"a\": \"\\u001b\"", "}"]);
        assert_eq!(payload(b"no json \x1b"), ["no json  "]);
        let lines = payload(b"\xff\x00abc defghijklmnop");
        assert_eq!(
            lines[0],
            format!(
                "00000000  {}  ..abc defghijklm",
                "ff 00 61 62 63 20 64 65 66 67 68 69 6a 6b 6c 6d"
            )
        );
        assert_eq!(lines[1], format!("00000010  {:<47}  nop", "6e 6f 70"));
        assert!(payload(b"").is_empty());
    }
}
