//! Settings of `filter`.

use crate::component::{Check, Settings};
use crate::processors::condition::{Condition, EventCondition, SpanCondition, TraceCondition};
use schemars::JsonSchema;
use serde::Deserialize;

/// `processors::filter`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FilterSettings {
    /// What happens when a condition has no answer.
    pub error_mode: ErrorMode,
    /// Drops the span, or the event, for which one of these holds.
    trace_conditions: Vec<TraceCondition>,
    /// The older form of `trace_conditions`.
    traces: TraceFilters,
}

/// `filter::traces`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct TraceFilters {
    /// Drops spans.
    span: Vec<SpanCondition>,
    /// Drops events of spans.
    spanevent: Vec<EventCondition>,
}

/// `error_mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorMode {
    /// The condition does not hold; the log says so once.
    #[default]
    Ignore,
    /// The condition does not hold.
    Silent,
    /// The batch is lost.
    Propagate,
}

impl FilterSettings {
    /// The conditions on spans, and those on events.
    pub(super) fn conditions(&self) -> (Vec<Condition>, Vec<Condition>) {
        let new = self.trace_conditions.iter().map(|condition| &condition.0);
        let spans = self.traces.span.iter().map(|condition| &condition.0);
        let events = self.traces.spanevent.iter().map(|condition| &condition.0);
        let all = new.chain(spans).chain(events).cloned();
        all.partition(|condition| !condition.is_about_event())
    }
}

impl Settings for FilterSettings {
    fn check(&self, check: &mut Check<'_>) {
        let (spans, events) = self.conditions();
        if spans.is_empty() && events.is_empty() {
            check.error("trace_conditions", "at least one condition is needed");
        }
    }
}
