//! From what runs to what a configuration wants, in the order of the data, without losing a span.
//!
//! ```text
//! new endpoints and exporters start      if one fails, nothing has changed
//! receivers change their ways, or end    what is under way goes where it began to go
//! pipelines without receivers drain
//! changed pipelines pause                processors that stay keep what they hold
//! exporters change hands                 only these: files and stores open once
//! pipelines go on, new ones begin
//! new receivers start
//! old exporters drain
//! ```

use super::ServiceError;
use super::build::{Parts, is_current};
use super::running::{LiveExporter, LivePipeline, LiveReceiver, Up, watch};
use crate::batch::Batch;
use crate::clock;
use crate::component::{BoxError, Exporter};
use crate::config::{ComponentId, Config, Fingerprint, Pipeline, Role};
use crate::graph::{Control, Driver, Line, PIPELINE_QUEUE_BATCHES};
use crate::receiver::BatchSender;
use crate::telemetry::MetricsServer;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Room for what a driver is told: to pause and to go on, by a reload and by the way back.
const CONTROLS: usize = 4;

/// The ways into the pipelines. While this lives, none of them ends.
type Inputs = BTreeMap<ComponentId, mpsc::Sender<Batch>>;

impl Up {
    /// Brings up what the configuration wants and is not up, and ends the rest.
    ///
    /// An error leaves something that runs, from which another configuration (the one
    /// before) can be converged to.
    pub async fn converge(
        &mut self,
        config: &Config,
        mut parts: Parts,
    ) -> Result<(), ServiceError> {
        let deadline = clock::instant() + config.shutdown_timeout;
        let halfway = clock::instant() + config.shutdown_timeout / 2;
        self.open_endpoints(config).await?;
        let fresh = self.start_exporters(config, &mut parts, deadline).await?;
        // Nothing has changed up to here.
        let inputs = self.open_inputs(config);
        self.retire_receivers(config, &mut parts, halfway).await;
        self.route(config, &inputs);
        self.end_pipelines(&inputs, deadline).await;
        self.pause(config, halfway).await;
        let retired = self.retire_exporters(config, fresh);
        let swapped = self
            .swap_exporters(config, &mut parts, &retired, deadline)
            .await;
        self.resume(config, parts.processors);
        let started = match swapped {
            Ok(()) => self.start_receivers(config, parts.receivers, &inputs),
            failed => failed,
        };
        self.drain(retired, deadline).await;
        started?;
        let wanted = config.telemetry.metrics.endpoints();
        self.servers
            .retain(|(endpoint, _)| wanted.contains(endpoint));
        Ok(())
    }

    /// An exporter may hold a pipeline up for longer than a reload waits; then there is no
    /// other before it has gone on.
    pub fn check_idle(&self) -> Result<(), ServiceError> {
        let mut pipelines = self.pipelines.iter();
        match pipelines.find(|(_, live)| live.control.capacity() < CONTROLS && !live.has_ended()) {
            Some((id, _)) => Err(ServiceError::Busy(id.clone())),
            None => Ok(()),
        }
    }

    async fn open_endpoints(&mut self, config: &Config) -> Result<(), ServiceError> {
        for endpoint in config.telemetry.metrics.endpoints() {
            if self.servers.iter().any(|(open, _)| *open == endpoint) {
                continue;
            }
            let (host, port) = &endpoint;
            let server = MetricsServer::start(host, *port, self.metrics.clone()).await?;
            tracing::info!(address = %server.address(), "metrics are served");
            self.servers.push((endpoint, server));
        }
        Ok(())
    }

