//! The list `websites`: each entry becomes a [`SiteSpec`], and its faults ours.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::document::{Document, dotted};
use super::faults::{Faults, Origin, Trouble, nearest, public};
use super::keys::{Key, Kind, WEBSITES};
use super::lines::Step;
use super::site_settings;
use super::values::{self, Value};
use super::yaml::Node;
use crate::site::{
    INTERVAL_MAX_S, INTERVAL_MIN_S, SETTINGS, SITE_KEYS, SiteDefaults, SiteSpec, setting,
};

/// What `regex` was called in the first version.
const OLD_REGEX: &str = "pattern";
/// Whether a site is checked; only files of sites have it, the configuration has not.
const STATUS: &str = "status";

/// The keys of a site, in the order they are shown.
fn site_keys() -> impl Iterator<Item = &'static str> {
    SITE_KEYS.into_iter().chain(SETTINGS.iter().map(|setting| setting.name))
}

/// A site of the file, and where it is.
#[derive(Clone)]
pub(crate) struct Website {
    pub(crate) spec: SiteSpec,
    pub(crate) origin: Origin,
}

/// Reads all sites; what is wrong goes to `faults`, and with any fault there are no sites.
pub(crate) fn read(
    nodes: Vec<Node>,
    document: &Document<'_>,
    defaults: SiteDefaults,
    faults: &mut Faults,
) -> Vec<Website> {
    let top = [Step::Key(WEBSITES.to_owned())];
    let entries = read_entries(nodes, &top, document, defaults, faults, false);
    if !faults.0.is_empty() {
        return Vec::new();
    }
    // Only now: looking for lines that nobody asks for must not use up those of the faults.
    let origin = |index| document.origin(&[top[0].clone(), Step::Index(index)]);
    let entries = entries.into_iter().enumerate();
    entries.map(|(index, entry)| Website { spec: entry.spec, origin: origin(index) }).collect()
}

/// An entry of a list of sites.
pub(crate) struct ReadEntry {
    pub(crate) spec: SiteSpec,
    /// What it has as `status`.
    pub(crate) status: Option<String>,
    /// Which of all faults are its own.
    pub(crate) faults: Range<usize>,
}

/// Reads the entries of the list at `top`, the faulty ones too; what is wrong goes to `faults`.
/// With `takes_status` they may have a `status`, which is text.
pub(crate) fn read_entries(
    nodes: Vec<Node>,
    top: &[Step],
    document: &Document<'_>,
    defaults: SiteDefaults,
    faults: &mut Faults,
    takes_status: bool,
) -> Vec<ReadEntry> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut read = Vec::with_capacity(nodes.len());
    let place = |index| [top, &[Step::Index(index)]].concat();
    for (index, node) in nodes.into_iter().enumerate() {
        let (path, first_fault) = (place(index), faults.0.len());
        let Node::Section(entries) = node else {
            let problem = format!("is {}, not a site", node.what());
            let trouble = Trouble::new(problem, "write '- name: ...' and 'url: ...' below it");
            faults.add(&document.origin(&path), &dotted(&path), trouble);
            let faults = first_fault..faults.0.len();
            read.push(ReadEntry { spec: SiteSpec::default(), status: None, faults });
            continue;
        };
        let mut entry = Entry {
            document,
            path,
            faults,
            faulty: Vec::new(),
            old_regex: false,
            takes_status,
            status: None,
        };
        let spec = entry.read(entries);
        entry.check(&spec, defaults);
        match names.get(&spec.name) {
            _ if spec.name.is_empty() => {}
            None => {
                names.insert(spec.name.clone(), index);
            }
            Some(first) => {
                let first = document.origin(&place(*first));
                let trouble =
                    Trouble::new(format!("is the name of another site too, at {first}"), UNIQUE);
                entry.fault("name", trouble.of(&spec.name));
            }
        }
        let status = entry.status.take();
        read.push(ReadEntry { spec, status, faults: first_fault..faults.0.len() });
    }
    read
}

const REGEX_CURE: &str = "mend the pattern; a plain . ? ( or [ has a \\ before it";
const UNIQUE: &str = "give each site a name of its own, or remove one of them";

pub(super) struct Entry<'a, 'b> {
    document: &'a Document<'b>,
    path: Vec<Step>,
    faults: &'a mut Faults,
    /// Keys with a fault already: what follows from it isn't said again.
    faulty: Vec<String>,
    /// The pattern was written as `pattern`.
    old_regex: bool,
    takes_status: bool,
    status: Option<String>,
}

impl Entry<'_, '_> {
    fn fault(&mut self, name: &str, trouble: Trouble) {
        let mut path = self.path.clone();
        path.push(Step::Key(name.to_owned()));
        let origin = match self.document.origin(&path) {
            // A key that isn't there: the site's own line.
            Origin::File { line: None, .. } => self.document.origin(&self.path),
            found => found,
        };
        self.faults.add(&origin, &dotted(&path), trouble);
        self.faulty.push(name.to_owned());
    }

