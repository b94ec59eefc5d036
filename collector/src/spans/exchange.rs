//! Joins the requests of one connection with their responses.
//!
//! In normal times the first response answers the first open request. After
//! missing bytes that is not sure any more, so what is open is given up as lost,
//! and a response is taken again only for a request that was sent when the
//! response stream had come just there. Where requests overlap in time even that
//! says nothing; then the connection must fall silent first.

use super::counts::Unpaired;
use crate::protocols::{Flow, Message, MessageKind, Pairing, Protocol};
use crate::streams::{Mark, Sink};
use span_model::WireContext;
use std::collections::VecDeque;

/// Requests kept open on one connection (a pipeline may be deep).
const MAX_OPEN: usize = 16_384;
/// Silence after which a connection with overlapping requests is in step again.
const SILENCE_NS: u64 = 100_000_000;

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) message: Message,
    /// Offset of its first byte.
    pub(super) offset: u64,
    pub(super) first: Mark,
    /// Sent after missing bytes and before a response was paired again.
    after_gap: bool,
}

/// A response, as far as it was seen.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) message: Message,
    pub(super) first: Mark,
    pub(super) last: Mark,
}

/// A request that has come to its end, with or without a response.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) request: Request,
    pub(super) response: Option<Response>,
    /// Set: the response is missing or cut, and why.
    pub(super) unpaired: Option<Unpaired>,
    /// Mark of the last thing that was seen of it.
    pub(super) last: Mark,
}

/// What is known of a request when it begins.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub(super) offset: u64,
    pub(super) first: Mark,
    pub(super) context: Option<WireContext>,
    pub(super) tokens: Vec<u64>,
}

impl Request {
    /// The part that the linker wants to know at once.
    pub(super) fn begun(&self) -> Begun {
        Begun {
            offset: self.offset,
            first: self.first,
            context: self.message.context,
            tokens: self.message.tokens.clone(),
        }
    }
}

