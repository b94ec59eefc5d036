//! Where own telemetry goes, named as in OpenTelemetry's declarative configuration, which the
//! Collector takes over.

use crate::component::Check;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// `otlp` below an `exporter`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpSettings {
    /// `http/protobuf` or `grpc`.
    protocol: Protocol,
    /// `http://host:port`; over HTTP without a path `/v1/metrics` or `/v1/traces` is appended.
    endpoint: String,
    /// Sent with every request.
    headers: Vec<HeaderSettings>,
    /// Milliseconds that a request may take.
    timeout: u64,
}

/// One header.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeaderSettings {
    /// Its name.
    name: String,
    /// Its value, never shown.
    value: String,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            endpoint: String::new(),
            headers: Vec::new(),
            timeout: 10_000,
        }
    }
}

/// Without the values of headers.
impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OtlpSettings");
        shown.field("protocol", &self.protocol);
        shown.field("endpoint", &self.endpoint);
        shown.finish_non_exhaustive()
    }
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Protocol {
    /// HTTP with protobuf bodies.
    #[default]
    #[serde(rename = "http/protobuf")]
    Http,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// `exporter` below `periodic` or `batch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PushExporter {
    /// Over OTLP, the only one there is.
    otlp: Option<OtlpSettings>,
}

/// `metrics::readers::N::periodic`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Periodic {
    /// Milliseconds between two reports.
    interval: u64,
    /// Where they go.
    exporter: PushExporter,
}

impl Default for Periodic {
    fn default() -> Self {
        Self {
            interval: 60_000,
            exporter: PushExporter::default(),
        }
    }
}

/// `service::telemetry::traces`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TraceSettings {
    /// Where own spans go; left out: there are none.
    processors: Vec<SpanProcessor>,
}

/// `traces::processors::N`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpanProcessor {
    /// Sends many at a time, the only one there is.
    batch: Option<SpanBatch>,
}

/// `traces::processors::N::batch`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpanBatch {
    /// Milliseconds that spans wait for more.
    schedule_delay: u64,
    /// Spans that may wait; more are dropped.
    max_queue_size: usize,
    /// Spans of a request at most.
    max_export_batch_size: usize,
    /// Where they go.
    exporter: PushExporter,
}

impl Default for SpanBatch {
    fn default() -> Self {
        Self {
            schedule_delay: 5_000,
            max_queue_size: 2_048,
            max_export_batch_size: 512,
            exporter: PushExporter::default(),
        }
    }
}

/// Where to send, ready to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpTarget {
    /// How.
    pub protocol: Protocol,
    /// As configured.
    pub endpoint: String,
    /// Of one request.
    pub timeout: Duration,
    settings: OtlpSettings,
}

impl OtlpTarget {
    /// Over HTTP: the endpoint, with the path of the signal if it has none.
    pub fn url(&self, path: &str) -> String {
        let base = self.endpoint.trim_end_matches('/');
        let authority = base.split_once("://").map_or(base, |(_, rest)| rest);
        if authority.contains('/') {
            self.endpoint.clone()
        } else {
            format!("{base}{path}")
        }
    }

    /// Names and values.
    pub fn headers(&self) -> impl Iterator<Item = (String, String)> {
        let headers = self.settings.headers.iter();
        headers.map(|header| (header.name.clone(), header.value.clone()))
    }
}

impl PushExporter {
    fn target(&self) -> Option<OtlpTarget> {
        let settings = self.otlp.clone()?;
        Some(OtlpTarget {
            protocol: settings.protocol,
            endpoint: settings.endpoint.clone(),
            timeout: Duration::from_millis(settings.timeout),
            settings,
        })
    }

    fn check(&self, check: &mut Check<'_>) {
        let Some(otlp) = &self.otlp else {
            return check.error("exporter", "\"otlp: {protocol, endpoint}\" is needed");
        };
        let mut check = check.below("exporter::otlp");
        let endpoint = otlp.endpoint.parse::<hyper::Uri>();
        let plain = endpoint.is_ok_and(|uri| uri.scheme_str() == Some("http"));
        if !plain {
            check.error(
                "endpoint",
                "must be http://host:port; TLS is not built in here",
            );
        }
        if otlp.timeout == 0 {
            check.error("timeout", "must be above 0 milliseconds");
        }
        for (index, header) in otlp.headers.iter().enumerate() {
            let name = hyper::header::HeaderName::from_bytes(header.name.as_bytes());
            let value = hyper::header::HeaderValue::from_str(&header.value);
            if name.is_err() || value.is_err() {
                check.error(&format!("headers::{index}"), "is no header");
            }
        }
    }
}

/// Metrics and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricPush {
    /// Between two reports.
    pub interval: Duration,
    /// Where to.
    pub target: OtlpTarget,
}

impl Periodic {
    pub(crate) fn push(&self) -> Option<MetricPush> {
        Some(MetricPush {
            interval: Duration::from_millis(self.interval),
            target: self.exporter.target()?,
        })
    }

    pub(crate) fn check(&self, check: &mut Check<'_>) {
        if self.interval == 0 {
            check.error("interval", "must be above 0 milliseconds");
        }
        self.exporter.check(check);
    }
}

/// Spans and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanPush {
    /// How long spans wait for more.
    pub schedule_delay: Duration,
    /// Spans that may wait.
    pub max_queue_size: usize,
    /// Spans of a request at most.
    pub max_export_batch_size: usize,
    /// Where to.
    pub target: OtlpTarget,
}

impl TraceSettings {
    pub(crate) fn pushes(&self) -> Vec<SpanPush> {
        let batches = self.processors.iter().filter_map(|one| one.batch.as_ref());
        let push = |batch: &SpanBatch| {
            Some(SpanPush {
                schedule_delay: Duration::from_millis(batch.schedule_delay),
                max_queue_size: batch.max_queue_size,
                max_export_batch_size: batch.max_export_batch_size,
                target: batch.exporter.target()?,
            })
        };
        batches.filter_map(push).collect()
    }

    pub(crate) fn check(&self, check: &mut Check<'_>) {
        for (index, processor) in self.processors.iter().enumerate() {
            let path = format!("processors::{index}");
            let Some(batch) = &processor.batch else {
                check.error(&path, "only \"batch: {exporter: {otlp: …}}\" is supported");
                continue;
            };
            let mut check = check.below(&format!("{path}::batch"));
            if batch.max_queue_size == 0 {
                check.error("max_queue_size", "must be above 0");
            }
            if !(1..=batch.max_queue_size).contains(&batch.max_export_batch_size) {
                let message = "must be from 1 to max_queue_size";
                check.error("max_export_batch_size", message);
            }
            batch.exporter.check(&mut check);
        }
    }
}
