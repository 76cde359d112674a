//! Data to standard output.

use std::io::{ErrorKind, IsTerminal, Write};

use super::exit::Exit;
use super::table::Colour;
use crate::check::Check;
use crate::wire;

/// Prints one line.
pub(super) fn line(text: &str) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// What became of writing to standard output. A reader that has gone, such as `head`, is no fault.
pub(super) fn written(result: std::io::Result<()>) -> Result<(), Exit> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Exit::Failed(format!("cannot write to standard output: {error}"))),
    }
}

/// Says something beside the data, on standard error.
pub(super) fn note(text: &str) {
    // With standard error closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// So many of something: `1 message`, `2 messages`.
pub(super) fn counted(count: impl std::fmt::Display, noun: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// Prints a check as its message.
pub(super) fn message(check: &Check<'_>) -> Result<(), Exit> {
    let mut message = Vec::new();
    wire::encode(check, &mut message);
    line(&String::from_utf8_lossy(&message))
}

/// Whether to colour: on a terminal, unless NO_COLOR is set (https://no-color.org).
pub(super) fn is_coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// One result on one line: when, outcome, status, seconds, what, and whether it says nothing about
/// the site.
pub(super) fn summary(check: &Check<'_>, name: &str, is_coloured: bool) -> String {
    let outcome = format!("{:<6}", check.outcome.as_str());
    let outcome = if is_coloured { Colour::from(check.outcome).paint(&outcome) } else { outcome };
    let status = check.http_status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let seconds = check.response_time.map_or_else(|| "-".to_owned(), |s| format!("{s:.3} s"));
    let failure = check.failure.as_ref().map_or_else(String::new, |failure| {
        format!("  {}: {}", failure.kind.as_str(), failure.detail)
    });
    let own = if check.unreachable_self { " (own network unreachable)" } else { "" };
    format!("{:.3}  {outcome} {status:>4} {seconds:>9}  {name}{failure}{own}", check.scheduled_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Failure, FailureKind, Identity};

    #[test]
    fn one_is_no_plural() {
        let said = [0, 1, 2].map(|count| counted(count, "trip"));
        assert_eq!(said, ["0 trips", "1 trip", "2 trips"]);
    }

    #[test]
    fn an_unreachable_own_network_is_marked() {
        let (url, region) = ("http://a/".to_owned(), "default".to_owned());
        let identity = Identity::new(1, &region);
        let down = Check::empty(&identity, 1, url, region, jiff::Timestamp::UNIX_EPOCH);
        let failure = Some(Failure::new(FailureKind::Connect, "no route"));
        let mut down = Check { failure, ..down };
        assert!(summary(&down, "a", false).ends_with("  a  connect: no route"));
        down.unreachable_self = true;
        let marked = "  a  connect: no route (own network unreachable)";
        assert!(summary(&down, "a", false).ends_with(marked));
    }
}
