//! A batch in which every field of OTLP is set, and every kind of value stands.

use pipeline::Batch;
use pipeline::proto::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use pipeline::proto::resource::v1::Resource;
use pipeline::proto::trace::v1::span::{Event, Link};
use pipeline::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

pub fn everything() -> Batch {
    let scope = InstrumentationScope {
        name: "scope".to_owned(),
        version: "1".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 6,
    };
    Batch::new(vec![ResourceSpans {
        resource: Some(Resource {
            attributes: attributes(),
            dropped_attributes_count: 7,
            entity_refs: vec![EntityRef {
                schema_url: "https://example.org/entity".to_owned(),
                r#type: "service".to_owned(),
                id_keys: vec!["text".to_owned()],
                description_keys: vec!["int".to_owned()],
            }],
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope),
            spans: vec![span()],
            schema_url: "https://example.org/scope".to_owned(),
        }],
        schema_url: "https://example.org/resource".to_owned(),
    }])
}

fn span() -> Span {
    let event = Event {
        time_unix_nano: 1_700_000_000_000_000_001,
        name: "event".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 1,
    };
    let link = Link {
        trace_id: vec![4; 16],
        span_id: vec![5; 8],
        trace_state: "a=b".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 2,
        flags: 0x301,
    };
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        trace_state: "c=d,e=f".to_owned(),
        parent_span_id: vec![3; 8],
        flags: 0x101,
        name: "GET /".to_owned(),
        kind: 5,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_000_000_002,
        attributes: attributes(),
        dropped_attributes_count: 3,
        events: vec![event],
        dropped_events_count: 4,
        links: vec![link],
        dropped_links_count: 5,
        status: Some(Status {
            message: "broken".to_owned(),
            code: 2,
        }),
    }
}

fn attributes() -> Vec<KeyValue> {
    use any_value::Value;
    let any = |value| AnyValue { value: Some(value) };
    let pair = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    };
    let list = ArrayValue {
        values: vec![any(Value::IntValue(-1)), AnyValue::default()],
    };
    let map = KeyValueList {
        values: vec![pair("inner", Value::BoolValue(true))],
    };
    vec![
        pair("text", Value::StringValue("é".to_owned())),
        pair("bool", Value::BoolValue(true)),
        pair("int", Value::IntValue(i64::MIN)),
        pair("double", Value::DoubleValue(0.5)),
        pair("bytes", Value::BytesValue(vec![0, 0xff])),
        pair("list", Value::ArrayValue(list)),
        pair("map", Value::KvlistValue(map)),
    ]
}
