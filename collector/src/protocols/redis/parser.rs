//! The state machine of one connection: two flows, cut into messages.
//!
//! ```text
//!            whole in view            longer
//!          +---------------+   +------> Body --- End --+
//!          v               |   |                       |
//! -----> Start ------------+---+                       +--> Start
//!          | ^
//!   broken | | start found
//!          v |
//!         Hunt <-- resync
//! ```

use super::reply::{self, read_reply};
use super::request::{blank_commands, known_command, known_line, read_array, read_inline};
use super::resp::{Broken, Nesting};
use super::session::{Session, answers};
use crate::protocols::cursor::Reading;
use crate::protocols::{Flow, Loss, MAX_UNREAD, Message, MessageKind, Parser, Step};
use memchr::memchr;

#[derive(Debug, Default)]
pub(super) struct RedisParser {
    request: FlowState,
    response: FlowState,
    session: Session,
    feed: Feed,
}

/// Whether the server sends a feed (MONITOR, replication) instead of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Feed {
    #[default]
    No,
    /// Once the reply under way has ended.
    Next,
    Yes,
}

#[derive(Debug, Default)]
struct FlowState {
    phase: Phase,
    /// A message was read since the start or the last gap: what breaks now is malformed.
    in_step: bool,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Start,
    Body(Nesting),
    Hunt {
        /// The unread bytes start where a line or a system call starts.
        at_line_start: bool,
    },
}

impl Parser for RedisParser {
    fn step(&mut self, flow: Flow, bytes: &[u8], answered: Option<&Message>) -> Step {
        if self.feed == Feed::Yes {
            return Step::Stop;
        }
        match (&self.flow(flow).phase, flow) {
            (Phase::Start, Flow::Request) => self.command(bytes),
            (Phase::Start, Flow::Response) => self.reply(bytes, answered),
            (Phase::Body(_), _) => {
                let step = self.flow(flow).body(bytes);
                if self.feed == Feed::Next && matches!(step, Step::End { .. }) {
                    self.feed = Feed::Yes;
                }
                step
            }
            (Phase::Hunt { at_line_start }, _) => {
                let from_start = *at_line_start;
                self.hunt(flow, bytes, from_start, answered)
            }
        }
    }

    fn resync(&mut self, flow: Flow) {
        let phase = Phase::Hunt {
            at_line_start: true,
        };
        *self.flow(flow) = FlowState {
            phase,
            in_step: false,
        };
        match flow {
            Flow::Request => self.session.forget_commands(),
            Flow::Response => self.session.forget_replies(),
        }
    }

    fn end(&mut self, _flow: Flow) -> bool {
        false
    }
}

impl RedisParser {
    fn flow(&mut self, flow: Flow) -> &mut FlowState {
        match flow {
            Flow::Request => &mut self.request,
            Flow::Response => &mut self.response,
        }
    }

    fn command(&mut self, bytes: &[u8]) -> Step {
        let blank = blank_commands(bytes);
        let rest = bytes.get(blank..).unwrap_or_default();
        let read = match rest.first() {
            None => Reading::Partial,
            Some(b'*') => match read_array(rest) {
                Reading::Done(command) => Reading::Done((command, None)),
                Reading::Partial => Reading::Partial,
                Reading::Bad => Reading::Bad,
            },
            Some(_) => match read_inline(rest) {
                Reading::Done((command, length)) => Reading::Done((command, Some(length))),
                Reading::Partial => Reading::Partial,
                Reading::Bad => Reading::Bad,
            },
        };
        let (command, inline) = match read {
            Reading::Done(done) => {
                self.session.inline = done.1.is_some();
                done
            }
            Reading::Partial => return self.request.wait(bytes),
            Reading::Bad => return self.request.give_up(1, Loss::Malformed),
        };
        if let Some(length) = inline {
            self.request.in_step = true;
            let message = Box::new(self.session.command_message(&command));
            return Step::Message {
                consumed: wide(blank + length),
                message,
                complete: true,
            };
        }
        let mut nesting = Nesting::command();
        let Ok(taken) = nesting.advance(rest) else {
            return self.request.give_up(1, Loss::Malformed);
        };
        let message = self.session.command_message(&command);
        self.request.message(blank + taken, message, nesting)
    }

    fn reply(&mut self, bytes: &[u8], answered: Option<&Message>) -> Step {
        let reply = match read_reply(bytes) {
            Reading::Done(reply) => reply,
            Reading::Partial => return self.response.wait(bytes),
            Reading::Bad => return self.response.give_up(1, Loss::Malformed),
        };
        let mut nesting = Nesting::reply();
        let taken = match nesting.advance(bytes) {
            Ok(0) => return self.response.wait(bytes),
            Ok(taken) => taken,
            Err(Broken) => return self.response.give_up(1, Loss::Malformed),
        };
        let message = self.session.reply_message(&reply, answered);
        let feeds = ["MONITOR", "SYNC", "PSYNC"];
        let feeds = message.kind == MessageKind::Response
            && !reply.is_error
            && feeds.iter().any(|feed| answers(answered, feed));
        if feeds {
            self.feed = if nesting.is_done() {
                Feed::Yes
            } else {
                Feed::Next
            };
        }
        self.response.message(taken, message, nesting)
    }

