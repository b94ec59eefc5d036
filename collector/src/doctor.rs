//! `deeptrace-collector doctor`: can this host be traced, what would be traced,
//! and what stands in the way.
//!
//! Facts are gathered in `doctor/facts.rs`; here they are judged without
//! looking at the host, and printed by `doctor/report.rs`.

mod facts;
mod report;

pub use facts::{Cgroups, Facts, File};
pub use report::{Report, Row};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Tracing works, something will be missing.
    Warn,
    /// Tracing cannot work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}

/// Ring buffers and `CAP_BPF` came with 5.8.
const OLDEST_KERNEL: (u32, u32) = (5, 8);
/// From 5.11 on, BPF memory counts against the cgroup and not against `RLIMIT_MEMLOCK`.
const NO_MEMLOCK_KERNEL: (u32, u32) = (5, 11);
/// `PROC_PID_INIT_INO` of the kernel's `proc_ns.h`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// Ring buffers, perf events and a socket or two per exporter, with room to spare.
const ENOUGH_OPEN_FILES: u64 = 1024;

const CAP_DAC_READ_SEARCH: u32 = 2;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

impl Check {
    /// Nothing to do.
    pub fn pass(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Pass,
            found: found.into(),
            remedy: String::new(),
        }
    }

    /// Something will be missing.
    pub fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warn,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    /// Tracing cannot work.
    pub fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Fail,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

/// Judges what was found. Pure.
pub fn diagnose(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        kernel(facts),
        btf(facts),
        user(facts),
        loading(facts),
        looking(facts),
        reading(facts),
        lockdown(facts),
        unprivileged(facts),
        perf_events(facts),
        memlock(facts),
        open_files(facts),
        pid_namespace(facts),
        cgroups(facts),
        proc_mount(facts),
    ];
    checks.extend(facts.kernel_tests.iter().cloned());
    checks
}

fn kernel(facts: &Facts) -> Check {
    const NAME: &str = "kernel";
    match version(&facts.release) {
        None => Check::warn(
            NAME,
            format!("{}, whatever that is", facts.release),
            "Linux 5.8 or newer is needed",
        ),
        Some(version) if version < OLDEST_KERNEL => Check::fail(
            NAME,
            &facts.release,
            "use Linux 5.8 or newer: it brought BPF ring buffers",
        ),
        Some(_) => Check::pass(NAME, &facts.release),
    }
}

fn btf(facts: &Facts) -> Check {
    const NAME: &str = "kernel type information (BTF)";
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    match facts.btf {
        File::Readable => Check::pass(NAME, PATH),
        File::Denied => Check::fail(
            NAME,
            format!("may not read {PATH}"),
            "run as root, or mount /sys readable",
        ),
        File::Missing => Check::fail(
            NAME,
            format!("{PATH} is missing"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount the host's /sys",
        ),
    }
}

fn user(facts: &Facts) -> Check {
    match facts.user_id {
        0 => Check::pass("user", "root"),
        id => Check::pass("user", format!("uid {id}; capabilities decide")),
    }
}

fn loading(facts: &Facts) -> Check {
    const NAME: &str = "loading BPF programs";
    if facts.may(CAP_SYS_ADMIN) {
        return Check::pass(NAME, "CAP_SYS_ADMIN");
    }
    let missing: Vec<&str> = [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)]
        .into_iter()
        .filter_map(|(name, number)| (!facts.may(number)).then_some(name))
        .collect();
    if missing.is_empty() {
        return Check::pass(NAME, "CAP_BPF, CAP_PERFMON");
    }
    let remedy = "run as root, or add CAP_BPF and CAP_PERFMON (systemd: AmbientCapabilities=, docker: --cap-add)";
    Check::fail(NAME, format!("{} missing", missing.join(" and ")), remedy)
}

fn looking(facts: &Facts) -> Check {
    const NAME: &str = "looking into processes";
    if facts.may(CAP_SYS_PTRACE) {
        return Check::pass(NAME, "CAP_SYS_PTRACE");
    }
    Check::warn(
        NAME,
        "CAP_SYS_PTRACE is missing",
        "add CAP_SYS_PTRACE: without it processes of other users have no path and no ports, so that rules with executable, listen_port or peer_port pass them over",
    )
}

fn reading(facts: &Facts) -> Check {
    const NAME: &str = "reading files of others";
    if facts.may(CAP_DAC_READ_SEARCH) {
        return Check::pass(NAME, "CAP_DAC_READ_SEARCH");
    }
    let remedy = "add CAP_DAC_READ_SEARCH: without it processes of other users have no ports, so that rules with listen_port or peer_port pass them over";
    Check::warn(NAME, "CAP_DAC_READ_SEARCH is missing", remedy)
}

