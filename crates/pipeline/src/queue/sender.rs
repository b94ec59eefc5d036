//! Empties a queue into a backend: retries as OTLP says, and counts what becomes of every span.
//!
//! ```text
//! consume -> queue -> worker: attempt -> sent
//!                       ^        | retryable
//!                       +- wait -+-----> lost: refused, retries exhausted, shutdown
//! ```

use super::retry::Backoff;
use super::settings::{BatchSettings, QueueSettings, RetrySettings};
use super::waiting::{Queue, Taken};
use super::{Load, MAX_REQUEST_BYTES, split};
use crate::batch::Batch;
use crate::clock;
use crate::component::{BoxError, Context};
use crate::config::ComponentId;
use crate::extensions::Storage;
use crate::receipt::NotTaken;
use crate::telemetry::{Counter, Loss, Losses};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Between two log lines about a full queue.
const FULL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a backend said to a request that it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Spans of it that were refused all the same.
    pub rejected_spans: u64,
    /// Why, or a warning.
    pub message: String,
}

/// What came of a request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the log.
    pub message: String,
    /// Whether it makes sense to try again.
    pub retry: Retry,
}

/// Whether a request that failed may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// After the usual wait.
    Backoff,
    /// After this time at least.
    After(Duration),
}

/// One way to send an encoded request.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Prepares a body once for all attempts (compression).
    fn encode(&self, body: Bytes) -> Bytes {
        body
    }

    /// One attempt; the caller limits its time.
    async fn send(&self, body: Bytes) -> Result<Accepted, Refusal>;
}

/// A queue, its workers and their counters.
pub struct Sender {
    id: ComponentId,
    queue: Arc<Queue>,
    /// Where the queue is kept; none: in memory.
    storage: Option<Storage>,
    joining: Option<BatchSettings>,
    shared: Arc<Shared>,
    consumers: usize,
    workers: Mutex<JoinSet<()>>,
    stop: watch::Sender<Option<Instant>>,
    enqueue_failed: Counter,
    full_logged: Mutex<Option<Instant>>,
}

struct Shared {
    id: String,
    client: Box<dyn Client>,
    timeout: Duration,
    retry: RetrySettings,
    stop: watch::Receiver<Option<Instant>>,
    sent: Counter,
    send_failed: Counter,
    losses: Losses,
}

impl Sender {
    /// Nothing is sent before [`start`](Self::start). An error: there is no such storage.
    pub fn new(
        context: &Context,
        client: Box<dyn Client>,
        timeout: Duration,
        queue: QueueSettings,
        retry: RetrySettings,
    ) -> Result<Self, BoxError> {
        let storage = storage(context, &queue)?;
        let id = context.id.to_string();
        let labels = [("exporter", id.as_str())];
        let metrics = &context.metrics;
        let size = metrics.gauge(
            "otelcol_exporter_queue_size",
            "What waits in the queue, measured by its sizer.",
            &labels,
        );
        let capacity = metrics.gauge(
            "otelcol_exporter_queue_capacity",
            "Room in the queue, measured by its sizer.",
            &labels,
        );
        let enqueue_failed = metrics.counter(
            "otelcol_exporter_enqueue_failed_spans",
            "Spans that the queue had no room for.",
            &labels,
        );
        let (stop, stopped) = watch::channel(None);
        let shared = Shared {
            client,
            timeout,
            retry,
            stop: stopped,
            sent: metrics.counter(
                "otelcol_exporter_sent_spans",
                "Spans taken by the destination.",
                &labels,
            ),
            send_failed: metrics.counter(
                "otelcol_exporter_send_failed_spans",
                "Spans given up after sending.",
                &labels,
            ),
            losses: Losses::new(metrics, &format!("exporters/{id}")),
            id,
        };
        let consumers = if queue.enabled {
            queue.num_consumers
        } else {
            0
        };
        capacity.set_len(if queue.enabled { queue.queue_size } else { 0 });
        Ok(Self {
            id: context.id.clone(),
            storage,
            joining: queue.batch.clone(),
            queue: Arc::new(Queue::new(queue, size)),
            shared: Arc::new(shared),
            consumers,
            workers: Mutex::default(),
            stop,
            enqueue_failed,
            full_logged: Mutex::default(),
        })
    }

