//! Which source decides about each key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::SecretString;

use super::Sources;
use super::faults::{Faults, Origin, Trouble};
use super::keys::{self, ALTERNATIVES, Key, keys};
use super::values::{self, Value, parse_network};
use super::variables::{Variable, Variables};

/// The sources, highest first. The names of earlier versions come after our own, even where one
/// is in the environment and the other in the env file: `DATABASE_HOST` may be there for another
/// program, `WEBMON_DATABASE_HOST` never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Flag,
    Environment,
    EnvFile,
    OldEnvironment,
    OldEnvFile,
    File,
    Default,
}

/// One value for a key; `None` when it was faulty, which has been said.
struct Candidate {
    value: Option<Value>,
    origin: Origin,
}

/// All values for all keys, by rank.
#[derive(Default)]
pub(crate) struct Candidates(BTreeMap<&'static str, BTreeMap<Rank, Candidate>>);

impl Candidates {
    pub(crate) fn add(
        &mut self,
        key: &'static Key,
        rank: Rank,
        value: Option<Value>,
        origin: Origin,
    ) {
        self.0.entry(key.path).or_default().insert(rank, Candidate { value, origin });
    }

    /// Reads `text` for `key`, and notes its fault.
    fn add_text(
        &mut self,
        key: &'static Key,
        rank: Rank,
        text: &str,
        origin: &Origin,
        faults: &mut Faults,
    ) {
        match values::from_text(key, text) {
            Ok(None) => {}
            Ok(value) => self.add(key, rank, value, origin.clone()),
            Err(trouble) => {
                faults.add(origin, key.path, trouble);
                self.add(key, rank, None, origin.clone());
            }
        }
    }

    pub(crate) fn add_defaults(&mut self, faults: &mut Faults) {
        for key in keys() {
            self.add_text(key, Rank::Default, key.default, &Origin::Default, faults);
        }
    }

    pub(crate) fn add_variables(&mut self, variables: &Variables, faults: &mut Faults) {
        for key in keys() {
            let ours = variables.get(&key.variable());
            if let Some(Variable { value, origin }) = ours {
                let rank = match origin {
                    Origin::EnvFile { .. } => Rank::EnvFile,
                    _ => Rank::Environment,
                };
                self.add_text(key, rank, value, origin, faults);
            }
            let old = key.old_variable().and_then(|name| variables.get(name));
            if let (None, Some(Variable { value, origin })) = (ours, old) {
                let rank = match origin {
                    Origin::EnvFile { .. } => Rank::OldEnvFile,
                    _ => Rank::OldEnvironment,
                };
                self.add_text(key, rank, value, origin, faults);
            }
        }
    }

    pub(crate) fn add_flags(&mut self, sources: &Sources, faults: &mut Faults) {
        for (path, text) in &sources.flags {
            match keys::find(path) {
                Some(key) => self.add_text(key, Rank::Flag, text, &Origin::Flag, faults),
                None => faults.add(
                    &Origin::Flag,
                    path,
                    Trouble::new("is no key of webmon", "config.yaml lists all keys"),
                ),
            }
        }
    }

    /// The highest value of each key; of alternatives only those of the highest source.
    pub(crate) fn decide(mut self, faults: &mut Faults) -> Resolved {
        let mut set_aside: BTreeMap<&str, &'static str> = BTreeMap::new();
        for group in ALTERNATIVES {
            let ranked =
                group.iter().filter_map(|path| Some((*self.0.get(path)?.keys().next()?, *path)));
            let Some((best, winner)) = ranked.clone().min_by_key(|(rank, _)| *rank) else {
                continue;
            };
            for (rank, path) in ranked.filter(|(_, path)| *path != winner) {
                if rank == best {
                    faults.add(&self.origin(path, rank), path, both(winner));
                }
            }
            set_aside.extend(group.iter().filter(|path| **path != winner).map(|p| (*p, winner)));
        }
        let resolved = keys().iter().map(|key| {
            let highest = self.0.remove(key.path).and_then(|mut all| all.pop_first());
            let entry = match (set_aside.get(key.path), highest) {
                (Some(winner), Some((rank, _))) => (None, Origin::SetAside(winner), rank),
                (_, Some((rank, candidate))) => (candidate.value, candidate.origin, rank),
                (_, None) => (None, Origin::Default, Rank::Default),
            };
            (key.path, entry)
        });
        Resolved(resolved.collect())
    }

    fn origin(&self, path: &str, rank: Rank) -> Origin {
        let candidate = self.0.get(path).and_then(|all| all.get(&rank));
        candidate.map_or(Origin::Default, |candidate| candidate.origin.clone())
    }
}

fn both(other: &str) -> Trouble {
    Trouble::new(format!("is set together with {other}"), "keep one of the two")
}

/// The value of each key with its origin; without a value: unset, or faulty.
///
/// The typed getters give the type's zero for a key without value: a faulty one, so that the rest
/// can be checked all the same; `load` hands nothing out then.
pub(crate) struct Resolved(BTreeMap<&'static str, (Option<Value>, Origin, Rank)>);

impl Resolved {
    pub(crate) fn value(&self, path: &str) -> Option<&Value> {
        self.0.get(path)?.0.as_ref()
    }

    pub(crate) fn origin(&self, path: &str) -> Origin {
        self.0.get(path).map_or(Origin::Default, |(_, origin, _)| origin.clone())
    }

    /// Gives `path` a value that follows from others, unless somebody set it.
    pub(crate) fn fill(&mut self, path: &'static str, value: Value) {
        if !self.is_set(path) {
            self.0.insert(path, (Some(value), Origin::Default, Rank::Default));
        }
    }

    /// Whether somebody set it, be it to a faulty value.
    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.rank(path) < Rank::Default && !matches!(self.origin(path), Origin::SetAside(_))
    }

    /// Whether both were set, by the same source.
    pub(crate) fn same_source(&self, one: &str, other: &str) -> bool {
        self.is_set(one) && self.rank(one) == self.rank(other)
    }

    fn rank(&self, path: &str) -> Rank {
        self.0.get(path).map_or(Rank::Default, |(_, _, rank)| *rank)
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        match self.value(path)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn owned(&self, path: &str) -> String {
        self.text(path).unwrap_or_default().to_owned()
    }

    pub(crate) fn whole(&self, path: &str) -> Option<u64> {
        match self.value(path)? {
            Value::Whole(number) => Some(*number),
            _ => None,
        }
    }

    /// A number whose range in the table is within that of `T`.
    pub(crate) fn number<T: TryFrom<u64> + Default>(&self, path: &str) -> T {
        self.whole(path).and_then(|number| T::try_from(number).ok()).unwrap_or_default()
    }

    pub(crate) fn flag(&self, path: &str) -> bool {
        matches!(self.value(path), Some(Value::Flag(true)))
    }

    pub(crate) fn list(&self, path: &str) -> &[String] {
        match self.value(path) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    pub(crate) fn networks(&self, path: &str) -> Vec<IpNet> {
        // Each was checked when it was read.
        self.list(path).iter().filter_map(|network| parse_network(network)).collect()
    }

    pub(crate) fn address(&self, path: &str) -> SocketAddr {
        match self.value(path) {
            Some(Value::Address(address)) => *address,
            _ => SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    pub(crate) fn secret(&self, path: &str) -> Option<&SecretString> {
        match self.value(path)? {
            Value::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// A path, from the working directory on.
    pub(crate) fn path(&self, sources: &Sources, path: &str) -> Option<PathBuf> {
        // Collected anew, which drops a `.` in the middle.
        self.text(path).map(|text| sources.cwd.join(text).components().collect())
    }
}
