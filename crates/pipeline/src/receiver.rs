//! What a receiver holds: the way into the pipelines, and the promise that it ends.

use crate::batch::Batch;
use crate::component::BoxError;
use crate::gate::Gate;
use crate::telemetry::{Counter, Metrics};
use std::pin::Pin;
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
    /// A processor lets nothing in just now: memory is short.
    #[error("memory is short, a pipeline takes nothing until some is free")]
    Gated(Batch),
    /// The pipelines are gone.
    #[error("the pipelines have ended")]
    Closed(Batch),
}

/// The way into one pipeline.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its queue.
    pub queue: mpsc::Sender<Batch>,
    /// What its processors may close in front of it.
    pub gates: Vec<Gate>,
}

/// The way into every pipeline that names a receiver. Bounded: a full pipeline or a closed
/// gate makes `send` and `blocking_send` wait and `try_send` refuse.
#[derive(Clone, Debug)]
pub struct BatchSender {
    targets: Vec<Input>,
    accepted: Counter,
    refused: Counter,
}

impl BatchSender {
    /// For the receiver of this id, into these pipelines.
    pub fn new(targets: Vec<Input>, receiver: &str, metrics: &Metrics) -> Self {
        let labels = [("receiver", receiver)];
        let accepted = "Spans handed to the pipelines.";
        let refused = "Spans that the pipelines did not take.";
        Self {
            targets,
            accepted: metrics.counter("otelcol_receiver_accepted_spans", accepted, &labels),
            refused: metrics.counter("otelcol_receiver_refused_spans", refused, &labels),
        }
    }

    /// Waits for room.
    pub async fn send(&self, batch: Batch) -> Result<(), Closed> {
        let spans = batch.span_count();
        let Some((last, others)) = self.targets.split_last() else {
            return Err(Closed);
        };
        for gate in self.gates() {
            gate.pass().await;
        }
        for target in others {
            let sent = target.queue.send(batch.clone()).await;
            sent.map_err(|_| self.refuse(spans))?;
        }
        let sent = last.queue.send(batch).await;
        sent.map_err(|_| self.refuse(spans))?;
        self.accepted.add_len(spans);
        Ok(())
    }

    /// Waits for room, on a thread that is not the runtime's.
    pub fn blocking_send(&self, batch: Batch) -> Result<(), Closed> {
        let spans = batch.span_count();
        let Some((last, others)) = self.targets.split_last() else {
            return Err(Closed);
        };
        for gate in self.gates() {
            gate.blocking_pass();
        }
        for target in others {
            let sent = target.queue.blocking_send(batch.clone());
            sent.map_err(|_| self.refuse(spans))?;
        }
        let sent = last.queue.blocking_send(batch);
        sent.map_err(|_| self.refuse(spans))?;
        self.accepted.add_len(spans);
        Ok(())
    }

    /// Takes the batch only if every pipeline has room and its gates are open now; counts it
    /// as refused otherwise.
    pub fn try_send(&self, batch: Batch) -> Result<(), Refused> {
        let spans = batch.span_count();
        if self.gates().any(|gate| gate.refuses(spans)) {
            self.refused.add_len(spans);
            return Err(Refused::Gated(batch));
        }
        let mut permits = Vec::with_capacity(self.targets.len());
        for target in &self.targets {
            match target.queue.try_reserve() {
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

    fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.targets.iter().flat_map(|target| &target.gates)
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
