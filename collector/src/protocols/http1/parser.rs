//! The state machine of one connection: two flows, cut into messages.
//!
//! ```text
//!       head, its length known      head, else
//!          +-------------+   +------> UnsureLength -------- End --+
//!          v             |   |                                    |
//! -----> Start ----------+---+------> Chunks --> Trailers - End --+--> Start
//!          | ^                |
//!   broken | | start found    +------> UntilClose (never left)
//!          v |
//!         Hunt <-- resync
//! ```

use super::attributes;
use super::head::{
    self, Body, Framing, HeaderLine, HeaderLines, MAX_HEAD, Version, without_line_end,
};
use super::hunt::{Found, RequestHunt, find_response};
use crate::protocols::cursor::Reading;
use crate::protocols::{Flow, Loss, Message, MessageKind, Parser, Step};
use memchr::memchr;

/// A chunk line with its extensions.
const MAX_CHUNK_LINE: usize = 4096;
/// While a start line is this short, each step checks that it can still become one.
const EARLY_CHECK: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Http1Parser {
    request: FlowState,
    response: FlowState,
    /// The connection speaks something else from here on.
    stopped: bool,
    /// Bytes were lost: who answers whom, and so which response is to HEAD, is not sure
    /// on this connection any more.
    pairs_in_doubt: bool,
}

#[derive(Debug, Default)]
struct FlowState {
    phase: Phase,
    /// Bytes of the head that were searched for its end.
    scanned: usize,
    /// The head's first line is whole and right.
    line_seen: bool,
    /// A message was read since the start or the last gap: what breaks now is malformed.
    in_step: bool,
    /// The head was searched for: it may be a quotation in some body.
    hunted: bool,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Start,
    Hunt(RequestHunt),
    /// So many bytes, or none if the request that nobody saw was a HEAD.
    UnsureLength(u64),
    Chunks {
        first: bool,
    },
    Trailers,
    UntilClose,
}

/// What a head leads to.
enum Parsed {
    /// A message, and what follows it.
    Message {
        message: Box<Message>,
        body: Body,
        stop: bool,
    },
    Broken,
}

impl Parser for Http1Parser {
    fn step(&mut self, flow: Flow, bytes: &[u8], answered: Option<&Message>) -> Step {
        if self.stopped {
            return Step::Stop;
        }
        let state = self.flow(flow);
        match state.phase {
            Phase::Start => self.start(flow, bytes, answered),
            Phase::Hunt(_) => self.hunt(flow, bytes, answered),
            Phase::UnsureLength(left) => state.unsure_length(bytes, left),
            Phase::Chunks { first } => state.chunk(bytes, first),
            Phase::Trailers => state.trailer(bytes),
            Phase::UntilClose => Step::Skip(u64::MAX),
        }
    }

    fn resync(&mut self, flow: Flow) {
        self.pairs_in_doubt = true;
        let hunt = RequestHunt {
            at_line_start: true,
        };
        *self.flow(flow) = FlowState {
            phase: Phase::Hunt(hunt),
            ..FlowState::default()
        };
    }

    fn end(&mut self, flow: Flow) -> bool {
        matches!(self.flow(flow).phase, Phase::UntilClose)
    }
}

impl Http1Parser {
    fn flow(&mut self, flow: Flow) -> &mut FlowState {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }

    fn start(&mut self, flow: Flow, bytes: &[u8], answered: Option<&Message>) -> Step {
        let in_doubt = self.pairs_in_doubt;
        let state = self.flow(flow);
        let blank = head::blank_lines(bytes);
        state.scanned = state.scanned.max(blank);
        if !state.line_seen {
            match state.first_line(flow, bytes, blank) {
                Reading::Done(()) => state.line_seen = true,
                Reading::Partial if bytes.len() < MAX_HEAD => return Step::NeedMore,
                Reading::Partial => return state.give_up(bytes.len(), Loss::TooLong),
                Reading::Bad => return state.give_up(1, Loss::Malformed),
            }
        }
        let end = match head::end_of_head(bytes, &mut state.scanned) {
            Some(end) if end <= MAX_HEAD => end,
            None if bytes.len() < MAX_HEAD => return Step::NeedMore,
            _ => return state.give_up(bytes.len(), Loss::TooLong),
        };
        let head = bytes.get(blank..end).unwrap_or_default();
        match read_head(flow, head, answered, !state.in_step) {
            Parsed::Broken => state.give_up(1, Loss::Malformed),
            Parsed::Message {
                body: Body::UntilClose,
                ..
            } if state.hunted && !has_headers(head) => state.give_up(1, Loss::Malformed),
            Parsed::Message {
                message,
                body,
                stop,
            } => {
                // If this is a quotation after all, the connection must not be lost to it.
                let body = if state.hunted && body == Body::UntilClose {
                    Body::Unknown
                } else {
                    body
                };
                let unsure = flow == Flow::Response && (in_doubt || answered.is_none());
                self.stopped = stop;
                self.flow(flow).message(end, message, body, unsure)
            }
        }
    }

