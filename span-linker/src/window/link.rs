//! The words for a decision: parent, method, reason, trace.

use span_model::{SpanId, TraceId};

/// A parent, in the window or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A span of the window.
    Span(SpanId),
    /// What the request's headers said.
    Wire(WireParent),
}

/// The parent that a header names; it need not be a span that we ever see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireParent {
    /// The trace.
    pub trace: Trace,
    /// The span; some headers name only a trace.
    pub span: Option<SpanId>,
}

/// A trace and what its flags say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The id.
    pub id: TraceId,
    /// The sampling decision that came on the wire; ours is always yes.
    pub sampled: bool,
    /// We made the id, so its low bits are known to be random.
    pub random: bool,
}

impl Trace {
    /// The trace that a root span of ours begins.
    pub fn begun_by(root: SpanId) -> Self {
        Self {
            id: TraceId::of_root(root),
            sampled: true,
            random: true,
        }
    }
}

/// What was decided about a span's parent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    /// It has one.
    To {
        /// Which.
        parent: Parent,
        /// How it was found.
        method: Method,
        /// How sure that is, 0 to 1.
        confidence: f32,
    },
    /// It has none, but this request of its process may be it; below the floor.
    Unsure {
        /// Which.
        request: SpanId,
        /// How likely that is, 0 to 1.
        confidence: f32,
    },
    /// It has none.
    None(Reason),
}

/// Why a span has no parent: the values of `deeptrace.link.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Server: the connection tells who called, but no such span was seen.
    CallerNotObserved,
    /// Server: the connection does not tell who called.
    NoCaller,
    /// Client: the process was serving no request that we know of.
    NoOpenRequest,
    /// Client: requests were open, nothing tells which one it belongs to.
    NoEvidence,
    /// The best parent was not likely enough.
    BelowFloor,
    /// The window was full.
    WindowFull,
    /// The parents found form a ring.
    Cycle,
}

impl Reason {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 7] = [
        Self::CallerNotObserved,
        Self::NoCaller,
        Self::NoOpenRequest,
        Self::NoEvidence,
        Self::BelowFloor,
        Self::WindowFull,
        Self::Cycle,
    ];

    /// The attribute's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallerNotObserved => "caller_not_observed",
            Self::NoCaller => "no_caller",
            Self::NoOpenRequest => "no_open_request",
            Self::NoEvidence => "no_evidence",
            Self::BelowFloor => "below_floor",
            Self::WindowFull => "window_full",
            Self::Cycle => "cycle",
        }
    }
}

/// How a parent was found: the values of `deeptrace.link.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The TCP stream position named the caller's span.
    TcpStream,
    /// A trace context on the wire named it.
    TraceContext,
    /// The request carries on the trace context of a request being served.
    Headers,
    /// The request carries on a rare header value of a request being served.
    Tokens,
    /// What Go's scheduler tells of goroutines.
    Goroutine,
    /// What the writing thread read last.
    ThreadOrder,
    /// The request that the writing thread is busy serving.
    Thread,
    /// What the writing thread read last, where that is right for some kinds of messages only.
    Hops,
    /// What the thread that woke the writing thread had read last.
    HandOff,
    /// Whom the thread that read the response woke then.
    HandBack,
    /// The request carries on a word of the payload of a request being served.
    Payload,
    /// The one request being served.
    OnlyOpen,
    /// Whose turn it is where one thread keeps the order of its requests.
    QueueOrder,
    /// What the process's requests usually do next, and when.
    Timing,
}

impl Method {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::TcpStream,
        Self::TraceContext,
        Self::Headers,
        Self::Tokens,
        Self::Goroutine,
        Self::ThreadOrder,
        Self::Thread,
        Self::Hops,
        Self::HandOff,
        Self::HandBack,
        Self::Payload,
        Self::OnlyOpen,
        Self::QueueOrder,
        Self::Timing,
    ];

    /// The attribute's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpStream => "tcp_stream",
            Self::TraceContext => "trace_context",
            Self::Headers => "headers",
            Self::Tokens => "tokens",
            Self::Goroutine => "goroutine",
            Self::ThreadOrder => "thread_order",
            Self::Thread => "thread",
            Self::Hops => "hops",
            Self::HandOff => "hand_off",
            Self::HandBack => "hand_back",
            Self::Payload => "payload",
            Self::OnlyOpen => "only_open",
            Self::QueueOrder => "queue_order",
            Self::Timing => "timing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_methods_are_listed_in_the_order_of_their_numbers() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
        for (index, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, index, "{}", method.name());
        }
    }
}
