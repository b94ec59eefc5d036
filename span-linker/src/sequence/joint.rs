//! Chooses the parents of all calls of a stretch together.
//!
//! First every call, in order, goes to the request that it fits best as things stand. Then
//! pairs of requests that compete for a call are taken again and again, and all calls of the
//! two are dealt out anew in the best way there is; that way a mistake at the beginning of a
//! request is undone by what its end says. Last, every pair tells how much worse the second
//! best way is: that is the confidence.
//!
//! Approximations: a call competes among its `RIVALS` best requests only; a pair's ways are
//! followed by a beam; three requests that are wrong in a ring stay so. All three err towards
//! what the first pass chose, and the confidence of such calls is low.

use super::model::Model;
use super::state::{Call, Request, State};

/// Requests that a call may compete among.
const RIVALS: usize = 6;
/// Open requests that a call is weighed against; beyond, those that began last.
const MAX_OPEN: usize = 512;
/// Ways to deal out a pair's calls that are followed at once.
const BEAM: usize = 8;
/// Calls of a pair that are dealt out anew at once.
const MAX_DEALT: usize = 64;
/// Rounds over all pairs that changed.
const ROUNDS: usize = 6;
/// A request less likely than the best by this much (logarithm) is no rival.
const HOPELESS: f32 = 16.0;
/// What a call costs that ends after the request it is given to, before the request's end is weighed.
const OUTLIVES: f32 = 5.0;
/// A call is weighed against having no parent if it is at most this much likelier where it is.
const SUSPICIOUS: f32 = 9.0;

/// What there is to decide about a stretch of a process's time.
#[derive(Debug, Default)]
pub struct Scene {
    /// Requests under way in the stretch, by start.
    pub requests: Vec<Request>,
    /// Where each stood when the stretch began.
    pub states: Vec<State>,
    /// Calls made in the stretch, by start.
    pub calls: Vec<Call>,
    /// Calls whose parent is known: its index.
    pub pinned: Vec<Option<u32>>,
}

/// The parent chosen for a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Index of the request; none: it belongs to no request.
    pub parent: Option<u32>,
    /// How likely that is, by the model.
    pub confidence: f32,
}

/// Chooses for every call of the scene; `rival` hears of every request that competed in vain.
pub fn choose(scene: &Scene, model: &mut Model) -> Deal {
    let mut joint = Joint::begin(scene, model);
    let mut changed: Vec<bool> = vec![true; scene.requests.len()];
    for _ in 0..ROUNDS {
        let mut next = vec![false; scene.requests.len()];
        joint.reconsider_roots(&mut next);
        joint.round(&changed, &mut next);
        if !next.contains(&true) {
            break;
        }
        changed = next;
    }
    joint.doubts();
    joint.deal
}

/// Who has which calls, and how sure that is.
#[derive(Debug, Default)]
pub struct Deal {
    /// One for each call.
    pub choices: Vec<Choice>,
    /// The calls of each request.
    pub calls: Vec<Vec<u32>>,
    /// Requests that compete for each call, the likeliest first.
    pub rivals: Vec<Rivals>,
}

/// Few requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rivals {
    list: [(f32, u32); RIVALS],
    len: usize,
    /// How all requests that could have made the call look by their threads.
    threads: [u16; 4],
}

impl Rivals {
    /// The requests.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let list = self.list.iter().take(self.len);
        list.map(|(_, request)| *request)
    }

    /// How many of the requests that could have made the call stand to its thread like that.
    pub fn threads(&self) -> [u16; 4] {
        self.threads
    }

    fn best(&self) -> Option<(f32, u32)> {
        self.list.first().copied().filter(|_| self.len > 0)
    }

    fn add(&mut self, weight: f32, request: u32) {
        let known = self.list.get(..self.len).unwrap_or_default();
        let place = known.partition_point(|(other, _)| *other >= weight);
        if place >= RIVALS {
            return;
        }
        self.len = (self.len + 1).min(RIVALS);
        if let Some(tail) = self.list.get_mut(place..self.len) {
            tail.rotate_right(1);
            if let Some(first) = tail.first_mut() {
                *first = (weight, request);
            }
        }
    }

    fn drop_hopeless(&mut self) {
        let best = self.best().map_or(0.0, |(weight, _)| weight);
        let hopeful = |(weight, _): &(f32, u32)| best - *weight < HOPELESS;
        self.len = self.list.iter().take(self.len).filter(|r| hopeful(r)).count();
    }
}

