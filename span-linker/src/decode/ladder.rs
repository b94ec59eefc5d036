//! Chooses a span's parent from the evidence about that span alone.
//!
//! Exact rungs go first and settle it. Thread rungs count only in processes
//! where they have proven right; two that agree are surer than one, two that
//! disagree are both doubted. What stays below the floor gets no parent: a
//! missing link is better than a wrong one.
//!
//! Every decision also measures: where an exact rung knows the parent, the
//! others are graded by it, whether they were trusted or not.

use crate::evidence::{Claim, RUNGS, carries_on, wire_context};
use crate::window::entry::{Entry, Side, Stage};
use crate::window::link::{Link, Method, Parent, Reason};
use crate::window::{Trust, Window};
use span_model::{ProcessKey, SpanId, WireContext};
use std::iter::once;

/// Two thread rungs that agree.
const AGREED: f32 = 0.98;
/// A thread rung, and only one request was being served.
const SUPPORTED: f32 = 0.95;
/// Two thread rungs that name different requests.
const DISPUTED: f32 = 0.5;
/// The only request being served, in a process where exact links confirm that rung.
const CONFIRMED_ONLY_OPEN: f32 = 0.9;
/// The only request being served, in a process that is often idle and makes no calls then.
const LONE_ONLY_OPEN: f32 = 0.85;
/// Decides a span's parent by the rungs that look at one span. Gives what they say if that is
/// not enough: `None` if the span is decided.
///
/// `by_goroutine` is what goroutines say of it.
pub fn climb(
    window: &mut Window,
    id: SpanId,
    floor: f32,
    by_goroutine: Option<Claim>,
) -> Option<Reason> {
    let entry = window.get(id)?;
    if entry.link.is_some() || entry.side == Side::Foreign {
        return None;
    }
    let claims = Claims::gather(window, entry, by_goroutine);
    let process = entry.process;
    let trust = window.process(process).map(|process| &process.trust);
    let link = choose(window, entry, &claims, trust, floor);
    let grades = grades(window, entry, &claims);
    learn(window, process, &grades);
    if let Link::None(reason) = link {
        return Some(reason);
    }
    window.set_link(id, link);
    None
}

/// The parent that an exact rung names for a call that is not to be decided yet.
pub fn exact_parent(window: &Window, entry: &Entry) -> Option<Parent> {
    let (_, claim) = Claims::gather(window, entry, None).exact()?;
    Some(claim.parent)
}

/// What each rung says of one span.
#[derive(Debug, Default)]
struct Claims {
    by_method: [Option<Claim>; Method::ALL.len()],
}

impl Claims {
    fn gather(window: &Window, entry: &Entry, by_goroutine: Option<Claim>) -> Self {
        let mut claims = Self::default();
        let context = wire_context(window, entry);
        let of_rungs = RUNGS
            .iter()
            .map(|rung| (rung.method(), rung.claim(window, entry)));
        for (method, claim) in once((Method::Goroutine, by_goroutine)).chain(of_rungs) {
            if let Some(place) = claims.by_method.get_mut(method as usize) {
                *place = claim.filter(|claim| is_possible(window, entry, context, claim));
            }
        }
        claims
    }

    fn of(&self, method: Method) -> Option<Claim> {
        self.by_method.get(method as usize).copied().flatten()
    }

    /// What the rungs that look at the call's own thread are sure of, trusted or not.
    fn of_thread(&self) -> impl Iterator<Item = Claim> {
        [Method::ThreadOrder, Method::Thread]
            .into_iter()
            .filter_map(|method| self.of(method))
            .filter(|claim| claim.confidence > DISPUTED)
    }

    /// The first exact rung's claim.
    fn exact(&self) -> Option<(Method, Claim)> {
        let exact = [Method::TcpStream, Method::Headers, Method::Tokens];
        exact
            .into_iter()
            .find_map(|method| Some((method, self.of(method)?)))
    }
}

/// A trace context on the wire is the truth: a request of another trace is not the parent.
fn is_possible(
    window: &Window,
    entry: &Entry,
    context: Option<WireContext>,
    claim: &Claim,
) -> bool {
    let Parent::Span(parent) = claim.parent else {
        return true;
    };
    if parent == entry.id {
        return false;
    }
    if entry.side != Side::Egress {
        return true;
    }
    context.is_none_or(|context| {
        let parents = window
            .get(parent)
            .and_then(|parent| wire_context(window, parent));
        parents.is_some_and(|parents| parents.trace_id == context.trace_id)
    })
}

