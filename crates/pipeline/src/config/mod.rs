//! YAML in, typed settings out: everything wrong with a file is found at once.
//!
//! text -> [`node`] tree with lines -> [`merge`]d with those of other files -> [`expand`]ed ->
//! [`decode`]d per component -> references checked.

mod decode;
pub mod duration;
mod expand;
mod merge;
pub mod node;
mod print;
pub mod report;
mod scalar;
mod schema;
mod service;
mod source;
mod wording;

pub use decode::decode;
pub use expand::Lookup;
pub use print::{Tree, json};
pub use report::{ConfigError, Finding, Place};
pub use schema::schema;
pub use service::Pipeline;
pub use source::{SCHEMES, Sources};

use crate::component::{
    ExporterSettings, ExtensionSettings, Factories, Factory, ProcessorSettings, ReceiverSettings,
};
use crate::telemetry::TelemetrySettings;
use node::{Node, Value};
use report::{Report, did_you_mean};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes a configuration file may have.
const MAX_FILE_BYTES: u64 = 4 << 20;
const ROOTS: &[&str] = &[
    "receivers",
    "processors",
    "exporters",
    "extensions",
    "service",
];

/// `type[/name]`: names one component of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentId(String);

impl ComponentId {
    /// Reads an id, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind.trim(), Some(name.trim())),
            None => (text.trim(), None),
        };
        let starts_well = kind.starts_with(|first: char| first.is_ascii_alphabetic());
        let well_formed =
            kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && kind.len() <= 63;
        if !starts_well || !well_formed {
            return Err(format!(
                "\"{kind}\" is not a type: letters, digits and _ only, a letter first"
            ));
        }
        match name {
            Some("") => Err("an id ends in \"/\": a name must follow".to_owned()),
            Some(name)
                if name.chars().any(|c| c.is_whitespace() || c.is_control())
                    || name.len() > 1024 =>
            {
                Err(format!(
                    "\"{name}\" is not a name: no white space, 1024 bytes at most"
                ))
            }
            Some(name) => Ok(Self(format!("{kind}/{name}"))),
            None => Ok(Self(kind.to_owned())),
        }
    }

    /// The part before the `/`.
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The id as the configuration has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ComponentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Settings of the components of one kind, by id.
pub type Section<S> = BTreeMap<ComponentId, Arc<S>>;

/// A configuration that is known to be sound.
#[derive(Debug)]
pub struct Config {
    /// Receivers, referenced or not.
    pub receivers: Section<dyn ReceiverSettings>,
    /// Processors, referenced or not.
    pub processors: Section<dyn ProcessorSettings>,
    /// Exporters, referenced or not.
    pub exporters: Section<dyn ExporterSettings>,
    /// Extensions, switched on or not.
    pub extensions: Section<dyn ExtensionSettings>,
    /// Those that are switched on, in the order in which they start.
    pub started_extensions: Vec<ComponentId>,
    /// How they are wired.
    pub pipelines: Vec<Pipeline>,
    /// What the process tells of itself.
    pub telemetry: TelemetrySettings,
    /// Time that a stop may take until what is left is given up.
    pub shutdown_timeout: Duration,
    /// What works but should be changed.
    pub warnings: Vec<Finding>,
    /// All values, merged and expanded.
    pub tree: Tree,
}

impl Config {
    /// Reads what the sources name, with the environment of this process.
    pub fn load(sources: &Sources, factories: &Factories) -> Result<Self, ConfigError> {
        let env = |variable: &str| std::env::var(variable).ok();
        let mut report = Report::default();
        let root = sources.read(&env, &mut report);
        Self::read(root, factories, &env, report)
    }

    /// Reads texts; each has the name that stands for its file in messages.
    pub fn parse(
        files: &[(&str, &str)],
        factories: &Factories,
        env: Lookup<'_>,
    ) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let mut root = None;
        for (name, text) in files {
            if let Some(node) = node::parse(name, text, &mut report) {
                root = Some(source::lay_over(root, node, &mut report));
            }
        }
        // A file that is no YAML makes the rest look wrong where it is not.
        let root = root.filter(|_| report.errors.is_empty());
        Self::read(root, factories, env, report)
    }

    fn read(
        root: Option<Node>,
        factories: &Factories,
        env: Lookup<'_>,
        mut report: Report,
    ) -> Result<Self, ConfigError> {
        let config = root.and_then(|mut root| {
            expand::expand(&mut root, env, &mut report);
            build(&root, factories, &mut report)
        });
        let warnings = report.finish()?;
        let config = config.ok_or_else(ConfigError::nothing)?;
        Ok(Self { warnings, ..config })
    }
}

