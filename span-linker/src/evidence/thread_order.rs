//! What a thread writes after a read, and before the next one, belongs to what it read.
//!
//! That is how an event loop works, and a blocking thread too. The fact `after`
//! names the span whose message was read last: a server span is the parent
//! itself, a client span passes its own parent on. On a new connection the read
//! before `connect` counts, because the first write happens when the socket
//! turns writable, in whoever's turn that is.
//!
//! It claims nothing if
//! - goroutines tell more than threads (`decode::goroutines`);
//! - the request was answered before the call began: work that goes on after
//!   the response may be anybody's by then;
//! - one system call read messages that belong to different requests.
//!
//! It is weak if the call went out on the very connection that the read freed,
//! and the thread had other requests that may have stood in line for it.
//!
//! It is wrong when a write waited for something that is not a read on its
//! thread: a timer, a lock. Such processes show up in the window's `Trust`.

use super::{Claim, Rung, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;
use span_model::{SpanId, ToldBy};

pub struct ThreadOrder;

/// The connection was freed by the read, and others may have waited for it.
const WAITED: f32 = 0.5;

/// By itself: nothing contradicts it, and nothing supports it.
const ALONE: f32 = 0.9;
/// The request changed threads on the way, so this is no loop and no blocking thread.
const MOVED: f32 = 0.5;

impl Rung for ThreadOrder {
    fn method(&self) -> Method {
        Method::ThreadOrder
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        let request = request_read(window, read_before(child)?, child.start_ns)?;
        let confidence = if may_have_waited(window, child) {
            WAITED
        } else if stays_on_thread(request, child) {
            ALONE
        } else {
            MOVED
        };
        (request.process == child.process).then(|| span_claim(request.id, confidence))
    }
}

/// The call went out on a connection that a response had just freed, while the thread had
/// several requests to serve: it may be of any of them that stood in line for a connection.
fn may_have_waited(window: &Window, child: &Entry) -> bool {
    let tid = child.facts.request_tid;
    let open = window.open_on_thread(child.process, tid, child.start_ns);
    child.facts.freed && open.take(2).count() > 1
}

/// The request was read, and as far as known answered, by the thread that made the call.
pub fn stays_on_thread(request: &Entry, child: &Entry) -> bool {
    let same =
        |tid: u32| tid == 0 || child.facts.request_tid == 0 || tid == child.facts.request_tid;
    same(request.facts.request_tid) && same(request.facts.response_tid)
}

fn read_before(child: &Entry) -> Option<SpanId> {
    if child.side != Side::Egress || child.facts.told_by != ToldBy::Thread {
        return None;
    }
    child.facts.connected_after().or(child.facts.after)
}

/// The request that a read message belongs to, if it was still being served, and if what came with
/// the same system call belongs to no other one.
pub fn request_read(window: &Window, read: SpanId, time_ns: u64) -> Option<&Entry> {
    let request = server_of(window, read, time_ns)?;
    let together = window.read_together(window.get(read)?)?;
    together
        .iter()
        .filter_map(|id| server_of(window, *id, time_ns))
        .all(|other| other.id == request.id)
        .then_some(request)
}

/// The request that a read message belongs to, if it was still being served.
fn server_of(window: &Window, read: SpanId, time_ns: u64) -> Option<&Entry> {
    let entry = window.get(read)?;
    let server = match entry.side {
        Side::Ingress => entry,
        Side::Egress => window.get(entry.parent_span()?)?,
        Side::Foreign => return None,
    };
    (server.side == Side::Ingress && server.is_open_at(time_ns)).then_some(server)
}