struct Joint<'a> {
    scene: &'a Scene,
    model: &'a mut Model,
    deal: Deal,
    /// Log-likelihood of each request with its calls.
    scores: Vec<f32>,
    beam: Vec<Way>,
    spare: Vec<Way>,
}

/// One way to deal out a pair's calls so far.
#[derive(Clone, Copy)]
struct Way {
    score: f32,
    states: [State; 2],
    /// Bit n: the call n goes to the second.
    second: u128,
}

/// Two requests and all calls of both.
struct Pair {
    requests: [u32; 2],
    calls: Vec<u32>,
}

/// First pass.
impl<'a> Joint<'a> {
    fn begin(scene: &'a Scene, model: &'a mut Model) -> Self {
        let mut states = scene.states.clone();
        let mut deal = Deal {
            choices: Vec::with_capacity(scene.calls.len()),
            calls: vec![Vec::new(); scene.requests.len()],
            rivals: Vec::with_capacity(scene.calls.len()),
        };
        let mut open: Vec<u32> = Vec::new();
        let mut coming = (0..).zip(&scene.requests).peekable();
        for (index, (call, pinned)) in (0..).zip(scene.calls.iter().zip(&scene.pinned)) {
            while let Some((request, _)) = coming.next_if(|(_, r)| r.start_ns <= call.start_ns) {
                open.push(request);
            }
            open.retain(|request| is_open(scene, *request, call));
            let rivals = match pinned {
                Some(_) => Rivals::default(),
                None => rivals(scene, model, &states, &open, call),
            };
            let root = model.background(call.kind);
            let best = rivals.best().filter(|(weight, _)| *weight > root);
            let parent = pinned.or(best.map(|(_, request)| request));
            deal.rivals.push(rivals);
            deal.choices.push(Choice {
                parent,
                confidence: 1.0,
            });
            if let Some(parent) = parent {
                give(&mut deal.calls, parent, index);
                if let Some(state) = states.get_mut(parent as usize) {
                    *state = state.after(call);
                }
            }
        }
        let mut joint = Self {
            scene,
            model,
            deal,
            scores: vec![0.0; scene.requests.len()],
            beam: Vec::new(),
            spare: Vec::new(),
        };
        for (request, _) in (0..).zip(&scene.requests) {
            joint.rescore(request);
        }
        joint
    }
}

fn rivals(scene: &Scene, model: &mut Model, states: &[State], open: &[u32], call: &Call) -> Rivals {
    let mut rivals = Rivals::default();
    let crowd = open.len().saturating_sub(MAX_OPEN);
    for request in open.iter().skip(crowd) {
        let (Some(state), Some(known)) = (
            states.get(*request as usize),
            scene.requests.get(*request as usize),
        ) else {
            continue;
        };
        let event = state.call(call);
        let mut weight = model.weigh(state, &event);
        if let Some(count) = rivals.threads.get_mut(event.thread() as usize) {
            *count = count.saturating_add(1);
        }
        if let (Some(call), Some(request)) = (call.end_ns, known.end_ns)
            && call > request
        {
            weight -= OUTLIVES;
        }
        rivals.add(weight, *request);
    }
    rivals.drop_hopeless();
    rivals
}

fn is_open(scene: &Scene, request: u32, call: &Call) -> bool {
    let request = scene.requests.get(request as usize);
    request.is_some_and(|request| {
        request.start_ns <= call.start_ns && request.end_ns.is_none_or(|end| call.start_ns < end)
    })
}

fn give(calls: &mut [Vec<u32>], request: u32, call: u32) {
    if let Some(calls) = calls.get_mut(request as usize) {
        let place = calls.partition_point(|known| *known < call);
        calls.insert(place, call);
    }
}

