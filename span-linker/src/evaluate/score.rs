//! How right answers are, by every measure in use.
//!
//! | measure | of | right |
//! |---|---|---|
//! | pair, by trace | calls with a recorded parent | the given parent is in the call's trace (`DeepTrace`) |
//! | pair, by parent | the same | the given parent is the parent |
//! | request | requests of processes that make calls | exactly its own calls were given to it (`TraceWeaver`) |
//! | whole trace | traces with calls | all calls have their parent, those without one have none |
//!
//! These four take the best guess of every call. Precision and recall take only parents that
//! were given: links above the floor.

use super::Answer;
use super::recording::{Recorded, Recording};
use std::collections::{HashMap, HashSet};

/// Right ones of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub right: usize,
    pub all: usize,
}

impl Share {
    fn add(&mut self, right: bool) {
        self.all += 1;
        self.right += usize::from(right);
    }

    /// The share; 1 of nothing.
    #[expect(clippy::cast_precision_loss, reason = "a share needs four digits")]
    pub fn value(self) -> f64 {
        if self.all == 0 {
            1.0
        } else {
            self.right as f64 / self.all as f64
        }
    }
}

/// The lower ends of the bins of the reliability table.
pub const BINS: [f64; 8] = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99];

/// All measures.
#[derive(Clone, Debug, Default)]
pub struct Score {
    pub pair_by_trace: Share,
    pub pair_by_parent: Share,
    pub request: Share,
    pub trace: Share,
    /// Given links that are right, of those given and of those there are.
    pub precision: Share,
    pub recall: Share,
    /// By confidence.
    pub reliability: [Share; BINS.len()],
    /// Sums of the confidences in each bin.
    pub confidence: [f64; BINS.len()],
}

/// Scores one answer a span.
pub fn score(recording: &Recording, answers: &[Option<Answer>]) -> Score {
    let mut score = Score::default();
    let mut wrong_requests = HashSet::new();
    let mut traces: HashMap<u32, bool> = HashMap::new();
    let mut makes_calls = HashSet::new();
    for (span, answer) in recording.spans.iter().zip(answers) {
        if span.ingress {
            continue;
        }
        makes_calls.insert(span.process);
        let answer = answer.filter(|answer| is_request(recording, span, answer.parent));
        let guess = answer.map(|answer| answer.parent);
        let right = guess == span.above;
        score.one(recording, span, answer, right);
        *traces.entry(span.trace).or_insert(true) &= right;
        if !right {
            wrong_requests.extend(guess.into_iter().chain(span.above));
        }
    }
    for right in traces.into_values() {
        score.trace.add(right);
    }
    for (index, span) in (0..).zip(&recording.spans) {
        if span.ingress && makes_calls.contains(&span.process) {
            score.request.add(!wrong_requests.contains(&index));
        }
    }
    score
}

impl Score {
    fn one(&mut self, recording: &Recording, span: &Recorded, answer: Option<Answer>, right: bool) {
        if span.above.is_some() {
            self.pair_by_parent.add(right);
            let parent = answer.and_then(|a| recording.spans.get(a.parent as usize));
            self.pair_by_trace
                .add(parent.is_some_and(|parent| parent.trace == span.trace));
        }
        let given = answer.filter(|answer| answer.given);
        if given.is_some() {
            self.precision.add(right);
        }
        if span.above.is_some() {
            self.recall.add(right && given.is_some());
        }
        let Some(answer) = answer else { return };
        let bin = BINS
            .partition_point(|low| *low <= answer.confidence)
            .saturating_sub(1);
        if let (Some(share), Some(sum)) =
            (self.reliability.get_mut(bin), self.confidence.get_mut(bin))
        {
            share.add(right);
            *sum += answer.confidence;
        }
    }
}

/// A span that is no request of the process is no parent, whatever its trace.
fn is_request(recording: &Recording, call: &Recorded, parent: u32) -> bool {
    let parent = recording.spans.get(parent as usize);
    parent.is_some_and(|parent| parent.ingress && parent.process == call.process)
}

/// Requests that enclose each call: mean, and what 95 % have at most.
pub fn candidates(recording: &Recording) -> (f64, usize) {
    let mut counts: Vec<usize> = Vec::new();
    let mut open: HashMap<u32, Vec<&Recorded>> = HashMap::new();
    for span in &recording.spans {
        let open = open.entry(span.process).or_default();
        if span.ingress {
            open.push(span);
            continue;
        }
        open.retain(|request| request.end_ns > span.start_ns);
        counts.push(
            open.iter()
                .filter(|request| request.end_ns >= span.end_ns)
                .count(),
        );
    }
    counts.sort_unstable();
    let sum = Share {
        right: counts.iter().sum(),
        all: counts.len().max(1),
    };
    let p95 = counts.get(counts.len() * 95 / 100).copied().unwrap_or(0);
    (sum.value(), p95)
}
