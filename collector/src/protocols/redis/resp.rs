//! Walks the elements of a RESP value without keeping them.
//!
//! Owns the grammar: types, lengths, nesting, streamed forms. What the elements
//! mean is left to `request` and `reply`.

use super::MAX_BULK;
use crate::protocols::cursor::{Cursor, Reading};
use memchr::memchr;

/// Deeper values are refused; Redis itself seldom nests more than ten levels.
const MAX_DEPTH: usize = 128;
/// A type byte and a number.
const MAX_HEADER: usize = 32;
/// A double in its longest form.
const MAX_NUMBER: usize = 400;

/// The bytes break the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What of a value is still to come.
#[derive(Debug)]
pub(super) struct Nesting {
    frames: Vec<Frame>,
    /// Bytes of the string under way, with its line end.
    pending: u64,
    grammar: Grammar,
}

/// What may stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grammar {
    /// Any value.
    Reply,
    /// An array.
    Command,
    /// Bulk strings.
    CommandWords,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// So many elements.
    Count(u64),
    /// Elements until a dot (RESP3 streamed aggregate).
    UntilDot,
    /// Chunks until an empty one (RESP3 streamed string).
    Chunks,
    /// The rest of a line.
    Line,
}

impl Nesting {
    /// A command that starts here.
    pub(super) fn command() -> Self {
        Self {
            grammar: Grammar::Command,
            ..Self::elements(1)
        }
    }

    /// A reply that starts here, with the attributes that stand before it.
    pub(super) fn reply() -> Self {
        Self::elements(1)
    }

    /// So many values.
    pub(super) fn elements(count: u64) -> Self {
        Self {
            frames: vec![Frame::Count(count)],
            pending: 0,
            grammar: Grammar::Reply,
        }
    }

    /// Nothing is to come.
    pub(super) fn is_done(&self) -> bool {
        self.frames.is_empty() && self.pending == 0
    }

    /// Gives up the rest of the string under way, to be skipped by the caller.
    pub(super) fn take_pending(&mut self) -> u64 {
        std::mem::take(&mut self.pending)
    }