    /// Starts the new ones but those that must wait for an old one to let go of a file.
    async fn start_exporters(
        &mut self,
        config: &Config,
        parts: &mut Parts,
        deadline: Instant,
    ) -> Result<BTreeMap<ComponentId, LiveExporter>, ServiceError> {
        let mut fresh = BTreeMap::new();
        let ids: Vec<_> = parts.exporters.keys().cloned().collect();
        for id in ids {
            let held = parts.exporters.get(&id).and_then(|built| built.holds());
            let in_use = |live: &LiveExporter| held.is_some() && live.exporter.holds() == held;
            if self.exporters.values().any(in_use) {
                continue;
            }
            let Some(exporter) = parts.exporters.remove(&id) else {
                continue;
            };
            match self.start_exporter(config, &id, exporter).await {
                Ok(live) => fresh.insert(id, live),
                Err(error) => {
                    for live in fresh.into_values() {
                        live.exporter.shutdown(deadline).await;
                    }
                    return Err(error);
                }
            };
        }
        Ok(fresh)
    }

    async fn start_exporter(
        &mut self,
        config: &Config,
        id: &ComponentId,
        mut exporter: Box<dyn Exporter>,
    ) -> Result<LiveExporter, ServiceError> {
        let held = exporter.holds();
        if held.as_ref().is_some_and(|held| self.held.contains(held)) {
            exporter.take_over();
        }
        exporter.start().await.map_err(starting("exporter", id))?;
        self.held.extend(held);
        Ok(LiveExporter {
            fingerprint: config.fingerprints.get(Role::Exporter, id),
            exporter: Arc::from(exporter),
        })
    }

    /// The ways into all pipelines that are wanted; new ones are made, and begin paused.
    fn open_inputs(&mut self, config: &Config) -> Inputs {
        let mut inputs = Inputs::new();
        for Pipeline { id, .. } in &config.pipelines {
            let running = self.pipelines.get(id).and_then(|live| live.input.upgrade());
            let input = running.unwrap_or_else(|| self.begin_pipeline(id));
            inputs.insert(id.clone(), input);
        }
        inputs
    }

    fn begin_pipeline(&mut self, id: &ComponentId) -> mpsc::Sender<Batch> {
        let (input, batches) = mpsc::channel(PIPELINE_QUEUE_BATCHES);
        let (control, told) = mpsc::channel(CONTROLS);
        let live = LivePipeline {
            processors: Vec::new(),
            exporters: Vec::new(),
            input: input.downgrade(),
            control,
            paused: true,
            abandon: self.abandon.child_token(),
            ended: tokio_util::sync::CancellationToken::new(),
        };
        let driver = Driver::new(id, batches, told, &self.metrics);
        let (abandon, ended) = (live.abandon.clone(), live.ended.clone());
        self.pipeline_tasks.spawn(async move {
            let _ended = ended.drop_guard();
            driver.run(abandon).await;
        });
        self.pipelines.insert(id.clone(), live);
        input
    }

    /// Ends those that are not wanted, or not with the settings they have.
    async fn retire_receivers(&mut self, config: &Config, parts: &mut Parts, deadline: Instant) {
        let mut ending = Vec::new();
        let receivers = std::mem::take(&mut self.receivers);
        for (id, mut live) in receivers {
            let wanted = config
                .pipelines
                .iter()
                .any(|one| one.receivers.contains(&id));
            if wanted && live.take_over(config, &id) {
                parts.receivers.remove(&id);
                self.receivers.insert(id, live);
            } else {
                live.stop.cancel();
                ending.push((id, live));
            }
        }
        for (id, live) in ending {
            if !self.wait(deadline, live.ended.cancelled()).await {
                tracing::warn!(receiver = %id, "still running when it should have stopped");
            }
        }
    }

    fn route(&self, config: &Config, inputs: &Inputs) {
        for (id, live) in &self.receivers {
            live.route.set(targets(config, id, inputs));
        }
    }

    /// No receiver leads to them any more: they end by themselves, once they are empty.
    async fn end_pipelines(&mut self, inputs: &Inputs, deadline: Instant) {
        let pipelines = std::mem::take(&mut self.pipelines);
        let (wanted, ending): (BTreeMap<_, _>, _) = pipelines
            .into_iter()
            .partition(|(id, _)| inputs.contains_key(id));
        self.pipelines = wanted;
        for (_, live) in ending {
            if live.paused || !self.wait(deadline, live.ended.cancelled()).await {
                // It counts what is lost.
                live.abandon.cancel();
            }
        }
    }

