//! Tables that fit the terminal.
//!
//! Each row is one line, so that `grep`, `sort` and `wc -l` work on it; that is why no library
//! that wraps cells is used. On a terminal cells are cut, the widest first; elsewhere nothing is.

use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::exit::Exit;
use super::output;
use crate::check::Outcome;
use crate::site::is_unprintable;

/// Columns of a terminal that doesn't say how many it has.
const WIDTH: usize = 80;
/// Between two columns.
const GAP: &str = "  ";
/// A cell is not cut below this while another can be.
const CUT_MIN: usize = 8;

/// The last column is rather cut to this than left out.
const CUT_LAST_MIN: usize = 6;

/// Where a table goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Screen {
    /// Columns of the terminal; absent when it is none: then nothing is cut.
    pub(super) width: Option<usize>,
    /// Whether cells may have colours.
    pub(super) is_coloured: bool,
}

impl Screen {
    /// Standard output. `COLUMNS` stands above what the terminal says of itself.
    pub(super) fn of_stdout() -> Self {
        let out = std::io::stdout();
        let named = || std::env::var("COLUMNS").ok()?.parse().ok();
        let own = || rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col.into());
        let width = |columns: &usize| *columns > 0;
        let columns = || named().filter(width).or_else(|| own().filter(width)).unwrap_or(WIDTH);
        Self { width: out.is_terminal().then(columns), is_coloured: output::is_coloured() }
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    is_right: bool,
    is_cut: bool,
}

impl Column {
    /// Text that may be cut.
    pub(super) const fn text(head: &'static str) -> Self {
        Self { head, is_right: false, is_cut: true }
    }

    /// Text that is of no use when it is cut, such as a time or an address.
    pub(super) const fn whole(head: &'static str) -> Self {
        Self { head, is_right: false, is_cut: false }
    }

    /// A number: to the right, and never cut.
    pub(super) const fn number(head: &'static str) -> Self {
        Self { head, is_right: true, is_cut: false }
    }
}

/// What a cell says at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    Yellow,
    Grey,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Grey => "90",
        }
    }

    /// `text` in this colour.
    pub(super) fn paint(self, text: &str) -> String {
        format!("\x1b[{}m{text}\x1b[0m", self.code())
    }
}

impl From<Outcome> for Colour {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Up => Self::Green,
            Outcome::Down => Self::Red,
            Outcome::Missed => Self::Yellow,
        }
    }
}

/// A cell: one line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    /// `text` without what a terminal would obey.
    pub(super) fn new(text: &str) -> Self {
        Self { text: printable(text), colour: None }
    }

    /// The value, or a dash for none.
    pub(super) fn or_dash<T: ToString>(value: Option<T>) -> Self {
        value.map_or_else(|| Self::new("-"), |value| Self::new(&value.to_string()))
    }

    /// In a colour, where there are colours.
    pub(super) fn coloured(self, colour: Colour) -> Self {
        Self { colour: Some(colour), ..self }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

/// A table that is printed page by page: the first page decides how wide the columns are, and
/// only a cell that is wider still moves its own line.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    screen: Screen,
    /// Of the columns that are shown.
    widths: Vec<usize>,
}

impl Table {
    /// A table of these columns.
    pub(super) fn new(columns: &[Column], screen: Screen) -> Self {
        Self { columns: columns.to_vec(), screen, widths: Vec::new() }
    }

    /// Prints rows; with the first ones the heads of the columns.
    pub(super) fn print(&mut self, rows: &[Vec<Cell>]) -> Result<(), Exit> {
        let is_first = self.widths.is_empty();
        self.lines(rows).iter().try_for_each(|line| output::line(line))?;
        let left_out = self.left_out();
        if is_first && !left_out.is_empty() {
            let heads = left_out.join(", ");
            output::note(&format!("the terminal is too narrow for the columns {heads}"));
        }
        Ok(())
    }

    /// The lines of rows; of the first ones with the heads of the columns.
    pub(super) fn lines(&mut self, rows: &[Vec<Cell>]) -> Vec<String> {
        let heads: Vec<Cell> = self.columns.iter().map(|column| column.head.into()).collect();
        let is_first = self.widths.is_empty();
        if is_first {
            self.measure(&heads, rows);
        }
        let heads = is_first.then_some(&heads);
        heads.into_iter().chain(rows).map(|cells| self.line(cells)).collect()
    }

