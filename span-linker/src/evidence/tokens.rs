//! Rare header values (request ids and the like) that a process sends on.
//!
//! A token counts if exactly one open request of the process came with it.
//! Tokens that name different requests cancel each other out.

use super::{Claim, Rung, exactly_one, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;

pub struct Tokens;

impl Rung for Tokens {
    fn method(&self) -> Method {
        Method::Tokens
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Egress {
            return None;
        }
        let mut named = child.facts.tokens.iter().filter_map(|token| {
            exactly_one(window.open_with_token(child.process, *token, child.start_ns))
                .map(|entry| entry.id)
        });
        let first = named.next()?;
        named
            .all(|other| other == first)
            .then(|| span_claim(first, 0.99))
    }
}
