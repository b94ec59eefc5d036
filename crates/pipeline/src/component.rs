//! What receivers, processors and exporters are, and how a binary names the ones it has.
//!
//! A component is a struct of settings that serde reads from its YAML section and
//! that builds the running part; a factory is its type name and that struct.

use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::config::node::Node;
use crate::config::report::{Finding, Report};
use crate::config::{self, ComponentId, decode};
use crate::extensions::{Extension, Extensions};
use crate::gate::Gate;
use crate::receipt::NotTaken;
use crate::receiver::{BatchSender, Running};
use crate::telemetry::Metrics;
use async_trait::async_trait;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use std::any::Any;
use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Any error, where only its text matters.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error with its causes in one line.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let _ = write!(text, ": {source}");
        next = source.source();
    }
    text
}

/// Brings batches in.
pub trait Receiver: Send {
    /// Begins to receive; an error stops the start of the service.
    ///
    /// On `stop` it ends its sources, sends what it has, and drops `output`. The
    /// returned [`Running`] resolves when that is done; an error there stops the service.
    fn start(
        self: Box<Self>,
        output: BatchSender,
        stop: CancellationToken,
    ) -> Result<Running, BoxError>;

    /// A way to other settings while it runs, asked for before the start. None: whenever
    /// its settings change, a reload stops it and starts another.
    fn reconfigure(&self) -> Option<Box<dyn Reconfigure>> {
        None
    }
}

/// Brings other settings to a receiver that runs.
pub trait Reconfigure: Send + Sync {
    /// Takes settings of the same type over, if it can without a restart; false: it
    /// cannot, and goes on as it was.
    fn reconfigure(&mut self, settings: &dyn ReceiverSettings) -> bool;
}

/// Changes, holds back or drops batches between receivers and exporters.
///
/// Pure: no clock, no IO, no async. One driver task calls it, with the times that count.
pub trait Processor: Send {
    /// Takes a batch; what is ready goes to `out`, the rest stays for later.
    fn process(&mut self, batch: Batch, now: Monotonic, out: &mut Vec<Batch>);

    /// What it may close in front of its pipeline; None: nothing.
    fn gate(&self) -> Option<Gate> {
        None
    }

    /// How often [`tick`](Self::tick) is wanted; None: never.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }

    /// Lets go of what has waited long enough.
    fn tick(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let _ = (now, out);
    }

    /// Spans that it has taken and not let go of.
    fn held_spans(&self) -> usize {
        0
    }

    /// Lets go of everything: the service stops.
    fn flush(&mut self, now: Monotonic, out: &mut Vec<Batch>) {
        let _ = (now, out);
    }
}

/// Takes batches out of the process. Shared by the pipelines that name it.
#[async_trait]
pub trait Exporter: Send + Sync {
    /// Opens what it needs; an error stops the start of the service.
    /// A backend that is not there is no error.
    async fn start(&mut self) -> Result<(), BoxError>;

    /// Takes a batch over: from then on the exporter answers for its spans, and counts those
    /// it has to give up. Waits only if it is meant to push back. What it does not take is
    /// no loss yet: the pipeline gives it back or counts it.
    async fn consume(&self, batch: Arc<Batch>) -> Result<(), NotTaken>;

    /// Sends what it still has, is back before the deadline, and counts what it had to give up.
    async fn shutdown(&self, deadline: Instant);

    /// A file or store that only one exporter may have open at a time: at a reload, who
    /// has it is stopped before the next who names it is started.
    fn holds(&self) -> Option<String> {
        None
    }

    /// Called before the start if another exporter of this process has just given up what
    /// this one holds: what stands there already is to be kept.
    fn take_over(&mut self) {}
}

/// What a component gets to know of the place it is built for.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its id in the configuration.
    pub id: ComponentId,
    /// Where its counters go.
    pub metrics: Metrics,
    /// What it may ask for help; empty while extensions themselves are built.
    pub extensions: Extensions,
}

/// Settings as serde reads them; unknown keys and wrong types are found before `check` is called.
/// The schema for editors is made from them, descriptions from their doc comments.
pub trait Settings: DeserializeOwned + JsonSchema {
    /// Notes values that cannot work.
    fn check(&self, check: &mut Check<'_>) {
        let _ = check;
    }
}

/// Settings of a receiver. `Any`: a binary may ask for its own receiver's settings back.
pub trait ReceiverSettings: Any + Debug + Send + Sync {
    /// Builds the receiver without doing any IO.
    fn build(&self, context: Context) -> Result<Box<dyn Receiver>, BoxError>;
}

/// Settings of a processor.
pub trait ProcessorSettings: Debug + Send + Sync {
    /// Builds one instance; every pipeline gets its own.
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError>;

    /// Whether it only works well as the first of its pipeline.
    fn belongs_first(&self) -> bool {
        false
    }
}

/// Settings of an exporter.
pub trait ExporterSettings: Debug + Send + Sync {
    /// Builds the exporter without doing any IO.
    fn build(&self, context: Context) -> Result<Box<dyn Exporter>, BoxError>;

    /// The extension that it needs, if any, and the key that names it, such as
    /// `sending_queue::storage`.
    fn extension(&self) -> Option<(&'static str, &str)> {
        None
    }
}

/// Settings of an extension.
pub trait ExtensionSettings: Debug + Send + Sync {
    /// Builds the extension without doing any IO.
    fn build(&self, context: Context) -> Result<Arc<dyn Extension>, BoxError>;
}

/// Notes what is wrong with one component's values.
pub struct Check<'a> {
    report: &'a mut Report,
    node: &'a Node,
    path: String,
    below: Vec<String>,
}

