//! Links calls by the ways that lead from responses back to their requests, in processes in which a
//! thread alone says too little.
//!
//! What a thread read before it wrote a response is mostly what the request waited for; who made that
//! call had mostly read what the request waited for then, and so on. In Go and tokio each step is right
//! in two cases of three and more, and wrong ones lead to some other request. Ways that lead back to the
//! very request are right nearly always.

use super::Decoder;
use super::stretch::Bounds;
use crate::window::link::{Link, Method, Parent, Reason};
use crate::window::{FastMap, Trust, Window};
use span_model::SpanId;

/// Ways that are less sure are not believed, whatever the floor: in Go at 64 in flight, put at 0.92,
/// 1 to 4 % of them were wrong.
const LEAST: f32 = 0.95;

impl Decoder {
    /// Links what ways back tell of the calls of a stretch, and gives back the rest.
    pub(super) fn way_back(
        &self,
        window: &mut Window,
        bounds: &Bounds,
        left: Vec<(SpanId, Reason)>,
    ) -> Vec<(SpanId, Reason)> {
        if left.is_empty() {
            return left;
        }
        let trust = window.process(bounds.key).map(|process| &process.trust);
        let confidence = trust.and_then(Trust::way_back).unwrap_or(0.0);
        if confidence < self.floor.max(LEAST) {
            return left;
        }
        let found = ways(window, bounds);
        grade(window, bounds, &found);
        let trust = &window.process_mut(bounds.key).trust;
        if !trust.trusts(Method::WayBack) {
            return left;
        }
        let mut rest = Vec::new();
        for (id, reason) in left {
            let Some(request) = found.get(&id) else {
                rest.push((id, reason));
                continue;
            };
            let link = Link::To {
                parent: Parent::Span(*request),
                method: Method::WayBack,
                confidence,
            };
            window.set_link(id, link);
        }
        rest
    }
}

/// The requests that ways through calls of the stretch lead back to.
fn ways(window: &Window, bounds: &Bounds) -> FastMap<SpanId, SpanId> {
    let before = window.open_in_process(bounds.key, bounds.from);
    let before = before.filter_map(|id| window.get(id));
    let begun = window.requests_begun_in(bounds.key, bounds.from, bounds.until);
    let mut found = FastMap::default();
    for request in before.chain(begun).filter(|entry| entry.end_ns.is_some()) {
        let mut calls = Vec::new();
        if window.way_back(request, |call| calls.push(call)) == Some(request.id) {
            found.extend(calls.into_iter().map(|call| (call, request.id)));
        }
    }
    found
}

/// Measures them by what is known exactly.
fn grade(window: &mut Window, bounds: &Bounds, found: &FastMap<SpanId, SpanId>) {
    let exact = |(call, request): (&SpanId, &SpanId)| match window.get(*call)?.link? {
        Link::To {
            parent,
            method: Method::Headers | Method::Tokens,
            ..
        } => Some(parent == Parent::Span(*request)),
        _ => None,
    };
    let grades: Vec<bool> = found.iter().filter_map(exact).collect();
    let trust = &mut window.process_mut(bounds.key).trust;
    for agrees in grades {
        trust.saw_exact(Method::WayBack, agrees);
    }
}