    fn hunt(&mut self, flow: Flow, bytes: &[u8], answered: Option<&Message>) -> Step {
        let state = self.flow(flow);
        let Phase::Hunt(hunt) = &mut state.phase else {
            return self.start(flow, bytes, answered);
        };
        let found = match flow {
            Flow::Request => hunt.find(bytes),
            Flow::Response => find_response(bytes),
        };
        match found {
            Found::NeedMore => Step::NeedMore,
            Found::Nothing(consumed) => Step::Resync {
                consumed,
                reason: Loss::MidStream,
            },
            Found::Start(consumed) => {
                (state.phase, state.hunted) = (Phase::Start, true);
                if consumed == 0 {
                    return self.start(flow, bytes, answered);
                }
                Step::Resync {
                    consumed,
                    reason: Loss::MidStream,
                }
            }
        }
    }
}

impl FlowState {
    /// Refuses what cannot become a start line early, so that bytes of another
    /// protocol are not kept.
    fn first_line(&mut self, flow: Flow, bytes: &[u8], blank: usize) -> Reading<()> {
        let unread = bytes.get(self.scanned..).unwrap_or_default();
        let end = memchr(b'\n', unread).map(|at| self.scanned + at);
        if end.is_none() && bytes.len() > EARLY_CHECK {
            self.scanned = bytes.len();
            return Reading::Partial;
        }
        let line = bytes
            .get(blank..end.unwrap_or(bytes.len()))
            .unwrap_or_default();
        let (line, whole) = match end {
            Some(_) => (without_line_end(line), true),
            None => (line, false),
        };
        let (done, bad) = match flow {
            Flow::Request => {
                let line = head::request_line(line, whole);
                (matches!(line, Reading::Done(_)), line == Reading::Bad)
            }
            Flow::Response => {
                let line = head::status_line(line, whole);
                (
                    whole && matches!(line, Reading::Done(_)),
                    line == Reading::Bad,
                )
            }
        };
        match (done, bad) {
            (true, _) => Reading::Done(()),
            (_, true) => Reading::Bad,
            _ => Reading::Partial,
        }
    }

    /// The message under way is lost; looks for another.
    fn give_up(&mut self, consumed: usize, reason: Loss) -> Step {
        let reason = match reason {
            Loss::Malformed if !self.in_step => Loss::MidStream,
            reason => reason,
        };
        *self = Self {
            phase: Phase::Hunt(RequestHunt::default()),
            ..Self::default()
        };
        Step::Resync { consumed, reason }
    }

    /// A head of `length` bytes was read. `unsure`: the request was not seen; if it was
    /// a HEAD, no body comes.
    fn message(&mut self, length: usize, message: Box<Message>, body: Body, unsure: bool) -> Step {
        let (phase, more, complete) = match body {
            Body::None => (Phase::Start, 0, true),
            Body::Length(left) if unsure => (Phase::UnsureLength(left), 0, false),
            Body::Length(left) => (Phase::Start, left, true),
            Body::Chunked => (Phase::Chunks { first: true }, 0, false),
            Body::UntilClose => (Phase::UntilClose, u64::MAX, false),
            Body::Unknown => (Phase::Hunt(RequestHunt::default()), 0, true),
        };
        *self = Self {
            phase,
            in_step: true,
            ..Self::default()
        };
        Step::Message {
            consumed: wide(length).saturating_add(more),
            message,
            complete,
        }
    }

