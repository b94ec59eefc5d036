//! Keeps a share of the traces, chosen by their ids, so that samplers elsewhere choose alike.
//!
//! What was chosen with which probability goes along in the trace state.

mod config;
mod threshold;
mod tracestate;

pub use config::ProbabilisticSamplerSettings;

use super::attribute;
use super::walk::retain_spans;
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::proto::common::v1::any_value::Value;
use crate::proto::trace::v1::Span;
use crate::telemetry::Counter;
use config::Mode;
use threshold::{BITS, Randomness, Threshold};
use tracestate::TraceState;

/// `hash_seed` chooses by so many bits of its hash.
const HASH_BITS: u32 = 14;
const HASH_BUCKETS: u16 = 1 << HASH_BITS;

impl ProcessorSettings for ProbabilisticSamplerSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        Ok(Box::new(Sampler {
            settings: self.clone(),
            threshold: self.threshold(),
            decisions: Decisions::new(&context),
        }))
    }
}

impl ProbabilisticSamplerSettings {
    /// Of one that nothing was sampled before.
    fn threshold(&self) -> Threshold {
        if self.mode != Mode::HashSeed {
            return Threshold::of_probability(self.probability(), self.sampling_precision);
        }
        // In single precision and cut off, as the Collector has always done it: both must
        // choose the same traces.
        let percentage = self.sampling_percentage.min(100.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and the number of buckets"
        )]
        let kept = (percentage * (f32::from(HASH_BUCKETS) / 100.0)) as u64;
        let rejected = u64::from(HASH_BUCKETS).saturating_sub(kept);
        Threshold::from_bits(rejected << (BITS - HASH_BITS))
    }
}

struct Sampler {
    settings: ProbabilisticSamplerSettings,
    threshold: Threshold,
    decisions: Decisions,
}

/// What `sampling.priority` on a span says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    Keep,
    Drop,
    Open,
}

/// What a span is decided by: the label `policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Priority,
    TraceIdHash,
    TraceId,
    TraceState,
    /// Its trace id or trace state cannot be used.
    Failed,
}

impl Processor for Sampler {
    fn process(&mut self, mut batch: Batch, _now: Monotonic, out: &mut Vec<Batch>) {
        retain_spans(&mut batch, |_, span| {
            let (policy, kept) = match priority(span) {
                Priority::Drop => (Policy::Priority, false),
                Priority::Keep => {
                    self.choose(span, Priority::Keep);
                    (Policy::Priority, true)
                }
                Priority::Open => self.choose(span, Priority::Open),
            };
            self.decisions.count(policy, kept);
            kept
        });
        if !batch.is_empty() {
            out.push(batch);
        }
    }
}

impl Sampler {
    /// Decides, and writes the decision into the trace state of a span that is kept.
    fn choose(&self, span: &mut Span, priority: Priority) -> (Policy, bool) {
        let failed = (Policy::Failed, !self.settings.fail_closed);
        let Some(mut state) = TraceState::parse(&span.trace_state) else {
            return failed;
        };
        let Some((policy, randomness)) = self.randomness(span, &mut state) else {
            return failed;
        };
        // A threshold that this span does not pass is a lie.
        if state
            .threshold
            .is_some_and(|arriving| !arriving.keeps(randomness))
        {
            state.threshold = None;
            span.trace_state = state.text();
            return failed;
        }
        let threshold = match (priority, self.settings.mode, state.threshold) {
            (Priority::Keep, ..) => Threshold::ALWAYS,
            (_, Mode::Proportional, Some(arriving)) => {
                let share = arriving.probability() * self.settings.probability();
                Threshold::of_probability(share, self.settings.sampling_precision)
            }
            _ => self.threshold,
        };
        let kept = threshold.keeps(randomness);
        if kept {
            // A sampler before this one may have kept less: then its threshold stands.
            state.threshold = state.threshold.max(Some(threshold));
            span.trace_state = state.text();
        }
        (policy, kept)
    }

    /// The random bits, and where they are from; None: there are none.
    fn randomness(&self, span: &Span, state: &mut TraceState) -> Option<(Policy, Randomness)> {
        if self.settings.mode == Mode::HashSeed {
            // Whoever samples consistently elsewhere must not find other random bits here.
            if state.randomness.is_some() || state.threshold.is_some() {
                return None;
            }
            let randomness = hashed(&span.trace_id, self.settings.hash_seed);
            state.randomness = Some(randomness);
            return Some((Policy::TraceIdHash, randomness));
        }
        if let Some(randomness) = state.randomness {
            return Some((Policy::TraceState, randomness));
        }
        Some((Policy::TraceId, Randomness::of_trace_id(&span.trace_id)?))
    }
}

/// FNV-1a of seed and trace id, arranged so that its 14 bits decide as they always did in the
/// Collector, and the rest fills up 56.
fn hashed(trace_id: &[u8], seed: u32) -> Randomness {
    let seed = seed.to_le_bytes();
    let bytes = seed.iter().chain(trace_id);
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let bucket = u64::from(hash) & u64::from(HASH_BUCKETS - 1);
    let reversed = u64::from(HASH_BUCKETS - 1) - bucket;
    let unused = u64::from(hash >> (32 - HASH_BITS));
    let mixed = unused ^ (unused << 10);
    Randomness::from_bits((reversed << 42) | (mixed << 14) | bucket)
}

/// `sampling.priority` as `OpenTracing` meant it: 0 drops, more keeps.
fn priority(span: &Span) -> Priority {
    #[expect(clippy::cast_precision_loss, reason = "only its sign matters")]
    let value = match attribute::find(&span.attributes, "sampling.priority") {
        Some(Value::IntValue(number)) => *number as f64,
        Some(Value::DoubleValue(number)) => *number,
        Some(Value::StringValue(text)) => text.parse().unwrap_or(-1.0),
        _ => -1.0,
    };
    if value == 0.0 {
        Priority::Drop
    } else if value > 0.0 {
        Priority::Keep
    } else {
        Priority::Open
    }
}

impl Policy {
    const ALL: [Self; 5] = [
        Self::Priority,
        Self::TraceIdHash,
        Self::TraceId,
        Self::TraceState,
        Self::Failed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Priority => "sampling_priority",
            Self::TraceIdHash => "trace_id_hash",
            Self::TraceId => "trace_id_w3c",
            Self::TraceState => "sampling_randomness",
            Self::Failed => "missing_randomness",
        }
    }
}

/// Counts decisions.
struct Decisions(Vec<(Policy, bool, Counter)>);

impl Decisions {
    fn new(context: &Context) -> Self {
        let counter = |policy: Policy, sampled: bool| {
            context.metrics.counter(
                "otelcol_processor_probabilistic_sampler_count_traces_sampled",
                "Spans that were kept or dropped.",
                &[
                    ("processor", context.id.as_str()),
                    ("policy", policy.name()),
                    ("sampled", if sampled { "true" } else { "false" }),
                ],
            )
        };
        let pairs = Policy::ALL
            .into_iter()
            .flat_map(|policy| [(policy, true), (policy, false)]);
        Self(
            pairs
                .map(|(policy, sampled)| (policy, sampled, counter(policy, sampled)))
                .collect(),
        )
    }

    fn count(&self, policy: Policy, sampled: bool) {
        let wanted =
            |(known, kept, _): &&(Policy, bool, Counter)| *known == policy && *kept == sampled;
        if let Some((.., counter)) = self.0.iter().find(wanted) {
            counter.inc();
        }
    }
}
