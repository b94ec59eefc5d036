//! Finds the next head after a gap, in bytes that start anywhere.
//!
//! Errs towards finding too much: a body that quotes a whole request line on a line
//! of its own is taken for a request.

use super::attributes::KNOWN_METHODS;
use super::head::{is_target, request_line, status_line, without_line_end};
use crate::protocols::cursor::Reading;
use memchr::{memchr, memmem, memrchr};

/// How far before its line end a request is looked for; longer targets are missed.
const LOOK_BACK: usize = 16 * 1024;
/// `HTTP/1.1 200` and the byte after it.
const STATUS_BYTES: usize = 13;

/// What the search gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A head starts after so many bytes.
    Start(usize),
    /// So many bytes hold no start.
    Nothing(usize),
    /// What is there may be the beginning of a start.
    NeedMore,
}

/// The state of the search in the request flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestHunt {
    /// The unread bytes start where a line or a system call starts.
    pub(super) at_line_start: bool,
}

impl RequestHunt {
    /// Requests are known by the end of their first line, for what stands before
    /// it may be a body without a line end.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Found {
        let Some(end) = memchr(b'\n', bytes) else {
            if bytes.len() <= 2 * LOOK_BACK {
                return Found::NeedMore;
            }
            self.at_line_start = false;
            return Found::Nothing(bytes.len() - LOOK_BACK);
        };
        let line = without_line_end(bytes.get(..end).unwrap_or_default());
        let before = line.len().saturating_sub(LOOK_BACK);
        let near = line.get(before..).unwrap_or_default();
        let whole = self.at_line_start && before == 0;
        self.at_line_start = true;
        match start_of_request(near, whole) {
            Some(start) => Found::Start(before + start),
            None => Found::Nothing(end + 1),
        }
    }
}

fn start_of_request(line: &[u8], whole: bool) -> Option<usize> {
    if whole && matches!(request_line(line, true), Reading::Done(_)) {
        return Some(0);
    }
    let line = line
        .strip_suffix(b" HTTP/1.1")
        .or_else(|| line.strip_suffix(b" HTTP/1.0"))?;
    let (before, target) = line.split_at_checked(memrchr(b' ', line)?)?;
    let target = target.get(1..).filter(|target| !target.is_empty())?;
    if !target.iter().all(|byte| is_target(*byte)) {
        return None;
    }
    let method = KNOWN_METHODS
        .iter()
        .find(|method| before.ends_with(method.as_bytes()))?;
    Some(before.len() - method.len())
}

/// Responses are known by `HTTP/1.x NNN`, wherever it stands.
pub(super) fn find_response(bytes: &[u8]) -> Found {
    let mut from = 0;
    while let Some(at) = memmem::find(bytes.get(from..).unwrap_or_default(), b"HTTP/1.") {
        let start = from + at;
        let line = bytes.get(start..).unwrap_or_default();
        let line = line.get(..STATUS_BYTES).unwrap_or(line);
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match status_line(
            line,
            line.len() < STATUS_BYTES && start + line.len() < bytes.len(),
        ) {
            Reading::Done(_) => return Found::Start(start),
            Reading::Partial if start > 0 => return Found::Nothing(start),
            Reading::Partial => return Found::NeedMore,
            Reading::Bad => from = start + 1,
        }
    }
    // The last bytes may be the beginning of the mark.
    let kept = b"HTTP/1.".len() - 1;
    match bytes.len().checked_sub(kept) {
        Some(passed) if passed > 0 => Found::Nothing(passed),
        _ => Found::NeedMore,
    }
}
