//! Secrets that a site refers to by name, and how they stay out of what a check says.
//!
//! Invariants:
//! - A secret's file is read anew at each check: a changed one counts at once. Variables are those
//!   of the start.
//! - Only regular files inside the one directory are read, by plain names. Links are followed as
//!   long as they stay inside, as those of a mounted Kubernetes secret do.
//! - Whatever a check says is freed of the secrets it used, also where a server sent them back.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::check::{CAPTURE_MAX, Check, DETAIL_MAX, Failure, FailureKind, truncate};
use crate::site::fill_secrets;

use super::failure::words;
use super::route::Own;
use super::{Prober, Target, timings};

/// Largest secret, in bytes: a chain of certificates in PEM.
const SECRET_MAX: u64 = 32 << 10;
/// What the names of secrets' environment variables begin with.
const VARIABLE_PREFIX: &str = "WEBMON_SECRET_";
/// So many bytes of a secret in a row are hidden: a text that is cut off may show but a part.
const PART: usize = 8;
/// Shorter secrets are not hidden: each word that has them would be, which tells them too.
const HIDDEN_MIN: usize = 4;
/// Stands for what is hidden.
const MASK: &str = "***";

/// Where secrets are.
#[derive(Debug)]
pub(super) struct Secrets {
    dir: Option<PathBuf>,
    variables: BTreeMap<String, SecretString>,
}

impl Secrets {
    pub(super) fn new(dir: Option<PathBuf>, variables: BTreeMap<String, SecretString>) -> Self {
        Self { dir, variables }
    }

    /// `text` with its secrets, which are hidden from here on in what this thread's check says.
    pub(super) fn fill<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Failure<'static>> {
        self.fill_seen(text, hide)
    }

    /// The same for what no server sees and no text has: certificates and keys.
    pub(super) fn fill_pem<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, Failure<'static>> {
        self.fill_seen(text, |_| ())
    }

    fn fill_seen<'t>(
        &self,
        text: &'t str,
        saw: impl Fn(&str),
    ) -> Result<Cow<'t, str>, Failure<'static>> {
        let internal = |detail| Failure::new(FailureKind::Internal, detail);
        let read = |name: &str| {
            let secret = self
                .read(name)
                .map_err(|why| internal(format!("secret '{name}' is not there: {why}")))?;
            saw(&secret);
            Ok(secret)
        };
        fill_secrets(text, read, internal)
    }

    fn read(&self, name: &str) -> Result<String, String> {
        if let Some(dir) = &self.dir
            && let Some(secret) = from_file(dir, name)?
        {
            return Ok(secret);
        }
        let variable = variable(name);
        let found = self.variables.get(&variable).map(|secret| secret.expose_secret().to_owned());
        found.filter(|secret| !secret.is_empty()).ok_or_else(|| match self.dir {
            Some(_) => format!("no such file in the directory of secrets, and no {variable}"),
            None => format!("no directory of secrets is set, and no {variable}"),
        })
    }
}

fn variable(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.to_ascii_uppercase().replace(['-', '.'], "_"))
}

/// The secret in the file `name` of `dir`; nothing if there is no such file.
fn from_file(dir: &Path, name: &str) -> Result<Option<String>, String> {
    let unreadable = |error: io::Error| format!("its file can't be read: {}", words(&error));
    let found = dir.canonicalize().and_then(|dir| Ok((dir.join(name).canonicalize()?, dir)));
    let (path, dir) = match found {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if !path.starts_with(&dir) {
        return Err("its file is a link to outside of the directory".to_owned());
    }
    // A pipe would be waited for otherwise.
    let no_wait = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let flags = i32::try_from(no_wait.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(&path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let mut secret = String::new();
    match file.take(SECRET_MAX + 1).read_to_string(&mut secret) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err("its file is not UTF-8".to_owned());
        }
        Err(error) => return Err(unreadable(error)),
    }
    if secret.len() as u64 > SECRET_MAX {
        return Err(format!("its file has more than {} KiB", SECRET_MAX >> 10));
    }
    if secret.ends_with('\n') {
        secret.pop();
        if secret.ends_with('\r') {
            secret.pop();
        }
    }
    if secret.is_empty() {
        return Err("its file is empty".to_owned());
    }
    Ok(Some(secret))
}

impl Prober {
    /// Whether the secrets that `target` refers to are there, without a check.
    ///
    /// # Errors
    /// Which one is not, and why: as a check's failure says it.
    pub fn find_secrets(&self, target: &Target) -> Result<(), Failure<'static>> {
        let found = Own::new(target, &self.secrets).map(|_| ());
        // Nothing is said that could have them.
        timings::with(|context| context.hidden = Hidden::none());
        found
    }
}

/// Words that a check must not say.
#[derive(Default)]
pub(super) struct Hidden(Vec<String>);

impl Hidden {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} words", self.0.len())
    }
}

/// From here on nothing this thread's check says has `word`.
pub(super) fn hide(word: &str) {
    timings::with(|context| context.hidden.0.push(word.to_ascii_lowercase()));
}

