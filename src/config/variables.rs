//! The environment and the env file as one set of variables, and `${VAR}` in the file's values.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;

use super::faults::{Faults, Origin, Trouble, nearest};
use super::keys::{PREFIX, keys};

/// Names an environment file of its own choice; only read from the process's environment.
pub(crate) const ENV_FILE_VARIABLE: &str = "WEBMON_ENV_FILE";
/// Names the configuration file.
pub(crate) const CONFIG_FILE_VARIABLE: &str = "WEBMON_CONFIG_FILE";
/// Variables with our prefix that are no keys: the two above, and what the tests use.
const OTHER_VARIABLES: [&str; 3] =
    [ENV_FILE_VARIABLE, CONFIG_FILE_VARIABLE, "WEBMON_UPDATE_GOLDEN"];
const TEST_PREFIX: &str = "WEBMON_TEST_";
/// What the names of variables begin with that hold secrets of sites.
const SECRET_PREFIX: &str = "WEBMON_SECRET_";

/// A variable and where it was set.
pub(crate) struct Variable {
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// All variables; the environment goes before the env file.
#[derive(Default)]
pub(crate) struct Variables(BTreeMap<String, Variable>);

impl Variables {
    /// Takes the variables of the environment. Empty ones count as unset, as a compose file's
    /// `${VAR:-}` leaves them, except in `${VAR}`.
    pub(crate) fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            let origin = Origin::Environment { variable: name.clone() };
            self.0.insert(name.clone(), Variable { value: value.clone(), origin });
        }
    }

    /// Takes the lines of an env file, where the environment has not set them.
    pub(crate) fn add_env_file(&mut self, file: &Path, text: &str, faults: &mut Faults) {
        let mut in_file: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line_number = index + 1;
            match parse_line(line) {
                Ok(None) => {}
                Ok(Some((name, value))) => {
                    in_file.insert(name, (line_number, value));
                }
                Err(trouble) => {
                    let origin = Origin::File { file: file.to_owned(), line: Some(line_number) };
                    faults.add(&origin, "", trouble);
                }
            }
        }
        for (name, (line, value)) in in_file {
            let origin = Origin::EnvFile { file: file.to_owned(), line, variable: name.clone() };
            let set = self.0.get(&name).is_some_and(|variable| !variable.value.is_empty());
            if !set {
                self.0.insert(name, Variable { value, origin });
            }
        }
    }

    /// The variable of this name, unless it is unset or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&Variable> {
        self.0.get(name).filter(|variable| !variable.value.is_empty())
    }

    /// The secrets that sites may refer to, by the variable's name.
    pub(crate) fn site_secrets(&self) -> BTreeMap<String, SecretString> {
        let secrets = self.0.iter().filter(|(name, variable)| {
            name.starts_with(SECRET_PREFIX) && !variable.value.is_empty()
        });
        secrets
            .map(|(name, variable)| (name.clone(), SecretString::from(variable.value.clone())))
            .collect()
    }

    /// A fault for each variable with our prefix that no key has.
    pub(crate) fn check_names(&self, faults: &mut Faults) {
        let known: Vec<String> = keys().iter().map(super::keys::Key::variable).collect();
        let strange = self.0.iter().filter(|(name, _)| {
            name.starts_with(PREFIX)
                && !name.starts_with(TEST_PREFIX)
                && !name.starts_with(SECRET_PREFIX)
                && !OTHER_VARIABLES.contains(&name.as_str())
                && !known.contains(name)
        });
        for (name, variable) in strange {
            let all = known.iter().map(String::as_str).chain([CONFIG_FILE_VARIABLE]);
            let cure = match nearest(name, all) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "remove it; config.yaml lists all keys, a variable is WEBMON_ and the \
                         key in capitals joined by _"
                    .to_owned(),
            };
            faults.add(&variable.origin, "", Trouble::new("is no variable of webmon", cure));
        }
    }

    /// `text` with `${VAR}`, `${VAR:-default}` and `$$` replaced; `None` when there is none of
    /// them. A single `$` stays, as patterns end with it.
    pub(crate) fn expand(&self, text: &str) -> Result<Option<String>, Trouble> {
        if !text.contains("${") && !text.contains("$$") {
            return Ok(None);
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let end = after.find('}').ok_or_else(|| {
                    Trouble::new("has ${ without }", "close it, or write $${ for a plain ${")
                })?;
                expanded.push_str(self.reference(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                expanded.push('$');
            }
        }
        expanded.push_str(rest);
        Ok(Some(expanded))
    }

    fn reference<'a>(&'a self, inside: &'a str) -> Result<&'a str, Trouble> {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            return Err(Trouble::new(
                "has ${...} without the name of a variable",
                "write ${NAME} or ${NAME:-default}, or $${ for a plain ${",
            ));
        }
        match (self.0.get(name).map(|variable| variable.value.as_str()), default) {
            (Some(value), _) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default),
            (Some(_), None) => Ok(""),
            (None, None) => Err(Trouble::new(
                format!("needs the variable {name}, which is not set"),
                format!("set {name}, or write ${{{name}:-default}}"),
            )),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Name and value of one line of an env file; nothing for an empty line or a comment. The fault
/// never shows the line: it may hold a secret.
fn parse_line(line: &str) -> Result<Option<(String, String)>, Trouble> {
    const CURE: &str = "write NAME=value, or NAME='value' for a value with blanks or #";
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let assignment = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => line,
    };
    let (name, value) =
        assignment.split_once('=').ok_or_else(|| Trouble::new("this line has no =", CURE))?;
    let (name, value) = (name.trim_end(), value.trim_start());
    if !is_name(name) {
        return Err(Trouble::new("this line has no variable's name before its =", CURE));
    }
    let value = match value.chars().next() {
        Some(quote @ ('\'' | '"')) => quoted_value(&value[1..], quote)?,
        // A # begins a comment after a blank only, as passwords may have one inside.
        _ => match value.char_indices().find(|(at, c)| {
            *c == '#' && value[..*at].chars().next_back().is_none_or(char::is_whitespace)
        }) {
            Some((at, _)) => value[..at].trim_end().to_owned(),
            None => value.to_owned(),
        },
    };
    Ok(Some((name.to_owned(), value)))
}

