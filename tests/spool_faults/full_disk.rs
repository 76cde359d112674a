//! Disks that really are full: a small one of its own, and the kernel's limit of a file's size.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use log::{LevelFilter, Log, Metadata, Record};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use webmon::telemetry::health;

use crate::damage::damaged_files;
use crate::support::{CAP, lost, open, read_all, until};

const CHILD: &str = "WEBMON_TEST_SPOOL_FULL";
const SMALL_DISK: &str = "small disk";
const FILE_LIMIT: &str = "file limit";
/// The small disk in MiB: what memory holds has to fit when there is room again.
const DISK_MIB: usize = 128;
const BALLAST: &str = "ballast";
/// Room that is left on the small disk, and the most for the file.
const ROOM: usize = 8 << 20;
/// Such that memory is full soon, and each fits into pages of 64 KiB.
const RECORD: usize = 60_000;

/// What was logged.
struct Lines(Mutex<Vec<String>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }
    fn flush(&self) {}
}

fn logged(part: &str) -> usize {
    LINES.0.lock().unwrap().iter().filter(|line| line.contains(part)).count()
}

fn record(n: usize) -> Vec<u8> {
    vec![n as u8; RECORD]
}

/// Fills the disk, or lowers the limit; what makes room again.
fn take_the_room(kind: &str, dir: &Path) -> Box<dyn FnOnce()> {
    if kind == FILE_LIMIT {
        let before = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, Rlimit { current: Some(ROOM as u64), ..before }).unwrap();
        return Box::new(move || setrlimit(Resource::Fsize, before).unwrap());
    }
    let path = dir.join(BALLAST);
    let mut ballast = File::create(&path).unwrap();
    (0..DISK_MIB - ROOM / (1 << 20)).for_each(|_| ballast.write_all(&[0; 1 << 20]).unwrap());
    Box::new(move || fs::remove_file(path).unwrap())
}

/// The child of the tests below.
#[test]
fn child_without_room() {
    let Ok(kind) = std::env::var(CHILD) else { return };
    log::set_logger(&LINES).unwrap();
    log::set_max_level(LevelFilter::Info);
    let dir = std::env::current_dir().unwrap();
    let make_room = take_the_room(&kind, &dir);
    let spool = open(&dir.join("spool"));
    let mut taken = Vec::new();
    let mut hand_over = |n: usize| {
        let is_taken = spool.append(record(n));
        if is_taken {
            taken.push(n);
        }
        is_taken
    };
    let mut n = 0;
    while health().is_ready() {
        assert!(hand_over(n) && n < 2 * ROOM / RECORD, "record {n} refused, or no end");
        let _ = spool.flush(std::time::Duration::from_millis(100));
        n += 1;
    }
    assert_eq!(logged("spool can't be written"), 1);
    let error = if kind == FILE_LIMIT { "File too large" } else { "No space left" };
    assert!(format!("{:?}", health().parts()).contains(error), "{:?}", health().parts());
    // The disk itself says the same: the fault is real.
    let kind_of = |error: std::io::Error| error.kind();
    let probe = fs::write(dir.join("probe"), vec![1; 2 * ROOM]).map_err(kind_of).unwrap_err();
    assert!(matches!(probe, ErrorKind::StorageFull | ErrorKind::FileTooLarge), "{probe}");
    fs::remove_file(dir.join("probe")).unwrap();

    // Checks go on; what memory doesn't hold is counted, and said once.
    let refused = (n..n + 900).filter(|n| !hand_over(*n)).count();
    assert!(refused > 300, "{refused} refused");
    assert_eq!(lost("memory"), refused as u64);
    assert_eq!(logged("memory full"), 1);
    assert_eq!(logged("spool can't be written"), 1);

    make_room();
    until(|| format!("{:?}", health().parts()), || health().is_ready());
    assert!(hand_over(n + 900), "there is room");
    assert!(spool.flush(CAP));
    let found: Vec<_> = read_all(&spool).into_iter().map(|(_, record)| record).collect();
    assert!(found == taken.iter().map(|n| record(*n)).collect::<Vec<_>>(), "{}", found.len());
    assert_eq!((logged("can be written again"), logged("has room again")), (1, 1));
    assert_eq!(lost("memory"), refused as u64);
    assert_eq!(damaged_files(&dir.join("spool")), 0);
    assert!(spool.close());
    println!("went through a full disk");
}

/// Runs the child by `sh -c script`.
fn run_child(shell: &mut Command, script: &str, kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = shell
        .args(["sh", "-c", &format!("{script} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["full_disk::child_without_room", "--exact", "--nocapture"])
        .env(CHILD, kind)
        .env("WEBMON_TEST_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("went through a full disk"), "{said}{complained}");
}

#[test]
fn a_full_disk_is_survived_and_heals() {
    // A mount of its own needs a name space of its own.
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount"]);
        command
    };
    let tried = unshare().arg("true").output().unwrap();
    assert!(
        tried.status.success(),
        "no mount namespace for the small disk: run the tests as root (in a container with \
         --cap-add SYS_ADMIN), or allow user namespaces: {tried:?}"
    );
    let mount = format!(
        "mount -t tmpfs -o size={DISK_MIB}m none \"$WEBMON_TEST_DIR\" && cd \"$WEBMON_TEST_DIR\""
    );
    run_child(&mut unshare(), &mount, SMALL_DISK);
}

#[test]
fn a_file_that_may_not_grow_is_survived_and_heals() {
    // The signal would end the process; ignored, the write fails instead.
    let script = "trap '' XFSZ && cd \"$WEBMON_TEST_DIR\"";
    run_child(&mut Command::new("env"), script, FILE_LIMIT);
}
