//! Brings what one thread of a process read and wrote before `queue`, and its word into the window.
//!
//! Only a process that moves all its requests and calls on one thread has a queue. Spans beyond
//! the horizon are left out of account, as in `stretch`.

use super::Decoder;
use super::stretch::{Bounds, horizon};
use crate::queue::{Made, Scene, Served};
use crate::window::entry::{Entry, Side};
use crate::window::link::{Method, Reason};
use crate::window::{FastMap, Window};
use span_model::SpanId;

/// How far back is looked to learn: 2 s; and calls looked at there, and in a stretch.
const LEARN_BACK_NS: u64 = 2_000_000_000;
const MAX_CALLS: usize = 8192;
/// What ended so soon after the horizon is followed up to there: a quarter of the stretch's look
/// at the default wait, 250 ms.
const KNOWN_NS: u64 = 250_000_000;
/// Followed requests are lost when a process made no call for so long: 10 s.
const MAX_PAUSE_NS: u64 = 10_000_000_000;
/// Where other evidence leaves less than one call in so many, the queue is not worth its time.
const LEAST_LEFT: usize = 10;
/// Least share of spans on the one thread, in percent.
const ONE_THREAD_PERCENT: usize = 99;

impl Decoder {
    /// Links what the queue of a process tells of the calls of a stretch, and gives back the rest.
    pub(super) fn queue(
        &mut self,
        window: &mut Window,
        bounds: &Bounds,
        calls: usize,
        left: Vec<(SpanId, Reason)>,
    ) -> Vec<(SpanId, Reason)> {
        if !self.queue_order || left.is_empty() {
            return left;
        }
        let queue = self.queues.process(bounds.key);
        if left.len() * LEAST_LEFT < calls {
            queue.lose();
            return left;
        }
        let horizon = horizon(window, bounds.key, bounds.until, self.look_ns);
        if queue.is_hungry() {
            let horizon = bounds.until.saturating_add(self.look_ns);
            let since_ns = learned_since(window, bounds, horizon);
            let scene = scene(window, bounds, since_ns, horizon, &[]);
            queue.learn(&scene.unwrap_or_default());
        }
        if !queue.is_taught() {
            return left;
        }
        let followed = queue.followed();
        let followed = followed.filter(|(until, _)| until + MAX_PAUSE_NS > bounds.from);
        let (since_ns, awaited) = followed.unwrap_or_else(|| {
            queue.lose();
            (learned_since(window, bounds, horizon), Vec::new())
        });
        let Some(scene) = scene(window, bounds, since_ns, horizon, &awaited) else {
            queue.lose();
            return left;
        };
        let outcome = queue.decide(&scene);
        let trust = &mut window.process_mut(bounds.key).trust;
        for agrees in outcome.graded {
            trust.saw_exact(Method::QueueOrder, agrees);
        }
        if !trust.trusts(Method::QueueOrder) {
            return left;
        }
        let found: FastMap<SpanId, _> = outcome
            .found
            .into_iter()
            .map(|found| (found.call, found))
            .collect();
        self.give(window, Method::QueueOrder, left, |_, id| {
            let found = found.get(&id)?;
            Some((found.request, found.confidence))
        })
    }
}

/// Where the calls begin that are learned from: the last ones, not too many.
fn learned_since(window: &Window, bounds: &Bounds, horizon: u64) -> u64 {
    let since_ns = bounds.from.saturating_sub(LEARN_BACK_NS);
    let calls = window.calls_begun_in(bounds.key, since_ns, horizon);
    let starts: Vec<u64> = calls.map(|call| call.start_ns).collect();
    let crowd = starts.len().saturating_sub(MAX_CALLS);
    match crowd {
        0 => since_ns,
        _ => starts.get(crowd).map_or(since_ns, |start| start + 1),
    }
}

/// What the one thread of a process did; none if there is no such thread.
fn scene(
    window: &Window,
    bounds: &Bounds,
    since_ns: u64,
    horizon: u64,
    awaited: &[SpanId],
) -> Option<Scene> {
    let key = bounds.key;
    // Who is under way at the horizon is to be known, or others would be given his calls.
    let known = horizon.saturating_add(KNOWN_NS);
    let before = window.open_in_process(key, since_ns.saturating_sub(1));
    let before = before.filter_map(|id| window.get(id));
    let begun = window.requests_begun_in(key, since_ns, horizon);
    let requests: Vec<&Entry> = before
        .chain(begun)
        .filter(|e| has_ended(e, known))
        .collect();
    let awaited = awaited.iter().filter_map(|id| window.get(*id));
    let awaited = awaited.filter(|call| call.start_ns < since_ns);
    let begun = window.calls_begun_in(key, since_ns, horizon);
    let calls = awaited.chain(begun).filter(|e| has_ended(e, known));
    let calls: Vec<&Entry> = calls.take(MAX_CALLS + 1).collect();
    let tid = only_thread(&requests, &calls)?;
    if calls.len() > MAX_CALLS {
        return None;
    }
    let on_thread = |entry: &&&Entry| is_on(entry, tid);
    let served = |entry: &&Entry| Served {
        id: entry.id,
        kind: entry.kind,
        start_ns: entry.start_ns,
        end_ns: entry.end_ns(),
        polls: polls(entry),
    };
    let made = |entry: &&Entry| Made {
        id: entry.id,
        kind: entry.kind,
        start_ns: entry.start_ns,
        end_ns: entry.end_ns(),
        connected_after_ns: connected_after_ns(window, entry),
        polls: polls(entry),
        connected: connected(entry),
        parent: entry.parent_span(),
    };
    Some(Scene {
        requests: requests.iter().filter(on_thread).map(served).collect(),
        calls: calls.iter().filter(on_thread).map(made).collect(),
        since_ns,
        until_ns: bounds.until,
        horizon_ns: horizon,
    })
}

/// When that was read which the thread read last before it connected.
fn connected_after_ns(window: &Window, call: &Entry) -> Option<u64> {
    let read = window.get(call.facts.connected_after()?)?;
    match read.side {
        Side::Ingress => Some(read.start_ns),
        Side::Egress => read.end_ns().filter(|end| *end <= call.start_ns),
        Side::Foreign => None,
    }
}

/// When the thread connected, and how often it had waited for descriptors then.
fn connected(call: &Entry) -> Option<(u64, u32)> {
    let connected = call.facts.connected.as_ref()?;
    let is_known = connected.polls != 0 && connected.before_ns != 0;
    let time_ns = call.start_ns.checked_sub(connected.before_ns.into())?;
    is_known.then_some((time_ns, connected.polls))
}

/// How often the thread had waited for descriptors at the request, and at the response.
fn polls(entry: &Entry) -> (u32, u32) {
    (entry.facts.request_polls, entry.facts.response_polls)
}

fn has_ended(entry: &Entry, known: u64) -> bool {
    entry.kind != 0 && entry.end_ns().is_some_and(|end| end < known)
}

fn is_on(entry: &Entry, tid: u32) -> bool {
    (entry.facts.request_tid, entry.facts.response_tid) == (tid, tid)
}

/// The thread that moves all but a few of these spans' messages, if there is one.
pub(super) fn only_thread(requests: &[&Entry], calls: &[&Entry]) -> Option<u32> {
    let tid = requests.first().or(calls.first())?.facts.request_tid;
    let all = requests.len() + calls.len();
    let on = requests
        .iter()
        .chain(calls)
        .filter(|entry| is_on(entry, tid));
    (tid != 0 && on.count() * 100 >= all * ONE_THREAD_PERCENT).then_some(tid)
}
