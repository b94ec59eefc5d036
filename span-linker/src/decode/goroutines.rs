//! Joins what goroutines did for one request.
//!
//! Goroutines move between threads, but one that is woken by another and runs in what is left of its time
//! slice goes on with the same work: what was read in a slice, and what is written after it, belong to
//! one request. So does what a goroutine writes that has read a request, or was started by one that
//! has. A request and its calls are many such pairs, and pairs that share a message are joined, forwards
//! and backwards: a call that nobody knows the beginning of is found by what its response led to.
//!
//! Not all slices are that: a timer or a lock can wake a goroutine that works for another request.
//! Where two requests are joined by it, nothing is said of the calls of both.
//!
//! What begins a time slice reads nothing if it was started and then waited in the scheduler's queue for its turn.
//! Whose turn it was (`LinkFacts::in_turn`) is known surely enough in a process whose processors are all
//! busy; how surely is measured by what is joined otherwise.

use super::Decoder;
use super::stretch::{Bounds, MAX_CALLS, horizon};
use crate::evidence::Claim;
use crate::window::entry::{Entry, Side};
use crate::window::link::Parent;
use crate::window::{FastMap, Trust, Window};
use span_model::SpanId;

/// What goroutines join.
const JOINED: f32 = 0.98;
/// Whose turn it was.
const IN_TURN: f32 = 0.95;

impl Decoder {
    /// The requests that goroutines name for the calls of a stretch, and for some around it.
    pub(super) fn goroutines(
        &self,
        window: &mut Window,
        bounds: &Bounds,
    ) -> FastMap<SpanId, Claim> {
        let Bounds { key, from, until } = *bounds;
        if !has_goroutines(window, bounds) {
            return FastMap::default();
        }
        let open = || {
            window
                .open_in_process(key, from)
                .filter_map(|id| window.get(id))
        };
        let first = open().map(|request| request.start_ns).min().unwrap_or(from);
        let first = first.max(from.saturating_sub(self.look_ns));
        let end = horizon(window, key, until, self.look_ns);
        let mut groups = Groups::default();
        for call in window.calls_begun_in(key, first, end).take(2 * MAX_CALLS) {
            groups.add(window, call);
        }
        for request in open().chain(window.requests_begun_in(key, from, end)) {
            groups.add(window, request);
        }
        let requests = groups.requests();
        measure(window, bounds, end, &mut groups, &requests);
        let trust = window.process(key).map(|process| &process.trust);
        let turns = trust.is_some_and(Trust::trusts_turns);
        groups.claims(window, &requests, turns)
    }
}

/// Measures goroutines by whether they keep requests apart, and turns by what they join.
fn measure(
    window: &mut Window,
    bounds: &Bounds,
    end: u64,
    groups: &mut Groups,
    requests: &FastMap<SpanId, Option<SpanId>>,
) {
    let Bounds { key, from, until } = *bounds;
    let mut alone = Vec::new();
    for request in window.requests_begun_in(key, from, until) {
        if request.facts.of_goroutine && request.end_ns.is_some_and(|end_ns| end_ns < end) {
            alone.push(requests.get(&groups.root(request.id)) == Some(&Some(request.id)));
        }
    }
    let mut turns = Vec::new();
    for call in window.calls_begun_in(key, from, until) {
        let joined = requests.get(&groups.root(call.id)).copied().flatten();
        let turn = call.facts.serving.filter(|_| call.facts.in_turn);
        turns.extend(joined.zip(turn).map(|(joined, turn)| joined == turn));
    }
    let trust = &mut window.process_mut(key).trust;
    for alone in alone {
        trust.saw_goroutines(alone);
    }
    for agrees in turns {
        trust.saw_turn(agrees);
    }
}

fn has_goroutines(window: &Window, bounds: &Bounds) -> bool {
    let mut calls = window.calls_begun_in(bounds.key, bounds.from, bounds.until);
    calls.any(|call| call.facts.of_goroutine)
}

/// Spans that belong to one request, as far as goroutines tell: disjoint sets.
#[derive(Debug, Default)]
struct Groups {
    above: FastMap<SpanId, SpanId>,
    sides: FastMap<SpanId, Side>,
}

impl Groups {
    fn add(&mut self, window: &Window, span: &Entry) {
        self.sides.insert(span.id, span.side);
        if !span.facts.of_goroutine {
            return;
        }
        let serving = span.facts.serving.filter(|_| !span.facts.in_turn);
        let serving = serving.and_then(|request| window.get(request));
        for same in [read_in_slice(window, span), serving].into_iter().flatten() {
            if same.process == span.process {
                self.sides.insert(same.id, same.side);
                self.join(span.id, same.id);
            }
        }
    }

    fn join(&mut self, one: SpanId, other: SpanId) {
        let (one, other) = (self.root(one), self.root(other));
        if one != other {
            self.above.insert(one, other);
        }
    }

    /// The span that stands for the group; halves the way to it.
    fn root(&mut self, span: SpanId) -> SpanId {
        let mut span = span;
        while let Some(above) = self.above.get(&span).copied() {
            if let Some(top) = self.above.get(&above).copied() {
                self.above.insert(span, top);
            }
            span = above;
        }
        span
    }

    /// The one request of each group; none if it has several.
    fn requests(&mut self) -> FastMap<SpanId, Option<SpanId>> {
        let mut requests = FastMap::default();
        for id in self.of(Side::Ingress) {
            let root = self.root(id);
            requests
                .entry(root)
                .and_modify(|only| *only = None)
                .or_insert(Some(id));
        }
        requests
    }

    /// The requests that calls belong to: of their group, or, where `turns` are believed, whose turn it
    /// was when one of a group without a request was written.
    fn claims(
        &mut self,
        window: &Window,
        requests: &FastMap<SpanId, Option<SpanId>>,
        turns: bool,
    ) -> FastMap<SpanId, Claim> {
        let calls = self.of(Side::Egress);
        let mut in_turn: FastMap<SpanId, Option<SpanId>> = FastMap::default();
        for call in calls.iter().filter_map(|id| window.get(*id)) {
            if let Some(request) = call.facts.serving.filter(|_| turns && call.facts.in_turn) {
                in_turn
                    .entry(self.root(call.id))
                    .and_modify(|only| *only = only.filter(|only| *only == request))
                    .or_insert(Some(request));
            }
        }
        let mut claims = FastMap::default();
        for id in calls {
            let root = self.root(id);
            let (request, confidence) = match requests.get(&root) {
                Some(joined) => (*joined, JOINED),
                None => (in_turn.get(&root).copied().flatten(), IN_TURN),
            };
            let claim = request.map(|request| Claim {
                parent: Parent::Span(request),
                confidence,
            });
            claims.extend(claim.map(|claim| (id, claim)));
        }
        claims
    }

    fn of(&self, side: Side) -> Vec<SpanId> {
        let spans = self.sides.iter();
        let spans = spans.filter(|(_, of)| **of == side);
        spans.map(|(id, _)| *id).collect()
    }
}

/// What was read before a span's message was written, in the same time slice and by itself. Not if the
/// call went out on the very connection that the read freed: that wakes whoever stood in line.
fn read_in_slice<'a>(window: &'a Window, span: &Entry) -> Option<&'a Entry> {
    let read = window.get(span.facts.after?)?;
    let mut together = window.read_together(read)?.iter();
    let alone = together.all(|id| *id == read.id);
    (alone && !span.facts.freed).then_some(read)
}
