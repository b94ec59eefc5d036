//! Keeps whole traces, by what is known of them when all their spans are there.
//!
//! ```text
//! span --> decided already? --> out, or dropped
//!      \-> waits with its trace --> decision_wait over, or too many wait --> policies --> out, or dropped
//! ```
//! It belongs behind `span_linker`: before it, spans have no trace.

mod config;
mod policy;
mod rate;
mod remembered;
mod trace;

pub use config::TailSamplingSettings;

use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::proto::trace::v1::Span;
use crate::telemetry::{Counter, Gauge, Metrics};
use policy::{Policy, Verdict};
use remembered::Remembered;
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use trace::{Piece, Trace, assembled, pieces};

/// The clock is looked at so often, or four times in a shorter `decision_wait`.
const TICK: Duration = Duration::from_millis(500);
const MIN_TICK: Duration = Duration::from_millis(5);
/// Room that is made ready for expected traces at most.
const MAX_EXPECTED: usize = 1_000_000;

impl ProcessorSettings for TailSamplingSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        let policies = self.policies()?;
        let size = |size: usize| if size == 0 { self.num_traces } else { size };
        let seconds = usize::try_from(self.decision_wait.as_secs()).unwrap_or(usize::MAX);
        let expected = self
            .expected_new_traces_per_sec
            .saturating_mul(seconds.max(1));
        Ok(Box::new(TailSampling {
            counts: Counts::new(&context, &policies),
            policies,
            waiting: HashMap::with_capacity(expected.min(self.num_traces).min(MAX_EXPECTED)),
            order: VecDeque::new(),
            spans: 0,
            sampled: Remembered::new(size(self.decision_cache.sampled_cache_size)),
            not_sampled: Remembered::new(size(self.decision_cache.non_sampled_cache_size)),
            settings: self.clone(),
        }))
    }
}

struct TailSampling {
    settings: TailSamplingSettings,
    policies: Vec<Policy>,
    /// At most `num_traces`, with `max_spans` spans.
    waiting: HashMap<Vec<u8>, Trace>,
    /// Their ids, the oldest first.
    order: VecDeque<Vec<u8>>,
    /// How many spans wait.
    spans: usize,
    sampled: Remembered,
    not_sampled: Remembered,
    counts: Counts,
}

impl Processor for TailSampling {
    fn process(&mut self, mut batch: Batch, now: Monotonic, out: &mut Vec<Batch>) {
        let mut kept = Vec::new();
        for piece in pieces(batch.take_resource_spans()) {
            self.take(piece, now, &mut kept);
            while self.waiting.len() > self.settings.num_traces
                || self.spans > self.settings.max_spans
            {
                self.counts.early.inc();
                self.decide_oldest(now, &mut kept);
            }
        }
        self.counts.waiting.set_len(self.waiting.len());
        // For a linker that stands behind this, where it should not.
        if !batch.openings.is_empty() {
            out.push(batch);
        }
        let_go(kept, out);
    }

    fn tick_interval(&self) -> Option<Duration> {
        Some((self.settings.decision_wait / 4).clamp(MIN_TICK, TICK))
    }

    fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let wait = self.settings.decision_wait;
        let mut kept = Vec::new();
        while let Some(oldest) = self.order.front().and_then(|id| self.waiting.get(id)) {
            if now.since(oldest.since) < wait {
                break;
            }
            self.decide_oldest(now, &mut kept);
        }
        self.counts.waiting.set_len(self.waiting.len());
        let_go(kept, out);
    }

    fn held_spans(&self) -> usize {
        self.spans
    }

    /// Decides by what is there.
    fn flush(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let mut kept = Vec::new();
        while !self.order.is_empty() {
            self.decide_oldest(now, &mut kept);
        }
        self.counts.waiting.set_len(0);
        let_go(kept, out);
    }
}

fn let_go(kept: Vec<Piece>, out: &mut Vec<Batch>) {
    if !kept.is_empty() {
        out.push(Batch::new(assembled(kept)));
    }
}

impl TailSampling {
    /// A late span follows its trace; any other waits.
    fn take(&mut self, piece: Piece, now: Monotonic, kept: &mut Vec<Piece>) {
        let id = trace_id(&piece.span);
        if let Some(trace) = self.waiting.get_mut(&*id) {
            trace.add(piece);
            self.spans += 1;
        } else if self.sampled.contains(&id) {
            self.counts.late_kept.inc();
            kept.push(piece);
        } else if self.not_sampled.contains(&id) {
            self.counts.late_dropped.inc();
        } else {
            self.counts.new_traces.inc();
            let id = id.into_owned();
            let mut trace = Trace::new(id.clone(), now);
            trace.add(piece);
            self.spans += 1;
            self.order.push_back(id.clone());
            self.waiting.insert(id, trace);
        }
    }

    fn decide_oldest(&mut self, now: Monotonic, kept: &mut Vec<Piece>) {
        let oldest = self.order.pop_front();
        let Some(trace) = oldest.and_then(|id| self.waiting.remove(&id)) else {
            return;
        };
        self.spans = self.spans.saturating_sub(trace.span_count());
        let decision = self.decide(&trace, now);
        self.counts.decided(decision);
        if decision == Verdict::Sampled {
            self.sampled.insert(trace.id().to_vec());
            kept.extend(trace.into_pieces());
        } else {
            self.not_sampled.insert(trace.id().to_vec());
        }
    }

