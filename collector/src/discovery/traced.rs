//! A traced process, and what changes about it.

use super::host::HostFacts;
use super::naming::ServiceName;
use super::procfs::{Pid, StartTicks};
use super::selection::Decision;
use super::{Container, Runtime, resource};
use span_model::Resource;
use std::path::PathBuf;
use std::sync::Arc;

/// A traced process, as others need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// Its thread group id.
    pub pid: Pid,
    /// Who forked it.
    pub parent: Pid,
    /// None: it was gone before we could look.
    pub start: Option<StartTicks>,
    /// Shared by its spans.
    pub resource: Arc<Resource>,
    /// What it is called, and why.
    pub service: ServiceName,
    /// Where its program lies.
    pub executable: Option<PathBuf>,
    /// Its language.
    pub runtime: Runtime,
    /// Its container.
    pub container: Option<Container>,
    /// Inode of its network namespace.
    pub network_namespace: Option<u64>,
    /// Why it is traced.
    pub decision: Decision,
}

/// What the kernel side must be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Trace it; when it is traced already, its program and resource are new.
    Trace(Arc<Traced>),
    /// Trace it no more.
    Untrace {
        /// Which.
        pid: Pid,
    },
}

impl Traced {
    /// The child of a fork, before it executes anything.
    pub(super) fn forked(&self, child: Pid, start: Option<StartTicks>, host: &HostFacts) -> Self {
        let of_parent = (self.pid, self.start);
        let resource = resource::of_fork(&self.resource, of_parent, (child, start), host);
        Self {
            pid: child,
            parent: self.pid,
            start,
            resource: Arc::new(resource),
            ..self.clone()
        }
    }
}

impl Change {
    pub(super) fn traced_pid(&self) -> Option<Pid> {
        match self {
            Self::Trace(traced) => Some(traced.pid),
            Self::Untrace { .. } => None,
        }
    }
}
