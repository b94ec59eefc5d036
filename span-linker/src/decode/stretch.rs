//! Decides all calls that a process began in a stretch of time.
//!
//! ```text
//! |--- decided ---|---- stretch ----|-- look --|
//!                 from            until      horizon
//! ```
//! The ladder decides what it can. What it leaves goes, with what it decided, to `sequence`.
//! Spans beyond the horizon are left out of account, known or not: that keeps the decision
//! the same whenever it is made.

use super::goroutines::is_of_goroutine;
use super::queue::only_thread;
use super::{Decoder, ladder};
use crate::sequence::{Call, Choice, Process, Request, Scene, State};
use crate::window::entry::Entry;
use crate::window::link::{Link, Method, Parent, Reason};
use crate::window::{FastMap, Window};
use span_model::{ProcessKey, SpanId};

/// Calls of one stretch, and of the look beyond it; with more, both are shorter.
pub(super) const MAX_CALLS: usize = 4096;
/// Requests of one scene; beyond, those that began first are left out.
const MAX_REQUESTS: usize = 4096;
/// A process that was taught this much is taught by one stretch in `REFRESH` more.
const TAUGHT: f32 = 20_000.0;
const REFRESH: u64 = 8;

impl Decoder {
    /// Decides all calls that a process began up to a time.
    pub(super) fn decide_until(&mut self, window: &mut Window, key: ProcessKey, time_ns: u64) {
        loop {
            let process = self.sequences.get(key);
            let decided = process.map_or(0, Process::decided_until_ns);
            if decided > time_ns {
                return;
            }
            let next = window.calls_begun_in(key, decided, u64::MAX).next();
            let Some(next) = next.map(|call| call.start_ns) else {
                return;
            };
            if next > time_ns {
                return;
            }
            let from = (next / self.stretch_ns * self.stretch_ns).max(decided);
            self.decide_stretch(window, key, from);
        }
    }

    fn decide_stretch(&mut self, window: &mut Window, key: ProcessKey, from: u64) {
        let end = (from / self.stretch_ns + 1).saturating_mul(self.stretch_ns);
        let calls = calls_of(window, key, from, end);
        // Too many calls: the stretch ends before the first that has no place.
        let until = calls
            .get(MAX_CALLS)
            .map_or(end, |call| call.start_ns.max(from + 1));
        let bounds = Bounds { key, from, until };
        let by_goroutine = if calls.iter().any(|call| call.of_goroutine) {
            self.goroutines(window, &bounds)
        } else {
            FastMap::default()
        };
        let (mut left, mut count) = (Vec::new(), 0);
        for Begun { id, .. } in calls.into_iter().filter(|call| call.start_ns < until) {
            count += 1;
            let by_goroutine = by_goroutine.get(&id).copied();
            if let Some(reason) = ladder::climb(window, id, self.floor, by_goroutine) {
                left.push((id, reason));
            }
        }
        let left = self.queue(window, &bounds, count, left);
        let left = self.hops(window, &bounds, left);
        let Some((scene, choices)) = self.time(window, &bounds, left.len()) else {
            for (id, reason) in left {
                window.set_link(id, Link::None(reason));
            }
            self.sequences.process(key).skip(until);
            return;
        };
        let calls = scene.calls.iter().map(|call| call.id);
        let choices: FastMap<SpanId, Choice> = calls.zip(choices).collect();
        for (id, reason) in left {
            let choice = choices.get(&id);
            let link = choice.map_or(Link::None(reason), |choice| {
                self.link(&scene, *choice, reason)
            });
            window.set_link(id, link);
        }
    }

    /// What timing says of the calls of a stretch, of which so many have no parent yet; none: it
    /// says nothing.
    fn time(
        &mut self,
        window: &Window,
        bounds: &Bounds,
        left: usize,
    ) -> Option<(Scene, Vec<Choice>)> {
        let Bounds { key, from, until } = *bounds;
        if !self.timing {
            return None;
        }
        let process = self.sequences.process(key);
        let stretch = from / self.stretch_ns;
        let crowd = || window.open_in_process(key, from).count();
        let wanted = process.wants(left, stretch) && process.may_try(from, crowd());
        if !wanted || has_one_thread(window, bounds) {
            return None;
        }
        let horizon = if process.is_young() {
            until.saturating_add(self.look_ns)
        } else {
            horizon(window, key, until, self.look_ns)
        };
        let scene = scene(window, process, bounds, horizon);
        if !self.budget.affords(stretch, scene.work()) {
            self.unaffordable += left as u64;
            return None;
        }
        let mut choices = process.decide(&scene, until);
        if !process.is_taught() {
            choices.clear();
        }
        Some((scene, choices))
    }

    /// Links those of the calls that a parent is found for, sure enough, and gives back the rest.
    pub(super) fn give(
        &self,
        window: &mut Window,
        method: Method,
        left: Vec<(SpanId, Reason)>,
        found: impl Fn(&Window, SpanId) -> Option<(SpanId, f32)>,
    ) -> Vec<(SpanId, Reason)> {
        let mut rest = Vec::new();
        for (id, reason) in left {
            match found(window, id) {
                None => rest.push((id, reason)),
                Some((_, confidence)) if confidence < self.floor => {
                    rest.push((id, Reason::BelowFloor));
                }
                Some((request, confidence)) => {
                    let link = Link::To {
                        parent: Parent::Span(request),
                        method,
                        confidence,
                    };
                    window.set_link(id, link);
                }
            }
        }
        rest
    }