    /// `Sampled`, `NotSampled` or `Dropped`, with the precedence of the Collector.
    fn decide(&mut self, trace: &Trace, now: Monotonic) -> Verdict {
        let mut said = Vec::with_capacity(self.policies.len());
        for (policy, counts) in self.policies.iter_mut().zip(&self.counts.policies) {
            let verdict = policy.ask(trace, now);
            counts.count(verdict, trace.span_count());
            said.push(verdict);
            let settled = verdict == Verdict::Dropped
                || (verdict == Verdict::Sampled && self.settings.sample_on_first_match);
            if settled {
                break;
            }
        }
        let has = |verdict| said.contains(&verdict);
        if has(Verdict::Dropped) {
            Verdict::Dropped
        } else if has(Verdict::InvertNotSampled) {
            Verdict::NotSampled
        } else if has(Verdict::Sampled)
            || (has(Verdict::InvertSampled) && !has(Verdict::NotSampled))
        {
            Verdict::Sampled
        } else {
            Verdict::NotSampled
        }
    }
}

/// A span without a trace is one of its own.
fn trace_id(span: &Span) -> Cow<'_, [u8]> {
    if span.trace_id.iter().any(|byte| *byte != 0) {
        Cow::Borrowed(&span.trace_id)
    } else {
        Cow::Owned([&span.trace_id[..], &span.span_id[..]].concat())
    }
}

struct Counts {
    new_traces: Counter,
    waiting: Gauge,
    early: Counter,
    late_kept: Counter,
    late_dropped: Counter,
    sampled: Counter,
    not_sampled: Counter,
    dropped: Counter,
    policies: Vec<PolicyCounts>,
}

/// Traces and spans by what one policy said.
struct PolicyCounts {
    sampled: [Counter; 2],
    not_sampled: [Counter; 2],
    dropped: [Counter; 2],
}

const SAMPLED: [(&str, &str); 2] = [("sampled", "true"), ("decision", "sampled")];
const NOT_SAMPLED: [(&str, &str); 2] = [("sampled", "false"), ("decision", "not_sampled")];
const DROPPED: [(&str, &str); 2] = [("sampled", "false"), ("decision", "dropped")];

impl Counts {
    fn new(context: &Context, policies: &[Policy]) -> Self {
        let (metrics, id) = (&context.metrics, context.id.as_str());
        let counter = |name: &str, help: &str, labels: &[(&str, &str)]| {
            let labels = [&[("processor", id)], labels].concat();
            metrics.counter(name, help, &labels)
        };
        let decided = |labels: &[(&str, &str)]| {
            let name = "otelcol_processor_tail_sampling_global_count_traces_sampled";
            counter(name, "Traces by decision.", labels)
        };
        let late = |sampled: &str| {
            let name = "otelcol_processor_tail_sampling_early_releases_from_cache_decision";
            let help = "Late spans that followed the decision about their trace.";
            counter(name, help, &[("sampled", sampled)])
        };
        let policies = policies
            .iter()
            .map(|policy| PolicyCounts::new(metrics, id, &policy.name));
        Self {
            new_traces: counter(
                "otelcol_processor_tail_sampling_new_trace_id_received",
                "Traces that began.",
                &[],
            ),
            waiting: metrics.gauge(
                "otelcol_processor_tail_sampling_sampling_traces_on_memory",
                "Traces that wait.",
                &[("processor", id)],
            ),
            early: counter(
                "deeptrace_tail_sampling_early_decisions",
                "Traces decided about before their time, since too many waited.",
                &[],
            ),
            late_kept: late("true"),
            late_dropped: late("false"),
            sampled: decided(&SAMPLED),
            not_sampled: decided(&NOT_SAMPLED),
            dropped: decided(&DROPPED),
            policies: policies.collect(),
        }
    }

    fn decided(&self, decision: Verdict) {
        match decision {
            Verdict::Sampled | Verdict::InvertSampled => self.sampled.inc(),
            Verdict::NotSampled | Verdict::InvertNotSampled => self.not_sampled.inc(),
            Verdict::Dropped => self.dropped.inc(),
        }
    }
}

impl PolicyCounts {
    fn new(metrics: &Metrics, id: &str, policy: &str) -> Self {
        let pair = |decision: [(&str, &str); 2]| {
            let labels = [&[("processor", id), ("policy", policy)], &decision[..]].concat();
            let traces = "otelcol_processor_tail_sampling_count_traces_sampled";
            let spans = "otelcol_processor_tail_sampling_count_spans_sampled";
            [
                metrics.counter(traces, "Traces by what a policy said.", &labels),
                metrics.counter(spans, "Spans of them.", &labels),
            ]
        };
        Self {
            sampled: pair(SAMPLED),
            not_sampled: pair(NOT_SAMPLED),
            dropped: pair(DROPPED),
        }
    }

    fn count(&self, verdict: Verdict, spans: usize) {
        let [traces_counter, spans_counter] = match verdict {
            Verdict::Sampled | Verdict::InvertSampled => &self.sampled,
            Verdict::NotSampled | Verdict::InvertNotSampled => &self.not_sampled,
            Verdict::Dropped => &self.dropped,
        };
        traces_counter.inc();
        spans_counter.add_len(spans);
    }
}
