//! What can go wrong with PostgreSQL, sorted by what the caller has to do about it.

use postgres::error::{DbError, SqlState};

use crate::runtime::CallError;

/// What a caller does about a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The database is away, frozen, full or overloaded: keep the work, back off, try again.
    Outage,
    /// A deadlock or a serialization failure: the same again at once is likely to work.
    Again,
    /// The data does not fit: the same again fails the same way.
    Data,
    /// Wrong password, missing rights, table or file: a person is needed, so stay up, be unready
    /// and try again slowly.
    Configuration,
    /// The schema is not the one this program was made for; the message says what to do.
    Migration,
}

/// A failed operation of the store. The message is one line, names the server and the cause, and
/// never the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    kind: ErrorKind,
    message: String,
}

impl StoreError {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.contains(char::is_control) {
            message = message.replace(char::is_control, " ");
        }
        Self { kind, message }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether waiting may heal it and no data is at fault.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.kind == ErrorKind::Outage
    }

    /// Whether the server asked for a password, and none is configured.
    #[must_use]
    pub fn wants_password(&self) -> bool {
        // The client library's words: it tells this case by text only.
        self.kind == ErrorKind::Configuration && self.message.ends_with("password missing")
    }

    /// Whether what is missing is made by a migration: tables, columns, or a newer version.
    #[must_use]
    pub fn wants_migration(&self) -> bool {
        let lacks = |code| self.message.contains(code);
        self.kind == ErrorKind::Migration
            || self.kind == ErrorKind::Configuration && (lacks("(42P01)") || lacks("(42703)"))
    }

    /// Whether the server has no database of the configured name.
    #[must_use]
    pub fn lacks_database(&self) -> bool {
        self.kind == ErrorKind::Configuration && self.message.contains("(3D000)")
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

/// Why work on a connection has no result, before it is told to a caller.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database, or the way to it.
    Database(postgres::Error),
    /// No answer in time, or too many calls without one.
    Call(CallError),
    /// Already in words.
    Said(ErrorKind, String),
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Failure {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Database(error) => classify(error),
            Self::Call(_) => ErrorKind::Outage,
            Self::Said(kind, _) => *kind,
        }
    }

    /// The SQLSTATE, when the server gave one.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Database(error) => error.code(),
            _ => None,
        }
    }

    /// What the server said.
    pub(super) fn db_error(&self) -> Option<&DbError> {
        match self {
            Self::Database(error) => error.as_db_error(),
            _ => None,
        }
    }

    /// The cause on one line, without the server's name.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Database(error) => describe(error),
            Self::Call(error) => error.to_string(),
            Self::Said(_, cause) => cause.clone(),
        }
    }
}

/// Sorts an error by its SQLSTATE, or by where the client failed when there is none.
///
/// What is unknown counts as an outage: a batch that is kept and tried again loses nothing, a
/// batch thrown away does.
fn classify(error: &postgres::Error) -> ErrorKind {
    error.code().map_or_else(|| classify_client(error), |code| classify_code(code.code()))
}

fn classify_code(code: &str) -> ErrorKind {
    match (code, code.get(..2).unwrap_or_default()) {
        // 23505 outside the insert of checks: another process was first, the next look sees it.
        ("40P01" | "40001" | "23505", _) => ErrorKind::Again,
        // A malformed binary COPY: this program's fault, not the data's.
        ("22P04", _) => ErrorKind::Configuration,
        ("23502" | "23514", _) | (_, "22") => ErrorKind::Data,
        // 28: refused at the door. 3D, 3F: no such database or schema. 42: no such table or
        // column, or no right to it. 0A: a server too old, or without an extension.
        (_, "28" | "3D" | "3F" | "42" | "0A") => ErrorKind::Configuration,
        // Among them 08 (connection), 25006 (standby), 25P03, 53 (resources), 55P03 (lock
        // timeout), 57014 and 57P01 to 57P03 (timeout, shutdown), 58 and XX (disk, internal).
        _ => ErrorKind::Outage,
    }
}

/// Errors of the client itself carry no code. A certificate that isn't good, a missing password
/// and a server without TLS need a person; everything else is the network.
fn classify_client(error: &postgres::Error) -> ErrorKind {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        let io = this.downcast_ref::<std::io::Error>();
        let inner = io.and_then(|io| io.get_ref()).and_then(|e| e.downcast_ref::<rustls::Error>());
        if inner.or_else(|| this.downcast_ref::<rustls::Error>()).is_some() {
            return ErrorKind::Configuration;
        }
        if io.is_some() {
            return ErrorKind::Outage;
        }
        cause = this.source();
    }
    // The client library tells these apart by text only.
    let text = error.to_string();
    let settings = ["error performing TLS", "authentication error", "invalid configuration"];
    if settings.iter().any(|start| text.starts_with(start)) {
        ErrorKind::Configuration
    } else {
        ErrorKind::Outage
    }
}

/// The chain of causes on one line; for the server's own errors its message and SQLSTATE.
fn describe(error: &postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let cure = match db.code().code() {
            "42P01" => "; run 'webmon migrate'",
            _ => "",
        };
        return format!("{} ({}){cure}", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(this) = cause {
        let more = this.to_string();
        // An I/O error repeats the error that it wraps.
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = this.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do() {
        let check = |expect: ErrorKind, codes: &str| {
            for code in codes.split(' ') {
                assert_eq!(classify_code(code), expect, "{code}");
            }
        };
        check(
            ErrorKind::Outage,
            "08006 57P01 57P02 57P03 25006 53300 53100 53200 25P03 57014 55P03 58030 XX000 P0001",
        );
        check(ErrorKind::Again, "40P01 40001 23505");
        check(ErrorKind::Data, "22021 22003 22008 23502 23514");
        check(ErrorKind::Configuration, "28P01 28000 3D000 42P01 42501 42703 22P04 0A000");
    }

    #[test]
    fn messages_are_one_line() {
        let error = StoreError::new(ErrorKind::Data, "a\nb");
        assert_eq!(error.to_string(), "a b");
        assert!(!error.is_outage());
    }
}
