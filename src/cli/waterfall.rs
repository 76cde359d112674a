//! A check's phases as bars, one below the other.

use std::io::IsTerminal;

use crate::check::{Check, Phases};

/// Columns where the output is no terminal, or one that doesn't say how many it has.
const WIDTH: usize = 80;
/// Columns before the bars: indent, name, time.
const LABELS: usize = 29;
/// A bar's room, at least and at most: narrower shows nothing, wider is far from its name.
const BAR_MIN: usize = 10;
const BAR_MAX: usize = 100;
/// A cell in eighths, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// What the bars are drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    /// Whether blocks can be shown, or only ASCII.
    pub(super) is_utf8: bool,
    pub(super) is_coloured: bool,
}

impl Canvas {
    /// Standard output.
    pub(super) fn of_stdout(is_coloured: bool) -> Self {
        let out = std::io::stdout();
        let columns = match rustix::termios::tcgetwinsize(&out) {
            Ok(size) if out.is_terminal() => usize::from(size.ws_col),
            _ => 0,
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        let width = if columns == 0 { WIDTH } else { columns };
        Self { width, is_utf8: locale.is_some_and(|locale| is_utf8(&locale)), is_coloured }
    }
}

/// Whether a locale such as `de_DE.UTF-8` or `C.utf8` is one of UTF-8.
fn is_utf8(locale: &str) -> bool {
    let codeset = locale.split_once('.').map_or("", |(_, rest)| rest);
    let codeset = codeset.split('@').next().unwrap_or_default();
    codeset.eq_ignore_ascii_case("UTF-8") || codeset.eq_ignore_ascii_case("utf8")
}

/// The phases of all requests together, and where there were redirects those of the last request
/// alone, on the same scale and where they lie: at the end.
pub(super) fn lines(check: &Check<'_>, canvas: Canvas) -> Vec<String> {
    let all = sum(&check.phases);
    let total = check.response_time.unwrap_or_default().max(all);
    let Some(last_hop) = &check.last_hop else {
        return bars(&check.phases, 0.0, total, canvas);
    };
    let requests = check.redirects.map_or(2, |redirects| u32::from(redirects) + 1);
    let mut lines = vec![format!("all {requests} requests together")];
    lines.extend(bars(&check.phases, 0.0, total, canvas));
    lines.push("the last request alone".to_owned());
    lines.extend(bars(last_hop, (all - sum(last_hop)).max(0.0), total, canvas));
    lines
}

/// Phases in the order of time, with the colour of each on a terminal.
fn named(phases: &Phases) -> impl Iterator<Item = (&'static str, u8, f64)> {
    [
        ("resolve", 36, phases.resolve),
        ("connect", 33, phases.connect),
        ("tls", 35, phases.tls),
        ("processing", 34, phases.processing),
        ("transfer", 32, phases.transfer),
    ]
    .into_iter()
    .filter_map(|(name, colour, seconds)| Some((name, colour, seconds?)))
}

fn sum(phases: &Phases) -> f64 {
    named(phases).map(|(_, _, seconds)| seconds).sum()
}

/// One line for each phase that was reached, the first bar beginning at `begin` of `total` seconds.
fn bars(phases: &Phases, begin: f64, total: f64, canvas: Canvas) -> Vec<String> {
    let room = canvas.width.saturating_sub(LABELS).clamp(BAR_MIN, BAR_MAX);
    let mut begin = begin;
    named(phases)
        .map(|(name, colour, seconds)| {
            let end = begin + seconds;
            let bar = bar(begin, end, total, room, canvas.is_utf8);
            begin = end;
            let blank = bar.len() - bar.trim_start().len();
            let (blank, bar) = bar.split_at(blank);
            let bar = if canvas.is_coloured {
                format!("{blank}\x1b[{colour}m{bar}\x1b[0m")
            } else {
                format!("{blank}{bar}")
            };
            format!("{name:<12} {:>9.3} ms  {bar}", seconds * 1000.0)
        })
        .collect()
}

/// A bar from `begin` to `end` on a line of `room` cells for `total`: at least a trace of one.
fn bar(begin: f64, end: f64, total: f64, room: usize, is_utf8: bool) -> String {
    let eighths = |at: f64| {
        let share = if total > 0.0 { (at / total).clamp(0.0, 1.0) } else { 0.0 };
        // From 0 to 8 times the room.
        (share * (room * 8) as f64).round() as usize
    };
    let first = (eighths(begin) / 8).min(room - 1);
    let length = eighths(end).saturating_sub(first * 8).max(1);
    let mut bar = " ".repeat(first);
    if is_utf8 {
        bar.push_str(&"█".repeat(length / 8));
        bar.extend((length % 8).checked_sub(1).map(|part| EIGHTHS[part]));
    } else {
        bar.push_str(&"#".repeat(((length + 4) / 8).max(1)));
    }
    bar
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::check::Identity;

    const TEXT: Canvas = Canvas { width: 49, is_utf8: false, is_coloured: false };

    fn check(phases: Phases, response_time: f64) -> Check<'static> {
        let identity = Identity::new(1, "r");
        let empty =
            Check::empty(&identity, 1, "http://a/".into(), "r".into(), Timestamp::UNIX_EPOCH);
        Check { phases, response_time: Some(response_time), ..empty }
    }

