//! What can go wrong with the file, sorted by what has to be done about it.

use std::io::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::backend::Unreadable;
use redb::{CommitError, CursorError, DatabaseError, StorageError, TableError, TransactionError};

/// A failed operation on the file.
#[derive(Debug)]
pub(super) enum Fault {
    /// The operating system said no. The file is opened again and the work repeated.
    Io(ErrorKind, String),
    /// What is in the file makes no sense. Opening it again checks and repairs it, or sets it
    /// aside.
    Damaged(String),
    /// The disk could not read a place. Opening it again tells whether that lasts: then it is
    /// damage, and the rest of the file may be fine.
    Unreadable(String),
    /// What is whole in a damaged file could not be taken over into a new one.
    Salvage(Box<Fault>),
    /// There is no open file now.
    NotOpen,
    /// Somebody else holds the file.
    InUse,
    /// A version of the layout that isn't ours.
    Format(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(_, cause)
            | Self::Damaged(cause)
            | Self::Unreadable(cause)
            | Self::Format(cause) => f.write_str(cause),
            Self::Salvage(cause) => write!(f, "salvaging a damaged file: {cause}"),
            Self::NotOpen => f.write_str("the file is not open"),
            Self::InUse => f.write_str("the file is in use by another process"),
        }
    }
}

impl Fault {
    /// An operating system's error with what was tried.
    pub(super) fn io(tried: &str, error: &Error) -> Self {
        Self::Io(error.kind(), format!("{tried}: {error}"))
    }

    /// Whether somebody has to put it right: the wrong directory, or not ours to write. All else,
    /// such as a full disk, may pass by itself.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Io(kind, _) => matches!(
                kind,
                ErrorKind::PermissionDenied
                    | ErrorKind::ReadOnlyFilesystem
                    | ErrorKind::NotFound
                    | ErrorKind::NotADirectory
                    | ErrorKind::IsADirectory
            ),
            Self::InUse | Self::Format(_) => true,
            Self::Salvage(cause) => cause.is_lasting(),
            Self::Damaged(_) | Self::Unreadable(_) | Self::NotOpen => false,
        }
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error)
                if error.get_ref().is_some_and(|cause| cause.is::<Unreadable>()) =>
            {
                Self::Unreadable(error.to_string())
            }
            // A file shorter than its own header says is damage, not a failing disk.
            StorageError::Io(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) =>
            {
                Self::Damaged(error.to_string())
            }
            StorageError::Io(error) => Self::Io(error.kind(), error.to_string()),
            StorageError::Corrupted(cause) => Self::Damaged(cause),
            error @ StorageError::LockPoisoned(_) => Self::Damaged(error.to_string()),
            error => Self::Io(ErrorKind::Other, error.to_string()),
        }
    }
}

impl From<DatabaseError> for Fault {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

impl From<CursorError> for Fault {
    fn from(error: CursorError) -> Self {
        match error {
            CursorError::Storage(error) => error.into(),
            error => Self::Damaged(error.to_string()),
        }
    }
}

/// Runs `work` on the file. A damaged page can make redb panic: that is damage, not the end of
/// the daemon.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let cause = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Fault::Damaged(format!("panic while reading it: {}", cause.replace('\n', " "))))
    })
}
