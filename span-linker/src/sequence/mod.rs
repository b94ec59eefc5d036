//! The rung of last resort: timing and sequence.
//!
//! ```text
//! Scene (requests, calls, known parents) --> joint --> choices, confidences
//!                     ^ Model <------------- learn <------'
//! ```
//! Owns what each process has taught: how its requests go on (`model`), where the requests
//! stand that are under way, and up to when its calls are decided. Time is cut into
//! stretches by the start of calls; a stretch is decided with a look at what comes after it,
//! and stands. Knows nothing of the window: scenes come in, choices go out.

mod gap;
mod joint;
mod model;
mod pair;
mod rivals;
mod state;

pub use joint::{Choice, Scene};
pub use state::{Call, Request, State};

use crate::learned::{Learned, Learns};
use joint::Deal;
use model::Model;
use span_model::SpanId;
use std::collections::HashMap;

/// Processes whose models are kept; beyond, those that were idle longest go.
const MAX_PROCESSES: usize = 4096;
/// A model that has learned less tells nothing.
const TAUGHT: f32 = 20.0;
/// A model that has learned less goes over a stretch again with what it has learned from it,
/// until it would choose the same, but not more often than this.
const YOUNG: f32 = 1500.0;
const REHEARSALS: usize = 20;
/// Links less sure than this teach nothing.
const LEAST_TEACHING: f32 = 0.2;

/// What the processes have taught.
pub type Sequences = Learned<Process, MAX_PROCESSES>;

/// What one process has taught.
#[derive(Debug, Default)]
pub struct Process {
    model: Model,
    /// Requests that were under way when the last stretch ended.
    under_way: HashMap<SpanId, (State, f32), foldhash::fast::RandomState>,
    /// Calls that began before are decided.
    decided_until_ns: u64,
    /// Calls were left to it, at least once.
    pub(crate) needed: bool,
}

impl Learns for Process {
    fn refused(&self) -> u64 {
        self.model.refused
    }
}

impl Process {
    /// Calls of the process that began before this are decided.
    pub fn decided_until_ns(&self) -> u64 {
        self.decided_until_ns
    }

    /// Where a request stands, as the last stretch left it.
    pub fn state_of(&self, request: SpanId) -> Option<State> {
        self.under_way.get(&request).map(|(state, _)| *state)
    }

    /// A kind as this process's model knows it.
    pub fn kind(&mut self, kind: u32) -> u32 {
        self.model.kind(kind)
    }

    /// A stretch in which nothing is left to choose, or nothing is to be learned.
    pub fn skip(&mut self, until_ns: u64) {
        self.decided_until_ns = self.decided_until_ns.max(until_ns);
        self.under_way.clear();
    }

    /// Samples learned so far.
    pub fn learned(&self) -> f32 {
        self.model.learned()
    }

    /// Chooses the parents of the scene's calls. Those that begin before `until_ns`
    /// are decided by that, and teach.
    pub fn decide(&mut self, scene: &Scene, until_ns: u64) -> Vec<Choice> {
        let mut deal = joint::choose(scene, &mut self.model, false);
        if self.is_young() {
            for _ in 0..REHEARSALS {
                let mut model = self.model.clone();
                let rehearsed = self.lessons(scene, &deal, u64::MAX);
                rehearsed.teach(&mut model);
                let before = std::mem::replace(&mut deal, joint::choose(scene, &mut model, true));
                if deal.parents().eq(before.parents()) {
                    break;
                }
            }
        }
        let lessons = self.lessons(scene, &deal, until_ns);
        lessons.teach(&mut self.model);
        self.under_way = lessons.under_way;
        if self.decided_until_ns > 0 && until_ns > self.decided_until_ns {
            let first = scene.calls.first().map_or(until_ns, |call| call.start_ns);
            let since = first.max(self.decided_until_ns);
            self.model.observed(until_ns.saturating_sub(since));
        }
        self.decided_until_ns = self.decided_until_ns.max(until_ns);
        deal.choices
    }

    /// What the process does was seen often enough to tell one request from another.
    pub fn is_taught(&self) -> bool {
        self.model.learned() >= TAUGHT
    }

    /// The model still learns much from every stretch.
    pub fn is_young(&self) -> bool {
        self.model.learned() < YOUNG
    }

    /// What the deal says of events before `until_ns`.
    fn lessons(&self, scene: &Scene, deal: &Deal, until_ns: u64) -> Lessons {
        let mut lessons = Lessons::default();
        let requests = scene.requests.iter().zip(&scene.states).zip(&deal.calls);
        for ((request, state), calls) in requests.filter(|((r, _), _)| r.start_ns < until_ns) {
            let known = self.under_way.get(&request.id);
            let mut sure = known.map_or(1.0, |(_, sure)| *sure);
            let mut state = *state;
            for index in calls {
                let call = scene.calls.get(*index as usize);
                let Some(call) = call.filter(|call| call.start_ns < until_ns) else {
                    break;
                };
                let choice = deal.choices.get(*index as usize);
                let own = choice.map_or(0.0, |choice| choice.certainty);
                let event = state.call(call);
                lessons.add(&state, event, sure * own);
                lessons.threads.push(event.thread());
                sure = own;
                state = state.after(call);
            }
            match request.end_ns {
                Some(end) if end < until_ns => {
                    lessons.add(&state, state.end(request, end), sure);
                }
                _ => {
                    lessons.under_way.insert(request.id, (state, sure));
                }
            }
        }
        let calls = scene
            .calls
            .iter()
            .take_while(|call| call.start_ns < until_ns);
        for ((call, choice), rivals) in calls.zip(&deal.choices).zip(&deal.rivals) {
            if choice.parent.is_none() && rivals.threads() == [0; 4] {
                lessons.roots.push((call.kind, choice.certainty));
            }
            lessons.chances.push(rivals.threads());
        }
        lessons
    }
}

/// What a stretch has taught.
#[derive(Default)]
struct Lessons {
    events: Vec<(State, state::Event, f32)>,
    /// How the thread of each call stood to its parent, and to all that could have made it.
    threads: Vec<u32>,
    chances: Vec<[u16; 4]>,
    /// Calls without a parent, by kind.
    roots: Vec<(u32, f32)>,
    under_way: HashMap<SpanId, (State, f32), foldhash::fast::RandomState>,
}

impl Lessons {
    fn add(&mut self, state: &State, event: state::Event, weight: f32) {
        if weight >= LEAST_TEACHING {
            self.events.push((*state, event, weight));
        }
    }

    fn teach(&self, model: &mut Model) {
        for (state, event, weight) in &self.events {
            model.learn(state, event, *weight);
        }
        for thread in &self.threads {
            model.learn_no_chance(*thread);
        }
        for threads in &self.chances {
            model.learn_chance(*threads);
        }
        for (kind, weight) in &self.roots {
            model.learn_background(*kind, *weight);
        }
        model.refresh();
    }
}

#[cfg(test)]
mod tests;
