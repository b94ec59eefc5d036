//! The one type that travels between components.

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use span_model::Opening;

/// Spans under way from a receiver through processors to exporters.
///
/// Spans are OTLP messages from the moment they leave the collector's `spans`
/// room, so that what came in over OTLP goes out as it came, and the linker
/// treats both alike.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Finished spans, grouped by resource and scope.
    pub resource_spans: Vec<ResourceSpans>,
    /// Requests that have begun, for a linker in the same process; exporters ignore them.
    pub openings: Vec<Opening>,
}

impl Batch {
    /// Number of finished spans.
    pub fn span_count(&self) -> usize {
        let scopes = self
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }

    /// Neither spans nor openings.
    pub fn is_empty(&self) -> bool {
        self.openings.is_empty() && self.span_count() == 0
    }
}
