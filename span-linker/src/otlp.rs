//! Facts off an OTLP span, the decision onto it.

use crate::window::entry::{Entry, Side};
use crate::window::link::{Link, Parent, Trace};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Link as SpanLink, SpanKind};
use pipeline::otlp::{FLAG_HAS_IS_REMOTE, FLAG_IS_REMOTE, FLAG_RANDOM, FLAG_SAMPLED, key_value};
use span_model::{
    CONFIDENCE, FACT_PREFIX, FactValue, LinkFacts, METHOD, OPENING, Opening, ProcessKey, SpanId,
    TraceId, Value, semconv,
};
use std::borrow::Cow;

/// Why a span has no parent; beside `deeptrace.link.method` = `none`.
const REASON: &str = "deeptrace.link.reason";
/// The callee's service, as semantic conventions have it.
const SERVICE_PEER_NAME: &str = "service.peer.name";
/// The same, deprecated, and the one that trace viewers read.
const PEER_SERVICE: &str = "peer.service";

/// What the linker needs of a resource.
#[derive(Clone, Debug)]
pub struct Origin {
    pub process: ProcessKey,
    pub host_id: Option<String>,
    pub service: Option<String>,
}

/// Reads a resource.
pub fn origin(resource: Option<&Resource>) -> Origin {
    let mut host_id = None;
    let mut service = None;
    let mut pid = 0;
    for attribute in resource
        .map(|r| r.attributes.as_slice())
        .unwrap_or_default()
    {
        match (attribute.key.as_str(), any_value(attribute)) {
            (semconv::HOST_ID, Some(AnyValue::StringValue(text))) => host_id = Some(text.clone()),
            (semconv::SERVICE_NAME, Some(AnyValue::StringValue(text))) => {
                service = Some(text.clone());
            }
            (semconv::PROCESS_PID, Some(AnyValue::IntValue(number))) => pid = *number,
            _ => {}
        }
    }
    let process = ProcessKey::new(host_id.as_deref().unwrap_or_default(), pid);
    Origin {
        process,
        host_id,
        service,
    }
}

/// The span's own id; none if it is malformed.
pub fn span_id(span: &Span) -> Option<SpanId> {
    SpanId::from_bytes(span.span_id.as_slice().try_into().ok()?)
}

/// The trace that the span is in already; none for spans that wait for the linker.
pub fn trace_id(span: &Span) -> Option<TraceId> {
    TraceId::from_bytes(span.trace_id.as_slice().try_into().ok()?)
}

/// A request that has begun, if that is what the span stands for (`openings` makes them).
pub fn opening(span: &Span) -> Option<Opening> {
    let mark = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == OPENING)?;
    let Some(AnyValue::IntValue(process)) = any_value(mark) else {
        return None;
    };
    let kind = match side(span) {
        Side::Ingress => span_model::SpanKind::Server,
        _ => span_model::SpanKind::Client,
    };
    let mut facts = LinkFacts::default();
    for attribute in &span.attributes {
        read_fact(&mut facts, attribute);
    }
    Some(Opening {
        span_id: span_id(span)?,
        kind,
        process: ProcessKey(u64::from_ne_bytes(process.to_ne_bytes())),
        start_unix_ns: span.start_time_unix_nano,
        facts,
    })
}

/// Whether the span is of a request that came in, or of one that went out.
fn side(span: &Span) -> Side {
    match SpanKind::try_from(span.kind) {
        Ok(SpanKind::Server | SpanKind::Consumer) => Side::Ingress,
        _ => Side::Egress,
    }
}