    fn unsure_length(&mut self, bytes: &[u8], left: u64) -> Step {
        let mark = b"HTTP/1.";
        let next_head = bytes.iter().zip(mark).all(|(byte, wanted)| byte == wanted);
        if next_head && bytes.len() < mark.len() {
            return Step::NeedMore;
        }
        self.phase = Phase::Start;
        Step::End {
            consumed: if next_head { 0 } else { left },
        }
    }

    fn chunk(&mut self, bytes: &[u8], first: bool) -> Step {
        let line_end = match bytes {
            _ if first => 0,
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            [b'\r'] => return Step::NeedMore,
            _ => return self.give_up(1, Loss::Malformed),
        };
        let rest = bytes.get(line_end..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else {
            if rest.len() > MAX_CHUNK_LINE {
                return self.give_up(bytes.len(), Loss::TooLong);
            }
            return Step::NeedMore;
        };
        let line = without_line_end(rest.get(..end).unwrap_or_default());
        let Some(size) = head::chunk_size(line) else {
            return self.give_up(1, Loss::Malformed);
        };
        self.phase = if size == 0 {
            Phase::Trailers
        } else {
            Phase::Chunks { first: false }
        };
        Step::Skip(wide(line_end + end + 1).saturating_add(size))
    }

    /// Trailers are read a line at a time; the empty one ends the message.
    fn trailer(&mut self, bytes: &[u8]) -> Step {
        let Some(end) = memchr(b'\n', bytes) else {
            if bytes.len() >= MAX_HEAD {
                return self.give_up(bytes.len(), Loss::TooLong);
            }
            return Step::NeedMore;
        };
        let line = bytes.get(..end).unwrap_or_default();
        if without_line_end(line).is_empty() {
            self.phase = Phase::Start;
            return Step::End {
                consumed: wide(end + 1),
            };
        }
        Step::Skip(wide(end + 1))
    }
}

/// `strict` refuses header lines that are none: set while it is not sure that this
/// is a head at all. Real servers let some pass, so they are ignored otherwise.
fn read_head(flow: Flow, head: &[u8], answered: Option<&Message>, strict: bool) -> Parsed {
    let line_end = memchr(b'\n', head).unwrap_or(head.len());
    let line = without_line_end(head.get(..line_end).unwrap_or_default());
    let mut framing = Framing::default();
    let mut headers = attributes::Headers::default();
    for header in HeaderLines::of_head(head) {
        match header {
            HeaderLine::Header { name, value } => {
                framing.offer(name, &value);
                if flow == Flow::Request {
                    headers.offer(name, value);
                }
            }
            HeaderLine::Broken if strict => return Parsed::Broken,
            HeaderLine::Broken => {}
        }
    }
    match flow {
        Flow::Request => match head::request_line(line, true) {
            Reading::Done(line) => Parsed::Message {
                message: Box::new(attributes::request(&line, headers)),
                body: framing.request_body(),
                stop: false,
            },
            _ => Parsed::Broken,
        },
        Flow::Response => match head::status_line(line, true) {
            Reading::Done(line) => read_response(line, framing, answered),
            _ => Parsed::Broken,
        },
    }
}

fn read_response(line: head::StatusLine, framing: Framing, answered: Option<&Message>) -> Parsed {
    let to = |method: &str| answered.is_some_and(|request| request.operation == method);
    let tunnel = to("CONNECT") && (200..300).contains(&line.status);
    let switched = line.status == 101;
    let body = if tunnel || to("HEAD") {
        Body::None
    } else {
        framing.response_body(line.status)
    };
    let kind = match line.status {
        101 => MessageKind::Response,
        100..=199 => MessageKind::Interim,
        _ => MessageKind::Response,
    };
    Parsed::Message {
        message: Box::new(attributes::response(line.status, kind)),
        body,
        stop: tunnel || switched,
    }
}

/// Quotations seldom have headers, real answers always do.
fn has_headers(head: &[u8]) -> bool {
    HeaderLines::of_head(head).next().is_some()
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// HTTP/1.0 closes unless told otherwise, HTTP/1.1 the other way round.
pub(super) fn closes(version: Version, close: bool, keep_alive: bool) -> bool {
    close || (version == Version::Http10 && !keep_alive)
}