fn choose(
    window: &Window,
    entry: &Entry,
    claims: &Claims,
    trust: Option<&Trust>,
    floor: f32,
) -> Link {
    let last_resort = || {
        claims
            .of(Method::TraceContext)
            .map(|claim| (Method::TraceContext, claim))
    };
    let inferred = infer(entry, claims, trust);
    let best = claims
        .exact()
        .or(inferred.filter(|(_, claim)| claim.confidence >= floor))
        .or_else(last_resort);
    match best {
        Some((_, Claim { confidence, .. })) if confidence < floor => Link::None(Reason::BelowFloor),
        Some((method, claim)) => {
            // A context that another tracer made is that, whichever rung found it.
            let method = if matches!(claim.parent, Parent::Wire(_)) {
                Method::TraceContext
            } else {
                method
            };
            Link::To {
                parent: claim.parent,
                method,
                confidence: claim.confidence,
            }
        }
        None => Link::None(why_not(window, entry, inferred.is_some())),
    }
}

fn why_not(window: &Window, entry: &Entry, inferred: bool) -> Reason {
    match entry.side {
        Side::Ingress if entry.facts.caller.is_some() => Reason::CallerNotObserved,
        Side::Ingress | Side::Foreign => Reason::NoCaller,
        Side::Egress if inferred => Reason::BelowFloor,
        Side::Egress => {
            let mut open = window.open_in_process(entry.process, entry.start_ns);
            if open.next().is_some() {
                Reason::NoEvidence
            } else {
                Reason::NoOpenRequest
            }
        }
    }
}

/// The best parent that no exact rung names: by goroutines or the call's own thread if that is
/// sure, else by hand-offs, else by what it carries on.
fn infer(entry: &Entry, claims: &Claims, trust: Option<&Trust>) -> Option<(Method, Claim)> {
    let by_goroutine = trusted(claims, trust, Method::Goroutine);
    if let Some(claim) = by_goroutine {
        return Some((Method::Goroutine, claim));
    }
    let on_thread = infer_on_thread(claims, trust);
    let is_sure = |(method, claim): &(Method, Claim)| {
        *method != Method::OnlyOpen && claim.confidence > DISPUTED
    };
    on_thread
        .filter(is_sure)
        .or_else(|| infer_by_hand_off(claims, trust))
        .or_else(|| infer_by_payload(entry, claims, trust))
        .or(on_thread)
}

/// What a rung says, if it counts in the process.
fn trusted(claims: &Claims, trust: Option<&Trust>, method: Method) -> Option<Claim> {
    let trusted = trust.is_none_or(|trust| trust.trusts(method));
    claims.of(method).filter(|_| trusted)
}

fn with(claim: Claim, confidence: f32) -> Claim {
    Claim {
        confidence,
        ..claim
    }
}

/// Who waits for the response is surer than who woke the worker: that a task was waiting for the
/// worker makes only the latter wrong.
fn infer_by_hand_off(claims: &Claims, trust: Option<&Trust>) -> Option<(Method, Claim)> {
    // As long as nothing is known of the process, nothing is proven.
    trust?;
    let off = trusted(claims, trust, Method::HandOff);
    let back = trusted(claims, trust, Method::HandBack);
    let inferred = match (off, back) {
        (Some(off), Some(back)) if off.parent == back.parent => {
            (Method::HandBack, with(back, AGREED))
        }
        (_, Some(back)) => (Method::HandBack, back),
        (Some(off), None) => (Method::HandOff, off),
        (None, None) => return None,
    };
    let contradicted = claims
        .of_thread()
        .any(|claim| claim.parent != inferred.1.parent);
    (!contradicted).then_some(inferred)
}

fn infer_by_payload(
    entry: &Entry,
    claims: &Claims,
    trust: Option<&Trust>,
) -> Option<(Method, Claim)> {
    let carries_on = trust.is_some_and(|trust| trust.carries_on(entry.kind));
    let claim = trusted(claims, trust, Method::Payload).filter(|_| carries_on);
    claim.map(|claim| (Method::Payload, claim))
}

fn infer_on_thread(claims: &Claims, trust: Option<&Trust>) -> Option<(Method, Claim)> {
    let order = trusted(claims, trust, Method::ThreadOrder);
    let thread = trusted(claims, trust, Method::Thread);
    let only = trusted(claims, trust, Method::OnlyOpen);
    match (order, thread, only) {
        (Some(order), Some(thread), _) if order.parent == thread.parent => {
            let both_sure = order.confidence.min(thread.confidence) > DISPUTED;
            let confidence = if both_sure { AGREED } else { order.confidence };
            Some((Method::ThreadOrder, with(order, confidence)))
        }
        (Some(order), Some(thread), _) => {
            let confidence = order.confidence.min(thread.confidence).min(DISPUTED);
            Some((Method::ThreadOrder, with(order, confidence)))
        }
        (Some(alone), None, only) => Some((Method::ThreadOrder, supported(alone, only))),
        (None, Some(alone), only) => Some((Method::Thread, supported(alone, only))),
        (None, None, Some(only)) => {
            let confidence = match trust {
                Some(trust) if trust.only_open_agrees_with_exact() => CONFIRMED_ONLY_OPEN,
                Some(trust) if trust.calls_only_while_serving() => LONE_ONLY_OPEN,
                _ => only.confidence,
            };
            Some((Method::OnlyOpen, with(only, confidence)))
        }
        (None, None, None) => None,
    }
}

