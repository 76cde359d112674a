//! The spool's directory: its lock, its file, and what is set aside.

use std::cell::Cell;
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
/// A new file with all that is whole in a damaged one, until it gets its real name. The spool's own
/// file is the damaged one until then, or set aside already: then nothing else has the results.
const SALVAGED_FILE: &str = "spool.redb.salvaged";
/// What a damaged file is renamed to, with the time in seconds behind.
const DAMAGED_PREFIX: &str = "spool.redb.damaged-";
const LOCK_FILE: &str = "spool.lock";
/// How many damaged files stay for a person to look at; the smallest goes first, so that a disk
/// that damages one empty file after the other doesn't push out the one with results.
const DAMAGED_MAX: usize = 4;

/// A file with a place that the disk can't read is opened so often, with pauses of together some 2
/// to 3 s, before that counts as damage: a disk or its controller may be back by then, and a salvage
/// would give up what it can't read.
const UNREADABLE_OPENS: u32 = 7;

/// The directory, held by this process until dropped.
pub(super) struct Directory {
    dir: PathBuf,
    open: OpenDatabase,
    /// Gives a file a second name. Not every file system has them.
    link: fn(&Path, &Path) -> io::Result<()>,
    /// How often in a row the file could be opened, but not read.
    unreadable: Cell<u32>,
    // The lock ends with the file: it is held over every renaming of the spool's own file.
    _lock: File,
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// A file system that can't flush a directory has nothing to flush.
fn done_if_unknown(synced: io::Result<()>) -> io::Result<()> {
    synced.or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
        _ => Err(error),
    })
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
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                open,
                link: |from, to| fs::hard_link(from, to),
                unreadable: Cell::new(0),
                _lock: lock,
            }),
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
        let tried = |error: &io::Error| Fault::io("looking for the file", error);
        if !path.try_exists().map_err(|error| tried(&error))? {
            if self.dir.join(SALVAGED_FILE).try_exists().map_err(|error| tried(&error))? {
                // The damaged one was set aside, and then something came between.
                self.rename(SALVAGED_FILE, FILE)?;
            } else {
                self.make(known.last)?;
                self.rename(NEW_FILE, FILE)?;
            }
            self.sync()?;
        }
        let mut opened = self.open_existing(&path, known);
        if matches!(opened, Err(Fault::Damaged(_))) {
            // A read that failed once is no damage yet.
            opened = self.open_existing(&path, known);
        }
        let cause = match opened {
            Err(Fault::Damaged(cause)) => cause,
            Err(Fault::Unreadable(cause)) => {
                self.unreadable.set(self.unreadable.get() + 1);
                if self.unreadable.get() < UNREADABLE_OPENS {
                    return Err(Fault::Unreadable(cause));
                }
                cause
            }
            opened => {
                if opened.is_ok() {
                    self.unreadable.set(0);
                    // Of a salvage that was not needed after all.
                    self.remove(SALVAGED_FILE)?;
                }
                return opened;
            }
        };
        self.rebuild(&path, known, &cause).map_err(|fault| Fault::Salvage(Box::new(fault)))?;
        self.unreadable.set(0);
        self.open_existing(&path, known)
    }

    fn open_existing(&self, path: &Path, known: Known) -> Result<(SpoolFile, Found), Fault> {
        let file = private_file(path).map_err(|error| Fault::io("opening the file", &error))?;
        let (spool, found, sound) = SpoolFile::open(&self.open, file, known.cursor)?;
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
        self.remove(NEW_FILE)?;
        let file = private_file(&new).map_err(|error| Fault::io("making the file", &error))?;
        SpoolFile::make(&self.open, file, last)
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Fault::io("removing an old file", &error))
            }
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        fs::rename(self.dir.join(from), self.dir.join(to))
            .map_err(|error| Fault::io("naming the file", &error))
    }

    /// Puts a new file with what can be read of the damaged one in its place.
    fn rebuild(&self, path: &Path, known: Known, cause: &str) -> Result<(), Fault> {
        let damaged = File::open(path).map_err(|error| Fault::io("opening the file", &error))?;
        // It may hold the room that is missing, and the damaged file is still here.
        self.remove(SALVAGED_FILE)?;
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
        // The name tells that all is in it, before the damaged one can be gone.
        self.rename(NEW_FILE, SALVAGED_FILE)?;
        self.sync()?;
        let aside = self.set_aside(path)?;
        self.rename(SALVAGED_FILE, FILE)?;
        self.sync()?;
        log::error!(
            cause, kept_as:% = aside.display(), salvaged = records, unreadable_bytes = unreadable;
            "spool file damaged beyond repair, set aside, its whole records go on in a new one"
        );
        Ok(())
    }

    fn sync(&self) -> Result<(), Fault> {
        let synced = File::open(&self.dir).and_then(|dir| done_if_unknown(dir.sync_all()));
        synced.map_err(|error| Fault::io("writing the directory", &error))
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
        // A second name first, so that there is always a file with the spool's own. Without, the
        // new one gets it right behind this, or when the spool is opened the next time.
        (self.link)(path, &aside)
            .or_else(|_| fs::rename(path, &aside))
            .map_err(|error| tried(&error))?;
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

#[cfg(test)]
mod tests {
    use redb::backends::FileBackend;

    use super::super::file::Changes;
    use super::*;

    fn hold(dir: &Path) -> Directory {
        let open: OpenDatabase =
            Box::new(|builder, file| Ok(builder.create_with_backend(FileBackend::new(file)?)?));
        let mut directory = Directory::hold(dir, open).unwrap();
        directory.link = |_, _| Err(io::ErrorKind::Unsupported.into());
        directory
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A directory whose file holds two records and has lost its header.
    fn damaged() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (file, _) = hold(dir.path()).open(Known::default()).unwrap();
        let records = [b"one".to_vec(), b"two".to_vec()];
        file.commit(&Changes { last: 0, records: &records, cursor: None, states: &[] }).unwrap();
        drop(file);
        let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
        bytes[..4096].fill(0);
        fs::write(dir.path().join(FILE), bytes).unwrap();
        dir
    }

    #[test]
    fn without_second_names_a_salvage_that_is_cut_short_loses_nothing() {
        let dir = damaged();
        let path = dir.path().join(FILE);
        let directory = hold(dir.path());
        directory.rebuild(&path, Known::default(), "damaged").unwrap();
        // As it stands between the two renamings.
        fs::rename(&path, dir.path().join(SALVAGED_FILE)).unwrap();
        let aside = names(dir.path());
        assert!(aside[1].starts_with(DAMAGED_PREFIX), "{aside:?}");
        for _ in 0..2 {
            let (file, found) = directory.open(Known::default()).unwrap();
            assert_eq!((found.records, found.tail), (2, 2));
            assert_eq!(file.read(0, 9, 99).unwrap()[1], (2, b"two".to_vec()));
            assert_eq!(names(dir.path()), [LOCK_FILE, FILE, aside[1].as_str()]);
        }
    }

    #[test]
    fn a_salvage_that_was_not_needed_is_not_taken_for_a_later_one() {
        let dir = damaged();
        let directory = hold(dir.path());
        fs::write(dir.path().join(SALVAGED_FILE), "of an earlier one, cut short").unwrap();
        assert_eq!(directory.open(Known::default()).unwrap().1.records, 2);
        fs::write(dir.path().join(SALVAGED_FILE), "of an earlier one").unwrap();
        assert_eq!(directory.open(Known::default()).unwrap().1.records, 2);
        assert!(!dir.path().join(SALVAGED_FILE).exists());
    }

    #[test]
    fn a_directory_that_cannot_be_flushed_is_not_a_failing_disk() {
        const EINVAL: i32 = 22;
        const ENOTSUP: i32 = 95;
        const EIO: i32 = 5;
        let synced = |errno| done_if_unknown(Err(io::Error::from_raw_os_error(errno)));
        assert!(synced(EINVAL).is_ok() && synced(ENOTSUP).is_ok() && synced(EIO).is_err());
    }
}
