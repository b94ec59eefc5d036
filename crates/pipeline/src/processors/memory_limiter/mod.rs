//! Shuts a pipeline's receivers out while the process has too much memory.
//!
//! Batches that are in already go on: they are what has to become less.

mod config;

pub use config::MemoryLimiterSettings;

use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::gate::Gate;
use crate::telemetry::{Counter, Gauge, memory};
use config::Limits;
use std::time::Duration;

impl ProcessorSettings for MemoryLimiterSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        let limits = self
            .limits(memory::available_bytes)
            .ok_or("the kernel does not tell how much memory there is: set limit_mib")?;
        let limiter = MemoryLimiter::new(limits, self.check_interval, &context);
        Ok(Box::new(limiter.reading(memory::resident_bytes)))
    }

    fn belongs_first(&self) -> bool {
        true
    }
}

struct MemoryLimiter {
    limits: Limits,
    check_interval: Duration,
    id: String,
    gate: Gate,
    /// Bytes that the process has now; None: not known.
    resident: Box<dyn Fn() -> Option<u64> + Send>,
    closed: bool,
    accepted: Counter,
    refusing: Gauge,
}

impl MemoryLimiter {
    fn new(limits: Limits, check_interval: Duration, context: &Context) -> Self {
        let labels = [("processor", context.id.as_str())];
        let metrics = &context.metrics;
        let refused = metrics.counter(
            "otelcol_processor_memory_limiter_refused_spans",
            "Spans that were sent away since memory was short.",
            &labels,
        );
        Self {
            limits,
            check_interval,
            id: context.id.to_string(),
            gate: Gate::new(refused),
            resident: Box::new(|| None),
            closed: false,
            accepted: metrics.counter(
                "otelcol_processor_memory_limiter_accepted_spans",
                "Spans that were let in.",
                &labels,
            ),
            refusing: metrics.gauge(
                "deeptrace_memory_limiter_refusing",
                "1 while memory is short.",
                &labels,
            ),
        }
    }

    fn reading(mut self, resident: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        self.resident = Box::new(resident);
        self
    }

    fn close(&mut self, resident: u64) {
        let (id, soft) = (&self.id, self.limits.soft);
        if resident >= self.limits.hard {
            let hard = self.limits.hard;
            tracing::error!(%id, resident, hard, "memory is above the hard limit");
        } else if !self.closed {
            tracing::warn!(%id, resident, soft, "memory is above the soft limit, nothing is let in");
        }
        self.closed = true;
        self.gate.close();
        self.refusing.set(1);
    }

    fn open(&mut self, resident: Option<u64>) {
        if self.closed {
            tracing::info!(id = %self.id, resident, "memory is below the soft limit again");
        }
        self.closed = false;
        self.gate.open();
        self.refusing.set(0);
    }
}

impl Processor for MemoryLimiter {
    fn process(&mut self, batch: Batch, _now: Monotonic, out: &mut Vec<Batch>) {
        self.accepted.add_len(batch.span_count());
        out.push(batch);
    }

    fn gate(&self) -> Option<Gate> {
        Some(self.gate.clone())
    }

    fn tick_interval(&self) -> Option<Duration> {
        Some(self.check_interval)
    }

    fn tick(&mut self, _now: Monotonic, _out: &mut Vec<Batch>) {
        match (self.resident)() {
            Some(resident) if resident >= self.limits.soft => self.close(resident),
            resident => self.open(resident),
        }
    }
}

/// Nobody would open it any more.
impl Drop for MemoryLimiter {
    fn drop(&mut self) {
        self.gate.retire();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ComponentId;
    use crate::extensions::Extensions;
    use crate::telemetry::Metrics;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn the_gate_is_closed_from_the_soft_limit_on_and_open_below_it() {
        let context = Context {
            id: ComponentId::parse("memory_limiter").unwrap(),
            metrics: Metrics::default(),
            extensions: Extensions::default(),
        };
        let limits = Limits {
            soft: 80,
            hard: 100,
        };
        let memory = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&memory);
        let mut limiter = MemoryLimiter::new(limits, Duration::from_secs(1), &context)
            .reading(move || Some(read.load(Ordering::Relaxed)).filter(|bytes| *bytes != 7));
        let gate = limiter.gate().unwrap();
        // 7: not known.
        let cases = [
            (79, false),
            (80, true),
            (100, true),
            (99, true),
            (7, false),
            (80, true),
            (0, false),
        ];
        for (bytes, refuses) in cases {
            memory.store(bytes, Ordering::Relaxed);
            limiter.tick(Monotonic::default(), &mut Vec::new());
            assert_eq!(gate.refuses(1), refuses, "{bytes}");
            assert_eq!(limiter.refusing.get(), i64::from(refuses), "{bytes}");
        }
        memory.store(90, Ordering::Relaxed);
        limiter.tick(Monotonic::default(), &mut Vec::new());
        drop(limiter);
        assert!(!gate.refuses(1), "a gate outlives its limiter");
    }
}
