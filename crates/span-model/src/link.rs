//! What was observed about a span that tells its parent, and how those facts
//! ride as attributes when spans travel between components.
//!
//! The linker reads these facts and takes the attributes off again; only the
//! method and the confidence of the link stay on the exported span.

use crate::ids::{SpanId, TraceId};
use crate::span::{Attribute, SpanKind, Value};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_64;

/// How the parent was found; stays on the exported span.
pub const METHOD: &str = "deeptrace.link.method";
/// How sure the link is, 0 to 1; stays on the exported span.
pub const CONFIDENCE: &str = "deeptrace.link.confidence";

/// Prefix of the facts that the linker takes off.
pub const FACT_PREFIX: &str = "deeptrace.fact.";
/// Bit of a token that is the hash of a word of the payload, which may be rare or not; without it, it is
/// that of a header's value which is.
pub const PAYLOAD_TOKEN: u64 = 1 << 63;

/// Marks a span as a request that has begun and not ended; its value names the process.
pub const OPENING: &str = "deeptrace.fact.opening";
const CALLER: &str = "deeptrace.fact.caller";
const AFTER: &str = "deeptrace.fact.after";
const CONNECTED_AFTER: &str = "deeptrace.fact.connected_after";
const TOLD_BY: &str = "deeptrace.fact.told_by";
const FREED: &str = "deeptrace.fact.freed";
const SERVING: &str = "deeptrace.fact.serving";
const WOKEN_AFTER: &str = "deeptrace.fact.woken_after";
const WOKEN_FIRST: &str = "deeptrace.fact.woken_first";
const TRACE: &str = "deeptrace.fact.trace";
const PARENT: &str = "deeptrace.fact.parent";
const SAMPLED: &str = "deeptrace.fact.sampled";
const TOKENS: &str = "deeptrace.fact.tokens";
const REQUEST_TID: &str = "deeptrace.fact.request_tid";
const RESPONSE_TID: &str = "deeptrace.fact.response_tid";
const REQUEST_POLLS: &str = "deeptrace.fact.request_polls";
const RESPONSE_POLLS: &str = "deeptrace.fact.response_polls";
const CONNECTED_POLLS: &str = "deeptrace.fact.connected_polls";
const CONNECTED_BEFORE_NS: &str = "deeptrace.fact.connected_before_ns";

/// A trace context that some other tracer put into the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WireContext {
    /// The trace that the sender says the request belongs to.
    pub trace_id: TraceId,
    /// The span that the sender says is the parent; sw8 has none of 8 bytes.
    pub parent_span_id: Option<SpanId>,
    /// The sender's sampling decision, where the header has one.
    pub sampled: Option<bool>,
}

/// What tells what came before a message, and whom it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ToldBy {
    /// The thread that wrote it: what it read last, and which request it read last.
    #[default]
    Thread,
    /// The goroutine that wrote it: what was read last in the same time slice of Go's scheduler, in
    /// which every goroutine was woken by the one before it; the request that it has read itself, or
    /// that the one which started it was serving then.
    Goroutine,
    /// The same, but the request is of another goroutine: the one whose turn it was in the scheduler's queue
    /// when the time slice began, as far as that can be told.
    Turn,
}

impl ToldBy {
    const ALL: [Self; 3] = [Self::Thread, Self::Goroutine, Self::Turn];

    /// The attribute's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Goroutine => "goroutine",
            Self::Turn => "turn",
        }
    }

    /// By the attribute's value.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|told| told.name() == name)
    }
}

