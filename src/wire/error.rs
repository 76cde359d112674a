//! Why a message can't be taken.

use std::fmt;

/// Longest cause, in bytes: it may quote the message.
const CAUSE_MAX: usize = 200;

/// Why bytes are no message of this version. Displayed on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No UTF-8.
    NotUtf8 {
        /// How many bytes are.
        valid_up_to: usize,
    },
    /// No JSON object.
    NotJson {
        /// What the parser says.
        cause: String,
    },
    /// Another version.
    Version {
        /// The version it says it has.
        found: i64,
    },
    /// A required field is absent.
    Missing {
        /// Its path.
        field: &'static str,
    },
    /// A field is there twice: readers would differ in which one counts.
    Duplicate {
        /// Its path.
        field: &'static str,
    },
    /// A field's value has the wrong type.
    Type {
        /// Its path.
        field: &'static str,
        /// What it is and should be.
        cause: String,
    },
    /// A field's value is out of its range.
    Range {
        /// Its path.
        field: &'static str,
        /// What it should be.
        cause: String,
    },
    /// Two fields contradict each other.
    Contradiction {
        /// How.
        cause: &'static str,
    },
}

impl DecodeError {
    /// A fixed word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } => "not_json",
            Self::Version { .. } => "version",
            Self::Missing { .. } => "missing",
            Self::Duplicate { .. } => "duplicate",
            Self::Type { .. } => "type",
            Self::Range { .. } => "range",
            Self::Contradiction { .. } => "contradiction",
        }
    }

    pub(super) fn range(field: &'static str, cause: impl Into<String>) -> Self {
        Self::Range { field, cause: cause.into() }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 { valid_up_to } => write!(f, "no UTF-8 after byte {valid_up_to}"),
            Self::NotJson { cause } => write!(f, "no JSON object: {cause}"),
            Self::Version { found } => {
                write!(f, "version {found}; this program reads version {}", super::VERSION)
            }
            Self::Missing { field } => write!(f, "{field} is missing"),
            Self::Duplicate { field } => write!(f, "{field} is there twice"),
            Self::Type { field, cause } | Self::Range { field, cause } => {
                write!(f, "{field}: {cause}")
            }
            Self::Contradiction { cause } => f.write_str(cause),
        }
    }
}

impl std::error::Error for DecodeError {}

/// `error` on one short line.
pub(super) fn cause(error: &serde_json::Error) -> String {
    let mut cause = error.to_string();
    crate::check::truncate(&mut cause, CAUSE_MAX);
    if cause.contains(char::is_control) {
        cause = cause.replace(char::is_control, " ");
    }
    cause
}
