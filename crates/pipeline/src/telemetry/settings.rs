//! `service::telemetry` as the Collector has it.

use super::identity::ResourceSettings;
use super::push::{MetricPush, Periodic, TraceSettings};
use crate::component::Check;
use crate::config::duration;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `service::telemetry`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TelemetrySettings {
    /// Own logs.
    pub logs: LogSettings,
    /// Own metrics.
    pub metrics: MetricSettings,
    /// Own spans.
    pub traces: TraceSettings,
    /// Attributes of own metrics and spans; null takes a default one away.
    pub resource: ResourceSettings,
}

/// `service::telemetry::logs`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,hyper=warn`.
    pub level: String,
    /// Lines for people or for machines.
    pub encoding: Encoding,
    /// Lines that come again and again.
    pub sampling: SamplingSettings,
}

/// `service::telemetry::logs::sampling`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SamplingSettings {
    /// Left out are equal lines beyond `initial` in a `tick`, but for one in `thereafter`.
    pub enabled: bool,
    /// After this time counting begins anew.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub tick: Duration,
    /// Equal lines that are all written.
    pub initial: u64,
    /// Of those beyond, one in so many is written; 0: none.
    pub thereafter: u64,
}

impl Default for SamplingSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            tick: Duration::from_secs(10),
            initial: 10,
            thereafter: 100,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            encoding: Encoding::Console,
            sampling: SamplingSettings::default(),
        }
    }
}

/// `service::telemetry::logs::encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// For people.
    Console,
    /// One object a line.
    Json,
}

/// `service::telemetry::metrics`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetricSettings {
    /// `none` switches the endpoint off; each of the others shows more than the one before.
    pub level: Level,
    /// Where metrics can be read; left out: `localhost:8888`.
    pub readers: Option<Vec<Reader>>,
}

/// `service::telemetry::metrics::level`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No endpoint.
    None,
    /// What comes in, goes out and is lost.
    Basic,
    /// And what each processor takes and gives.
    #[default]
    Normal,
    /// And histograms, and the kinds of errors.
    Detailed,
}

/// One reader: `pull` or `periodic`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Reader {
    /// Is asked for metrics, in the Prometheus text format.
    pull: Option<Pull>,
    /// Sends metrics over OTLP.
    periodic: Option<Periodic>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
struct Pull {
    exporter: PullExporter,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
struct PullExporter {
    prometheus: Option<Prometheus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
struct Prometheus {
    host: String,
    port: u16,
    // Asked for by configurations of the Collector; names never have suffixes here.
    without_type_suffix: bool,
    without_units: bool,
    without_scope_info: bool,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 8888,
            without_type_suffix: true,
            without_units: true,
            without_scope_info: true,
        }
    }
}

impl TelemetrySettings {
    /// Notes values that cannot work.
    pub(crate) fn check(&self, check: &mut Check<'_>) {
        if let Err(error) = self
            .logs
            .level
            .parse::<tracing_subscriber::filter::Targets>()
        {
            check.error(
                "logs::level",
                format!("{:?} is not a log level: {error}", self.logs.level),
            );
        }
        for (index, reader) in self.metrics.readers.iter().flatten().enumerate() {
            let path = format!("metrics::readers::{index}");
            match (&reader.pull, &reader.periodic) {
                (Some(pull), None) if pull.exporter.prometheus.is_some() => {}
                (None, Some(periodic)) => {
                    periodic.check(&mut check.below(&format!("{path}::periodic")));
                }
                _ => check.error(
                    &path,
                    "must be \"pull: {exporter: {prometheus: {host, port}}}\" or \
                     \"periodic: {exporter: {otlp: {protocol, endpoint}}}\"",
                ),
            }
        }
        self.traces.check(&mut check.below("traces"));
    }
}

impl MetricSettings {
    /// Where metrics are sent to.
    pub(crate) fn pushes(&self) -> Vec<MetricPush> {
        if self.level == Level::None {
            return Vec::new();
        }
        let readers = self.readers.iter().flatten();
        let periodic = readers.filter_map(|reader| reader.periodic.as_ref());
        periodic.filter_map(Periodic::push).collect()
    }

    /// `host:port` of every endpoint that is wanted.
    pub fn endpoints(&self) -> Vec<(String, u16)> {
        if self.level == Level::None {
            return Vec::new();
        }
        let Some(readers) = &self.readers else {
            let default = Prometheus::default();
            return vec![(default.host, default.port)];
        };
        let pulls = readers.iter().filter_map(|reader| reader.pull.as_ref());
        let prometheus = pulls.filter_map(|pull| pull.exporter.prometheus.as_ref());
        prometheus
            .map(|prometheus| (prometheus.host.clone(), prometheus.port))
            .collect()
    }
}
