//! What is kept of one span: enough to judge parenthood and trace membership,
//! not the span itself.

use super::link::{Link, Parent, Trace};
use span_model::{LinkFacts, ProcessKey, SpanId};
use std::num::NonZeroU64;

/// A time of the linker's own clock: ms since its first call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// Which side of a call the span describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A request the process served.
    Ingress,
    /// A request the process made.
    Egress,
    /// A span of some other tracer, known only by its trace.
    Foreign,
}

/// How far a span has come.
///
/// ```text
/// Open --ended--> Held --decided--> Exported --remembered long enough--> gone
///   \------------open too long or window full---------------------------> gone
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has begun and not ended.
    Open,
    /// It has ended and waits for its decision.
    Held,
    /// It has left.
    Exported,
}

/// What is kept of one span.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The span.
    pub id: SpanId,
    /// Which side of the call.
    pub side: Side,
    /// How far it has come.
    pub stage: Stage,
    /// No proper end was seen, so its end says nothing about the other side.
    pub incomplete: bool,
    /// The process it happened in.
    pub process: ProcessKey,
    /// First byte of the request, ns since the Unix epoch.
    pub start_ns: u64,
    /// Last byte of the response, ns since the Unix epoch; none while open.
    end_ns: Option<NonZeroU64>,
    /// What it asked for, and whom: equal for spans that do the same; 0 while unknown.
    pub kind: u32,
    /// What was observed.
    pub facts: LinkFacts,
    /// Client spans: the server span that the request arrived as, once that is known.
    pub callee: Option<SpanId>,
    /// Its parent, once decided; it does not change after a span that depends on it has left,
    /// except that a root may still find its caller.
    pub link: Option<Link>,
    /// Its trace, fixed when the first span of its subtree leaves.
    pub trace: Option<Trace>,
}

/// More tokens than this are not kept of one request.
pub const MAX_TOKENS: usize = 8;

impl Entry {
    /// A span that has been seen, open or ended.
    pub fn new(
        id: SpanId,
        side: Side,
        process: ProcessKey,
        start_ns: u64,
        mut facts: LinkFacts,
    ) -> Self {
        facts.tokens.sort_unstable();
        facts.tokens.dedup();
        facts.tokens.truncate(MAX_TOKENS);
        facts.tokens.shrink_to_fit();
        Self {
            id,
            side,
            stage: Stage::Open,
            incomplete: false,
            process,
            start_ns,
            end_ns: None,
            kind: 0,
            facts,
            callee: None,
            link: None,
            trace: None,
        }
    }

    /// Last byte of the response, ns since the Unix epoch; none while open.
    pub fn end_ns(&self) -> Option<u64> {
        self.end_ns.map(NonZeroU64::get)
    }

    /// The response has ended.
    pub fn ended(&mut self, end_ns: u64) {
        self.end_ns = NonZeroU64::new(end_ns.max(1));
    }

    /// The request was under way at this time, so far as is known.
    pub fn is_open_at(&self, time_ns: u64) -> bool {
        self.start_ns <= time_ns && self.end_ns().is_none_or(|end| time_ns < end)
    }

    /// The parent in the window, if that is what was decided.
    pub fn parent_span(&self) -> Option<SpanId> {
        match self.link {
            Some(Link::To {
                parent: Parent::Span(parent),
                ..
            }) => Some(parent),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_compact() {
        assert!(size_of::<Entry>() <= 224, "{}", size_of::<Entry>());
    }
}