fn build(root: &Node, factories: &Factories, report: &mut Report) -> Option<Config> {
    match &root.value {
        Value::Map(_) => {}
        Value::Null => {
            report.error(&root.place, "", "the configuration is empty");
            return None;
        }
        _ => {
            report.error(
                &root.place,
                "",
                format!("expected a mapping, got {}", root.describe()),
            );
            return None;
        }
    }
    for entry in root
        .entries()
        .iter()
        .filter(|entry| !ROOTS.contains(&entry.key.as_str()))
    {
        let hint = did_you_mean(&entry.key, ROOTS.iter().copied());
        report.error(&entry.key_place, &entry.key, format!("unknown key{hint}"));
    }
    let receivers = section(root, "receivers", factories.receivers, report);
    let processors = section(root, "processors", factories.processors, report);
    let exporters = section(root, "exporters", factories.exporters, report);
    let extensions = section(root, "extensions", factories.extensions, report);
    let service = service::read(root, report)?;
    check_extensions(root, &exporters, &service.extensions, report);
    service::check_order(root, &service.pipelines, &processors, report);
    Some(Config {
        receivers,
        processors,
        exporters,
        extensions,
        started_extensions: service.extensions,
        pipelines: service.pipelines,
        telemetry: service.telemetry,
        shutdown_timeout: service.shutdown_timeout,
        warnings: Vec::new(),
        tree: Tree(root.clone()),
    })
}

/// An extension that an exporter needs must be switched on.
fn check_extensions(
    root: &Node,
    exporters: &Section<dyn ExporterSettings>,
    started: &[ComponentId],
    report: &mut Report,
) {
    for (id, settings) in exporters {
        let Some((key, name)) = settings.extension() else {
            continue;
        };
        let wanted = ComponentId::parse(name);
        if wanted.is_ok_and(|wanted| started.contains(&wanted)) {
            continue;
        }
        let keys: Vec<&str> = ["exporters", id.as_str()]
            .into_iter()
            .chain(key.split("::"))
            .collect();
        let hint = did_you_mean(name, started.iter().map(ComponentId::as_str));
        let hint = if hint.is_empty() {
            ": name it there, and configure it under extensions".to_owned()
        } else {
            hint
        };
        report.error(
            &root.place_of(&keys),
            &keys.join("::"),
            format!("references extension \"{name}\" which is not in service::extensions{hint}"),
        );
    }
}

/// Reads `receivers:`, `processors:` and so on.
fn section<S: ?Sized>(
    root: &Node,
    name: &str,
    factories: &[Factory<S>],
    report: &mut Report,
) -> Section<S> {
    let mut section = Section::new();
    let Some(entry) = root.entry(name) else {
        return section;
    };
    if !matches!(entry.node.value, Value::Map(_) | Value::Null) {
        report.error(
            &entry.key_place,
            name,
            format!("expected a mapping, got {}", entry.node.describe()),
        );
    }
    for entry in entry.node.entries() {
        let path = join(name, &entry.key);
        let id = match ComponentId::parse(&entry.key) {
            Ok(id) => id,
            Err(message) => {
                report.error(&entry.key_place, &path, message);
                continue;
            }
        };
        let Some(factory) = find(factories, &id, entry, &path, report) else {
            continue;
        };
        if let Some(settings) = (factory.parse)(&entry.node, &path, report) {
            section.insert(id, settings);
        }
    }
    section
}

fn find<'a, S: ?Sized>(
    factories: &'a [Factory<S>],
    id: &ComponentId,
    entry: &node::Entry,
    path: &str,
    report: &mut Report,
) -> Option<&'a Factory<S>> {
    let kind = id.kind();
    if let Some(factory) = factories.iter().find(|factory| factory.kind == kind) {
        return Some(factory);
    }
    if let Some(factory) = factories
        .iter()
        .find(|factory| factory.old_names.contains(&kind))
    {
        report.warn(
            &entry.key_place,
            path,
            format!("\"{kind}\" is the former name of \"{}\"", factory.kind),
        );
        return Some(factory);
    }
    let known: Vec<&str> = factories.iter().map(|factory| factory.kind).collect();
    let hint = did_you_mean(kind, known.iter().copied());
    let known = if known.is_empty() {
        "there are none yet".to_owned()
    } else {
        format!("known: {}", known.join(", "))
    };
    let hint = if hint.is_empty() {
        format!(", {known}")
    } else {
        hint
    };
    report.error(
        &entry.key_place,
        path,
        format!("unknown type \"{kind}\"{hint}"),
    );
    None
}

/// `a` and `b` as a path `a::b`.
pub(crate) fn join(path: &str, key: &str) -> String {
    match (path.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => path.to_owned(),
        _ => format!("{path}::{key}"),
    }
}
