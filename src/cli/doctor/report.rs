//! What was found, told line by line as it is found.

use serde_json::{Value, json};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::table::{Colour, printable};

/// What a fault is about; decides the exit code, the first one before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The configuration, or what the services say about it: a wrong password.
    Configuration,
    /// A service can't be reached.
    Away,
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Bad,
}

/// The longest subjects: `database rights`, `producer.listen`.
const SUBJECT_WIDTH: usize = 15;
/// Below what is said: behind the word of 7 and the subject, two blanks each.
const CURE_INDENT: usize = 7 + 2 + SUBJECT_WIDTH + 2;

struct Line {
    state: State,
    subject: &'static str,
    said: String,
    cure: Option<String>,
}

/// All that was found so far.
pub(super) struct Report {
    is_json: bool,
    is_coloured: bool,
    lines: Vec<Line>,
    worst: Option<Kind>,
    /// Why nothing can be told any more.
    silenced: Option<Exit>,
}

impl Report {
    pub(super) fn new(is_json: bool) -> Self {
        let is_coloured = output::is_coloured();
        Self { is_json, is_coloured, lines: Vec::new(), worst: None, silenced: None }
    }

    pub(super) fn ok(&mut self, subject: &'static str, said: impl Into<String>) {
        self.add(Line { state: State::Ok, subject, said: said.into(), cure: None });
    }

    pub(super) fn warning(
        &mut self,
        subject: &'static str,
        said: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let cure = Some(cure.into());
        self.add(Line { state: State::Warning, subject, said: said.into(), cure });
    }

    pub(super) fn bad(
        &mut self,
        kind: Kind,
        subject: &'static str,
        said: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.worst = Some(self.worst.map_or(kind, |worst| worst.min(kind)));
        let cure = Some(cure.into());
        self.add(Line { state: State::Bad, subject, said: said.into(), cure });
    }

    fn add(&mut self, line: Line) {
        if !self.is_json && self.silenced.is_none() {
            self.silenced = self.tell(&line).err();
        }
        self.lines.push(line);
    }

    fn tell(&self, line: &Line) -> Result<(), Exit> {
        let (word, colour) = match line.state {
            State::Ok => ("ok", Colour::Green),
            State::Warning => ("warning", Colour::Yellow),
            State::Bad => ("bad", Colour::Red),
        };
        let word = format!("{word:<7}");
        let word = if self.is_coloured { colour.paint(&word) } else { word };
        let said = printable(&line.said);
        output::line(&format!("{word}  {:<SUBJECT_WIDTH$}  {said}", line.subject))?;
        match &line.cure {
            Some(cure) => output::line(&format!("{:CURE_INDENT$}cure: {}", "", printable(cure))),
            None => Ok(()),
        }
    }

    fn count(&self, state: State) -> usize {
        self.lines.iter().filter(|line| line.state == state).count()
    }

    /// The end of the command.
    pub(super) fn end(self) -> Result<(), Exit> {
        if self.is_json {
            output::line(&self.json().to_string())?;
        }
        if let Some(silenced) = self.silenced {
            return Err(silenced);
        }
        let (bad, warnings) = (self.count(State::Bad), self.count(State::Warning));
        let said = format!("webmon doctor: {bad} bad, {}", output::counted(warnings, "warning"));
        match self.worst {
            None => Ok(()),
            Some(Kind::Configuration) => Err(Exit::Usage(said)),
            Some(Kind::Away) => Err(Exit::Away(said)),
            Some(Kind::Other) => Err(Exit::Failed(said)),
        }
    }

    fn json(&self) -> Value {
        let line = |line: &Line| {
            let state = match line.state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Bad => "bad",
            };
            json!({
                "state": state,
                "subject": line.subject,
                "said": line.said,
                "cure": line.cure,
            })
        };
        json!({
            "is_well": self.worst.is_none(),
            "bad": self.count(State::Bad),
            "warnings": self.count(State::Warning),
            "checks": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_kinds_decides_the_end() {
        let ends = |kinds: &[Kind]| {
            let mut report = Report { silenced: None, ..Report::new(true) };
            report.warning("x", "y", "z");
            kinds.iter().for_each(|kind| report.bad(*kind, "x", "y", "z"));
            report.is_json = false;
            report.end()
        };
        assert!(ends(&[]).is_ok());
        assert!(matches!(ends(&[Kind::Other]), Err(Exit::Failed(_))));
        assert!(matches!(ends(&[Kind::Other, Kind::Away]), Err(Exit::Away(_))));
        assert!(matches!(ends(&[Kind::Away, Kind::Configuration]), Err(Exit::Usage(_))));
    }
}
