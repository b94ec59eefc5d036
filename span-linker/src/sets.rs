//! Disjoint sets of spans (Galler and Fisher, CACM 7, 1964; paths halved).

use span_model::SpanId;
use std::collections::HashMap;

/// Every span is a set of its own until it is joined with others.
#[derive(Debug, Default)]
pub struct Sets {
    /// Towards the span that stands for the set.
    above: HashMap<SpanId, SpanId, foldhash::fast::RandomState>,
}

impl Sets {
    /// The span that stands for the set.
    pub fn top(&mut self, span: SpanId) -> SpanId {
        let mut span = span;
        while let Some(above) = self.above.get(&span).copied() {
            if let Some(top) = self.above.get(&above).copied() {
                self.above.insert(span, top);
            }
            span = above;
        }
        span
    }

    /// Joins two sets; the first one's top stands for both.
    pub fn join(&mut self, one: SpanId, other: SpanId) {
        let (top, under) = (self.top(one), self.top(other));
        if top != under {
            self.above.insert(under, top);
        }
    }
}
