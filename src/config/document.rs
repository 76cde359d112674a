//! The configuration file: which one, its text, and its keys as candidates.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::Sources;
use super::faults::{Faults, Origin, Trouble, nearest};
use super::keys::{self, Key, WEBSITES};
use super::lines::{Locator, Step};
use super::resolve::{Candidates, Rank};
use super::values::{self, Value};
use super::variables::{CONFIG_FILE_VARIABLE, ENV_FILE_VARIABLE, Variables};
use super::yaml::{self, Node};

/// The file that is read when none is named, if it exists.
const USUAL_FILE: &str = "config.yaml";
/// The env file that is read when none is named, if it exists.
const USUAL_ENV_FILE: &str = ".env";
/// Largest file, in bytes: room for ten thousands of sites.
const FILE_MAX: u64 = 16 << 20;

/// A file that was found, with its text.
pub(crate) struct TextFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// The configuration file, if one is named or the usual one exists.
pub(crate) fn find_file(
    sources: &Sources,
    variables: &Variables,
    faults: &mut Faults,
) -> Option<TextFile> {
    let by_variable = variables.get(CONFIG_FILE_VARIABLE);
    let (path, named_by) = match (&sources.file, by_variable) {
        (Some(path), _) => (path.clone(), Some("--config")),
        (None, Some(variable)) => (PathBuf::from(&variable.value), Some(CONFIG_FILE_VARIABLE)),
        (None, None) => (PathBuf::from(USUAL_FILE), None),
    };
    read_file(sources, path, named_by, faults)
}

/// The env file, if one is named or the usual one exists.
pub(crate) fn find_env_file(sources: &Sources, faults: &mut Faults) -> Option<TextFile> {
    let by_variable = sources.environment.get(ENV_FILE_VARIABLE).filter(|path| !path.is_empty());
    let (path, named_by) = match (&sources.env_file, by_variable) {
        (Some(path), _) => (path.clone(), Some("--env-file")),
        (None, Some(path)) => (PathBuf::from(path), Some(ENV_FILE_VARIABLE)),
        (None, None) => (PathBuf::from(USUAL_ENV_FILE), None),
    };
    read_file(sources, path, named_by, faults)
}

fn read_file(
    sources: &Sources,
    path: PathBuf,
    named_by: Option<&str>,
    faults: &mut Faults,
) -> Option<TextFile> {
    let trouble = match read_text(&sources.cwd.join(&path)) {
        Ok(text) => return Some(TextFile { path, text }),
        Err(Unreadable::Absent) if named_by.is_none() => return None,
        Err(Unreadable::Absent) => Trouble::new(
            match path.is_absolute() {
                true => "there is no such file".to_owned(),
                false => format!("there is no such file in {}", sources.cwd.display()),
            },
            "name one that exists, or leave it out",
        ),
        Err(Unreadable::Other(problem)) => {
            Trouble::new(problem, "make it a text file that this user may read")
        }
    };
    let origin = Origin::File { file: path, line: None };
    faults.add(&origin, named_by.unwrap_or_default(), trouble);
    None
}

enum Unreadable {
    Absent,
    Other(String),
}

fn read_text(path: &Path) -> Result<String, Unreadable> {
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text))
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Unreadable::Absent,
            ErrorKind::InvalidData => Unreadable::Other("it is not UTF-8 text".to_owned()),
            _ => Unreadable::Other(format!("it can't be read: {error}")),
        })?;
    if read as u64 > FILE_MAX {
        return Err(Unreadable::Other(format!("it has more than {FILE_MAX} bytes")));
    }
    Ok(text)
}

/// What the file says, on the way through its tree.
pub(crate) struct Document<'a> {
    file: &'a TextFile,
    locator: Locator<'a>,
    variables: &'a Variables,
}

impl<'a> Document<'a> {
    pub(crate) fn new(file: &'a TextFile, variables: &'a Variables) -> Self {
        Self { file, locator: Locator::new(&file.text), variables }
    }

    /// Where the value at `path` is.
    pub(crate) fn origin(&self, path: &[Step]) -> Origin {
        self.origin_of(path, 0)
    }

    /// Where the `occurrence`th (from 0) of several keys of one name is.
    pub(crate) fn origin_of(&self, path: &[Step], occurrence: usize) -> Origin {
        Origin::File { file: self.file.path.clone(), line: self.locator.line(path, occurrence) }
    }

    /// Reads the whole tree: keys become candidates, everything else a fault. Gives the list of
    /// sites back.
    pub(crate) fn read(&self, candidates: &mut Candidates, faults: &mut Faults) -> Vec<Node> {
        let root = match yaml::parse(&self.file.text) {
            Ok(root) => root,
            Err(syntax) => {
                let origin = Origin::File { file: self.file.path.clone(), line: syntax.line };
                let cure = "mend the YAML there or on the line before: blanks (no tabs) in front, \
                            'key: value', quotes and brackets closed, \
                            text that begins with a special character in quotes";
                faults.add(
                    &origin,
                    "",
                    Trouble::new(format!("is no good YAML: {}", syntax.problem), cure),
                );
                return Vec::new();
            }
        };
        let mut websites = Vec::new();
        match root {
            Node::Null => {}
            Node::Section(entries) => {
                self.section(entries, &mut Vec::new(), candidates, &mut websites, faults);
            }
            other => {
                let problem = format!("the file is {}, not sections with keys", other.what());
                let origin = Origin::File { file: self.file.path.clone(), line: Some(1) };
                faults.add(&origin, "", Trouble::new(problem, "write it as config.yaml has it"));
            }
        }
        websites
    }

