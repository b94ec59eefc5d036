//! One direction of a connection: pieces in, contiguous bytes and gaps out.
//!
//! ```text
//!   piece at `next`            -> ready
//!   piece beyond `next`        -> held, until the bytes between arrive or time is up
//!   piece before `next`        -> seen already: its new tail, if any, is ready
//!   piece shorter than it says -> its bytes, then a gap
//! ```

use span_model::{SpanId, ToldBy};
use std::collections::{BTreeMap, VecDeque};

/// Which system call carried a byte, and what its thread had read before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// When the call returned, `CLOCK_MONOTONIC` ns.
    pub exit_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Where the other direction stood then.
    pub other_offset: u64,
    /// Writes: what the thread had read last (`LinkFacts::after`).
    pub after: Option<SpanId>,
    /// Writes: which request the thread was serving (`LinkFacts::serving`).
    pub serving: Option<SpanId>,
    /// Writes: what the thread that woke this one had read last (`LinkFacts::woken_after`).
    pub woken_after: Option<SpanId>,
    /// Writes: that was the first thread which it woke since (`LinkFacts::woken_first`).
    pub woken_first: bool,
    /// Writes: the thread's last read was on this connection too.
    pub same_connection: bool,
    /// Writes: what tells `after` and `serving`.
    pub told_by: ToldBy,
    /// How often the thread had waited for descriptors before, modulo 2^32; 0 = never.
    pub polls: u32,
}

/// A message of a system call, as a part of one direction of the stream.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// Offset of the first byte.
    pub offset: u64,
    /// Bytes that the call moved; more than are here if they were cut or not seen.
    pub total_len: u64,
    /// The first bytes.
    pub bytes: &'a [u8],
    /// The call.
    pub mark: Mark,
}

/// A piece that waits for the bytes before it.
#[derive(Debug)]
struct Held {
    total_len: u64,
    bytes: Vec<u8>,
    mark: Mark,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Offset of the byte that comes next; None before the first piece.
    next: Option<u64>,
    expected: Option<u64>,
    /// Bytes before `next` that the parser has not taken.
    unread: Vec<u8>,
    /// Offset of the first byte that the parser has not taken.
    position: u64,
    /// Marks of the bytes from `position` on, by their start.
    marks: VecDeque<(u64, Mark)>,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    /// Bytes that the parser does not want; `u64::MAX`: all until the end.
    skip: u64,
    /// The message under way ends where `skip` ends.
    end_after_skip: bool,
    /// The direction has ended.
    pub(super) ended: bool,
}

/// Marks kept of one message; a message in more pieces forgets those in between.
const MAX_MARKS: usize = 64;

impl Half {
    /// Offset after the last byte that arrived in order; before the first piece, where
    /// the other direction's first call says that this one stood.
    pub(super) fn next(&self) -> Option<u64> {
        self.next.or(self.expected)
    }

    /// A call in the other direction says that this one stands at `offset`. A thread may
    /// have looked late, so it counts only until the first piece shows otherwise.
    pub(super) fn stood_at(&mut self, offset: u64) {
        if self.next.is_none() {
            self.expected.get_or_insert(offset);
        }
    }

    /// Starts with a first piece at `offset`, or earlier if bytes are missing before it.
    pub(super) fn start(&mut self, offset: u64) -> u64 {
        if self.next.is_none() {
            let start = self
                .expected
                .map_or(offset, |expected| expected.min(offset));
            self.restart(start);
        }
        self.next.unwrap_or(offset)
    }

    /// Offset of the first byte that the parser has not taken.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that the parser has not taken.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Bytes of memory that grow with traffic.
    pub(super) fn memory(&self) -> usize {
        self.unread.len() + self.held_bytes
    }

    /// Keeps a piece that came too early.
    pub(super) fn hold(&mut self, piece: &Piece<'_>) {
        let held = Held {
            total_len: piece.total_len,
            bytes: piece.bytes.to_vec(),
            mark: piece.mark,
        };
        self.held_bytes += held.bytes.len();
        if let Some(replaced) = self.held.insert(piece.offset, held) {
            self.held_bytes -= replaced.bytes.len();
        }
    }

