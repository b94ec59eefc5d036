//! From what runs to what a configuration wants, in the order of the data, without losing a span.
//!
//! ```text
//! new endpoints, extensions, exporters   if one does not start, nothing has changed
//! receivers change their ways, or end    what is under way goes where it began to go
//! pipelines without receivers drain
//! changed pipelines pause                processors that stay keep what they hold
//! files and stores change hands          who has one ends before the next begins
//! pipelines go on, new ones begin
//! new receivers start
//! old exporters drain, old extensions end
//! ```

use super::ServiceError;
use super::build::{Parts, is_current};
use super::running::{Inputs, LivePipeline, LiveProcessor, LiveReceiver, Up, watch};
use crate::batch::Batch;
use crate::clock;
use crate::component::{BoxError, Processor, Receiver};
use crate::config::{ComponentId, Config, Pipeline, Role};
use crate::graph::{Control, Driver, Line, PIPELINE_QUEUE_BATCHES};
use crate::receiver::{BatchSender, Input};
use crate::telemetry::MetricsServer;
use crate::telemetry::push::{Push, Wanted};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Processors that are new, by pipeline.
type Processors = BTreeMap<ComponentId, BTreeMap<ComponentId, Box<dyn Processor>>>;

/// Room for what a driver is told: to pause and to go on, by a reload and by the way back.
const CONTROLS: usize = 4;

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
        let push = self.new_push(config)?;
        self.start_extensions(config, &mut parts).await?;
        let fresh = self.start_exporters(config, &mut parts, deadline).await?;
        // Nothing has changed up to here.
        self.await_ended(halfway).await;
        self.open_inputs(config, &parts.processors);
        self.retire_receivers(config, &mut parts, halfway).await;
        self.route(config);
        self.end_pipelines(config, deadline).await;
        self.pause(config, halfway).await;
        let retired = self.retire_exporters(config, fresh);
        let swapped = self
            .change_hands(config, &mut parts, &retired, deadline)
            .await;
        self.resume(config, parts.processors);
        let started = match swapped {
            Ok(()) => self.start_receivers(config, parts.receivers),
            failed => failed,
        };
        self.drain(retired, deadline);
        started?;
        self.inputs.clear();
        self.end_extensions(config, deadline).await;
        self.metrics.set_level(config.telemetry.metrics.level);
        self.change_push(push, deadline).await;
        self.identity
            .register(&self.metrics, &config.telemetry.resource);
        self.tell_extensions(true);
        let wanted = config.telemetry.metrics.endpoints();
        self.servers
            .retain(|(endpoint, _)| wanted.contains(endpoint));
        Ok(())
    }

    /// An exporter may hold a pipeline up for longer than a reload waits; then there is no
    /// other before it has gone on.
    pub async fn take_turn(&self, config: &Config) -> Result<(), ServiceError> {
        let halfway = clock::instant() + config.shutdown_timeout / 2;
        for (id, live) in &self.pipelines {
            let idle = async {
                // An error: the pipeline has ended.
                let _ = live.control.reserve_many(CONTROLS).await;
            };
            if !self.wait(halfway, idle).await {
                return Err(ServiceError::Busy(id.clone()));
            }
        }
        Ok(())
    }

    /// What sends own telemetry, if that is to change.
    fn new_push(&self, config: &Config) -> Result<Option<Push>, ServiceError> {
        let attributes = self.identity.attributes(&config.telemetry.resource);
        let wanted = Wanted::new(&config.telemetry, attributes);
        if self.push.is(&wanted) {
            return Ok(None);
        }
        let push = Push::start(wanted, &self.metrics).map_err(ServiceError::Push)?;
        Ok(Some(push))
    }

    async fn change_push(&mut self, push: Option<Push>, deadline: Instant) {
        if let Some(push) = push {
            push.install();
            let old = std::mem::replace(&mut self.push, push);
            old.stop(deadline.duration_since(clock::instant())).await;
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

    /// Waits for pipelines whose receivers have ended by themselves: what they still hold
    /// goes to the exporters that they have.
    async fn await_ended(&mut self, deadline: Instant) {
        let pipelines = std::mem::take(&mut self.pipelines);
        for (id, live) in pipelines {
            if live.input.upgrade().is_some() {
                self.pipelines.insert(id, live);
            } else {
                self.end(&live, deadline).await;
            }
        }
    }

    /// Holds all pipelines open that are wanted; new ones are made, and begin paused.
    fn open_inputs(&mut self, config: &Config, new: &Processors) {
        for pipeline in &config.pipelines {
            let id = &pipeline.id;
            let running = self.pipelines.get(id).and_then(|live| live.input.upgrade());
            let queue = running.unwrap_or_else(|| self.begin_pipeline(id));
            if let Some(live) = self.pipelines.get(id) {
                let processors = live.processors_of(config, pipeline, new.get(id));
                let gates = processors.into_iter().filter_map(|one| one.gate);
                let gates = gates.collect();
                let inside = live.inside.clone();
                let input = Input {
                    queue,
                    gates,
                    inside,
                };
                self.inputs.insert(id.clone(), input);
            }
        }
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
            inside: self.metrics.gauge(
                "deeptrace_pipeline_spans",
                "Spans that wait in front of a pipeline or in its processors.",
                &[("pipeline", id.as_str())],
            ),
            abandon: self.abandon.child_token(),
            ended: CancellationToken::new(),
        };
        let driver = Driver::new(id, batches, told, live.inside.clone(), &self.metrics);
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

    fn route(&self, config: &Config) {
        for (id, live) in &self.receivers {
            live.route.set(targets(config, id, &self.inputs));
        }
    }

    /// No receiver leads to them any more: they end by themselves, once they are empty.
    async fn end_pipelines(&mut self, config: &Config, deadline: Instant) {
        let wanted = |id: &ComponentId| config.pipelines.iter().any(|one| one.id == *id);
        self.inputs.retain(|id, _| wanted(id));
        let pipelines = std::mem::take(&mut self.pipelines);
        let (staying, ending): (BTreeMap<_, _>, _) =
            pipelines.into_iter().partition(|(id, _)| wanted(id));
        self.pipelines = staying;
        for (_, live) in ending {
            self.end(&live, deadline).await;
        }
    }

    /// Waits until a pipeline is empty; one that cannot get so counts what it loses.
    async fn end(&self, live: &LivePipeline, deadline: Instant) {
        if live.paused || !self.wait(deadline, live.ended.cancelled()).await {
            live.abandon.cancel();
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
            // There is room: `take_turn`. Without a driver there is nothing to change.
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
        let current = |id: &ComponentId| {
            let running = self.exporters.get(id).map(|live| live.fingerprint);
            is_current(config, Role::Exporter, id, running)
        };
        live.paused
            || live.kept(config, pipeline).len() != live.processors.len()
            || live
                .processors
                .iter()
                .map(|one| &one.id)
                .ne(&pipeline.processors)
            || live.exporters != pipeline.exporters
            || !pipeline.exporters.iter().all(current)
    }

    /// Lets every pipeline go on that has all its exporters.
    fn resume(&mut self, config: &Config, mut new: Processors) {
        for pipeline in &config.pipelines {
            let Some(live) = self.pipelines.get_mut(&pipeline.id) else {
                continue;
            };
            let exporters = pipeline.exporters.iter();
            let exporters: Option<Vec<_>> = exporters
                .map(|id| {
                    let live = self.exporters.get(id)?;
                    Some((id.clone(), Arc::clone(&live.exporter)))
                })
                .collect();
            let mut new = new.remove(&pipeline.id).unwrap_or_default();
            let Some(exporters) = exporters.filter(|_| live.paused) else {
                // A processor that was kept is there still.
                live.processors = live.processors_of(config, pipeline, None);
                continue;
            };
            live.processors = live.processors_of(config, pipeline, Some(&new));
            let processors = pipeline.processors.iter();
            let processors = processors.map(|id| (id.clone(), new.remove(id))).collect();
            // There is room: `take_turn`. Without a driver there is nothing to change.
            let _ = live.control.try_send(Control::Resume(Line {
                processors,
                exporters,
            }));
            live.exporters.clone_from(&pipeline.exporters);
            live.paused = false;
        }
    }

    fn start_receivers(
        &mut self,
        config: &Config,
        new: BTreeMap<ComponentId, Box<dyn Receiver>>,
    ) -> Result<(), ServiceError> {
        for (id, receiver) in new {
            let output = BatchSender::new(
                targets(config, &id, &self.inputs),
                id.as_str(),
                &self.metrics,
            );
            let stop = self.stop.child_token();
            let live = LiveReceiver {
                fingerprint: config.fingerprints.get(Role::Receiver, &id),
                route: output.route(),
                reconfigure: receiver.reconfigure(),
                stop: stop.clone(),
                ended: CancellationToken::new(),
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
    /// Processors that stay as they are.
    fn kept(&self, config: &Config, pipeline: &Pipeline) -> Vec<ComponentId> {
        let kept = self.processors_of(config, pipeline, None).into_iter();
        kept.map(|live| live.id).collect()
    }

    /// The processors that the configuration wants, of those that are here and stay and of
    /// the new ones.
    fn processors_of(
        &self,
        config: &Config,
        pipeline: &Pipeline,
        new: Option<&BTreeMap<ComponentId, Box<dyn Processor>>>,
    ) -> Vec<LiveProcessor> {
        let find = |id: &ComponentId| {
            let fingerprint = config.fingerprints.get(Role::Processor, id);
            if let Some(new) = new.and_then(|new| new.get(id)) {
                return Some(LiveProcessor {
                    id: id.clone(),
                    fingerprint,
                    gate: new.gate(),
                });
            }
            self.processor(id)
                .filter(|live| live.fingerprint == fingerprint)
                .cloned()
        };
        pipeline.processors.iter().filter_map(find).collect()
    }
}

/// The ways into the pipelines that name a receiver.
fn targets(config: &Config, receiver: &ComponentId, inputs: &Inputs) -> Vec<Input> {
    let named = config
        .pipelines
        .iter()
        .filter(|one| one.receivers.contains(receiver));
    named
        .filter_map(|pipeline| inputs.get(&pipeline.id).cloned())
        .collect()
}

pub(super) fn starting(
    role: &'static str,
    id: &ComponentId,
) -> impl FnOnce(BoxError) -> ServiceError {
    let id = id.clone();
    move |source| ServiceError::Start { role, id, source }
}
