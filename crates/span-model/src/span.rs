//! The span as the collector builds it, before it is linked and encoded.

use crate::ids::{SpanId, TraceId};
use crate::link::LinkFacts;
use std::borrow::Cow;
use std::sync::Arc;

/// An attribute name: almost always one of [`crate::semconv`].
pub type Key = Cow<'static, str>;

/// An attribute and its value.
pub type Attribute = (Key, Value);

/// An attribute value, the kinds of OTLP `AnyValue` that we produce.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// UTF-8 text.
    Str(Cow<'static, str>),
    /// A signed 64-bit number.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// True or false.
    Bool(bool),
    /// A list of texts, as header attributes have.
    StrArray(Vec<String>),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Str(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

/// Which side of a call the span describes (trace.proto `SpanKind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// The process served the request.
    Server,
    /// The process made the request.
    Client,
}

/// How the call ended (trace.proto `Status`); instrumentation never sets OK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nothing went wrong that this side must report.
    #[default]
    Unset,
    /// The call failed; the text adds what `error.type` does not say, and may be empty.
    Error(Cow<'static, str>),
}

/// The process that a span belongs to: one OTLP `Resource`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// `service.name`, `process.pid`, `host.id` and so on, unique keys.
    pub attributes: Vec<Attribute>,
}

/// One served or made request.
#[derive(Clone, Debug)]
pub struct Span {
    /// Unset until the linker knows the trace.
    pub trace_id: Option<TraceId>,
    /// Computed from the request's key; never shared between client and server.
    pub span_id: SpanId,
    /// Unset until the linker knows it.
    pub parent_span_id: Option<SpanId>,
    /// Client or server.
    pub kind: SpanKind,
    /// Low-cardinality name by the semantic conventions.
    pub name: Cow<'static, str>,
    /// First byte of the request, ns since the Unix epoch.
    pub start_unix_ns: u64,
    /// Last byte of the response, ns since the Unix epoch.
    pub end_unix_ns: u64,
    /// Error or unset.
    pub status: Status,
    /// Unique keys.
    pub attributes: Vec<Attribute>,
    /// The process, shared by its spans.
    pub resource: Arc<Resource>,
    /// What the kernel saw that tells the parent.
    pub link: LinkFacts,
}
