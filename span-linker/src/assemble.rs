//! Which trace a span is in, across processes.
//!
//! A span is in its parent's trace; at the top stands either a context from the
//! wire or a root, which names the trace after itself. The first span of a
//! subtree to leave fixes the trace for every ancestor on the way up, so that
//! siblings, later children and the root itself leave with the same id.
//!
//! A caller may turn up after its callee has left as a root. If nothing else of
//! the caller's trace has left yet, the whole of it takes the callee's trace id;
//! otherwise the two stay apart and the caller's span carries a span link. No
//! table of aliases is needed: each entry remembers the id it left with, and
//! later children take it from there.

use crate::decode::Decoder;
use crate::window::Window;
use crate::window::entry::Stage;
use crate::window::link::{Link, Method, Parent, Reason, Trace};
use span_model::SpanId;

/// Where a caller and a callee that left before it stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// They share a trace, but the callee left without a parent.
    Joined,
    /// They are in two traces.
    Split,
}

/// Decides a span's parent and fixes the trace of it and of all its ancestors.
///
/// `preferred` is taken where the trace would begin with a root of ours.
pub fn trace_of(
    window: &mut Window,
    id: SpanId,
    preferred: Option<Trace>,
    decoder: &mut Decoder,
) -> Trace {
    let mut path = Vec::with_capacity(8);
    // Brent's way to notice a ring: one span of the path, twice as far along each time.
    let mut marked = None;
    let mut current = id;
    let trace = loop {
        decoder.settle(window, current);
        let is_known = window.get(current).is_some();
        if !is_known || marked == Some(current) {
            // Gone from the window, or a ring of parents, which only lying facts
            // make; the ring is cut where the walk closed it.
            let last = path.last().copied().filter(|_| is_known);
            if let Some(last) = last {
                window.set_link(last, Link::None(Reason::Cycle));
            }
            break preferred.unwrap_or_else(|| Trace::begun_by(last.unwrap_or(current)));
        }
        path.push(current);
        if path.len().is_power_of_two() {
            marked = Some(current);
        }
        let Some(entry) = window.get(current) else {
            break preferred.unwrap_or_else(|| Trace::begun_by(current));
        };
        match (entry.trace, entry.link) {
            (Some(trace), _) => break trace,
            (
                None,
                Some(Link::To {
                    parent: Parent::Span(parent),
                    ..
                }),
            ) => current = parent,
            (
                None,
                Some(Link::To {
                    parent: Parent::Wire(wire),
                    ..
                }),
            ) => break wire.trace,
            (None, Some(Link::Unsure { .. } | Link::None(_)) | None) => {
                break preferred.unwrap_or_else(|| Trace::begun_by(current));
            }
        }
    };
    for id in path {
        window.set_trace(id, trace);
    }
    trace
}

/// Gives a root that has not left yet the caller that turned up after its trace was fixed.
pub fn find_caller_again(window: &mut Window, server: SpanId, decoder: &mut Decoder) {
    let Some(entry) = window.get(server) else {
        return;
    };
    let (Some(Link::None(Reason::CallerNotObserved)), Some(trace), Some(caller)) =
        (entry.link, entry.trace, entry.facts.caller)
    else {
        return;
    };
    if window.get(caller).is_some() && trace_of(window, caller, Some(trace), decoder).id == trace.id
    {
        let parent = Parent::Span(caller);
        window.set_link(
            server,
            Link::To {
                parent,
                method: Method::TcpStream,
                confidence: 1.0,
            },
        );
    }
}

/// Where a client span stands to a callee that left before it, if it needs a span link.
pub fn late(window: &Window, client: SpanId, trace: Trace) -> Option<(SpanId, Trace, Late)> {
    let callee = window.callee(client)?;
    let theirs = callee.trace?;
    // A callee that has not left yet and shares the trace finds its caller by itself.
    let will_join = callee.stage != Stage::Exported && theirs.id == trace.id;
    if callee.parent_span() == Some(client) || will_join {
        return None;
    }
    Some((
        callee.id,
        theirs,
        if theirs.id == trace.id {
            Late::Joined
        } else {
            Late::Split
        },
    ))
}
