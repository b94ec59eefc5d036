//! A thread that was handed its work by another one works for what the other had read last.
//!
//! The kernel shows the hand-off as the end of a wait (futex): the fact `woken_after` names what the
//! waker had read last when it ended the wait of the thread that then made the call.
//!
//! It is wrong where a worker finds its task waiting and does not wait itself: then who woke it last
//! is not who made the task. It is also wrong where a lock looks like a hand-off. Both show in the
//! window's `Trust`.

use super::thread_order::request_read;
use super::{Claim, Rung, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;

pub struct HandOff;

/// In a process where hand-offs lead to whom the response is handed back.
const ALONE: f32 = 0.9;

impl Rung for HandOff {
    fn method(&self) -> Method {
        Method::HandOff
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Egress {
            return None;
        }
        let request = request_read(window, child.facts.woken_after?, child.start_ns)?;
        (request.process == child.process).then(|| span_claim(request.id, ALONE))
    }
}
