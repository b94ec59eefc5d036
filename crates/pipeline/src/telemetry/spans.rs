//! Own spans, while `service::telemetry::traces` has them sent; else they cost next to nothing.

use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{InstrumentationScope, KeyValue};

/// A piece of own work; it ends when this is dropped.
pub(crate) struct OwnSpan(BoxedSpan);

impl OwnSpan {
    /// Begins now. Named as the Collector names them, such as `exporter/otlp_grpc/traces`.
    pub fn begin(name: String, kind: SpanKind) -> Self {
        let scope = InstrumentationScope::builder("deeptrace").build();
        let tracer = global::tracer_with_scope(scope);
        Self(tracer.span_builder(name).with_kind(kind).start(&tracer))
    }

    /// How many spans of the pipeline it was about.
    pub fn count(&mut self, key: &'static str, spans: usize) {
        let spans = i64::try_from(spans).unwrap_or(i64::MAX);
        self.0.set_attribute(KeyValue::new(key, spans));
    }

    /// It did not succeed.
    pub fn fail(&mut self, why: &str) {
        self.0.set_status(Status::error(why.to_owned()));
    }
}