/// Takes out of `check` what was hidden while it ran.
pub(super) fn clean(check: &mut Check<'static>) {
    let Hidden(words) = timings::with(|context| std::mem::take(&mut context.hidden));
    if words.is_empty() || (check.failure.is_none() && check.regex_captures.is_none()) {
        return;
    }
    let parts = Parts::of(&words);
    let captures = check.regex_captures.iter_mut().flatten().map(|text| (CAPTURE_MAX, text));
    let detail = check.failure.iter_mut().map(|failure| (DETAIL_MAX, &mut failure.detail));
    for (max, text) in detail.chain(captures) {
        if let Some(mut masked) = parts.masked(text) {
            // What replaces half a character may be longer than it.
            truncate(&mut masked, max);
            *text = Cow::Owned(masked);
        }
    }
}

/// The parts of words by their length.
struct Parts<'w>(BTreeMap<usize, HashSet<&'w [u8]>>);

impl<'w> Parts<'w> {
    /// Of words in lower case.
    fn of(words: &'w [String]) -> Self {
        let mut parts: BTreeMap<usize, HashSet<&[u8]>> = BTreeMap::new();
        for word in words.iter().filter(|word| word.len() >= HIDDEN_MIN) {
            let length = word.len().min(PART);
            parts.entry(length).or_default().extend(word.as_bytes().windows(length));
        }
        Self(parts)
    }

    /// `text` without the parts, if it has any, in whatever case: URLs come back in lower case.
    fn masked(&self, text: &str) -> Option<String> {
        let lower = text.to_ascii_lowercase();
        let mut hidden = vec![false; text.len()];
        for (length, parts) in &self.0 {
            for (at, part) in lower.as_bytes().windows(*length).enumerate() {
                if parts.contains(part) {
                    hidden[at..at + length].fill(true);
                }
            }
        }
        if !hidden.contains(&true) {
            return None;
        }
        let mut masked = Vec::with_capacity(text.len());
        for (at, byte) in text.bytes().enumerate() {
            if !hidden[at] {
                masked.push(byte);
            } else if at == 0 || !hidden[at - 1] {
                masked.extend_from_slice(MASK.as_bytes());
            }
        }
        // A part may end inside a character.
        Some(String::from_utf8_lossy(&masked).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(words: &[&str], text: &str) -> Option<String> {
        let words: Vec<String> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
        Parts::of(&words).masked(text)
    }

    #[test]
    fn whole_words_and_long_parts_are_hidden() {
        let words = ["hunter22", "Correct-Horse-Battery", "abc"];
        assert_eq!(masked(&words, "nothing of it, abc").as_deref(), None);
        assert_eq!(masked(&words, "a hunter22!").as_deref(), Some("a ***!"));
        assert_eq!(masked(&words, "HUNTER22hunter22").as_deref(), Some("***"));
        assert_eq!(masked(&words, "cut: correct-ho").as_deref(), Some("cut: ***"));
        assert_eq!(masked(&words, "correct").as_deref(), None);
        assert_eq!(masked(&["pässwörd"], "is pässwörd so").as_deref(), Some("is *** so"));
    }

    #[test]
    fn only_regular_files_of_the_directory_are_read() {
        use std::os::unix::fs::symlink;

        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("secrets");
        std::fs::create_dir_all(dir.join("..2026/sub")).unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
        write("plain", b"one\n");
        write("crlf", b"two\r\n");
        write("lines", b"a\nb\n\n");
        write("empty", b"\n");
        write("large", &[b'x'; 32 << 10]);
        write("larger", &[b'x'; (32 << 10) + 1]);
        write("binary", b"\xff\xfe");
        write("..2026/mounted", b"three");
        std::fs::write(root.path().join("outside"), "four").unwrap();
        symlink("..2026", dir.join("..data")).unwrap();
        symlink("..data/mounted", dir.join("mounted")).unwrap();
        symlink("../outside", dir.join("outside")).unwrap();
        symlink("/etc/hostname", dir.join("absolute")).unwrap();
        symlink("nowhere", dir.join("dangling")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let read = |name: &str| from_file(&dir, name);
        let text = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(read("plain"), text("one"));
        assert_eq!(read("crlf"), text("two"));
        assert_eq!(read("lines"), text("a\nb\n"));
        assert_eq!(read("mounted"), text("three"));
        assert_eq!(read("large").unwrap().unwrap().len(), 32 << 10);
        assert_eq!((read("missing"), read("dangling")), (Ok(None), Ok(None)));
        for (name, why) in [
            ("outside", "link to outside"),
            ("absolute", "link to outside"),
            ("pipe", "no regular file"),
            ("..2026", "no regular file"),
            ("empty", "empty"),
            ("larger", "more than 32 KiB"),
            ("binary", "not UTF-8"),
        ] {
            let found = read(name).unwrap_err();
            assert!(found.contains(why), "{name}: {found}");
        }
    }

    #[test]
    fn variables_stand_in_for_files() {
        let secret = |text: &str| SecretString::from(text.to_owned());
        let variables = [("WEBMON_SECRET_A_B_C", "v"), ("WEBMON_SECRET_NONE", "")]
            .map(|(name, value)| (name.to_owned(), secret(value)));
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(dir.path().to_owned()), variables.into());
        assert_eq!(secrets.read("a-b.c").unwrap(), "v");
        assert!(secrets.read("none").unwrap_err().contains("no WEBMON_SECRET_NONE"));
        std::fs::write(dir.path().join("a-b.c"), "file").unwrap();
        assert_eq!(secrets.read("a-b.c").unwrap(), "file");
    }
}
