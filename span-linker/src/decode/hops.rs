//! Brings what threads read and wrote before `hops`, and its word into the window.
//!
//! Only where threads alone say too little: where requests stay on their threads, `thread_order` has
//! linked what there is to link.

use super::Decoder;
use super::around::Around;
use super::stretch::Bounds;
use crate::hops::{End, Forest, Hops, Kind, Message, Way};
use crate::window::entry::{Entry, Side};
use crate::window::link::{Link, Method, Parent, Reason};
use crate::window::{FastMap, Window};
use span_model::SpanId;

/// Hops followed from a response back to a request.
const MAX_HOPS: usize = 64;
/// Requests next in age that wrong ways are compared by, half of them younger.
const MAX_PEERS: usize = 8;
/// However sure hops are together.
const SUREST: f32 = 0.98;

impl Decoder {
    /// Links what hops tell of the calls of a stretch, and gives back the rest.
    pub(super) fn hops(
        &mut self,
        window: &mut Window,
        bounds: &Bounds,
        left: Vec<(SpanId, Reason)>,
    ) -> Vec<(SpanId, Reason)> {
        let trust = window.process(bounds.key).map(|process| &process.trust);
        if left.is_empty() || trust.is_none_or(|trust| trust.trusts(Method::ThreadOrder)) {
            return left;
        }
        let hops = self.all_hops.process(bounds.key);
        let grown = grown(window, &Around::new(window, bounds, self.look_ns), hops);
        self.give(window, Method::Hops, left, |window, id| {
            let (request, sure) = grown.get(&id)?;
            let call = window.get(id)?;
            let open = window.get(*request)?.is_open_at(call.start_ns);
            open.then_some((*request, sure.min(SUREST)))
        })
    }
}

/// Learns from the ways around a stretch, and tells which spans grow on which requests.
fn grown(window: &Window, around: &Around<'_>, hops: &mut Hops) -> FastMap<SpanId, (SpanId, f32)> {
    let found = find(window, around);
    let (mut ways, mut fresh) = (Vec::new(), Vec::new());
    for request in &around.requests {
        let Some((writes, way)) = way(window, &found, request) else {
            continue;
        };
        if around.is_begun(request) {
            fresh.push(way.clone());
        }
        ways.push((writes, way));
    }
    let calls = around.calls.iter();
    fresh.extend(calls.filter_map(|call| known(window, &found, call)));
    hops.learn(&fresh);
    let mut sure: FastMap<SpanId, f32> = found
        .iter()
        .map(|(write, hop)| (*write, hops.sure(&hop.kind)))
        .collect();
    for (writes, way) in &ways {
        sure.extend(writes.iter().copied().zip(hops.sure_of_way(way)));
    }
    let hop_pairs = found.iter().map(|(write, hop)| {
        let sure = sure.get(write).copied().unwrap_or(0.0);
        (*write, hop.read, sure)
    });
    let linked = around.calls.iter().filter_map(|call| match call.link? {
        Link::To {
            parent: Parent::Span(parent),
            confidence,
            ..
        } => Some((call.id, parent, confidence)),
        _ => None,
    });
    let mut forest = Forest::default();
    for request in &around.requests {
        forest.plant(request.id);
    }
    let pairs = linked.chain(hop_pairs).filter(|(.., sure)| *sure > 0.0);
    forest.join(pairs.collect());
    forest.grown()
}

/// What a span's writing followed.
struct Hop {
    read: SpanId,
    kind: Kind,
}

/// The hops around a stretch, by what was written.
fn find(window: &Window, around: &Around<'_>) -> FastMap<SpanId, Hop> {
    let mut followers: FastMap<(SpanId, Message), Vec<(u64, SpanId)>> = FastMap::default();
    let spans = around.calls.iter().chain(&around.requests);
    for span in spans {
        if let (Some(read), Some(written_ns)) = (read_before(span), written_ns(span)) {
            let writes = followers.entry((read, message(span))).or_default();
            writes.push((written_ns, span.id));
        }
    }
    let mut found = FastMap::default();
    for ((read, write), mut writes) in followers {
        let Some(entry) = window.get(read) else {
            continue;
        };
        let Some(read_ns) = read_alone_ns(window, entry) else {
            continue;
        };
        writes.sort_unstable();
        let of = writes.len().min(3);
        for (place, (written_ns, id)) in writes.into_iter().enumerate() {
            let standing_in_line = window.get(id).is_none_or(|span| span.facts.freed);
            if standing_in_line {
                continue;
            }
            let kind = Kind {
                read: message(entry),
                write,
                place: place.min(2),
                of,
                pace: pace(written_ns.saturating_sub(read_ns)),
            };
            found.insert(id, Hop { read, kind });
        }
    }
    found
}