/// The value up to the closing quote. Between double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$`
/// are escapes; between single quotes nothing is.
fn quoted_value(text: &str, quote: char) -> Result<String, Trouble> {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next() {
            None => {
                return Err(Trouble::new(
                    format!("this line has an opening {quote} and no closing one"),
                    "close the quotes on the same line; write \\n between double quotes for a \
                     line end",
                ));
            }
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => match rest.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(c @ ('"' | '\\' | '$')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
                None => {}
            },
            Some(c) => value.push(c),
        }
    }
    let after = rest.as_str();
    if after.trim().is_empty()
        || (after.starts_with(char::is_whitespace) && after.trim_start().starts_with('#'))
    {
        Ok(value)
    } else {
        Err(Trouble::new(
            format!("this line goes on after the closing {quote}"),
            "put the whole value in quotes; a quote inside double quotes is written \\\"",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<Option<(String, String)>> {
        parse_line(text).ok()
    }

    #[test]
    fn env_lines() {
        let pair = |name: &str, value: &str| Some(Some((name.to_owned(), value.to_owned())));
        for (text, expected) in [
            ("", Some(None)),
            ("  # comment", Some(None)),
            ("A=b", pair("A", "b")),
            ("export A=b", pair("A", "b")),
            ("export\tA=b", pair("A", "b")),
            ("exportA=b", pair("exportA", "b")),
            ("A = b c  # comment", pair("A", "b c")),
            ("A=b#c", pair("A", "b#c")),
            ("A=", pair("A", "")),
            ("A=# comment", pair("A", "")),
            ("A='b # c'  # comment", pair("A", "b # c")),
            (r"A='b\n$c'", pair("A", r"b\n$c")),
            (r#"A="b\n\"c\" \\ \$d \q""#, pair("A", "b\n\"c\" \\ $d \\q")),
            ("A=b=c", pair("A", "b=c")),
            ("A=é 'b'", pair("A", "é 'b'")),
            ("A", None),
            ("=b", None),
            ("1A=b", None),
            ("A B=c", None),
            ("A='b", None),
            ("A=\"b\\\"", None),
            ("A='b'c", None),
            ("A='b'#c", None),
        ] {
            assert_eq!(line(text), expected, "{text}");
        }
    }

    #[test]
    fn references() {
        let mut variables = Variables::default();
        variables.add_environment(&BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]));
        for (text, expected) in [
            ("plain", Ok(None)),
            ("^end$", Ok(None)),
            ("a$b", Ok(None)),
            ("${A}", Ok(Some("1"))),
            ("x${A}y${B:-z}$", Ok(Some("x1yz$"))),
            ("${EMPTY}", Ok(Some(""))),
            ("${EMPTY:-d}", Ok(Some("d"))),
            ("${B:-}", Ok(Some(""))),
            ("$$", Ok(Some("$"))),
            ("$${A}", Ok(Some("${A}"))),
            ("$$$A", Ok(Some("$$A"))),
            ("${B}", Err(())),
            ("${}", Err(())),
            ("${A B}", Err(())),
            ("${A", Err(())),
        ] {
            let expanded = variables.expand(text).map_err(|_| ());
            assert_eq!(expanded, expected.map(|text| text.map(str::to_owned)), "{text}");
        }
    }
}