/// Facts about one span. All span ids in here are computed, not looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Server spans: the client span that the caller computes for this request.
    pub caller: Option<SpanId>,
    /// Client spans: the span whose message was the last one read on the writing
    /// thread before this request was written. A server span: its request was
    /// read; a client span: its response was read. None: nothing was read, or
    /// what was read last belongs to no span. Server spans: the same, before the response was
    /// written.
    pub after: Option<SpanId>,
    /// What tells `after` and `serving`.
    pub told_by: ToldBy,
    /// Client spans: `after` names a response that was read on the connection this request
    /// was then written on. A pool may have given the connection to whoever waited in line.
    pub freed: bool,
    /// Client spans that are the first on their connection: the same at the time of `connect`. Boxed, for
    /// few spans have it and the linker keeps many.
    pub connected: Option<Box<Connected>>,
    /// Client spans: the server span whose request the writing thread read last and has not answered.
    pub serving: Option<SpanId>,
    /// Client spans: the writing thread had waited for another one (futex) since its last message,
    /// and this is the span whose message that other thread had read last when it ended the wait.
    /// None: it had not waited, or what the other had read belongs to no span, or the other had
    /// itself been woken since its own last message. Server spans: the same, before the response
    /// was written.
    pub woken_after: Option<SpanId>,
    /// `woken_after` is of the first wait that the other thread ended since its last message.
    pub woken_first: bool,
    /// Trace context found in the request's headers.
    pub context: Option<WireContext>,
    /// Hashes of rare header values of the request (request ids and the like), and with
    /// [`PAYLOAD_TOKEN`] of words of its payload.
    pub tokens: Vec<u64>,
    /// Thread that read or wrote the request's first byte; 0 = unknown.
    pub request_tid: u32,
    /// Thread that wrote or read the response's last byte; 0 = unknown.
    pub response_tid: u32,
    /// How often the former had waited for descriptors (`epoll_wait`, `poll`, `select`) before that, modulo
    /// 2^32: the round of an event loop; 0 = never, or unknown.
    pub request_polls: u32,
    /// The same of the latter.
    pub response_polls: u32,
}

/// What a thread had done when it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// As `LinkFacts::after`.
    pub after: Option<SpanId>,
    /// As `LinkFacts::request_polls`.
    pub polls: u32,
    /// How long before the request that was, ns; 0 = unknown, at most 4.29 s are told.
    pub before_ns: u32,
}

/// Names a process for the linker: all spans of one process share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey(pub u64);

impl ProcessKey {
    /// From `host.id` and `process.pid`, both as they stand in the resource.
    pub fn new(host_id: &str, pid: i64) -> Self {
        Self(xxh3_64(format!("{host_id}\0{pid}").as_bytes()))
    }
}

/// A request that has begun and not ended: lets the linker give spans that end
/// early the trace of an ancestor that is still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The span that will follow when the request has ended.
    pub span_id: SpanId,
    /// Client or server.
    pub kind: SpanKind,
    /// The process it happens in.
    pub process: ProcessKey,
    /// First byte of the request, ns since the Unix epoch.
    pub start_unix_ns: u64,
    /// What is known of it so far.
    pub facts: LinkFacts,
}

impl LinkFacts {
    /// The span whose message the thread had read last when it connected, if this call is the first
    /// on its connection.
    pub fn connected_after(&self) -> Option<SpanId> {
        self.connected.as_ref()?.after
    }

    /// The facts as attributes, for the way between two components.
    pub fn to_attributes(&self) -> Vec<Attribute> {
        let mut attributes = Vec::new();
        let mut put =
            |key: &'static str, value: Value| attributes.push((Cow::Borrowed(key), value));
        let ids = [
            (CALLER, self.caller),
            (AFTER, self.after),
            (CONNECTED_AFTER, self.connected_after()),
            (SERVING, self.serving),
            (WOKEN_AFTER, self.woken_after),
        ];
        for (key, id) in ids {
            if let Some(id) = id {
                put(key, id.to_string().into());
            }
        }
        if self.told_by != ToldBy::Thread {
            put(TOLD_BY, self.told_by.name().into());
        }
        for (key, flag) in [(FREED, self.freed), (WOKEN_FIRST, self.woken_first)] {
            if flag {
                put(key, true.into());
            }
        }
        if let Some(context) = &self.context {
            put(TRACE, context.trace_id.to_string().into());
            if let Some(parent) = context.parent_span_id {
                put(PARENT, parent.to_string().into());
            }
            if let Some(sampled) = context.sampled {
                put(SAMPLED, sampled.into());
            }
        }
        if !self.tokens.is_empty() {
            let tokens = self
                .tokens
                .iter()
                .map(|token| format!("{token:016x}"))
                .collect();
            put(TOKENS, Value::StrArray(tokens));
        }
        let connected = self.connected.as_deref().copied().unwrap_or_default();
        let numbers = [
            (REQUEST_TID, self.request_tid),
            (RESPONSE_TID, self.response_tid),
            (REQUEST_POLLS, self.request_polls),
            (RESPONSE_POLLS, self.response_polls),
            (CONNECTED_POLLS, connected.polls),
            (CONNECTED_BEFORE_NS, connected.before_ns),
        ];
        for (key, number) in numbers {
            if number != 0 {
                put(key, number.into());
            }
        }
        attributes
    }