/// Scores.
impl Joint<'_> {
    fn calls_of(&self, request: u32) -> &[u32] {
        let calls = self.deal.calls.get(request as usize);
        calls.map_or(&[], Vec::as_slice)
    }

    fn score_of(&self, request: u32) -> f32 {
        self.scores.get(request as usize).copied().unwrap_or(0.0)
    }

    fn parent_of(&self, call: u32) -> Option<u32> {
        self.deal.choices.get(call as usize)?.parent
    }

    fn is_pinned(&self, call: u32) -> bool {
        let pinned = self.scene.pinned.get(call as usize);
        pinned.is_some_and(Option::is_some)
    }

    /// Log-likelihood of a request with these calls.
    fn score(&mut self, request: u32, calls: impl Iterator<Item = u32>) -> f32 {
        let Some(mut state) = self.scene.states.get(request as usize).copied() else {
            return 0.0;
        };
        let mut score = 0.0;
        for call in calls {
            if let Some(call) = self.scene.calls.get(call as usize) {
                score += self.model.weigh(&state, &state.call(call));
                state = state.after(call);
            }
        }
        score + self.ending(request, &state)
    }

    fn ending(&mut self, request: u32, state: &State) -> f32 {
        match self.scene.requests.get(request as usize) {
            Some(request) => request.end_ns.map_or(0.0, |end| {
                self.model.weigh(state, &state.end(request, end))
            }),
            None => 0.0,
        }
    }

    fn rescore(&mut self, request: u32) {
        let calls = self.calls_of(request).to_vec();
        let score = self.score(request, calls.into_iter());
        if let Some(place) = self.scores.get_mut(request as usize) {
            *place = score;
        }
    }

    fn background(&self, call: u32) -> f32 {
        let call = self.scene.calls.get(call as usize);
        call.map_or(0.0, |call| self.model.background(call.kind))
    }
}

