//! Deals out the calls of two requests anew, in the best way there is.
//!
//! Call by call, the best `BEAM` ways so far are followed; each gives the next call to the one
//! or to the other. What a way is worth at the end includes how both requests end.

use super::joint::{Deal, Scene};
use super::model::Model;
use super::rivals::is_open;
use super::state::{Request, State};

/// Ways that are followed at once.
const BEAM: usize = 6;
/// Calls of a pair that are dealt out anew; those after them stay where they are.
const MAX_DEALT: usize = 64;
const ONE: [bool; 2] = [true, false];
const OTHER: [bool; 2] = [false, true];

/// Two requests and all calls of both.
pub struct Pair {
    pub requests: [u32; 2],
    /// The calls by start, and to whom each may go.
    pub calls: Vec<(u32, [bool; 2])>,
}

impl Pair {
    /// Puts the calls of two requests together; none if there is nothing to deal out.
    pub fn new(scene: &Scene, deal: &Deal, one: u32, other: u32) -> Option<Self> {
        let calls = |request: u32| deal.calls.get(request as usize).into_iter().flatten();
        let mut all: Vec<(u32, [bool; 2])> = calls(one).map(|call| (*call, ONE)).collect();
        all.extend(calls(other).map(|call| (*call, OTHER)));
        all.sort_unstable();
        let mut open = false;
        for (index, may) in all.iter_mut().take(MAX_DEALT) {
            let pinned = scene.pinned.get(*index as usize);
            let Some(call) = scene.calls.get(*index as usize) else {
                continue;
            };
            if pinned.is_some_and(Option::is_none) {
                let stays = *may;
                *may = [one, other].map(|request| is_open(scene, request, call));
                // It may have been given to one that had ended, by a rung that saw more.
                *may = [may[0] || stays[0], may[1] || stays[1]];
                open |= *may == [true, true];
            }
        }
        open.then_some(Self {
            requests: [one, other],
            calls: all,
        })
    }

    /// Whether a way gives the call at a place to the second request.
    pub fn gives_to_second(&self, way: &Way, place: usize) -> bool {
        match self.calls.get(place) {
            Some((_, [true, true])) => way.second >> place & 1 == 1,
            Some((_, [_, second])) => *second,
            None => false,
        }
    }
}

/// One way to deal out a pair's calls.
#[derive(Clone, Copy)]
pub struct Way {
    pub score: f32,
    states: [State; 2],
    /// Bit n: the call n goes to the second, if it may go to either.
    second: u64,
}

/// Deals, with room that is used again.
#[derive(Default)]
pub struct Dealer {
    beam: Vec<Way>,
    next: Vec<Way>,
    /// Score, place in the beam, side.
    steps: Vec<(f32, usize, usize)>,
    /// How likely each way is against the best.
    shares: Vec<f32>,
}

impl Dealer {
    /// The best way to deal out the pair's calls.
    pub fn deal(&mut self, scene: &Scene, model: &mut Model, pair: &Pair) -> Option<Way> {
        let state = |request: u32| scene.states.get(request as usize).copied();
        let [one, other] = pair.requests;
        self.beam.clear();
        self.beam.push(Way {
            score: 0.0,
            states: [state(one)?, state(other)?],
            second: 0,
        });
        for (place, (index, may)) in pair.calls.iter().enumerate() {
            let call = scene.calls.get(*index as usize)?;
            self.steps.clear();
            for (number, way) in self.beam.iter().enumerate() {
                for (side, state) in way.states.iter().enumerate() {
                    if may.get(side) == Some(&true) {
                        let weight = model.weigh(state, &state.call(call));
                        self.steps.push((way.score + weight, number, side));
                    }
                }
            }
            if self.steps.len() > BEAM {
                self.steps.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
                self.steps.truncate(BEAM);
            }
            self.next.clear();
            for (score, number, side) in &self.steps {
                let mut way = *self.beam.get(*number)?;
                way.score = *score;
                if *may == [true, true] && *side == 1 {
                    way.second |= 1 << place;
                }
                let state = way.states.get_mut(*side)?;
                *state = state.after(call);
                self.next.push(way);
            }
            std::mem::swap(&mut self.beam, &mut self.next);
        }
        for way in &mut self.beam {
            for (state, request) in way.states.iter().zip(pair.requests) {
                let request = scene.requests.get(request as usize)?;
                way.score += ending(model, state, request);
            }
        }
        let best = self
            .beam
            .iter()
            .max_by(|a, b| a.score.total_cmp(&b.score))
            .copied()?;
        self.shares.clear();
        let shares = self.beam.iter().map(|way| (way.score - best.score).exp());
        self.shares.extend(shares);
        Some(best)
    }

    /// How likely it is that a call goes to the other side, in the deal just made.
    pub fn odds_against(&self, pair: &Pair, place: usize, is_second: bool) -> f32 {
        let (mut same, mut different) = (0.0, 0.0);
        for (way, share) in self.beam.iter().zip(&self.shares) {
            if pair.gives_to_second(way, place) == is_second {
                same += share;
            } else {
                different += share;
            }
        }
        different / f32::max(same, 1e-9)
    }
}

/// Log-likelihood of a request's end after all its calls; nothing while it is under way.
pub fn ending(model: &mut Model, state: &State, request: &Request) -> f32 {
    let end = request.end_ns.map(|end| state.end(request, end));
    end.map_or(0.0, |end| model.weigh(state, &end))
}
