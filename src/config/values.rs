//! One value: from text (environment, flags) or from the file's tree, checked against its key.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use secrecy::SecretString;

use super::faults::{Trouble, nearest, public};
use super::keys::{Key, Kind, host};
use super::yaml::Node;

/// Longest secret, in bytes.
const SECRET_MAX: usize = 64 * 1024;
/// Longest path, in bytes: Linux's own limit.
const PATH_MAX: usize = 4096;
/// Most entries of a list.
const LIST_MAX: usize = 1000;

/// What stands for a secret wherever it would be seen.
pub(crate) const MASK: &str = "********";

/// A value that fits its key. Printing it never shows a secret.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Whole(u64),
    Flag(bool),
    List(Vec<String>),
    Address(SocketAddr),
    Secret(SecretString),
}

/// Reads `text` as the value of `key`. Empty text for a key without default means unset.
pub(crate) fn from_text(key: &Key, text: &str) -> Result<Option<Value>, Trouble> {
    if text.is_empty() && key.default.is_empty() {
        return Ok(None);
    }
    let value = match key.kind {
        Kind::Whole { .. } => match text.trim().parse::<i128>() {
            Ok(number) => in_range(key, number),
            Err(_) => Err(key.trouble("is no whole number")),
        },
        Kind::Flag => flag(text).ok_or_else(|| key.trouble("is neither true nor false")),
        Kind::Choices(_) | Kind::Servers | Kind::Networks | Kind::Entries { .. } => {
            list(key, text.split(',').map(str::trim))
        }
        _ => written(key, text),
    };
    key.hide_if_secret(value.map(Some).map_err(|trouble| trouble.of(public(text))))
}

/// Reads `node` of the file as the value of `key`; `Null` means unset.
pub(crate) fn from_node(key: &Key, node: &Node) -> Result<Option<Value>, Trouble> {
    let value = match (key.kind, node) {
        (_, Node::Null) => return Ok(None),
        (_, Node::Text(text)) if text.is_empty() && key.default.is_empty() => return Ok(None),
        (Kind::Whole { .. } | Kind::Size { .. }, Node::Whole(number)) => in_range(key, *number),
        (Kind::Whole { .. }, Node::Text(text)) if text.trim().parse::<i128>().is_ok() => {
            Err(Trouble::new("is text, not a number", "write it without quotes"))
        }
        (Kind::Flag, Node::Flag(flag)) => Ok(Value::Flag(*flag)),
        (kind, Node::List(nodes)) if kind.is_list() => list_of_nodes(key, nodes),
        (kind, Node::Text(_))
            if kind.is_list() || matches!(kind, Kind::Whole { .. } | Kind::Flag) =>
        {
            Err(key.trouble(format!("is text, not {}", kind.what())))
        }
        (_, Node::Text(text)) => written(key, text),
        (_, Node::Whole(_) | Node::Decimal(_) | Node::Flag(_)) if key.kind.is_written() => {
            Err(Trouble::new(format!("is {}, not text", node.what()), "put it in quotes: \"...\""))
        }
        _ => Err(key.trouble(format!("is {}, not {}", node.what(), key.kind.what()))),
    };
    key.hide_if_secret(value.map(Some).map_err(|trouble| match node.scalar() {
        Some(text) => trouble.of(public(&text)),
        None => trouble,
    }))
}

impl Key {
    /// A fault of its value, with a cure that says what it takes.
    fn trouble(&self, problem: impl Into<String>) -> Trouble {
        let mut cure = format!("write {}", self.kind.wanted());
        if !self.default.is_empty() {
            cure.push_str(&format!("; the default is {}", self.default));
        }
        Trouble::new(problem, cure)
    }

    fn hide_if_secret(
        &self,
        value: Result<Option<Value>, Trouble>,
    ) -> Result<Option<Value>, Trouble> {
        if self.is_secret() { value.map_err(Trouble::hidden) } else { value }
    }
}

impl Kind {
    fn what(&self) -> &'static str {
        match self {
            Self::Whole { .. } => "a whole number",
            Self::Size { .. } => "a size",
            Self::Flag => "true or false",
            Self::Choices(_) | Self::Servers | Self::Networks | Self::Entries { .. } => "a list",
            Self::Text { .. }
            | Self::Choice(_)
            | Self::Address
            | Self::Directory
            | Self::File
            | Self::SecretFile
            | Self::Secret => "text",
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        self.what() == "a list"
    }

    /// Whether it is text in the file, so that a bare number there needs quotes.
    fn is_written(&self) -> bool {
        self.what() == "text"
    }

