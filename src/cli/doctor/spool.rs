//! The spool's directory: there or to be made, writable, with room, and whose it is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, major, minor, statvfs};

use super::report::{Kind, Report};
use crate::config::Settings;

const SUBJECT: &str = "spool";
/// The file takes up to so much more than the results in it (docs/spool.md), in tenths.
const FILE_TENTHS: u64 = 23;
/// Less free room than this and a start may fail.
const ROOM_MIN: u64 = 64 << 20;

pub(super) fn look(report: &mut Report, settings: &Settings) {
    let spool = &settings.producer.spool;
    let dir = &spool.dir;
    let Some(existing) = nearest(dir) else {
        return report.bad(
            Kind::Other,
            SUBJECT,
            format!("{} has no directory above it", dir.display()),
            "set producer.spool.dir to a path that can be made",
        );
    };
    let shown = dir.display();
    if !existing.is_dir() {
        return report.bad(
            Kind::Other,
            SUBJECT,
            format!("{} is a file, so {shown} can't be the spool's directory", existing.display()),
            "remove the file, or set producer.spool.dir to another path",
        );
    }
    if let Err(error) = access(&existing, Access::WRITE_OK | Access::EXEC_OK) {
        return report.bad(
            Kind::Other,
            SUBJECT,
            format!("this user may not write to {}: {error}", existing.display()),
            "give it to the user that runs the producer (chown), or set producer.spool.dir to \
             another path",
        );
    }
    match holder(dir) {
        Some(who) => report.ok(SUBJECT, format!("{shown} is in use by {who}")),
        None => report.ok(SUBJECT, format!("{shown} can be written to, and is in nobody's use")),
    }
    room(report, dir, &existing, spool.max_bytes);
}

/// The directory itself, or the nearest one above it that exists.
fn nearest(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|path| fs::symlink_metadata(path).is_ok()).map(Path::to_owned)
}

fn room(report: &mut Report, dir: &Path, existing: &Path, max_bytes: u64) {
    let Ok(disk) = statvfs(existing) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let used: u64 = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|file| file.blocks() * 512)
        .sum();
    let wanted = (max_bytes / 10).saturating_mul(FILE_TENTHS).saturating_sub(used);
    let said = format!(
        "{} MiB are free on its disk; a full spool takes {} MiB more",
        free >> 20,
        wanted >> 20
    );
    if free < ROOM_MIN {
        report.bad(Kind::Other, SUBJECT, said, "free room on that disk");
    } else if free < wanted {
        let cure = "free room on that disk, or lower producer.spool.max_bytes";
        report.warning(SUBJECT, said, cure);
    } else {
        report.ok(SUBJECT, said);
    }
}

/// The process that holds the directory's lock, from the kernel's list: trying to take it could
/// be in the way of a producer that starts now.
fn holder(dir: &Path) -> Option<String> {
    let file = fs::metadata(dir.join("spool.lock")).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let place = fields.iter().position(|field| *field == wanted)?;
        fields.get(place.checked_sub(1)?).map(|pid| (*pid).to_owned())
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}
