//! Builds what a configuration describes, runs it, and stops it in the order of the data.
//!
//! ```text
//! start:  metrics endpoint, extensions, exporters, pipelines, receivers
//! stop:   receivers -> pipelines drain -> exporters drain -> extensions, under one deadline
//! ```

use crate::clock;
use crate::component::{BoxError, Context, Exporter, ExtensionSettings, Processor, Receiver};
use crate::config::{ComponentId, Config, Pipeline};
use crate::extensions::{Extension, Extensions};
use crate::gate::Gate;
use crate::graph::{Driver, PIPELINE_QUEUE_BATCHES};
use crate::receiver::{BatchSender, Input, Running};
use crate::telemetry::{Metrics, MetricsServer, Sample, ServeError, process};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Exporters are back at the deadline by themselves; this is for one that hangs.
const EXPORTER_GRACE: Duration = Duration::from_millis(500);

/// The service did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A component could not be built from its settings.
    #[error("cannot build {role} {id}")]
    Build {
        /// `extension`, `receiver`, `processor` or `exporter`.
        role: &'static str,
        /// As configured.
        id: ComponentId,
        /// Why.
        source: BoxError,
    },
    /// A component could not be started.
    #[error("cannot start {role} {id}")]
    Start {
        /// `extension`, `receiver` or `exporter`.
        role: &'static str,
        /// As configured.
        id: ComponentId,
        /// Why.
        source: BoxError,
    },
    /// The metrics endpoint could not be opened.
    #[error(transparent)]
    Metrics(#[from] ServeError),
}

/// What ended a service that had come up, other than being told to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A receiver ended with an error.
    #[error("receiver {id} failed")]
    Receiver {
        /// As configured.
        id: ComponentId,
        /// Why.
        source: BoxError,
    },
    /// A bug: `receiver` or `pipeline`.
    #[error("a {0} panicked")]
    Panicked(&'static str),
}

/// What there is to say when a service has stopped.
#[derive(Debug)]
pub struct Summary {
    /// All metrics at the end, ordered by name and labels.
    pub samples: Vec<Sample>,
    /// Why it stopped, unless it was told to.
    pub failure: Option<Failure>,
}

/// Extensions in the order in which they start.
type OrderedExtensions = Vec<(ComponentId, Arc<dyn Extension>)>;

/// A configuration, built and not yet running.
pub struct Service {
    extensions: OrderedExtensions,
    receivers: BTreeMap<ComponentId, Box<dyn Receiver>>,
    exporters: BTreeMap<ComponentId, Box<dyn Exporter>>,
    pipelines: Vec<(Pipeline, Vec<Box<dyn Processor>>)>,
    endpoints: Vec<(String, u16)>,
    shutdown_timeout: Duration,
    metrics: Metrics,
}

impl Service {
    /// Builds every component that a pipeline refers to, and the extensions, without any IO.
    pub fn build(config: &Config, metrics: Metrics) -> Result<Self, ServiceError> {
        let extensions = build_extensions(config, &metrics)?;
        let shared = Extensions::new(extensions.iter().cloned().collect());
        let context = |id: &ComponentId| Context {
            id: id.clone(),
            metrics: metrics.clone(),
            extensions: shared.clone(),
        };
        let mut receivers = BTreeMap::new();
        let mut exporters = BTreeMap::new();
        let mut pipelines = Vec::new();
        for pipeline in &config.pipelines {
            for id in &pipeline.receivers {
                if let (Some(settings), false) =
                    (config.receivers.get(id), receivers.contains_key(id))
                {
                    receivers.insert(
                        id.clone(),
                        settings
                            .build(context(id))
                            .map_err(building("receiver", id))?,
                    );
                }
            }
            for id in &pipeline.exporters {
                if let (Some(settings), false) =
                    (config.exporters.get(id), exporters.contains_key(id))
                {
                    exporters.insert(
                        id.clone(),
                        settings
                            .build(context(id))
                            .map_err(building("exporter", id))?,
                    );
                }
            }
            let mut processors = Vec::new();
            for id in &pipeline.processors {
                if let Some(settings) = config.processors.get(id) {
                    processors.push(
                        settings
                            .build(context(id))
                            .map_err(building("processor", id))?,
                    );
                }
            }
            pipelines.push((pipeline.clone(), processors));
        }
        let endpoints = config.telemetry.metrics.endpoints();
        Ok(Self {
            extensions,
            receivers,
            exporters,
            pipelines,
            endpoints,
            shutdown_timeout: config.shutdown_timeout,
            metrics,
        })
    }

    /// Runs until `until` resolves or something fails, then stops under the deadline.
    pub async fn run(self, until: impl Future<Output = ()>) -> Result<Summary, ServiceError> {
        let timeout = self.shutdown_timeout;
        let metrics = self.metrics.clone();
        let mut up = Up::default();
        if let Err(error) = self.start(&mut up).await {
            up.stop(timeout).await;
            return Err(error);
        }
        tracing::info!("everything is running");
        let failure = tokio::select! {
            () = until => None,
            failure = up.failure() => Some(failure),
        };
        match &failure {
            None => tracing::info!("stopping"),
            Some(failure) => tracing::error!(%failure, "stopping"),
        }
        up.stop(timeout).await;
        Ok(Summary {
            samples: metrics.samples(),
            failure,
        })
    }

