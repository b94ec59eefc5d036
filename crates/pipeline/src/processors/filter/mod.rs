//! Drops spans and events for which a condition holds.

mod config;

pub use config::{ErrorMode, FilterSettings};

use super::condition::{Condition, Subject};
use super::walk::{Origin, retain_spans};
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::proto::trace::v1::Span;
use crate::telemetry::{Counter, Loss, Losses};

impl ProcessorSettings for FilterSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        let id = context.id.as_str();
        let counter =
            |name: &str, help: &str| context.metrics.counter(name, help, &[("processor", id)]);
        let (spans, events) = self.conditions();
        Ok(Box::new(Filter {
            spans,
            events,
            asking: Asking {
                error_mode: self.error_mode,
                id: id.to_owned(),
                has_warned: false,
                has_failed: false,
                errors: counter("deeptrace_filter_errors", "Conditions that had no answer."),
            },
            dropped_spans: counter(
                "otelcol_processor_filter_spans_filtered",
                "Spans for which a condition held.",
            ),
            dropped_events: counter(
                "deeptrace_filter_span_events_filtered",
                "Events of spans for which a condition held.",
            ),
            losses: Losses::new(&context.metrics, &format!("processors/{id}")),
        }))
    }
}

struct Filter {
    spans: Vec<Condition>,
    events: Vec<Condition>,
    asking: Asking,
    dropped_spans: Counter,
    dropped_events: Counter,
    losses: Losses,
}

impl Processor for Filter {
    fn process(&mut self, mut batch: Batch, _now: Monotonic, out: &mut Vec<Batch>) {
        let spans_before = batch.span_count();
        self.asking.has_failed = false;
        let mut dropped_events = 0;
        let dropped_spans = retain_spans(&mut batch, |origin, span| {
            let subject = Subject {
                origin,
                span,
                event: None,
            };
            let keep = !self.asking.any(&self.spans, subject);
            if keep && !self.events.is_empty() {
                dropped_events += drop_events(&mut self.asking, &self.events, origin, span);
            }
            keep
        });
        if self.asking.has_failed && self.asking.error_mode == ErrorMode::Propagate {
            self.losses.count(Loss::NoAnswer, spans_before);
            return;
        }
        self.dropped_spans.add_len(dropped_spans);
        self.dropped_events.add_len(dropped_events);
        if !batch.is_empty() {
            out.push(batch);
        }
    }
}

fn drop_events(
    asking: &mut Asking,
    conditions: &[Condition],
    origin: Origin<'_>,
    span: &mut Span,
) -> usize {
    let mut events = std::mem::take(&mut span.events);
    let before = events.len();
    events.retain(|event| {
        let subject = Subject {
            origin,
            span,
            event: Some(event),
        };
        !asking.any(conditions, subject)
    });
    span.events = events;
    before - span.events.len()
}

/// Asks conditions, and deals with those that have no answer.
struct Asking {
    error_mode: ErrorMode,
    id: String,
    has_warned: bool,
    /// A condition about the batch at hand had no answer.
    has_failed: bool,
    errors: Counter,
}

impl Asking {
    fn any(&mut self, conditions: &[Condition], subject: Subject<'_>) -> bool {
        conditions.iter().any(|condition| {
            condition.holds(subject).unwrap_or_else(|error| {
                self.errors.inc();
                self.has_failed = true;
                if !self.has_warned && self.error_mode != ErrorMode::Silent {
                    self.has_warned = true;
                    let condition = condition.text();
                    tracing::warn!(id = %self.id, condition, %error, "a condition has no answer, said once");
                }
                false
            })
        })
    }
}
