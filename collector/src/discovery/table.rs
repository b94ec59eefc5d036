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
use super::procfs::{Entry, Pid, Proc, StartTicks};
use super::selection::{Decision, Needs, Selector};
use super::sockets::{Ports, SocketTables};
use super::traced::{Change, Traced};
use super::{Details, Error, Process, resource};
use crate::clock::MonotonicNs;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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

/// Each scan checks one in so many of the processes that it knows already: a
/// check costs 12 µs, and what it finds is rare.
const CHECK_ROUNDS: u32 = 8;

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
    /// Exited before an event about it was looked at.
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
    rounds: u32,
    /// Read at most once between two scans, and anew once a port that matters is used.
    sockets: SocketTables,
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

/// One call of the table: its time, what it has found out.
struct Round {
    now: MonotonicNs,
    changes: Vec<Change>,
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
            rounds: 0,
            sockets: SocketTables::default(),
        }
    }

    /// Compares the table with `/proc`. The first scan finds everything, later
    /// ones what events have missed: at once which processes have come and gone,
    /// within `CHECK_ROUNDS` scans which have executed something or have been
    /// replaced. Measured with 1,000 processes, release build: 2 ms for a later
    /// scan (readdir is most of it; 12 ms if it checked all), 30 ms for a first
    /// one that selects nothing, 65 ms when rules ask for ports, 105 ms when
    /// everything is traced.
    pub fn scan(&mut self, now: MonotonicNs) -> Result<Vec<Change>, Error> {
        let listed = self.proc.pids()?;
        self.sockets = SocketTables::default();
        let mut round = Round::new(now);
        let present: HashSet<Pid> = listed.iter().copied().collect();
        let vanished = self.known.keys().filter(|pid| !present.contains(pid));
        for pid in vanished.copied().collect::<Vec<_>>() {
            self.forget(pid, &mut round);
        }
        for pid in listed {
            if self.must_look(pid) {
                match self.try_look(pid, None, false, &mut round) {
                    // Scans race with exits and meet zombies: nothing was missed.
                    Ok(()) | Err(Error::Gone(_)) => {}
                    Err(error) => self.count(&error),
                }
            }
        }
        self.spread(&mut round);
        self.expire(now);
        self.rounds = self.rounds.wrapping_add(1);
        Ok(round.changes)
    }

    /// Selects with other rules. What stays selected stays as it is, for the kernel side
    /// too; ports that are not in use any more are forgotten.
    pub fn reselect(&mut self, selector: Selector, now: MonotonicNs) -> Result<Vec<Change>, Error> {
        let rules = std::mem::replace(&mut self.selector, selector);
        let before = std::mem::take(&mut self.known);
        self.traced = 0;
        let mut round = Round::new(now);
        match self.scan(now) {
            Ok(changes) => round.changes = changes,
            Err(error) => {
                self.traced = before
                    .values()
                    .filter(|known| known.traced.is_some())
                    .count();
                (self.selector, self.known) = (rules, before);
                return Err(error);
            }
        }
        let was_traced = |pid| before.get(pid).is_some_and(|known| known.traced.is_some());
        for (pid, known) in &before {
            // Traced for the sake of a parent that is gone, and cannot be asked any more.
            if known.inherits && known.traced.is_some() && !was_traced(&known.parent) {
                self.look(*pid, None, true, &mut round);
            }
        }
        self.spread(&mut round);
        let mut changes = Vec::new();
        let mut same = HashSet::new();
        for (pid, known) in before {
            let Some(old) = known.traced else { continue };
            let new = self
                .known
                .get_mut(&pid)
                .and_then(|known| known.traced.as_mut());
            match new {
                Some(new) if new.start == old.start && new.executable == old.executable => {
                    // Spans keep their resource, though its parent may be another by now.
                    let decision = new.decision.clone();
                    *new = Arc::new(Traced {
                        decision,
                        ..(*old).clone()
                    });
                    same.insert(pid);
                }
                _ => {
                    changes.push(Change::Untrace { pid });
                    self.depart(old, now);
                }
            }
        }
        let is_new = |change: &Change| !change.traced_pid().is_some_and(|pid| same.contains(&pid));
        changes.extend(round.changes.into_iter().filter(is_new));
        Ok(changes)
    }

    /// A process has executed another program.
    pub fn on_exec(&mut self, pid: Pid, now: MonotonicNs) -> Vec<Change> {
        let mut round = Round::new(now);
        self.look(pid, None, false, &mut round);
        self.spread(&mut round);
        round.changes
    }

    /// A process has forked. Until it executes something, the child is what its
    /// parent is: same name, same decision.
    pub fn on_fork(&mut self, parent: Pid, child: Pid, now: MonotonicNs) -> Vec<Change> {
        let Some(of_parent) = self.known.get(&parent) else {
            return self.on_exec(child, now);
        };
        let mut round = Round::new(now);
        let stat = self.proc.entry(child).and_then(|entry| entry.stat());
        let start = stat.ok().map(|stat| stat.start);
        if self
            .known
            .get(&child)
            .is_some_and(|known| known.start == start)
        {
            return round.changes;
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
        self.forget(child, &mut round);
        if let Some(of_parent) = of_parent
            && self.has_room()
        {
            known.traced = Some(Arc::new(of_parent.forked(child, start, &self.host)));
        }
        self.replace(child, known, &mut round);
        round.changes
    }

    /// A process has exited, all of its threads. `now` is the time of the exit:
    /// spans up to then belong to it even when the pid is given again.
    pub fn on_exit(&mut self, pid: Pid, now: MonotonicNs) -> Vec<Change> {
        let mut round = Round::new(now);
        self.forget(pid, &mut round);
        self.expire(now);
        round.changes
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
        if known.unfinished || waits_for_room && self.traced < self.limits.traced {
            return true;
        }
        if pid.0 % CHECK_ROUNDS != self.rounds % CHECK_ROUNDS {
            return false;
        }
        let stat = self.proc.entry(pid).and_then(|entry| entry.stat());
        stat.is_ok_and(|stat| known.start != Some(stat.start) || known.short_name != stat.name)
    }

    fn on_port(
        &mut self,
        pid: Pid,
        now: MonotonicNs,
        add: impl Fn(&mut Ports) -> bool,
    ) -> Vec<Change> {
        self.sockets = SocketTables::default();
        let mut round = Round::new(now);
        if !self.known.contains_key(&pid) {
            self.look(pid, None, false, &mut round);
        }
        if let Some(known) = self.known.get(&pid) {
            let mut ports = known.ports.clone();
            if add(&mut ports) {
                self.look(pid, Some(ports), false, &mut round);
            }
        }
        self.spread(&mut round);
        round.changes
    }

    /// Reads a process and decides about it. A process that cannot be read stays what it was.
    fn look(&mut self, pid: Pid, ports: Option<Ports>, inherits: bool, round: &mut Round) {
        if let Err(error) = self.try_look(pid, ports, inherits, round) {
            self.count(&error);
        }
    }

    fn count(&mut self, error: &Error) {
        match error {
            Error::Gone(_) => self.counts.gone += 1,
            Error::Denied { .. } => self.counts.denied += 1,
            _ => self.counts.unreadable += 1,
        }
    }

    /// Without `ports` they are read.
    fn try_look(
        &mut self,
        pid: Pid,
        ports: Option<Ports>,
        inherits: bool,
        round: &mut Round,
    ) -> Result<(), Error> {
        let needs = self.selector.needs();
        let entry = self.proc.entry(pid)?;
        let process = entry.process(needs)?;
        let ports = match ports {
            Some(ports) => ports,
            None if process.kernel_thread => Ports::default(),
            None => self.mentioned_ports(&entry, needs)?,
        };
        self.counts.denied += std::mem::take(&mut self.sockets.denied);
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
        self.replace(pid, known, round);
        Ok(())
    }

    /// Puts a process in the place of what was known by its pid, and says what
    /// that changes for the kernel side.
    fn replace(&mut self, pid: Pid, known: Known, round: &mut Round) {
        let before = self.known.get(&pid).map(|known| known.traced.clone());
        if before.is_none() && self.known.len() >= self.limits.known {
            self.counts.refused_known += 1;
            return;
        }
        let before = before.flatten();
        let is_same = match (&before, &known.traced) {
            (None, None) => true,
            (Some(before), Some(traced)) => before.resource == traced.resource,
            _ => false,
        };
        if !is_same {
            self.forget(pid, round);
        }
        if let Some(traced) = &known.traced {
            if !is_same {
                // Tracing it anew says what untracing it first would say.
                if round.changes.last() == Some(&Change::Untrace { pid }) {
                    round.changes.pop();
                }
                round.changes.push(Change::Trace(Arc::clone(traced)));
            }
            self.traced += usize::from(!is_same);
        }
        self.known.insert(pid, known);
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
    fn mentioned_ports(&mut self, entry: &Entry, needs: Needs) -> Result<Ports, Error> {
        let mut ports = self.sockets.ports(entry, needs)?;
        ports
            .listening
            .retain(|port| self.selector.mentions_listen_port(*port));
        ports
            .peers
            .retain(|port| self.selector.mentions_peer_port(*port));
        Ok(ports)
    }

    /// Children of newly traced processes are traced too, and their children.
    fn spread(&mut self, round: &mut Round) {
        let mut from = 0;
        while from < round.changes.len() {
            let new = round.changes.iter().skip(from);
            let roots: HashSet<Pid> = new.filter_map(Change::traced_pid).collect();
            from = round.changes.len();
            let is_heir = |known: &Known| {
                let undecided = known.decision.rule.is_none() && !known.decision.include;
                undecided && roots.contains(&known.parent)
            };
            let heirs = self.known.iter().filter(|(_, known)| is_heir(known));
            let heirs: Vec<_> = heirs
                .map(|(pid, known)| (*pid, known.ports.clone()))
                .collect();
            for (pid, ports) in heirs {
                self.look(pid, Some(ports), true, round);
            }
        }
    }

    fn forget(&mut self, pid: Pid, round: &mut Round) {
        let Some(traced) = self.known.remove(&pid).and_then(|known| known.traced) else {
            return;
        };
        self.traced = self.traced.saturating_sub(1);
        round.changes.push(Change::Untrace { pid });
        self.depart(traced, round.now);
    }

    /// Spans of it may come still.
    fn depart(&mut self, traced: Arc<Traced>, now: MonotonicNs) {
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

impl Round {
    fn new(now: MonotonicNs) -> Self {
        Self {
            now,
            changes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
