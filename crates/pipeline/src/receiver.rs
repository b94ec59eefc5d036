//! What a receiver holds: the way into the pipelines, and the promise that it ends.

use crate::batch::Batch;
use crate::component::BoxError;
use crate::telemetry::{Counter, Metrics};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use tokio::sync::{mpsc, oneshot};

/// Resolves when a receiver has ended and dropped its sender.
pub type Running = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// The pipelines are gone: the service has given up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipelines have ended")]
pub struct Closed;

/// A batch that was not taken; it comes back to the caller.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A pipeline has no room just now.
    #[error("a pipeline has no room")]
    Full(Batch),
    /// The pipelines are gone.
    #[error("the pipelines have ended")]
    Closed(Batch),
}

type Pipelines = Arc<[mpsc::Sender<Batch>]>;

/// Where a receiver's batches go. A batch goes wholly where it began to go: a reload
/// changes the way of the batches behind it.
#[derive(Debug)]
struct Targets(RwLock<Pipelines>);

impl Targets {
    fn now(&self) -> Pipelines {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Changes where a receiver's batches go. It does not keep the pipelines open: they end
/// when the receiver has dropped its sender.
#[derive(Debug)]
pub(crate) struct Route(Weak<Targets>);

impl Route {
    /// Every batch from now on goes into these pipelines.
    pub(crate) fn set(&self, targets: Vec<mpsc::Sender<Batch>>) {
        if let Some(shared) = self.0.upgrade() {
            *shared.0.write().unwrap_or_else(PoisonError::into_inner) = targets.into();
        }
    }
}

/// The way into every pipeline that names a receiver. Bounded: a full pipeline makes
/// `send` and `blocking_send` wait and `try_send` refuse.
#[derive(Clone, Debug)]
pub struct BatchSender {
    targets: Arc<Targets>,
    accepted: Counter,
    refused: Counter,
}

impl BatchSender {
    /// For the receiver of this id, into these pipelines.
    pub fn new(targets: Vec<mpsc::Sender<Batch>>, receiver: &str, metrics: &Metrics) -> Self {
        let labels = [("receiver", receiver)];
        let accepted = "Spans handed to the pipelines.";
        let refused = "Spans that the pipelines had no room for.";
        Self {
            targets: Arc::new(Targets(RwLock::new(targets.into()))),
            accepted: metrics.counter("otelcol_receiver_accepted_spans", accepted, &labels),
            refused: metrics.counter("otelcol_receiver_refused_spans", refused, &labels),
        }
    }

    /// What changes its targets.
    pub(crate) fn route(&self) -> Route {
        Route(Arc::downgrade(&self.targets))
    }

    /// Waits for room.
    pub async fn send(&self, batch: Batch) -> Result<(), Closed> {
        let spans = batch.span_count();
        let targets = self.targets.now();
        let Some((last, others)) = targets.split_last() else {
            return Err(Closed);
        };
        for target in others {
            target
                .send(batch.clone())
                .await
                .map_err(|_| self.refuse(spans))?;
        }
        last.send(batch).await.map_err(|_| self.refuse(spans))?;
        self.accepted.add_len(spans);
        Ok(())
    }

    /// Waits for room, on a thread that is not the runtime's.
    pub fn blocking_send(&self, batch: Batch) -> Result<(), Closed> {
        let spans = batch.span_count();
        let targets = self.targets.now();
        let Some((last, others)) = targets.split_last() else {
            return Err(Closed);
        };
        for target in others {
            target
                .blocking_send(batch.clone())
                .map_err(|_| self.refuse(spans))?;
        }
        last.blocking_send(batch).map_err(|_| self.refuse(spans))?;
        self.accepted.add_len(spans);
        Ok(())
    }

    /// Takes the batch only if every pipeline has room now; counts it as refused otherwise.
    pub fn try_send(&self, batch: Batch) -> Result<(), Refused> {
        let spans = batch.span_count();
        let targets = self.targets.now();
        let mut permits = Vec::with_capacity(targets.len());
        for target in targets.iter() {
            match target.try_reserve() {
                Ok(permit) => permits.push(permit),
                Err(error) => {
                    self.refused.add_len(spans);
                    return Err(match error {
                        mpsc::error::TrySendError::Full(()) => Refused::Full(batch),
                        mpsc::error::TrySendError::Closed(()) => Refused::Closed(batch),
                    });
                }
            }
        }
        let last = permits.pop();
        for permit in permits {
            permit.send(batch.clone());
        }
        if let Some(last) = last {
            last.send(batch);
        }
        self.accepted.add_len(spans);
        Ok(())
    }

    fn refuse(&self, spans: usize) -> Closed {
        self.refused.add_len(spans);
        Closed
    }
}

/// Runs a receiver on a thread of its own; a panic there becomes an error.
pub fn spawn_thread(
    name: &str,
    body: impl FnOnce() -> Result<(), BoxError> + Send + 'static,
) -> std::io::Result<Running> {
    let (done, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // Nobody waits any more if this fails.
            let _ = done.send(body());
        })?;
    Ok(Box::pin(async move {
        ended.await.unwrap_or_else(|_| {
            let name = thread.thread().name().unwrap_or_default();
            Err(format!("thread {name} panicked").into())
        })
    }))
}
