//! Words of the payload (ids in targets and keys) that a process sends on.
//!
//! A word counts if exactly one open request of the process came with it, and only for kinds of calls
//! that nearly always carry on a word of some open request (`Trust::carries_on`): where they do not,
//! the one that does is another request's.

use super::tokens::named;
use super::{Claim, Rung, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;
use span_model::PAYLOAD_TOKEN;

pub struct Payload;

impl Rung for Payload {
    fn method(&self) -> Method {
        Method::Payload
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        named(window, child, is_word).map(|request| span_claim(request, 0.95))
    }
}

fn is_word(token: u64) -> bool {
    token & PAYLOAD_TOKEN != 0
}

/// Whether a call carries on a word of any request that is being served; none: it has no words, or
/// nothing is being served.
pub fn carries_on(window: &Window, call: &Entry) -> Option<bool> {
    let mut words = call
        .facts
        .tokens
        .iter()
        .filter(|token| is_word(**token))
        .peekable();
    if call.side != Side::Egress || words.peek().is_none() {
        return None;
    }
    let mut open = window.open_in_process(call.process, call.start_ns);
    open.next()?;
    let with = |token| window.open_with_token(call.process, token, call.start_ns);
    Some(words.any(|token| with(*token).next().is_some()))
}
