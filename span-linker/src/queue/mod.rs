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

use crate::learned::{Learned, Learns};
use model::Model;
use span_model::SpanId;
use walk::Walk;

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

/// With more requests under way nothing is believed: some stand in line for a pooled connection, others
/// overtake them, and the test by responses has been fooled by that (aiohttp at 120: 14 % of the links of
/// one run in ten).
const MAX_CROWD: usize = 80;
/// Nor for so long after, and nothing is learned then: 10 s.
const CROWD_MEMORY_NS: u64 = 10_000_000_000;

/// Least share of the last so many responses that the model has explained, in percent: where it mostly
/// fails, the few that stand the test near each other do so by chance.
const LAST_RESPONSES: u32 = 128;
const LEAST_HELD_PERCENT: u32 = 90;

/// The queues of all processes.
pub type Queues = Learned<Queue, MAX_PROCESSES>;

/// What is known of one process.
#[derive(Debug, Default)]
pub struct Queue {
    model: Option<Model>,
    /// Scenes until a model is to be learned, and after the next one that teaches nothing.
    rest: u32,
    next_rest: u32,
    walk: Option<Walk>,
    /// Until when there are too many requests under way, or have been lately.
    crowded_until_ns: u64,
    /// Of the last responses, how many there were, and how many were explained.
    judged: u32,
    held: u32,
    /// Samples that were not learned, and requests that were not followed, for want of room.
    refused: u64,
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

impl Learns for Queue {
    fn refused(&self) -> u64 {
        self.refused
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
        if scene.until_ns < self.crowded_until_ns {
            return;
        }
        let steps = steps::steps(scene, steps::Round::default());
        let seed = seed::Seed::of(&steps);
        let mut walk = Walk::default();
        walk.go(scene, &steps, &walk::Guide::Seed(&seed), u64::MAX);
        let checks = walk.checks();
        let explained = checks.iter().filter(|holds| **holds).count();
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
        let mut kept = walk.go(scene, &steps, &walk::Guide::Model(model), scene.until_ns);
        self.judge(walk.checks());
        self.refused += kept.take_refused();
        self.walk = Some(kept);
        if walk.crowd() > MAX_CROWD {
            self.crowded_until_ns = scene.until_ns.saturating_add(CROWD_MEMORY_NS);
            self.model = None;
        }
        let holds = self.held * 100 >= self.judged * LEAST_HELD_PERCENT;
        if !holds || scene.until_ns < self.crowded_until_ns {
            return Outcome::default();
        }
        walk.outcome()
    }

    /// A model that explains little is learned anew, soon at first and later less often.
    fn judge(&mut self, checks: &[bool]) {
        for holds in checks {
            if self.judged >= LAST_RESPONSES {
                (self.judged, self.held) = (self.judged / 2, self.held / 2);
            }
            self.judged += 1;
            self.held += u32::from(*holds);
        }
        let explained = checks.iter().filter(|holds| **holds).count();
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
