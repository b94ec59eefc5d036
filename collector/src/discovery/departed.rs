//! Traced processes that have exited, kept for spans that come late.

use super::procfs::Pid;
use super::traced::Traced;
use crate::clock::MonotonicNs;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// In order of their exit; a pid may be in it several times.
#[derive(Debug, Default)]
pub(super) struct Departed {
    by_pid: HashMap<Pid, VecDeque<Past>>,
    order: VecDeque<(MonotonicNs, Pid)>,
}

#[derive(Debug)]
struct Past {
    until: MonotonicNs,
    traced: Arc<Traced>,
}

impl Departed {
    pub fn add(&mut self, traced: Arc<Traced>, until: MonotonicNs) {
        let pid = traced.pid;
        self.order.push_back((until, pid));
        self.by_pid
            .entry(pid)
            .or_default()
            .push_back(Past { until, traced });
    }

    /// Who had the pid at that time. None: whoever has it now, if anybody.
    pub fn at(&self, pid: Pid, time: MonotonicNs) -> Option<&Arc<Traced>> {
        let past = self.by_pid.get(&pid)?;
        past.iter()
            .find(|past| time <= past.until)
            .map(|past| &past.traced)
    }

    /// Who had the pid last.
    pub fn last(&self, pid: Pid) -> Option<&Arc<Traced>> {
        self.by_pid.get(&pid)?.back().map(|past| &past.traced)
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn drop_before(&mut self, time: MonotonicNs) {
        while self.order.front().is_some_and(|(until, _)| *until < time) {
            self.drop_oldest();
        }
    }

    pub fn drop_oldest(&mut self) {
        let Some((_, pid)) = self.order.pop_front() else {
            return;
        };
        if let Some(past) = self.by_pid.get_mut(&pid) {
            past.pop_front();
            if past.is_empty() {
                self.by_pid.remove(&pid);
            }
        }
    }
}
