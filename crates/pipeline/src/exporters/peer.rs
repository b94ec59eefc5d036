//! What the OTLP exporters share: compression and headers of a backend, and what its answers mean.

use crate::component::Check;
use crate::queue::Accepted;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Bytes that an answer may have (OTLP specification, 4 MiB).
pub const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// `User-Agent` as the OTLP exporter specification asks for, with our product first.
pub const USER_AGENT: &str = concat!(
    "deeptrace/",
    env!("CARGO_PKG_VERSION"),
    " OTel-OTLP-Exporter-Rust/",
    env!("CARGO_PKG_VERSION")
);
/// Characters of a peer's message that go to the log.
const MAX_MESSAGE_CHARS: usize = 300;

/// `compression`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The default.
    #[default]
    Gzip,
    /// Less work than gzip for about the same size; not every backend takes it.
    Zstd,
    /// As it is.
    None,
}

/// A header value; never shown, since it may be a password.
#[derive(Clone, Deserialize)]
pub struct Secret(pub String);

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "writeOnly": true})
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

/// `headers`
pub type Headers = BTreeMap<String, Secret>;

/// Notes headers that cannot be sent.
pub fn check_headers(headers: &Headers, check: &mut Check<'_>) {
    for (name, value) in headers {
        let path = format!("headers::{name}");
        if hyper::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            check.error(&path, "is not the name of a header");
        }
        if hyper::header::HeaderValue::from_str(&value.0).is_err() {
            check.error(&path, "has a value that no header can have");
        }
    }
}

/// Notes a timeout that cannot work.
pub fn check_timeout(timeout: Duration, check: &mut Check<'_>) {
    if timeout.is_zero() {
        check.error("timeout", "must be above 0");
    }
}

/// What the backend took.
pub fn accepted(response: ExportTraceServiceResponse) -> Accepted {
    let partial = response.partial_success.unwrap_or_default();
    Accepted {
        rejected_spans: u64::try_from(partial.rejected_spans).unwrap_or(0),
        message: printable(&partial.error_message),
    }
}

/// A peer's text for the log: short, and without control characters.
pub fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_MESSAGE_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(MAX_MESSAGE_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// An error with its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}

/// `google.rpc.Status`, which carries a backend's reasons.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For programs.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<AnyMessage>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyMessage {
    /// Which type follows.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, prost::Message)]
pub struct RetryInfo {
    /// Wait at least this long.
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ProtoDuration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// The rest.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl RpcStatus {
    /// How long the backend asks to wait, if it says so.
    pub fn retry_delay(&self) -> Option<Duration> {
        let info = self
            .details
            .iter()
            .find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let info: RetryInfo = prost::Message::decode(info.value.as_slice()).ok()?;
        let delay = info.retry_delay.unwrap_or_default();
        let seconds = u64::try_from(delay.seconds).unwrap_or(0);
        let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
        Some(Duration::new(seconds, nanos))
    }
}
