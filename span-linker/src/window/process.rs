//! What is known of a process across its spans.

use super::FastMap;
use super::entry::Moment;
use super::trust::Trust;
use span_model::ProcessKey;
use std::sync::Arc;

/// Processes without spans in the window are remembered up to this many.
const MAX_IDLE: usize = 16_384;

/// One process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// `service.name`, once a finished span told it.
    pub service: Option<Arc<str>>,
    /// Hash of what says which clock its times are of, once a finished span told it.
    pub clock: Option<u64>,
    /// How far thread evidence can be trusted in it.
    pub trust: Trust,
    entries: u32,
    seen: Moment,
}

/// All processes.
#[derive(Debug, Default)]
pub struct Processes {
    known: FastMap<ProcessKey, Process>,
    idle: usize,
}

impl Processes {
    pub fn get(&self, key: ProcessKey) -> Option<&Process> {
        self.known.get(&key)
    }

    pub fn entry(&mut self, key: ProcessKey) -> &mut Process {
        self.known.entry(key).or_insert_with(|| {
            self.idle += 1;
            Process::default()
        })
    }

    /// A span of the process came into the window.
    pub fn enter(&mut self, key: ProcessKey, now: Moment) {
        let process = self.entry(key);
        process.seen = now;
        process.entries += 1;
        if process.entries == 1 {
            self.idle = self.idle.saturating_sub(1);
        }
    }

    /// A span of the process left the window.
    pub fn leave(&mut self, key: ProcessKey) {
        if let Some(process) = self.known.get_mut(&key) {
            process.entries = process.entries.saturating_sub(1);
            if process.entries == 0 {
                self.idle += 1;
            }
        }
    }

    /// When too many idle processes are remembered, forgets those not seen since.
    ///
    /// An idle process keeps its measurements as long as there is room, because
    /// they were slow to come by.
    pub fn expire(&mut self, before: Moment) {
        if self.idle > MAX_IDLE {
            self.known
                .retain(|_, process| process.entries > 0 || process.seen >= before);
            self.idle = self
                .known
                .values()
                .filter(|process| process.entries == 0)
                .count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_processes_are_forgotten_only_when_there_are_too_many() {
        let mut processes = Processes::default();
        let count = u64::try_from(MAX_IDLE).unwrap() + 1;
        for key in 0..count {
            processes.enter(ProcessKey(key), Moment(key));
            processes.leave(ProcessKey(key));
            if key == 10 {
                processes.expire(Moment(count));
                assert_eq!(processes.known.len(), 11);
            }
        }
        processes.enter(ProcessKey(3), Moment(3));
        processes.entry(ProcessKey(count + 1));
        processes.expire(Moment(count + 1));
        assert_eq!(processes.known.len(), 1);
    }
}
