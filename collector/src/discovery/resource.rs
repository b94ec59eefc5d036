//! The OTLP resource of a process.

use super::host::{HostFacts, Users};
use super::procfs::{Pid, StartTicks};
use super::{Details, Process};
use crate::clock::UnixNs;
use span_model::{Attribute, Resource, Value, semconv};
use std::borrow::Cow;
use std::path::Path;

/// What only we can know: a variable that children inherit must not set it.
const OBSERVED: &[&str] = &[
    semconv::PROCESS_PID,
    semconv::PROCESS_PARENT_PID,
    semconv::PROCESS_CREATION_TIME,
];
/// What is said about the agent, not about the target.
const AGENT_PREFIX: &str = "telemetry.";

/// Everything known of a process that its spans share. Attributes that the
/// target was given in `OTEL_RESOURCE_ATTRIBUTES` win over observed ones.
pub fn build(process: &Process, details: &Details, host: &HostFacts, users: &Users) -> Resource {
    let mut resource = Builder::default();
    resource.put(semconv::SERVICE_NAME, details.service.name.clone());
    resource.put(
        semconv::SERVICE_INSTANCE_ID,
        host.instance_id(process.pid, Some(process.start)),
    );
    resource.put_identity(process.pid, process.parent, Some(process.start), host);
    if let Some(path) = &process.executable {
        resource.put(
            semconv::PROCESS_EXECUTABLE_PATH,
            path.to_string_lossy().into_owned(),
        );
        if let Some(name) = path.file_name() {
            resource.put(
                semconv::PROCESS_EXECUTABLE_NAME,
                name.to_string_lossy().into_owned(),
            );
        }
    }
    // The first word only: arguments hold passwords. A title, which may be
    // everything in one word, is cut where its own arguments would begin.
    if let Some(command) = details.command.0.first() {
        resource.put(
            semconv::PROCESS_COMMAND,
            first_word(command, process.executable.as_deref()),
        );
    }
    if let Some(user_id) = details.user_id {
        resource.put(
            semconv::PROCESS_OWNER,
            users.name(user_id, details.container.is_some()),
        );
    }
    if let Some(container) = &details.container {
        resource.put(semconv::CONTAINER_ID, container.id.clone());
    }
    resource.put(semconv::HOST_ID, host.id.clone());
    resource.put(semconv::HOST_NAME, host.name.clone());
    resource.put(semconv::DEEPTRACE_BOOT_ID, host.boot_id.clone());
    resource.put(semconv::HOST_ARCH, host.arch);
    resource.put(semconv::OS_TYPE, "linux");
    resource.put(semconv::TELEMETRY_DISTRO_NAME, "deeptrace");
    resource.put(semconv::TELEMETRY_DISTRO_VERSION, env!("CARGO_PKG_VERSION"));
    for (key, value) in &details.environment.resource_attributes {
        // The name has been settled: `OTEL_SERVICE_NAME` wins over this variable.
        let is_ours = key == semconv::SERVICE_NAME
            || OBSERVED.contains(&key.as_str())
            || key.starts_with(AGENT_PREFIX);
        if !is_ours {
            resource.put(key.clone(), value.clone());
        }
    }
    Resource {
        attributes: resource.0,
    }
}

/// The resource of a child that has been forked and has executed nothing: its
/// parent's, with an identity of its own. `start` is unknown when the child has
/// exited before we could look.
pub(super) fn of_fork(
    of_parent: &Resource,
    parent: (Pid, Option<StartTicks>),
    child: (Pid, Option<StartTicks>),
    host: &HostFacts,
) -> Resource {
    let mut resource = Builder(of_parent.attributes.clone());
    resource
        .0
        .retain(|(key, _)| key != semconv::PROCESS_CREATION_TIME);
    resource.put_identity(child.0, parent.0, child.1, host);
    // One that the target was given stays.
    let derived = Value::from(host.instance_id(parent.0, parent.1));
    if resource
        .0
        .iter()
        .any(|(key, value)| key == semconv::SERVICE_INSTANCE_ID && *value == derived)
    {
        resource.put(
            semconv::SERVICE_INSTANCE_ID,
            host.instance_id(child.0, child.1),
        );
    }
    Resource {
        attributes: resource.0,
    }
}

/// Keeps keys unique: a later value replaces an earlier one.
#[derive(Default)]
struct Builder(Vec<Attribute>);

impl Builder {
    fn put(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, earlier)) => *earlier = value,
            None => self.0.push((key, value)),
        }
    }

    fn put_identity(&mut self, pid: Pid, parent: Pid, start: Option<StartTicks>, host: &HostFacts) {
        self.put(semconv::PROCESS_PID, pid.0);
        self.put(semconv::PROCESS_PARENT_PID, parent.0);
        if let Some(start) = start {
            let created = UnixNs(host.booted_at.0.saturating_add(start.since_boot_ns()));
            self.put(semconv::PROCESS_CREATION_TIME, created.to_string());
        }
    }
}

