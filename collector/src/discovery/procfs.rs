//! Reads `/proc`, and knows nothing about what the facts are for.
//!
//! Every process is read through one handle of its directory, so a pid that is
//! given to another process halfway through cannot mix the facts of two: reads
//! through the handle of a dead process fail, and that is [`Error::Gone`].
//!
//! By hand and not with the `procfs` crate: that one reads by path, decodes every
//! field and copies whole environments, of which we may keep two variables.

use super::Error;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A thread group id in the collector's pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a process started, in ticks of 10 ms since boot: with the pid it names a
/// process for as long as the host is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartTicks(pub u64);

impl StartTicks {
    /// Since boot. `USER_HZ` is 100 on every architecture we build for.
    pub fn since_boot_ns(self) -> u64 {
        self.0.saturating_mul(10_000_000)
    }
}

/// A mounted procfs.
#[derive(Debug)]
pub struct Proc {
    path: PathBuf,
    directory: OwnedFd,
}

/// One process of a [`Proc`].
#[derive(Debug)]
pub struct Entry {
    pid: Pid,
    directory: OwnedFd,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub name: String,
    pub parent: Pid,
    pub start: StartTicks,
    pub zombie: bool,
    pub kernel_thread: bool,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
const CHUNK_BYTES: usize = 4096;
/// `PF_KTHREAD` of the kernel's `sched.h`.
const KERNEL_THREAD_FLAG: u64 = 0x0020_0000;

impl Proc {
    /// Usually of `/proc`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        match openat(CWD, &path, DIRECTORY, Mode::empty()) {
            Ok(directory) => Ok(Self { path, directory }),
            Err(error) => Err(Error::Listing {
                path,
                source: error.into(),
            }),
        }
    }

    /// All processes there are, in no order.
    pub fn pids(&self) -> Result<Vec<Pid>, Error> {
        numbers_in(self.directory.as_fd())
            .map_err(|error| Error::Listing {
                path: self.path.clone(),
                source: error.into(),
            })
            .map(|numbers| numbers.into_iter().map(Pid).collect())
    }

    /// A handle of one process.
    pub fn entry(&self, pid: Pid) -> Result<Entry, Error> {
        let directory = openat(&self.directory, pid.to_string(), DIRECTORY, Mode::empty())
            .map_err(|error| explain(error, pid, "directory"))?;
        Ok(Entry { pid, directory })
    }
}

impl Entry {
    /// Whose entry this is.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The first `limit` bytes of a file.
    pub(super) fn read(&self, what: &'static str, limit: usize) -> Result<Vec<u8>, Error> {
        self.try_read(what, limit)
            .map_err(|error| explain(error, self.pid, what))
    }

    /// Where a link points. None: it points nowhere, as `exe` of a kernel thread.
    pub(super) fn link(&self, what: &'static str) -> Result<Option<PathBuf>, Error> {
        match readlinkat(&self.directory, what, Vec::new()) {
            Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(explain(error, self.pid, what)),
        }
    }

    /// The inode number in a link such as `net:[4026531840]`.
    pub(super) fn namespace(&self, what: &'static str) -> Result<Option<u64>, Error> {
        Ok(self.link(what)?.and_then(|link| bracketed(link.to_str()?)))
    }

    /// Opens the executable, even when its path has been deleted or is of
    /// another mount namespace.
    pub(super) fn open_executable(&self) -> Result<std::fs::File, Error> {
        openat(&self.directory, "exe", FILE, Mode::empty())
            .map(std::fs::File::from)
            .map_err(|error| explain(error, self.pid, "exe"))
    }

    /// Inodes of open sockets, of at most the first `limit` descriptors.
    pub(super) fn socket_inodes(&self, limit: usize) -> Result<Vec<u64>, Error> {
        let explain = |error| explain(error, self.pid, "fd");
        let descriptors =
            openat(&self.directory, "fd", DIRECTORY, Mode::empty()).map_err(explain)?;
        let numbers = numbers_in(descriptors.as_fd()).map_err(explain)?;
        let inode_of = |number: u32| {
            // A descriptor closed since the listing is no error.
            let link = readlinkat(&descriptors, number.to_string(), Vec::new()).ok()?;
            bracketed(link.to_str().ok()?.strip_prefix("socket:")?)
        };
        Ok(numbers
            .into_iter()
            .take(limit)
            .filter_map(inode_of)
            .collect())
    }

