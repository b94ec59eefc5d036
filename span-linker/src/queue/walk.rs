//! Follows the requests of a thread step by step, and gives each call to the one whose turn it is.
//!
//! Every answer is a test: the calls that were given to its request must have ended, and an answer
//! must be due to it as things stand. Where calls were dealt out wrongly it comes too early or too
//! late, for this request or for one nearby, so a request counts only where those answered around
//! it pass the test too. Answers without another request under way tell nothing.

use super::model::{Act, Model, View};
use super::seed::Seed;
use super::steps::{ANSWER, Made, Round, Scene, Served, Step, What};
use super::{Found, Outcome};
use span_model::SpanId;
use std::collections::{HashMap, VecDeque};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Requests followed at once, and calls of one of them.
pub const MAX_LIVE: usize = 1024;
const MAX_CALLS: usize = 64;
/// Something less likely than this is not what a request does next.
const LEAST_LIKELY: f32 = 0.05;
/// Log-odds of being due below which a call is given to nobody, and an answer fails the test:
/// nobody is better than somebody else, who would be missing when his own call comes.
const LEAST_DUE: f32 = -6.0;
const LEAST_DUE_ANSWER: f32 = -2.0;
/// Odds are kept from certainty.
const DOUBT: (f32, f32) = (1e-4, 0.999);
/// A lag that is so rare against the usual one fails the test.
const LEAST_USUAL: f32 = 0.05;
/// What a request teaches that fails the test.
const FAILED_WEIGHT: f32 = 0.05;
/// Answers on both sides that are looked at, how many there must be, and the share of them that
/// may fail. With 16, and one in ten, 99 % of what is linked is right on aiohttp at 256 in flight.
const NEAR: usize = 16;
const LEAST_CHECKS: usize = 16;
const MOST_FAILED_PERCENT: usize = 10;
/// Where less of all answers of a scene holds, some that do stand together by chance.
const LEAST_HELD_PERCENT: usize = 60;

/// What tells who is next.
pub enum Guide<'a> {
    /// The first time: which writes follow which reads.
    Seed(&'a Seed),
    /// What requests do next.
    Model(&'a Model),
}

/// A walk over the steps of a thread.
#[derive(Debug, Default)]
pub struct Walk {
    live: Vec<Live>,
    /// Requests by the calls whose responses they wait for.
    owners: FastMap<SpanId, SpanId>,
    round: Round,
    until_ns: u64,
    /// Answers before the ones of this walk, the last `NEAR` of them.
    before: VecDeque<bool>,
    /// Answers of this walk: whether each stood the test.
    checks: Vec<bool>,
    answered: Vec<(Live, usize)>,
    graded: Vec<bool>,
    /// Most requests under way at once.
    crowd: usize,
    model: Model,
    refused: u64,
}

/// A request under way.
#[derive(Clone, Debug)]
struct Live {
    id: SpanId,
    start: Read,
    end_ns: Option<u64>,
    calls: Vec<Given>,
    under_way: usize,
    view: View,
    holds: bool,
}

/// Something that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Read {
    kind: u32,
    time_ns: u64,
    round: u32,
}

/// A call that was given to a request.
#[derive(Clone, Copy, Debug)]
struct Given {
    id: SpanId,
    time_ns: u64,
    /// The read that it follows, where a seed told.
    cause: Option<Read>,
    response: Option<Read>,
    is_known: bool,
    /// How the request looked before.
    view: View,
    act: Act,
    lag: usize,
}

/// A request whose turn it may be.
#[derive(Clone, Copy, Debug)]
struct Turn {
    place: usize,
    due: f32,
    since: Read,
}

impl Walk {
    /// The round that the last step was in.
    pub fn round(&self) -> Round {
        self.round
    }

    /// Steps before this were followed.
    pub fn until_ns(&self) -> u64 {
        self.until_ns
    }

    /// Calls whose responses are waited for.
    pub fn awaited(&self) -> Vec<SpanId> {
        let mut awaited: Vec<SpanId> = self.owners.keys().copied().collect();
        awaited.sort_unstable();
        awaited
    }

