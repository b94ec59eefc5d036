//! The rung of last resort: timing and sequence.
//!
//! ```text
//! Scene (requests, calls, known parents) --> joint --> choices, confidences <-- doubts
//!                     ^ Model <------------- learn <------'
//! ```
//! Owns what each process has taught: how its requests go on (`model`), where the requests
//! stand that are under way, and up to when its calls are decided. Time is cut into
//! stretches by the start of calls; a stretch is decided with a look at what comes after it,
//! and stands. How far that may be believed is measured all the time (`decoys`, `held_out`); a
//! process in which it may not is left alone for a while. Knows nothing of the window: scenes come in,
//! choices go out.

mod crowd;
mod decoys;
mod gap;
mod held_out;
mod joint;
mod model;
mod pair;
mod rest;
mod rivals;
mod state;

pub use joint::{Choice, Scene};
pub use state::{Call, Request, State};

use crate::learned::{Learned, Learns};
use decoys::{Doubts, Share};
use held_out::HeldOut;
use joint::Deal;
use model::Model;
use rest::Rest;
use span_model::SpanId;
use state::Thread;
use std::collections::HashMap;
use std::ops::Range;

/// Processes whose models are kept; beyond, those that were idle longest go.
const MAX_PROCESSES: usize = 4096;
/// A model that has learned less tells nothing.
const TAUGHT: f32 = 20.0;
/// A model that has learned less goes over a stretch again with what it has learned from it,
/// until it would choose the same, but not more often than this.
const YOUNG: f32 = 1500.0;
const REHEARSALS: u64 = 20;
/// All of them together weigh calls against requests at most so often.
const REHEARSED_WORK: u64 = 200_000;
/// What was never taught by so many calls whose parent is beyond doubt has begun with guesses, and
/// may have confirmed them ever since: its choices are no surer than that.
const LEAST_BEYOND_DOUBT: usize = 5;
const UNFOUNDED: f32 = 0.5;
/// Once it is settled whether timing may be believed, one stretch in so many is looked at again.
const LOOK_AGAIN: u64 = 4;
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
    doubts: Doubts,
    held_out: HeldOut,
    /// Calls that began before were looked at for them, or passed over.
    looked_until_ns: u64,
    /// Calls whose parent was beyond doubt, as far as that matters.
    beyond_doubt: usize,
    rest: Rest,
    /// Stretches decided.
    turn: u64,
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
        let work = scene.work();
        if self.rest.is_another_crowd() {
            self.doubts.weigh_little();
        }
        let looks = self.looks();
        let young = self.is_young();
        if looks && !young {
            self.look(scene, 0..until_ns);
        }
        if young {
            deal = self.rehearse(scene, deal, work);
        }
        let lessons = self.lessons(scene, &deal, until_ns);
        lessons.teach(&mut self.model);
        self.beyond_doubt = (self.beyond_doubt + lessons.beyond_doubt).min(LEAST_BEYOND_DOUBT);
        if looks && young {
            self.look(scene, until_ns..u64::MAX);
        }
        if looks && self.is_taught() {
            self.held_out.look(scene, &self.model, until_ns);
        }
        self.under_way = lessons.under_way;
        if self.decided_until_ns > 0 && until_ns > self.decided_until_ns {
            let first = scene.calls.first().map_or(until_ns, |call| call.start_ns);
            let since = first.max(self.decided_until_ns);
            self.model.observed(until_ns.saturating_sub(since));
        }
        self.decided_until_ns = self.decided_until_ns.max(until_ns);
        for (call, choice) in scene.calls.iter().zip(&mut deal.choices) {
            let most = self.most(call.kind);
            choice.confidence = choice.confidence.min(most);
        }
        let believed = self.doubts.most() >= decoys::SURE;
        if self.rest.begins_after(until_ns, work, believed) {
            self.doubts.forget();
        }
        deal.choices
    }

    /// Chooses again with what the choice teaches, until it would be the same.
    fn rehearse(&self, scene: &Scene, mut deal: Deal, work: u64) -> Deal {
        for _ in 0..REHEARSALS.min(REHEARSED_WORK / work.max(1)) {
            let mut model = self.model.clone();
            self.lessons(scene, &deal, u64::MAX).teach(&mut model);
            let before = std::mem::replace(&mut deal, joint::choose(scene, &mut model, true));
            if deal.parents().eq(before.parents()) {
                break;
            }
        }
        deal
    }

    /// How sure a choice about calls of a kind may be.
    fn most(&self, kind: u32) -> f32 {
        if self.beyond_doubt < LEAST_BEYOND_DOUBT {
            return UNFOUNDED;
        }
        let doubts = self.doubts.most_of_kind(kind);
        doubts.min(self.held_out.most_of_kind(kind))
    }

    /// Looks at calls that the model has not learned from, and at none twice.
    fn look(&mut self, scene: &Scene, range: Range<u64>) {
        let range = range.start.max(self.looked_until_ns)..range.end;
        if self.is_taught() && !range.is_empty() {
            self.doubts.look(scene, &self.model, range.clone());
            let last = scene.calls.last().map_or(0, |call| call.start_ns);
            self.looked_until_ns = last.min(range.end - 1) + 1;
        }
    }

    /// The stretch is to be looked at for who gets what he should not.
    fn looks(&mut self) -> bool {
        self.turn += 1;
        !self.doubts.are_settled() || self.turn.is_multiple_of(LOOK_AGAIN) || self.rest.is_crowded()
    }

    /// Timing may be tried, with so many requests under way; else it has shown that it only
    /// guesses here, and is tried again later.
    pub fn may_try(&mut self, from_ns: u64, crowd: usize) -> bool {
        self.rest.may_try(from_ns, crowd)
    }

    /// What requests that never were have got.
    pub fn decoys(&self) -> Share {
        self.doubts.ever()
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
            // Each message was written by the thread that had just read what it follows on.
            let mut on_threads = known.is_none() && !calls.is_empty();
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
                on_threads &= event.thread() == Thread::JustRead as u32;
                sure = own;
                state = state.after(call);
            }
            match request.end_ns {
                Some(end) if end < until_ns => {
                    let event = state.end(request, end);
                    lessons.add(&state, event, sure);
                    on_threads &= event.thread() == Thread::JustRead as u32;
                    lessons.beyond_doubt += if on_threads { calls.len() } else { 0 };
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
            let possible: u16 = rivals.threads().iter().sum();
            let beyond_doubt = possible <= 1 && choice.parent.is_some();
            lessons.beyond_doubt += usize::from(beyond_doubt);
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
    /// Calls that could have but one parent, or whose parent is known, or whose request was followed
    /// from thread to thread until it was answered.
    beyond_doubt: usize,
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
