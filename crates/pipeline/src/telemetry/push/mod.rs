//! Own metrics and spans sent over OTLP, by the SDK: away from the pipelines, so that telling
//! of spans makes no spans.

mod http;
mod settings;

pub use settings::{MetricPush, Periodic, TraceSettings};
use settings::{OtlpTarget, Protocol, SpanPush};

use super::metrics::{Kind, Metrics};
use super::settings::TelemetrySettings;
use crate::component::BoxError;
use http::Http;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider as _};
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};

/// Longest and shortest time between two looks for metrics that are new.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
const SCOPE: &str = "deeptrace";

/// What is configured to be sent, and as whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    metrics: Vec<MetricPush>,
    spans: Vec<SpanPush>,
    attributes: BTreeMap<String, String>,
}

impl Wanted {
    /// Of this configuration.
    pub fn new(settings: &TelemetrySettings, attributes: BTreeMap<String, String>) -> Self {
        let (metrics, spans) = (settings.metrics.pushes(), settings.traces.pushes());
        if metrics.is_empty() && spans.is_empty() {
            return Self::default();
        }
        Self {
            metrics,
            spans,
            attributes,
        }
    }
}

/// Sends until it is stopped.
#[derive(Default)]
pub(crate) struct Push {
    wanted: Wanted,
    meters: Option<SdkMeterProvider>,
    tracers: Option<SdkTracerProvider>,
    look: Option<JoinHandle<()>>,
}

impl Push {
    /// Whether it sends what is wanted.
    pub fn is(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted
    }

    /// Begins to send; needs the runtime. A destination that is not there is no error.
    pub fn start(wanted: Wanted, metrics: &Metrics) -> Result<Self, BoxError> {
        let attributes = wanted.attributes.iter();
        let attributes = attributes.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource::builder_empty()
            .with_attributes(attributes)
            .build();
        let mut push = Self::default();
        if !wanted.metrics.is_empty() {
            let mut builder = SdkMeterProvider::builder().with_resource(resource.clone());
            for metric_push in &wanted.metrics {
                let reader = PeriodicReader::builder(metric_exporter(&metric_push.target)?)
                    .with_interval(metric_push.interval)
                    .build();
                builder = builder.with_reader(reader);
            }
            let provider = builder.build();
            let intervals = wanted.metrics.iter().map(|push| push.interval / 2);
            let interval = intervals.min().unwrap_or(LONGEST_LOOK);
            let interval = interval.clamp(SHORTEST_LOOK, LONGEST_LOOK);
            let mirror = mirror(provider.meter(SCOPE), metrics.clone(), interval);
            push.look = Some(tokio::spawn(mirror));
            push.meters = Some(provider);
        }
        if !wanted.spans.is_empty() {
            let mut builder = SdkTracerProvider::builder().with_resource(resource);
            for span_push in &wanted.spans {
                let config = BatchConfigBuilder::default()
                    .with_scheduled_delay(span_push.schedule_delay)
                    .with_max_queue_size(span_push.max_queue_size)
                    .with_max_export_batch_size(span_push.max_export_batch_size)
                    .build();
                let processor = BatchSpanProcessor::builder(span_exporter(&span_push.target)?)
                    .with_batch_config(config)
                    .build();
                builder = builder.with_span_processor(processor);
            }
            push.tracers = Some(builder.build());
        }
        push.wanted = wanted;
        Ok(push)
    }

    /// Makes it the one that own spans go to.
    pub fn install(&self) {
        match &self.tracers {
            Some(tracers) => {
                global::set_tracer_provider(tracers.clone());
            }
            None => {
                global::set_tracer_provider(opentelemetry::trace::noop::NoopTracerProvider::new());
            }
        }
    }

