//! How many calls were given to the request that made them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::truth::Truth;
use super::{Level, Round};
use crate::exported::Span;

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All of them.
    pub calls: usize,
    /// Those that were given a parent.
    pub linked: usize,
    /// Those that were given the right one.
    pub right: usize,
}

/// One runtime under one load.
#[derive(Clone, Debug)]
pub struct Score {
    /// Which.
    pub runtime: &'static str,
    /// Under which load.
    pub level: Level,
    /// How long it took.
    pub seconds: f64,
    /// Requests being served when a call began, on average: as many parents are possible.
    pub candidates: f64,
    /// All calls.
    pub all: Counted,
    /// Calls by who was called.
    pub by_callee: BTreeMap<&'static str, Counted>,
    /// Linked calls by `deeptrace.link.method`, others by `deeptrace.link.reason`.
    pub by_method: BTreeMap<String, Counted>,
    /// Calls whose SERVER span was not seen, or cannot be told apart.
    pub unseen: usize,
    /// Calls whose SERVER span has no caller in the server under test.
    pub no_caller: usize,
    /// Requests with a parent, which none has.
    pub false_parents: usize,
}

impl Score {
    /// How many of the given links are right; 1 when there are none.
    pub fn precision(&self) -> f64 {
        share(self.all.right, self.all.linked)
    }

    /// How many of all calls are rightly linked.
    pub fn recall(&self) -> f64 {
        share(self.all.right, self.all.calls)
    }
}

fn share(part: usize, of: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a test")]
    let share = part as f64 / of as f64;
    if of == 0 { 1.0 } else { share }
}

impl Counted {
    fn add(&mut self, linked: bool, right: bool) {
        self.calls += 1;
        self.linked += usize::from(linked);
        self.right += usize::from(right);
    }
}

/// Scores every round of a run.
pub(super) fn score(spans: &[Span], truth: &Truth, rounds: &[Round]) -> Vec<Score> {
    let by_id: HashMap<&str, &Span> = spans.iter().map(|span| (&*span.span_id, span)).collect();
    let assigned = truth.assign(spans);
    let number_of: HashMap<&str, u64> = assigned
        .iter()
        .map(|(span, _, number)| (&*span.span_id, *number))
        .collect();
    let of_round = |round| {
        let mut scored = Scoring {
            round,
            by_id: &by_id,
            number_of: &number_of,
            open: Open::default(),
            candidates: 0,
            score: empty(round),
        };
        scored.requests(&assigned);
        for (callee, port, number) in &assigned {
            if scored.is_call(*port, *number) {
                scored.call(callee, *port, *number);
            }
        }
        scored.finish(truth)
    };
    rounds.iter().map(of_round).collect()
}

fn empty(round: &Round) -> Score {
    Score {
        runtime: round.server.runtime.name,
        level: round.level,
        seconds: round.seconds,
        candidates: 0.0,
        all: Counted::default(),
        by_callee: BTreeMap::new(),
        by_method: BTreeMap::new(),
        unseen: 0,
        no_caller: 0,
        false_parents: 0,
    }
}

/// When requests began and ended, in order.
#[derive(Debug, Default)]
struct Open {
    starts: Vec<u64>,
    ends: Vec<u64>,
}

impl Open {
    fn at(&self, time_ns: u64) -> usize {
        let begun = self.starts.partition_point(|start| *start <= time_ns);
        begun - self.ends.partition_point(|end| *end <= time_ns)
    }
}

struct Scoring<'a> {
    round: &'a Round,
    by_id: &'a HashMap<&'a str, &'a Span>,
    number_of: &'a HashMap<&'a str, u64>,
    open: Open,
    candidates: usize,
    score: Score,
}

impl Scoring<'_> {
    fn is_call(&self, port: u16, number: u64) -> bool {
        port != self.round.server.port && self.round.numbers.contains(&number)
    }

    fn requests(&mut self, assigned: &[(&Span, u16, u64)]) {
        let port = self.round.server.port;
        for (span, ..) in assigned.iter().filter(|(_, at, _)| *at == port) {
            self.open.starts.push(span.start_ns);
            self.open.ends.push(span.end_ns);
            self.score.false_parents += usize::from(!span.parent_span_id.is_empty());
        }
        self.open.starts.sort_unstable();
        self.open.ends.sort_unstable();
    }

    fn call(&mut self, callee: &Span, port: u16, number: u64) {
        let caller = self.by_id.get(&*callee.parent_span_id);
        let caller = caller.filter(|caller| {
            caller.kind == "client" && caller.number("network.peer.port") == Some(port.into())
        });
        let Some(caller) = caller else {
            self.score.no_caller += 1;
            return;
        };
        let linked = !caller.parent_span_id.is_empty();
        let right = self.number_of.get(&*caller.parent_span_id) == Some(&number);
        self.candidates += self.open.at(caller.start_ns);
        self.score.all.add(linked, right);
        let name = self.round.server.shop.name(port);
        let counted = self.score.by_callee.entry(name).or_default();
        counted.add(linked, right);
        let how = match caller.text("deeptrace.link.reason") {
            "" => caller.text("deeptrace.link.method"),
            reason => reason,
        };
        let counted = self.score.by_method.entry(how.to_owned()).or_default();
        counted.add(linked, right);
    }

    /// What was not seen was not linked either.
    fn finish(mut self, truth: &Truth) -> Score {
        let mut calls = 0;
        for (port, number) in truth.all() {
            if self.is_call(port, number) {
                calls += 1;
            }
        }
        let seen = self.score.all.calls;
        self.score.candidates = share(self.candidates, seen);
        self.score.unseen = calls - seen - self.score.no_caller;
        self.score.all.calls = calls;
        self.score
    }
}

/// The row of a table in Markdown.
impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let callees = self
            .by_callee
            .iter()
            .map(|(name, counted)| format!("{name} {:.3}", share(counted.right, counted.calls)));
        let methods = self
            .by_method
            .iter()
            .map(|(how, counted)| match counted.linked {
                0 => format!("{how} {}", counted.calls),
                linked => format!("{how} {}/{linked}", counted.right),
            });
        write!(
            f,
            "| {} | {} | {:.1} | {} | {:.3} | {:.3} | {} | {} | {} |",
            self.runtime,
            self.level.in_flight,
            self.candidates,
            self.all.calls,
            self.precision(),
            self.recall(),
            callees.collect::<Vec<_>>().join(", "),
            methods.collect::<Vec<_>>().join(", "),
            self.unseen + self.no_caller,
        )
    }
}
