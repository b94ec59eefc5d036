//! The trace context that a client span carries, compared with those of the
//! requests being served.
//!
//! - One request came with the same trace and the same parent: the process
//!   sends headers on (a proxy, or an app that copies them); that request is the parent.
//! - The parent is nobody's here: an SDK in this process made it, and it is the parent.
//! - Several requests came with the same trace and parent: not for this rung to tell.

use super::{Claim, Rung, exactly_one, span_claim, wire_context, wire_parent};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;

pub struct Headers;

impl Rung for Headers {
    fn method(&self) -> Method {
        Method::Headers
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Egress {
            return None;
        }
        let context = wire_context(window, child)?;
        let open = || window.open_with_trace(child.process, context.trace_id, child.start_ns);
        let came_with = |entry: &&Entry| {
            let parent = entry.facts.context.and_then(|c| c.parent_span_id);
            context.parent_span_id.is_none() || parent == context.parent_span_id
        };
        if open().any(|entry| came_with(&entry)) {
            return exactly_one(open().filter(came_with)).map(|entry| span_claim(entry.id, 1.0));
        }
        context.parent_span_id.is_some().then(|| Claim {
            parent: wire_parent(context),
            confidence: 1.0,
        })
    }
}
