//! Other methods, from their papers, on the same spans.
//!
//! | name | gives a call to | paper |
//! |---|---|---|
//! | `fifo` | the open request that has waited longest for a call to this peer | `DeepFlow`'s order |
//! | `vpath` | the open request that its thread read last | Tak et al., USENIX ATC 2009 |
//! | `wap5` | the open request with the likeliest delay, exponential with the mean of its pair | Reynolds et al., WWW 2006 |
//! | `deeptrace` | the best sum of payload likeness and delay densities, weighted by variance | Geng et al., SIGCOMM 2025 |
//! | `traceweaver` | the request that is best by delay likelihoods (normal, iterated), one call to a peer each | Ashok et al., SIGCOMM 2024 |
//!
//! All take their candidates by containment in time. `traceweaver` is reduced: one normal
//! distribution a delay instead of a mixture, a greedy choice by likelihood instead of an
//! integer program, no skip budget; `deeptrace` leaves out the affinity of endpoints, which is
//! the same for all candidates of a call.

use super::Answer;
use super::recording::{Recorded, Recording};
use std::collections::{HashMap, HashSet};

/// A method to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Baseline {
    /// First in, first out
    Fifo,
    /// Threads
    Vpath,
    /// Exponential delays
    Wap5,
    /// Payload and delays
    Deeptrace,
    /// Delays of whole requests
    Traceweaver,
}

/// A call and the requests that enclose it.
struct Contest {
    call: u32,
    requests: Vec<u32>,
}

/// Links a recording by one of the methods.
pub fn link(baseline: Baseline, recording: &Recording) -> Vec<Option<Answer>> {
    let contests = contests(recording);
    let parents = match baseline {
        Baseline::Fifo => fifo(recording, &contests),
        Baseline::Vpath => vpath(recording, &contests),
        Baseline::Wap5 => wap5(recording, &contests),
        Baseline::Deeptrace => deeptrace(recording, &contests),
        Baseline::Traceweaver => traceweaver(recording, &contests),
    };
    let mut answers = vec![None; recording.spans.len()];
    for (contest, parent) in contests.iter().zip(parents) {
        if let Some(place) = answers.get_mut(contest.call as usize) {
            *place = parent.map(|parent| Answer {
                parent,
                confidence: 1.0,
                given: true,
            });
        }
    }
    answers
}

fn contests(recording: &Recording) -> Vec<Contest> {
    let mut open: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut contests = Vec::new();
    for (index, span) in (0..).zip(&recording.spans) {
        let open = open.entry(span.process).or_default();
        if span.ingress {
            open.push(index);
            continue;
        }
        open.retain(|request| at(recording, *request).is_some_and(|r| r.end_ns > span.start_ns));
        let encloses =
            |request: &u32| at(recording, *request).is_some_and(|r| r.end_ns >= span.end_ns);
        contests.push(Contest {
            call: index,
            requests: open.iter().copied().filter(encloses).collect(),
        });
    }
    contests
}

fn at(recording: &Recording, index: u32) -> Option<&Recorded> {
    recording.spans.get(index as usize)
}

fn fifo(recording: &Recording, contests: &[Contest]) -> Vec<Option<u32>> {
    let mut calls: HashSet<(u32, &str)> = HashSet::new();
    let mut choose = |contest: &Contest| {
        let peer = at(recording, contest.call)?.peer.as_str();
        let waits = |request: &&u32| !calls.contains(&(**request, peer));
        let first = contest
            .requests
            .iter()
            .find(waits)
            .or(contest.requests.first())
            .copied()?;
        calls.insert((first, peer));
        Some(first)
    };
    contests.iter().map(&mut choose).collect()
}

fn vpath(recording: &Recording, contests: &[Contest]) -> Vec<Option<u32>> {
    let choose = |contest: &Contest| {
        let tid = at(recording, contest.call)?.tids.0;
        let mut latest = contest.requests.iter().rev();
        let same = |request: &&u32| at(recording, **request).is_some_and(|r| r.tids.0 == tid);
        latest.find(same).copied().filter(|_| tid != 0)
    };
    contests.iter().map(choose).collect()
}

/// What a delay is learned for: the process, what was asked of it, whom it asks.
type Way<'a> = (u32, &'a str, &'a str);

fn way<'a>(request: &'a Recorded, call: &'a Recorded) -> Way<'a> {
    (call.process, request.operation.as_str(), call.peer.as_str())
}

/// ns as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "delays need no more than 15 digits"
)]
fn number(ns: u64) -> f64 {
    ns as f64
}

/// The contest's requests with the call, each.
fn pairs<'a>(
    recording: &'a Recording,
    contest: &'a Contest,
) -> impl Iterator<Item = (u32, &'a Recorded, &'a Recorded)> {
    let call = at(recording, contest.call);
    contest
        .requests
        .iter()
        .filter_map(move |request| Some((*request, at(recording, *request)?, call?)))
}