    /// For each answer that was put to the test, whether it stood it.
    pub fn checks(&self) -> &[bool] {
        &self.checks
    }

    /// What was learned on the way.
    pub fn learned(self) -> Model {
        self.model
    }

    /// What found no room on the way, told once.
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Goes through the steps, and gives how things stood at a time on the way.
    pub fn go(&mut self, scene: &Scene, steps: &[Step], guide: &Guide<'_>, until_ns: u64) -> Self {
        let mut kept = None;
        for step in steps {
            if kept.is_none() && step.time_ns >= until_ns {
                kept = Some(self.keep(until_ns));
            }
            match step.what {
                What::Request => {
                    if let Some(request) = scene.requests.get(step.index) {
                        self.begin(request, step);
                    }
                }
                What::Answer => {
                    if let Some(request) = scene.requests.get(step.index) {
                        self.answer(request.id, step, guide);
                    }
                }
                What::Response => {
                    if let Some(call) = scene.calls.get(step.index) {
                        self.respond(call.id, step);
                    }
                }
                What::Call => {
                    // One that connects may have had its turn in the walk before.
                    let calls = scene.calls.get(step.index);
                    if let Some(call) = calls.filter(|call| !self.owners.contains_key(&call.id)) {
                        self.call(call, step, guide);
                    }
                }
            }
            self.round = self.round.after(step);
        }
        kept.unwrap_or_else(|| self.keep(until_ns))
    }

    /// The walk as it stands, to go on from.
    fn keep(&self, until_ns: u64) -> Self {
        let mut before: VecDeque<bool> = self.before.iter().chain(&self.checks).copied().collect();
        before.drain(..before.len().saturating_sub(NEAR));
        Self {
            live: self.live.clone(),
            owners: self.owners.clone(),
            round: self.round,
            until_ns,
            before,
            refused: self.refused,
            ..Self::default()
        }
    }

    fn begin(&mut self, request: &Served, step: &Step) {
        if self.live.len() >= MAX_LIVE {
            self.refused += 1;
            return;
        }
        self.crowd = self.crowd.max(self.live.len() + 1);
        let start = read(step);
        self.live.push(Live {
            id: request.id,
            start,
            end_ns: request.end_ns,
            calls: Vec::new(),
            under_way: 0,
            view: View::begun(request.kind),
            holds: false,
        });
    }

    fn respond(&mut self, call: SpanId, step: &Step) {
        let Some(owner) = self.owners.remove(&call) else {
            return;
        };
        let Some(live) = self.live.iter_mut().find(|live| live.id == owner) else {
            return;
        };
        live.under_way = live.under_way.saturating_sub(1);
        if let Some(given) = live.calls.iter_mut().find(|given| given.id == call) {
            given.response = Some(read(step));
        }
    }

    fn answer(&mut self, request: SpanId, step: &Step, guide: &Guide<'_>) {
        let Some(place) = self.live.iter().position(|live| live.id == request) else {
            return;
        };
        let act = Act {
            kind: ANSWER,
            beside: false,
            connects: false,
        };
        let mut live = self.live.swap_remove(place);
        let turn = turn(&live, 0, act, step, guide);
        let due = turn.is_some_and(|turn| turn.due > LEAST_DUE_ANSWER) && live.under_way == 0;
        let lag = lag(step, live.last_read(None));
        live.holds = due && live.is_usual(act, lag, guide);
        if let Guide::Seed(_) = guide {
            let weight = if due { 1.0 } else { FAILED_WEIGHT };
            for given in &live.calls {
                self.model.learn(given.view, given.act, given.lag, weight);
            }
            let act = Act {
                beside: live.under_way > 0,
                ..act
            };
            self.model.learn(live.view, act, lag, weight);
        }
        for given in live.calls.iter().filter(|given| given.response.is_none()) {
            self.owners.remove(&given.id);
        }
        let at = self.checks.len();
        if !self.live.is_empty() {
            self.checks.push(live.holds);
        }
        self.answered.push((live, at));
    }

