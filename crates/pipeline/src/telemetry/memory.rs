//! How much memory the process has, and may have.

use std::fs;
use std::path::Path;

/// Resident bytes of this process; None: the kernel does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    kib_line(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Bytes that this process may have: the lowest limit of its control groups, else what the
/// host has. None: the kernel does not tell.
pub(crate) fn available_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = group_limit(&groups, Path::new("/sys/fs/cgroup"));
    let total = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kib_line(&text, "MemTotal:"));
    // A group without a limit has `max`, or (version 1) a number above any memory.
    [limit, total].into_iter().flatten().min()
}

/// The lowest limit of the groups in `/proc/self/cgroup` and of those above them.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        // Version 2 names no controller.
        let (below, file) = if controllers.is_empty() {
            ("", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("memory", "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        let root = root.join(below);
        // In a container without a namespace of its own for groups, the path is the host's
        // and only the root is there.
        let folder = root.join(path.trim_start_matches('/'));
        let ancestors = folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&root));
        ancestors
            .filter_map(|folder| fs::read_to_string(folder.join(file)).ok())
            .filter_map(|text| text.trim().parse().ok())
            .collect::<Vec<u64>>()
    });
    limits.min()
}

/// The value of a line such as `VmRSS:     1234 kB`, in bytes.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_the_process_has_and_may_have() {
        let (has, may_have) = (resident_bytes().unwrap(), available_bytes().unwrap());
        assert!(has > 100_000 && has < may_have, "{has} of {may_have}");
    }

    #[test]
    fn the_lowest_limit_of_a_group_and_those_above_it_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("pods/a/b/memory.max", "max\n");
        file("pods/a/memory.max", "2000\n");
        file("pods/memory.max", "3000\n");
        file("memory/old/memory.limit_in_bytes", "500\n");
        file("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let cases = [
            ("0::/pods/a/b\n", Some(2000)),
            ("0::/pods\n", Some(3000)),
            ("0::/\n", None),
            ("", None),
            (
                "5:cpu,cpuacct:/x\n4:memory:/old\n1:name=systemd:/y\n",
                Some(500),
            ),
            (
                "4:memory:/not/seen/from/here\n",
                Some(9_223_372_036_854_771_712),
            ),
        ];
        for (groups, limit) in cases {
            assert_eq!(group_limit(groups, dir.path()), limit, "{groups:?}");
        }
    }
}
