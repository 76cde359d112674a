//! What can go wrong with the spool, as its users see it.

use std::fmt;
use std::path::PathBuf;

/// Why the spool could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolError {
    /// The directory can't be made, read or written.
    Directory {
        /// The spool's directory.
        dir: PathBuf,
        /// What was tried and what the operating system said.
        cause: String,
    },
    /// Another process works with this directory now.
    InUse {
        /// The spool's directory.
        dir: PathBuf,
    },
    /// The file was written by a version that keeps it differently.
    Format {
        /// The spool's directory.
        dir: PathBuf,
        /// What was found.
        found: String,
    },
    /// The committer's thread could not be started.
    Thread {
        /// The operating system's reason.
        cause: String,
    },
    /// The file can't be used now; the spool goes on trying by itself.
    Unavailable {
        /// The last fault.
        cause: String,
    },
    /// A state is larger than [`super::STATE_MAX`].
    StateTooLarge {
        /// Its name.
        name: String,
        /// Its size in bytes.
        bytes: usize,
    },
    /// The spool was closed.
    Closed,
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { dir, cause } => {
                write!(f, "spool directory {} can't be used: {cause}", dir.display())
            }
            Self::InUse { dir } => write!(
                f,
                "spool directory {} is in use by another process: give each producer its own",
                dir.display()
            ),
            Self::Format { dir, found } => write!(
                f,
                "spool in {} has {found}, this version reads format {}: run the version that \
                 wrote it until it is empty, or move the file away",
                dir.display(),
                super::file::FORMAT
            ),
            Self::Thread { cause } => write!(f, "spool thread can't be started: {cause}"),
            Self::Unavailable { cause } => write!(f, "spool file can't be used now: {cause}"),
            Self::StateTooLarge { name, bytes } => {
                write!(f, "state {name} of {bytes} bytes is larger than {}", super::STATE_MAX)
            }
            Self::Closed => f.write_str("spool is closed"),
        }
    }
}

impl std::error::Error for SpoolError {}