    fn call(&mut self, call: &Made, step: &Step, guide: &Guide<'_>) {
        let turn = self.next(call, step, guide);
        let known = call.parent.map(|parent| {
            let place = self.live.iter().position(|live| live.id == parent);
            if let Some((turn, place)) = turn.zip(place) {
                self.graded.push(place == turn.place);
            }
            place
        });
        let place = known.unwrap_or_else(|| turn.map(|turn| turn.place));
        let Some(live) = place.and_then(|place| self.live.get_mut(place)) else {
            return;
        };
        if live.calls.len() >= MAX_CALLS {
            self.refused += 1;
            return;
        }
        let act = Act {
            kind: call.kind,
            beside: live.under_way > 0,
            connects: call.connects(),
        };
        let since = live.since(act, guide);
        live.calls.push(Given {
            id: call.id,
            time_ns: step.time_ns,
            cause: turn.map(|turn| turn.since),
            response: None,
            is_known: known.is_some(),
            view: live.view,
            act,
            lag: lag(step, since),
        });
        live.under_way += 1;
        live.view = live.view.after(call.kind);
        self.owners.insert(call.id, live.id);
    }

    /// The request that is most due to make a call; of those equally due, the one that waits longest.
    fn next(&self, call: &Made, step: &Step, guide: &Guide<'_>) -> Option<Turn> {
        let mut likely: Vec<(u64, bool, f32)> = Vec::new();
        let mut best: Option<Turn> = None;
        for (place, live) in self.live.iter().enumerate() {
            // A call that its request waits for ends before the answer.
            if live
                .end_ns
                .is_some_and(|end| call.end_ns.is_none_or(|own| own >= end))
            {
                continue;
            }
            let act = Act {
                kind: call.kind,
                beside: live.under_way > 0,
                connects: call.connects(),
            };
            if let Guide::Model(model) = guide
                && !may(&mut likely, model, live.view, act)
            {
                continue;
            }
            let Some(turn) = turn(live, place, act, step, guide) else {
                continue;
            };
            let rank = |turn: &Turn| (turn.since.time_ns, self.live.get(turn.place).map(|l| l.id));
            let better = best.is_none_or(|best| {
                turn.due
                    .total_cmp(&best.due)
                    .then(rank(&best).cmp(&rank(&turn)))
                    .is_gt()
            });
            if better {
                best = Some(turn);
            }
        }
        best.filter(|turn| turn.due >= LEAST_DUE)
    }

    /// The most requests that were under way.
    pub fn crowd(&self) -> usize {
        self.crowd
    }

    /// Parents of the calls whose requests stood the test among others that did.
    pub fn outcome(self) -> Outcome {
        let checks: Vec<bool> = self.before.iter().chain(&self.checks).copied().collect();
        let held = checks.iter().filter(|holds| **holds).count();
        let mut outcome = Outcome {
            found: Vec::new(),
            graded: self.graded,
        };
        if held * 100 < checks.len() * LEAST_HELD_PERCENT {
            return outcome;
        }
        for (live, at) in self.answered.iter().filter(|(live, _)| live.holds) {
            let at = at + self.before.len();
            let near = checks
                .iter()
                .take(at + NEAR + 1)
                .skip(at.saturating_sub(NEAR));
            let (mut all, mut failed) = (0, 0);
            for holds in near {
                all += 1;
                failed += usize::from(!holds);
            }
            if all < LEAST_CHECKS || failed * 100 > all * MOST_FAILED_PERCENT {
                continue;
            }
            let confidence = share(all - failed, all);
            outcome.found.extend(
                live.calls
                    .iter()
                    .filter(|given| !given.is_known)
                    .map(|given| Found {
                        call: given.id,
                        request: live.id,
                        confidence,
                    }),
            );
        }
        outcome
    }
}