/// A claim that is the only possible one is surer, unless something contradicts it.
fn supported(claim: Claim, only: Option<Claim>) -> Claim {
    let supports =
        only.is_some_and(|only| only.parent == claim.parent) && claim.confidence > DISPUTED;
    if supports {
        Claim {
            confidence: SUPPORTED.max(claim.confidence),
            ..claim
        }
    } else {
        claim
    }
}

/// How one rung did on one span.
#[derive(Clone, Copy, Debug)]
enum Grade {
    Serving(bool),
    Exact(Method, bool),
    Nesting(Method, bool),
    HandBack(bool),
    HandOff(bool),
    CarriesOn(u32, bool),
}

/// Whether it was serving, whether it carries on words, how it was handed on, and each graded rung
/// against the exact one and against its end.
type Grades = [Option<Grade>; 4 + 2 * GRADED.len()];

const GRADED: [Method; 7] = [
    Method::Goroutine,
    Method::ThreadOrder,
    Method::Thread,
    Method::HandOff,
    Method::HandBack,
    Method::Payload,
    Method::OnlyOpen,
];

fn grades(window: &Window, entry: &Entry, claims: &Claims) -> Grades {
    let mut grades = Grades::default();
    // An open span has no end to compare yet, and is decided only for the sake of another.
    if entry.side != Side::Egress || entry.stage == Stage::Open {
        return grades;
    }
    let mut open = window.open_in_process(entry.process, entry.start_ns);
    let serving = Grade::Serving(open.next().is_some());
    let exact = claims
        .exact()
        .filter(|(_, claim)| matches!(claim.parent, Parent::Span(_)));
    let of_rungs = GRADED.iter().flat_map(|method| {
        let claim = claims.of(*method);
        let agrees = claim
            .zip(exact)
            .map(|(claim, (_, exact))| Grade::Exact(*method, exact.parent == claim.parent));
        let nested = claim
            .and_then(|claim| nests(window, entry, claim))
            .map(|nested| Grade::Nesting(*method, nested));
        [agrees, nested]
    });
    let carries_on = carries_on(window, entry).map(|carries| Grade::CarriesOn(entry.kind, carries));
    let all = [Some(serving), carries_on]
        .into_iter()
        .chain(hand_offs(window, entry, claims))
        .chain(of_rungs);
    for (place, grade) in grades.iter_mut().zip(all) {
        *place = grade;
    }
    grades
}

/// Hand-offs against each other and against threads; only among several requests, for of one alone
/// they could not be wrong.
fn hand_offs(window: &Window, entry: &Entry, claims: &Claims) -> [Option<Grade>; 2] {
    let rivals = || {
        let open = window.open_in_process(entry.process, entry.start_ns);
        open.take(2).count() > 1
    };
    let Some(back) = claims.of(Method::HandBack).filter(|_| rivals()) else {
        return [None, None];
    };
    let mut threads = claims.of_thread().peekable();
    // A call of the very thread that waits is no hand-off.
    let on_thread = threads.peek().is_some();
    let agrees = threads.all(|claim| claim.parent == back.parent);
    let graded = !on_thread || !agrees;
    let off = claims.of(Method::HandOff);
    [
        graded.then_some(Grade::HandBack(agrees)),
        off.map(|off| Grade::HandOff(off.parent == back.parent)),
    ]
}

/// Whether the call ended before the request that a rung gives it to; none without a request.
fn nests(window: &Window, entry: &Entry, claim: Claim) -> Option<bool> {
    let Parent::Span(parent) = claim.parent else {
        return None;
    };
    let parents_end = window.get(parent).and_then(Entry::end_ns);
    let ends = parents_end.zip(entry.end_ns());
    Some(ends.is_none_or(|(parents, own)| own <= parents))
}

fn learn(window: &mut Window, process: ProcessKey, grades: &Grades) {
    if grades.iter().all(Option::is_none) {
        return;
    }
    let trust = &mut window.process_mut(process).trust;
    for grade in grades.iter().flatten() {
        match *grade {
            Grade::Serving(serving) => trust.saw_call(serving),
            Grade::Exact(method, agrees) => trust.saw_exact(method, agrees),
            Grade::Nesting(method, nested) => trust.saw_nesting(method, nested),
            Grade::HandBack(agrees) => trust.saw_hand_back(agrees),
            Grade::HandOff(agrees) => trust.saw_hand_off(agrees),
            Grade::CarriesOn(kind, carries) => trust.saw_words(kind, carries),
        }
    }
}
