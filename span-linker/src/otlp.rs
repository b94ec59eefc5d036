//! Facts off an OTLP span, the decision onto it.

use crate::window::entry::{Entry, Side};
use crate::window::link::{Link, Method, Parent, Reason, Trace};
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
use std::hash::{BuildHasher, Hash, Hasher};

/// Why a span has no parent; beside `deeptrace.link.method` = `none`.
const REASON: &str = "deeptrace.link.reason";
/// The callee's service, as semantic conventions have it.
const SERVICE_PEER_NAME: &str = "service.peer.name";
/// The same, deprecated, and the one that trace viewers read.
const PEER_SERVICE: &str = "peer.service";

/// What the linker needs of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub process: ProcessKey,
    /// Times of spans with the same are of one clock: the start of a kernel, else the host.
    pub clock: Option<&'a str>,
    pub service: Option<&'a str>,
}

/// Reads a resource.
pub fn origin(resource: Option<&Resource>) -> Origin<'_> {
    let (mut host_id, mut boot_id) = (None, None);
    let mut service = None;
    let mut pid = 0;
    for attribute in resource
        .map(|r| r.attributes.as_slice())
        .unwrap_or_default()
    {
        match (attribute.key.as_str(), any_value(attribute)) {
            (semconv::HOST_ID, Some(AnyValue::StringValue(text))) => host_id = Some(text.as_str()),
            (semconv::DEEPTRACE_BOOT_ID, Some(AnyValue::StringValue(text))) => {
                boot_id = Some(text.as_str());
            }
            (semconv::SERVICE_NAME, Some(AnyValue::StringValue(text))) => {
                service = Some(text.as_str());
            }
            (semconv::PROCESS_PID, Some(AnyValue::IntValue(number))) => pid = *number,
            _ => {}
        }
    }
    let process = ProcessKey::new(host_id.unwrap_or_default(), pid);
    Origin {
        process,
        clock: boot_id.or(host_id),
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
    // It has no end; to look through all attributes of the others would cost much.
    if span.start_time_unix_nano != span.end_time_unix_nano {
        return None;
    }
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
    let kind = kind(span);
    let mut entry = Entry::new(id, side(span), process, span.start_time_unix_nano, facts);
    entry.ended(span.end_time_unix_nano.max(span.start_time_unix_nano));
    entry.incomplete = incomplete;
    entry.kind = kind;
    entry
}

/// Attributes that tell what a request asks for, beside the span's name.
const KIND_ATTRIBUTES: [&str; 4] = [
    semconv::SERVER_ADDRESS,
    semconv::SERVER_PORT,
    semconv::URL_FULL,
    semconv::URL_PATH,
];

/// A hash of what a span does and whom it asks: the same for spans that do the same.
fn kind(span: &Span) -> u32 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    span.name.hash(&mut hasher);
    for attribute in &span.attributes {
        if !KIND_ATTRIBUTES.contains(&attribute.key.as_str()) {
            continue;
        }
        match any_value(attribute) {
            Some(AnyValue::StringValue(text)) if attribute.key.starts_with("url.") => {
                words(text).for_each(|word| word.hash(&mut hasher));
            }
            Some(AnyValue::StringValue(text)) => text.hash(&mut hasher),
            Some(AnyValue::IntValue(number)) => number.hash(&mut hasher),
            _ => {}
        }
    }
    let hash = hasher.finish();
    u32::try_from(hash >> 32).unwrap_or(0).max(1)
}

/// The first segments of a URL's path; those with digits are ids, more often than not.
fn words(url: &str) -> impl Iterator<Item = &str> {
    let after_scheme = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'));
    let path = after_scheme.map_or(url, |(_, path)| path);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let segments = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .take(3);
    segments.filter(|segment| !segment.bytes().any(|byte| byte.is_ascii_digit()))
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
        Link::Unsure { .. } | Link::None(_) => None,
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
            put(span, CONFIDENCE, rounded(confidence));
        }
        Link::Unsure { .. } => {
            put(span, METHOD, "none".into());
            put(span, REASON, Reason::BelowFloor.name().into());
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

/// Points from a call to the request that it may belong to, below the floor.
pub fn write_unsure(span: &mut Span, request: SpanId, trace: Trace, confidence: f32) {
    let attributes = [
        (METHOD, Value::from(Method::Timing.name())),
        (CONFIDENCE, rounded(confidence)),
    ];
    let attributes = attributes.map(|(key, value)| key_value((Cow::Borrowed(key), value)));
    span.links.push(SpanLink {
        trace_id: trace.id.as_bytes().to_vec(),
        span_id: request.as_bytes().to_vec(),
        flags: trace_flags(trace) | FLAG_HAS_IS_REMOTE,
        attributes: attributes.into(),
        ..SpanLink::default()
    });
}

/// So that 0.9 does not leave as 0.8999999761581421.
fn rounded(confidence: f32) -> Value {
    Value::Double((f64::from(confidence) * 1000.0).round() / 1000.0)
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
