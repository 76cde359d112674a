//! A wall clock for single processes that a test can step, by libfaketime. The machine's own clock
//! and every monotonic clock stay as they are.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

const CURE: &str = "no libfaketime: install it (Debian and Ubuntu: apt-get install faketime), then \
                    run ./test.sh, or scripts/services up; eval \"$(scripts/services env)\"";

/// The clock of all processes that were started with its variables.
pub struct Clock {
    directory: TempDir,
    library: PathBuf,
}

impl Clock {
    /// Right, for now.
    pub fn new() -> Self {
        let library = std::env::var_os("WEBMON_TEST_FAKETIME").filter(|path| !path.is_empty());
        let library = PathBuf::from(library.unwrap_or_else(|| panic!("{CURE}")));
        assert!(library.exists(), "{CURE} ({} is gone)", library.display());
        let directory = TempDir::with_prefix("webmon-clock-").expect("temporary directory");
        let clock = Self { directory, library };
        clock.set(0);
        clock
    }

    /// Sets it this many seconds ahead of the machine's clock, or behind when below 0. Processes
    /// see it with their next look at the clock.
    pub fn set(&self, ahead_seconds: i64) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, format!("{ahead_seconds:+}\n")).expect("the clock's file");
        // At once, so that nobody reads half of it.
        std::fs::rename(new, self.file()).expect("the clock's file");
    }

    /// What a process has to be started with.
    pub fn variables(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file())),
            // Read at every look: a cached one would be stepped some seconds later.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // Older releases of the library know the second name.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }
}
