//! The linker as a component of a pipeline.

use crate::config::Config;
use crate::processor::SpanLinker;
use crate::stats::Stats;
use crate::window::link::{Method, Reason};
use pipeline::Batch;
use pipeline::clock::Monotonic;
use pipeline::component::{
    BoxError, Context, Factory, Processor, ProcessorFactory, ProcessorSettings, join,
};
use pipeline::processors;
use pipeline::telemetry::Metrics;
use std::time::Duration;

/// `span_linker`: finds parents and joins spans into traces.
pub const FACTORY: ProcessorFactory = Factory::processor::<Config>("span_linker");

/// Every processor that a binary with a linker has.
pub const PROCESSORS: &[ProcessorFactory] =
    &join::<_, { processors::ALL.len() + 2 }>(processors::ALL, &[FACTORY, crate::OPENINGS]);

/// How often due spans are let go.
const TICK: Duration = Duration::from_millis(100);

impl ProcessorSettings for Config {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        Ok(Box::new(Component {
            linker: SpanLinker::new(self.clone()),
            told: Stats::default(),
            id: context.id.to_string(),
            metrics: context.metrics,
        }))
    }
}

struct Component {
    linker: SpanLinker,
    /// What the metrics know already.
    told: Stats,
    id: String,
    metrics: Metrics,
}

impl Processor for Component {
    fn process(&mut self, batch: Batch, now: Monotonic, out: &mut Vec<Batch>) {
        self.linker.process(batch, now, out);
    }

    fn tick_interval(&self) -> Option<Duration> {
        Some(TICK)
    }

    fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        self.linker.tick(now, out);
        self.tell();
    }

    fn held_spans(&self) -> usize {
        self.linker.held_spans()
    }

    fn flush(&mut self, _now: Monotonic, out: &mut Vec<Batch>) {
        self.linker.flush(out);
        self.tell();
    }
}

impl Component {
    fn tell(&mut self) {
        let (stats, told) = (self.linker.stats().clone(), self.told.clone());
        for method in Method::ALL {
            let help = "Spans whose parent was found, by method.";
            let label = ("method", method.name());
            let new = stats.linked(method) - told.linked(method);
            self.count("deeptrace_linked_spans", help, label, new);
        }
        for reason in Reason::ALL {
            let help = "Spans left without a parent, by reason.";
            let label = ("reason", reason.name());
            let new = stats.unlinked(reason) - told.unlinked(reason);
            self.count("deeptrace_unlinked_spans", help, label, new);
        }
        let events = [
            ("late_joined", stats.late_joined - told.late_joined),
            ("late_split", stats.late_split - told.late_split),
            ("duplicate", stats.duplicates - told.duplicates),
            ("window_full", stats.refused - told.refused),
            (
                "opening_forgotten",
                stats.forgotten_openings - told.forgotten_openings,
            ),
            (
                "model_forgotten",
                stats.forgotten_models - told.forgotten_models,
            ),
            (
                "sample_refused",
                stats.refused_samples - told.refused_samples,
            ),
            ("timing_skipped", stats.unaffordable - told.unaffordable),
            ("foreign", stats.foreign - told.foreign),
            ("malformed", stats.malformed - told.malformed),
        ];
        for (event, new) in events {
            let help = "Spans that the linker treated unlike the others.";
            self.count("deeptrace_linker_events", help, ("event", event), new);
        }
        let help = "Spans that the linker knows: open, waiting and remembered.";
        let labels = [("processor", self.id.as_str())];
        let known = self
            .metrics
            .gauge("deeptrace_linker_known_spans", help, &labels);
        known.set_len(self.linker.known_spans());
        self.told = stats;
    }

    fn count(&self, name: &str, help: &str, label: (&str, &str), new: u64) {
        if new > 0 {
            let labels = [("processor", self.id.as_str()), label];
            self.metrics.counter(name, help, &labels).add(new);
        }
    }
}
