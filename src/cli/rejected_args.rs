//! What can be typed after `webmon rejected`.

use clap::{Args, Subcommand};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::runtime::now;
use crate::store::{RejectedFilter, RejectedKey};

/// Most messages of one page of `list`.
const LIST_MAX: u32 = 500;

#[derive(Args, Debug)]
pub(super) struct RejectedArgs {
    #[command(subcommand)]
    pub(super) command: RejectedCommand,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum RejectedCommand {
    /// List them, the newest first
    #[command(after_help = "\
Examples:
  webmon rejected list
  webmon rejected list --reason 'unknown website' --since 2h
  webmon rejected list --limit 500 --json")]
    List(ListArgs),
    /// Show one with its message
    #[command(after_help = "\
Examples:
  webmon rejected show webmon/3/4711
  webmon rejected show webmon/3/4711 --raw >message.json")]
    Show(ShowArgs),
    /// Try again to store them, such as after a site was added; what is stored leaves the list
    #[command(after_help = "\
Examples:
  webmon rejected replay --all --dry-run        only say what would become of them
  webmon rejected replay --reason 'unknown website'
  webmon rejected replay webmon/3/4711

Safe to repeat: a check that is stored already is not stored twice. What still can't be stored stays
in the list, with the reason of today. Exit code 1 when there is such a message. --json names the
first 100 of them in \"rejected\"; \"still_rejected\" counts all.")]
    Replay(ReplayArgs),
    /// Remove them for good
    #[command(after_help = "\
Examples:
  webmon rejected delete webmon/3/4711
  webmon rejected delete --reason 'no JSON' --before 7d --yes
  webmon rejected delete --all --yes")]
    Delete(DeleteArgs),
}

/// Which ones.
#[derive(Args, Debug, Default)]
pub(super) struct FilterArgs {
    /// Only those whose reason contains this, in capitals or not
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Only those put aside since then: a time (2026-01-31T12:00:00Z) or an age (90s, 15m, 2h, 3d)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,
    /// Only those put aside before then: a time or an age
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) before: Option<Timestamp>,
}

impl FilterArgs {
    pub(super) fn is_empty(&self) -> bool {
        self.reason.is_none() && self.since.is_none() && self.before.is_none()
    }

    pub(super) fn filter(&self, keys: &[RejectedKey]) -> RejectedFilter {
        RejectedFilter {
            reason: self.reason.clone(),
            since: self.since,
            before: self.before,
            keys: keys.to_vec(),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// At most so many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
    pub(super) limit: u32,
    /// Go on where an earlier list ended
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    pub(super) cursor: Option<Cursor>,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The message's place, as `list` shows it
    #[arg(value_name = "TOPIC/PARTITION/OFFSET", value_parser = key)]
    pub(super) key: RejectedKey,
    /// Only the message, byte for byte
    #[arg(long, conflicts_with = "json")]
    pub(super) raw: bool,
}

/// Which ones, where none is not all.
#[derive(Args, Debug)]
pub(super) struct ChoiceArgs {
    /// The messages' places, as `list` shows them
    #[arg(value_name = "TOPIC/PARTITION/OFFSET", value_parser = key)]
    pub(super) keys: Vec<RejectedKey>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// All of them
    #[arg(long, conflicts_with_all = ["keys", "reason", "since", "before"])]
    pub(super) all: bool,
}

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) choice: ChoiceArgs,
    /// Try, say what would happen, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    pub(super) choice: ChoiceArgs,
    /// Needed unless the messages are named one by one
    #[arg(long)]
    pub(super) yes: bool,
}

/// A place in the list, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor(pub(super) Timestamp, pub(super) RejectedKey);

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0.as_microsecond(), self.1)
    }
}

fn cursor(text: &str) -> Result<Cursor, String> {
    let read = || {
        let (time, key) = text.split_once(':')?;
        let time = Timestamp::from_microsecond(time.parse().ok()?).ok()?;
        Some(Cursor(time, RejectedKey::parse(key)?))
    };
    read().ok_or_else(|| "not a cursor; take the one that 'list' printed".to_owned())
}

fn key(text: &str) -> Result<RejectedKey, String> {
    RejectedKey::parse(text).ok_or_else(|| "write it as TOPIC/PARTITION/OFFSET".to_owned())
}

/// Reads a time, or an age.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    time_before(text, now().wall)
}

/// A day, as the moment in which it begins in UTC.
fn midnight(text: &str) -> Option<Timestamp> {
    // The parser of dates passes over times that stand behind them.
    let is_date = text.len() == "2026-01-31".len();
    let date: Date = is_date.then(|| text.parse().ok()).flatten()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// A time, a day, or an age at `now`.
fn time_before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    if let Some(midnight) = midnight(text) {
        return Ok(midnight);
    }
    let age = || {
        let unit = text.chars().next_back()?;
        let number: i64 = text.strip_suffix(unit)?.parse().ok().filter(|n| *n >= 0)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let age = SignedDuration::from_secs(number.checked_mul(seconds)?);
        now.checked_sub(age).ok()
    };
    let cure = "write a time such as 2026-01-31T12:00:00Z, a day such as 2026-01-31, or an age such as 90s, 15m, 2h or 3d";
    age().ok_or_else(|| cure.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_read() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(time_before(text, now).unwrap().to_string(), expected, "{text}");
        };
        check("90s", "2026-01-31T11:58:30Z");
        check("15m", "2026-01-31T11:45:00Z");
        check("2h", "2026-01-31T10:00:00Z");
        check("3d", "2026-01-28T12:00:00Z");
        check("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z");
        check("2026-01-31", "2026-01-31T00:00:00Z");
        for bad in [
            "",
            "2026-02-30",
            "2026-01-31T12:00",
            "d",
            "-1d",
            "3w",
            "3 d",
            "9223372036854775807d",
            "ä",
        ] {
            assert!(time_before(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let key = RejectedKey { topic: "local:a:1".to_owned(), partition: 1, offset: 2 };
        let place = Cursor("2026-01-31T12:00:00.123456Z".parse().unwrap(), key);
        assert_eq!(cursor(&place.to_string()), Ok(place));
        assert!(cursor("1:webmon").is_err() && cursor("webmon/1/2").is_err());
    }
}