impl<'a> Check<'a> {
    /// For the settings that stand in `node`, called `path` in messages.
    pub(crate) fn new(report: &'a mut Report, node: &'a Node, path: &str) -> Self {
        Self {
            report,
            node,
            path: path.to_owned(),
            below: Vec::new(),
        }
    }

    /// For a part of the settings that stands under a key of its own.
    pub fn below(&mut self, key: &str) -> Check<'_> {
        let mut below = self.below.clone();
        below.extend(key.split("::").map(str::to_owned));
        Check {
            report: self.report,
            node: self.node,
            path: config::join(&self.path, key),
            below,
        }
    }

    /// The value under `key` (`::`-separated, as in the file) cannot work.
    pub fn error(&mut self, key: &str, message: impl Into<String>) {
        let finding = self.finding(key, message.into());
        if self.report.has_error_at(&finding.path) {
            return; // It could not even be read: this is about the default in its place.
        }
        self.report
            .error(&finding.place, &finding.path, finding.message);
    }

    /// The value under `key` works but should be changed.
    pub fn warn(&mut self, key: &str, message: impl Into<String>) {
        let finding = self.finding(key, message.into());
        self.report
            .warn(&finding.place, &finding.path, finding.message);
    }

    fn finding(&self, key: &str, message: String) -> Finding {
        let below = self.below.iter().map(String::as_str);
        let parts: Vec<&str> = below
            .chain(key.split("::").filter(|part| !part.is_empty()))
            .collect();
        Finding {
            place: self.node.place_of(&parts),
            path: config::join(&self.path, key),
            message,
        }
    }
}

/// A component type that a binary knows.
#[derive(Debug)]
pub struct Factory<S: ?Sized> {
    /// The type as it stands in the configuration.
    pub kind: &'static str,
    /// Former names, accepted with a warning.
    pub old_names: &'static [&'static str],
    pub(crate) parse: Parse<S>,
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    /// The settings' type, whose crate is the component's.
    pub(crate) type_name: fn() -> &'static str,
}

/// Reads the settings of one component, or notes what is wrong with them.
type Parse<S> = fn(&Node, &str, &mut Report) -> Option<Arc<S>>;

/// A receiver type.
pub type ReceiverFactory = Factory<dyn ReceiverSettings>;
/// A processor type.
pub type ProcessorFactory = Factory<dyn ProcessorSettings>;
/// An exporter type.
pub type ExporterFactory = Factory<dyn ExporterSettings>;
/// An extension type.
pub type ExtensionFactory = Factory<dyn ExtensionSettings>;

impl<S: ?Sized> Clone for Factory<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for Factory<S> {}

impl<S: ?Sized> Factory<S> {
    const fn of<C: Settings>(kind: &'static str, parse: Parse<S>) -> Self {
        Self {
            kind,
            old_names: &[],
            parse,
            schema: |generator| generator.subschema_for::<C>(),
            type_name: std::any::type_name::<C>,
        }
    }

    /// Adds former names of the type.
    #[must_use]
    pub const fn formerly(self, old_names: &'static [&'static str]) -> Self {
        Self { old_names, ..self }
    }
}

impl Factory<dyn ReceiverSettings> {
    /// The receiver type `kind` with settings `C`.
    pub const fn receiver<C: Settings + ReceiverSettings + 'static>(kind: &'static str) -> Self {
        Self::of::<C>(kind, |node, path, report| {
            Some(Arc::new(read::<C>(node, path, report)?))
        })
    }
}

impl Factory<dyn ProcessorSettings> {
    /// The processor type `kind` with settings `C`.
    pub const fn processor<C: Settings + ProcessorSettings + 'static>(kind: &'static str) -> Self {
        Self::of::<C>(kind, |node, path, report| {
            Some(Arc::new(read::<C>(node, path, report)?))
        })
    }
}

impl Factory<dyn ExporterSettings> {
    /// The exporter type `kind` with settings `C`.
    pub const fn exporter<C: Settings + ExporterSettings + 'static>(kind: &'static str) -> Self {
        Self::of::<C>(kind, |node, path, report| {
            Some(Arc::new(read::<C>(node, path, report)?))
        })
    }
}

impl Factory<dyn ExtensionSettings> {
    /// The extension type `kind` with settings `C`.
    pub const fn extension<C: Settings + ExtensionSettings + 'static>(kind: &'static str) -> Self {
        Self::of::<C>(kind, |node, path, report| {
            Some(Arc::new(read::<C>(node, path, report)?))
        })
    }
}

/// The component types of two lists, for a constant.
///
/// # Panics
/// When the constant is made: if `N` is not the number of types, or `one` is empty.
pub const fn join<S: ?Sized, const N: usize>(
    one: &[Factory<S>],
    other: &[Factory<S>],
) -> [Factory<S>; N] {
    assert!(one.len() + other.len() == N, "N is not the number of types");
    let mut all = [one[0]; N];
    let mut index = 0;
    while index < N {
        all[index] = if index < one.len() {
            one[index]
        } else {
            other[index - one.len()]
        };
        index += 1;
    }
    all
}

fn read<C: Settings>(node: &Node, path: &str, report: &mut Report) -> Option<C> {
    let errors_before = report.errors.len();
    let settings: C = decode(node, path, report)?;
    settings.check(&mut Check::new(report, node, path));
    (report.errors.len() == errors_before).then_some(settings)
}

/// All component types of a binary.
#[derive(Clone, Copy, Debug)]
pub struct Factories {
    /// Receiver types.
    pub receivers: &'static [ReceiverFactory],
    /// Processor types.
    pub processors: &'static [ProcessorFactory],
    /// Exporter types.
    pub exporters: &'static [ExporterFactory],
    /// Extension types.
    pub extensions: &'static [ExtensionFactory],
}
