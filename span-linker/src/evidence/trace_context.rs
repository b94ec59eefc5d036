//! A trace context on the wire names trace and parent: the last resort of a
//! server span whose caller was not seen, and of a client span that no request
//! of its process can be told to have sent on.

use super::{Claim, Rung, wire_context, wire_parent};
use crate::window::Window;
use crate::window::entry::Entry;
use crate::window::link::Method;

pub struct TraceContext;

impl Rung for TraceContext {
    fn method(&self) -> Method {
        Method::TraceContext
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        let context = wire_context(window, child)?;
        Some(Claim {
            parent: wire_parent(context),
            confidence: 1.0,
        })
    }
}