fn best(weights: impl Iterator<Item = (u32, f64)>) -> Option<u32> {
    weights
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(request, _)| request)
}

fn wap5(recording: &Recording, contests: &[Contest]) -> Vec<Option<u32>> {
    let mut delays: HashMap<Way<'_>, (f64, f64)> = HashMap::new();
    for contest in contests {
        // The paper's estimate: the delay to the latest possible cause.
        if let Some((_, request, call)) = pairs(recording, contest).last() {
            let (sum, count) = delays.entry(way(request, call)).or_default();
            *sum += number(call.start_ns - request.start_ns);
            *count += 1.0;
        }
    }
    let weight = |request: &Recorded, call: &Recorded| {
        let (sum, count) = delays
            .get(&way(request, call))
            .copied()
            .unwrap_or((1e6, 1.0));
        let mean = (sum / count).max(1.0);
        -number(call.start_ns - request.start_ns) / mean - mean.ln()
    };
    let choose =
        |contest: &Contest| best(pairs(recording, contest).map(|(r, p, c)| (r, weight(p, c))));
    contests.iter().map(choose).collect()
}

/// Mean and variance, sample by weighted sample.
#[derive(Clone, Copy, Default)]
struct Normal {
    weight: f64,
    sum: f64,
    squares: f64,
}

impl Normal {
    fn add(&mut self, sample: f64, weight: f64) {
        self.weight += weight;
        self.sum += sample * weight;
        self.squares += sample * sample * weight;
    }

    fn variance(self) -> f64 {
        let mean = self.sum / self.weight.max(1e-9);
        (self.squares / self.weight.max(1e-9) - mean * mean).max(0.0)
    }

    /// Logarithm of the density.
    fn log_density(self, sample: f64) -> f64 {
        let mean = self.sum / self.weight.max(1e-9);
        let variance = self.variance().max(1e6);
        -(sample - mean).powi(2) / (2.0 * variance) - variance.ln() / 2.0
    }
}

fn traceweaver(recording: &Recording, contests: &[Contest]) -> Vec<Option<u32>> {
    const ROUNDS: usize = 5;
    let mut parents = fifo(recording, contests);
    for _ in 0..ROUNDS {
        let mut delays: HashMap<Way<'_>, [Normal; 2]> = HashMap::new();
        for (contest, parent) in contests.iter().zip(&parents) {
            let (Some(call), Some(request)) = (
                at(recording, contest.call),
                parent.and_then(|parent| at(recording, parent)),
            ) else {
                continue;
            };
            let [before, after] = delays.entry(way(request, call)).or_default();
            before.add(number(call.start_ns - request.start_ns), 1.0);
            after.add(number(request.end_ns.saturating_sub(call.end_ns)), 1.0);
        }
        let mut edges = Vec::new();
        for (number_of, contest) in contests.iter().enumerate() {
            for (index, request, call) in pairs(recording, contest) {
                let Some([before, after]) = delays.get(&way(request, call)) else {
                    continue;
                };
                let weight = before.log_density(number(call.start_ns - request.start_ns))
                    + after.log_density(number(request.end_ns - call.end_ns));
                edges.push((weight, number_of, index, call.operation.as_str()));
            }
        }
        edges.sort_by(|a, b| b.0.total_cmp(&a.0));
        parents = one_to_one(contests.len(), &edges);
    }
    parents
}

/// The best edges first; a request makes a call of each kind once, unless nothing else is left.
fn one_to_one(contests: usize, edges: &[(f64, usize, u32, &str)]) -> Vec<Option<u32>> {
    let mut parents = vec![None; contests];
    let mut taken = HashSet::new();
    for again in [false, true] {
        for (_, contest, request, operation) in edges {
            let Some(place) = parents.get_mut(*contest) else {
                continue;
            };
            if place.is_none() && (taken.insert((*request, *operation)) || again) {
                *place = Some(*request);
            }
        }
    }
    parents
}

/// Scores of one pair: payload likeness, delay before, delay after, durations.
type Scores = [f64; 4];

