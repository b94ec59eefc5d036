//! The `service` section: pipelines and what they refer to, self-telemetry, stopping.

use super::node::{Node, Value};
use super::report::{Place, Report, did_you_mean};
use super::{ComponentId, Section, decode, duration, join};
use crate::component::{Check, ProcessorSettings};
use crate::telemetry::TelemetrySettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One pipeline of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// `traces` or `traces/name`.
    pub id: ComponentId,
    /// Where batches come from, at least one.
    pub receivers: Vec<ComponentId>,
    /// What they pass through, in this order.
    pub processors: Vec<ComponentId>,
    /// Where each of them goes, at least one.
    pub exporters: Vec<ComponentId>,
}

/// `traces: ebpf -> span_linker -> debug, otlp_grpc`
impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |ids: &[ComponentId]| {
            let ids: Vec<&str> = ids.iter().map(ComponentId::as_str).collect();
            ids.join(", ")
        };
        write!(f, "{}: {}", self.id, listed(&self.receivers))?;
        for processor in &self.processors {
            write!(f, " -> {processor}")?;
        }
        write!(f, " -> {}", listed(&self.exporters))
    }
}

/// The section, read.
pub(super) struct Service {
    pub extensions: Vec<ComponentId>,
    pub pipelines: Vec<Pipeline>,
    pub telemetry: TelemetrySettings,
    pub shutdown_timeout: Duration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RawService {
    /// Ids of the extensions to start, in this order.
    extensions: Vec<String>,
    /// By id: `traces` or `traces/name`.
    #[schemars(schema_with = "pipelines")]
    pipelines: BTreeMap<String, RawPipeline>,
    /// What the process tells of itself.
    telemetry: TelemetrySettings,
    /// Time that a stop may take; what is left then is lost and counted.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    shutdown_timeout: Duration,
}

impl Default for RawService {
    fn default() -> Self {
        Self {
            extensions: Vec::new(),
            pipelines: BTreeMap::new(),
            telemetry: TelemetrySettings::default(),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

fn pipelines(generator: &mut SchemaGenerator) -> Schema {
    let pipeline = generator.subschema_for::<RawPipeline>();
    json_schema!({
        "type": "object",
        "patternProperties": {r"^traces(/[^\s]+)?$": pipeline},
        "additionalProperties": false,
    })
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct RawPipeline {
    /// Ids of receivers, at least one.
    receivers: Vec<String>,
    /// Ids of processors, in order.
    processors: Vec<String>,
    /// Ids of exporters, at least one.
    exporters: Vec<String>,
}

/// Reads the section and checks every reference in it.
pub(super) fn read(root: &Node, report: &mut Report) -> Option<Service> {
    let Some(entry) = root.entry("service") else {
        report.error(
            &root.place,
            "service",
            "is missing: without pipelines nothing runs",
        );
        return None;
    };
    let node = &entry.node;
    let raw: RawService = decode(node, "service", report)?;
    let mut references = References {
        root,
        node,
        path: "service".to_owned(),
        below: Vec::new(),
        report,
    };
    let extensions = references.resolve("extensions", &raw.extensions);
    raw.telemetry
        .check(&mut Check::new(report, node, "service").below("telemetry"));
    if raw.pipelines.is_empty() {
        report.error(
            &node.place_of(&["pipelines"]),
            "service::pipelines",
            "at least one pipeline is needed",
        );
    }
    let mut pipelines = Vec::new();
    for (id, pipeline) in &raw.pipelines {
        let path = join("service::pipelines", id);
        let place = node.place_of(&["pipelines", id]);
        match ComponentId::parse(id) {
            Err(message) => report.error(&place, &path, message),
            Ok(parsed) if parsed.kind() != "traces" => {
                let hint = did_you_mean(parsed.kind(), ["traces"]);
                report.error(
                    &place,
                    &path,
                    format!("only pipelines for traces exist{hint}"),
                );
            }
            Ok(parsed) => pipelines.push(
                References {
                    root,
                    node,
                    path,
                    below: vec!["pipelines", id],
                    report,
                }
                .read(parsed, pipeline),
            ),
        }
    }
    Some(Service {
        extensions,
        pipelines,
        telemetry: raw.telemetry,
        shutdown_timeout: raw.shutdown_timeout,
    })
}

/// Warns of processors that only work well at the head of a pipeline and stand elsewhere.
pub(super) fn check_order(
    root: &Node,
    pipelines: &[Pipeline],
    processors: &Section<dyn ProcessorSettings>,
    report: &mut Report,
) {
    let Some(entry) = root.entry("service") else {
        return;
    };
    for pipeline in pipelines {
        let id = pipeline.id.as_str();
        for (index, processor) in pipeline.processors.iter().enumerate().skip(1) {
            let settings = processors.get(processor);
            if settings.is_some_and(|settings| settings.belongs_first()) {
                let index = index.to_string();
                let place = entry
                    .node
                    .place_of(&["pipelines", id, "processors", &index]);
                let path = format!("service::pipelines::{id}::processors");
                let message = format!("\"{processor}\" should be the first processor");
                report.warn(&place, &path, message);
            }
        }
    }
}

struct References<'a> {
    root: &'a Node,
    /// The section `service`.
    node: &'a Node,
    /// Of what refers, in messages.
    path: String,
    /// The same as keys below `node`.
    below: Vec<&'a str>,
    report: &'a mut Report,
}

impl References<'_> {
    fn place_of(&self, keys: &[&str]) -> Place {
        self.node.place_of(&[self.below.as_slice(), keys].concat())
    }

    fn read(mut self, id: ComponentId, raw: &RawPipeline) -> Pipeline {
        for (role, names) in [("receivers", &raw.receivers), ("exporters", &raw.exporters)] {
            let path = join(&self.path, role);
            if names.is_empty() && !self.report.has_error_at(&path) {
                let place = self.place_of(&[role]);
                self.report.error(&place, &path, "at least one is needed");
            }
        }
        Pipeline {
            id,
            receivers: self.resolve("receivers", &raw.receivers),
            processors: self.resolve("processors", &raw.processors),
            exporters: self.resolve("exporters", &raw.exporters),
        }
    }

    fn resolve(&mut self, role: &str, names: &[String]) -> Vec<ComponentId> {
        let defined: Vec<ComponentId> = self
            .root
            .entry(role)
            .map(|entry| &entry.node)
            .into_iter()
            .filter(|node| matches!(node.value, Value::Map(_)))
            .flat_map(Node::entries)
            .filter_map(|entry| ComponentId::parse(&entry.key).ok())
            .collect();
        let mut ids: Vec<ComponentId> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let place = self.place_of(&[role, &index.to_string()]);
            let path = join(&self.path, role);
            let singular = role.trim_end_matches('s');
            match ComponentId::parse(name) {
                Err(message) => self.report.error(&place, &path, message),
                Ok(id) if ids.contains(&id) => {
                    self.report.error(
                        &place,
                        &path,
                        format!("references {singular} \"{id}\" twice"),
                    );
                }
                Ok(id) if defined.contains(&id) => ids.push(id),
                Ok(id) => {
                    let hint = did_you_mean(id.as_str(), defined.iter().map(ComponentId::as_str));
                    let message =
                        format!("references {singular} \"{id}\" which is not configured{hint}");
                    self.report.error(&place, &path, message);
                }
            }
        }
        ids
    }
}