/// One of so many more would fail: with none failed of 33 that is 0.97.
fn share(good: usize, all: usize) -> f32 {
    let count = |count: usize| f32::from(u16::try_from(count).unwrap_or(u16::MAX));
    count(good) / (count(all) + 1.0)
}

/// Whether it is likely enough at all; remembered, since many requests look alike.
fn may(known: &mut Vec<(u64, bool, f32)>, model: &Model, view: View, act: Act) -> bool {
    let found = known
        .iter()
        .find(|(fine, beside, _)| (*fine, *beside) == (view.fine, act.beside));
    let found = found.map(|(.., likely)| *likely);
    let likely = found.unwrap_or_else(|| {
        let likely = model.likely(view, act) * model.likely_beside(view, act);
        known.push((view.fine, act.beside, likely));
        likely
    });
    likely >= LEAST_LIKELY
}

fn turn(live: &Live, place: usize, act: Act, step: &Step, guide: &Guide<'_>) -> Option<Turn> {
    match guide {
        Guide::Seed(seed) => live
            .reads()
            .filter_map(|since| {
                let is_spent =
                    |given: &Given| given.act.kind == act.kind && given.cause == Some(since);
                if live.calls.iter().any(is_spent) {
                    return None;
                }
                let (now, later, all) = seed.shares(since.kind, act.kind, lag(step, since))?;
                if now < UNCAUSED {
                    return None;
                }
                let due = log_odds(now / (later + 0.01) * all.min(1.0));
                Some(Turn { place, due, since })
            })
            .max_by(|a, b| {
                let order = a.due.total_cmp(&b.due);
                order.then(b.since.time_ns.cmp(&a.since.time_ns))
            }),
        Guide::Model(model) => {
            let beside = model.likely_beside(live.view, act);
            if model.likely(live.view, act) * beside < LEAST_LIKELY {
                return None;
            }
            let since = live.since(act, guide);
            let due = log_odds(model.due(live.view, act, lag(step, since)) * beside);
            Some(Turn { place, due, since })
        }
    }
}

/// A read that causes less than this many writes so many rounds later causes none.
const UNCAUSED: f32 = 0.02;

fn log_odds(chance: f32) -> f32 {
    let chance = chance.clamp(DOUBT.0, DOUBT.1);
    (chance / (1.0 - chance)).ln()
}

fn lag(step: &Step, since: Read) -> usize {
    step.round.saturating_sub(since.round) as usize
}

fn read(step: &Step) -> Read {
    Read {
        kind: step.kind,
        time_ns: step.time_ns,
        round: step.round,
    }
}

impl Live {
    fn reads(&self) -> impl Iterator<Item = Read> {
        let responses = self.calls.iter().filter_map(|given| given.response);
        std::iter::once(self.start).chain(responses)
    }

    /// The last read before a time.
    fn last_read(&self, before_ns: Option<u64>) -> Read {
        let reads = self.reads().skip(1);
        let before = |read: &Read| before_ns.is_none_or(|before| read.time_ns < before);
        let last = reads.filter(before).max_by_key(|read| read.time_ns);
        last.filter(|last| last.time_ns > self.start.time_ns)
            .unwrap_or(self.start)
    }

    /// The read that a call would follow: what the last call followed, if it comes beside that.
    fn since(&self, act: Act, guide: &Guide<'_>) -> Read {
        let beside = match guide {
            Guide::Seed(_) => act.beside,
            Guide::Model(model) => model.is_beside(self.view, act.kind),
        };
        let last = self.calls.last().filter(|_| beside);
        self.last_read(last.map(|last| last.time_ns))
    }

    /// Everything it did came when such things usually come.
    fn is_usual(&self, answer: Act, answer_lag: usize, guide: &Guide<'_>) -> bool {
        let Guide::Model(model) = guide else {
            return true;
        };
        let usual = |view, act, lag| model.usual(view, act, lag) >= LEAST_USUAL;
        let mut calls = self.calls.iter().filter(|given| !given.act.connects);
        calls.all(|given| usual(given.view, given.act, given.lag))
            && usual(self.view, answer, answer_lag)
    }
}