fn first_word(command: &str, executable: Option<&Path>) -> String {
    let is_path = executable.is_some_and(|path| path.ends_with(command));
    let end = if is_path { None } else { command.find(' ') };
    let word = end.and_then(|end| command.get(..end)).unwrap_or(command);
    word.trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::environment::Environment;
    use super::super::{CommandLine, Container, NameSource, Runtime, ServiceName};
    use super::*;

    fn host() -> HostFacts {
        HostFacts {
            id: "host-a".into(),
            name: "a".into(),
            arch: "amd64",
            boot_id: "boot".into(),
            booted_at: UnixNs(1_795_298_400_000_000_000),
        }
    }

    fn build_with(environment: &str) -> Resource {
        let process = Process {
            pid: Pid(42),
            parent: Pid(7),
            start: StartTicks(25),
            short_name: "python3".into(),
            executable: Some("/usr/bin/python3.11".into()),
            container: None,
            kernel_thread: false,
        };
        let details = Details {
            command: CommandLine(vec!["python3".into(), "--password=secret".into()]),
            environment: Environment::parse(
                format!("OTEL_RESOURCE_ATTRIBUTES={environment}").as_bytes(),
            ),
            user_id: Some(0),
            container: Some(Container {
                id: "abc".into(),
                pod_uid: None,
            }),
            working_directory: None,
            pid_namespace: None,
            network_namespace: None,
            runtime: Runtime::Python,
            service: ServiceName {
                name: "shop".into(),
                source: NameSource::Script,
            },
        };
        build(&process, &details, &host(), &Users::default())
    }

    fn text(resource: &Resource, key: &str) -> Option<String> {
        let found: Vec<_> = resource
            .attributes
            .iter()
            .filter(|(name, _)| name == key)
            .collect();
        assert!(found.len() <= 1, "{key} is there twice");
        found.first().map(|(_, value)| match value {
            Value::Str(text) => text.to_string(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn a_resource_names_service_process_host_and_agent() {
        let resource = build_with("");
        let want = [
            ("service.name", "shop"),
            ("process.pid", "Int(42)"),
            ("process.parent_pid", "Int(7)"),
            ("process.creation.time", "2026-11-21T22:00:00.250Z"),
            ("process.executable.name", "python3.11"),
            ("process.executable.path", "/usr/bin/python3.11"),
            ("process.command", "python3"),
            ("process.owner", "0"),
            ("container.id", "abc"),
            ("host.id", "host-a"),
            ("host.name", "a"),
            ("deeptrace.boot.id", "boot"),
            ("host.arch", "amd64"),
            ("os.type", "linux"),
            ("telemetry.distro.name", "deeptrace"),
        ];
        for (key, value) in want {
            assert_eq!(text(&resource, key).as_deref(), Some(value), "{key}");
        }
        assert!(text(&resource, "service.instance.id").is_some());
        assert!(
            !resource
                .attributes
                .iter()
                .any(|(key, _)| key.starts_with("telemetry.sdk."))
        );
        assert!(!format!("{resource:?}").contains("secret"));
    }

    #[test]
    fn what_the_target_was_given_wins_except_over_what_only_we_know() {
        let given = "service.name=no,service.version=1.2,host.name=b,service.instance.id=i,deployment.environment.name=test";
        let resource = build_with(&format!(
            "{given},process.pid=1,telemetry.sdk.name=x,telemetry.distro.name=y"
        ));
        let want = [
            ("service.name", "shop"),
            ("service.version", "1.2"),
            ("host.name", "b"),
            ("service.instance.id", "i"),
            ("deployment.environment.name", "test"),
            ("process.pid", "Int(42)"),
            ("telemetry.distro.name", "deeptrace"),
        ];
        for (key, value) in want {
            assert_eq!(text(&resource, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(text(&resource, "telemetry.sdk.name"), None);
    }

    #[test]
    fn a_forked_child_is_its_parent_with_another_identity() {
        let parent = build_with("service.version=1.2");
        let (of_parent, of_child) = (
            (Pid(42), Some(StartTicks(25))),
            (Pid(43), Some(StartTicks(125))),
        );
        let child = of_fork(&parent, of_parent, of_child, &host());
        assert_eq!(text(&child, "service.name"), text(&parent, "service.name"));
        assert_eq!(
            text(&child, "service.version"),
            text(&parent, "service.version")
        );
        assert_eq!(text(&child, "process.pid").as_deref(), Some("Int(43)"));
        assert_eq!(
            text(&child, "process.parent_pid").as_deref(),
            Some("Int(42)")
        );
        assert_eq!(
            text(&child, "process.creation.time").as_deref(),
            Some("2026-11-21T22:00:01.250Z")
        );
        assert_eq!(
            text(&child, "service.instance.id"),
            Some(host().instance_id(Pid(43), of_child.1))
        );
        let unseen = of_fork(&parent, of_parent, (Pid(43), None), &host());
        assert_eq!(text(&unseen, "process.creation.time"), None);
        let given = of_fork(
            &build_with("service.instance.id=i"),
            of_parent,
            of_child,
            &host(),
        );
        assert_eq!(text(&given, "service.instance.id").as_deref(), Some("i"));
    }

    #[test]
    fn a_title_is_cut_before_its_arguments() {
        let cases = [
            ("nginx: worker process", "nginx"),
            ("redis-server *:6379", "redis-server"),
            ("/opt/my app/server", "/opt/my app/server"),
            ("/opt/server --password x", "/opt/server"),
            ("python3", "python3"),
        ];
        for (command, want) in cases {
            assert_eq!(
                first_word(command, Some(Path::new("/opt/my app/server"))),
                want
            );
        }
    }
}