    async fn start(self, up: &mut Up) -> Result<(), ServiceError> {
        process::register(&self.metrics);
        for (host, port) in &self.endpoints {
            let server = MetricsServer::start(host, *port, self.metrics.clone()).await?;
            tracing::info!(address = %server.address(), "metrics are served");
            up.servers.push(server);
        }
        for (id, extension) in self.extensions {
            extension
                .start()
                .await
                .map_err(starting("extension", &id))?;
            up.extensions.push(extension);
        }
        for (id, mut exporter) in self.exporters {
            exporter.start().await.map_err(starting("exporter", &id))?;
            up.exporters.insert(id, Arc::from(exporter));
        }
        let mut inputs: BTreeMap<ComponentId, Vec<Input>> = BTreeMap::new();
        for (pipeline, processors) in self.pipelines {
            let (queue, input) = mpsc::channel(PIPELINE_QUEUE_BATCHES);
            let gates = processors.iter().filter_map(|processor| processor.gate());
            let way_in = Input {
                queue,
                gates: gates.collect(),
            };
            up.gates.extend(way_in.gates.iter().cloned());
            for receiver in pipeline.receivers {
                inputs.entry(receiver).or_default().push(way_in.clone());
            }
            let exporters = pipeline
                .exporters
                .iter()
                .filter_map(|id| Some((id.to_string(), Arc::clone(up.exporters.get(id)?))))
                .collect();
            let driver = Driver::new(
                pipeline.id.as_str(),
                input,
                processors,
                exporters,
                &self.metrics,
            );
            up.pipelines.spawn(driver.run(up.abandon.clone()));
        }
        for (id, receiver) in self.receivers {
            let targets = inputs.remove(&id).unwrap_or_default();
            let output = BatchSender::new(targets, id.as_str(), &self.metrics);
            let running = receiver
                .start(output, up.stop.clone())
                .map_err(starting("receiver", &id))?;
            up.receivers.spawn(watch(id, running));
        }
        up.tell_extensions(true);
        Ok(())
    }
}

fn build_extensions(config: &Config, metrics: &Metrics) -> Result<OrderedExtensions, ServiceError> {
    let started = config.started_extensions.iter();
    let settings = started.filter_map(|id| Some((id, config.extensions.get(id)?)));
    let build = |(id, settings): (&ComponentId, &Arc<dyn ExtensionSettings>)| {
        let context = Context {
            id: id.clone(),
            metrics: metrics.clone(),
            extensions: Extensions::default(),
        };
        let extension = settings.build(context).map_err(building("extension", id))?;
        Ok((id.clone(), extension))
    };
    settings.map(build).collect()
}

fn building(role: &'static str, id: &ComponentId) -> impl FnOnce(BoxError) -> ServiceError {
    let id = id.clone();
    move |source| ServiceError::Build { role, id, source }
}

fn starting(role: &'static str, id: &ComponentId) -> impl FnOnce(BoxError) -> ServiceError {
    let id = id.clone();
    move |source| ServiceError::Start { role, id, source }
}

async fn watch(id: ComponentId, running: Running) -> Result<(), Failure> {
    running
        .await
        .map_err(|source| Failure::Receiver { id, source })
}

/// Whatever is running.
#[derive(Default)]
struct Up {
    servers: Vec<MetricsServer>,
    extensions: Vec<Arc<dyn Extension>>,
    exporters: BTreeMap<ComponentId, Arc<dyn Exporter>>,
    pipelines: JoinSet<()>,
    gates: Vec<Gate>,
    receivers: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
    abandon: CancellationToken,
}

impl Up {
    /// Resolves when something fails. A receiver that ends well is no failure.
    async fn failure(&mut self) -> Failure {
        loop {
            tokio::select! {
                Some(ended) = self.receivers.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => return failure,
                    Err(_) => return Failure::Panicked("receiver"),
                },
                Some(ended) = self.pipelines.join_next() => {
                    // Ended well: all its receivers have ended by themselves.
                    if ended.is_err() {
                        return Failure::Panicked("pipeline");
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    fn tell_extensions(&self, ready: bool) {
        for extension in &self.extensions {
            extension.pipelines_ready(ready);
        }
    }

    async fn stop(mut self, timeout: Duration) {
        self.tell_extensions(false);
        let begun = clock::instant();
        let deadline = begun + timeout;
        // Exporters get half of the time even if a receiver or processor hangs.
        let halfway = begun + timeout / 2;
        self.stop.cancel();
        self.gates.iter().for_each(Gate::retire);
        join_until(&mut self.receivers, halfway).await;
        join_until(&mut self.pipelines, halfway).await;
        self.abandon.cancel();
        join_until(&mut self.pipelines, deadline).await;
        self.pipelines.abort_all();
        self.receivers.abort_all();
        let mut draining = JoinSet::new();
        for exporter in self.exporters.into_values() {
            draining.spawn(async move { exporter.shutdown(deadline).await });
        }
        join_until(&mut draining, deadline + EXPORTER_GRACE).await;
        for extension in self.extensions.into_iter().rev() {
            let stopped = extension.shutdown(deadline + EXPORTER_GRACE);
            let _ = tokio::time::timeout(EXPORTER_GRACE, stopped).await;
        }
    }
}

async fn join_until<T: 'static>(tasks: &mut JoinSet<T>, deadline: Instant) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout_at(deadline, all).await.is_err() {
        tracing::warn!(
            tasks = tasks.len(),
            "still running when they should have stopped"
        );
    }
}
