//! Joins small batches and splits large ones.

mod config;

pub use config::BatchSettings;

use super::walk;
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::proto::trace::v1::ResourceSpans;
use crate::telemetry::Counter;
use std::time::Duration;

/// The clock is looked at so many times in a timeout, and not more often than `MIN_TICK`.
const TICKS_PER_TIMEOUT: u32 = 4;
const MIN_TICK: Duration = Duration::from_millis(5);

impl ProcessorSettings for BatchSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        let counter = |name: &str, help: &str| {
            let labels = [("processor", context.id.as_str())];
            context.metrics.counter(name, help, &labels)
        };
        Ok(Box::new(Joiner {
            settings: self.clone(),
            waiting: Vec::new(),
            spans: 0,
            since: None,
            by_size: counter(
                "otelcol_processor_batch_batch_size_trigger_send",
                "Batches that left since they were large enough.",
            ),
            by_timeout: counter(
                "otelcol_processor_batch_timeout_trigger_send",
                "Batches that left since they had waited long enough.",
            ),
        }))
    }
}

struct Joiner {
    settings: BatchSettings,
    /// Fewer spans than `send_batch_size` between two calls.
    waiting: Vec<ResourceSpans>,
    spans: usize,
    /// When the first of them came.
    since: Option<Monotonic>,
    by_size: Counter,
    by_timeout: Counter,
}

impl Processor for Joiner {
    fn process(&mut self, mut batch: Batch, now: Monotonic, out: &mut Vec<Batch>) {
        let spans = batch.span_count();
        self.waiting.append(&mut batch.take_resource_spans());
        self.spans += spans;
        // A linker behind this should hear of open requests at once.
        if !batch.openings.is_empty() {
            out.push(batch);
        }
        if spans > 0 {
            self.since.get_or_insert(now);
        }
        let enough = if self.settings.timeout.is_zero() {
            1
        } else {
            self.settings.send_batch_size.max(1)
        };
        while self.spans >= enough {
            self.by_size.inc();
            self.let_go(now, out);
        }
    }

    fn tick_interval(&self) -> Option<Duration> {
        let timeout = self.settings.timeout;
        (!timeout.is_zero()).then(|| (timeout / TICKS_PER_TIMEOUT).max(MIN_TICK))
    }

    fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let timeout = self.settings.timeout;
        if self.since.is_some_and(|since| now.since(since) >= timeout) {
            while self.spans > 0 {
                self.by_timeout.inc();
                self.let_go(now, out);
            }
        }
    }

    fn held_spans(&self) -> usize {
        self.spans
    }

    fn flush(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        while self.spans > 0 {
            self.let_go(now, out);
        }
    }
}

impl Joiner {
    /// As much as one batch may hold.
    fn let_go(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let most = self.settings.send_batch_max_size;
        let taken = if most == 0 || self.spans <= most {
            self.spans = 0;
            self.since = None;
            std::mem::take(&mut self.waiting)
        } else {
            self.spans -= most;
            self.since = Some(now);
            walk::split_off_front(&mut self.waiting, most)
        };
        out.push(Batch::new(taken));
    }
}
