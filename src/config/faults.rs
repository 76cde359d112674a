//! What is wrong with a configuration, and where a value came from.

use std::fmt::{self, Write};
use std::path::PathBuf;

/// Longest part of a value that a fault shows, in characters: enough to recognise it.
const SHOWN_MAX: usize = 80;
/// How far a word may be from a known one to be taken for a slip, in edits per letters.
const SLIP_LETTERS: usize = 3;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File {
        /// The file as it was named.
        file: PathBuf,
        /// Line of the key, from 1.
        line: Option<usize>,
    },
    /// `.env`, or the file named instead.
    EnvFile {
        /// The file as it was named.
        file: PathBuf,
        /// Line of the variable, from 1.
        line: usize,
        /// The variable.
        variable: String,
    },
    /// The process's environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// The command line.
    Flag,
    /// Not used, because this other key is set.
    SetAside(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line: Some(line) } => write!(f, "{}:{line}", file.display()),
            Self::File { file, line: None } => write!(f, "{}", file.display()),
            Self::EnvFile { file, line, variable } => {
                write!(f, "{}:{line} {variable}", file.display())
            }
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("command line"),
            Self::SetAside(key) => write!(f, "not used: {key} is set"),
        }
    }
}

impl Origin {
    /// A fault of the value from here that belongs to `key`.
    pub(crate) fn fault(&self, key: &str, trouble: Trouble) -> Fault {
        let (file, line, variable) = match self {
            Self::File { file, line } => (Some(file.clone()), *line, None),
            Self::EnvFile { file, line, variable } => {
                (Some(file.clone()), Some(*line), Some(variable.clone()))
            }
            Self::Environment { variable } => (None, None, Some(variable.clone())),
            Self::Default | Self::Flag | Self::SetAside(_) => (None, None, None),
        };
        let Trouble { value, problem, cure } = trouble;
        Fault { file, line, key: key.to_owned(), variable, value, problem, cure }
    }
}

/// What is wrong with a value, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    value: Option<String>,
    problem: String,
    cure: String,
}

impl Trouble {
    pub(crate) fn new(problem: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { value: None, problem: problem.into(), cure: cure.into() }
    }

    /// With the value as it was written; never to be called with a secret.
    pub(crate) fn of(self, value: impl AsRef<str>) -> Self {
        Self { value: Some(shorten(&hide_credentials(value.as_ref()))), ..self }
    }

    /// With another cure.
    pub(crate) fn cured_by(self, cure: impl Into<String>) -> Self {
        Self { cure: cure.into(), ..self }
    }

    pub(crate) fn hidden(self) -> Self {
        Self { value: None, ..self }
    }

    /// Of a part of the value.
    pub(crate) fn within(self, part: &str) -> Self {
        Self { problem: format!("{part} {}", self.problem), ..self }
    }
}

/// One fault: what is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file it is in.
    pub file: Option<PathBuf>,
    /// The line in it, from 1, where known.
    pub line: Option<usize>,
    /// The dotted key; empty where there is none, such as for a syntax error.
    pub key: String,
    /// The environment variable, if the value came from one.
    pub variable: Option<String>,
    /// The value as it was written; never a secret.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub cure: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(text, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(text, "{}: ", file.display())?,
            (None, _) if self.variable.is_some() => text.push_str("environment: "),
            (None, _) => text.push_str("command line: "),
        }
        match (&self.variable, self.key.as_str()) {
            (None, "") => {}
            (None, key) => write!(text, "{key}: ")?,
            (Some(variable), "") => write!(text, "{variable}: ")?,
            (Some(variable), key) => write!(text, "{variable} ({key}): ")?,
        }
        if let Some(value) = &self.value {
            write!(text, "'{value}' ")?;
        }
        write!(text, "{}; {}", self.problem, self.cure)?;
        f.write_str(&one_line(&text))
    }
}

