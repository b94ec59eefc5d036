//! Who waits until a call's response is there made the call.
//!
//! The kernel shows it as the end of a wait (futex): after the wait, the thread that waited wrote the
//! response of its request, or the next call for it, and `woken_after` of that span names what the
//! waker had read last. That is the other direction of `hand_off`, and a surer one: a worker that has
//! read a response wakes who waits for it first, wherever its task came from.
//!
//! It claims nothing if
//! - the wake-up was not the first that the reader made after its read;
//! - several requests were woken so;
//! - one system call read several responses.
//!
//! It is wrong where a lock looks like a hand-off, which shows in the window's `Trust`.

use super::{Claim, Rung, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;

pub struct HandBack;

/// Of 2,709 such calls of a Java pool at 64 and 256 in flight, 7 were another request's.
const ALONE: f32 = 0.95;

impl Rung for HandBack {
    fn method(&self) -> Method {
        Method::HandBack
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Egress {
            return None;
        }
        let mut requests = window
            .woken_after(child.id)
            .filter(|woken| woken.facts.woken_first)
            .filter_map(|woken| works_for(window, woken))
            .filter(|request| {
                request.process == child.process && request.is_open_at(child.start_ns)
            });
        let first = requests.next()?;
        let agree = requests.all(|other| other.id == first.id);
        let mut together = window.read_together(child)?.iter();
        (agree && together.all(|id| *id == child.id)).then(|| span_claim(first.id, ALONE))
    }
}

/// The request that the thread answered when it was woken, or was serving when it called.
fn works_for<'a>(window: &'a Window, woken: &'a Entry) -> Option<&'a Entry> {
    match woken.side {
        Side::Ingress => Some(woken),
        Side::Egress => window
            .get(woken.facts.serving?)
            .filter(|request| request.side == Side::Ingress),
        Side::Foreign => None,
    }
}
