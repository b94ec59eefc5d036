//! What speaks for one span being another's parent: one file a rung.
//!
//! A rung looks at one span and the window and names at most one parent, with a
//! confidence of its own. It neither compares itself with other rungs nor knows
//! a process's track record; `decode` does. A new rung is one file and one line
//! in `RUNGS`.
//!
//! | rung | says | wrong when |
//! |---|---|---|
//! | `tcp_stream` | computed from the connection, nothing to get wrong | never |
//! | `headers` | the trace context of a request being served is sent on | an app sends one context with unrelated calls |
//! | `tokens` | a rare header value of a request being served is sent on | the value is not rare after all; `exactly one` guards |
//! | `thread_order` | what follows a read on a thread belongs to it | a write waited for a timer, a lock, a pooled connection |
//! | `thread` | a blocking thread works for the request it has not answered | event loops, Go, hand-off pools |
//! | `hand_off` | who ended the wait of a call's thread had read what the call belongs to | a worker found its task waiting; locks |
//! | `hand_back` | whose wait ends once a call's response is read made the call | locks |
//! | `payload` | an id in the target of a request being served is sent on | ids that several requests share, calls that carry none on |
//! | `only_open` | only one request is being served | background work |
//! | `trace_context` | the header names the parent | never |

mod hand_back;
mod hand_off;
mod headers;
mod only_open;
mod payload;
mod tcp_stream;
mod thread;
mod thread_order;
mod tokens;
mod trace_context;

pub use payload::carries_on;

use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Trace;
use crate::window::link::{Method, Parent, WireParent};
use span_model::{SpanId, WireContext};

/// One kind of evidence.
pub trait Rung: Sync {
    /// What it is called.
    fn method(&self) -> Method;
    /// The parent that it names for a span.
    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim>;
}

/// A parent that a rung names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Who.
    pub parent: Parent,
    /// How sure the rung is by itself, 0 to 1.
    pub confidence: f32,
}

/// All rungs, exact ones first.
pub const RUNGS: &[&dyn Rung] = &[
    &tcp_stream::TcpStream,
    &headers::Headers,
    &tokens::Tokens,
    &thread_order::ThreadOrder,
    &thread::Thread,
    &hand_off::HandOff,
    &hand_back::HandBack,
    &payload::Payload,
    &only_open::OnlyOpen,
    &trace_context::TraceContext,
];

/// The trace context that a span's request carried, as far as either side saw it.
///
/// The client side of an encrypted connection may see no headers where the
/// server side does; it is the same request.
pub fn wire_context(window: &Window, entry: &Entry) -> Option<WireContext> {
    entry.facts.context.or_else(|| match entry.side {
        Side::Egress => window.callee(entry.id)?.facts.context,
        Side::Ingress => window.get(entry.facts.caller?)?.facts.context,
        Side::Foreign => None,
    })
}

fn wire_parent(context: WireContext) -> Parent {
    let trace = Trace {
        id: context.trace_id,
        sampled: context.sampled.unwrap_or(true),
        random: false,
    };
    Parent::Wire(WireParent {
        trace,
        span: context.parent_span_id,
    })
}

fn span_claim(parent: SpanId, confidence: f32) -> Claim {
    Claim {
        parent: Parent::Span(parent),
        confidence,
    }
}

/// The only item there is; none if there are more.
fn exactly_one<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}