/// All faults of a configuration, in the order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    pub(crate) fn add(&mut self, origin: &Origin, key: &str, trouble: Trouble) {
        self.0.push(origin.fault(key, trouble));
    }

    /// By file and line; what has neither comes last, in the order it was found.
    pub(crate) fn sort(&mut self) {
        self.0.sort_by_cached_key(|fault| {
            let line = fault.line.unwrap_or(usize::MAX);
            (fault.file.is_none(), fault.file.clone(), line)
        });
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The known word that `word` was probably meant to be: at most one slip (a letter too many, too
/// few, wrong, or two swapped) per three letters.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(SLIP_LETTERS).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `text` with everything between `://` and the last `@` of the same word hidden.
pub(crate) fn hide_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let word = rest.split(char::is_whitespace).next().unwrap_or_default();
    match word.rfind('@') {
        Some(at) => format!("{scheme}://********{}", hide_credentials(&rest[at..])),
        None => format!("{scheme}://{}", hide_credentials(rest)),
    }
}

/// `text`, which should be a URL or a host, without user and password. What is no URL loses
/// everything up to its last `@`: nobody knows where its password ends.
pub(crate) fn public(text: &str) -> String {
    let word = |text: &&str| text.chars().all(|c| c.is_ascii_alphanumeric());
    let scheme = text.split_once("://").map(|(scheme, _)| scheme).filter(word).unwrap_or_default();
    match url::Url::parse(text) {
        Ok(good) if !good.cannot_be_a_base() => {
            let has_user = !good.username().is_empty() || good.password().is_some();
            let mut bare = good;
            if !has_user || bare.set_username("").is_err() || bare.set_password(None).is_err() {
                return text.to_owned();
            }
            bare.as_str().replacen("://", "://********@", 1)
        }
        _ => match (scheme, text.rfind('@')) {
            (_, None) => text.to_owned(),
            ("", Some(at)) => format!("********{}", &text[at..]),
            (scheme, Some(at)) => format!("{scheme}://********{}", &text[at..]),
        },
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

/// With control characters, line ends among them, written as escapes.
fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let known = ["host", "port", "user", "password", "retention_days"];
        for (word, meant) in [
            ("prot", Some("port")),
            ("Host", Some("host")),
            ("passwrd", Some("password")),
            ("retention", None),
            ("retention_day", Some("retention_days")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    #[test]
    fn credentials_are_hidden_wherever_they_are() {
        for (text, shown) in [
            ("plain", "plain"),
            ("https://a.example/b?c=d", "https://a.example/b?c=d"),
            ("https://u:p@a.example/", "https://********@a.example/"),
            ("https://u:p/w@x@a.example/", "https://********@a.example/"),
            ("see https://a/ and ftp://u:p@b/", "see https://a/ and ftp://********@b/"),
        ] {
            assert_eq!(hide_credentials(text), shown);
        }
    }

    #[test]
    fn urls_lose_their_user() {
        for (text, shown) in [
            ("db.example", "db.example"),
            ("https://a.example/@me?x=a@b", "https://a.example/@me?x=a@b"),
            ("https://u:p@a.example/@me", "https://********@a.example/@me"),
            ("https:u:p@a.example/", "https://********@a.example/"),
            ("https:////u:p@a.example/", "https://********@a.example/"),
            ("https://u:p/w@a.example/", "https://********@a.example/"),
            ("u:p/w@a.example:9092", "********@a.example:9092"),
            ("u@a", "********@a"),
            ("u:p@x://a@b", "********@b"),
        ] {
            assert_eq!(public(text), shown);
        }
    }

    #[test]
    fn a_fault_is_one_line() {
        let origin = Origin::Environment { variable: "WEBMON_X_Y".to_owned() };
        let fault = origin.fault("x.y", Trouble::new("is\nbad", "mend it").of("a\tb".repeat(60)));
        let text = fault.to_string();
        assert!(text.starts_with(r"environment: WEBMON_X_Y (x.y): 'a\tba\tb"), "{text}");
        assert!(text.ends_with(r"…' is\nbad; mend it"), "{text}");
        assert!(text.chars().count() < 180);
    }
}