    fn read(&mut self, entries: Vec<(String, Node)>) -> SiteSpec {
        let mut spec = SiteSpec::default();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (name, node) in entries {
            let occurrence = *seen.entry(name.clone()).and_modify(|n| *n += 1).or_insert(0);
            if occurrence > 0 {
                let path = [self.path.as_slice(), &[Step::Key(name.clone())]].concat();
                let origin = self.document.origin_of(&path, occurrence);
                self.faults.add(&origin, &dotted(&path), self.document.twice(&path));
            } else if self.takes_status && name == STATUS {
                match self.text(&node) {
                    Ok(status) => self.status = status,
                    Err(trouble) => self.fault(&name, trouble),
                }
            } else if let Err(trouble) = self.field(&mut spec, &name, &node) {
                self.fault(&name, trouble);
            }
        }
        self.old_regex = seen.contains_key(OLD_REGEX);
        if self.old_regex && seen.contains_key("regex") {
            self.fault(OLD_REGEX, Trouble::new("is set together with regex", "keep regex"));
        }
        for name in ["name", "url"] {
            if !seen.contains_key(name) {
                self.fault(name, Trouble::new("is missing", format!("add '{name}: ...'")));
            }
        }
        spec
    }

    fn field(&self, spec: &mut SiteSpec, name: &str, node: &Node) -> Result<(), Trouble> {
        const SECONDS: &str = "seconds";
        let (min, max) = (u64::from(INTERVAL_MIN_S), u64::from(INTERVAL_MAX_S));
        match name {
            "name" => spec.name = self.text(node)?.unwrap_or_default(),
            "url" => spec.url = self.text(node)?.unwrap_or_default(),
            "interval" => {
                spec.interval = self.number(node, Kind::Whole { min, max, unit: SECONDS })?;
            }
            "timeout" => {
                let kind = Kind::Whole { min: 1, max: max - 1, unit: SECONDS };
                spec.timeout = self.number(node, kind)?;
            }
            "regex" | OLD_REGEX => spec.regex = self.text(node)?,
            "method" => spec.method = self.text(node)?,
            "headers" => {
                spec.headers = match node {
                    Node::List(pairs) => self.header_pairs(pairs)?,
                    other => self.headers(other)?,
                };
            }
            "body" => spec.body = self.text(node).map_err(Trouble::hidden)?,
            "expected_status" => spec.expected_status = self.statuses(node)?,
            other => return self.setting(spec, other, node),
        }
        Ok(())
    }

    fn setting(&self, spec: &mut SiteSpec, name: &str, node: &Node) -> Result<(), Trouble> {
        let Some(setting) = setting(name) else {
            let cure = match nearest(name, site_keys()) {
                Some(meant) => format!("did you mean '{meant}'?"),
                None => {
                    let keys: Vec<&str> = site_keys().collect();
                    format!("remove it; a site has {}", keys.join(", "))
                }
            };
            return Err(Trouble::new("is no key of a site", cure));
        };
        match site_settings::read(self, setting.kind, node)? {
            // The kind was looked at, so this is the table's last word on the range.
            Some(value) => spec.settings.set(name, value).map_err(|p| Trouble::new(p, "mend it")),
            None => Ok(()),
        }
    }

    pub(super) fn expanded(&self, node: &Node) -> Result<Option<String>, Trouble> {
        self.document.expanded(node)
    }

    pub(super) fn text(&self, node: &Node) -> Result<Option<String>, Trouble> {
        match (self.document.expanded(node)?, node) {
            (Some(text), _) => Ok(Some(text)),
            (None, Node::Text(text)) => Ok(Some(text.clone())),
            (None, Node::Null) => Ok(None),
            (None, other) => {
                let trouble = Trouble::new(
                    format!("is {}, not text", other.what()),
                    "put it in quotes: \"...\"",
                );
                Err(other.scalar().map_or(trouble.clone(), |text| trouble.of(text)))
            }
        }
    }

    fn number(&self, node: &Node, kind: Kind) -> Result<Option<u32>, Trouble> {
        Ok(match self.value(node, kind)? {
            Some(Value::Whole(number)) => u32::try_from(number).ok(),
            _ => None,
        })
    }

    pub(super) fn value(&self, node: &Node, kind: Kind) -> Result<Option<Value>, Trouble> {
        let key = Key { path: "", default: "", doc: "", kind, old_name: None };
        match self.expanded(node)? {
            Some(text) => values::from_text(&key, &text),
            None => values::from_node(&key, node),
        }
    }