    /// Commands are known by their name; lines of words are looked for only where
    /// the last command was one, since `GET` is a line of a cut array, too. Any line of a cut reply looks like a reply;
    /// so while no request is open, what comes is taken for the rest of that reply.
    fn hunt(
        &mut self,
        flow: Flow,
        bytes: &[u8],
        from_start: bool,
        answered: Option<&Message>,
    ) -> Step {
        let is_start: fn(&[u8]) -> Reading<()> = match flow {
            Flow::Request if self.session.inline => known_line,
            Flow::Request => known_command,
            Flow::Response => reply::plausible,
        };
        let skip_all = flow == Flow::Response && answered.is_none();
        let found = if skip_all {
            Candidate::Nowhere(bytes.len())
        } else {
            candidate(bytes, from_start, is_start)
        };
        let state = self.flow(flow);
        match found {
            Candidate::At(0) => {
                state.phase = Phase::Start;
                self.step(flow, bytes, answered)
            }
            Candidate::At(consumed) => {
                state.phase = Phase::Start;
                Step::Resync {
                    consumed,
                    reason: Loss::MidStream,
                }
            }
            Candidate::PerhapsAt(0) => state.wait(bytes),
            Candidate::PerhapsAt(consumed) => {
                state.phase = Phase::Hunt {
                    at_line_start: true,
                };
                Step::Resync {
                    consumed,
                    reason: Loss::MidStream,
                }
            }
            Candidate::Nowhere(consumed) => {
                let at_line_start = skip_all || bytes.ends_with(b"\n");
                state.phase = Phase::Hunt { at_line_start };
                Step::Resync {
                    consumed,
                    reason: Loss::MidStream,
                }
            }
        }
    }
}

impl FlowState {
    /// Emits a message whose first `taken` bytes were walked.
    fn message(&mut self, taken: usize, message: Message, mut nesting: Nesting) -> Step {
        let consumed = wide(taken).saturating_add(nesting.take_pending());
        let complete = nesting.is_done();
        let phase = if complete {
            Phase::Start
        } else {
            Phase::Body(nesting)
        };
        *self = Self {
            phase,
            in_step: true,
        };
        Step::Message {
            consumed,
            message: Box::new(message),
            complete,
        }
    }

    fn body(&mut self, bytes: &[u8]) -> Step {
        let Phase::Body(nesting) = &mut self.phase else {
            return self.give_up(1, Loss::Malformed);
        };
        let Ok(taken) = nesting.advance(bytes) else {
            return self.give_up(1, Loss::Malformed);
        };
        let consumed = wide(taken).saturating_add(nesting.take_pending());
        if nesting.is_done() {
            self.phase = Phase::Start;
            Step::End { consumed }
        } else if consumed > 0 {
            Step::Skip(consumed)
        } else {
            self.wait(bytes)
        }
    }

    fn wait(&mut self, bytes: &[u8]) -> Step {
        if bytes.len() < MAX_UNREAD {
            return Step::NeedMore;
        }
        self.give_up(bytes.len(), Loss::TooLong)
    }

    /// The message under way is lost; looks for another.
    fn give_up(&mut self, consumed: usize, reason: Loss) -> Step {
        let reason = match reason {
            Loss::Malformed if !self.in_step => Loss::MidStream,
            reason => reason,
        };
        *self = Self {
            phase: Phase::Hunt {
                at_line_start: false,
            },
            in_step: false,
        };
        Step::Resync { consumed, reason }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Where a message may start.
enum Candidate {
    At(usize),
    PerhapsAt(usize),
    /// Not in so many bytes.
    Nowhere(usize),
}

fn candidate(bytes: &[u8], from_start: bool, is_start: fn(&[u8]) -> Reading<()>) -> Candidate {
    // The gap may have swallowed the CR, so that LF alone ends a line here.
    let next_line = |at: usize| {
        let found = memchr(b'\n', bytes.get(at..).unwrap_or_default());
        found.map(|found| at + found + 1)
    };
    let mut next = if from_start { Some(0) } else { next_line(0) };
    while let Some(at) = next {
        let line = bytes.get(at..).unwrap_or_default();
        match is_start(line) {
            _ if line.is_empty() => break,
            Reading::Done(()) => return Candidate::At(at),
            Reading::Partial => return Candidate::PerhapsAt(at),
            Reading::Bad => next = next_line(at),
        }
    }
    Candidate::Nowhere(bytes.len())
}
