//! What all resources of one host share.

use super::procfs::Pid;
use crate::clock::{UnixNs, booted_at};
use std::collections::HashMap;
use std::path::Path;
use uuid::Uuid;

/// Facts about the host. Tests, and people with two hosts in one kernel, set their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// `host.id`: what the linker and Jaeger tell hosts apart by.
    pub id: String,
    /// `host.name`.
    pub name: String,
    /// `host.arch`, in OpenTelemetry's spelling.
    pub arch: &'static str,
    /// Changes with each boot: start times count from there.
    pub boot_id: String,
    /// Turns start times into wall time; asked once, so that a process keeps its creation time.
    pub booted_at: UnixNs,
}

/// Names of users, read once from `passwd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(HashMap<u32, String>);

/// `service.instance.id` is derived in this namespace (semantic conventions, `service`).
const INSTANCE_NAMESPACE: Uuid = Uuid::from_u128(0x4d63_009a_8d0f_11ee_aad7_4c79_6ed8_e320);

/// A collector in a pod sees the node's files here; its own image may carry a
/// machine id that all nodes would share.
const ROOT_OF_INIT: &str = "/proc/1/root";

impl HostFacts {
    /// Asks the running host.
    pub fn probe() -> Self {
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self {
            id: host_id(read, &name),
            name,
            arch: arch(std::env::consts::ARCH),
            boot_id: read("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            booted_at: booted_at(),
        }
    }

    /// `service.instance.id` of a process: the same for as long as it lives,
    /// whoever asks, and never given again.
    pub(super) fn instance_id(&self, pid: Pid, start: Option<super::StartTicks>) -> String {
        let start = start.map_or(0, |start| start.0);
        let name = format!("{}/{}/{pid}/{start}", self.id, self.boot_id);
        Uuid::new_v5(&INSTANCE_NAMESPACE, name.as_bytes())
            .hyphenated()
            .to_string()
    }
}

/// `/etc/machine-id`, `D-Bus`' copy of it, the mainboard's uuid. A host with none
/// of them is named by a hash of its host name, which survives reboots and errs
/// towards taking two hosts of the same name for one.
fn host_id(read: impl Fn(&str) -> Option<String>, name: &str) -> String {
    let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"].into_iter();
    let of_init = machine_id
        .clone()
        .map(|path| format!("{ROOT_OF_INIT}{path}"));
    let own = machine_id.map(str::to_owned);
    let board = ["/sys/class/dmi/id/product_uuid".to_owned()];
    let id = of_init.chain(own).chain(board).find_map(|path| {
        let id = read(&path)?.trim().to_ascii_lowercase();
        // systemd writes "uninitialized" into images; boards write zeros.
        let is_id = id.len() >= 32
            && id
                .bytes()
                .any(|byte| byte.is_ascii_hexdigit() && byte != b'0');
        is_id.then_some(id)
    });
    id.unwrap_or_else(|| {
        Uuid::new_v5(&INSTANCE_NAMESPACE, name.as_bytes())
            .simple()
            .to_string()
    })
}

fn arch(rust: &'static str) -> &'static str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "x86",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

impl Users {
    /// The host's users: of the initial process when it can be seen, else our own.
    pub fn probe() -> Self {
        let read = |root: &str| std::fs::read_to_string(Path::new(root).join("etc/passwd")).ok();
        read(ROOT_OF_INIT)
            .or_else(|| read("/"))
            .map(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    fn parse(passwd: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        // The first of equal numbers counts, as in the C library.
        let mut users = HashMap::new();
        for (id, name) in passwd.lines().filter_map(user) {
            users.entry(id).or_insert(name);
        }
        Self(users)
    }

    /// The name of a user of the host. A container has users of its own.
    pub(super) fn name(&self, id: u32, in_container: bool) -> String {
        match self.0.get(&id) {
            Some(name) if !in_container || id == 0 => name.clone(),
            _ => id.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::StartTicks;

    fn id_of(files: &[(&str, &str)]) -> String {
        let read = |path: &str| {
            files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(_, text)| (*text).to_owned())
        };
        host_id(read, "web-1")
    }

    #[test]
    fn the_host_id_is_the_first_that_is_one() {
        let (machine, board) = (
            "3d1219c7c4c5404aaa1f6d2a48adfda4",
            "4C4C4544-0042-4B10-8056-B2C04F4D3332",
        );
        let node = "aaaa19c7c4c5404aaa1f6d2a48adfda4";
        assert_eq!(
            id_of(&[("/etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n")]),
            machine
        );
        assert_eq!(id_of(&[("/var/lib/dbus/machine-id", machine)]), machine);
        assert_eq!(
            id_of(&[
                ("/etc/machine-id", machine),
                ("/proc/1/root/etc/machine-id", node)
            ]),
            node
        );
        let uninitialized = ("/etc/machine-id", "uninitialized\n");
        let (dmi, zeros) = (
            "/sys/class/dmi/id/product_uuid",
            "00000000-0000-0000-0000-000000000000",
        );
        assert_eq!(
            id_of(&[uninitialized, (dmi, board)]),
            board.to_ascii_lowercase()
        );
        assert_eq!(id_of(&[uninitialized, (dmi, zeros)]), id_of(&[]));
        assert_eq!(id_of(&[]).len(), 32);
    }

    #[test]
    fn instance_ids_differ_by_host_boot_pid_and_start_and_never_change() {
        let host = |id: &str, boot_id: &str| HostFacts {
            id: id.into(),
            boot_id: boot_id.into(),
            name: String::new(),
            arch: "amd64",
            booted_at: UnixNs(0),
        };
        let of = |host: HostFacts, pid, start| host.instance_id(Pid(pid), Some(StartTicks(start)));
        let base = of(host("h", "b"), 1, 2);
        // As Python's uuid.uuid5 has it.
        assert_eq!(base, "1f885939-f73a-5898-a9f7-c36346bd87e7");
        let others = [
            of(host("i", "b"), 1, 2),
            of(host("h", "c"), 1, 2),
            of(host("h", "b"), 2, 2),
            of(host("h", "b"), 1, 3),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn users_of_the_host_have_names_and_those_of_containers_numbers() {
        let users = Users::parse(
            "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/:\nalias:x:33:1::/:\n",
        );
        assert_eq!(users.name(33, false), "web");
        assert_eq!(users.name(33, true), "33");
        assert_eq!(users.name(0, true), "root");
        assert_eq!(users.name(7, false), "7");
    }

    #[test]
    fn this_host_has_an_id_and_a_name() {
        let facts = HostFacts::probe();
        assert!(facts.id.len() >= 32 && !facts.name.is_empty() && facts.booted_at > UnixNs(0));
    }
}
