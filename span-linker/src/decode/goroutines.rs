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
//! Whose turn it was (`ToldBy::Turn`) is known surely enough in a process whose processors are all
//! busy; how surely is measured by what is joined otherwise.

use super::Decoder;
use super::around::Around;
use super::stretch::Bounds;
use crate::evidence::Claim;
use crate::sets::Sets;
use crate::window::entry::{Entry, Side};
use crate::window::link::Parent;
use crate::window::{FastMap, Measured, Trust, Window};
use span_model::{SpanId, ToldBy};

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
        let mut groups = Groups::default();
        let around = Around::new(window, bounds, self.look_ns);
        for span in around.calls.iter().chain(&around.requests) {
            groups.add(window, span);
        }
        let requests = groups.requests();
        let measured = measure(window, bounds, &around, &mut groups, &requests);
        window
            .process_mut(bounds.key)
            .trust
            .saw_goroutines(&measured);
        let trust = window.process(bounds.key).map(|process| &process.trust);
        let turns = trust.is_some_and(Trust::trusts_turns);
        groups.claims(window, &requests, turns)
    }
}

/// Measures goroutines by whether they keep requests apart, and turns by what they join.
fn measure(
    window: &Window,
    bounds: &Bounds,
    around: &Around<'_>,
    groups: &mut Groups,
    requests: &FastMap<SpanId, Option<SpanId>>,
) -> Measured {
    let mut measured = Measured::default();
    let begun = around.requests.iter();
    let begun = begun.filter(|request| around.is_begun(request) && is_of_goroutine(request));
    for request in begun {
        let joined = requests.get(&groups.sets.top(request.id));
        measured.alone.push(joined == Some(&Some(request.id)));
    }
    for call in window.calls_begun_in(bounds.key, bounds.from, bounds.until) {
        let joined = requests.get(&groups.sets.top(call.id)).copied().flatten();
        let turn = call.facts.serving.filter(|_| is_in_turn(call));
        let agrees = joined.zip(turn).map(|(joined, turn)| joined == turn);
        measured.turns.extend(agrees);
    }
    measured
}

pub(super) fn is_of_goroutine(span: &Entry) -> bool {
    span.facts.told_by != ToldBy::Thread
}

fn is_in_turn(span: &Entry) -> bool {
    span.facts.told_by == ToldBy::Turn
}

/// Spans that belong to one request, as far as goroutines tell.
#[derive(Debug, Default)]
struct Groups {
    sets: Sets,
    sides: FastMap<SpanId, Side>,
}

impl Groups {
    fn add(&mut self, window: &Window, span: &Entry) {
        self.sides.insert(span.id, span.side);
        if !is_of_goroutine(span) {
            return;
        }
        let serving = span.facts.serving.filter(|_| !is_in_turn(span));
        let serving = serving.and_then(|request| window.get(request));
        for same in [read_in_slice(window, span), serving].into_iter().flatten() {
            if same.process == span.process {
                self.sides.insert(same.id, same.side);
                self.sets.join(span.id, same.id);
            }
        }
    }

    /// The one request of each group; none if it has several.
    fn requests(&mut self) -> FastMap<SpanId, Option<SpanId>> {
        let mut requests = FastMap::default();
        for id in self.of(Side::Ingress) {
            let root = self.sets.top(id);
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
            if let Some(request) = call.facts.serving.filter(|_| turns && is_in_turn(call)) {
                in_turn
                    .entry(self.sets.top(call.id))
                    .and_modify(|only| *only = only.filter(|only| *only == request))
                    .or_insert(Some(request));
            }
        }
        let mut claims = FastMap::default();
        for id in calls {
            let root = self.sets.top(id);
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