    fn section(
        &self,
        entries: Vec<(String, Node)>,
        path: &mut Vec<Step>,
        candidates: &mut Candidates,
        websites: &mut Vec<Node>,
        faults: &mut Faults,
    ) {
        let parent = dotted(path);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (name, node) in entries {
            path.push(Step::Key(name.clone()));
            let place = dotted(path);
            let occurrence = *seen.entry(name.clone()).and_modify(|n| *n += 1).or_insert(0);
            if occurrence > 0 {
                faults.add(&self.origin_of(path, occurrence), &place, self.twice(path));
            } else if let Some(key) = keys::find(&place) {
                let origin = self.origin(path);
                match self.value(key, &node) {
                    Ok(None) => {}
                    Ok(value) => candidates.add(key, Rank::File, value, origin),
                    Err(trouble) => {
                        faults.add(&origin, &place, trouble);
                        candidates.add(key, Rank::File, None, origin);
                    }
                }
            } else if place == WEBSITES {
                match node {
                    Node::Null => {}
                    Node::List(sites) => *websites = sites,
                    other => {
                        let problem = format!("is {}, not a list of sites", other.what());
                        let trouble = Trouble::new(problem, "begin each site with '- name: ...'");
                        faults.add(&self.origin(path), &place, trouble);
                    }
                }
            } else if keys::is_section(&place) {
                match node {
                    Node::Null => {}
                    Node::Section(entries) => {
                        self.section(entries, path, candidates, websites, faults);
                    }
                    other => {
                        let problem = format!("is {}, not a section with keys", other.what());
                        let cure = format!("write {} below it", keys::names_in(&place).join(", "));
                        faults.add(&self.origin(path), &place, Trouble::new(problem, cure));
                    }
                }
            } else {
                faults.add(&self.origin(path), &place, unknown(&parent, &name));
            }
            path.pop();
        }
    }

    /// A key that is there for a second time.
    pub(crate) fn twice(&self, path: &[Step]) -> Trouble {
        let first = match self.locator.line(path, 0) {
            Some(line) => format!("is there twice, first on line {line}"),
            None => "is there twice".to_owned(),
        };
        Trouble::new(first, "remove one of them")
    }

    /// The text of `node` with its references replaced, if it has any.
    pub(crate) fn expanded(&self, node: &Node) -> Result<Option<String>, Trouble> {
        match node {
            Node::Text(text) => self.variables.expand(text),
            _ => Ok(None),
        }
    }

    /// The entries of a list with their references replaced, as one text that a variable would
    /// have; nothing if there are no references or other entries than text.
    fn expanded_list(&self, nodes: &[Node]) -> Result<Option<String>, Trouble> {
        let mut any = false;
        let mut entries = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Node::Text(text) = node else { return Ok(None) };
            let expanded = self.variables.expand(text)?;
            any |= expanded.is_some();
            entries.push(expanded.unwrap_or_else(|| text.clone()));
        }
        Ok(any.then(|| entries.join(",")))
    }

    fn value(&self, key: &Key, node: &Node) -> Result<Option<Value>, Trouble> {
        let expanded = match node {
            Node::List(nodes) if key.is_list() => self.expanded_list(nodes),
            other => self.expanded(other),
        };
        match expanded? {
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => values::from_text(key, &text),
            None => values::from_node(key, node),
        }
    }
}

/// `path` as faults name it, such as `websites[2].url`.
pub(crate) fn dotted(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Index(index) => format!("{text}[{index}]"),
        Step::Key(key) if text.is_empty() => key.clone(),
        Step::Key(key) => format!("{text}.{key}"),
    })
}

/// A key that is none, `name` in the section `parent`.
fn unknown(parent: &str, name: &str) -> Trouble {
    let known = keys::names_in(parent);
    let elsewhere = || {
        let all = keys::keys().iter().map(|key| key.path);
        let mut same = all.filter(|path| path.rsplit('.').next() == Some(name));
        same.next().filter(|_| same.next().is_none())
    };
    let cure = match (nearest(name, known.iter().copied()), elsewhere()) {
        (Some(meant), _) => format!("did you mean '{meant}'?"),
        (None, Some(path)) => format!("did you mean '{path}'?"),
        (None, None) if parent.is_empty() => {
            format!("remove it; the sections are {}", known.join(", "))
        }
        (None, None) => format!("remove it; {parent} has {}", known.join(", ")),
    };
    Trouble::new("is no key of webmon", cure)
}
