//! A receiver that makes spans, a processor that holds them, and ways to run a configuration.

pub mod client;
pub mod everything;
pub mod peer;

use pipeline::clock::Monotonic;
use pipeline::component::{Factories, ProcessorFactory, ReceiverFactory};
use pipeline::config::duration;
use pipeline::proto::common::v1::{AnyValue, KeyValue, any_value};
use pipeline::proto::resource::v1::Resource;
use pipeline::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::receiver::spawn_thread;
use pipeline::telemetry::{Metrics, Sample};
use pipeline::{
    Batch, BatchSender, BoxError, Config, ConfigError, Context, Factory, Processor,
    ProcessorSettings, Receiver, ReceiverSettings, Running, Service, Settings, Summary,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub const FEED: ReceiverFactory = Factory::receiver::<Feed>("feed");
pub const HOLD: ProcessorFactory = Factory::processor::<Hold>("hold");

pub const FACTORIES: Factories = Factories {
    receivers: &[FEED, pipeline::receivers::OTLP],
    processors: &[
        HOLD,
        pipeline::processors::ATTRIBUTES,
        pipeline::processors::BATCH,
        pipeline::processors::FILTER,
        pipeline::processors::MEMORY_LIMITER,
        pipeline::processors::PROBABILISTIC_SAMPLER,
        pipeline::processors::REDACTION,
        pipeline::processors::RESOURCE,
        pipeline::processors::TAIL_SAMPLING,
    ],
    exporters: pipeline::exporters::ALL,
    extensions: pipeline::extensions::ALL,
};

/// Sends so many batches at once from a thread, then waits to be stopped.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Feed {
    batches: u64,
    spans: u64,
    fail: bool,
    /// Gives up what is refused instead of waiting.
    impatient: bool,
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pause: Duration,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            batches: 1,
            spans: 1,
            fail: false,
            impatient: false,
            pause: Duration::ZERO,
        }
    }
}

impl Settings for Feed {}

impl ReceiverSettings for Feed {
    fn build(&self, _: Context) -> Result<Box<dyn Receiver>, BoxError> {
        Ok(Box::new(self.clone()))
    }
}

impl Receiver for Feed {
    fn start(
        self: Box<Self>,
        output: BatchSender,
        stop: CancellationToken,
    ) -> Result<Running, BoxError> {
        Ok(spawn_thread("feed", move || {
            for batch in 0..self.batches {
                let batch = batch_of(batch, self.spans);
                if self.impatient {
                    let _ = output.try_send(batch);
                } else {
                    output.blocking_send(batch)?;
                }
                std::thread::sleep(self.pause);
            }
            if self.fail {
                return Err("the source is gone".into());
            }
            while !stop.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        })?)
    }
}

/// A batch of spans with ids that follow from their numbers.
pub fn batch_of(batch: u64, spans: u64) -> Batch {
    let text = |text: &str| {
        Some(AnyValue {
            value: Some(any_value::Value::StringValue(text.to_owned())),
        })
    };
    let span = |number: u64| Span {
        trace_id: u128::from(batch + 1).to_be_bytes().to_vec(),
        span_id: (batch * 1_000_000 + number + 1).to_be_bytes().to_vec(),
        name: format!("GET {number}"),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000 + number,
        end_time_unix_nano: 1_700_000_000_005_000_000 + number,
        ..Span::default()
    };
    let attributes = vec![KeyValue {
        key: "service.name".to_owned(),
        value: text("shop"),
        ..KeyValue::default()
    }];
    let resource = Some(Resource {
        attributes,
        ..Resource::default()
    });
    let scope_spans = vec![ScopeSpans {
        spans: (0..spans).map(span).collect(),
        ..ScopeSpans::default()
    }];
    Batch::new(vec![ResourceSpans {
        resource,
        scope_spans,
        ..ResourceSpans::default()
    }])
}