    fn link(&self, scene: &Scene, choice: Choice, reason: Reason) -> Link {
        let Choice {
            parent, confidence, ..
        } = choice;
        let parent = parent.and_then(|parent| scene.requests.get(parent as usize));
        match parent {
            Some(parent) if confidence >= self.floor => Link::To {
                parent: Parent::Span(parent.id),
                method: Method::Timing,
                confidence,
            },
            Some(parent) => Link::Unsure {
                request: parent.id,
                confidence,
            },
            None => Link::None(reason),
        }
    }
}

impl Process {
    /// The stretch has something to choose, or to teach.
    fn wants(&mut self, left: usize, stretch: u64) -> bool {
        self.needed |= left > 0;
        let hungry = self.learned() < TAUGHT || stretch.is_multiple_of(REFRESH);
        left > 0 || (self.needed && hungry)
    }
}

/// Everything moves on one thread. When it reads and writes tells when the thread comes to it, not
/// what its requests wait for; `queue` looks at that.
fn has_one_thread(window: &Window, bounds: &Bounds) -> bool {
    let Bounds { key, from, until } = *bounds;
    let requests: Vec<&Entry> = window.requests_begun_in(key, from, until).collect();
    let calls: Vec<&Entry> = window.calls_begun_in(key, from, until).collect();
    only_thread(&requests, &calls).is_some()
}

/// A stretch of a process's time, ns since the Unix epoch.
pub(super) struct Bounds {
    pub(super) key: ProcessKey,
    pub(super) from: u64,
    pub(super) until: u64,
}

/// When the last request has ended that was under way at the end of the stretch: what comes
/// after says nothing about its calls. One that goes on for longer is not waited for.
pub(super) fn horizon(window: &Window, key: ProcessKey, until: u64, look_ns: u64) -> u64 {
    let furthest = until.saturating_add(look_ns);

    let open = window.open_in_process(key, until);
    let ends = open.filter_map(|id| window.get(id)?.end_ns());
    let last = ends.filter(|end| *end < furthest).max();
    last.map_or(until, |end| end.saturating_add(1).max(until))
}

/// A call that began in a stretch.
struct Begun {
    id: SpanId,
    start_ns: u64,
    of_goroutine: bool,
}

fn calls_of(window: &Window, key: ProcessKey, from: u64, until: u64) -> Vec<Begun> {
    let calls = window.calls_begun_in(key, from, until);
    let begun = |call: &Entry| Begun {
        id: call.id,
        start_ns: call.start_ns,
        of_goroutine: is_of_goroutine(call),
    };
    calls.take(MAX_CALLS + 1).map(begun).collect()
}

fn scene(window: &Window, process: &mut Process, bounds: &Bounds, horizon: u64) -> Scene {
    let Bounds { key, from, until } = *bounds;
    let mut scene = Scene::default();
    let before = window.open_in_process(key, from.saturating_sub(1));
    let mut requests: Vec<&Entry> = before.filter_map(|id| window.get(id)).collect();
    requests.retain(|request| request.start_ns < from);
    requests.reverse();
    requests.extend(window.requests_begun_in(key, from, horizon));
    requests.sort_by_key(|request| (request.start_ns, request.id));
    let crowd = requests.len().saturating_sub(MAX_REQUESTS);
    let mut places = FastMap::default();
    for (place, entry) in (0..).zip(requests.into_iter().skip(crowd)) {
        let request = request(process, entry, horizon);
        places.insert(entry.id, place);
        let known = process.state_of(request.id);
        let state = known.unwrap_or_else(|| replay(window, process, &request, from));
        scene.states.push(state);
        scene.requests.push(request);
    }
    for (count, entry) in window.calls_begun_in(key, from, horizon).enumerate() {
        if count >= MAX_CALLS && entry.start_ns >= until {
            break;
        }
        let parent = match entry.link {
            Some(Link::To { parent, .. }) => Some(parent),
            Some(Link::Unsure { .. } | Link::None(_)) => continue,
            None if entry.start_ns >= until => ladder::exact_parent(window, entry),
            None => None,
        };
        let pinned = match parent {
            None => None,
            Some(Parent::Wire(_)) => continue,
            Some(Parent::Span(parent)) => match places.get(&parent) {
                Some(place) => Some(*place),
                None => continue,
            },
        };
        scene.calls.push(call(process, entry, horizon));
        scene.pinned.push(pinned);
    }
    scene
}

/// Where a request stands that began before a stretch and was not followed until then.
fn replay(window: &Window, process: &mut Process, request: &Request, from: u64) -> State {
    let mut state = State::begun(request);
    if request.start_ns >= from {
        return state;
    }
    let Some(key) = window.get(request.id).map(|entry| entry.process) else {
        return state;
    };
    let calls = window.calls_begun_in(key, request.start_ns, from);
    for entry in calls.take(MAX_CALLS) {
        if entry.parent_span() == Some(request.id) {
            state = state.after(&call(process, entry, from));
        }
    }
    state
}

fn request(process: &mut Process, entry: &Entry, horizon: u64) -> Request {
    Request {
        id: entry.id,
        kind: process.kind(entry.kind),
        start_ns: entry.start_ns,
        end_ns: entry.end_ns().filter(|end| *end < horizon),
        tids: (entry.facts.request_tid, entry.facts.response_tid),
    }
}

fn call(process: &mut Process, entry: &Entry, horizon: u64) -> Call {
    Call {
        id: entry.id,
        kind: process.kind(entry.kind),
        start_ns: entry.start_ns,
        end_ns: entry.end_ns().filter(|end| *end < horizon),
        tids: (entry.facts.request_tid, entry.facts.response_tid),
        after: entry.facts.after,
        serving: entry.facts.serving,
    }
}
