//! Reads what a reply is from its first bytes: an error and which, a message that
//! nobody asked for, or an answer.

use super::request::{header, word};
use super::resp::{Nesting, is_scalar, number};
use crate::protocols::cursor::{Cursor, Reading};

/// Longer error prefixes are not shown.
const MAX_PREFIX: usize = 32;
const MAX_HEADER: usize = 32;
/// Attributes that stand before a reply are kept until they are whole.
const MAX_ATTRIBUTES: usize = 4096;

/// What a reply's first bytes say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// It is an error.
    pub(super) is_error: bool,
    /// The error's first word, where it is one of Redis's kind (`WRONGTYPE`).
    pub(super) prefix: Option<&'a str>,
    /// It came out of band (RESP3 push).
    pub(super) is_push: bool,
    /// The first element of a push, or of an array that may be a published message.
    pub(super) first: Option<&'a [u8]>,
}

/// Reads as much of a reply as tells what it is.
pub(super) fn read_reply(bytes: &[u8]) -> Reading<Reply<'_>> {
    let mut cursor = Cursor::new(bytes);
    match skip_attributes(&mut cursor) {
        Reading::Done(()) => {}
        Reading::Partial => return Reading::Partial,
        Reading::Bad => return Reading::Bad,
    }
    match cursor.peek() {
        None => Reading::Partial,
        Some(b'-') => {
            cursor.take(1);
            error(cursor.rest())
        }
        Some(b'!') => match header(&mut cursor, b'!') {
            Reading::Done(_) => error(cursor.rest()),
            Reading::Partial => Reading::Partial,
            Reading::Bad => Reading::Bad,
        },
        Some(b'>') => aggregate(cursor, b'>'),
        Some(b'*') => aggregate(cursor, b'*'),
        Some(b'+' | b'$' | b':' | b'_' | b'#' | b'=' | b'(' | b',' | b'%' | b'~') => {
            Reading::Done(Reply::default())
        }
        Some(_) => Reading::Bad,
    }
}

fn skip_attributes(cursor: &mut Cursor<'_>) -> Reading<()> {
    while cursor.peek() == Some(b'|') {
        let pairs = match header(cursor, b'|') {
            Reading::Done(pairs) => pairs,
            Reading::Partial => return Reading::Partial,
            Reading::Bad => return Reading::Bad,
        };
        let mut attributes = Nesting::elements(pairs.saturating_mul(2));
        match attributes.advance(cursor.rest()) {
            Ok(taken) if attributes.is_done() => cursor.take(taken),
            Ok(_) if cursor.rest().len() <= MAX_ATTRIBUTES => return Reading::Partial,
            _ => return Reading::Bad,
        };
    }
    Reading::Done(())
}

/// Scripts may answer with any text; only a word in capitals is a prefix.
fn error(text: &[u8]) -> Reading<Reply<'_>> {
    let end = text
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
    if end.is_none() && text.len() <= MAX_PREFIX {
        return Reading::Partial;
    }
    let prefix = end
        .and_then(|end| text.get(..end))
        .filter(|prefix| is_prefix(prefix));
    Reading::Done(Reply {
        is_error: true,
        prefix: prefix.and_then(|prefix| std::str::from_utf8(prefix).ok()),
        ..Reply::default()
    })
}

fn is_prefix(word: &[u8]) -> bool {
    let capital = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    (2..=MAX_PREFIX).contains(&word.len())
        && word.iter().all(capital)
        && word.first().is_some_and(u8::is_ascii_uppercase)
}

/// Published messages have three or four elements; of longer arrays the first is
/// not looked at.
fn aggregate(mut cursor: Cursor<'_>, kind: u8) -> Reading<Reply<'_>> {
    let is_push = kind == b'>';
    let count = match cursor.crlf_line(MAX_HEADER) {
        Reading::Done(line) => line.get(1..).and_then(number),
        Reading::Partial => return Reading::Partial,
        Reading::Bad => return Reading::Bad,
    };
    let mut reply = Reply {
        is_push,
        ..Reply::default()
    };
    if count.is_none_or(|count| count == 0 || (count > 4 && !is_push)) {
        return Reading::Done(reply);
    }
    match cursor.peek() {
        None => Reading::Partial,
        Some(b'$') => match word(&mut cursor) {
            Reading::Done(first) => {
                reply.first = first;
                Reading::Done(reply)
            }
            Reading::Partial => Reading::Partial,
            // A null or a streamed string is no message's name.
            Reading::Bad => Reading::Done(reply),
        },
        Some(_) => Reading::Done(reply),
    }
}

/// True, or perhaps true, or false: a well-formed reply starts here. Stricter than
/// [`read_reply`], for bytes that may be anything.
pub(super) fn plausible(bytes: &[u8]) -> Reading<()> {
    let mut cursor = Cursor::new(bytes);
    let Some(kind) = cursor.peek() else {
        return Reading::Partial;
    };
    let limit = if matches!(kind, b'+' | b'-' | b'(' | b',') {
        512
    } else {
        MAX_HEADER
    };
    let text = bytes.get(1..).unwrap_or_default();
    let printable = |text: &[u8]| text.iter().all(|byte| (b' '..0x7f).contains(byte));
    let fits = |good: bool| {
        if good {
            Reading::Done(())
        } else {
            Reading::Bad
        }
    };
    if !b"+-$:*%~>_#=(,!|".contains(&kind) {
        return Reading::Bad;
    }
    let line = match cursor.crlf_line(limit) {
        Reading::Done(line) => line.get(1..).unwrap_or_default(),
        Reading::Partial => {
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            return if printable(text) {
                Reading::Partial
            } else {
                Reading::Bad
            };
        }
        Reading::Bad => return Reading::Bad,
    };
    let next = cursor.peek();
    match kind {
        b'+' => fits(printable(line)),
        b'-' => {
            let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            fits(printable(line) && is_prefix(word))
        }
        b'(' => fits(
            !line.is_empty()
                && line
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || *byte == b'-'),
        ),
        b'*' | b'$' if matches!(line, b"-1" | b"?") => Reading::Done(()),
        b'$' | b'=' | b'!' => match number(line).map(usize::try_from) {
            Some(Ok(length)) => {
                let end = cursor.rest().get(length..).unwrap_or_default();
                fits(end.starts_with(b"\r\n") || b"\r\n".starts_with(end))
            }
            _ => Reading::Bad,
        },
        b'*' | b'%' | b'~' | b'>' | b'|' => match (number(line), next) {
            (Some(0), _) | (Some(_), None) => fits(kind != b'>'),
            (Some(_), Some(next)) => fits(b"+-$:*%~>_#=(,!|".contains(&next)),
            (None, _) => Reading::Bad,
        },
        _ => fits(is_scalar(kind, line)),
    }
}
