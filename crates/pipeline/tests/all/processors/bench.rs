//! A processor on the bench: built from YAML, fed with spans, looked at in lines of text.

use crate::support::FACTORIES;
use pipeline::clock::Monotonic;
use pipeline::config::ComponentId;
use pipeline::proto::common::v1::any_value::Value;
use pipeline::proto::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use pipeline::proto::resource::v1::Resource;
use pipeline::proto::trace::v1::{ResourceSpans, ScopeSpans, Span};
use pipeline::telemetry::Metrics;
use pipeline::{Batch, Config, Context, Processor};

/// A processor and its clock.
pub struct Bench {
    processor: Box<dyn Processor>,
    metrics: Metrics,
    /// ms.
    now: u64,
}

impl Bench {
    /// The settings are lines of YAML.
    pub fn new(kind: &str, settings: &str) -> Self {
        let yaml = yaml(kind, settings);
        let config = Config::parse(&[("test.yaml", &yaml)], &FACTORIES, &|_| None);
        let config = config.unwrap_or_else(|error| panic!("{yaml}\n{error}"));
        let id = ComponentId::parse(kind).unwrap();
        let metrics = Metrics::default();
        let context = Context {
            id: id.clone(),
            metrics: metrics.clone(),
            extensions: pipeline::Extensions::default(),
        };
        Self {
            processor: config.processors[&id].build(context).unwrap(),
            metrics,
            now: 1_000,
        }
    }

    /// What comes out at once.
    pub fn process(&mut self, batch: Batch) -> Vec<Batch> {
        let mut out = Vec::new();
        let now = Monotonic::from_millis(self.now);
        self.processor.process(batch, now, &mut out);
        out
    }

    /// What comes out when so many ms have gone by.
    pub fn wait(&mut self, millis: u64) -> Vec<Batch> {
        self.now += millis;
        let mut out = Vec::new();
        let now = Monotonic::from_millis(self.now);
        self.processor.tick(now, &mut out);
        out
    }

    /// What comes out at the stop.
    pub fn flush(&mut self) -> Vec<Batch> {
        let mut out = Vec::new();
        let now = Monotonic::from_millis(self.now);
        self.processor.flush(now, &mut out);
        out
    }

    /// Lines of what comes out at once.
    pub fn lines(&mut self, batch: Batch) -> Vec<String> {
        self.process(batch).iter().flat_map(lines).collect()
    }

    /// Samples of a metric: `labels value`, without the processor's id.
    pub fn counts(&self, name: &str) -> Vec<String> {
        let samples = self.metrics.samples().into_iter();
        let named = samples.filter(|sample| sample.name == name && sample.value != 0.0);
        named
            .map(|sample| {
                let labels = sample.labels.iter().filter(|(key, _)| key != "processor");
                let labels = labels.map(|(key, value)| format!("{key}={value} "));
                format!("{}{}", labels.collect::<String>(), sample.value)
            })
            .collect()
    }
}

/// What is wrong with the settings: `key: message`.
pub fn findings(kind: &str, settings: &str) -> Vec<String> {
    let yaml = yaml(kind, settings);
    let config = Config::parse(&[("test.yaml", &yaml)], &FACTORIES, &|_| None);
    let said = match &config {
        Ok(config) => &config.warnings,
        Err(error) => &error.findings,
    };
    let prefix = format!("processors::{kind}");
    let said = said.iter().map(|finding| {
        let path = finding.path.strip_prefix(&prefix).unwrap();
        format!("{}: {}", path.trim_start_matches("::"), finding.message)
    });
    said.collect()
}

fn yaml(kind: &str, settings: &str) -> String {
    let settings = settings.replace('\n', "\n    ");
    format!(
        "receivers: {{feed: }}\nexporters: {{debug: }}\nprocessors:\n  {kind}:\n    {settings}\n\
         service: {{pipelines: {{traces: {{receivers: [feed], processors: [{kind}], exporters: [debug]}}}}}}\n"
    )
}

/// A value of an attribute.
pub struct V(pub Value);

impl From<&str> for V {
    fn from(text: &str) -> Self {
        Self(Value::StringValue(text.to_owned()))
    }
}

impl From<i64> for V {
    fn from(number: i64) -> Self {
        Self(Value::IntValue(number))
    }
}

impl From<f64> for V {
    fn from(number: f64) -> Self {
        Self(Value::DoubleValue(number))
    }
}

impl From<bool> for V {
    fn from(truth: bool) -> Self {
        Self(Value::BoolValue(truth))
    }
}

impl From<&[&str]> for V {
    fn from(texts: &[&str]) -> Self {
        let values = texts.iter().map(|text| AnyValue {
            value: Some(Self::from(*text).0),
        });
        Self(Value::ArrayValue(ArrayValue {
            values: values.collect(),
        }))
    }
}

pub fn attribute(key: &str, value: impl Into<V>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(value.into().0),
        }),
        ..KeyValue::default()
    }
}

/// A root span of 5 ms and of kind SERVER.
pub fn span(name: &str) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: name.to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_005_000_000,
        ..Span::default()
    }
}

pub trait Build {
    fn with(self, key: &str, value: impl Into<V>) -> Self;
    fn of_trace(self, trace: u64) -> Self;
}

impl Build for Span {
    fn with(mut self, key: &str, value: impl Into<V>) -> Self {
        self.attributes.push(attribute(key, value));
        self
    }

    fn of_trace(mut self, trace: u64) -> Self {
        self.trace_id = u128::from(trace).to_be_bytes().to_vec();
        self
    }
}

/// Spans of the service `shop`.
pub fn batch(spans: Vec<Span>) -> Batch {
    batch_with(vec![attribute("service.name", "shop")], spans)
}

pub fn batch_with(resource: Vec<KeyValue>, spans: Vec<Span>) -> Batch {
    let resource = Resource {
        attributes: resource,
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "deeptrace".to_owned(),
        version: "1.2".to_owned(),
        ..InstrumentationScope::default()
    };
    Batch::new(vec![ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope),
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }])
}

/// A line a span: its name and attributes.
pub fn lines(batch: &Batch) -> Vec<String> {
    spans(batch)
        .iter()
        .map(|span| {
            let attributes = span.attributes.iter();
            let attributes = attributes.map(|attribute| format!(" {}", shown(attribute)));
            format!("{}{}", span.name, attributes.collect::<String>())
        })
        .collect()
}

/// `key=value`; text is quoted where it may be taken for something else.
pub fn shown(attribute: &KeyValue) -> String {
    let value = attribute
        .value
        .as_ref()
        .and_then(|value| value.value.as_ref());
    let value = match value {
        Some(Value::StringValue(text)) if text.parse::<f64>().is_ok() || text.is_empty() => {
            format!("{text:?}")
        }
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => format!("{number:?}"),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => format!("{other:?}"),
    };
    format!("{}={value}", attribute.key)
}

pub fn spans(batch: &Batch) -> Vec<Span> {
    let resources = batch.resource_spans().into_owned().into_iter();
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}
