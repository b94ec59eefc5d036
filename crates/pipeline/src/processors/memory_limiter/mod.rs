//! Shuts a pipeline's receivers out while the process has too much memory.
//!
//! Batches that are in already go on: they are what has to become less.
//!
//! Resident memory also holds what was freed and the allocator keeps for later (glibc: up to 80 %
//! of what there once was). Waiting for it to fall could be waiting for ever. So, between the
//! soft limit and the hard one, memory that no longer falls counts as kept:
//! ```text
//!            soft limit             5 checks without a fall
//! open  ------------------> closed -------------------------> open until it grows --> closed
//! ```

mod config;

pub use config::MemoryLimiterSettings;

use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::gate::Gate;
use crate::telemetry::{Counter, Gauge, memory};
use config::Limits;
use std::time::Duration;

/// Checks without a fall after which memory counts as kept by the allocator.
const STUCK_CHECKS: u32 = 5;
/// The part by which memory may move without having grown.
const NOISE_PART: u64 = 64;

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
    state: State,
    accepted: Counter,
    refusing: Gauge,
}

/// What the limiter makes of memory; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing is let in; the lowest memory since, and the checks without a fall.
    Closed {
        lowest: u64,
        stuck: u32,
    },
    /// Above the soft limit, but spans are let in until there is more than this.
    OpenUpTo(u64),
}

impl State {
    fn next(self, resident: u64, limits: Limits) -> Self {
        let closed = Self::Closed {
            lowest: resident,
            stuck: 0,
        };
        if resident < limits.soft {
            return Self::Open;
        }
        if resident >= limits.hard {
            return closed;
        }
        match self {
            Self::Open => closed,
            Self::OpenUpTo(level) if resident > level => closed,
            Self::OpenUpTo(_) => self,
            Self::Closed { lowest, .. } if resident < lowest => closed,
            Self::Closed { stuck, .. } if stuck + 1 >= STUCK_CHECKS => {
                Self::OpenUpTo(resident.saturating_add(resident / NOISE_PART))
            }
            Self::Closed { lowest, stuck } => Self::Closed {
                lowest,
                stuck: stuck + 1,
            },
        }
    }

    fn is_closed(self) -> bool {
        matches!(self, Self::Closed { .. })
    }
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
            state: State::Open,
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

    /// Does what the state says, and says so when it is another.
    fn enter(&mut self, state: State, resident: u64) {
        let (id, limits) = (&self.id, self.limits);
        let was_closed = self.state.is_closed();
        match state {
            State::Closed { .. } if resident >= limits.hard => {
                tracing::error!(%id, resident, limit = limits.hard, "memory is above its limit");
            }
            State::Closed { .. } if !was_closed => {
                let limit = limits.soft;
                tracing::warn!(%id, resident, limit, "memory is short, nothing is let in");
            }
            State::Open if was_closed => tracing::info!(%id, resident, "memory is free again"),
            State::OpenUpTo(_) if was_closed => {
                tracing::info!(%id, resident, "memory falls no more, it is used again");
            }
            _ => {}
        }
        self.state = state;
        if state.is_closed() {
            self.gate.close();
        } else {
            self.gate.open();
        }
        self.refusing.set(state.is_closed().into());
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
        // Not known: nothing speaks for refusing.
        let resident = (self.resident)().unwrap_or(0);
        self.enter(self.state.next(resident, self.limits), resident);
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
    fn the_gate_is_closed_while_memory_is_short_and_may_fall() {
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
            // Memory that falls no more is used again, until it grows.
            (90, true),
            (95, true),
            (89, true),
            (89, true),
            (90, true),
            (89, true),
            (89, true),
            (89, false),
            (90, false),
            (81, false),
            (91, true),
            (85, true),
            // Not so above the hard limit.
            (100, true),
            (100, true),
            (100, true),
            (100, true),
            (100, true),
            (100, true),
            (79, false),
        ];
        for (index, (bytes, refuses)) in cases.into_iter().enumerate() {
            memory.store(bytes, Ordering::Relaxed);
            limiter.tick(Monotonic::default(), &mut Vec::new());
            assert_eq!(gate.refuses(1), refuses, "{index}: {bytes}");
            assert_eq!(limiter.refusing.get(), i64::from(refuses), "{bytes}");
        }
        memory.store(90, Ordering::Relaxed);
        limiter.tick(Monotonic::default(), &mut Vec::new());
        drop(limiter);
        assert!(!gate.refuses(1), "a gate outlives its limiter");
    }
}
