//! Which processes are traced, and what they are called.
//!
//! Owns what is read from `/proc`, the selection rules, the names and the
//! resources of processes, and the table of traced ones. Leaves to others:
//! hearing of exec, fork, exit, listen and connect (`capture`), and what the
//! Kubernetes API knows of a container (`k8s`).
//!
//! All pids are thread group ids as the collector's own pid namespace numbers
//! them. The kernel side reports pids of the initial namespace, so the collector
//! must run in that one; `doctor` says so when it does not.

mod container;
mod departed;
mod environment;
mod host;
mod naming;
mod process;
mod procfs;
mod resource;
#[cfg(test)]
mod running;
mod runtime;
mod selection;
mod sockets;
mod table;
mod traced;

pub use container::Container;
pub use environment::Environment;
pub use host::{HostFacts, Users};
pub use naming::{NameSource, ServiceName};
pub use process::{CommandLine, Details, Process};
pub use procfs::{Entry, Pid, Proc, StartTicks};
pub use resource::build as build_resource;
pub use runtime::{GoVersion, Runtime};
pub use selection::{Action, Decision, Needs, PortSet, Rule, Select, SelectSchema, Selector};
pub use sockets::{Ports, SocketTables};
pub use table::{Counts, Limits, Table};
pub use traced::{Change, Traced};

/// Why something could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process has exited, or is a zombie. Normal: `/proc` is a race.
    #[error("process {0} is gone")]
    Gone(Pid),
    /// The collector lacks a capability, most likely `CAP_SYS_PTRACE`.
    #[error("may not read {what} of process {pid}")]
    Denied {
        /// Whose.
        pid: Pid,
        /// Which file.
        what: &'static str,
    },
    /// Something else went wrong.
    #[error("cannot read {what} of process {pid}")]
    Unreadable {
        /// Whose.
        pid: Pid,
        /// Which file.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The directory of all processes cannot be read.
    #[error("cannot list processes in {path}")]
    Listing {
        /// Usually `/proc`.
        path: std::path::PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A selection rule has a pattern that is none.
    #[error("rule {rule}: {pattern:?} is not a glob")]
    Glob {
        /// Counted from 1, as people do.
        rule: usize,
        /// As it stands in the configuration.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A condition with an empty list can never hold: surely a mistake.
    #[error("rule {rule}: {condition} names nothing")]
    EmptyCondition {
        /// Counted from 1.
        rule: usize,
        /// The condition's key.
        condition: &'static str,
    },
}
