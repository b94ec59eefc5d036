//! Keeps the traced processes, and answers which resource a span belongs to.
//!
//! ```text
//!   scan, exec ---> known --include--> traced --exit--> departed --grace--> forgotten
//!   fork, listen,     |  <--exclude---   |                  ^
//!   connect           '------exit--------|------------------'
//! ```
//! Events may come late, twice, out of order or not at all: each is only a
//! reason to look at `/proc` again, and [`Table::scan`] finds what was missed.

use super::departed::Departed;
use super::host::{HostFacts, Users};
use super::naming::ServiceName;
use super::procfs::{Pid, Proc, StartTicks};
use super::selection::{Decision, Selector};
use super::sockets::{Ports, SocketTables};
use super::{Container, Details, Error, Process, Runtime, resource};
use crate::clock::MonotonicNs;
use span_model::Resource;
use std::collections::{HashMap, HashSet};
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

/// Bounds of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes traced at a time.
    pub traced: usize,
    /// Processes remembered at a time, traced or not.
    pub known: usize,
    /// Processes that have exited and are still remembered.
    pub departed: usize,
    /// How long those are remembered, for spans that come late.
    pub grace_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            traced: 10_000,
            known: 65_536,
            departed: 4096,
            grace_ns: 60_000_000_000,
        }
    }
}

/// What the table has refused or missed, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Selected, but too many were traced.
    pub refused_traced: u64,
    /// Not even remembered, for there were too many.
    pub refused_known: u64,
    /// Exited before we could look.
    pub gone: u64,
    /// We may not look.
    pub denied: u64,
    /// The kernel gave something else than we expect.
    pub unreadable: u64,
    /// Exited processes forgotten before their grace was over.
    pub departed_evicted: u64,
}

/// All processes of the host, as far as they matter.
#[derive(Debug)]
pub struct Table {
    proc: Proc,
    selector: Selector,
    host: HostFacts,
    users: Users,
    limits: Limits,
    known: HashMap<Pid, Known>,
    traced: usize,
    departed: Departed,
    counts: Counts,
}

#[derive(Debug)]
struct Known {
    start: Option<StartTicks>,
    parent: Pid,
    short_name: String,
    ports: Ports,
    decision: Decision,
    /// A traced process forked it: traced too unless a rule says otherwise.
    inherits: bool,
    traced: Option<Arc<Traced>>,
    /// It was read in the middle of exec, when it has no command line yet.
    unfinished: bool,
}

/// Where the ports of a process come from.
enum PortSource<'a> {
    Read(&'a mut SocketTables),
    Given(Ports),
}

impl Table {
    /// An empty table; [`Table::scan`] fills it.
    pub fn new(
        proc: Proc,
        selector: Selector,
        host: HostFacts,
        users: Users,
        limits: Limits,
    ) -> Self {
        Self {
            proc,
            selector,
            host,
            users,
            limits,
            known: HashMap::new(),
            traced: 0,
            departed: Departed::default(),
            counts: Counts::default(),
        }
    }

    /// Compares the table with `/proc`. The first scan finds everything, later
    /// ones what events have missed, at a fraction of the cost: known processes
    /// are looked at only to see whether they are still the same.
    pub fn scan(&mut self, now: MonotonicNs) -> Result<Vec<Change>, Error> {
        let listed = self.proc.pids()?;
        let mut changes = Vec::new();
        let present: HashSet<Pid> = listed.iter().copied().collect();
        let vanished: Vec<Pid> = self
            .known
            .keys()
            .filter(|pid| !present.contains(pid))
            .copied()
            .collect();
        for pid in vanished {
            self.forget(pid, now, &mut changes);
        }
        let mut tables = SocketTables::default();
        for pid in listed {
            if self.must_look(pid) {
                self.look(pid, false, PortSource::Read(&mut tables), now, &mut changes);
            }
        }
        self.spread(now, &mut changes);
        self.expire(now);
        Ok(changes)
    }