    fn wanted(&self) -> String {
        match *self {
            Self::Whole { min, max, unit: "" } => format!("a whole number from {min} to {max}"),
            Self::Whole { min, max, unit } => {
                format!("a whole number from {min} to {max} ({unit})")
            }
            Self::Size { min, max } => {
                format!("a size from {} to {}, such as 1MiB", size(min), size(max))
            }
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Choices(words) => format!("a list of these: [{}]", words.join(", ")),
            Self::Servers => "a list of servers such as [a:9092, b:9092]".to_owned(),
            Self::Networks => "a list of networks such as [10.0.0.0/8, fd00::/8]".to_owned(),
            Self::Entries { wanted, .. } => format!("a list of {wanted}"),
            Self::Address => "an IP address and a port, such as 127.0.0.1:8080".to_owned(),
            Self::Text { wanted, .. } => wanted.to_owned(),
            Self::Directory => "the path of a directory".to_owned(),
            Self::File | Self::SecretFile => "the path of a file".to_owned(),
            Self::Secret => "one line of text".to_owned(),
        }
    }
}

impl Value {
    /// The value as one would write it in the file, secrets masked.
    pub(crate) fn shown(&self, key: &Key) -> String {
        match (self, key.kind) {
            (Self::Secret(_), _) => format!("\"{MASK}\""),
            (Self::Whole(bytes), Kind::Size { .. }) => size(*bytes),
            (Self::Whole(number), _) => number.to_string(),
            (Self::Flag(flag), _) => flag.to_string(),
            (Self::Address(address), _) => quoted(&address.to_string()),
            (Self::Text(text), _) => quoted(&super::faults::hide_credentials(text)),
            (Self::List(_), Kind::Entries { is_secret: true, .. }) => format!("[\"{MASK}\"]"),
            (Self::List(entries), _) => {
                let entries: Vec<String> = entries.iter().map(|entry| quoted(entry)).collect();
                format!("[{}]", entries.join(", "))
            }
        }
    }
}

/// `text` as YAML: bare where every reader takes it for text, else in double quotes.
pub(crate) fn quoted(text: &str) -> String {
    const SPECIAL: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(plain)
        && !SPECIAL.contains(&text.to_ascii_lowercase().as_str());
    // A JSON string is a YAML string.
    if bare { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn in_range(key: &Key, number: i128) -> Result<Value, Trouble> {
    let (min, max) = match key.kind {
        Kind::Whole { min, max, .. } | Kind::Size { min, max } => (min, max),
        _ => (0, u64::MAX),
    };
    u64::try_from(number)
        .ok()
        .filter(|number| (min..=max).contains(number))
        .map(Value::Whole)
        .ok_or_else(|| key.trouble("is out of range"))
}

/// Values that are text wherever they come from.
fn written(key: &Key, text: &str) -> Result<Value, Trouble> {
    let too_long = |max| key.trouble(format!("has {} bytes, more than {max}", text.len()));
    match key.kind {
        Kind::Text { max, .. } if text.len() > max => Err(too_long(max)),
        Kind::Text { check, .. } => match check(text) {
            Ok(()) => Ok(Value::Text(text.to_owned())),
            Err(problem) => Err(key.trouble(problem)),
        },
        Kind::Size { .. } => match parse_size(text) {
            Some(bytes) => in_range(key, bytes.into()),
            None => Err(key.trouble("is no size")),
        },
        Kind::Choice(words) => word(key, words, text).map(Value::Text),
        Kind::Address => match text.trim().parse() {
            Ok(address) => Ok(Value::Address(address)),
            Err(_) => Err(key.trouble("is no IP address with a port")),
        },
        Kind::Secret if text.len() > SECRET_MAX => Err(too_long(SECRET_MAX)),
        Kind::Secret if text.contains('\0') => Err(key.trouble("has a zero byte")),
        Kind::Secret => Ok(Value::Secret(SecretString::from(text.to_owned()))),
        Kind::File | Kind::SecretFile | Kind::Directory => match text {
            _ if text.len() > PATH_MAX => Err(too_long(PATH_MAX)),
            _ if text.contains('\0') => Err(key.trouble("has a zero byte")),
            _ if text.trim().is_empty() => Err(key.trouble("is empty")),
            _ => Ok(Value::Text(text.to_owned())),
        },
        Kind::Whole { .. }
        | Kind::Flag
        | Kind::Choices(_)
        | Kind::Servers
        | Kind::Networks
        | Kind::Entries { .. } => Err(key.trouble("is text")),
    }
}

fn list_of_nodes(key: &Key, nodes: &[Node]) -> Result<Value, Trouble> {
    let mut entries = Vec::with_capacity(nodes.len());
    for node in nodes {
        match node {
            Node::Text(text) => entries.push(text.as_str()),
            other => return Err(key.trouble(format!("has an entry that is {}", other.what()))),
        }
    }
    list(key, entries.into_iter())
}

fn list<'a>(key: &Key, entries: impl Iterator<Item = &'a str>) -> Result<Value, Trouble> {
    let mut list: Vec<String> = Vec::new();
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let entry = match key.kind {
            Kind::Choices(words) => word(key, words, entry),
            Kind::Networks => network(key, entry),
            Kind::Entries { check, .. } => match check(entry) {
                Ok(()) => Ok(entry.to_owned()),
                Err(problem) if key.is_secret() => {
                    Err(key.trouble(format!("has an entry that {problem}")))
                }
                Err(problem) => Err(key.trouble(format!("has '{entry}', which {problem}"))),
            },
            _ => server(key, entry),
        }?;
        if list.contains(&entry) {
            let entry = if key.is_secret() { MASK } else { &entry };
            return Err(key.trouble(format!("names '{entry}' twice")));
        }
        list.push(entry);
    }
    match list.len() {
        0 if !matches!(key.kind, Kind::Networks | Kind::Entries { .. }) => {
            Err(key.trouble("is an empty list"))
        }
        0..=LIST_MAX => Ok(Value::List(list)),
        more => Err(key.trouble(format!("has {more} entries, more than {LIST_MAX}"))),
    }
}

