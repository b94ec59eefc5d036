//! Our spans as OTLP messages (opentelemetry-proto trace.proto v1).

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as OtlpSpan, Status as OtlpStatus, span, status,
};
use span_model::{Attribute, Resource, Span, SpanKind, Status, Value, semconv};
use std::collections::HashMap;
use std::sync::Arc;

/// W3C trace flag "sampled" (trace.proto `SpanFlags`, bits 0 to 7).
pub const FLAG_SAMPLED: u32 = 0x001;
/// W3C trace flag "random": the low 56 bits of the trace id are random.
pub const FLAG_RANDOM: u32 = 0x002;
/// Whether the parent is remote is known (trace.proto `SpanFlags`).
pub const FLAG_HAS_IS_REMOTE: u32 = 0x100;
/// The parent is in another process.
pub const FLAG_IS_REMOTE: u32 = 0x200;

/// Groups spans by their process and gives one `ResourceSpans` a process.
pub fn encode(spans: Vec<Span>, version: &str) -> Vec<ResourceSpans> {
    let mut groups: Vec<(Arc<Resource>, Vec<OtlpSpan>)> = Vec::new();
    let mut index: HashMap<*const Resource, usize> = HashMap::new();
    for span in spans {
        let slot = *index.entry(Arc::as_ptr(&span.resource)).or_insert_with(|| {
            groups.push((Arc::clone(&span.resource), Vec::new()));
            groups.len() - 1
        });
        if let Some((_, group)) = groups.get_mut(slot) {
            group.push(encode_span(span));
        }
    }
    let groups = groups.into_iter();
    groups
        .map(|(resource, spans)| resource_spans(&resource, spans, version))
        .collect()
}

fn resource_spans(resource: &Resource, spans: Vec<OtlpSpan>, version: &str) -> ResourceSpans {
    let scope = InstrumentationScope {
        name: semconv::SCOPE_NAME.to_owned(),
        version: version.to_owned(),
        ..InstrumentationScope::default()
    };
    ResourceSpans {
        resource: Some(OtlpResource {
            attributes: resource.attributes.iter().cloned().map(key_value).collect(),
            ..OtlpResource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope),
            spans,
            schema_url: semconv::SCHEMA_URL.to_owned(),
        }],
        schema_url: semconv::SCHEMA_URL.to_owned(),
    }
}

fn encode_span(span: Span) -> OtlpSpan {
    let facts = span.link.to_attributes();
    let attributes = span
        .attributes
        .into_iter()
        .chain(facts)
        .map(key_value)
        .collect();
    let kind = match span.kind {
        SpanKind::Server => span::SpanKind::Server,
        SpanKind::Client => span::SpanKind::Client,
    };
    OtlpSpan {
        trace_id: span
            .trace_id
            .map(|id| id.as_bytes().to_vec())
            .unwrap_or_default(),
        span_id: span.span_id.as_bytes().to_vec(),
        parent_span_id: span
            .parent_span_id
            .map(|id| id.as_bytes().to_vec())
            .unwrap_or_default(),
        name: span.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.end_unix_ns.max(span.start_unix_ns),
        attributes,
        status: match span.status {
            Status::Unset => None,
            Status::Error(message) => Some(OtlpStatus {
                message: message.into_owned(),
                code: status::StatusCode::Error.into(),
            }),
        },
        ..OtlpSpan::default()
    }
}

/// One attribute as OTLP has it.
pub fn key_value((key, value): Attribute) -> KeyValue {
    KeyValue {
        key: key.into_owned(),
        value: Some(any_value(value)),
        ..KeyValue::default()
    }
}

fn any_value(value: Value) -> AnyValue {
    let value = match value {
        Value::Str(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Int(number) => any_value::Value::IntValue(number),
        Value::Double(number) => any_value::Value::DoubleValue(number),
        Value::Bool(truth) => any_value::Value::BoolValue(truth),
        Value::StrArray(texts) => any_value::Value::ArrayValue(ArrayValue {
            values: texts
                .into_iter()
                .map(|text| any_value(Value::from(text)))
                .collect(),
        }),
    };
    AnyValue { value: Some(value) }
}
