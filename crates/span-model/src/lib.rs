//! What a span is, how its ids are made, and how its attributes are called.
//!
//! Owns the types that the collector fills, the linker reads and the exporters
//! encode. No IO, no clock, no protocol knowledge.

mod ids;
mod link;
pub mod semconv;
mod span;

pub use ids::{ConnectionKey, Initiator, RequestKey, SpanId, TraceId};
pub use link::{
    CONFIDENCE, Connected, FACT_PREFIX, FactValue, LinkFacts, METHOD, OPENING, Opening,
    PAYLOAD_TOKEN, ProcessKey, ToldBy, WireContext,
};
pub use span::{Attribute, Key, Resource, Span, SpanKind, Status, Value};