/// Pairs.
impl Joint<'_> {
    /// Deals out anew the calls of each pair of which one has changed.
    fn round(&mut self, changed: &[bool], next: &mut [bool]) {
        let is = |list: &[bool], request: u32| list.get(request as usize) == Some(&true);
        for request in (0..).take(self.scene.requests.len()) {
            for rival in self.rivals_of(request) {
                let dirty = [request, rival].into_iter();
                if !dirty.clone().any(|r| is(changed, r) || is(next, r)) {
                    continue;
                }
                if self.deal_pair(request, rival) {
                    for request in dirty {
                        if let Some(place) = next.get_mut(request as usize) {
                            *place = true;
                        }
                    }
                }
            }
        }
    }

    /// Requests that compete for a request's calls.
    fn rivals_of(&self, request: u32) -> Vec<u32> {
        let calls = self.calls_of(request).iter();
        let rivals = calls.filter_map(|call| self.deal.rivals.get(*call as usize));
        let mut all: Vec<u32> = rivals.flat_map(Rivals::iter).collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|rival| *rival != request);
        all
    }

    fn pair(&self, one: u32, other: u32) -> Pair {
        let mut calls: Vec<u32> = self.calls_of(one).to_vec();
        calls.extend_from_slice(self.calls_of(other));
        calls.sort_unstable();
        Pair {
            requests: [one, other],
            calls,
        }
    }

    /// True if there was a better way.
    fn deal_pair(&mut self, one: u32, other: u32) -> bool {
        let pair = self.pair(one, other);
        let now = self.score_of(one) + self.score_of(other);
        self.ways(&pair);
        let Some(best) = best(&self.beam) else {
            return false;
        };
        if best.score <= now + 1e-3 {
            return false;
        }
        let [mut firsts, mut seconds] = [Vec::new(), Vec::new()];
        for (bit, call) in (0..).zip(&pair.calls) {
            let is_second = self.goes_to_second(&pair, bit, *call, best.second);
            let (to, list) = if is_second {
                (other, &mut seconds)
            } else {
                (one, &mut firsts)
            };
            list.push(*call);
            if let Some(choice) = self.deal.choices.get_mut(*call as usize) {
                choice.parent = Some(to);
            }
        }
        for (request, calls) in [(one, firsts), (other, seconds)] {
            if let Some(place) = self.deal.calls.get_mut(request as usize) {
                *place = calls;
            }
            self.rescore(request);
        }
        true
    }

    fn goes_to_second(&self, pair: &Pair, bit: usize, call: u32, second: u128) -> bool {
        if bit < MAX_DEALT {
            second >> bit & 1 == 1
        } else {
            let [_, other] = pair.requests;
            self.parent_of(call) == Some(other)
        }
    }

    /// Fills the beam with the best ways to deal out the pair's calls.
    fn ways(&mut self, pair: &Pair) {
        let [one, other] = pair.requests;
        let scene = self.scene;
        self.beam.clear();
        let states = (
            scene.states.get(one as usize),
            scene.states.get(other as usize),
        );
        let (Some(first), Some(second)) = states else {
            return;
        };
        self.beam.push(Way {
            score: 0.0,
            states: [*first, *second],
            second: 0,
        });
        for (bit, index) in (0..).zip(&pair.calls) {
            let Some(call) = scene.calls.get(*index as usize) else {
                continue;
            };
            let stays = self.is_pinned(*index) || bit >= MAX_DEALT;
            let parent = self.parent_of(*index);
            let may = [one, other].map(|request| {
                if stays {
                    parent == Some(request)
                } else {
                    parent == Some(request) || is_open(scene, request, call)
                }
            });
            self.spare.clear();
            for way in &self.beam {
                for (side, may) in (0_u8..).zip(may) {
                    let Some(state) = way.states.get(usize::from(side)) else {
                        continue;
                    };
                    if !may {
                        continue;
                    }
                    let mut longer = *way;
                    longer.score += self.model.weigh(state, &state.call(call));
                    if bit < MAX_DEALT {
                        longer.second |= u128::from(side) << bit;
                    }
                    if let Some(place) = longer.states.get_mut(usize::from(side)) {
                        *place = state.after(call);
                    }
                    self.spare.push(longer);
                }
            }
            std::mem::swap(&mut self.beam, &mut self.spare);
            if self.beam.len() > BEAM {
                self.beam.sort_by(|a, b| b.score.total_cmp(&a.score));
                self.beam.truncate(BEAM);
            }
        }
        for index in 0..self.beam.len() {
            let Some(way) = self.beam.get(index).copied() else {
                continue;
            };
            let [first, second] = way.states;
            let ends = self.ending(one, &first) + self.ending(other, &second);
            if let Some(way) = self.beam.get_mut(index) {
                way.score += ends;
            }
        }
    }
}

fn best(ways: &[Way]) -> Option<Way> {
    ways.iter().copied().max_by(|a, b| a.score.total_cmp(&b.score))
}

/// Calls without a parent.
impl Joint<'_> {
    /// Takes calls from their parents, or gives them to one, where that is likelier.
    fn reconsider_roots(&mut self, changed: &mut [bool]) {
        for call in (0..).take(self.scene.calls.len()) {
            if self.is_pinned(call) {
                continue;
            }
            let from = self.parent_of(call);
            let to = match from {
                Some(parent) => (self.gain(call, parent) < 0.0).then_some(None),
                None => self.adopter(call).map(Some),
            };
            let Some(to) = to else { continue };
            if let Some(choice) = self.deal.choices.get_mut(call as usize) {
                choice.parent = to;
            }
            if let Some(calls) = from.and_then(|f| self.deal.calls.get_mut(f as usize)) {
                calls.retain(|known| *known != call);
            }
            if let Some(to) = to {
                give(&mut self.deal.calls, to, call);
            }
            for request in [from, to].into_iter().flatten() {
                self.rescore(request);
                if let Some(place) = changed.get_mut(request as usize) {
                    *place = true;
                }
            }
        }
    }

    /// How much likelier a call is with its parent than without one.
    fn gain(&mut self, call: u32, parent: u32) -> f32 {
        let without: Vec<u32> = self.calls_of(parent).iter().copied().filter(|c| *c != call).collect();
        let without = self.score(parent, without.into_iter());
        self.score_of(parent) - without - self.background(call)
    }

    /// The request that would gain most by a call that has no parent.
    fn adopter(&mut self, call: u32) -> Option<u32> {
        let rivals = *self.deal.rivals.get(call as usize)?;
        let mut best = (0.0, None);
        for request in rivals.iter() {
            let mut calls = self.calls_of(request).to_vec();
            let place = calls.partition_point(|known| *known < call);
            calls.insert(place, call);
            let with = self.score(request, calls.into_iter());
            let gain = with - self.score_of(request) - self.background(call);
            if gain > best.0 {
                best = (gain, Some(request));
            }
        }
        best.1
    }
}