fn word(key: &Key, words: &[&str], text: &str) -> Result<String, Trouble> {
    let text = text.trim();
    match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        Some(word) => Ok((*word).to_owned()),
        None => Err(match nearest(text, words.iter().copied()) {
            Some(meant) => Trouble::new(
                format!("is none of {}", words.join(", ")),
                format!("did you mean '{meant}'?"),
            ),
            None => key.trouble("is not known"),
        }
        .of(text)),
    }
}

/// One entry of `kafka.servers`: `host` or `host:port`, an IPv6 address in brackets.
fn server(key: &Key, text: &str) -> Result<String, Trouble> {
    let trouble = |problem: &str| key.trouble(format!("has the server '{text}', which {problem}"));
    if text.contains('@') {
        return Err(key.trouble("has a server with an @, which no host has"));
    }
    host(text).map_err(trouble)?;
    match split_server(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(trouble("is not host or host:port")),
    }
}

/// One entry of a list of networks, as `10.0.0.0/8` or as one address.
fn network(key: &Key, text: &str) -> Result<String, Trouble> {
    let problem = |problem: &str| format!("has the network '{text}', which {problem}");
    match (parse_network(text), text.rsplit_once('/')) {
        (Some(net), _) if net.addr() == net.network() => Ok(text.to_owned()),
        // Whoever writes more bits than count meant one address, or another length.
        (Some(net), _) => Err(Trouble::new(
            problem("has bits set behind its length"),
            format!("write {}, or the one address", net.trunc()),
        )),
        (None, Some((address, _))) if address.parse::<IpAddr>().is_ok() => {
            Err(key.trouble(problem("has a length that is none")))
        }
        (None, _) => Err(key.trouble(problem("is neither an address nor a network"))),
    }
}

/// The network `10.0.0.0/8`, or that of the one address `10.0.0.1`.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Host and port of `host`, `host:port`, `[address]` or `[address]:port`.
pub(crate) fn split_server(text: &str) -> Option<(&str, Option<u16>)> {
    let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
    let colon = match text.strip_prefix('[') {
        Some(rest) => rest.find(']').map(|end| end + 2).filter(|end| *end < text.len()),
        None => text.find(':'),
    };
    let (host, port) = match colon {
        Some(colon) => (&text[..colon], Some(port(text[colon..].strip_prefix(':')?)?)),
        None => (text, None),
    };
    let bare = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    (!bare.is_empty()).then_some((host, port))
}

fn flag(text: &str) -> Option<Value> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(Value::Flag(true)),
        "false" | "no" | "off" | "0" => Some(Value::Flag(false)),
        _ => None,
    }
}

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Reads `1MiB`, `1 GB` or `4096`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[digits..].trim_start();
    let factor = match unit {
        "" => 1,
        _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

/// `bytes` with the largest binary unit that fits without a rest.
fn size(bytes: u64) -> String {
    let (name, factor) = UNITS[..4]
        .iter()
        .find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(&("", 1));
    format!("{}{name}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1MiB", Some(1 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("4096", Some(4096)),
            ("2kb", Some(2000)),
            ("7B", Some(7)),
            ("", None),
            ("MiB", None),
            ("1.5MiB", None),
            ("-1", None),
            ("99999999TiB", None),
            ("1 XiB", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        assert_eq!(
            (size(1 << 30), size(1536), size(1000)),
            ("1GiB".into(), "1536".into(), "1000".into())
        );
    }

    #[test]
    fn servers() {
        for (text, parts) in [
            ("a", Some(("a", None))),
            ("a:1", Some(("a", Some(1)))),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:9092", Some(("[::1]", Some(9092)))),
            ("::1", None),
            ("a:", None),
            ("a:0", None),
            ("a:70000", None),
            (":9092", None),
            ("[]:1", None),
            ("[::1", None),
            ("[::1]x", None),
        ] {
            assert_eq!(split_server(text), parts, "{text}");
        }
    }

    #[test]
    fn yaml_text_reads_back_as_the_same_text() {
        for text in
            ["plain", "a b", "true", "No", "12", "1.5", "", "a: b", "#x", "\"q\"", "é", "*", "~"]
        {
            let node = super::super::yaml::parse(&quoted(text)).ok().unwrap();
            assert!(matches!(node, Node::Text(ref read) if read == text), "{text}");
        }
    }
}
