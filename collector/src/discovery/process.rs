//! The facts of one process, in two helpings: [`Process`] is what selection asks
//! of every process, [`Details`] is what only a traced one needs.

use super::environment::Environment;
use super::naming::{self, ServiceName};
use super::procfs::{Entry, Pid, StartTicks, undeleted};
use super::{Container, Error, Needs, Runtime, container, runtime};
use std::fmt;
use std::path::PathBuf;

/// What selection looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its thread group id.
    pub pid: Pid,
    /// Who forked it, or who took it over since.
    pub parent: Pid,
    /// With the pid it names the process.
    pub start: StartTicks,
    /// The kernel's short name, at most 15 bytes, of the first thread.
    pub short_name: String,
    /// None: a kernel thread, or we may not look.
    pub executable: Option<PathBuf>,
    /// Filled only when a rule asks for it ([`Needs::containers`]); else see [`Details`].
    pub container: Option<Container>,
    /// Has no user side: nothing to trace.
    pub kernel_thread: bool,
}

/// What naming, linking and the resource look at.
#[derive(Clone, Debug)]
pub struct Details {
    /// As given to exec, or as the program has overwritten it.
    pub command: CommandLine,
    /// The few variables that we read.
    pub environment: Environment,
    /// The effective user.
    pub user_id: Option<u32>,
    /// Where it runs.
    pub container: Option<Container>,
    /// What relative paths in the command line are relative to.
    pub working_directory: Option<PathBuf>,
    /// Inode of the pid namespace.
    pub pid_namespace: Option<u64>,
    /// Inode of the network namespace.
    pub network_namespace: Option<u64>,
    /// By name, or by the sections of the executable.
    pub runtime: Runtime,
    /// What its spans go by.
    pub service: ServiceName,
}

/// A command line. Its arguments may hold secrets, so `Debug` shows the first only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CommandLine(pub Vec<String>);

/// Bytes of a command line that are read; the rest names nothing.
const MAX_COMMAND_BYTES: usize = 32 * 1024;
/// Bytes of an environment that are read: the kernel allows more, nobody has it.
const MAX_ENVIRONMENT_BYTES: usize = 256 * 1024;
const MAX_STATUS_BYTES: usize = 16 * 1024;
const MAX_CGROUP_BYTES: usize = 64 * 1024;

impl Entry {
    /// What selection asks for.
    pub fn process(&self, needs: Needs) -> Result<Process, Error> {
        let stat = self.stat()?;
        if stat.zombie {
            return Err(Error::Gone(self.pid()));
        }
        let executable = if stat.kernel_thread {
            None
        } else {
            permitted(self.link("exe"))?.flatten()
        };
        let container = if needs.containers && !stat.kernel_thread {
            self.container()?
        } else {
            None
        };
        Ok(Process {
            pid: self.pid(),
            parent: stat.parent,
            start: stat.start,
            short_name: stat.name,
            executable: executable.map(undeleted),
            container,
            kernel_thread: stat.kernel_thread,
        })
    }

    /// What a traced process needs on top. What may not be read is left empty:
    /// a process with a poor name is better than none.
    pub fn details(&self, process: &Process) -> Result<Details, Error> {
        let command = CommandLine::parse(
            &permitted(self.read("cmdline", MAX_COMMAND_BYTES))?.unwrap_or_default(),
        );
        let environment =
            permitted(self.read("environ", MAX_ENVIRONMENT_BYTES))?.unwrap_or_default();
        let environment = Environment::parse(&environment);
        let working_directory = permitted(self.link("cwd"))?.flatten();
        let facts = naming::Facts {
            executable: process.executable.as_deref(),
            short_name: &process.short_name,
            arguments: &command.0,
            working_directory: working_directory.as_deref(),
        };
        // A file system that fails to show the executable is no reason to lose the process.
        let runtime = runtime::detect(self, &facts).unwrap_or_default();
        let service = naming::service_name(&environment, &facts);
        Ok(Details {
            user_id: effective_user(&self.read("status", MAX_STATUS_BYTES)?),
            container: self.container()?,
            pid_namespace: permitted(self.namespace("ns/pid"))?.flatten(),
            network_namespace: permitted(self.namespace("ns/net"))?.flatten(),
            command,
            environment,
            working_directory,
            runtime,
            service,
        })
    }