    /// Opens the storage, if there is one, and starts the workers; needs the runtime.
    pub async fn start(&self) -> Result<(), BoxError> {
        if let Some(storage) = &self.storage {
            let (log, contents) = storage.open(&self.id).await?;
            if let Some(salvaged) = &contents.salvaged {
                let spans = usize::try_from(salvaged.damaged_spans).unwrap_or(usize::MAX);
                self.shared
                    .lose(Loss::Damaged, spans, "the storage was damaged");
            }
            let (exporter, requests) = (&self.shared.id, contents.records.len());
            tracing::info!(exporter, requests, "storage is open");
            self.queue.keep_in(log, &contents);
        }
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..self.consumers {
            let queue = Arc::clone(&self.queue);
            let shared = Arc::clone(&self.shared);
            workers.spawn(async move {
                let damaged = |spans| shared.lose(Loss::Damaged, spans, "the storage is damaged");
                while let Some(taken) = queue.take(damaged).await {
                    if !shared.work(&queue, taken).await {
                        break;
                    }
                }
            });
        }
        Ok(())
    }

    /// Takes a batch over into the queue, or sends it at once if there is none.
    pub async fn consume(&self, batch: &Batch) -> Result<(), NotTaken> {
        let spans = batch.span_count();
        let loads = split::loads(batch, self.joining.as_ref());
        let largest = loads.iter().map(|load| load.body.len()).max();
        if let Some(bytes) = largest.filter(|bytes| *bytes > MAX_REQUEST_BYTES) {
            let exporter = &self.shared.id;
            tracing::warn!(exporter, spans, bytes, "batch is too large");
            self.enqueue_failed.add_len(spans);
            return Err(NotTaken(Loss::TooLarge));
        }
        if self.consumers == 0 {
            for load in loads {
                self.shared.deliver(load, false).await?;
            }
            return Ok(());
        }
        self.queue.push(loads).await.inspect_err(|why| {
            if matches!(why.0, Loss::QueueFull | Loss::DiskFull | Loss::Unwritable) {
                self.enqueue_failed.add_len(spans);
                self.log_full(*why);
            }
        })
    }

    fn log_full(&self, why: NotTaken) {
        let now = clock::instant();
        let mut logged = self
            .full_logged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|last| now.duration_since(last) >= FULL_LOG_INTERVAL) {
            *logged = Some(now);
            let (exporter, reason) = (&self.shared.id, why.0.as_str());
            let refused = self.enqueue_failed.get();
            tracing::warn!(exporter, reason, refused, "sending queue takes no spans");
        }
    }

    /// Sends what is queued until the deadline; the rest stays in the storage or is counted as
    /// lost. What is stored is no longer sent once the backend fails.
    pub async fn shutdown(&self, deadline: Instant) {
        // A send to the watch fails only if no worker is left to hear it.
        let _ = self.stop.send(Some(deadline));
        self.queue.close();
        let mut workers =
            std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, all).await.is_err() {
            // Waits for the tasks to be gone, so that the spans in their hands are counted.
            workers.shutdown().await;
        }
        let left = self.queue.end().await;
        if left > 0 {
            self.shared
                .lose(Loss::Shutdown, left, "time to stop is over");
        }
    }
}

fn storage(context: &Context, queue: &QueueSettings) -> Result<Option<Storage>, BoxError> {
    let Some(name) = &queue.storage else {
        return Ok(None);
    };
    let id = ComponentId::parse(name)?;
    let Some(extension) = context.extensions.get(&id) else {
        return Err(format!("sending_queue::storage: {id} is not in service::extensions").into());
    };
    let storage = extension.storage();
    let missing = || format!("sending_queue::storage: {id} stores nothing, name a file_storage");
    Ok(Some(storage.ok_or_else(missing)?))
}

/// Counts the spans of a load as lost if its task ends before it is settled.
struct InHand<'a> {
    shared: &'a Shared,
    spans: usize,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if self.spans > 0 {
            self.shared
                .lose(Loss::Shutdown, self.spans, "time to stop is over");
        }
    }
}

