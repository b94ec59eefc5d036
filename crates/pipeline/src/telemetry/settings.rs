//! `service::telemetry` as the Collector has it.

use crate::component::Check;
use schemars::JsonSchema;
use serde::Deserialize;

/// `service::telemetry`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TelemetrySettings {
    /// Own logs.
    pub logs: LogSettings,
    /// Own metrics.
    pub metrics: MetricSettings,
}

/// `service::telemetry::logs`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,hyper=warn`.
    pub level: String,
    /// Lines for people or for machines.
    pub encoding: Encoding,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            encoding: Encoding::Console,
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
    /// `none` switches the endpoint off; the others mean the same today.
    pub level: Level,
    /// Where metrics can be read; left out: `localhost:8888`.
    pub readers: Option<Vec<Reader>>,
}

/// `service::telemetry::metrics::level`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No endpoint.
    None,
    /// Accepted for the Collector's sake.
    Basic,
    /// The default.
    #[default]
    Normal,
    /// Accepted for the Collector's sake.
    Detailed,
}

/// One reader; only Prometheus pull exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Reader {
    pull: Option<Pull>,
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
            if reader
                .pull
                .as_ref()
                .is_none_or(|pull| pull.exporter.prometheus.is_none())
            {
                check.error(
                    &format!("metrics::readers::{index}"),
                    "only \"pull: {exporter: {prometheus: {host, port}}}\" is supported",
                );
            }
        }
    }
}

impl MetricSettings {
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