    /// Takes in what it can from the front and says how much that was.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut cursor = Cursor::new(bytes);
        loop {
            let there = cursor.rest().len();
            let taken = usize::try_from(self.pending).map_or(there, |pending| pending.min(there));
            cursor.take(taken);
            self.pending -= u64::try_from(taken).unwrap_or(self.pending);
            while self.frames.last() == Some(&Frame::Count(0)) {
                self.frames.pop();
            }
            if self.pending > 0 || cursor.rest().is_empty() || self.frames.is_empty() {
                return Ok(cursor.position());
            }
            let before = cursor.position();
            match self.element(&mut cursor)? {
                Reading::Done(()) => {}
                Reading::Partial => return Ok(before),
                Reading::Bad => return Err(Broken),
            }
        }
    }

    /// One header, number or line.
    fn element(&mut self, cursor: &mut Cursor<'_>) -> Result<Reading<()>, Broken> {
        if self.frames.last() == Some(&Frame::Line) {
            self.line(cursor);
            return Ok(Reading::Done(()));
        }
        let Some(kind) = cursor.peek() else {
            return Ok(Reading::Partial);
        };
        if matches!(kind, b'+' | b'-' | b'(') && self.is_reply_place() {
            self.count_one();
            self.push(Frame::Line)?;
            return Ok(Reading::Done(()));
        }
        let limit = if kind == b',' { MAX_NUMBER } else { MAX_HEADER };
        let line = match cursor.crlf_line(limit) {
            Reading::Done(line) => line.get(1..).unwrap_or_default(),
            Reading::Partial => return Ok(Reading::Partial),
            Reading::Bad => return Err(Broken),
        };
        if self.grammar != Grammar::Reply {
            self.command_header(kind, line, cursor.rest())?;
        } else if self.frames.last() == Some(&Frame::Chunks) {
            self.chunk_header(kind, line, cursor.rest())?;
        } else {
            self.reply_header(kind, line, cursor.rest())?;
        }
        Ok(Reading::Done(()))
    }

    fn is_reply_place(&self) -> bool {
        self.grammar == Grammar::Reply && self.frames.last() != Some(&Frame::Chunks)
    }

    fn line(&mut self, cursor: &mut Cursor<'_>) {
        let rest = cursor.rest();
        match memchr(b'\n', rest) {
            Some(end) => {
                cursor.take(end + 1);
                self.frames.pop();
            }
            None => {
                cursor.take(rest.len());
            }
        }
    }

    fn command_header(&mut self, kind: u8, line: &[u8], after: &[u8]) -> Result<(), Broken> {
        let count = number(line).ok_or(Broken)?;
        self.count_one();
        match (self.grammar, kind) {
            (Grammar::Command, b'*') => {
                self.grammar = Grammar::CommandWords;
                self.push(Frame::Count(count))
            }
            (Grammar::CommandWords, b'$') => self.string(count, after),
            _ => Err(Broken),
        }
    }

    fn chunk_header(&mut self, kind: u8, line: &[u8], after: &[u8]) -> Result<(), Broken> {
        match (kind, number(line)) {
            (b';', Some(0)) => {
                self.frames.pop();
                Ok(())
            }
            (b';', Some(length)) => self.string(length, after),
            _ => Err(Broken),
        }
    }

    fn reply_header(&mut self, kind: u8, line: &[u8], after: &[u8]) -> Result<(), Broken> {
        if kind == b'.' {
            let ends = line.is_empty() && self.frames.last() == Some(&Frame::UntilDot);
            self.frames.pop();
            return if ends { Ok(()) } else { Err(Broken) };
        }
        if kind != b'|' {
            self.count_one();
        }
        match (kind, line) {
            (b'$' | b'*', b"-1") => Ok(()),
            (b'$', b"?") => self.push(Frame::Chunks),
            (b'*' | b'~' | b'>' | b'%', b"?") => self.push(Frame::UntilDot),
            (b'$' | b'=' | b'!', _) => self.string(number(line).ok_or(Broken)?, after),
            (b'*' | b'~' | b'>', _) => self.push(Frame::Count(number(line).ok_or(Broken)?)),
            (b'%' | b'|', _) => {
                self.push(Frame::Count(number(line).ok_or(Broken)?.saturating_mul(2)))
            }
            _ => is_scalar(kind, line).then_some(()).ok_or(Broken),
        }
    }

    /// The parent has one element less to come.
    fn count_one(&mut self) {
        if let Some(Frame::Count(count)) = self.frames.last_mut() {
            *count = count.saturating_sub(1);
        }
    }

    /// A finished parent makes room first, so that a list in the last place costs nothing.
    fn push(&mut self, frame: Frame) -> Result<(), Broken> {
        while self.frames.last() == Some(&Frame::Count(0)) {
            self.frames.pop();
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(Broken);
        }
        self.frames.push(frame);
        Ok(())
    }

    /// The line end is checked where it can be seen; a long value's end is trusted,
    /// since it may lie in bytes that nobody captured.
    fn string(&mut self, length: u64, after: &[u8]) -> Result<(), Broken> {
        if length > MAX_BULK {
            return Err(Broken);
        }
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| after.get(length..));
        if !end.is_none_or(|end| end.starts_with(b"\r\n") || b"\r\n".starts_with(end)) {
            return Err(Broken);
        }
        self.pending = length + 2;
        Ok(())
    }
}

/// A count or a length: digits, and not absurdly many.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok().filter(|number| *number <= MAX_BULK)
}

/// Checks a scalar that fits into one short line.
pub(super) fn is_scalar(kind: u8, line: &[u8]) -> bool {
    let unsigned = line
        .strip_prefix(b"-")
        .or(line.strip_prefix(b"+"))
        .unwrap_or(line);
    match kind {
        b':' => !unsigned.is_empty() && unsigned.iter().all(u8::is_ascii_digit),
        b'_' => line.is_empty(),
        b'#' => matches!(line, b"t" | b"f"),
        b',' => std::str::from_utf8(line).is_ok_and(|text| text.parse::<f64>().is_ok()),
        _ => false,
    }
}
