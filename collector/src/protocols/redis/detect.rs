//! Tells Redis from other protocols, and commands from replies.
//!
//! Errs towards waiting: `+OK` alone is also NATS and POP3, a line that begins with
//! `get` is also memcached. The other direction settles those.

use super::commands;
use super::reply::plausible;
use super::request::{blank_commands, known_command, word};
use super::resp::Nesting;
use crate::protocols::cursor::{Cursor, Reading};
use crate::protocols::{Detection, Flow};
use memchr::memchr;

/// Bytes after which a head that still says nothing is given up.
const MAX_HEAD: usize = 2048;

/// Commands that other line protocols have, too.
#[rustfmt::skip]
const SHARED_WORDS: &[&str] = &[
    "append", "auth", "config", "debug", "decr", "delete", "dump", "echo", "eval", "expire", "get",
    "hello", "help", "incr", "info", "keys", "list", "monitor", "move", "ping", "publish", "quit",
    "rename", "reset", "role", "save", "set", "shutdown", "sort", "subscribe", "sync", "time",
    "touch", "ttl", "type", "unsubscribe", "wait", "watch",
];

/// First elements that only published messages have.
const PUBLISHED: &[&[u8]] = &[b"message", b"pmessage", b"smessage"];

/// First elements that confirmations share with the commands they confirm; what
/// follows a confirmation's channel is a number.
const CONFIRMED: &[&[u8]] = &[
    b"subscribe",
    b"psubscribe",
    b"ssubscribe",
    b"unsubscribe",
    b"punsubscribe",
    b"sunsubscribe",
];

/// Simple strings that only Redis answers with.
const OWN_STATUS: &[&[u8]] = &[b"+PONG\r\n", b"+QUEUED\r\n"];

pub(super) fn detect(head: &[u8]) -> Detection {
    let mut rest = head.get(blank_commands(head)..).unwrap_or_default();
    while let Some(kind) = rest.first() {
        let verdict = match kind {
            b'*' => array(rest),
            b'+' | b'-' => status(rest),
            byte if byte.is_ascii_alphabetic() => return inline(rest),
            _ => only_reply(rest),
        };
        match verdict {
            Verdict::Is(flow) => return Detection::Yes(flow),
            Verdict::IsNot => return Detection::No,
            Verdict::Wait => break,
            Verdict::Passed(length) => rest = rest.get(length..).unwrap_or_default(),
        }
    }
    if head.len() < MAX_HEAD {
        Detection::NeedMore
    } else {
        Detection::No
    }
}

/// What one element at the top says.
enum Verdict {
    Is(Flow),
    IsNot,
    /// It could be either, or more bytes are needed.
    Wait,
    /// It fits and says nothing; the next one after so many bytes may.
    Passed(usize),
}

/// An array of strings is a command if its first word is one; anything else in it
/// makes it a reply.
fn array(bytes: &[u8]) -> Verdict {
    let known = known_command(bytes) == Reading::Done(());
    if known && !begins_with(bytes, CONFIRMED) {
        return Verdict::Is(Flow::Request);
    }
    match plausible(bytes) {
        Reading::Bad => return Verdict::IsNot,
        Reading::Partial => return Verdict::Wait,
        Reading::Done(()) => {}
    }
    if begins_with(bytes, PUBLISHED) {
        return Verdict::Is(Flow::Response);
    }
    let mut command = Nesting::command();
    match command.advance(bytes) {
        Ok(_) if command.is_done() && known => Verdict::Is(Flow::Request),
        Ok(length) if command.is_done() => Verdict::Passed(length),
        Ok(_) => Verdict::Wait,
        Err(_) if Nesting::reply().advance(bytes).is_ok() => Verdict::Is(Flow::Response),
        Err(_) => Verdict::IsNot,
    }
}

/// An array of three or four, whose first element is one of these.
fn begins_with(bytes: &[u8], words: &[&[u8]]) -> bool {
    let mut cursor = Cursor::new(bytes);
    let header = cursor.crlf_line(2);
    let Reading::Done(Some(first)) = word(&mut cursor) else {
        return false;
    };
    let is_first = |word: &&[u8]| first.eq_ignore_ascii_case(word);
    matches!(header, Reading::Done(b"*3" | b"*4")) && words.iter().any(is_first)
}

fn status(bytes: &[u8]) -> Verdict {
    match plausible(bytes) {
        Reading::Bad => return Verdict::IsNot,
        Reading::Partial => return Verdict::Wait,
        Reading::Done(()) => {}
    }
    let own = OWN_STATUS.iter().any(|status| bytes.starts_with(status));
    let own_error = bytes.starts_with(b"-") && !bytes.starts_with(b"-ERR");
    if own || own_error {
        return Verdict::Is(Flow::Response);
    }
    memchr(b'\n', bytes).map_or(Verdict::Wait, |end| Verdict::Passed(end + 1))
}

fn only_reply(bytes: &[u8]) -> Verdict {
    match plausible(bytes) {
        Reading::Done(()) => Verdict::Is(Flow::Response),
        Reading::Partial => Verdict::Wait,
        Reading::Bad => Verdict::IsNot,
    }
}

/// Every whole line must begin with a command, and one of them with a command that
/// is Redis's alone.
fn inline(bytes: &[u8]) -> Detection {
    let mut own = false;
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let whole = lines.peek().is_some();
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let first = words.next().unwrap_or_default();
        if !whole {
            let begun = first.len() <= super::MAX_NAME && first.iter().all(u8::is_ascii_graphic);
            return match (own, begun && bytes.len() < MAX_HEAD) {
                (true, _) => Detection::Yes(Flow::Request),
                (false, true) => Detection::NeedMore,
                (false, false) => Detection::No,
            };
        }
        if !commands::is_known(first) {
            return Detection::No;
        }
        let shared = |word: &&str| first.eq_ignore_ascii_case(word.as_bytes());
        own |= !SHARED_WORDS.iter().any(shared) && !first.contains(&b'.');
    }
    Detection::No
}