/// One connection's requests and responses.
#[derive(Debug)]
pub(super) struct Exchange {
    pairing: Pairing,
    open: VecDeque<Request>,
    answering: Option<(Request, Response)>,
    /// Bytes were missing, and no later request has been answered yet.
    resuming: bool,
    /// A request was sent before the response to one of an earlier call had begun.
    overlapping: bool,
    /// The newest request's mark.
    newest: Option<Mark>,
    last_activity_ns: u64,
    /// Requests that began since the caller looked.
    pub(super) begun: Vec<Begun>,
    pub(super) finished: Vec<Finished>,
    /// Messages without a partner that become no span.
    pub(super) dropped: Vec<Unpaired>,
    /// Offset of the request that the bytes read or written last belong to, by flow.
    pub(super) touched: Option<u64>,
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            pairing: Pairing::InOrder,
            open: VecDeque::new(),
            answering: None,
            resuming: false,
            overlapping: false,
            newest: None,
            last_activity_ns: 0,
            begun: Vec::new(),
            finished: Vec::new(),
            dropped: Vec::new(),
            touched: None,
        }
    }

    /// Offset of the request whose response comes next or is under way.
    pub(super) fn awaited(&self) -> Option<u64> {
        let answering = self.answering.as_ref().map(|(request, _)| request.offset);
        answering.or_else(|| self.open.front().map(|request| request.offset))
    }

    /// Offset of the request that was sent last, if it is open.
    pub(super) fn last_open(&self) -> Option<u64> {
        self.open.back().map(|request| request.offset)
    }

    /// Requests that are open or being answered.
    pub(super) fn open_requests(&self) -> u64 {
        (self.open.len() + usize::from(self.answering.is_some())) as u64
    }

    /// Gives up everything that is open.
    pub(super) fn close(&mut self, reason: Unpaired, at: Option<Mark>) {
        if let Some((request, response)) = self.answering.take() {
            let last = at.unwrap_or(response.last);
            let unpaired = Some(reason);
            self.finished.push(Finished {
                request,
                response: Some(response),
                unpaired,
                last,
            });
        }
        for request in std::mem::take(&mut self.open) {
            let last = at.unwrap_or(request.first);
            self.finished.push(Finished {
                request,
                response: None,
                unpaired: Some(reason),
                last,
            });
        }
    }

    fn request(&mut self, message: Message, offset: u64, first: Mark) {
        let silent = first.exit_ns.saturating_sub(self.last_activity_ns) >= SILENCE_NS;
        let unanswered = self.newest.is_some_and(|newest| {
            newest.exit_ns != first.exit_ns && newest.other_offset == first.other_offset
        });
        self.overlapping |= unanswered && self.pairing == Pairing::InOrder;
        self.newest = Some(first);
        if self.resuming && self.overlapping && !silent {
            self.dropped.push(Unpaired::Doubtful);
            return;
        }
        if self.open.len() >= MAX_OPEN {
            self.dropped.push(Unpaired::TooMany);
            return;
        }
        let request = Request {
            message,
            offset,
            first,
            after_gap: self.resuming,
        };
        self.touched = Some(offset);
        self.begun.push(request.begun());
        if request.message.kind == MessageKind::OneWay {
            self.finished.push(Finished {
                request,
                response: None,
                unpaired: None,
                last: first,
            });
        } else {
            self.open.push_back(request);
        }
    }

    fn response(
        &mut self,
        message: Message,
        offset: u64,
        [first, last]: [Mark; 2],
        complete: bool,
    ) {
        self.cut_answer(last);
        let Some(request) = self.take_partner(&message, offset) else {
            let reason = if self.resuming {
                Unpaired::Doubtful
            } else {
                Unpaired::NoRequest
            };
            self.dropped.push(reason);
            return;
        };
        self.resuming &= !request.after_gap;
        self.touched = Some(request.offset);
        let response = Response {
            message,
            first,
            last,
        };
        self.answering = Some((request, response));
        if complete {
            self.finish_answer(last);
        }
    }

    fn take_partner(&mut self, message: &Message, offset: u64) -> Option<Request> {
        let index = match self.pairing {
            Pairing::InOrder => fits(self.open.front()?, offset).then_some(0)?,
            Pairing::ByKey => self
                .open
                .iter()
                .position(|open| open.message.key == message.key)?,
        };
        self.open.remove(index)
    }

    fn finish_answer(&mut self, last: Mark) {
        if let Some((request, response)) = self.answering.take() {
            let response = Response { last, ..response };
            let finished = Finished {
                request,
                response: Some(response),
                unpaired: None,
                last,
            };
            self.finished.push(finished);
        }
    }

    /// The response under way never ended.
    fn cut_answer(&mut self, last: Mark) {
        if let Some((request, response)) = self.answering.take() {
            let unpaired = Some(Unpaired::ResponseLost);
            self.finished.push(Finished {
                request,
                response: Some(response),
                unpaired,
                last,
            });
        }
    }
}

/// A response that began before the request was sent answers another one. Only
/// asked after a gap: where several threads share a connection, the position may
/// be read late.
fn fits(request: &Request, offset: u64) -> bool {
    !request.after_gap || offset >= request.first.other_offset
}

impl Sink for Exchange {
    fn speaks(&mut self, protocol: &'static dyn Protocol) {
        self.pairing = protocol.pairing();
    }

    fn answered(&self, offset: u64) -> Option<&Message> {
        let front = self.open.front().filter(|request| fits(request, offset))?;
        Some(&front.message)
    }

    fn message(
        &mut self,
        flow: Flow,
        message: Message,
        offset: u64,
        [first, last]: [Mark; 2],
        complete: bool,
    ) {
        match (flow, message.kind) {
            (_, MessageKind::Interim) => {}
            (Flow::Request, _) => self.request(message, offset, first),
            (Flow::Response, _) => self.response(message, offset, [first, last], complete),
        }
        self.last_activity_ns = last.exit_ns;
    }

    fn end(&mut self, flow: Flow, last: Mark) {
        if flow == Flow::Response {
            self.finish_answer(last);
        }
        self.last_activity_ns = last.exit_ns;
    }

    fn gap(&mut self, flow: Flow, until: u64, at: Mark) {
        self.resuming = true;
        if flow == Flow::Request {
            return;
        }
        self.cut_answer(at);
        if self.overlapping {
            return self.close(Unpaired::ResponseLost, Some(at));
        }
        // What was sent later is answered later; what was sent before may have been
        // answered in the gap.
        for request in std::mem::take(&mut self.open) {
            if request.first.other_offset >= until {
                self.open.push_back(Request {
                    after_gap: true,
                    ..request
                });
            } else {
                self.finished.push(Finished {
                    request,
                    response: None,
                    unpaired: Some(Unpaired::ResponseLost),
                    last: at,
                });
            }
        }
    }
}
