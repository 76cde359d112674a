//! The settings that few sites have: one table of names and kinds.
//!
//! Configuration, table, messages and API all read and write them through this table, so that a
//! setting is added here and, with its meaning, in [`super::more`].

/// What a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number in this range.
    Whole(u32, u32),
    /// Seconds, with a fraction of down to a millisecond, in this range of milliseconds.
    Seconds(u32, u32),
    /// Yes or no.
    Flag,
    /// Names with texts.
    Map,
}

impl SettingKind {
    /// What a value must be.
    #[must_use]
    pub fn wanted(self) -> String {
        let seconds = |millis: u32| f64::from(millis) / 1000.0;
        match self {
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Seconds(min, max) => {
                format!("seconds from {} to {}", seconds(min), seconds(max))
            }
            Self::Flag => "true or false".to_owned(),
            Self::Map => "names with texts".to_owned(),
        }
    }
}

/// A setting of a site.
#[derive(Debug)]
pub struct Setting {
    /// The key, as in the configuration.
    pub name: &'static str,
    /// What it holds.
    pub kind: SettingKind,
    /// What it means, on one line.
    pub doc: &'static str,
}

const fn row(name: &'static str, kind: SettingKind, doc: &'static str) -> Setting {
    Setting { name, kind, doc }
}

use SettingKind::{Choice, Flag, Map, Seconds, Secret, Text, Whole};

/// All settings, in the order they are shown.
pub static SETTINGS: [Setting; 21] = [
    row("username", Text, "user for basic access"),
    row("password", Secret, "password for basic access; {secret:NAME} takes it from a file"),
    row("bearer_token", Secret, "token for bearer access; {secret:NAME} takes it from a file"),
    row("forbidden_regex", Text, "pattern that must not be found in the body"),
    row("expected_headers", Map, "headers of the answer and a pattern each of them must match"),
    row("forbidden_headers", Map, "headers of the answer and a pattern none of them may match"),
    row("max_response_time", Seconds(1, 86_400_000), "seconds after which an answer is too late"),
    row("min_certificate_days", Whole(1, 3650), "days the certificates must be good for"),
    row("follow_redirects", Choice(&["all", "secure", "same_host", "none"]), "which are followed"),
    row("max_redirects", Whole(0, 30), "redirects that are followed"),
    row("tls_verify", Flag, "whether the certificate must be good"),
    row("tls_ca", Text, "roots to trust instead of the usual ones, PEM or {secret:NAME}"),
    row("tls_certificate", Text, "the client's certificate, PEM or {secret:NAME}"),
    row("tls_key", Secret, "its key, PEM or {secret:NAME}"),
    row("server_name", Text, "the name asked for and verified in TLS, if not the URL's host"),
    row(
        "ip_version",
        Choice(&["any", "ipv4", "ipv6", "prefer_ipv4", "prefer_ipv6"]),
        "addresses that are dialled",
    ),
    row(
        "addresses",
        Choice(&["any", "public"]),
        "public: no private or otherwise special address is dialled, whatever the configuration allows",
    ),
    row("proxy", Secret, "HTTP proxy, such as http://proxy.example:3128"),
    row("connection", Choice(&["fresh", "kept"]), "kept: one connection for many checks"),
    row("retries", Whole(0, 5), "tries after a first one that failed"),
    row("retry_pause", Seconds(0, 60_000), "seconds before each of them"),
];

/// The setting of that name.
#[must_use]
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// Reads a value as people write it in one line: `2`, `0.5`, `true`, a text as it is, and one
    /// entry of a map as `Name: text`.
    ///
    /// # Errors
    /// What it must be, on one line.
    pub fn parse(&self, text: &str) -> Result<SettingValue, String> {
        let word = text.trim();
        let value = match self.kind {
            Text | Secret => Some(SettingValue::Text(text.to_owned())),
            Choice(_) => Some(SettingValue::Text(word.to_ascii_lowercase())),
            Whole(..) => word.parse().ok().map(SettingValue::Whole),
            Seconds(..) => word.parse().ok().and_then(SettingValue::from_seconds),
            Flag => match word.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(SettingValue::Flag(true)),
                "false" | "no" | "off" | "0" => Some(SettingValue::Flag(false)),
                _ => None,
            },
            Map => text.split_once(':').map(|(name, text)| {
                SettingValue::Map(vec![(name.trim().to_owned(), text.trim().to_owned())])
            }),
        };
        let value = value.ok_or_else(|| match self.kind {
            Map => "must be 'Name: text'".to_owned(),
            kind => format!("must be {}", kind.wanted()),
        })?;
        check(self.kind, &value).map(|()| value)
    }
}

/// The value of a setting.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SettingValue {
    /// For text, secrets and choices.
    Text(String),
    /// For whole numbers.
    Whole(u32),
    /// For seconds, in milliseconds.
    Millis(u32),
    /// For flags.
    Flag(bool),
    /// For maps.
    Map(Vec<(String, String)>),
}

impl SettingValue {
    /// Seconds, if they are whole milliseconds.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let millis = (seconds * 1000.0).round();
        // A millionth of a millisecond is what binary fractions may be off.
        let is_whole = (seconds * 1000.0 - millis).abs() < 1e-6;
        // The range was looked at, so nothing is cut off.
        let fits = (0.0..=f64::from(u32::MAX)).contains(&millis);
        (is_whole && fits).then_some(Self::Millis(millis as u32))
    }
}