impl Shared {
    /// Sends a load and says in the queue what came of it. False: it stays there for the next start.
    async fn work(&self, queue: &Queue, taken: Taken) -> bool {
        let (spans, kept) = (taken.load.spans, queue.is_kept());
        let mut in_hand = InHand {
            shared: self,
            spans: if kept { 0 } else { spans },
        };
        let outcome = self.deliver(taken.load.clone(), kept).await;
        in_hand.spans = 0;
        if let Err(NotTaken(loss)) = outcome {
            if kept && loss == Loss::Shutdown {
                return false;
            }
            // Whoever waits for the outcome answers for the spans.
            if !taken.is_waited_for() {
                self.losses.count(loss, spans);
            }
        }
        queue.settle(taken, outcome).await;
        true
    }

    /// Sends until the backend has taken the load or it is given up; the caller counts the loss.
    /// `kept`: what is still there when the service stops is not given up.
    async fn deliver(&self, load: Load, kept: bool) -> Result<(), NotTaken> {
        let body = self.client.encode(load.body);
        match self.attempts(body).await {
            Ok(accepted) => {
                self.settle(&accepted, load.spans);
                Ok(())
            }
            Err((loss, message)) => {
                if !(kept && loss == Loss::Shutdown) {
                    self.give_up(loss, load.spans, &message);
                }
                Err(NotTaken(loss))
            }
        }
    }

    fn settle(&self, accepted: &Accepted, spans: usize) {
        let rejected = usize::try_from(accepted.rejected_spans)
            .unwrap_or(usize::MAX)
            .min(spans);
        self.sent.add_len(spans - rejected);
        if rejected > 0 {
            self.lose(Loss::PartlyRefused, rejected, &accepted.message);
        } else if !accepted.message.is_empty() {
            tracing::warn!(
                exporter = self.id,
                message = accepted.message,
                "destination took the spans with a warning"
            );
        }
    }

    fn lose(&self, loss: Loss, spans: usize, message: &str) {
        self.losses.count(loss, spans);
        self.give_up(loss, spans, message);
    }

    fn give_up(&self, loss: Loss, spans: usize, message: &str) {
        self.send_failed.add_len(spans);
        let (exporter, reason) = (&self.id, loss.as_str());
        tracing::warn!(exporter, spans, reason, message, "spans are given up");
    }

    async fn attempts(&self, body: Bytes) -> Result<Accepted, (Loss, String)> {
        let started = clock::instant();
        let mut backoff = Backoff::new(&self.retry);
        let mut last_call = false;
        loop {
            let answer = tokio::time::timeout(self.timeout, self.client.send(body.clone())).await;
            let refusal = match answer {
                Ok(Ok(accepted)) => return Ok(accepted),
                Ok(Err(refusal)) => refusal,
                Err(_) => {
                    let message = format!("no answer within {:?}", self.timeout);
                    Refusal {
                        message,
                        retry: Retry::Backoff,
                    }
                }
            };
            let asked = match refusal.retry {
                Retry::Never => return Err((Loss::Refused, refusal.message)),
                _ if !self.retry.enabled => return Err((Loss::Refused, refusal.message)),
                Retry::Backoff => None,
                Retry::After(wait) => Some(wait),
            };
            let wait = backoff.wait(asked, fastrand::f64());
            let limit = self.retry.max_elapsed_time;
            if !limit.is_zero() && clock::instant().duration_since(started) + wait > limit {
                return Err((Loss::RetriesExhausted, refusal.message));
            }
            tracing::info!(
                exporter = self.id,
                ?wait,
                message = refusal.message,
                "sending failed, will try again"
            );
            if !self.pause(wait, asked.is_some(), &mut last_call).await {
                return Err((Loss::Shutdown, refusal.message));
            }
        }
    }

    /// Waits before the next attempt. When the service stops, a wait of our own is cut
    /// short for one last attempt; one that the server asked for is not. False: give up.
    async fn pause(&self, wait: Duration, asked: bool, last_call: &mut bool) -> bool {
        let mut stop = self.stop.clone();
        let until = clock::instant() + wait;
        let running = async {
            // The sender of this watch lives as long as the workers' owner.
            stop.wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|deadline| *deadline)
        };
        let deadline = tokio::select! {
            biased;
            deadline = running => deadline,
            () = tokio::time::sleep_until(until) => return true,
        };
        if !asked && !std::mem::replace(last_call, true) {
            return true;
        }
        if deadline.is_none_or(|deadline| until > deadline) {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }
}
