//! What a receiver holds: the way into the pipelines, and the promise that it ends.

use crate::batch::Batch;
use crate::component::BoxError;
use crate::gate::Gate;
use crate::receipt::Receipt;
use crate::telemetry::{Counter, Gauge, Metrics, OwnSpan};
use opentelemetry::trace::SpanKind;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long `deliver` waits for room in full pipelines before it refuses.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

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

/// A batch that its receiver has to answer for: it was refused, and stays with the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Undelivered {
    /// For the client.
    pub message: String,
    /// Whether the same batch may be taken later.
    pub retryable: bool,
}

/// The way into one pipeline.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its queue.
    pub queue: mpsc::Sender<Batch>,
    /// What its processors may close in front of it.
    pub gates: Vec<Gate>,
    /// Spans in its queue and in its processors.
    pub inside: Gauge,
}

impl Input {
    fn entered(&self, spans: usize) {
        self.inside.add(i64::try_from(spans).unwrap_or(i64::MAX));
    }
}

type Inputs = Arc<[Input]>;

/// Where a receiver's batches go. A batch goes wholly where it began to go: a reload
/// changes the way of the batches behind it.
#[derive(Debug)]
struct Targets(RwLock<Inputs>);

impl Targets {
    fn now(&self) -> Inputs {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Changes where a receiver's batches go. It does not keep the pipelines open: they end
/// when the receiver has dropped its sender.
#[derive(Debug)]
pub(crate) struct Route(Weak<Targets>);

impl Route {
    /// Every batch from now on goes into these pipelines.
    pub(crate) fn set(&self, targets: Vec<Input>) {
        if let Some(shared) = self.0.upgrade() {
            *shared.0.write().unwrap_or_else(PoisonError::into_inner) = targets.into();
        }
    }
}

/// The way into every pipeline that names a receiver. Bounded: a full pipeline or a closed gate
/// makes `send` and `blocking_send` wait, `deliver` refuse after a while, and `try_send` at once.
#[derive(Clone, Debug)]
pub struct BatchSender {
    targets: Arc<Targets>,
    receiver: Arc<str>,
    metrics: Metrics,
    /// Made at the first use: a receiver with transports counts by transport only.
    counts: Arc<OnceLock<Counts>>,
}

#[derive(Debug)]
struct Counts {
    accepted: Counter,
    refused: Counter,
    failed: Counter,
}

impl Counts {
    fn new(metrics: &Metrics, labels: &[(&str, &str)]) -> Self {
        let accepted = "Spans handed to the pipelines.";
        let refused = "Spans that the pipelines did not take.";
        let failed = "Spans that nobody will ever take.";
        Self {
            accepted: metrics.counter("otelcol_receiver_accepted_spans", accepted, labels),
            refused: metrics.counter("otelcol_receiver_refused_spans", refused, labels),
            failed: metrics.counter("otelcol_receiver_failed_spans", failed, labels),
        }
    }
}

impl BatchSender {
    /// For the receiver of this id, into these pipelines.
    pub fn new(targets: Vec<Input>, receiver: &str, metrics: &Metrics) -> Self {
        Self {
            targets: Arc::new(Targets(RwLock::new(targets.into()))),
            receiver: receiver.into(),
            metrics: metrics.clone(),
            counts: Arc::default(),
        }
    }

    /// The same way, for what comes over one of several transports, with its own counters.
    #[must_use]
    pub fn over(&self, transport: &str) -> Self {
        let labels = [("receiver", &*self.receiver), ("transport", transport)];
        let counts = Counts::new(&self.metrics, &labels);
        Self {
            counts: Arc::new(OnceLock::from(counts)),
            ..self.clone()
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
        for gate in gates(&targets) {
            gate.pass().await;
        }
        for target in others {
            let sent = target.queue.send(batch.clone()).await;
            sent.map_err(|_| self.refuse(spans))?;
            target.entered(spans);
        }
        let sent = last.queue.send(batch).await;
        sent.map_err(|_| self.refuse(spans))?;
        last.entered(spans);
        self.counts().accepted.add_len(spans);
        Ok(())
    }

    /// Waits for room, on a thread that is not the runtime's.
    pub fn blocking_send(&self, batch: Batch) -> Result<(), Closed> {
        let spans = batch.span_count();
        let targets = self.targets.now();
        let Some((last, others)) = targets.split_last() else {
            return Err(Closed);
        };
        for gate in gates(&targets) {
            gate.blocking_pass();
        }
        for target in others {
            let sent = target.queue.blocking_send(batch.clone());
            sent.map_err(|_| self.refuse(spans))?;
            target.entered(spans);
        }
        let sent = last.queue.blocking_send(batch);
        sent.map_err(|_| self.refuse(spans))?;
        last.entered(spans);
        self.counts().accepted.add_len(spans);
        Ok(())
    }

    /// Takes the batch only if every pipeline has room and its gates are open now; counts it
    /// as refused otherwise.
    pub fn try_send(&self, batch: Batch) -> Result<(), Refused> {
        let spans = batch.span_count();
        let targets = self.targets.now();
        if gates(&targets).any(|gate| gate.refuses(spans)) {
            self.counts().refused.add_len(spans);
            return Err(Refused::Gated(batch));
        }
        let mut permits = Vec::with_capacity(targets.len());
        for target in targets.iter() {
            match target.queue.try_reserve() {
                Ok(permit) => permits.push(permit),
                Err(error) => {
                    self.counts().refused.add_len(spans);
                    return Err(match error {
                        mpsc::error::TrySendError::Full(()) => Refused::Full(batch),
                        mpsc::error::TrySendError::Closed(()) => Refused::Closed(batch),
                    });
                }
            }
        }
        hand_over(permits, batch);
        targets.iter().for_each(|target| target.entered(spans));
        self.counts().accepted.add_len(spans);
        Ok(())
    }

    /// The service has given up waiting: no batch is taken any more.
    pub fn is_closed(&self) -> bool {
        let targets = self.targets.now();
        targets.iter().any(|target| target.queue.is_closed())
    }

    /// Hands a batch over and waits until it has been taken over for good: only then may a
    /// receiver tell its client that the spans have arrived.
    pub async fn deliver(&self, mut batch: Batch) -> Result<(), Undelivered> {
        let spans = batch.span_count();
        let name = format!("receiver/{}/TraceDataReceived", self.receiver);
        let mut own = OwnSpan::begin(name, SpanKind::Server);
        own.count("items", spans);
        let counts = self.counts();
        let targets = self.targets.now();
        if gates(&targets).any(|gate| gate.refuses(spans)) {
            counts.refused.add_len(spans);
            return Err(undelivered("memory is short", true));
        }
        let outcome = match tokio::time::timeout(ROOM_TIMEOUT, reserve(&targets)).await {
            Err(_) => Err(undelivered("the pipelines have no room", true)),
            Ok(Err(Closed)) => Err(undelivered("the pipelines have ended", true)),
            Ok(Ok(permits)) => {
                let (receipt, outcome) = Receipt::new();
                batch.set_receipt(receipt);
                hand_over(permits, batch);
                targets.iter().for_each(|target| target.entered(spans));
                let mut unanswered = Unanswered { counts, spans };
                let outcome = outcome.wait().await;
                unanswered.spans = 0;
                outcome.map_err(|why| undelivered(&why.to_string(), why.is_retryable()))
            }
        };
        if let Err(why) = &outcome {
            own.fail(&why.message);
        }
        match &outcome {
            Ok(()) => counts.accepted.add_len(spans),
            Err(why) if why.retryable => counts.refused.add_len(spans),
            Err(_) => counts.failed.add_len(spans),
        }
        outcome
    }

    fn refuse(&self, spans: usize) -> Closed {
        self.counts().refused.add_len(spans);
        Closed
    }

    fn counts(&self) -> &Counts {
        self.counts
            .get_or_init(|| Counts::new(&self.metrics, &[("receiver", &*self.receiver)]))
    }
}

/// A place in every pipeline. All receivers reserve in the same order, so that none waits
/// for another that waits for it.
async fn reserve(targets: &[Input]) -> Result<Vec<mpsc::Permit<'_, Batch>>, Closed> {
    let mut permits = Vec::with_capacity(targets.len());
    for target in targets {
        permits.push(target.queue.reserve().await.map_err(|_| Closed)?);
    }
    Ok(permits)
}

fn gates(targets: &[Input]) -> impl Iterator<Item = &Gate> {
    targets.iter().flat_map(|target| &target.gates)
}

/// Counts the spans of a delivery whose client went away: the pipelines have them.
struct Unanswered<'a> {
    counts: &'a Counts,
    spans: usize,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.counts.accepted.add_len(self.spans);
    }
}

fn undelivered(message: &str, retryable: bool) -> Undelivered {
    let message = message.to_owned();
    Undelivered { message, retryable }
}

fn hand_over(permits: Vec<mpsc::Permit<'_, Batch>>, batch: Batch) {
    let mut permits = permits.into_iter();
    let last = permits.next_back();
    for permit in permits {
        permit.send(batch.clone());
    }
    if let Some(last) = last {
        last.send(batch);
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