/// What the thread had read before it wrote the span's message; for the first call on a connection,
/// before it connected.
fn read_before(span: &Entry) -> Option<SpanId> {
    match span.side {
        Side::Egress => span.facts.connected_after().or(span.facts.after),
        Side::Ingress => span.facts.after,
        Side::Foreign => None,
    }
}

/// When a span's own message was written: a call, or the response to a request.
fn written_ns(span: &Entry) -> Option<u64> {
    match span.side {
        Side::Egress => Some(span.start_ns),
        Side::Ingress => span.end_ns(),
        Side::Foreign => None,
    }
}

/// When a span's message was read, if nothing else came with the same system call.
fn read_alone_ns(window: &Window, span: &Entry) -> Option<u64> {
    let mut together = window.read_together(span)?.iter();
    let alone = together.all(|id| *id == span.id);
    let read_ns = match span.side {
        Side::Egress => span.end_ns(),
        Side::Ingress => Some(span.start_ns),
        Side::Foreign => None,
    };
    read_ns.filter(|_| alone)
}

fn message(span: &Entry) -> Message {
    Message {
        served: span.side == Side::Ingress,
        kind: span.kind,
    }
}

/// See [`Kind::pace`].
fn pace(gap_ns: u64) -> usize {
    let thresholds = [16_000, 64_000, 256_000, 1_024_000];
    thresholds
        .into_iter()
        .filter(|limit| gap_ns > *limit)
        .count()
}

/// The hops from a response back to a request, and what was written at each.
fn way(
    window: &Window,
    found: &FastMap<SpanId, Hop>,
    request: &Entry,
) -> Option<(Vec<SpanId>, Way)> {
    let (mut writes, mut hops) = (Vec::new(), Vec::new());
    let mut write = request.id;
    for _ in 0..MAX_HOPS {
        let hop = found.get(&write)?;
        writes.push(write);
        hops.push(hop.kind);
        if hop.kind.read.served {
            let (end, open) = end(window, request, hop.read);
            return Some((writes, Way { hops, end, open }));
        }
        write = hop.read;
    }
    None
}

/// Where the way from a request's response led, and how many were under way.
fn end(window: &Window, request: &Entry, to: SpanId) -> (End, usize) {
    let end_ns = request.end_ns().unwrap_or(request.start_ns);
    let open: Vec<SpanId> = window.open_in_process(request.process, end_ns).collect();
    if to == request.id {
        return (End::Back, open.len().max(1));
    }
    let is_younger = |id: &SpanId| {
        let other = window.get(*id);
        other.is_some_and(|other| other.start_ns > request.start_ns)
    };
    let younger = open.partition_point(is_younger);
    let near = open.iter().skip(younger.saturating_sub(MAX_PEERS / 2));
    let peers = near.filter(|id| **id != request.id).take(MAX_PEERS);
    let (mut count, mut is_peer) = (0, false);
    for peer in peers {
        count += 1;
        is_peer |= *peer == to;
    }
    let end = if is_peer {
        End::Peer(count)
    } else {
        End::Elsewhere
    };
    (end, open.len().max(1))
}

/// A hop between spans whose requests are known exactly.
fn known(window: &Window, found: &FastMap<SpanId, Hop>, call: &Entry) -> Option<Way> {
    let hop = found.get(&call.id)?;
    let of = exact_request(call)?;
    let before = window.get(hop.read)?;
    let back = match before.side {
        Side::Ingress => before.id == of,
        _ => exact_request(before)? == of,
    };
    Some(Way {
        hops: vec![hop.kind],
        end: if back { End::Back } else { End::Elsewhere },
        open: 0,
    })
}

fn exact_request(call: &Entry) -> Option<SpanId> {
    match call.link? {
        Link::To {
            parent: Parent::Span(parent),
            method: Method::Headers | Method::Tokens,
            ..
        } => Some(parent),
        _ => None,
    }
}
