//! OTLP/JSON of spans (specification 2.6): ids in lower-case hex, enums as numbers,
//! 64-bit numbers as texts, and nothing that is unset.
//!
//! By hand, since the serde form of `opentelemetry-proto` writes every unset field,
//! `null`s, and NaN as `null`.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, EntityRef, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use std::io::Write;

/// One `ExportTraceServiceRequest` as an object, without a line end.
pub fn encode(resource_spans: &[ResourceSpans]) -> Vec<u8> {
    let mut json = Json::default();
    json.object(|json| json.list("resourceSpans", resource_spans, write_resource_spans));
    json.out
}

fn write_resource_spans(json: &mut Json, spans: &ResourceSpans) {
    if let Some(resource) = &spans.resource {
        json.key("resource");
        json.object(|json| {
            json.list("attributes", &resource.attributes, write_attribute);
            json.number(
                "droppedAttributesCount",
                resource.dropped_attributes_count.into(),
            );
            json.list("entityRefs", &resource.entity_refs, write_entity_ref);
        });
    }
    json.list("scopeSpans", &spans.scope_spans, write_scope_spans);
    json.text("schemaUrl", &spans.schema_url);
}

fn write_entity_ref(json: &mut Json, entity: &EntityRef) {
    json.text("schemaUrl", &entity.schema_url);
    json.text("type", &entity.r#type);
    json.texts("idKeys", &entity.id_keys);
    json.texts("descriptionKeys", &entity.description_keys);
}

fn write_scope_spans(json: &mut Json, spans: &ScopeSpans) {
    if let Some(scope) = &spans.scope {
        json.key("scope");
        json.object(|json| write_scope(json, scope));
    }
    json.list("spans", &spans.spans, write_span);
    json.text("schemaUrl", &spans.schema_url);
}

fn write_scope(json: &mut Json, scope: &InstrumentationScope) {
    json.text("name", &scope.name);
    json.text("version", &scope.version);
    json.list("attributes", &scope.attributes, write_attribute);
    json.number(
        "droppedAttributesCount",
        scope.dropped_attributes_count.into(),
    );
}

fn write_span(json: &mut Json, span: &Span) {
    json.hex("traceId", &span.trace_id);
    json.hex("spanId", &span.span_id);
    json.text("traceState", &span.trace_state);
    json.hex("parentSpanId", &span.parent_span_id);
    json.number("flags", span.flags.into());
    json.text("name", &span.name);
    json.number("kind", span.kind.into());
    json.long("startTimeUnixNano", span.start_time_unix_nano);
    json.long("endTimeUnixNano", span.end_time_unix_nano);
    json.list("attributes", &span.attributes, write_attribute);
    json.number(
        "droppedAttributesCount",
        span.dropped_attributes_count.into(),
    );
    json.list("events", &span.events, write_event);
    json.number("droppedEventsCount", span.dropped_events_count.into());
    json.list("links", &span.links, write_link);
    json.number("droppedLinksCount", span.dropped_links_count.into());
    if let Some(status) = &span.status {
        json.key("status");
        json.object(|json| write_status(json, status));
    }
}

fn write_status(json: &mut Json, status: &Status) {
    json.text("message", &status.message);
    json.number("code", status.code.into());
}

fn write_event(json: &mut Json, event: &Event) {
    json.long("timeUnixNano", event.time_unix_nano);
    json.text("name", &event.name);
    json.list("attributes", &event.attributes, write_attribute);
    json.number(
        "droppedAttributesCount",
        event.dropped_attributes_count.into(),
    );
}

fn write_link(json: &mut Json, link: &Link) {
    json.hex("traceId", &link.trace_id);
    json.hex("spanId", &link.span_id);
    json.text("traceState", &link.trace_state);
    json.list("attributes", &link.attributes, write_attribute);
    json.number(
        "droppedAttributesCount",
        link.dropped_attributes_count.into(),
    );
    json.number("flags", link.flags.into());
}

fn write_attribute(json: &mut Json, attribute: &KeyValue) {
    json.text("key", &attribute.key);
    if let Some(value) = &attribute.value {
        json.key("value");
        json.object(|json| write_value(json, value));
    }
}

/// Depth is bounded by what protobuf decoding lets in (100 levels).
fn write_value(json: &mut Json, value: &AnyValue) {
    match &value.value {
        Some(any_value::Value::StringValue(text)) => {
            json.key("stringValue");
            json.string(text);
        }
        Some(any_value::Value::BoolValue(truth)) => {
            json.key("boolValue");
            json.raw(if *truth { "true" } else { "false" });
        }
        Some(any_value::Value::IntValue(number)) => {
            json.key("intValue");
            json.raw(&format!("\"{number}\""));
        }
        Some(any_value::Value::DoubleValue(number)) => {
            json.key("doubleValue");
            json.double(*number);
        }
        Some(any_value::Value::BytesValue(bytes)) => {
            json.key("bytesValue");
            json.string(&base64(bytes));
        }
        Some(any_value::Value::ArrayValue(array)) => {
            json.key("arrayValue");
            json.object(|json| json.list("values", &array.values, write_value));
        }
        Some(any_value::Value::KvlistValue(pairs)) => {
            json.key("kvlistValue");
            json.object(|json| json.list("values", &pairs.values, write_attribute));
        }
        _ => {}
    }
}

/// Writes objects; fields that are unset (empty or 0) are left out.
#[derive(Default)]
struct Json {
    out: Vec<u8>,
    needs_comma: bool,
}

impl Json {
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.needs_comma = true;
    }

    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.out.push(b'{');
        self.needs_comma = false;
        fields(self);
        self.raw("}");
    }

    fn key(&mut self, name: &str) {
        if self.needs_comma {
            self.out.push(b',');
        }
        // Names are ours and need no escapes.
        self.raw("\"");
        self.raw(name);
        self.raw("\":");
    }

    fn string(&mut self, text: &str) {
        // Writing to memory does not fail, nor does a text as JSON.
        let _ = serde_json::to_writer(&mut self.out, text);
        self.needs_comma = true;
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.key(name);
            self.string(text);
        }
    }

    fn number(&mut self, name: &str, number: i64) {
        if number != 0 {
            self.key(name);
            let _ = write!(self.out, "{number}");
        }
    }

    fn long(&mut self, name: &str, number: u64) {
        if number != 0 {
            self.key(name);
            let _ = write!(self.out, "\"{number}\"");
        }
    }

    fn hex(&mut self, name: &str, id: &[u8]) {
        if !id.is_empty() {
            self.key(name);
            self.out.push(b'"');
            for byte in id {
                let _ = write!(self.out, "{byte:02x}");
            }
            self.raw("\"");
        }
    }

    /// The protobuf JSON form, which has words for what JSON has no numbers for.
    fn double(&mut self, number: f64) {
        match number {
            _ if number.is_nan() => self.string("NaN"),
            f64::INFINITY => self.string("Infinity"),
            f64::NEG_INFINITY => self.string("-Infinity"),
            _ => {
                let _ = serde_json::to_writer(&mut self.out, &number);
                self.needs_comma = true;
            }
        }
    }

    fn texts(&mut self, name: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.key(name);
            // As in `string`.
            let _ = serde_json::to_writer(&mut self.out, texts);
        }
    }

    fn list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&mut Self, &T)) {
        if items.is_empty() {
            return;
        }
        self.key(name);
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.object(|json| write(json, item));
        }
        self.raw("]");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        for (slot, byte) in word.iter_mut().skip(1).zip(chunk) {
            *slot = *byte;
        }
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            let letter = DIGITS.get(index as usize).copied().unwrap_or(b'=');
            text.push(if digit <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
    use opentelemetry_proto::tonic::resource::v1::Resource;

    fn any(value: any_value::Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn attribute(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(any(value)),
            ..KeyValue::default()
        }
    }

    fn everything() -> ResourceSpans {
        use any_value::Value;
        let attributes = vec![
            attribute("text", Value::StringValue("a \"b\"\n\u{1}é".to_owned())),
            attribute("int", Value::IntValue(i64::MIN)),
            attribute("double", Value::DoubleValue(0.5)),
            attribute("bool", Value::BoolValue(false)),
            attribute("bytes", Value::BytesValue(vec![0xfb, 0xff])),
            attribute(
                "list",
                Value::ArrayValue(ArrayValue {
                    values: vec![any(Value::IntValue(1)), AnyValue { value: None }],
                }),
            ),
            attribute(
                "map",
                Value::KvlistValue(KeyValueList {
                    values: vec![attribute("k", Value::BoolValue(true))],
                }),
            ),
        ];
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![0xcd; 8],
            trace_state: "a=b".to_owned(),
            parent_span_id: vec![0x0f; 8],
            flags: 0x101,
            name: "GET".to_owned(),
            kind: 3,
            start_time_unix_nano: u64::MAX,
            end_time_unix_nano: 1,
            attributes,
            dropped_attributes_count: 2,
            events: vec![Event {
                time_unix_nano: 5,
                name: "e".to_owned(),
                ..Event::default()
            }],
            links: vec![Link {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                ..Link::default()
            }],
            status: Some(Status {
                code: 2,
                message: "m".to_owned(),
            }),
            ..Span::default()
        };
        let scope = InstrumentationScope {
            name: "deeptrace".to_owned(),
            version: "1".to_owned(),
            ..InstrumentationScope::default()
        };
        ResourceSpans {
            resource: Some(Resource::default()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: vec![span, Span::default()],
                schema_url: "s".to_owned(),
            }],
            schema_url: String::new(),
        }
    }

    #[test]
    fn the_form_is_that_of_the_specification() {
        let json = String::from_utf8(encode(&[everything()])).unwrap();
        let expected = concat!(
            r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"#,
            r#""scope":{"name":"deeptrace","version":"1"},"spans":[{"#,
            r#""traceId":"abababababababababababababababab","spanId":"cdcdcdcdcdcdcdcd","#,
            r#""traceState":"a=b","parentSpanId":"0f0f0f0f0f0f0f0f","flags":257,"name":"GET","kind":3,"#,
            r#""startTimeUnixNano":"18446744073709551615","endTimeUnixNano":"1","attributes":["#,
            r#"{"key":"text","value":{"stringValue":"a \"b\"\n\u0001é"}},"#,
            r#"{"key":"int","value":{"intValue":"-9223372036854775808"}},"#,
            r#"{"key":"double","value":{"doubleValue":0.5}},"#,
            r#"{"key":"bool","value":{"boolValue":false}},"#,
            r#"{"key":"bytes","value":{"bytesValue":"+/8="}},"#,
            r#"{"key":"list","value":{"arrayValue":{"values":[{"intValue":"1"},{}]}}},"#,
            r#"{"key":"map","value":{"kvlistValue":{"values":[{"key":"k","value":{"boolValue":true}}]}}}],"#,
            r#""droppedAttributesCount":2,"events":[{"timeUnixNano":"5","name":"e"}],"#,
            r#""links":[{"traceId":"01010101010101010101010101010101","spanId":"0202020202020202"}],"#,
            r#""status":{"message":"m","code":2}},{}],"schemaUrl":"s"}]}]}"#,
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn another_reader_gets_back_what_was_written() {
        let written = vec![everything()];
        let read: ExportTraceServiceRequest = serde_json::from_slice(&encode(&written)).unwrap();
        assert_eq!(read.resource_spans, written);
        assert_eq!(encode(&[]), b"{}");
    }

    #[test]
    fn what_json_has_no_numbers_for_is_written_in_words() {
        for (number, expected) in [
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
            (1e300, "1e+300"),
            (2.0, "2.0"),
        ] {
            let mut json = Json::default();
            json.double(number);
            assert_eq!(String::from_utf8(json.out).unwrap(), expected);
        }
    }

    #[test]
    fn base64_pads() {
        let cases: [(&[u8], &str); 5] = [
            (b"", ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
        ];
        for (bytes, expected) in cases {
            assert_eq!(base64(bytes), expected);
        }
    }
}