fn lockdown(facts: &Facts) -> Check {
    const NAME: &str = "lockdown";
    let Some(text) = &facts.lockdown else {
        return Check::pass(NAME, "not in this kernel");
    };
    let mode = text
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("unknown", |(mode, _)| mode);
    match mode {
        "none" | "integrity" => Check::pass(NAME, mode),
        "confidentiality" => Check::fail(
            NAME,
            "confidentiality: BPF programs may not read kernel memory",
            "boot with lockdown=integrity, or turn Secure Boot's strict mode off",
        ),
        _ => Check::warn(NAME, format!("mode {mode}"), "expected none or integrity"),
    }
}

fn unprivileged(facts: &Facts) -> Check {
    const NAME: &str = "BPF for everybody";
    match facts.unprivileged_bpf_disabled {
        Some(0) => Check::warn(
            NAME,
            "any user may load BPF programs",
            "sysctl kernel.unprivileged_bpf_disabled=2: deeptrace does not need it",
        ),
        Some(_) => Check::pass(NAME, "off, and not needed"),
        None => Check::pass(NAME, "unknown, and not needed"),
    }
}

fn perf_events(facts: &Facts) -> Check {
    const NAME: &str = "perf events";
    match facts.perf_event_paranoid {
        Some(level) if level >= 3 && !facts.may(CAP_SYS_ADMIN) => Check::warn(
            NAME,
            format!("kernel.perf_event_paranoid is {level}"),
            "set it to 2, or add CAP_SYS_ADMIN: without it TLS libraries cannot be probed",
        ),
        Some(level) => Check::pass(NAME, format!("kernel.perf_event_paranoid is {level}")),
        None => Check::pass(NAME, "kernel.perf_event_paranoid is unknown"),
    }
}

fn memlock(facts: &Facts) -> Check {
    const NAME: &str = "locked memory";
    if version(&facts.release).is_some_and(|version| version >= NO_MEMLOCK_KERNEL) {
        return Check::pass(NAME, "not limited for BPF by this kernel");
    }
    match facts.memlock_bytes {
        None => Check::pass(NAME, "unlimited"),
        Some(bytes) if facts.may(CAP_SYS_RESOURCE) => {
            Check::pass(NAME, format!("{bytes} bytes, will be raised"))
        }
        Some(bytes) => Check::fail(
            NAME,
            format!("{bytes} bytes"),
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity), add CAP_SYS_RESOURCE, or use Linux 5.11",
        ),
    }
}

fn open_files(facts: &Facts) -> Check {
    const NAME: &str = "open files";
    match facts.open_files {
        None => Check::pass(NAME, "unlimited"),
        Some(limit) if limit < ENOUGH_OPEN_FILES => Check::warn(
            NAME,
            format!("limit {limit}"),
            "ulimit -n 4096 (systemd: LimitNOFILE=4096)",
        ),
        Some(limit) => Check::pass(NAME, format!("limit {limit}")),
    }
}

fn pid_namespace(facts: &Facts) -> Check {
    const NAME: &str = "pid namespace";
    match facts.pid_namespace {
        Some(INITIAL_PID_NAMESPACE) => Check::pass(NAME, "the initial one"),
        Some(inode) => Check::warn(
            NAME,
            format!("{inode}, not the initial one"),
            "use hostPID: true (docker: --pid=host): the kernel reports pids that mean other processes here",
        ),
        None => Check::warn(NAME, "unknown", "mount /proc"),
    }
}

fn cgroups(facts: &Facts) -> Check {
    const NAME: &str = "cgroups";
    match facts.cgroups {
        Cgroups::V1 => Check::pass(NAME, "version 1"),
        Cgroups::V2 => Check::pass(NAME, "version 2"),
        Cgroups::Both => Check::pass(NAME, "versions 1 and 2"),
        Cgroups::None => Check::warn(
            NAME,
            "not mounted",
            "mount the host's /sys/fs/cgroup: containers may go unrecognised",
        ),
    }
}

fn proc_mount(facts: &Facts) -> Check {
    const NAME: &str = "/proc";
    let Some(options) = &facts.proc_options else {
        return Check::fail(NAME, "not mounted", "mount -t proc proc /proc");
    };
    let hidden = options
        .split(',')
        .find_map(|option| option.strip_prefix("hidepid="));
    match hidden.filter(|mode| !matches!(*mode, "0" | "off")) {
        Some(mode) if !facts.may(CAP_SYS_PTRACE) => Check::warn(
            NAME,
            format!("mounted with hidepid={mode}"),
            "add CAP_SYS_PTRACE, or mount -o remount,hidepid=0 /proc: processes of other users are hidden",
        ),
        Some(mode) => Check::pass(
            NAME,
            format!("mounted with hidepid={mode}, which CAP_SYS_PTRACE sees through"),
        ),
        None => Check::pass(NAME, "mounted"),
    }
}

/// `6.18.44-fc` is 6.18.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
