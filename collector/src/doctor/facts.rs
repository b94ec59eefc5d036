//! Asks the host what doctor wants to know. Judges nothing.

use super::Check;
use rustix::process::{Resource, getrlimit};
use std::fs;
use std::io::ErrorKind;

/// What was found on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// `/sys/kernel/btf/vmlinux`.
    pub btf: File,
    /// Effective.
    pub user_id: u32,
    /// Effective, a bit each.
    pub capabilities: u64,
    /// `/sys/kernel/security/lockdown`; None when the kernel has no such thing.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `RLIMIT_MEMLOCK`; None when unlimited.
    pub memlock_bytes: Option<u64>,
    /// `RLIMIT_NOFILE`; None when unlimited.
    pub open_files: Option<u64>,
    /// Inode of our pid namespace.
    pub pid_namespace: Option<u64>,
    /// What is mounted.
    pub cgroups: Cgroups,
    /// Mount options of `/proc`; None when nothing is mounted there.
    pub proc_options: Option<String>,
    /// What the kernel said to test programs.
    pub kernel_tests: Vec<Check>,
}

/// Whether a file can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// It can.
    Readable,
    /// It is not there.
    Missing,
    /// It is, but not for us.
    Denied,
}

/// Which control group file systems are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// None of them.
    None,
    /// One hierarchy per controller.
    V1,
    /// One hierarchy for all.
    V2,
    /// A hybrid.
    Both,
}

impl Facts {
    /// Asks. `kernel_tests` tries what only a BPF loader can try: raw
    /// tracepoints, ring buffers and whatever else the programs need.
    pub fn probe(kernel_tests: impl FnOnce() -> Vec<Check>) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            btf: readable("/sys/kernel/btf/vmlinux"),
            user_id: rustix::process::geteuid().as_raw(),
            capabilities: capabilities(
                &fs::read_to_string("/proc/self/status").unwrap_or_default(),
            ),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok(),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            memlock_bytes: getrlimit(Resource::Memlock).current,
            open_files: getrlimit(Resource::Nofile).current,
            pid_namespace: namespace("/proc/self/ns/pid"),
            cgroups: cgroups(&mounts),
            proc_options: proc_options(&mounts),
            kernel_tests: kernel_tests(),
        }
    }

    pub(super) fn may(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

fn readable(path: &str) -> File {
    match fs::File::open(path).map_err(|error| error.kind()) {
        Ok(_) => File::Readable,
        Err(ErrorKind::NotFound) => File::Missing,
        Err(_) => File::Denied,
    }
}

fn number(path: &str) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn namespace(path: &str) -> Option<u64> {
    let link = fs::read_link(path).ok()?;
    let (_, inode) = link.to_str()?.split_once('[')?;
    inode.strip_suffix(']')?.parse().ok()
}

fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// Type and place of a line of `mounts`, with its options.
fn mount(line: &str) -> Option<(&str, &str, &str)> {
    let mut fields = line.split(' ').skip(1);
    let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
    Some((kind, place, options))
}

fn cgroups(mounts: &str) -> Cgroups {
    let has = |wanted: &str| {
        mounts
            .lines()
            .filter_map(mount)
            .any(|(kind, _, _)| kind == wanted)
    };
    match (has("cgroup"), has("cgroup2")) {
        (false, false) => Cgroups::None,
        (true, false) => Cgroups::V1,
        (false, true) => Cgroups::V2,
        (true, true) => Cgroups::Both,
    }
}

fn proc_options(mounts: &str) -> Option<String> {
    // The last mount on a place is the one that is seen.
    let mut found = mounts.lines().rev().filter_map(mount);
    let (_, _, options) = found.find(|(kind, place, _)| *kind == "proc" && *place == "/proc")?;
    Some(options.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
proc /proc proc rw,relatime 0 0
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
proc /proc proc rw,hidepid=invisible 0 0
broken";

    #[test]
    fn mounts_tell_of_cgroups_and_hidden_processes() {
        assert_eq!(cgroups(MOUNTS), Cgroups::Both);
        assert_eq!(cgroups(""), Cgroups::None);
        assert_eq!(cgroups("c /c cgroup2 rw 0 0"), Cgroups::V2);
        assert_eq!(
            proc_options(MOUNTS).as_deref(),
            Some("rw,hidepid=invisible")
        );
        assert_eq!(proc_options("c /c cgroup2 rw 0 0"), None);
    }

    #[test]
    fn effective_capabilities_are_read_from_status() {
        assert_eq!(
            capabilities("CapPrm:\t0\nCapEff:\t000000c000200004\n"),
            1 << 39 | 1 << 38 | 1 << 21 | 1 << 2
        );
        assert_eq!(capabilities("nonsense"), 0);
    }

    #[test]
    fn this_host_can_be_asked() {
        let facts = Facts::probe(|| vec![Check::pass("ring buffer", "works")]);
        assert!(
            !facts.release.is_empty()
                && facts.pid_namespace.is_some()
                && facts.proc_options.is_some()
        );
        assert_eq!(facts.kernel_tests.len(), 1);
    }
}