fn deeptrace(recording: &Recording, contests: &[Contest]) -> Vec<Option<u32>> {
    let payloads = Payloads::of(recording);
    let mut delays: HashMap<Way<'_>, [Normal; 3]> = HashMap::new();
    for contest in contests {
        let weight = 1.0 / number(contest.requests.len().max(1) as u64);
        for (_, request, call) in pairs(recording, contest) {
            let models = delays.entry(way(request, call)).or_default();
            for (model, sample) in models.iter_mut().zip(samples(request, call)) {
                model.add(sample, weight);
            }
        }
    }
    let scores = |contest: &Contest| -> Vec<(u32, Scores)> {
        let score = |(index, request, call): (u32, &Recorded, &Recorded)| {
            let models = delays.get(&way(request, call)).copied().unwrap_or_default();
            let mut scores = [payloads.likeness(index, contest.call), 0.0, 0.0, 0.0];
            let [_, densities @ ..] = &mut scores;
            for ((score, model), sample) in
                densities.iter_mut().zip(models).zip(samples(request, call))
            {
                *score = model.log_density(sample).exp();
            }
            (index, scores)
        };
        pairs(recording, contest).map(score).collect()
    };
    let all: Vec<Vec<(u32, Scores)>> = contests.iter().map(scores).collect();
    let weights = weights(recording, contests, &all);
    let choose = |(contest, scores): (&Contest, &Vec<(u32, Scores)>)| {
        let process = at(recording, contest.call)?.process;
        let weights = weights.get(&process)?;
        let sum = |scores: &Scores| -> f64 { scores.iter().zip(weights).map(|(s, w)| s * w).sum() };
        best(
            scores
                .iter()
                .map(|(request, scores)| (*request, sum(scores))),
        )
    };
    contests.iter().zip(&all).map(choose).collect()
}

fn samples(request: &Recorded, call: &Recorded) -> [f64; 3] {
    let duration = |span: &Recorded| number(span.end_ns - span.start_ns);
    [
        number(call.start_ns - request.start_ns),
        number(request.end_ns.saturating_sub(call.end_ns)),
        duration(request) - duration(call),
    ]
}

/// The share of each score in the variance of all, each scaled to 0 to 1, a process at a time.
fn weights(
    recording: &Recording,
    contests: &[Contest],
    all: &[Vec<(u32, Scores)>],
) -> HashMap<u32, Scores> {
    let mut columns: HashMap<u32, [(Normal, f64, f64); 4]> = HashMap::new();
    for (contest, scores) in contests.iter().zip(all) {
        let Some(call) = at(recording, contest.call) else {
            continue;
        };
        let none = (Normal::default(), f64::MAX, f64::MIN);
        let columns = columns.entry(call.process).or_insert([none; 4]);
        for (_, scores) in scores {
            for ((normal, low, high), score) in columns.iter_mut().zip(scores) {
                normal.add(*score, 1.0);
                (*low, *high) = (low.min(*score), high.max(*score));
            }
        }
    }
    let weigh = |(normal, low, high): (Normal, f64, f64)| {
        let range = high - low;
        // Variance of the scaled score, and the scale itself.
        if range > 0.0 {
            normal.variance() / (range * range) / range
        } else {
            0.0
        }
    };
    columns
        .into_iter()
        .map(|(process, columns)| (process, columns.map(weigh)))
        .collect()
}

/// What messages say, as counts of four characters in a row.
struct Payloads {
    grams: HashMap<u32, HashMap<[u8; 4], f64>>,
    lengths: HashMap<u32, f64>,
}

impl Payloads {
    fn of(recording: &Recording) -> Self {
        let mut grams: HashMap<u32, HashMap<[u8; 4], f64>> = HashMap::new();
        let mut documents: HashMap<[u8; 4], f64> = HashMap::new();
        for (index, span) in (0..).zip(&recording.spans) {
            let Some(payload) = &span.payload else {
                continue;
            };
            let own = grams.entry(index).or_default();
            for gram in payload.as_bytes().windows(4) {
                if let Ok(gram) = gram.try_into() {
                    *own.entry(gram).or_default() += 1.0;
                }
            }
            for gram in own.keys() {
                *documents.entry(*gram).or_default() += 1.0;
            }
        }
        let spans = number(grams.len() as u64);
        let mut lengths = HashMap::new();
        for (index, own) in &mut grams {
            let all: f64 = own.values().sum();
            for (gram, count) in own.iter_mut() {
                let seen_in = documents.get(gram).copied().unwrap_or(0.0);
                *count = *count / all * (spans / (1.0 + seen_in)).ln();
            }
            let squares: f64 = own.values().map(|weight| weight * weight).sum();
            lengths.insert(*index, squares.sqrt());
        }
        Self { grams, lengths }
    }

    /// Cosine of two spans' payloads; 0 where one has none.
    fn likeness(&self, one: u32, other: u32) -> f64 {
        let (Some(one_grams), Some(other_grams)) = (self.grams.get(&one), self.grams.get(&other))
        else {
            return 0.0;
        };
        let product: f64 = one_grams
            .iter()
            .filter_map(|(gram, weight)| Some(weight * other_grams.get(gram)?))
            .sum();
        let length = |index: u32| self.lengths.get(&index).copied().unwrap_or(0.0);
        product / (length(one) * length(other)).max(1e-12)
    }
}
