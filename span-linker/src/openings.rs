//! The `openings` processor: tells a linker in another process which requests have begun.
//!
//! A linker gives a span the trace of a request that is still open only if it knows that request.
//! In one process it is told at once (`Batch::openings`); over OTLP a request that has been open
//! for a while travels as a span that is marked as an opening, and that only a linker understands.
//! A request that ends before that needs no opening: its span comes in time.

use crate::window::FastMap;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as OtlpKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::Batch;
use pipeline::clock::Monotonic;
use pipeline::component::{
    BoxError, Check, Context, Factory, Processor, ProcessorFactory, ProcessorSettings, Settings,
};
use pipeline::config::duration;
use pipeline::otlp::key_value;
use pipeline::telemetry::Counter;
use schemars::JsonSchema;
use serde::Deserialize;
use span_model::{OPENING, Opening, SpanId, SpanKind, Value};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

/// `openings`: tells a linker in another process which requests have begun.
pub const FACTORY: ProcessorFactory = Factory::processor::<OpeningsSettings>("openings");

/// How often requests that are open for long are looked for.
const TICK: Duration = Duration::from_millis(100);

/// `processors::openings`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OpeningsSettings {
    /// How long a request is open before the linker is told; well below its `decision_wait`.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub after: Duration,
    /// Requests that are waited for; beyond it the linker is told of the oldest at once.
    pub max_waiting: usize,
}

impl Default for OpeningsSettings {
    fn default() -> Self {
        Self {
            after: Duration::from_millis(500),
            max_waiting: 100_000,
        }
    }
}

impl Settings for OpeningsSettings {
    fn check(&self, check: &mut Check<'_>) {
        if self.max_waiting == 0 {
            check.error("max_waiting", "must be above 0");
        }
    }
}

impl ProcessorSettings for OpeningsSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        let help = "Requests that a linker was told of before they ended.";
        let labels = [("processor", context.id.as_str())];
        let told = context
            .metrics
            .counter("deeptrace_forwarded_openings", help, &labels);
        Ok(Box::new(Openings {
            settings: self.clone(),
            waiting: FastMap::default(),
            order: VecDeque::new(),
            told,
        }))
    }
}

struct Openings {
    settings: OpeningsSettings,
    waiting: FastMap<SpanId, Opening>,
    /// As they began; those that have ended since are in `waiting` no longer.
    order: VecDeque<(Monotonic, SpanId)>,
    told: Counter,
}

impl Processor for Openings {
    fn process(&mut self, mut batch: Batch, now: Monotonic, out: &mut Vec<Batch>) {
        for opening in std::mem::take(&mut batch.openings) {
            let id = opening.span_id;
            if self.waiting.insert(id, opening).is_none() {
                self.order.push_back((now, id));
            }
        }
        if !self.waiting.is_empty() {
            self.forget_ended(&batch);
        }
        // Also bounds what has ended and stands in `order` still.
        let excess = self.order.len().saturating_sub(self.settings.max_waiting);
        let excess: Vec<_> = self.order.drain(..excess).collect();
        self.tell(excess, out);
        if batch.span_count() > 0 {
            out.push(batch);
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        Some(TICK)
    }

    fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let due = self
            .order
            .partition_point(|(since, _)| now.since(*since) >= self.settings.after);
        let due: Vec<_> = self.order.drain(..due).collect();
        self.tell(due, out);
    }
}

impl Openings {
    fn forget_ended(&mut self, batch: &Batch) {
        let resources = batch.resource_spans();
        let scopes = resources.iter().flat_map(|resource| &resource.scope_spans);
        for span in scopes.flat_map(|scope| &scope.spans) {
            if let Some(id) = crate::otlp::span_id(span) {
                self.waiting.remove(&id);
            }
        }
    }

    /// Sends those that are open still.
    fn tell(&mut self, begun: Vec<(Monotonic, SpanId)>, out: &mut Vec<Batch>) {
        let open = begun
            .into_iter()
            .filter_map(|(_, id)| self.waiting.remove(&id));
        let spans: Vec<Span> = open.map(|opening| span_of(&opening)).collect();
        if spans.is_empty() {
            return;
        }
        self.told.add_len(spans.len());
        let scope = ScopeSpans {
            spans,
            ..ScopeSpans::default()
        };
        out.push(Batch::new(vec![ResourceSpans {
            scope_spans: vec![scope],
            ..ResourceSpans::default()
        }]));
    }
}

/// An opening on the wire: `otlp::opening` reads it.
fn span_of(opening: &Opening) -> Span {
    let process = i64::from_ne_bytes(opening.process.0.to_ne_bytes());
    let facts = opening.facts.to_attributes();
    let mark = (Cow::Borrowed(OPENING), Value::Int(process));
    let kind = match opening.kind {
        SpanKind::Server => OtlpKind::Server,
        SpanKind::Client => OtlpKind::Client,
    };
    Span {
        span_id: opening.span_id.as_bytes().to_vec(),
        name: "open".to_owned(),
        kind: kind.into(),
        start_time_unix_nano: opening.start_unix_ns,
        end_time_unix_nano: opening.start_unix_ns,
        attributes: facts.into_iter().chain([mark]).map(key_value).collect(),
        ..Span::default()
    }
}
