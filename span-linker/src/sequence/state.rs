//! Where a request stands, and what may happen to it next.

use crate::hash::mix;
use span_model::SpanId;

/// How many views of a state a model has, the finest first.
pub const VIEWS: usize = 4;

/// A request that was served, as far as this room needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its server span.
    pub id: SpanId,
    /// What it asked for; 0 if unknown.
    pub kind: u32,
    /// First byte of the request, ns since the Unix epoch.
    pub start_ns: u64,
    /// Last byte of the response; none while open.
    pub end_ns: Option<u64>,
    /// Threads that read the request and wrote the response; 0 if unknown.
    pub tids: (u32, u32),
}

impl Request {
    /// The same, so much later.
    #[must_use]
    pub fn later(&self, by_ns: u64) -> Self {
        Self {
            start_ns: self.start_ns.saturating_add(by_ns),
            end_ns: self.end_ns.map(|end| end.saturating_add(by_ns)),
            ..*self
        }
    }
}

/// A call that was made.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its client span.
    pub id: SpanId,
    /// Whom and what it asked; 0 if unknown.
    pub kind: u32,
    /// First byte of the request, ns since the Unix epoch.
    pub start_ns: u64,
    /// Last byte of the response; none while open.
    pub end_ns: Option<u64>,
    /// Threads that wrote the request and read the response; 0 if unknown.
    pub tids: (u32, u32),
    /// The span whose message the writing thread read last.
    pub after: Option<SpanId>,
    /// The request that the writing thread had read and not answered.
    pub serving: Option<SpanId>,
}

impl Call {
    /// The same, so much later.
    #[must_use]
    pub fn later(&self, by_ns: u64) -> Self {
        Self {
            start_ns: self.start_ns.saturating_add(by_ns),
            end_ns: self.end_ns.map(|end| end.saturating_add(by_ns)),
            ..*self
        }
    }
}

/// Where a request stands after some of its calls.
#[derive(Clone, Copy, Debug)]
pub struct State {
    request: SpanId,
    kind: u32,
    last: u32,
    before_last: u32,
    calls: u32,
    /// A hash of the whole sequence.
    path: u64,
    last_start_ns: u64,
    /// When the last response was read: what the request goes on from.
    end_ns: u64,
    /// The span whose message that was, and the thread that read it.
    read: SpanId,
    read_tid: u32,
}

/// What happens to a request: a call or its end.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Kind of the call (or the end), whether it runs beside another, and the thread's relation.
    pub symbol: u32,
    /// Since the last response was read; beside another call: since that one began.
    pub gap_ns: u64,
}

/// How an event's thread relates to the request: the low two bits of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Nothing is known.
    Unknown = 0,
    /// It had just read what the request waited for.
    JustRead = 1,
    /// It had read something else of this request last.
    OfRequest = 2,
    /// It had read something else.
    Other = 3,
}

/// Bit 2 of a symbol: the event comes before the last call has ended.
const BESIDE: u32 = 4;
/// The request's end, in place of a call's kind.
const END: u32 = 0x9e37_79b9;

impl Event {
    fn new(kind: u32, beside: bool, thread: Thread, gap_ns: u64) -> Self {
        let symbol = (kind << 3) | if beside { BESIDE } else { 0 } | thread as u32;
        Self { symbol, gap_ns }
    }

    /// The thread's relation, as a number.
    pub fn thread(&self) -> u32 {
        self.symbol & 3
    }
}

impl State {
    /// The request has begun.
    pub fn begun(request: &Request) -> Self {
        Self {
            request: request.id,
            kind: request.kind,
            last: 0,
            before_last: 0,
            calls: 0,
            path: mix(u64::from(request.kind), 1),
            last_start_ns: request.start_ns,
            end_ns: request.start_ns,
            read: request.id,
            read_tid: request.tids.0,
        }
    }

    /// The call as the request's next event.
    pub fn call(&self, call: &Call) -> Event {
        let thread = self.thread_of(call);
        let beside = self.is_beside(call.start_ns);
        Event::new(call.kind, beside, thread, self.gap(call.start_ns))
    }

    /// The end as the request's next event.
    pub fn end(&self, request: &Request, end_ns: u64) -> Event {
        let thread = match (self.read_tid, request.tids.1) {
            (0, _) | (_, 0) => Thread::Unknown,
            (read, written) if read == written => Thread::JustRead,
            _ => Thread::Other,
        };
        Event::new(END, self.is_beside(end_ns), thread, self.gap(end_ns))
    }

    /// The state after the call.
    #[must_use]
    pub fn after(&self, call: &Call) -> Self {
        let beside = u32::from(self.is_beside(call.start_ns));
        let end_ns = call.end_ns.unwrap_or(u64::MAX);
        let (end_ns, read, read_tid) = if end_ns >= self.end_ns || self.calls == 0 {
            (end_ns, call.id, call.tids.1)
        } else {
            (self.end_ns, self.read, self.read_tid)
        };
        Self {
            before_last: self.last,
            last: call.kind | 1,
            calls: self.calls + 1,
            path: mix(self.path, (call.kind << 1) | beside),
            last_start_ns: call.start_ns,
            end_ns,
            read,
            read_tid,
            ..*self
        }
    }

    /// The same, with all that has happened so much later.
    #[must_use]
    pub fn later(&self, by_ns: u64) -> Self {
        Self {
            last_start_ns: self.last_start_ns.saturating_add(by_ns),
            end_ns: self.end_ns.saturating_add(by_ns),
            ..*self
        }
    }

    /// What a view sees of the state: 0 sees all, the last sees least.
    pub fn view(&self, level: usize) -> u64 {
        let by_kind = mix(u64::from(self.kind) << 2, self.last);
        match level {
            0 => self.path,
            1 => mix(by_kind ^ 1, self.before_last),
            2 => by_kind ^ 2,
            _ => mix(3, self.last),
        }
    }

    fn is_beside(&self, time_ns: u64) -> bool {
        self.calls > 0 && time_ns < self.end_ns
    }

    fn gap(&self, time_ns: u64) -> u64 {
        let from = if self.is_beside(time_ns) {
            self.last_start_ns
        } else {
            self.end_ns
        };
        time_ns.saturating_sub(from)
    }

    fn thread_of(&self, call: &Call) -> Thread {
        if call.after.is_none() && call.serving.is_none() && call.tids.0 == 0 {
            Thread::Unknown
        } else if call.after == Some(self.read) {
            Thread::JustRead
        } else if call.after == Some(self.request) || call.serving == Some(self.request) {
            Thread::OfRequest
        } else {
            Thread::Other
        }
    }
}