/// Holds batches back until a tick that comes after `hold`, and lets go of the rest slowly.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Hold {
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    hold: Duration,
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    flush_takes: Duration,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            hold: Duration::from_hours(1),
            flush_takes: Duration::ZERO,
        }
    }
}

impl Settings for Hold {}

impl ProcessorSettings for Hold {
    fn build(&self, _: Context) -> Result<Box<dyn Processor>, BoxError> {
        Ok(Box::new(Holding {
            hold: self.hold,
            flush_takes: self.flush_takes,
            held: Vec::new(),
        }))
    }
}

struct Holding {
    hold: Duration,
    flush_takes: Duration,
    held: Vec<(Monotonic, Batch)>,
}

impl Processor for Holding {
    fn process(&mut self, batch: Batch, now: Monotonic, _: &mut Vec<Batch>) {
        self.held.push((now, batch));
    }

    fn tick_interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(10))
    }

    fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let hold = self.hold;
        out.extend(
            self.held
                .extract_if(.., |(since, _)| now.since(*since) >= hold)
                .map(|(_, batch)| batch),
        );
    }

    fn held_spans(&self) -> usize {
        self.held.iter().map(|(_, batch)| batch.span_count()).sum()
    }

    fn flush(&mut self, _: Monotonic, out: &mut Vec<Batch>) {
        std::thread::sleep(self.flush_takes);
        out.extend(self.held.drain(..).map(|(_, batch)| batch));
    }
}

/// A configuration of one pipeline; the metrics endpoint is off.
pub fn one_pipeline(receiver: &str, processors: &str, exporter: &str, exporter_id: &str) -> String {
    format!(
        "receivers: {{feed: {receiver}}}\n\
         processors: {{hold: {{}}}}\n\
         exporters: {{{exporter_id}: {exporter}}}\n\
         service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    traces: \
         {{receivers: [feed], processors: [{processors}], exporters: [{exporter_id}]}}\n"
    )
}

/// A port that nobody listens on, below those that the kernel gives to whoever asks for any: tests
/// that run beside this one do not get it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn config(yaml: &str) -> Config {
    config_with(yaml, &FACTORIES).unwrap()
}

pub fn config_with(yaml: &str, factories: &Factories) -> Result<Config, ConfigError> {
    Config::parse(&[("test.yaml", yaml)], factories, &|_| None)
}

pub fn service(yaml: &str, metrics: &Metrics) -> Service {
    Service::build(&config(yaml), metrics.clone()).unwrap()
}

/// Runs until `until`, which sees the metrics.
pub async fn run<F: Future<Output = ()>>(yaml: &str, until: impl FnOnce(Metrics) -> F) -> Summary {
    let metrics = Metrics::default();
    service(yaml, &metrics)
        .run(until(metrics.clone()))
        .await
        .unwrap()
}

/// Runs until the metrics fulfil the condition, for 20 s at most.
pub async fn run_until(yaml: &str, condition: impl Fn(&[Sample]) -> bool) -> Summary {
    run(yaml, |metrics| async move {
        wait_for(|| condition(&metrics.samples())).await;
    })
    .await
}

pub async fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("what was waited for did not happen in 20 s");
}

/// The sum of a metric over all labels.
pub fn total(samples: &[Sample], name: &str) -> u64 {
    sum(samples.iter().filter(|sample| sample.name == name))
}

/// Lost spans by reason.
pub fn lost(samples: &[Sample], reason: &str) -> u64 {
    let lost = samples
        .iter()
        .filter(|sample| sample.name == "deeptrace_lost_spans");
    sum(lost.filter(|sample| sample.label("reason") == Some(reason)))
}

/// The sum of a metric over the series that have these labels.
pub fn count(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> u64 {
    let fits = |sample: &&Sample| {
        let mut labels = labels.iter();
        sample.name == name && labels.all(|(key, value)| sample.label(key) == Some(value))
    };
    sum(samples.iter().filter(fits))
}

fn sum<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    samples
        .map(|sample| sample.value.to_string().parse::<u64>().unwrap())
        .sum()
}