/// Takes the facts off a span and gives what the window keeps of it.
pub fn take_entry(span: &mut Span, id: SpanId, process: ProcessKey) -> Entry {
    let mut facts = LinkFacts::default();
    let mut incomplete = false;
    span.attributes.retain(|attribute| {
        incomplete |= attribute.key == semconv::DEEPTRACE_INCOMPLETE;
        let is_fact = attribute.key.starts_with(FACT_PREFIX);
        if is_fact {
            read_fact(&mut facts, attribute);
        }
        !is_fact
    });
    let mut entry = Entry::new(id, side(span), process, span.start_time_unix_nano, facts);
    entry.end_ns = Some(span.end_time_unix_nano.max(span.start_time_unix_nano));
    entry.incomplete = incomplete;
    entry
}

fn read_fact(facts: &mut LinkFacts, attribute: &KeyValue) {
    // Facts of a newer collector that this linker does not know are dropped.
    match any_value(attribute) {
        Some(AnyValue::StringValue(text)) => {
            facts.read_attribute(&attribute.key, FactValue::Str(text));
        }
        Some(AnyValue::IntValue(number)) => {
            facts.read_attribute(&attribute.key, FactValue::Int(*number));
        }
        Some(AnyValue::BoolValue(truth)) => {
            facts.read_attribute(&attribute.key, FactValue::Bool(*truth));
        }
        Some(AnyValue::ArrayValue(list)) => {
            for value in &list.values {
                if let Some(AnyValue::StringValue(text)) = &value.value {
                    facts.read_attribute(&attribute.key, FactValue::Str(text));
                }
            }
        }
        _ => {}
    }
}

/// Writes parent, trace, flags and how they were found.
pub fn write_link(span: &mut Span, side: Side, link: Link, trace: Trace) {
    let parent = match link {
        Link::To {
            parent: Parent::Span(parent),
            ..
        } => Some(parent),
        Link::To {
            parent: Parent::Wire(wire),
            ..
        } => wire.span,
        Link::None(_) => None,
    };
    span.trace_id = trace.id.as_bytes().to_vec();
    span.parent_span_id = parent.map(|id| id.as_bytes().to_vec()).unwrap_or_default();
    // A client span's parent is in its own process, a server span's in another.
    let remote = side == Side::Ingress && parent.is_some();
    span.flags = trace_flags(trace) | FLAG_HAS_IS_REMOTE | if remote { FLAG_IS_REMOTE } else { 0 };
    match link {
        Link::To {
            method, confidence, ..
        } => {
            put(span, METHOD, method.name().into());
            // Rounded, so that 0.9 does not leave as 0.8999999761581421.
            put(
                span,
                CONFIDENCE,
                Value::Double((f64::from(confidence) * 1000.0).round() / 1000.0),
            );
        }
        Link::None(reason) => {
            put(span, METHOD, "none".into());
            put(span, REASON, reason.name().into());
        }
    }
}

/// Writes whose service answered, unless the span says so already.
pub fn write_peer(span: &mut Span, service: &str) {
    for key in [PEER_SERVICE, SERVICE_PEER_NAME] {
        if span.attributes.iter().all(|attribute| attribute.key != key) {
            put(span, key, service.to_owned().into());
        }
    }
}

/// Points from a caller to a callee that left in another trace, or without a parent.
pub fn write_span_link(span: &mut Span, callee: SpanId, trace: Trace) {
    span.links.push(SpanLink {
        trace_id: trace.id.as_bytes().to_vec(),
        span_id: callee.as_bytes().to_vec(),
        flags: trace_flags(trace) | FLAG_HAS_IS_REMOTE | FLAG_IS_REMOTE,
        ..SpanLink::default()
    });
}

fn trace_flags(trace: Trace) -> u32 {
    let sampled = if trace.sampled { FLAG_SAMPLED } else { 0 };
    let random = if trace.random { FLAG_RANDOM } else { 0 };
    sampled | random
}

fn put(span: &mut Span, key: &'static str, value: Value) {
    span.attributes.push(key_value((Cow::Borrowed(key), value)));
}

fn any_value(attribute: &KeyValue) -> Option<&AnyValue> {
    attribute.value.as_ref()?.value.as_ref()
}