    /// A process has executed another program.
    pub fn on_exec(&mut self, pid: Pid, now: MonotonicNs) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut tables = SocketTables::default();
        self.look(pid, false, PortSource::Read(&mut tables), now, &mut changes);
        self.spread(now, &mut changes);
        changes
    }

    /// A process has forked. Until it executes something, the child is what its
    /// parent is: same name, same decision.
    pub fn on_fork(&mut self, parent: Pid, child: Pid, now: MonotonicNs) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(of_parent) = self.known.get(&parent) else {
            return self.on_exec(child, now);
        };
        let start = self
            .proc
            .entry(child)
            .and_then(|entry| entry.stat())
            .ok()
            .map(|stat| stat.start);
        if self
            .known
            .get(&child)
            .is_some_and(|known| known.start == start)
        {
            return changes;
        }
        let mut known = Known {
            start,
            parent,
            short_name: of_parent.short_name.clone(),
            ports: of_parent.ports.clone(),
            decision: of_parent.decision.clone(),
            inherits: of_parent.inherits || of_parent.traced.is_some(),
            traced: None,
            unfinished: false,
        };
        let of_parent = of_parent.traced.clone();
        self.forget(child, now, &mut changes);
        if let Some(of_parent) = of_parent
            && self.has_room()
        {
            let ids = ((parent, of_parent.start), (child, start));
            let resource = resource::of_fork(&of_parent.resource, ids.0, ids.1, &self.host);
            let resource = Arc::new(resource);
            let traced = Arc::new(Traced {
                pid: child,
                parent,
                start,
                resource,
                ..(*of_parent).clone()
            });
            changes.push(Change::Trace(Arc::clone(&traced)));
            known.traced = Some(traced);
        }
        self.remember(child, known, now, &mut changes);
        changes
    }

    /// A process has exited, all of its threads. `now` is the time of the exit:
    /// spans up to then belong to it even when the pid is given again.
    pub fn on_exit(&mut self, pid: Pid, now: MonotonicNs) -> Vec<Change> {
        let mut changes = Vec::new();
        self.forget(pid, now, &mut changes);
        self.expire(now);
        changes
    }

    /// A process listens on a TCP port.
    pub fn on_listen(&mut self, pid: Pid, port: u16, now: MonotonicNs) -> Vec<Change> {
        if !self.selector.mentions_listen_port(port) {
            return Vec::new();
        }
        self.on_port(pid, now, |ports| ports.listening.insert(port))
    }

    /// A process connects to a TCP port.
    pub fn on_connect(&mut self, pid: Pid, port: u16, now: MonotonicNs) -> Vec<Change> {
        if !self.selector.mentions_peer_port(port) {
            return Vec::new();
        }
        self.on_port(pid, now, |ports| ports.peers.insert(port))
    }

    /// The traced processes, in no order.
    pub fn traced(&self) -> impl Iterator<Item = &Arc<Traced>> {
        self.known
            .values()
            .filter_map(|known| known.traced.as_ref())
    }

    /// Whose a span of this pid and time is. Exited processes are remembered for
    /// a grace period; a pid that was given again is told apart by the time.
    pub fn at(&self, pid: Pid, time: MonotonicNs) -> Option<&Arc<Traced>> {
        let live = || self.known.get(&pid)?.traced.as_ref();
        self.departed
            .at(pid, time)
            .or_else(live)
            .or_else(|| self.departed.last(pid))
    }

    /// What was refused or missed.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many processes are known, traced or not.
    pub fn known(&self) -> usize {
        self.known.len()
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.traced < self.limits.traced;
        if !has_room {
            self.counts.refused_traced += 1;
        }
        has_room
    }

    /// Whether a listed process is new, another one, or has executed something
    /// that we have not heard of: then the kernel has given it another name.
    fn must_look(&self, pid: Pid) -> bool {
        let Some(known) = self.known.get(&pid) else {
            return true;
        };
        let waits_for_room = known.decision.include && known.traced.is_none();
        if waits_for_room && self.traced < self.limits.traced {
            return true;
        }
        let Ok(stat) = self.proc.entry(pid).and_then(|entry| entry.stat()) else {
            return false;
        };
        known.unfinished || known.start != Some(stat.start) || known.short_name != stat.name
    }

    fn on_port(
        &mut self,
        pid: Pid,
        now: MonotonicNs,
        add: impl Fn(&mut Ports) -> bool,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.known.contains_key(&pid) {
            let mut tables = SocketTables::default();
            self.look(pid, false, PortSource::Read(&mut tables), now, &mut changes);
        }
        let Some(known) = self.known.get(&pid) else {
            return changes;
        };
        let mut ports = known.ports.clone();
        if add(&mut ports) {
            self.look(pid, false, PortSource::Given(ports), now, &mut changes);
            self.spread(now, &mut changes);
        }
        changes
    }

    /// Reads a process and decides about it. A process that cannot be read stays what it was.
    fn look(
        &mut self,
        pid: Pid,
        inherits: bool,
        ports: PortSource<'_>,
        now: MonotonicNs,
        changes: &mut Vec<Change>,
    ) {
        if let Err(error) = self.try_look(pid, inherits, ports, now, changes) {
            match error {
                Error::Gone(_) => self.counts.gone += 1,
                Error::Denied { .. } => self.counts.denied += 1,
                _ => self.counts.unreadable += 1,
            }
        }
    }

    fn try_look(
        &mut self,
        pid: Pid,
        inherits: bool,
        ports: PortSource<'_>,
        now: MonotonicNs,
        changes: &mut Vec<Change>,
    ) -> Result<(), Error> {
        let needs = self.selector.needs();
        let entry = self.proc.entry(pid)?;
        let process = entry.process(needs)?;
        let ports = match ports {
            PortSource::Given(ports) => ports,
            PortSource::Read(tables) => self.mentioned(tables.ports(&entry, needs)?),
        };
        let same = self
            .known
            .get(&pid)
            .filter(|known| known.start.is_none_or(|start| start == process.start));
        let was_traced = same.is_some_and(|known| known.traced.is_some());
        let inherits =
            inherits || same.is_some_and(|known| known.inherits) || self.is_traced(process.parent);
        let decision = self.decide(&process, &ports, inherits);
        let mut unfinished = false;
        let traced = if decision.include && (was_traced || self.has_room()) {
            let details = entry.details(&process)?;
            unfinished = details.command.0.is_empty();
            Some(Arc::new(self.describe(&process, details, &decision)))
        } else {
            None
        };
        let known = Known {
            start: Some(process.start),
            parent: process.parent,
            short_name: process.short_name,
            ports,
            decision,
            inherits,
            traced,
            unfinished,
        };
        self.replace(pid, known, now, changes);
        Ok(())
    }

    /// Puts a process in the place of what was known by its pid, and says what
    /// that changes for the kernel side.
    fn replace(&mut self, pid: Pid, known: Known, now: MonotonicNs, changes: &mut Vec<Change>) {
        let before = self.known.get(&pid).and_then(|known| known.traced.clone());
        match (before, &known.traced) {
            (Some(before), Some(traced)) if before.resource == traced.resource => {}
            (_, Some(traced)) => {
                let traced = Arc::clone(traced);
                self.forget(pid, now, &mut Vec::new());
                changes.push(Change::Trace(traced));
            }
            (_, None) => self.forget(pid, now, changes),
        }
        self.remember(pid, known, now, changes);
    }

    fn decide(&self, process: &Process, ports: &Ports, inherits: bool) -> Decision {
        let decision = self.selector.decide(process, ports);
        if inherits
            && decision.rule.is_none()
            && self.selector.may_inherit(process)
            && !decision.include
        {
            let why = format!("child of traced process {}", process.parent);
            return Decision {
                include: true,
                rule: None,
                why,
            };
        }
        decision
    }

    fn describe(&self, process: &Process, details: Details, decision: &Decision) -> Traced {
        Traced {
            pid: process.pid,
            parent: process.parent,
            start: Some(process.start),
            resource: Arc::new(resource::build(process, &details, &self.host, &self.users)),
            service: details.service,
            executable: process.executable.clone(),
            runtime: details.runtime,
            container: details.container,
            network_namespace: details.network_namespace,
            decision: decision.clone(),
        }
    }

    fn is_traced(&self, pid: Pid) -> bool {
        self.known
            .get(&pid)
            .is_some_and(|known| known.traced.is_some())
    }

    /// Only ports that some rule mentions are kept.
    fn mentioned(&self, mut ports: Ports) -> Ports {
        ports
            .listening
            .retain(|port| self.selector.mentions_listen_port(*port));
        ports
            .peers
            .retain(|port| self.selector.mentions_peer_port(*port));
        ports
    }

    /// Children of newly traced processes are traced too, and their children.
    fn spread(&mut self, now: MonotonicNs, changes: &mut Vec<Change>) {
        let mut from = 0;
        while from < changes.len() {
            let roots: HashSet<Pid> = changes
                .iter()
                .skip(from)
                .filter_map(Change::traced_pid)
                .collect();
            from = changes.len();
            let heirs = self.known.iter().filter(|(_, known)| {
                roots.contains(&known.parent)
                    && known.decision.rule.is_none()
                    && !known.decision.include
            });
            let heirs: Vec<(Pid, Ports)> = heirs
                .map(|(pid, known)| (*pid, known.ports.clone()))
                .collect();
            for (pid, ports) in heirs {
                self.look(pid, true, PortSource::Given(ports), now, changes);
            }
        }
    }

    fn remember(&mut self, pid: Pid, known: Known, now: MonotonicNs, changes: &mut Vec<Change>) {
        if !self.known.contains_key(&pid) && self.known.len() >= self.limits.known {
            self.counts.refused_known += 1;
            if known.traced.is_some() {
                changes.retain(|change| change.traced_pid() != Some(pid));
            }
            return;
        }
        let is_traced = known.traced.is_some();
        let was_traced = self
            .known
            .insert(pid, known)
            .is_some_and(|before| before.traced.is_some());
        self.traced =
            (self.traced + usize::from(is_traced)).saturating_sub(usize::from(was_traced));
        self.expire(now);
    }

    fn forget(&mut self, pid: Pid, now: MonotonicNs, changes: &mut Vec<Change>) {
        let Some(traced) = self.known.remove(&pid).and_then(|known| known.traced) else {
            return;
        };
        self.traced = self.traced.saturating_sub(1);
        changes.push(Change::Untrace { pid });
        self.departed.add(traced, now);
        if self.departed.len() > self.limits.departed {
            self.counts.departed_evicted += 1;
            self.departed.drop_oldest();
        }
    }

    fn expire(&mut self, now: MonotonicNs) {
        let since = MonotonicNs(now.0.saturating_sub(self.limits.grace_ns));
        self.departed.drop_before(since);
    }
}

impl Change {
    fn traced_pid(&self) -> Option<Pid> {
        match self {
            Self::Trace(traced) => Some(traced.pid),
            Self::Untrace { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
