//! How a command ends.

use std::io::Write;
use std::process::ExitCode;

/// Every end but the good one, whose exit code is 0.
#[derive(Debug)]
pub(super) enum Exit {
    /// The thing asked about is bad, and the output has said so: 1.
    Bad,
    /// The command failed: 1.
    Failed(String),
    /// Wrong use or configuration: 2.
    Usage(String),
    /// What was asked for isn't there: 3.
    NotFound(String),
    /// A service is away: 4.
    Away(String),
}

/// The exit code, after the message is on standard error.
pub(super) fn finish(result: Result<(), Exit>) -> ExitCode {
    let (code, message) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Exit::Bad) => return ExitCode::from(1),
        Err(Exit::Failed(message)) => (1, message),
        Err(Exit::Usage(message)) => (2, message),
        Err(Exit::NotFound(message)) => (3, message),
        Err(Exit::Away(message)) => (4, message),
    };
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{}", message.trim_end());
    ExitCode::from(code)
}
