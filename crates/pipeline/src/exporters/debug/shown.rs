//! One span as people see it. Texts come from observed traffic, so control characters are taken out.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use span_model::{CONFIDENCE, METHOD, semconv};
use std::fmt::Write;
use std::time::Duration;

/// Characters of one text that are shown.
const MAX_TEXT_CHARS: usize = 200;

/// The parts of a span that are printed.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownSpan {
    pub trace_id: Vec<u8>,
    pub span_id: Vec<u8>,
    pub parent_span_id: Vec<u8>,
    pub service: String,
    pub name: String,
    pub kind: &'static str,
    pub start_unix_ns: u64,
    pub end_unix_ns: u64,
    /// `unset`, `ok` or `error`.
    pub status: &'static str,
    /// What went wrong, if anything.
    pub reason: String,
    /// How the parent was found and how sure that is; empty if not known.
    pub link: String,
    /// `key=value` of all attributes, for the line form.
    attributes: Vec<KeyValue>,
}

impl ShownSpan {
    /// Every span of a batch.
    pub fn all(resource_spans: &[ResourceSpans]) -> impl Iterator<Item = Self> + '_ {
        resource_spans.iter().flat_map(|resource_spans| {
            let attributes = resource_spans
                .resource
                .as_ref()
                .map_or(&[][..], |resource| &resource.attributes);
            let service =
                text_of(attributes, semconv::SERVICE_NAME).unwrap_or_else(|| "?".to_owned());
            let spans = resource_spans
                .scope_spans
                .iter()
                .flat_map(|scope| &scope.spans);
            spans.map(move |span| Self::new(span, service.clone()))
        })
    }

    fn new(span: &Span, service: String) -> Self {
        let status = span.status.clone().unwrap_or_default();
        let method = text_of(&span.attributes, METHOD);
        let confidence = text_of(&span.attributes, CONFIDENCE);
        let mut reason = text_of(&span.attributes, semconv::ERROR_TYPE).unwrap_or_default();
        if !status.message.is_empty() {
            let gap = if reason.is_empty() { "" } else { " " };
            let _ = write!(reason, "{gap}{}", printable(&status.message));
        }
        Self {
            trace_id: span.trace_id.clone(),
            span_id: span.span_id.clone(),
            parent_span_id: span.parent_span_id.clone(),
            service,
            name: printable(&span.name),
            kind: kind(span.kind),
            start_unix_ns: span.start_time_unix_nano,
            end_unix_ns: span.end_time_unix_nano.max(span.start_time_unix_nano),
            status: match status.code {
                2 => "error",
                1 => "ok",
                _ => "unset",
            },
            reason,
            link: match (method, confidence) {
                (Some(method), Some(confidence)) => format!("{method} {confidence}"),
                (method, confidence) => method.or(confidence).unwrap_or_default(),
            },
            attributes: span.attributes.clone(),
        }
    }

    /// How long it took.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end_unix_ns.saturating_sub(self.start_unix_ns))
    }

    /// The whole span in a line.
    pub fn line(&self) -> String {
        let mut line = format!(
            "  {} {} {:?} trace={} span={} parent={} {} {}",
            self.service,
            self.kind,
            self.name,
            hex(&self.trace_id),
            hex(&self.span_id),
            hex(&self.parent_span_id),
            millis(self.duration()),
            self.status,
        );
        for attribute in &self.attributes {
            let value = attribute.value.as_ref().map(value_text).unwrap_or_default();
            let _ = write!(line, " {}={value}", printable(&attribute.key));
        }
        line.push('\n');
        line
    }
}

fn kind(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "?",
    }
}

fn text_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.as_ref().map(value_text)
}

fn value_text(value: &AnyValue) -> String {
    match &value.value {
        Some(any_value::Value::StringValue(text)) => printable(text),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => format!("{number:.2}"),
        Some(any_value::Value::BytesValue(bytes)) => format!("{} bytes", bytes.len()),
        Some(any_value::Value::ArrayValue(array)) => {
            let values: Vec<String> = array.values.iter().map(value_text).collect();
            format!("[{}]", values.join(", "))
        }
        Some(any_value::Value::KvlistValue(pairs)) => format!("{{{} pairs}}", pairs.values.len()),
        _ => String::new(),
    }
}

/// The text in one line, safe for a terminal.
pub fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_TEXT_CHARS)
        .map(|c| if c.is_control() { '·' } else { c })
        .collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Bytes of an id.
pub fn hex(id: &[u8]) -> String {
    id.iter()
        .fold(String::with_capacity(id.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// `12.3ms`: one unit, so that columns compare.
pub fn millis(duration: Duration) -> String {
    format!("{:.2}ms", duration.as_secs_f64() * 1e3)
}
