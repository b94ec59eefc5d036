//! A blocking thread works for the request that it has read and not answered.
//!
//! It claims nothing if the thread had more than one such request, because then
//! it does not block, nor of goroutines (`decode::goroutines`). What the thread read last should belong to the same
//! request; if it is known to belong to another, the claim is weak.

use super::thread_order::stays_on_thread;
use super::{Claim, Rung, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::{Link, Method, Parent};

use span_model::ToldBy;

pub struct Thread;

/// By itself: nothing contradicts it, and nothing supports it.
const ALONE: f32 = 0.9;
/// The thread's last read belongs to another request, or the request changed threads.
const CONTRADICTED: f32 = 0.5;

impl Rung for Thread {
    fn method(&self) -> Method {
        Method::Thread
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Egress || child.facts.told_by != ToldBy::Thread {
            return None;
        }
        let request = window.get(child.facts.serving?)?;
        if request.side != Side::Ingress
            || request.process != child.process
            || !request.is_open_at(child.start_ns)
        {
            return None;
        }
        let tid = child.facts.request_tid;
        let mut open = window.open_on_thread(child.process, tid, child.start_ns);
        if tid != 0 && open.any(|id| id != request.id) {
            return None;
        }
        let sure = stays_on_thread(request, child) && !is_contradicted(window, request, child);
        Some(span_claim(
            request.id,
            if sure { ALONE } else { CONTRADICTED },
        ))
    }
}

fn is_contradicted(window: &Window, request: &Entry, child: &Entry) -> bool {
    let read = child.facts.after.and_then(|id| window.get(id));
    read.is_some_and(|read| match read.side {
        Side::Ingress => read.id != request.id,
        Side::Egress => match read.link {
            Some(Link::To {
                parent: Parent::Span(parent),
                ..
            }) => parent != request.id,
            // Undecided: it was left to `sequence`, so no rung before could tell.
            Some(Link::Unsure { .. } | Link::None(_)) | None => true,
            Some(Link::To {
                parent: Parent::Wire(_),
                ..
            }) => false,
        },
        Side::Foreign => false,
    })
}