    async fn pause(&mut self, config: &Config, deadline: Instant) {
        let mut pausing = Vec::new();
        for pipeline in &config.pipelines {
            let changes = self.is_changed(config, pipeline);
            let Some(live) = self.pipelines.get_mut(&pipeline.id) else {
                continue;
            };
            if !changes || live.processors.is_empty() && live.exporters.is_empty() {
                continue; // As it was, or new.
            }
            live.paused = true;
            let keep = live.kept(config, pipeline);
            let (paused, done) = oneshot::channel();
            // There is room: `check_idle`. Without a driver there is nothing to change.
            let _ = live.control.try_send(Control::Pause { keep, paused });
            pausing.push((pipeline.id.clone(), done));
        }
        for (id, done) in pausing {
            let done = async {
                // An error: the pipeline has ended.
                let _ = done.await;
            };
            if !self.wait(deadline, done).await {
                tracing::warn!(pipeline = %id, "an exporter holds it up, it will change when it can");
            }
        }
    }

    /// Whether its processors or exporters are others now.
    fn is_changed(&self, config: &Config, pipeline: &Pipeline) -> bool {
        let Some(live) = self.pipelines.get(&pipeline.id) else {
            return false;
        };
        let processors = with_fingerprints(config, pipeline);
        let current = |id: &ComponentId| {
            let running = self.exporters.get(id).map(|live| live.fingerprint);
            is_current(config, Role::Exporter, id, running)
        };
        live.paused
            || live.processors != processors
            || live.exporters != pipeline.exporters
            || !pipeline.exporters.iter().all(current)
    }

    /// Takes out those that are not wanted, or not with the settings they have.
    fn retire_exporters(
        &mut self,
        config: &Config,
        fresh: BTreeMap<ComponentId, LiveExporter>,
    ) -> Vec<LiveExporter> {
        let exporters = std::mem::take(&mut self.exporters);
        let (current, retired): (BTreeMap<_, _>, BTreeMap<_, _>) =
            exporters.into_iter().partition(|(id, live)| {
                let wanted = config
                    .pipelines
                    .iter()
                    .any(|one| one.exporters.contains(id));
                wanted && is_current(config, Role::Exporter, id, Some(live.fingerprint))
            });
        self.exporters = current;
        self.exporters.extend(fresh);
        retired.into_values().collect()
    }

    /// Starts those that had to wait, after who had their file has let go of it.
    async fn swap_exporters(
        &mut self,
        config: &Config,
        parts: &mut Parts,
        retired: &[LiveExporter],
        deadline: Instant,
    ) -> Result<(), ServiceError> {
        for (id, exporter) in std::mem::take(&mut parts.exporters) {
            for live in retired {
                if live.exporter.holds() == exporter.holds() {
                    live.exporter.shutdown(deadline).await;
                }
            }
            let live = self.start_exporter(config, &id, exporter).await?;
            self.exporters.insert(id, live);
        }
        Ok(())
    }

    /// Lets every pipeline go on that has all its exporters.
    fn resume(
        &mut self,
        config: &Config,
        mut new: BTreeMap<ComponentId, BTreeMap<ComponentId, Box<dyn crate::Processor>>>,
    ) {
        for pipeline in &config.pipelines {
            let Some(live) = self.pipelines.get_mut(&pipeline.id) else {
                continue;
            };
            let exporters = pipeline.exporters.iter();
            let exporters: Option<Vec<_>> = exporters
                .map(|id| {
                    self.exporters
                        .get(id)
                        .map(|live| Arc::clone(&live.exporter))
                })
                .collect();
            let mut new = new.remove(&pipeline.id).unwrap_or_default();
            // A processor that was kept is there still.
            live.processors = live
                .kept(config, pipeline)
                .into_iter()
                .map(|id| (id.clone(), config.fingerprints.get(Role::Processor, &id)))
                .collect();
            let Some(exporters) = exporters.filter(|_| live.paused) else {
                continue;
            };
            let processors = pipeline.processors.iter();
            let processors = processors.map(|id| (id.clone(), new.remove(id))).collect();
            // There is room: `check_idle`. Without a driver there is nothing to change.
            let _ = live.control.try_send(Control::Resume(Line {
                processors,
                exporters,
            }));
            live.processors = with_fingerprints(config, pipeline);
            live.exporters.clone_from(&pipeline.exporters);
            live.paused = false;
        }
    }

