//! Rare header values (request ids and the like) that a process sends on.
//!
//! A token counts if exactly one open request of the process came with it.
//! Tokens that name different requests cancel each other out.

use super::{Claim, Rung, exactly_one, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;
use span_model::{PAYLOAD_TOKEN, SpanId};

pub struct Tokens;

impl Rung for Tokens {
    fn method(&self) -> Method {
        Method::Tokens
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        named(window, child, |token| token & PAYLOAD_TOKEN == 0)
            .map(|request| span_claim(request, 0.99))
    }
}

/// The one request that a call's tokens name, as far as they are wanted.
pub fn named(window: &Window, child: &Entry, is_wanted: impl Fn(u64) -> bool) -> Option<SpanId> {
    if child.side != Side::Egress {
        return None;
    }
    let tokens = child.facts.tokens.iter().filter(|token| is_wanted(**token));
    let mut named = tokens.filter_map(|token| {
        exactly_one(window.open_with_token(child.process, *token, child.start_ns))
            .map(|entry| entry.id)
    });
    let first = named.next()?;
    named.all(|other| other == first).then_some(first)
}