    /// Sends what it has, for so long at most.
    pub async fn stop(self, timeout: Duration) {
        if let Some(look) = self.look {
            look.abort();
        }
        // The SDK waits on its own threads, so this must not be a thread of the runtime.
        let stopped = tokio::task::spawn_blocking(move || {
            let metrics = self
                .meters
                .map(|meters| meters.shutdown_with_timeout(timeout));
            let spans = self
                .tracers
                .map(|tracers| tracers.shutdown_with_timeout(timeout));
            for error in [metrics, spans]
                .into_iter()
                .flatten()
                .filter_map(Result::err)
            {
                tracing::warn!(%error, "own telemetry was not all sent");
            }
        });
        // A panic of the SDK must not hold up the stop.
        let _ = tokio::time::timeout(timeout, stopped).await;
    }
}

fn metric_exporter(target: &OtlpTarget) -> Result<MetricExporter, BoxError> {
    Ok(match target.protocol {
        Protocol::Grpc => MetricExporter::builder()
            .with_tonic()
            .with_endpoint(&target.endpoint)
            .with_timeout(target.timeout)
            .with_metadata(metadata(target)?)
            .build()?,
        Protocol::Http => MetricExporter::builder()
            .with_http()
            .with_http_client(Http::new(target.timeout))
            .with_endpoint(target.url("/v1/metrics"))
            .with_timeout(target.timeout)
            .with_headers(target.headers().collect())
            .build()?,
    })
}

fn span_exporter(target: &OtlpTarget) -> Result<SpanExporter, BoxError> {
    Ok(match target.protocol {
        Protocol::Grpc => SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&target.endpoint)
            .with_timeout(target.timeout)
            .with_metadata(metadata(target)?)
            .build()?,
        Protocol::Http => SpanExporter::builder()
            .with_http()
            .with_http_client(Http::new(target.timeout))
            .with_endpoint(target.url("/v1/traces"))
            .with_timeout(target.timeout)
            .with_headers(target.headers().collect())
            .build()?,
    })
}

fn metadata(target: &OtlpTarget) -> Result<MetadataMap, BoxError> {
    let mut metadata = MetadataMap::new();
    for (name, value) in target.headers() {
        let name: AsciiMetadataKey = name.to_ascii_lowercase().parse()?;
        metadata.insert(name, value.parse()?);
    }
    Ok(metadata)
}

/// Makes an instrument of every metric, as they come up. Of histograms only sum and count are
/// sent: the SDK can observe no others from outside.
async fn mirror(meter: Meter, metrics: Metrics, interval: Duration) {
    let mut known = BTreeSet::new();
    loop {
        for metric in metrics.all() {
            let names: BTreeSet<String> = metric
                .samples
                .into_iter()
                .map(|sample| sample.name)
                .filter(|name| metric.kind != Kind::Histogram || !name.ends_with("_bucket"))
                .collect();
            for name in names {
                if known.insert(name.clone()) {
                    observe(
                        &meter,
                        &metrics,
                        &metric.name,
                        name,
                        &metric.help,
                        metric.kind,
                    );
                }
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// `sample` is the name of the metric, or of a part of a histogram.
fn observe(meter: &Meter, metrics: &Metrics, family: &str, sample: String, help: &str, kind: Kind) {
    let (metrics, family, name) = (metrics.clone(), family.to_owned(), sample.clone());
    let read = move |observer: &dyn AsyncInstrument<f64>| {
        let samples = metrics.of(&family).into_iter();
        for sample in samples.filter(|one| one.name == name) {
            let attributes = sample.labels.into_iter();
            let attributes: Vec<_> = attributes
                .map(|(key, value)| KeyValue::new(key, value))
                .collect();
            observer.observe(sample.value, &attributes);
        }
    };
    let help = help.to_owned();
    if kind == Kind::Gauge {
        let gauge = meter.f64_observable_gauge(sample).with_description(help);
        gauge.with_callback(read).build();
    } else {
        let counter = meter.f64_observable_counter(sample).with_description(help);
        counter.with_callback(read).build();
    }
}
