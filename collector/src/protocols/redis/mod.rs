//! Redis: RESP2, RESP3 and inline commands. Values are stepped over by their
//! length, never read.
//!
//! Span names are the command's name alone: the semantic conventions leave the
//! database's number out of them, and no key is a collection. The second word of
//! `CONFIG GET` and its like belongs to the name, as in Redis's own command list.

mod commands;
mod detect;
mod parser;
mod reply;
mod request;
mod resp;
mod session;

#[cfg(test)]
mod tests;

use super::{Detection, Pairing, Parser, Protocol};

/// Longer command names are not shown.
const MAX_NAME: usize = 64;
/// A bulk string's limit is 512 MiB unless configured otherwise.
const MAX_BULK: u64 = 4 << 30;

/// The registry's entry.
#[derive(Debug)]
pub struct Redis;

impl Protocol for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn pairing(&self) -> Pairing {
        Pairing::InOrder
    }

    fn detect(&self, head: &[u8]) -> Detection {
        detect::detect(head)
    }

    fn parser(&self) -> Box<dyn Parser> {
        Box::<parser::RedisParser>::default()
    }
}
