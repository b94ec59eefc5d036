//! What travels on a connection: one file or folder per protocol, one line each
//! in [`REGISTRY`]. Pure: bytes come in, messages go out.
//!
//! Leaves to others: putting bytes in order and noticing gaps (`streams`),
//! joining requests with responses (`spans`).

pub mod context;
mod cursor;
mod http1;
mod redis;
#[cfg(test)]
mod tests;
mod words;

use span_model::{Attribute, Key, Value, WireContext};
use std::borrow::Cow;

/// Unread bytes of one flow that a parser may ask to be kept for it, at most.
pub const MAX_UNREAD: usize = 64 * 1024;

/// Which way the bytes of a connection flow. Settled by detection, then fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// From the side that asks to the side that answers.
    Request,
    /// Back.
    Response,
}

/// What the first bytes in one direction look like to a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// They are this protocol, and flow this way.
    Yes(Flow),
    /// They cannot be this protocol.
    No,
    /// They could be; more bytes will tell.
    NeedMore,
}

/// How requests find their responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The first response answers the first open request of the connection.
    InOrder,
    /// `Message::key` is the same in both.
    ByKey,
}

/// A protocol: one value in [`REGISTRY`].
pub trait Protocol: Sync {
    /// File stem = configuration key = metric label.
    fn name(&self) -> &'static str;

    /// How requests find their responses.
    fn pairing(&self) -> Pairing;

    /// Looks at the first bytes of one direction, or at the bytes where a read or
    /// write began after a gap or in mid-stream. Be strict: a wrong `Yes` costs
    /// another protocol its spans, `NeedMore` is cheap.
    fn detect(&self, head: &[u8]) -> Detection;

    /// A parser for one connection.
    fn parser(&self) -> Box<dyn Parser>;
}

/// Reads both flows of one connection.
pub trait Parser: Send {
    /// Looks at the unread bytes of one flow, in order and without a gap.
    ///
    /// `answered` is the request that the next response answers, if its flow is
    /// `Response` and the request was seen; HTTP needs it to know that a response
    /// to HEAD has no body.
    ///
    /// Never called with no bytes. A step other than `NeedMore` makes progress.
    fn step(&mut self, flow: Flow, bytes: &[u8], answered: Option<&Message>) -> Step;

    /// Bytes of this flow are missing: what comes next starts anywhere. Until a
    /// message start is found again, `step` answers `Resync`.
    fn resync(&mut self, flow: Flow);

    /// The flow has ended. True: that ends the message under way well (a body that
    /// lasts until the connection closes); false: the message under way, if any, is cut.
    fn end(&mut self, flow: Flow) -> bool;
}

/// What a parser did with the bytes it was shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing can be said without more bytes; none were consumed. Never the answer
    /// to [`MAX_UNREAD`] bytes or more: then it is `Resync` with a reason.
    NeedMore,
    /// The next `n` bytes belong to the message under way and are not wanted. May
    /// exceed what is there (`u64::MAX`: until the connection closes).
    Skip(u64),
    /// A message was read, and `consumed` bytes from the front belong to it; may exceed
    /// what is there, as with `Skip`: where a body's length is known, a gap inside it
    /// does no harm. `complete`: it ends after them; else `Skip`s and an `End` follow.
    Message {
        /// Bytes taken from the front.
        consumed: u64,
        /// What they say.
        message: Box<Message>,
        /// The message has no more bytes.
        complete: bool,
    },
    /// The message under way ends after `consumed` more bytes (0 is allowed once).
    /// May exceed what is there, as with `Skip`.
    End {
        /// Bytes taken from the front.
        consumed: u64,
    },
    /// `consumed` bytes (at least 1) were given up, looking for a message start.
    Resync {
        /// Bytes taken from the front.
        consumed: usize,
        /// Why, from a closed list.
        reason: Loss,
    },
    /// From here on the connection speaks something else (101 upgrade, CONNECT,
    /// MONITOR); nothing more is read from it. The message before this step stands.
    Stop,
}

/// Why a parser gave bytes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Looking for a message start after a gap or in mid-stream.
    MidStream,
    /// The bytes break the protocol's rules.
    Malformed,
    /// A message is longer than the parser's limit.
    TooLong,
}

impl Loss {
    /// Metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MidStream => "mid_stream",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
        }
    }
}

/// What role a message plays in pairing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageKind {
    /// Wants a response.
    #[default]
    Request,
    /// Wants none: becomes a span by itself (Redis CLIENT REPLY OFF).
    OneWay,
    /// Answers the request it pairs with.
    Response,
    /// Precedes the answer and ends nothing (HTTP 1xx), or answers no request (Redis push).
    Interim,
}

/// On whose spans an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Client and server spans.
    Both,
    /// Client spans only.
    Client,
    /// Server spans only.
    Server,
}

/// A message, in words that every protocol shares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Role in pairing.
    pub kind: MessageKind,
    /// Pairs request and response where [`Pairing::ByKey`] holds; elsewhere a note that
    /// the parser leaves on a request and reads back from `answered`.
    pub key: u64,
    /// Requests: HTTP method, Redis command, as on the wire; parsers read it back from `answered`.
    pub operation: Cow<'static, str>,
    /// Requests: the span's name by the semantic conventions.
    pub span_name: Cow<'static, str>,
    /// Span attributes that this message gives, by the semantic conventions.
    pub attributes: Vec<(Audience, Attribute)>,
    /// Responses: `error.type` if a client span must report an error.
    pub client_error: Option<Cow<'static, str>>,
    /// Responses: `error.type` if a server span must report an error.
    pub server_error: Option<Cow<'static, str>>,
    /// Requests: a trace context in the headers.
    pub context: Option<WireContext>,
    /// Requests: hashes of rare header values (request ids) and of words, for the linker.
    pub tokens: Vec<u64>,
    /// Requests: the connection closes after the response, so no other request follows.
    pub last: bool,
}

impl Message {
    /// Adds an attribute for both sides.
    pub fn put(&mut self, key: &'static str, value: impl Into<Value>) {
        self.put_for(Audience::Both, key, value);
    }

    /// Adds an attribute for one side.
    pub fn put_for(&mut self, audience: Audience, key: &'static str, value: impl Into<Value>) {
        self.attributes
            .push((audience, (Key::Borrowed(key), value.into())));
    }
}

/// Every protocol; the order is the order of detection.
pub static REGISTRY: &[&dyn Protocol] = &[&http1::Http1, &redis::Redis];
