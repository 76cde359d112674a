//! Sites of a file that is no configuration of this process: one of another, or a list alone.

use std::path::Path;

use super::document::{Document, TextFile, find_env_file};
use super::faults::{Fault, Faults, Origin, Trouble};
use super::keys::WEBSITES;
use super::lines::Step;
use super::variables::Variables;
use super::websites::read_entries;
use super::yaml::Node;
use super::{Sources, yaml};
use crate::site::{SiteDefaults, SiteSpec};

/// A site of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSite {
    /// What to watch; of no use with a fault.
    pub spec: SiteSpec,
    /// What the file has as its `status`, as it is written.
    pub status: Option<String>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// Reads the sites of `text`: the list under `websites:`, or the whole if it is a list. References
/// to variables are replaced as in the configuration; other sections are not looked at. `file` is
/// what faults call it.
///
/// # Errors
/// Why there is no list of sites in it.
pub fn read_sites(
    text: String,
    file: &Path,
    sources: &Sources,
    defaults: SiteDefaults,
) -> Result<Vec<FileSite>, Faults> {
    let mut faults = Faults::default();
    let mut variables = Variables::default();
    variables.add_environment(&sources.environment);
    if let Some(file) = find_env_file(sources, &mut faults) {
        variables.add_env_file(&file.path, &file.text, &mut faults);
    }
    let file = TextFile { path: file.to_owned(), text };
    let document = Document::new(&file, &variables);
    let no_list = |line, problem: &str| {
        let origin = Origin::File { file: file.path.clone(), line };
        let cure = "write sites as the configuration has them under websites:";
        Faults(vec![origin.fault("", Trouble::new(problem, cure))])
    };
    let root = yaml::parse(&file.text)
        .map_err(|syntax| no_list(syntax.line, &format!("is no good YAML: {}", syntax.problem)))?;
    let (top, nodes) = match root {
        Node::List(nodes) => (Vec::new(), nodes),
        Node::Section(entries) => {
            let list = entries.into_iter().find(|(key, _)| key == WEBSITES);
            match list {
                Some((key, Node::List(nodes))) => (vec![Step::Key(key)], nodes),
                Some((_, Node::Null)) => (Vec::new(), Vec::new()),
                Some(_) => return Err(no_list(None, "has websites: that are no list")),
                None => return Err(no_list(None, "has no websites:")),
            }
        }
        Node::Null => (Vec::new(), Vec::new()),
        _ => return Err(no_list(Some(1), "has no list of sites")),
    };
    if !faults.0.is_empty() {
        return Err(faults);
    }
    let entries = read_entries(nodes, &top, &document, defaults, &mut faults, true);
    let site = |entry: super::websites::ReadEntry| FileSite {
        faults: faults.0[entry.faults].to_vec(),
        spec: entry.spec,
        status: entry.status,
    };
    Ok(entries.into_iter().map(site).collect())
}
