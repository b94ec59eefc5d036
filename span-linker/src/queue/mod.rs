//! Who goes on next where one thread serves many requests and keeps their order.
//!
//! ```text
//! Scene --> steps (reads, writes, rounds) --> seed --> walk --> model    now and then
//!                     \--> walk with the model --> parents, each proven by responses
//! ```
//! A loop like Python's asyncio reads all that is ready and then runs what waited for it, in
//! that order: a write belongs to the request whose read is the oldest of those that may do this
//! next. What may follow what is learned from the process's own traffic (`seed`, `model`). Who is
//! answered by a response is known, so every response tells whether the calls that lead to it
//! were dealt out right, and only near responses that do are links given. Knows nothing of the
//! window: scenes come in, parents go out.

mod model;
mod seed;
mod steps;
mod walk;

pub use steps::{Made, Scene, Served};

use model::Model;
use span_model::{ProcessKey, SpanId};
use std::collections::HashMap;

use walk::Walk;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Processes whose queues are kept; beyond, those that were idle longest go.
const MAX_PROCESSES: usize = 256;
/// A model is learned anew after so many scenes.
const FRESH_SCENES: u32 = 40;
/// After a scene that taught nothing so many are passed over, and twice as many each time.
const MAX_REST: u32 = 240;
/// Responses that a model needs to be learned from, and least share that it explains, in percent.
const LEAST_RESPONSES: usize = 40;
const LEAST_EXPLAINED_PERCENT: usize = 50;
/// A model that explains less of so many responses is learned anew.
const GOOD_PERCENT: usize = 90;
const LEAST_JUDGED: usize = 20;

/// The queues of all processes.
#[derive(Debug, Default)]
pub struct Queues {
    processes: FastMap<ProcessKey, Queue>,
    turn: u64,
    /// Queues thrown away because there were too many.
    pub forgotten: u64,
    /// What those had refused.
    refused: u64,
}

/// What is known of one process.
#[derive(Debug, Default)]
pub struct Queue {
    model: Option<Model>,
    /// Scenes until a model is to be learned, and after the next one that teaches nothing.
    rest: u32,
    next_rest: u32,
    walk: Option<Walk>,
    /// Samples that found no room.
    refused: u64,
    turn: u64,
}

/// The parent found for a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The call.
    pub call: SpanId,
    /// The request.
    pub request: SpanId,
    /// How many of the responses nearby were explained.
    pub confidence: f32,
}

/// What came of a scene.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Parents that responses prove.
    pub found: Vec<Found>,
    /// For calls whose parent is known: whether the queue says the same.
    pub graded: Vec<bool>,
}

impl Queues {
    /// The queue of a process.
    pub fn process(&mut self, key: ProcessKey) -> &mut Queue {
        self.turn += 1;
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&key) {
            self.forget_idle();
        }
        let queue = self.processes.entry(key).or_default();
        queue.turn = self.turn;
        queue
    }

    /// Samples that were not learned, and requests that were not followed, for want of room.
    pub fn refused(&self) -> u64 {
        let queues = self.processes.values().map(|queue| queue.refused);
        self.refused + queues.sum::<u64>()
    }

    fn forget_idle(&mut self) {
        let mut turns: Vec<u64> = self.processes.values().map(|queue| queue.turn).collect();
        turns.sort_unstable();
        let last = turns.get(MAX_PROCESSES / 8).copied().unwrap_or(u64::MAX);
        for (_, queue) in self.processes.extract_if(|_, queue| queue.turn < last) {
            self.forgotten += 1;
            self.refused += queue.refused;
        }
    }
}

impl Queue {
    /// A model is to be learned from the next scene.
    pub fn is_hungry(&mut self) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
        }
        self.rest == 0
    }

    /// A model is there to decide with.
    pub fn is_taught(&self) -> bool {
        self.model.is_some()
    }

    /// Up to when the requests were followed, and the calls that they wait for; none: not at all.
    pub fn followed(&self) -> Option<(u64, Vec<SpanId>)> {
        let walk = self.walk.as_ref()?;
        Some((walk.until_ns(), walk.awaited()))
    }

    /// Nothing is followed any more.
    pub fn lose(&mut self) {
        self.walk = None;
    }

    /// Learns what follows what from a scene.
    pub fn learn(&mut self, scene: &Scene) {
        let steps = steps::steps(scene, steps::Round::default());
        let seed = seed::Seed::of(&steps);
        let mut walk = Walk::default();
        walk.go(scene, &steps, &walk::Guide::Seed(&seed), u64::MAX);
        let checks = walk.checks();
        let explained = checks.iter().filter(|check| check.holds).count();
        let enough = checks.len() >= LEAST_RESPONSES
            && explained * 100 >= checks.len() * LEAST_EXPLAINED_PERCENT;
        if enough {
            let model = walk.learned();
            self.refused += model.refused;
            self.model = Some(model);
            (self.rest, self.next_rest) = (FRESH_SCENES, 1);
        } else {
            self.model = None;
            self.walk = None;
            self.rest = self.next_rest.max(1);
            self.next_rest = (self.rest * 2).min(MAX_REST);
        }
    }

    /// Follows the requests of a scene up to its end, and finds parents for the calls in it.
    pub fn decide(&mut self, scene: &Scene) -> Outcome {
        let Some(model) = &self.model else {
            return Outcome::default();
        };
        let mut walk = self.walk.take().unwrap_or_default();
        let steps = steps::steps(scene, walk.round());
        let kept = walk.go(scene, &steps, &walk::Guide::Model(model), scene.until_ns);
        let outcome = walk.outcome();
        self.judge(walk.checks());
        self.refused += kept.as_ref().map_or(0, Walk::take_refused);
        self.walk = kept;
        outcome
    }

    /// A model that explains little is learned anew, soon at first and later less often.
    fn judge(&mut self, checks: &[walk::Check]) {
        let explained = checks.iter().filter(|check| check.holds).count();
        if checks.len() < LEAST_JUDGED {
            return;
        }
        if explained * 100 >= checks.len() * GOOD_PERCENT {
            self.next_rest = 1;
        } else if self.rest > self.next_rest {
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(MAX_REST);
        }
    }
}

#[cfg(test)]
mod tests;