/// Confidence.
impl Joint<'_> {
    /// Sums up, for each call, how likely other parents are against the chosen one.
    fn doubts(&mut self) {
        let mut odds = vec![0.0_f32; self.scene.calls.len()];
        for request in (0..).take(self.scene.requests.len()) {
            for rival in self.rivals_of(request) {
                // A pair is listed from one side or from both; it counts once.
                if rival < request && self.rivals_of(rival).contains(&request) {
                    continue;
                }
                self.doubts_of_pair(request, rival, &mut odds);
            }
        }
        let supports = self.supports();
        for call in (0..).take(self.scene.calls.len()) {
            let root = self.root_odds(call);
            let Some(choice) = self.deal.choices.get_mut(call as usize) else {
                continue;
            };
            if self.scene.pinned.get(call as usize).is_some_and(Option::is_some) {
                continue;
            }
            let odds = odds.get(call as usize).copied().unwrap_or(0.0) + root;
            let support = supports.get(call as usize).copied().unwrap_or(0.0);
            choice.confidence = (support + 1.0) / (support + 3.0) / (1.0 + odds);
        }
    }

    /// How often each call's like was seen in its place.
    fn supports(&self) -> Vec<f32> {
        let mut supports = vec![0.0; self.scene.calls.len()];
        for (state, calls) in self.scene.states.iter().zip(&self.deal.calls) {
            let mut state = *state;
            for index in calls {
                let Some(call) = self.scene.calls.get(*index as usize) else {
                    continue;
                };
                if let Some(place) = supports.get_mut(*index as usize) {
                    *place = self.model.support(&state, &state.call(call));
                }
                state = state.after(call);
            }
        }
        supports
    }

    fn doubts_of_pair(&mut self, one: u32, other: u32, odds: &mut [f32]) {
        let pair = self.pair(one, other);
        self.ways(&pair);
        let Some(top) = best(&self.beam) else { return };
        let shares: Vec<f32> = self.beam.iter().map(|way| (way.score - top.score).exp()).collect();
        for (bit, call) in (0..MAX_DEALT).zip(&pair.calls) {
            if self.is_pinned(*call) {
                continue;
            }
            let is_second = u128::from(self.parent_of(*call) == Some(other));
            let (mut same, mut different) = (0.0, 0.0);
            for (way, share) in self.beam.iter().zip(&shares) {
                if way.second >> bit & 1 == is_second {
                    same += share;
                } else {
                    different += share;
                }
            }
            if let Some(odds) = odds.get_mut(*call as usize) {
                *odds += different / same.max(1e-9);
            }
        }
    }

    /// How likely it is that a call has no parent, against what was chosen.
    fn root_odds(&mut self, call: u32) -> f32 {
        if self.is_pinned(call) {
            return 0.0;
        }
        match self.parent_of(call) {
            Some(parent) => (-self.gain(call, parent)).min(SUSPICIOUS).exp(),
            None => {
                let best = self.deal.rivals.get(call as usize).and_then(Rivals::best);
                let background = self.background(call);
                best.map_or(0.0, |(weight, _)| (weight - background).min(SUSPICIOUS).exp())
            }
        }
    }
}