    fn start_receivers(
        &mut self,
        config: &Config,
        new: BTreeMap<ComponentId, Box<dyn crate::Receiver>>,
        inputs: &Inputs,
    ) -> Result<(), ServiceError> {
        for (id, receiver) in new {
            let output = BatchSender::new(targets(config, &id, inputs), id.as_str(), &self.metrics);
            let stop = self.stop.child_token();
            let live = LiveReceiver {
                fingerprint: config.fingerprints.get(Role::Receiver, &id),
                route: output.route(),
                reconfigure: receiver.reconfigure(),
                stop: stop.clone(),
                ended: tokio_util::sync::CancellationToken::new(),
            };
            let running = receiver
                .start(output, stop.clone())
                .map_err(starting("receiver", &id))?;
            let task = watch(id.clone(), running, stop, live.ended.clone());
            self.receiver_tasks.spawn(task);
            self.receivers.insert(id, live);
        }
        Ok(())
    }

    /// Lets old exporters send what they have, beside the new ones. Who holds a file is
    /// waited for: the next reload may want it.
    async fn drain(&mut self, retired: Vec<LiveExporter>, deadline: Instant) {
        for live in retired {
            let exporter = live.exporter;
            if exporter.holds().is_some() {
                exporter.shutdown(deadline).await;
            } else {
                let shutdown = async move { exporter.shutdown(deadline).await };
                self.draining.spawn(shutdown);
            }
        }
        while self.draining.try_join_next().is_some() {}
    }
}

impl LiveReceiver {
    /// It has these settings already, or takes them over as it runs.
    fn take_over(&mut self, config: &Config, id: &ComponentId) -> bool {
        if is_current(config, Role::Receiver, id, Some(self.fingerprint)) {
            return true;
        }
        let settings = config.receivers.get(id);
        let taken = match (&mut self.reconfigure, settings) {
            (Some(reconfigure), Some(settings)) => reconfigure.reconfigure(settings.as_ref()),
            _ => false,
        };
        if taken {
            self.fingerprint = config.fingerprints.get(Role::Receiver, id);
            tracing::info!(receiver = %id, "new settings taken over while it runs");
        }
        taken
    }
}

impl LivePipeline {
    fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Processors that stay as they are.
    fn kept(&self, config: &Config, pipeline: &Pipeline) -> Vec<ComponentId> {
        let current =
            |id: &&ComponentId| is_current(config, Role::Processor, id, self.processor(id));
        pipeline
            .processors
            .iter()
            .filter(current)
            .cloned()
            .collect()
    }
}

fn with_fingerprints(config: &Config, pipeline: &Pipeline) -> Vec<(ComponentId, Fingerprint)> {
    let processors = pipeline.processors.iter();
    processors
        .map(|id| (id.clone(), config.fingerprints.get(Role::Processor, id)))
        .collect()
}

/// The ways into the pipelines that name a receiver.
fn targets(config: &Config, receiver: &ComponentId, inputs: &Inputs) -> Vec<mpsc::Sender<Batch>> {
    let named = config
        .pipelines
        .iter()
        .filter(|one| one.receivers.contains(receiver));
    named
        .filter_map(|pipeline| inputs.get(&pipeline.id).cloned())
        .collect()
}

fn starting(role: &'static str, id: &ComponentId) -> impl FnOnce(BoxError) -> ServiceError {
    let id = id.clone();
    move |source| ServiceError::Start { role, id, source }
}
