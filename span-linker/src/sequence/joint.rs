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

use super::crowd::Crowd;
use super::model::Model;
use super::pair::{Dealer, Pair, ending};
use super::rivals::{RIVALS, Rivals, is_open, rivals};
use super::state::{Call, Request, State};

/// Rounds over all pairs that changed.
const ROUNDS: usize = 6;
/// The model takes gaps that belong together for independent, so its odds are too sure; on
/// the recorded sets, odds to this power come true.
const TEMPER: f32 = 0.65;
/// A call is weighed against having no parent if it is at most this much likelier where it is.
const SUSPICIOUS: f32 = 9.0;

/// What there is to decide about a stretch of a process's time.
#[derive(Clone, Debug, Default)]
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

impl Scene {
    /// How often a call without a known parent is weighed against a request: what choosing costs
    /// grows with that.
    pub fn work(&self) -> u64 {
        let crowd = Crowd::new(self.requests.iter());
        let calls = self.calls.iter().zip(&self.pinned);
        let unknown = calls.filter(|(_, pinned)| pinned.is_none());
        unknown
            .map(|(call, _)| crowd.open_at(call.start_ns) as u64)
            .sum()
    }
}

/// The parent chosen for a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Index of the request; none: it belongs to no request.
    pub parent: Option<u32>,
    /// How much it may teach: as `confidence`, but what was learned of the scene itself counts.
    pub certainty: f32,
    /// How likely that is.
    pub confidence: f32,
}

/// Chooses for every call of the scene. A model that has `rehearsed` the scene itself is
/// less sure by as many samples.
pub fn choose(scene: &Scene, model: &mut Model, rehearsed: bool) -> Deal {
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
    joint.doubts(if rehearsed { 1.0 } else { 0.0 });
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

impl Deal {
    /// The parents chosen, call by call.
    pub fn parents(&self) -> impl Iterator<Item = Option<u32>> {
        self.choices.iter().map(|choice| choice.parent)
    }
}

struct Joint<'a> {
    scene: &'a Scene,
    model: &'a mut Model,
    deal: Deal,
    /// Log-likelihood of each request with its calls.
    scores: Vec<f32>,
    dealer: Dealer,
    /// How likely each rival of each call is, against the chosen parent.
    odds: Vec<[f32; RIVALS]>,
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
                certainty: 1.0,
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
            dealer: Dealer::default(),
            odds: vec![[0.0; RIVALS]; scene.calls.len()],
        };
        for (request, _) in (0..).zip(&scene.requests) {
            joint.rescore(request);
        }
        joint
    }
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
        let request = self.scene.requests.get(request as usize);
        score + request.map_or(0.0, |request| ending(self.model, &state, request))
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

    /// True if there was a better way; if not, tells how good the other ways are.
    fn deal_pair(&mut self, one: u32, other: u32) -> bool {
        let (scene, deal) = (self.scene, &self.deal);
        let Some(pair) = Pair::new(scene, deal, one, other) else {
            return false;
        };
        let now = self.score_of(one) + self.score_of(other);
        let Some(best) = self.dealer.deal(scene, self.model, &pair) else {
            return false;
        };
        if best.score <= now + 1e-3 {
            self.doubt(&pair);
            return false;
        }
        let [mut firsts, mut seconds] = [Vec::new(), Vec::new()];
        for (bit, (call, _)) in pair.calls.iter().enumerate() {
            let (to, list) = if pair.gives_to_second(&best, bit) {
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
        // What is left to doubt is told when the pair comes up again: both have changed.
        true
    }

    /// Writes down how likely the pair's other ways are, for each call.
    fn doubt(&mut self, pair: &Pair) {
        for (bit, (call, _)) in pair.calls.iter().enumerate() {
            let [one, other] = pair.requests;
            let is_second = self.parent_of(*call) == Some(other);
            let rival = if is_second { one } else { other };
            let odds = self.dealer.odds_against(pair, bit, is_second);
            let rivals = self.deal.rivals.get(*call as usize);
            // One that is no rival by itself takes the place of the last.
            let slot = rivals.map_or(0, |rivals| rivals.slot(rival));
            let place = self.odds.get_mut(*call as usize);
            if let Some(place) = place.and_then(|odds| odds.get_mut(slot)) {
                *place = odds;
            }
        }
    }
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
        let without: Vec<u32> = self
            .calls_of(parent)
            .iter()
            .copied()
            .filter(|c| *c != call)
            .collect();
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

/// How far the model may be believed about an event that it has seen so often.
fn known(support: f32) -> f32 {
    (support + 1.0) / (support + 3.0)
}

/// Confidence.
impl Joint<'_> {
    /// Sums up, for each call, how likely other parents are against the chosen one.
    fn doubts(&mut self, rehearsed: f32) {
        let supports = self.supports();
        for call in (0..).take(self.scene.calls.len()) {
            if self.is_pinned(call) {
                continue;
            }
            let root = self.root_odds(call);
            let rivals = self.deal.rivals.get(call as usize);
            let Some(choice) = self.deal.choices.get_mut(call as usize) else {
                continue;
            };
            let own = choice
                .parent
                .zip(rivals)
                .map(|(parent, rivals)| rivals.slot(parent));
            let odds = self
                .odds
                .get(call as usize)
                .into_iter()
                .flatten()
                .enumerate();
            let others = odds.filter(|(slot, _)| Some(*slot) != own);
            let others: f32 = others.map(|(_, odds)| odds).sum();
            let support = supports.get(call as usize).copied().unwrap_or(0.0);
            let others = 1.0 / (1.0 + (others + root).powf(TEMPER));
            choice.certainty = others * known(support);
            choice.confidence = others * known((support - rehearsed).max(0.0));
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

    /// How likely it is that a call has no parent, against what was chosen.
    fn root_odds(&mut self, call: u32) -> f32 {
        if self.is_pinned(call) {
            return 0.0;
        }
        if let Some(parent) = self.parent_of(call) {
            return (-self.gain(call, parent)).min(SUSPICIOUS).exp();
        }
        let best = self.deal.rivals.get(call as usize).and_then(Rivals::best);
        let background = self.background(call);
        best.map_or(0.0, |(weight, _)| {
            (weight - background).min(SUSPICIOUS).exp()
        })
    }
}
