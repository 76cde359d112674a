//! Passwords from files and from commands.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret, SecretString};

use super::Sources;
use super::faults::{Faults, Trouble};
use super::resolve::Resolved;
use crate::runtime::{BoundedCall, CallError};

/// How long a command may take: a vault over the network answers in one or two seconds; a start
/// that hangs for longer is taken for one that waits for somebody to type.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
/// Longest secret that a file or command may give, in bytes.
const SECRET_MAX: u64 = 64 * 1024;

/// The secret under `path`: itself, from its file or from its command, whichever was decided for.
pub(crate) fn find(
    path: &str,
    resolved: &Resolved,
    sources: &Sources,
    faults: &mut Faults,
) -> Option<SecretString> {
    if let Some(secret) = resolved.secret(path) {
        return Some(secret.clone());
    }
    let (by_file, by_command) = (format!("{path}_file"), format!("{path}_command"));
    let (key, found) = if let Some(file) = resolved.path(sources, &by_file) {
        let shown = resolved.owned(&by_file);
        (by_file, from_file(&file).map_err(|trouble| trouble.of(shown)))
    } else if let Some(command) = resolved.secret(&by_command) {
        (by_command, from_command(command.expose_secret(), sources, COMMAND_LIMIT))
    } else {
        return None;
    };
    found.map_err(|trouble| faults.add(&resolved.origin(&key), &key, trouble)).ok()
}

/// The file's content without the line end that editors put there.
pub(crate) fn from_file(file: &Path) -> Result<SecretString, Trouble> {
    let unreadable = |error: std::io::Error| {
        Trouble::new(
            format!("can't be read: {error}"),
            "name a file that holds the password and that this user may read",
        )
    };
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(SECRET_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    let cure = "put the password into it, as one line of UTF-8";
    let text = as_text(bytes).map_err(|problem| Trouble::new(problem, cure))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Trouble::new("is empty", cure));
    }
    Ok(SecretString::from(secret.to_owned()))
}

fn as_text(bytes: Vec<u8>) -> Result<String, &'static str> {
    if bytes.len() as u64 > SECRET_MAX {
        return Err("has more than 64 KiB");
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => Err("has a zero byte"),
        Ok(text) => Ok(text),
        Err(_) => Err("is not UTF-8 text"),
    }
}

/// What the command prints, trimmed. Its own error messages go to our stderr as they are: nobody
/// knows what they contain. It runs in a process group of its own, so that a late one can be
/// ended with all its children, who may hold its stdout.
fn from_command(
    command: &str,
    sources: &Sources,
    limit: Duration,
) -> Result<SecretString, Trouble> {
    let trouble = |problem: String| {
        Trouble::new(problem, "run it by hand with /bin/sh -c: it must print the password, exit 0")
    };
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .env_clear()
        .envs(&sources.environment)
        .current_dir(&sources.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| trouble(format!("can't be started: {error}")))?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let answer = BoundedCall::start("password-command", move || child)
        .and_then(|mut call| call.call(limit, output));
    if answer.is_err() {
        // It may have ended in between: then there is nothing to end.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    }
    let (status, bytes) = match answer {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(trouble(format!("can't be read from: {error}"))),
        Err(CallError::Late) => {
            return Err(trouble(format!("did not end within {} s", limit.as_secs_f32())));
        }
        Err(error) => return Err(trouble(format!("can't be waited for: {error}"))),
    };
    // First the size: a command that prints more is ended by the closed pipe.
    if status.success() || bytes.len() as u64 > SECRET_MAX {
        let text = as_text(bytes).map_err(|problem| trouble(format!("prints what {problem}")))?;
        return match text.trim() {
            "" => Err(trouble("printed nothing".to_owned())),
            secret => Ok(SecretString::from(secret.to_owned())),
        };
    }
    Err(trouble(format!("failed with {status}")))
}

fn output(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut bytes = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(SECRET_MAX + 1).read_to_end(&mut bytes)?;
    }
    Ok((child.wait()?, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::now;

    fn run(command: &str, limit: Duration) -> Result<String, Trouble> {
        let sources = Sources { cwd: "/".into(), ..Sources::default() };
        from_command(command, &sources, limit).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn a_command_gives_its_trimmed_output() {
        assert_eq!(run("echo ' secret '", COMMAND_LIMIT).unwrap(), "secret");
        let problem = |command| format!("{:?}", run(command, COMMAND_LIMIT).unwrap_err());
        assert!(problem("exit 3").contains("exit status: 3"));
        assert!(problem("true").contains("printed nothing"));
        assert!(problem("head -c 70000 /dev/zero").contains("64 KiB"));
        assert!(problem("printf 'a\\0b'").contains("zero byte"));
        assert!(problem("printf '\\377'").contains("UTF-8"));
    }

    #[test]
    fn a_late_command_is_ended_with_its_children() {
        let begun = now().mono;
        let trouble = run("sleep 600 | cat", Duration::from_millis(100)).unwrap_err();
        assert!(format!("{trouble:?}").contains("did not end within 0.1 s"));
        assert!(now().mono - begun < Duration::from_secs(60));
    }
}
