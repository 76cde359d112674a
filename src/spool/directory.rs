//! The spool's directory: its lock, its file, and what is set aside.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::SpoolError;
use super::fault::Fault;
use super::file::{Found, OpenDatabase, SpoolFile, wall_us};
use super::salvage::{Known, Salvaged, salvage};
use crate::runtime::now;

const FILE: &str = "spool.redb";
/// A file being made; it gets its real name once it is whole.
const NEW_FILE: &str = "spool.redb.new";
/// What a damaged file is renamed to, with the time in seconds behind.
const DAMAGED_PREFIX: &str = "spool.redb.damaged-";
const LOCK_FILE: &str = "spool.lock";
/// How many damaged files stay for a person to look at; the smallest goes first, so that a disk
/// that damages one empty file after the other doesn't push out the one with results.
const DAMAGED_MAX: usize = 4;

/// The directory, held by this process until dropped.
pub(super) struct Directory {
    dir: PathBuf,
    open: OpenDatabase,
    // The lock ends with the file: it is held over every renaming of the spool's own file.
    _lock: File,
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl Directory {
    /// Makes the directory if missing (for this user only) and takes its lock.
    pub(super) fn hold(dir: &Path, open: OpenDatabase) -> Result<Self, SpoolError> {
        let fail = |tried: &str, error: &io::Error| SpoolError::Directory {
            dir: dir.to_owned(),
            cause: format!("{tried}: {error}"),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| fail("making it", &error))?;
        let lock = private_file(&dir.join(LOCK_FILE)).map_err(|e| fail("opening its lock", &e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), open, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::InUse { dir: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(fail("locking it", &error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// Opens the spool's file, or makes one. A file that is damaged beyond repair is set aside, and
    /// its whole records are taken over into a new one.
    pub(super) fn open(&self, known: Known) -> Result<(SpoolFile, Found), Fault> {
        let path = self.dir.join(FILE);
        if !path.try_exists().map_err(|error| Fault::io("looking for the file", &error))? {
            self.make(known.last)?;
            self.rename_new()?;
        }
        let mut opened = self.open_existing(&path);
        if matches!(opened, Err(Fault::Damaged(_))) {
            // A read that failed once is no damage yet.
            opened = self.open_existing(&path);
        }
        match opened {
            Err(Fault::Damaged(cause)) => {
                self.rebuild(&path, known, &cause)?;
                let (file, found) = self.open_existing(&path)?;
                Ok((file, Found { is_rebuilt: true, ..found }))
            }
            opened => opened,
        }
    }

    fn open_existing(&self, path: &Path) -> Result<(SpoolFile, Found), Fault> {
        let file = private_file(path).map_err(|error| Fault::io("opening the file", &error))?;
        let (spool, found, sound) = SpoolFile::open(&self.open, file)?;
        if !sound {
            log::error!(
                records = found.records, file:% = path.display();
                "spool file was damaged and is repaired, its last results may be lost"
            );
        }
        Ok((spool, found))
    }

    /// Makes a file under another name. It is renamed when whole, so that a crash or a full disk
    /// never leaves half a file that would look damaged.
    fn make(&self, last: u64) -> Result<SpoolFile, Fault> {
        let new = self.dir.join(NEW_FILE);
        let tried = |error: &io::Error| Fault::io("making the file", error);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(tried(&error)),
            _ => {}
        }
        let file = private_file(&new).map_err(|error| tried(&error))?;
        SpoolFile::make(&self.open, file, last)
    }

    fn rename_new(&self) -> Result<(), Fault> {
        let renamed = fs::rename(self.dir.join(NEW_FILE), self.dir.join(FILE));
        renamed.and_then(|()| self.sync()).map_err(|error| Fault::io("making the file", &error))
    }

    /// Puts a new file with what can be read of the damaged one in its place.
    fn rebuild(&self, path: &Path, known: Known, cause: &str) -> Result<(), Fault> {
        let damaged = File::open(path).map_err(|error| Fault::io("opening the file", &error))?;
        let new = self.make(known.last)?;
        // What the damaged file had given may not be known: microseconds since 1970 are more than
        // any spool can have given by then.
        let salvaged = salvage(&damaged, &new, known, wall_us());
        drop(new);
        if salvaged.is_err() {
            // It may hold the room that is missing; the next one removes it too.
            let _ = fs::remove_file(self.dir.join(NEW_FILE));
        }
        let Salvaged { records, unreadable } = salvaged?;
        let aside = self.set_aside(path)?;
        self.rename_new()?;
        log::error!(
            cause, kept_as:% = aside.display(), salvaged = records, unreadable_bytes = unreadable;
            "spool file damaged beyond repair, set aside, its whole records go on in a new one"
        );
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn set_aside(&self, path: &Path) -> Result<PathBuf, Fault> {
        let tried = |error: &io::Error| Fault::io("setting the damaged file aside", error);
        let mut kept = self.damaged().map_err(|error| tried(&error))?;
        while kept.len() >= DAMAGED_MAX {
            let (bytes, smallest) = kept.remove(0);
            fs::remove_file(&smallest).map_err(|error| tried(&error))?;
            log::warn!(file:% = smallest.display(), bytes; "smallest damaged spool file removed");
        }
        let mut seconds = now().wall.as_second();
        let mut aside = self.dir.join(format!("{DAMAGED_PREFIX}{seconds}"));
        while aside.try_exists().map_err(|error| tried(&error))? {
            seconds += 1;
            aside = self.dir.join(format!("{DAMAGED_PREFIX}{seconds}"));
        }
        // A second name first, so that a crash before the new file has this one's name finds the
        // damaged one again. Not every file system has them.
        fs::hard_link(path, &aside)
            .or_else(|_| fs::rename(path, &aside))
            .map_err(|error| tried(&error))?;
        self.sync().map_err(|error| tried(&error))?;
        Ok(aside)
    }

    /// The files set aside with their sizes, smallest first.
    fn damaged(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(DAMAGED_PREFIX)) {
                found.push((entry.metadata()?.len(), entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
}
