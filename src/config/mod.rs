//! File, env file, environment and flags become typed [`Settings`], or the full list of faults.
//!
//! Invariants:
//! - Sources, highest first: flags, environment, env file, file, defaults. One table of keys
//!   ([`keys()`]) says what each may hold; nothing else knows names, ranges or defaults.
//! - [`load`] looks at everything before it gives up: all faults come at once, also those of
//!   values that a higher source overrides.
//! - No secret is printed: not by `Debug`, not by [`show`], not in a fault.
//! - The process's environment and directory come in through [`Sources`]; only
//!   [`Sources::from_process`] reads them.

mod access;
mod build;
mod document;
mod faults;
mod keys;
mod lines;
mod resolve;
mod secrets;
mod settings;
mod show;
mod site_file;
mod site_settings;
mod values;
mod variables;
mod websites;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub(crate) use faults::nearest;
pub use faults::{Fault, Faults, Origin};
pub use keys::{Key, REGION_MAX, keys, token_name};
pub use settings::{
    Api, ApiToken, Compression, Consumer, Database, DatabaseSsl, Kafka, KafkaSsl, Log, LogFormat,
    Monitoring, Producer, Sasl, SaslMechanism, Settings, Sink, SpoolSettings, SslMode, Storage,
};
pub use show::show;
pub use site_file::{FileSite, read_sites};

use document::Document;
use resolve::Candidates;
use variables::Variables;
use websites::Website;

/// Where settings may come from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file of `--config`.
    pub file: Option<PathBuf>,
    /// The file of `--env-file`.
    pub env_file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Flags, each as dotted key and value; of one key the last counts.
    pub flags: Vec<(String, String)>,
    /// The working directory: relative paths begin here, in the settings too.
    pub cwd: PathBuf,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<&str> = self.flags.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("env_file", &self.env_file)
            .field("environment", &self.environment.keys())
            .field("flags", &flags)
            .field("cwd", &self.cwd)
            .finish()
    }
}

impl Sources {
    /// This process's environment and directory, with what the command line gave.
    #[must_use]
    pub fn from_process(
        config_flag: Option<PathBuf>,
        env_file_flag: Option<PathBuf>,
        flags: Vec<(String, String)>,
    ) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect();
        Self {
            file: config_flag,
            env_file: env_file_flag,
            environment,
            flags,
            // A directory that is gone: paths stay relative, and fail where they are used.
            cwd: std::env::current_dir().unwrap_or_default(),
        }
    }
}

/// One key as it ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The dotted key.
    pub key: &'static str,
    /// Its value as YAML on one line, masked if it is a secret; absent when unset.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

/// Settings, and where they came from.
#[derive(Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Each key of the table, in its order.
    pub origins: Vec<Setting>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    websites: Vec<Website>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("settings", &self.settings)
            .field("origins", &self.origins)
            .field("file", &self.file)
            .finish()
    }
}

/// Reads all sources.
///
/// # Errors
/// Every fault, in the order of files and lines.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let mut faults = Faults::default();
    let mut variables = Variables::default();
    variables.add_environment(&sources.environment);
    if let Some(file) = document::find_env_file(sources, &mut faults) {
        variables.add_env_file(&file.path, &file.text, &mut faults);
    }
    variables.check_names(&mut faults);

    let file = document::find_file(sources, &variables, &mut faults);
    let document = file.as_ref().map(|file| Document::new(file, &variables));
    let mut candidates = Candidates::default();
    let nodes = match &document {
        Some(document) => document.read(&mut candidates, &mut faults),
        None => Vec::new(),
    };
    candidates.add_variables(&variables, &mut faults);
    candidates.add_flags(sources, &mut faults);
    candidates.add_defaults(&mut faults);

    let mut resolved = candidates.decide(&mut faults);
    build::complete(&mut resolved, sources, &mut faults);
    let mut settings = build::settings(&resolved, sources, &mut faults);
    let websites = match &document {
        Some(document) => {
            websites::read(nodes, document, settings.monitoring.defaults(), &mut faults)
        }
        None => Vec::new(),
    };
    if !faults.0.is_empty() {
        faults.sort();
        return Err(faults);
    }
    settings.secret_variables = variables.site_secrets();
    settings.websites = websites.iter().map(|website| website.spec.clone()).collect();
    let origins = keys()
        .iter()
        .map(|key| Setting {
            key: key.path,
            value: resolved.value(key.path).map(|value| value.shown(key)),
            origin: resolved.origin(key.path),
        })
        .collect();
    Ok(Loaded { settings, origins, file: file.map(|file| file.path), websites })
}
