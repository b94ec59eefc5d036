//! What is up, how it fails, and how it stops.

use super::Failure;
use crate::batch::Batch;
use crate::clock;
use crate::component::{Exporter, Reconfigure};
use crate::config::{ComponentId, Fingerprint};
use crate::extensions::Extension;
use crate::gate::Gate;
use crate::graph::{Control, losses_of};
use crate::receiver::{Input, Route, Running};
use crate::telemetry::push::Push;
use crate::telemetry::{Gauge, Identity, Loss, Metrics, MetricsServer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Receivers and exporters are back at the deadline by themselves, or nearly; this is for one
/// that hangs.
const GRACE: Duration = Duration::from_millis(500);

/// The ways into the pipelines. While this lives, none of them ends.
pub(super) type Inputs = BTreeMap<ComponentId, Input>;

/// Own metrics and spans of the end are sent in this time, or not.
const PUSH_GRACE: Duration = Duration::from_millis(500);

/// A receiver at work.
pub(super) struct LiveReceiver {
    pub fingerprint: Fingerprint,
    pub route: Route,
    pub reconfigure: Option<Box<dyn Reconfigure>>,
    pub stop: CancellationToken,
    /// Cancelled by its end.
    pub ended: CancellationToken,
}

/// A processor at work, which its pipeline's driver owns.
#[derive(Clone)]
pub(super) struct LiveProcessor {
    pub id: ComponentId,
    pub fingerprint: Fingerprint,
    pub gate: Option<Gate>,
}

/// A pipeline at work.
pub(super) struct LivePipeline {
    pub processors: Vec<LiveProcessor>,
    pub exporters: Vec<ComponentId>,
    /// Weak: a pipeline ends when its receivers have.
    pub input: mpsc::WeakSender<Batch>,
    pub control: mpsc::Sender<Control>,
    /// An exporter is missing after a reload that failed.
    pub paused: bool,
    /// Spans in its queue and in its processors.
    pub inside: Gauge,
    pub abandon: CancellationToken,
    /// Cancelled by its end.
    pub ended: CancellationToken,
}

impl LivePipeline {
    /// One of its processors.
    pub fn processor(&self, id: &ComponentId) -> Option<&LiveProcessor> {
        self.processors.iter().find(|live| live.id == *id)
    }
}

/// An extension at work.
pub(super) struct LiveExtension {
    pub fingerprint: Fingerprint,
    pub extension: Arc<dyn Extension>,
    /// When it was started among others: they stop the other way round.
    pub turn: usize,
}

/// An exporter at work.
pub(super) struct LiveExporter {
    pub fingerprint: Fingerprint,
    pub exporter: Arc<dyn Exporter>,
}

/// Whatever is running.
#[derive(Default)]
pub(super) struct Up {
    pub metrics: Metrics,
    pub identity: Identity,
    pub push: Push,
    pub servers: Vec<((String, u16), MetricsServer)>,
    pub extensions: BTreeMap<ComponentId, LiveExtension>,
    pub receivers: BTreeMap<ComponentId, LiveReceiver>,
    pub pipelines: BTreeMap<ComponentId, LivePipeline>,
    /// Empty but for the time of a reload, and of the way back from one that failed.
    pub inputs: Inputs,
    pub exporters: BTreeMap<ComponentId, LiveExporter>,
    /// Files and stores that some exporter has had open since the start.
    pub held: BTreeSet<String>,
    /// Replaced exporters that still send what they had.
    pub draining: JoinSet<()>,
    pub receiver_tasks: JoinSet<Result<(), Failure>>,
    pub pipeline_tasks: JoinSet<()>,
    pub stop: CancellationToken,
    pub abandon: CancellationToken,
    /// The service is to stop: a reload under way waits for nothing any more.
    pub hurry: CancellationToken,
}

impl Up {
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Resolves when something fails. A receiver that ends well is no failure.
    pub async fn failure(&mut self) -> Failure {
        loop {
            tokio::select! {
                Some(ended) = self.receiver_tasks.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => return failure,
                    Err(_) => return Failure::Panicked("receiver"),
                },
                Some(ended) = self.pipeline_tasks.join_next() => {
                    // Ended well: all its receivers have ended by themselves.
                    if ended.is_err() {
                        return Failure::Panicked("pipeline");
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Waits for it until the deadline, or until the service is to stop. False: it is not done.
    pub async fn wait(&self, deadline: Instant, what: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = what => true,
            () = self.hurry.cancelled() => false,
            () = tokio::time::sleep_until(deadline) => false,
        }
    }

    /// Says whether everything is running.
    pub fn tell_extensions(&self, ready: bool) {
        for live in self.extensions.values() {
            live.extension.pipelines_ready(ready);
        }
    }

    pub async fn stop(mut self, timeout: Duration) {
        self.tell_extensions(false);
        let begun = clock::instant();
        let deadline = begun + timeout;
        // Exporters get half of the time even if a receiver or processor hangs.
        let halfway = begun + timeout / 2;
        self.stop.cancel();
        let processors = self.pipelines.values().flat_map(|live| &live.processors);
        for gate in processors.filter_map(|live| live.gate.as_ref()) {
            gate.retire();
        }
        self.inputs.clear();
        join_until(&mut self.receiver_tasks, halfway).await;
        join_until(&mut self.pipeline_tasks, halfway).await;
        self.abandon.cancel();
        join_until(&mut self.pipeline_tasks, deadline).await;
        // They see that the pipelines take nothing, and count what they still had.
        join_until(&mut self.receiver_tasks, deadline + GRACE).await;
        self.count_stuck();
        self.pipeline_tasks.abort_all();
        self.receiver_tasks.abort_all();
        for live in self.exporters.into_values() {
            let exporter = live.exporter;
            let shutdown = async move { exporter.shutdown(deadline).await };
            self.draining.spawn(shutdown);
        }
        join_until(&mut self.draining, deadline + GRACE).await;
        let mut extensions: Vec<_> = self.extensions.into_values().collect();
        extensions.sort_by_key(|live| std::cmp::Reverse(live.turn));
        for live in extensions {
            let stopped = live.extension.shutdown(deadline + GRACE);
            let _ = tokio::time::timeout(GRACE, stopped).await;
        }
        // Last, so that it tells of all of that.
        self.push.stop(PUSH_GRACE).await;
    }

    /// Counts what is in pipelines whose processors are still at work after the deadline.
    fn count_stuck(&self) {
        let running = |live: &LivePipeline| !live.ended.is_cancelled();
        for (id, live) in self.pipelines.iter().filter(|(_, live)| running(live)) {
            let spans = usize::try_from(live.inside.get()).unwrap_or(0);
            tracing::warn!(pipeline = %id, spans, "its processors do not end, spans are lost");
            losses_of(id, &self.metrics).count(Loss::Shutdown, spans);
        }
    }
}

/// The task of a receiver: how it ends matters until it is told to stop.
pub(super) async fn watch(
    id: ComponentId,
    running: Running,
    stop: CancellationToken,
    ended: CancellationToken,
) -> Result<(), Failure> {
    let _ended = ended.drop_guard();
    match running.await {
        Err(error) if stop.is_cancelled() => {
            tracing::warn!(receiver = %id, %error, "it did not stop well");
            Ok(())
        }
        ended => ended.map_err(|source| Failure::Receiver { id, source }),
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