    pub(super) fn stat(&self) -> Result<Stat, Error> {
        let bytes = self.read("stat", CHUNK_BYTES)?;
        parse_stat(&String::from_utf8_lossy(&bytes)).ok_or_else(|| Error::Unreadable {
            pid: self.pid,
            what: "stat",
            source: std::io::ErrorKind::InvalidData.into(),
        })
    }

    /// A file up to so many bytes, or up to where what was read is `enough`.
    pub(super) fn read_until(
        &self,
        what: &'static str,
        limit: usize,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Error> {
        self.try_read_until(what, limit, enough)
            .map_err(|error| explain(error, self.pid, what))
    }

    fn try_read(&self, what: &str, limit: usize) -> Result<Vec<u8>, Errno> {
        self.try_read_until(what, limit, |_| false)
    }

    fn try_read_until(
        &self,
        what: &str,
        limit: usize,
        enough: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, Errno> {
        let file = openat(&self.directory, what, FILE, Mode::empty())?;
        let mut bytes = Vec::with_capacity(CHUNK_BYTES.min(limit));
        while bytes.len() < limit && !enough(&bytes) {
            bytes.reserve(CHUNK_BYTES.min(limit - bytes.len()));
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(limit);
        Ok(bytes)
    }
}

/// The numeric names in a directory: pids or descriptors.
fn numbers_in(directory: rustix::fd::BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut numbers = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Some(number) = entry?
            .file_name()
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok())
        {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

fn explain(error: Errno, pid: Pid, what: &'static str) -> Error {
    match error {
        Errno::NOENT | Errno::SRCH => Error::Gone(pid),
        Errno::ACCESS | Errno::PERM => Error::Denied { pid, what },
        error => Error::Unreadable {
            pid,
            what,
            source: error.into(),
        },
    }
}

fn bracketed(link: &str) -> Option<u64> {
    let (_, rest) = link.split_once('[')?;
    rest.strip_suffix(']')?.parse().ok()
}

/// The name stands in brackets and may itself hold brackets and spaces.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, fields) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().take(20).collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
        parent: Pid(u32::try_from(number(1)?).ok()?),
        kernel_thread: number(6)? & KERNEL_THREAD_FLAG != 0,
        start: StartTicks(number(19)?),
    })
}

/// `path` as people and rules know it, though its file may have been deleted.
pub(super) fn undeleted(path: PathBuf) -> PathBuf {
    match path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
    {
        Some(text) => Path::new(text).to_owned(),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::super::running::Running;
    use super::*;

    #[test]
    fn a_process_name_may_hold_brackets_and_spaces() {
        let line = "42 (a) (b c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200";
        let want = Stat {
            name: "a) (b c".into(),
            parent: Pid(7),
            start: StartTicks(98765),
            zombie: false,
            kernel_thread: false,
        };
        assert_eq!(parse_stat(line), Some(want));
    }

    #[test]
    fn zombies_and_kernel_threads_are_told_apart() {
        let line = |state, flags: u64| {
            format!("1 (x) {state} 0 0 0 0 0 {flags} 0 0 0 0 0 0 0 0 0 0 0 0 5")
        };
        assert!(parse_stat(&line('Z', 0)).is_some_and(|stat| stat.zombie));
        assert!(parse_stat(&line('S', 0x0020_8040)).is_some_and(|stat| stat.kernel_thread));
    }

    #[test]
    fn a_broken_stat_line_is_refused() {
        for bad in ["", "1", "1 (x)", "1 (x) S", "1 (x) S a b c", ") ("] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_process_that_never_was_is_gone() {
        let proc = Proc::open("/proc").unwrap();
        assert!(matches!(proc.entry(Pid(u32::MAX)), Err(Error::Gone(_))));
    }

    #[test]
    fn a_handle_of_a_dead_process_says_gone() {
        let running = Running::start(std::process::Command::new("sleep").arg("60"));
        let entry = Proc::open("/proc").unwrap().entry(running.pid()).unwrap();
        assert!(entry.stat().is_ok());
        drop(running);
        assert!(matches!(entry.stat(), Err(Error::Gone(_))));
        assert!(matches!(entry.read("cmdline", 10), Err(Error::Gone(_))));
    }
}
