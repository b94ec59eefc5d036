//! Which container a process runs in, read from its cgroup paths.

/// What cgroup paths tell of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// `container.id`, as the runtime wrote it.
    pub id: String,
    /// Kubernetes' uid of the pod, where the path names one.
    pub pod_uid: Option<String>,
}

/// Words in front of an id in the names of systemd scopes. Monitors of a
/// container (`crio-conmon-`) run outside of it and must not match.
const SCOPE_PREFIXES: &[&str] = &[
    "cri-containerd-",
    "containerd-",
    "crio-",
    "docker-",
    "libpod-",
    "nerdctl-",
];

/// Takes the text of `/proc/PID/cgroup`, version 1 (a line per controller),
/// version 2 (one line), or both.
pub(super) fn from_cgroup(text: &str) -> Option<Container> {
    text.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        // The innermost id counts: containers run in containers (kind, docker in docker).
        let id = path.rsplit('/').find_map(id_of_segment)?;
        Some(Container {
            id: id.to_owned(),
            pod_uid: path.rsplit('/').find_map(pod_uid),
        })
    })
}

/// `<id>`, `docker-<id>.scope`, `kubepods-...slice:cri-containerd:<id>`.
fn id_of_segment(segment: &str) -> Option<&str> {
    let segment = segment.rsplit(':').next()?;
    let segment = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = SCOPE_PREFIXES
        .iter()
        .find_map(|prefix| segment.strip_prefix(prefix))
        .unwrap_or(segment);
    is_container_id(id).then_some(id)
}

/// 64 hex digits, or on Amazon ECS 32 of them, a dash and a number.
fn is_container_id(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.split_once('-') {
        None => text.len() == 64 && is_hex(text),
        Some((task, number)) => {
            task.len() == 32
                && is_hex(task)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}

/// `pod<uid>` (cgroupfs) or `kubepods-burstable-pod<uid with _>.slice` (systemd).
fn pod_uid(segment: &str) -> Option<String> {
    let segment = segment.split(':').next()?;
    let name = segment.strip_suffix(".slice").unwrap_or(segment);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.strip_prefix("kubepods")?.split_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    let is_uid = uid.len() >= 32
        && uid
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3e1ea6bd8a3fb5d0f1a2c4b6d8e0f2a4c6b8d0e2f4a6c8b0d2e4f6a8c0b2d4e6";
    const OUTER: &str = "ffffa6bd8a3fb5d0f1a2c4b6d8e0f2a4c6b8d0e2f4a6c8b0d2e4f6a8c0b2d4e6";
    const POD: &str = "9d1a5e2c-0f0e-4f55-8a4b-3b6f0c9e7d21";

    fn check(case: &str, text: &str, want: Option<(&str, Option<&str>)>) {
        let text = text
            .replace("ID", ID)
            .replace("OUTER", OUTER)
            .replace("POD", POD);
        let text = text.replace("P_D", &POD.replace('-', "_"));
        let want = want.map(|(id, pod)| Container {
            id: id.into(),
            pod_uid: pod.map(Into::into),
        });
        assert_eq!(from_cgroup(&text), want, "{case}");
    }

    #[test]
    fn every_runtime_writes_its_id_differently() {
        let plain = Some((ID, None));
        let in_pod = Some((ID, Some(POD)));
        let ecs = "0123456789abcdef0123456789abcdef-1234567890";
        check(
            "docker, v1",
            "12:pids:/docker/ID\n11:cpu:/docker/ID\n",
            plain,
        );
        check(
            "docker, v2 with systemd",
            "0::/system.slice/docker-ID.scope",
            plain,
        );
        check(
            "podman",
            "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            plain,
        );
        check(
            "containerd, cgroupfs",
            "0::/kubepods/besteffort/podPOD/ID",
            in_pod,
        );
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice";
        check(
            "containerd, systemd",
            &format!("0::{slice}/cri-containerd-ID.scope"),
            in_pod,
        );
        check(
            "cri-o",
            &format!("1:name=systemd:{slice}/crio-ID.scope"),
            in_pod,
        );
        check(
            "cri-o, guaranteed",
            "0::/kubepods.slice/kubepods-podP_D.slice/crio-ID.scope",
            in_pod,
        );
        let colons = "1:name=systemd:/system.slice/containerd.service/kubepods-burstable-podP_D.slice:cri-containerd:ID";
        check("containerd without delegation", colons, in_pod);
        check(
            "kind",
            "0::/docker/OUTER/kubelet/kubepods/podPOD/ID",
            in_pod,
        );
        check(
            "another cgroup namespace",
            "0::/../cri-containerd-ID.scope",
            plain,
        );
        check(
            "ecs",
            &format!("9:perf_event:/ecs/task/{ecs}"),
            Some((ecs, None)),
        );
        check(
            "hybrid: only one hierarchy knows",
            "0::/\n2:cpu:/docker/ID",
            plain,
        );
    }

    #[test]
    fn what_is_no_container_has_no_id() {
        for text in [
            "",
            "nonsense",
            "0::/",
            "0::/init.scope",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/system.slice/crio-conmon-ID.scope",
            "0::/docker/abc",
            "0::/docker/zzzza6bd8a3fb5d0f1a2c4b6d8e0f2a4c6b8d0e2f4a6c8b0d2e4f6a8c0b2d4e6",
        ] {
            check(text, text, None);
        }
    }
}