    /// Headers as a section of names and texts. Values never show: many are secrets.
    pub(super) fn headers(&self, node: &Node) -> Result<Vec<(String, String)>, Trouble> {
        let entries = match node {
            Node::Null => return Ok(Vec::new()),
            Node::Section(entries) => entries,
            other => {
                let problem = format!("is {}, not a section of headers", other.what());
                return Err(Trouble::new(problem, "write '{Name: value}', or one a line below it"));
            }
        };
        let mut headers: Vec<(String, String)> = Vec::with_capacity(entries.len());
        for (name, node) in entries {
            let value = self
                .text(node)
                .map_err(|trouble| trouble.hidden().within(&format!("the value of {name}")))?;
            let problem = match value {
                None => format!("has the header {name} without a value"),
                Some(_) if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) => {
                    format!("has the header {name} twice")
                }
                Some(value) => {
                    headers.push((name.clone(), value));
                    continue;
                }
            };
            return Err(Trouble::new(problem, "give each header once, with a value in quotes"));
        }
        Ok(headers)
    }

    /// Headers as a list of pairs, where a name occurs more than once.
    fn header_pairs(&self, pairs: &[Node]) -> Result<Vec<(String, String)>, Trouble> {
        let wrong =
            || Trouble::new("is no list of headers", "write {Name: value}, or [[Name, value], …]");
        let text = |node: &Node| self.text(node).map_err(Trouble::hidden)?.ok_or_else(wrong);
        let pair = |pair: &Node| match pair {
            Node::List(pair) => match pair.as_slice() {
                [name, value] => Ok((text(name)?, text(value)?)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        };
        pairs.iter().map(pair).collect()
    }

    /// `200`, `"200-299,301"` or `[200, "300-399"]`.
    fn statuses(&self, node: &Node) -> Result<Option<String>, Trouble> {
        match node {
            Node::Whole(code) => Ok(Some(code.to_string())),
            Node::List(nodes) => {
                let parts: Option<Vec<String>> = nodes.iter().map(Node::scalar).collect();
                match parts {
                    Some(parts) if !parts.is_empty() => Ok(Some(parts.join(","))),
                    _ => Err(Trouble::new(
                        "is no list of status codes",
                        cure_of("expected_status", ""),
                    )),
                }
            }
            other => self.text(other),
        }
    }

    /// A timeout that does not end before the next check.
    fn late(spec: &SiteSpec, defaults: SiteDefaults) -> Trouble {
        let interval = spec.interval.unwrap_or(defaults.interval);
        Trouble::new(
            format!("is not less than the site's interval, which is {interval}"),
            format!("write 1 to {}, or leave it out", interval.saturating_sub(1)),
        )
    }

    /// The faults that the site itself finds.
    fn check(&mut self, spec: &SiteSpec, defaults: SiteDefaults) {
        for fault in spec.faults(defaults) {
            let follows = |name: &String| {
                name == fault.field
                    || site_settings::follows(fault.field, name)
                    || (fault.field == "regex" && name == OLD_REGEX)
            };
            if self.faulty.iter().any(follows) {
                continue;
            }
            let trouble = match fault.field {
                "timeout" => Self::late(spec, defaults),
                // The compiler of patterns begins its messages so.
                "regex" | "forbidden_regex" => match fault.message.strip_prefix("error: ") {
                    Some(problem) => Trouble::new(format!("is no pattern: {problem}"), REGEX_CURE),
                    None => Trouble::new(fault.message, REGEX_CURE),
                },
                "expected_headers" | "forbidden_headers" => {
                    match fault.message.split_once(": error: ") {
                        Some((name, problem)) => {
                            let problem = format!("has for {name} no pattern: {problem}");
                            Trouble::new(problem, REGEX_CURE)
                        }
                        None => {
                            let cure = cure_of(fault.field, &fault.message);
                            Trouble::new(fault.message, cure)
                        }
                    }
                }
                field => {
                    let cure = cure_of(field, &fault.message);
                    Trouble::new(fault.message, cure)
                }
            };
            let shown = value_of(spec, fault.field);
            let field = match fault.field {
                "regex" if self.old_regex => OLD_REGEX,
                field => field,
            };
            self.fault(
                field,
                match shown {
                    Some(text) => trouble.of(text),
                    None => trouble,
                },
            );
        }
    }
}

/// The value of a key as a fault may show it.
fn value_of(spec: &SiteSpec, field: &str) -> Option<String> {
    match field {
        "name" if !spec.name.is_empty() => Some(spec.name.clone()),
        "url" if !spec.url.is_empty() => Some(public(&spec.url)),
        "regex" => spec.regex.clone(),
        "timeout" => spec.timeout.map(|seconds| seconds.to_string()),
        other => site_settings::value_of(&spec.settings, other),
    }
}

fn cure_of(field: &str, problem: &str) -> &'static str {
    match field {
        "name" => "give it a short name on one line",
        "url" => "write it out, such as https://example.org/",
        "interval" => "write whole seconds from 5 to 86400, or leave it out",
        "method" => "write one of these, or leave it out for GET",
        "headers" => "mend or remove that header",
        "body" => "make it shorter",
        "expected_status" => "write codes and ranges, such as \"200-299,301\"",
        other => site_settings::cure_of(other, problem),
    }
}