    fn container(&self) -> Result<Option<Container>, Error> {
        let text = self.read("cgroup", MAX_CGROUP_BYTES)?;
        Ok(container::from_cgroup(&String::from_utf8_lossy(&text)))
    }
}

impl CommandLine {
    fn parse(bytes: &[u8]) -> Self {
        let arguments = bytes
            .split(|byte| *byte == 0)
            .map(|part| String::from_utf8_lossy(part).into_owned());
        let mut arguments: Vec<_> = arguments.collect();
        // Programs that overwrite it with a shorter title leave zeros behind.
        while arguments.last().is_some_and(String::is_empty) {
            arguments.pop();
        }
        Self(arguments)
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} and {} more",
            self.0.first(),
            self.0.len().saturating_sub(1)
        )
    }
}

/// Turns "may not" into None and keeps "is gone".
fn permitted<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Denied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The second number of the `Uid:` line.
fn effective_user(status: &[u8]) -> Option<u32> {
    let status = String::from_utf8_lossy(status);
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::running::Running;
    use super::super::{NameSource, Proc};
    use super::*;
    use std::process::Command;

    /// Starts a program and waits until exec has put the command line in place.
    fn run(command: &mut Command) -> (Running, Process, Details) {
        let running = Running::start(command);
        let entry = Proc::open("/proc").unwrap().entry(running.pid()).unwrap();
        loop {
            let process = entry
                .process(Needs {
                    containers: true,
                    ..Needs::default()
                })
                .unwrap();
            let details = entry.details(&process).unwrap();
            if !details.command.0.is_empty() {
                return (running, process, details);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_running_program_tells_its_facts() {
        let (_running, process, details) = run(Command::new("sleep")
            .arg("60")
            .env("OTEL_SERVICE_NAME", "naps"));
        assert_eq!(process.parent, Pid(std::process::id()));
        assert!(process.start.0 > 0 && !process.kernel_thread);
        assert!(process.executable.unwrap().is_absolute());
        assert_eq!(details.command.0, ["sleep", "60"]);
        assert_eq!(details.user_id, Some(rustix::process::geteuid().as_raw()));
        assert!(details.network_namespace.is_some() && details.pid_namespace.is_some());
        assert_eq!(
            details.service,
            ServiceName {
                name: "naps".into(),
                source: NameSource::ServiceNameVariable
            }
        );
        assert_eq!(details.runtime, Runtime::Native);
    }

    #[test]
    fn a_renamed_and_deleted_executable_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cart service");
        std::fs::copy("/bin/sleep", &path).unwrap();
        let (_running, process, details) = run(Command::new(&path).arg("60").env_clear());
        assert_eq!(process.executable.as_deref(), Some(path.as_path()));
        assert_eq!(details.service.name, "cart service");
        std::fs::remove_file(&path).unwrap();
        let entry = Proc::open("/proc").unwrap().entry(process.pid).unwrap();
        let process = entry.process(Needs::default()).unwrap();
        assert_eq!(process.executable.as_deref(), Some(path.as_path()));
        assert_eq!(
            entry.details(&process).unwrap().service.name,
            "cart service"
        );
    }

    #[test]
    fn a_script_gives_its_name_to_the_interpreter() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("cart.pl");
        std::fs::write(&script, "sleep 60").unwrap();
        let (_running, _, details) = run(Command::new("perl").arg("-w").arg(&script).arg("x"));
        assert_eq!(
            details.service,
            ServiceName {
                name: "cart".into(),
                source: NameSource::Script
            }
        );
        let (_running, _, details) = run(Command::new("perl").arg("-e").arg("sleep 60"));
        assert_eq!(
            details.service,
            ServiceName {
                name: "perl".into(),
                source: NameSource::Executable
            }
        );
        let (_running, _, details) = run(Command::new("tail").arg("-f").arg(&script));
        assert_eq!(details.service.name, "tail");
    }

    #[test]
    fn a_command_line_does_not_show_its_arguments() {
        let command = CommandLine::parse(b"server\0--password\0secret\0\0\0");
        assert_eq!(command.0.len(), 3);
        assert_eq!(format!("{command:?}"), "Some(\"server\") and 2 more");
    }

    #[test]
    fn the_effective_user_is_read_from_status() {
        assert_eq!(effective_user(b"Name:\tx\nUid:\t1\t2\t3\t4\n"), Some(2));
        assert_eq!(effective_user(b"Uid:\t1"), None);
    }
}
