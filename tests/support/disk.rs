//! A small disk for one process, that a test fills up and frees again.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const CURE: &str = "no mount namespace for the small disk: run the tests as root (in a container \
                    with --cap-add SYS_ADMIN), or allow user namespaces \
                    (sysctl kernel.unprivileged_userns_clone=1)";

/// A directory that is a memory file system of its own in the process that
/// [`SmallDisk::wrapper`] starts, and empty for everybody else.
pub struct SmallDisk {
    directory: PathBuf,
    size: &'static str,
}

impl SmallDisk {
    /// Of `size`, such as `8m`, on `directory`, which is made.
    pub fn new(directory: &Path, size: &'static str) -> Self {
        std::fs::create_dir_all(directory).expect("the disk's directory");
        let disk = Self { directory: directory.to_owned(), size };
        let wrapper = disk.wrapper();
        let tried = Command::new(&wrapper[0]).args(&wrapper[1..]).arg("true").output();
        let tried = tried.unwrap_or_else(|error| panic!("{CURE} ({error})"));
        let text = String::from_utf8_lossy(&tried.stderr);
        assert!(tried.status.success(), "{CURE} ({})", text.trim());
        disk
    }

    /// The beginning of a command line: what follows it is run with the disk mounted, and keeps
    /// the pid.
    pub fn wrapper(&self) -> Vec<String> {
        let mut words = vec!["unshare", "--mount"];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--map-root-user"]);
        }
        let script =
            "mount -t tmpfs -o mode=700,size=\"$1\" webmon \"$2\" && shift 2 && exec \"$@\"";
        words.extend(["--", "sh", "-c", script, "sh", self.size]);
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.push(self.directory.display().to_string());
        words
    }

    /// Takes all the room that is left on the disk of process `pid`; how many bytes that was.
    pub fn fill(&self, pid: i32) -> u64 {
        let mut file = std::fs::File::create(self.filler(pid)).expect("the filler");
        let mut bytes = 0;
        // The last free page goes byte by byte.
        for piece in [&[0_u8; 4096][..], &[0_u8; 1][..]] {
            loop {
                match file.write(piece) {
                    Ok(count) => bytes += count as u64,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("the disk can't be filled: {error}"),
                }
            }
        }
        bytes
    }

    /// Gives it back.
    pub fn free(&self, pid: i32) {
        std::fs::remove_file(self.filler(pid)).expect("the filler goes");
    }

    /// The filler's path, through the process's own view of the files.
    fn filler(&self, pid: i32) -> PathBuf {
        let directory = self.directory.strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{pid}/root")).join(directory).join("filler")
    }
}