    /// The heads of the columns that the terminal has no room for: half a cell helps nobody.
    fn left_out(&self) -> Vec<&'static str> {
        self.columns.iter().skip(self.widths.len()).map(|column| column.head).collect()
    }

    fn measure(&mut self, heads: &[Cell], rows: &[Vec<Cell>]) {
        let mut widths: Vec<usize> = heads.iter().map(|cell| cell.text.width()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.text.width().max(*width);
            }
        }
        let shown = (1..=widths.len()).rev().find_map(|count| self.fitted(&widths[..count]));
        // Of one column alone as much is shown as there is room for.
        self.widths = shown.unwrap_or_else(|| widths[..1].to_vec());
    }

    /// The widths cut to what the terminal has room for; none when that is too narrow.
    fn fitted(&self, widths: &[usize]) -> Option<Vec<usize>> {
        let mut widths = widths.to_vec();
        let Some(screen) = self.screen.width else { return Some(widths) };
        let room = screen.checked_sub(GAP.len() * (widths.len() - 1))?;
        while widths.iter().sum::<usize>() > room {
            let cut = self.columns.iter().zip(&mut widths).filter(|(column, _)| column.is_cut);
            let widest = cut.map(|(_, width)| width).max_by_key(|width| **width);
            match widest.filter(|width| **width > CUT_MIN) {
                Some(width) => *width -= 1,
                None => {
                    let is_cut = self.columns.get(widths.len() - 1)?.is_cut;
                    *widths.last_mut().filter(|width| is_cut && **width > CUT_LAST_MIN)? -= 1;
                }
            }
        }
        Some(widths)
    }

    fn line(&self, cells: &[Cell]) -> String {
        let (mut line, mut used) = (String::new(), 0);
        for (at, ((column, width), cell)) in
            self.columns.iter().zip(&self.widths).zip(cells).enumerate()
        {
            if at > 0 {
                if self.screen.width.is_some_and(|screen| used + GAP.len() >= screen) {
                    break;
                }
                line.push_str(GAP);
                used += GAP.len();
            }
            let is_cut = self.screen.width.is_some() && column.is_cut;
            let rest = self.screen.width.map_or(usize::MAX, |screen| screen.saturating_sub(used));
            let text = cut(&cell.text, if is_cut { *width } else { usize::MAX });
            let fill = width.saturating_sub(text.width());
            let (fill, text) = if column.is_right {
                let fill = fill.min(rest);
                (fill, cut(&text, rest - fill))
            } else {
                let text = cut(&text, rest);
                (fill.min(rest - text.width()), text)
            };
            used += text.width() + fill;
            let text = match cell.colour {
                Some(colour) if self.screen.is_coloured => colour.paint(&text),
                _ => text,
            };
            let fill = " ".repeat(fill);
            let parts = if column.is_right { [fill, text] } else { [text, fill] };
            line.extend(parts.iter().map(String::as_str));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// At most `width` columns of `text`, the last one then `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut cut, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or_default();
        if used >= width {
            break;
        }
        cut.push(c);
    }
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Without what a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.replace(is_unprintable, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::number("ID"), Column::text("NAME"), Column::text("URL")];

    fn row(id: &str, name: &str, url: &str) -> Vec<Cell> {
        [id, name, url].map(Cell::from).to_vec()
    }

    fn lines(width: Option<usize>, rows: &[Vec<Cell>]) -> Vec<String> {
        Table::new(&COLUMNS, Screen { width, is_coloured: false }).lines(rows)
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut_outside_a_terminal() {
        let long = "x".repeat(200);
        let rows = [row("7", "a\tb", &long), row("1234", "\x1b[2Jäö", "u")];
        assert_eq!(
            lines(None, &rows),
            [
                "  ID  NAME    URL".to_owned(),
                format!("   7  a b     {long}"),
                "1234   [2Jäö  u".to_owned(),
            ]
        );
    }

    #[test]
    fn nothing_turns_a_line_around() {
        let text = printable("a\u{202E}b\u{2028}c\u{2066}d\u{200F}e\u{FEFF}f\u{7}g");
        assert_eq!(text, "a b c d e f g");
    }

    #[test]
    fn the_widest_are_cut_on_a_terminal() {
        let rows = [row("7", "a name of a site", "https://a.example/a/long/path")];
        let lines = lines(Some(30), &rows);
        assert_eq!(lines[1], " 7  a name of a…  https://a.e…");
        assert!(lines.iter().all(|line| line.width() <= 30), "{lines:?}");
    }

    #[test]
    fn no_line_is_wider_than_the_narrowest_terminal() {
        let rows = [row("123456", "漢字漢字漢字漢字", "https://a.example/")];
        for width in 1..60 {
            for line in lines(Some(width), &rows) {
                assert!(line.width() <= width, "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_whole() {
        let rows = [row("7", "a name of a site", "https://a.example/a/long/path")];
        for (width, left_out) in
            [(20, &[][..]), (19, &["URL"]), (10, &["URL"]), (9, &["NAME", "URL"])]
        {
            let mut table = Table::new(&COLUMNS, Screen { width: Some(width), is_coloured: false });
            let lines = table.lines(&rows);
            assert_eq!(table.left_out(), left_out, "{width}: {lines:?}");
            assert_eq!(lines[0].contains("URL"), left_out.is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn later_pages_keep_the_widths() {
        let mut table = Table::new(&COLUMNS, Screen::default());
        table.lines(&[row("7", "name", "u")]);
        let later = table.lines(&[row("12345", "n", "u")]);
        assert_eq!(later, ["12345  n     u"]);
    }

    #[test]
    fn colours_take_no_room() {
        let cells = [row("7", "up", "u"), row("8", "down", "u")];
        let mut coloured = cells.clone();
        coloured[0][1] = coloured[0][1].clone().coloured(Colour::Green);
        let screen = Screen { width: None, is_coloured: true };
        let lines = Table::new(&COLUMNS, screen).lines(&coloured);
        assert_eq!(lines[1], " 7  \x1b[32mup\x1b[0m    u");
        assert_eq!(Table::new(&COLUMNS, Screen::default()).lines(&coloured)[1], " 7  up    u");
    }
}