    fn all(seconds: f64) -> Phases {
        Phases {
            resolve: Some(seconds),
            connect: Some(seconds),
            tls: Some(seconds),
            processing: Some(seconds),
            transfer: Some(seconds),
        }
    }

    #[test]
    fn bars_follow_each_other_to_scale() {
        assert_eq!(
            lines(&check(all(0.2), 1.0), TEXT),
            [
                "resolve        200.000 ms  ####",
                "connect        200.000 ms      ####",
                "tls            200.000 ms          ####",
                "processing     200.000 ms              ####",
                "transfer       200.000 ms                  ####",
            ]
        );
        let blocks = Canvas { is_utf8: true, ..TEXT };
        let phases = Phases { connect: Some(0.0), transfer: Some(0.53), ..Phases::default() };
        assert_eq!(
            lines(&check(phases, 1.0), blocks),
            ["connect          0.000 ms  ▏", "transfer       530.000 ms  ██████████▋"]
        );
    }

    #[test]
    fn a_redirects_last_request_stands_at_the_end() {
        let told = Check {
            redirects: Some(2),
            last_hop: Some(Phases { transfer: Some(0.5), ..Phases::default() }),
            ..check(Phases { connect: Some(0.5), transfer: Some(0.5), ..Phases::default() }, 1.0)
        };
        assert_eq!(
            lines(&told, TEXT),
            [
                "all 3 requests together",
                "connect        500.000 ms  ##########",
                "transfer       500.000 ms            ##########",
                "the last request alone",
                "transfer       500.000 ms            ##########",
            ]
        );
    }

    #[test]
    fn every_width_holds_every_bar() {
        for width in [0, 1, 30, 45, 80, 129, 500] {
            for is_utf8 in [false, true] {
                let canvas = Canvas { width, is_utf8, is_coloured: false };
                for (phases, total) in [(all(0.2), 1.0), (all(0.0), 0.0), (all(9.0), 1.0)] {
                    for line in lines(&check(phases, total), canvas) {
                        let most = width.max(LABELS + BAR_MIN);
                        // The indent of two is part of the labels.
                        assert!(line.chars().count() + 2 <= most, "{width}: {line}");
                        assert!(line.ends_with(|c: char| c == '#' || !c.is_ascii()), "{line}");
                    }
                }
            }
        }
    }

    #[test]
    fn colours_are_for_terminals() {
        let line = &lines(&check(all(0.2), 1.0), Canvas { is_coloured: true, ..TEXT })[1];
        assert_eq!(line, "connect        200.000 ms      \x1b[33m####\x1b[0m");
    }

    #[test]
    fn locales_tell_their_characters() {
        assert!(["de_DE.UTF-8", "C.utf8", "en_US.utf-8@x"].into_iter().all(is_utf8));
        assert!(!["C", "POSIX", "de_DE.ISO-8859-1", "UTF-8"].into_iter().any(is_utf8));
    }
}
