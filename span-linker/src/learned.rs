//! What was learned of each process, for so many processes at most.

use span_model::ProcessKey;
use std::collections::HashMap;

/// What is learned of one process.
pub trait Learns: Default {
    /// Samples that it had no room for.
    fn refused(&self) -> u64;
}

/// What was learned of up to `LIMIT` processes; beyond, those that were idle longest go.
#[derive(Debug)]
pub struct Learned<T, const LIMIT: usize> {
    /// With the turn in which each was asked for last.
    processes: HashMap<ProcessKey, (u64, T), foldhash::fast::RandomState>,
    turn: u64,
    /// Processes thrown away because there were too many.
    pub forgotten: u64,
    /// What those had refused.
    refused: u64,
}

impl<T, const LIMIT: usize> Default for Learned<T, LIMIT> {
    fn default() -> Self {
        Self {
            processes: HashMap::default(),
            turn: 0,
            forgotten: 0,
            refused: 0,
        }
    }
}

impl<T: Learns, const LIMIT: usize> Learned<T, LIMIT> {
    /// What was learned of a process, to add to it.
    pub fn process(&mut self, key: ProcessKey) -> &mut T {
        self.turn += 1;
        if self.processes.len() >= LIMIT && !self.processes.contains_key(&key) {
            self.forget_idle();
        }
        let (turn, process) = self.processes.entry(key).or_default();
        *turn = self.turn;
        process
    }

    /// What was learned of a process, if anything was.
    pub fn get(&self, key: ProcessKey) -> Option<&T> {
        self.processes.get(&key).map(|(_, process)| process)
    }

    /// What was learned of all processes.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.processes.values().map(|(_, process)| process)
    }

    /// Samples that were not learned because there was no room for them.
    pub fn refused(&self) -> u64 {
        self.refused + self.all().map(Learns::refused).sum::<u64>()
    }

    /// Throws away the eighth that was idle longest: looking for one would cost as much, at
    /// every turn.
    fn forget_idle(&mut self) {
        let mut turns: Vec<u64> = self.processes.values().map(|(turn, _)| *turn).collect();
        turns.sort_unstable();
        let last = turns.get(LIMIT / 8).copied().unwrap_or(u64::MAX);
        for (_, (_, process)) in self.processes.extract_if(|_, (turn, _)| *turn < last) {
            self.forgotten += 1;
            self.refused += process.refused();
        }
    }
}