impl std::fmt::Debug for SettingValue {
    // Texts may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("text"),
            Self::Map(map) => write!(f, "{} entries", map.len()),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Millis(number) => write!(f, "{number} ms"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// The settings of one site, in the table's order, and what was meant as one and is none: the
/// site with it does not build, and says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    values: Vec<(&'static str, SettingValue)>,
    /// Names and problems. Hardly any site has one.
    faults: Box<[(String, String)]>,
}

impl Settings {
    /// Sets `name`, over an earlier value. Entries of a map are kept by name.
    ///
    /// # Errors
    /// That there is no such setting, or what it must be, on one line.
    pub fn set(&mut self, name: &str, mut value: SettingValue) -> Result<(), String> {
        let place = |name: &str| SETTINGS.iter().position(|setting| setting.name == name);
        let Some(setting) = setting(name) else {
            return Err(format!("'{name}' is no setting of a site"));
        };
        check(setting.kind, &value)?;
        // The table of sites keeps no order either, and equal settings are to be equal.
        if let SettingValue::Map(map) = &mut value {
            map.sort();
        }
        match self.values.binary_search_by_key(&place(name), |(other, _)| place(other)) {
            Ok(at) => self.values[at].1 = value,
            Err(at) => self.values.insert(at, (setting.name, value)),
        }
        Ok(())
    }

    /// Leaves `name` open again.
    pub fn unset(&mut self, name: &str) {
        self.values.retain(|(other, _)| *other != name);
    }

    /// Notes that `name` is no setting, or has a value that it can't have; `problem` goes on
    /// after the name, and has no secret.
    pub fn note_fault(&mut self, name: &str, problem: impl Into<String>) {
        let mut faults = std::mem::take(&mut self.faults).into_vec();
        faults.push((name.to_owned(), problem.into()));
        self.faults = faults.into();
    }

    /// Names and problems that were noted.
    #[must_use]
    pub fn faults(&self) -> &[(String, String)] {
        &self.faults
    }

    /// The value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&SettingValue> {
        self.values.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All that are set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &SettingValue)> {
        self.values.iter().map(|(name, value)| (*name, value))
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            SettingValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        match self.get(name)? {
            SettingValue::Whole(number) | SettingValue::Millis(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            SettingValue::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(super) fn map(&self, name: &str) -> &[(String, String)] {
        match self.get(name) {
            Some(SettingValue::Map(map)) => map,
            _ => &[],
        }
    }
}

fn check(kind: SettingKind, value: &SettingValue) -> Result<(), String> {
    let fits = match (kind, value) {
        (Text | Secret, SettingValue::Text(_))
        | (Flag, SettingValue::Flag(_))
        | (Map, SettingValue::Map(_)) => true,
        (Choice(words), SettingValue::Text(word)) => words.contains(&word.as_str()),
        (Whole(min, max), SettingValue::Whole(number))
        | (Seconds(min, max), SettingValue::Millis(number)) => (min..=max).contains(number),
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("must be {}", kind.wanted())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_values_are_checked() {
        for (index, one) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != one.name), "{}", one.name);
        }
        let mut settings = Settings::default();
        assert!(settings.set("colour", SettingValue::Flag(true)).unwrap_err().contains("colour"));
        assert!(settings.set("retries", SettingValue::Whole(6)).unwrap_err().contains("0 to 5"));
        assert!(settings.set("connection", SettingValue::Text("old".to_owned())).is_err());
        settings.set("retries", SettingValue::Whole(2)).unwrap();
        settings.set("username", SettingValue::Text("u".to_owned())).unwrap();
        settings.set("retries", SettingValue::Whole(3)).unwrap();
        let names: Vec<&str> = settings.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["username", "retries"]);
        assert_eq!(settings.number("retries"), Some(3));
    }

    #[test]
    fn lines_are_read_by_kind() {
        for (name, text, expect) in [
            ("retries", " 2", Ok(SettingValue::Whole(2))),
            ("retries", "2.0", Err("must be a whole number from 0 to 5")),
            ("retry_pause", "0.25", Ok(SettingValue::Millis(250))),
            ("retry_pause", "0.0005", Err("must be seconds from 0 to 60")),
            ("retry_pause", "-1", Err("must be seconds from 0 to 60")),
            ("max_response_time", "0", Err("must be seconds from 0.001 to 86400")),
            ("max_response_time", "86400", Ok(SettingValue::Millis(86_400_000))),
            ("max_response_time", "NaN", Err("must be seconds from 0.001 to 86400")),
            ("tls_verify", "No", Ok(SettingValue::Flag(false))),
            ("tls_verify", "maybe", Err("must be true or false")),
            ("connection", "Kept", Ok(SettingValue::Text("kept".to_owned()))),
            ("connection", "old", Err("must be one of fresh, kept")),
            ("username", " u", Ok(SettingValue::Text(" u".to_owned()))),
            ("expected_headers", "x", Err("must be 'Name: text'")),
            (
                "expected_headers",
                "X-A: b: c",
                Ok(SettingValue::Map(vec![("X-A".to_owned(), "b: c".to_owned())])),
            ),
        ] {
            let found = setting(name).unwrap().parse(text);
            assert!(found == expect.map_err(str::to_owned), "{name} {text}: {found:?}");
        }
    }

    #[test]
    fn texts_are_not_shown() {
        let mut settings = Settings::default();
        settings.set("password", SettingValue::Text("hunter2".to_owned())).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