    /// Takes one attribute back in. False: it is not a fact, or not one of ours.
    pub fn read_attribute(&mut self, key: &str, value: FactValue<'_>) -> bool {
        match (key, value) {
            (CALLER, FactValue::Str(text)) => self.caller = SpanId::from_hex(text),
            (AFTER, FactValue::Str(text)) => self.after = SpanId::from_hex(text),
            (CONNECTED_AFTER, FactValue::Str(text)) => {
                self.connected.get_or_insert_default().after = SpanId::from_hex(text);
            }
            (SERVING, FactValue::Str(text)) => self.serving = SpanId::from_hex(text),
            (WOKEN_AFTER, FactValue::Str(text)) => self.woken_after = SpanId::from_hex(text),
            (TOLD_BY, FactValue::Str(name)) => {
                let Some(told_by) = ToldBy::from_name(name) else {
                    return false;
                };
                self.told_by = told_by;
            }
            (FREED, FactValue::Bool(freed)) => self.freed = freed,
            (WOKEN_FIRST, FactValue::Bool(first)) => self.woken_first = first,
            (TRACE, FactValue::Str(text)) => {
                let Some(trace_id) = TraceId::from_hex(text) else {
                    return false;
                };
                self.context = Some(WireContext {
                    trace_id,
                    parent_span_id: None,
                    sampled: None,
                });
            }
            (PARENT, FactValue::Str(text)) => {
                if let Some(context) = &mut self.context {
                    context.parent_span_id = SpanId::from_hex(text);
                }
            }
            (SAMPLED, FactValue::Bool(sampled)) => {
                if let Some(context) = &mut self.context {
                    context.sampled = Some(sampled);
                }
            }
            (TOKENS, FactValue::Str(text)) => {
                let Ok(token) = u64::from_str_radix(text, 16) else {
                    return false;
                };
                self.tokens.push(token);
            }
            (_, FactValue::Int(number)) => {
                let place = match key {
                    REQUEST_TID => &mut self.request_tid,
                    RESPONSE_TID => &mut self.response_tid,
                    REQUEST_POLLS => &mut self.request_polls,
                    RESPONSE_POLLS => &mut self.response_polls,
                    CONNECTED_POLLS => &mut self.connected.get_or_insert_default().polls,
                    CONNECTED_BEFORE_NS => &mut self.connected.get_or_insert_default().before_ns,
                    _ => return false,
                };
                *place = u32::try_from(number).unwrap_or(0);
            }
            _ => return false,
        }
        true
    }
}

/// A fact's value as the wire has it; a list is handed over one text at a time.
#[derive(Clone, Copy, Debug)]
pub enum FactValue<'a> {
    /// Text, or one text of a list.
    Str(&'a str),
    /// A number.
    Int(i64),
    /// True or false.
    Bool(bool),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_way_through_attributes() {
        let facts = LinkFacts {
            caller: Some(SpanId::from_hash(1)),
            after: Some(SpanId::from_hash(2)),
            told_by: ToldBy::Turn,
            freed: true,
            connected: Some(Box::new(Connected {
                after: Some(SpanId::from_hash(3)),
                polls: 12,
                before_ns: 13,
            })),
            serving: Some(SpanId::from_hash(4)),
            woken_after: Some(SpanId::from_hash(10)),
            woken_first: true,
            context: Some(WireContext {
                trace_id: TraceId::of_root(SpanId::from_hash(5)),
                parent_span_id: Some(SpanId::from_hash(6)),
                sampled: Some(false),
            }),
            tokens: vec![7, u64::MAX],
            request_tid: 8,
            response_tid: 9,
            request_polls: 11,
            response_polls: u32::MAX,
        };
        let mut read = LinkFacts::default();
        for (key, value) in facts.to_attributes() {
            assert!(key.starts_with(FACT_PREFIX), "{key}");
            match &value {
                Value::Str(text) => assert!(read.read_attribute(&key, FactValue::Str(text))),
                Value::Int(number) => assert!(read.read_attribute(&key, FactValue::Int(*number))),
                Value::Bool(truth) => assert!(read.read_attribute(&key, FactValue::Bool(*truth))),
                Value::StrArray(texts) => {
                    for text in texts {
                        assert!(read.read_attribute(&key, FactValue::Str(text)));
                    }
                }
                Value::Double(_) => unreachable!("no fact is a double"),
            }
        }
        assert_eq!(read, facts);
    }
}