    /// Offset and mark of the first piece that waits.
    pub(super) fn first_held(&self) -> Option<(u64, Mark)> {
        self.held
            .first_key_value()
            .map(|(offset, held)| (*offset, held.mark))
    }

    /// How many pieces wait.
    pub(super) fn held_pieces(&self) -> usize {
        self.held.len()
    }

    /// Takes the first piece that waits.
    pub(super) fn take_held(&mut self) -> Option<(u64, u64, Vec<u8>, Mark)> {
        let (offset, held) = self.held.pop_first()?;
        self.held_bytes -= held.bytes.len();
        Some((offset, held.total_len, held.bytes, held.mark))
    }

    /// Starts, or starts again behind a gap, at `offset`: nothing unread remains.
    pub(super) fn restart(&mut self, offset: u64) {
        self.next = Some(offset);
        self.position = offset;
        self.unread.clear();
        self.marks.clear();
        self.skip = 0;
        self.end_after_skip = false;
    }

    /// Appends bytes at `next`. What the parser skips is not copied.
    pub(super) fn append(&mut self, bytes: &[u8], mark: Mark) {
        let next = self.next.unwrap_or(self.position);
        self.mark(next, mark);
        self.next = Some(next + bytes.len() as u64);
        let skipped = bytes
            .len()
            .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.advance_skip(skipped as u64);
        self.position += skipped as u64;
        self.unread
            .extend_from_slice(bytes.get(skipped..).unwrap_or_default());
    }

    /// Moves over `len` bytes that are not there. True: they were to be skipped anyway.
    pub(super) fn pass(&mut self, len: u64, mark: Mark) -> bool {
        let next = self.next.unwrap_or(self.position);
        if !self.unread.is_empty() || self.skip < len {
            self.restart(next + len);
            return false;
        }
        self.mark(next, mark);
        self.advance_skip(len);
        self.next = Some(next + len);
        self.position = next + len;
        true
    }

    /// The parser has taken `len` bytes, which are here.
    pub(super) fn consume(&mut self, len: usize) {
        let len = len.min(self.unread.len());
        self.unread.drain(..len);
        self.position += len as u64;
    }

    /// Skips `len` bytes from `position` on, also those still to come; `ends`: the
    /// message under way ends behind them.
    pub(super) fn skip(&mut self, len: u64, ends: bool) {
        let here = self
            .unread
            .len()
            .min(usize::try_from(len).unwrap_or(usize::MAX));
        self.consume(here);
        self.skip = if len == u64::MAX {
            len
        } else {
            len - here as u64
        };
        self.end_after_skip = ends;
    }

    /// Bytes still to be skipped.
    pub(super) fn skipping(&self) -> u64 {
        self.skip
    }

    /// True, once, when the message under way ended where a skip ended.
    pub(super) fn take_end(&mut self) -> bool {
        self.skip == 0 && std::mem::take(&mut self.end_after_skip)
    }

    /// True if there is something to show to the parser.
    pub(super) fn is_due(&self) -> bool {
        self.skip == 0 && !self.unread.is_empty()
    }

    /// The mark of the byte at `offset`.
    pub(super) fn mark_at(&self, offset: u64) -> Mark {
        let before = self.marks.iter().rev().find(|(start, _)| *start <= offset);
        before
            .or(self.marks.front())
            .map(|(_, mark)| *mark)
            .unwrap_or_default()
    }

    fn advance_skip(&mut self, len: u64) {
        if self.skip != u64::MAX {
            self.skip -= len;
        }
    }

    fn mark(&mut self, start: u64, mark: Mark) {
        // The byte before `position` may still be asked for: it ended a message.
        while self
            .marks
            .get(1)
            .is_some_and(|(start, _)| *start < self.position)
        {
            self.marks.pop_front();
        }
        if self.marks.len() >= MAX_MARKS {
            self.marks.pop_back();
        }
        self.marks.push_back((start, mark));
    }
}
