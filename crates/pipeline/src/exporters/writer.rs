//! A thread that writes: a slow disk or terminal holds up no task of the runtime.

use crate::clock;
use crate::component::{BoxError, Context};
use crate::receipt::NotTaken;
use crate::telemetry::{Counter, Loss, Losses};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Chunks that wait for the disk; then the pipeline waits.
const QUEUE_CHUNKS: usize = 64;
/// The thread has ended.
const GONE: NotTaken = NotTaken(Loss::Shutdown);

/// Where chunks go; one `write_all` each.
type Sink = Box<dyn Write + Send>;

/// What becomes of a file that is there already.
#[derive(Clone)]
pub enum Open {
    /// Written behind its end.
    Append,
    /// Emptied.
    Truncate,
    /// What this makes of it.
    With(Arc<dyn Fn(&str) -> io::Result<Sink> + Send + Sync>),
}

struct Chunk {
    bytes: Vec<u8>,
    spans: usize,
}

/// Writes chunks in order and counts what became of their spans.
pub struct Writer {
    path: String,
    mode: Open,
    id: String,
    sent: Counter,
    failed: Counter,
    losses: Losses,
    running: Mutex<Option<Thread>>,
}

struct Thread {
    chunks: mpsc::Sender<Chunk>,
    ended: oneshot::Receiver<()>,
    /// Spans handed over and not yet written.
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    /// `path` is a file, `stdout` or `stderr`; nothing is opened yet.
    pub fn new(context: &Context, path: &str, mode: Open) -> Self {
        let id = context.id.to_string();
        let labels = [("exporter", id.as_str())];
        let metrics = &context.metrics;
        Self {
            path: path.to_owned(),
            mode,
            sent: metrics.counter(
                "otelcol_exporter_sent_spans",
                "Spans taken by the destination.",
                &labels,
            ),
            failed: metrics.counter(
                "otelcol_exporter_send_failed_spans",
                "Spans given up after sending.",
                &labels,
            ),
            losses: Losses::new(metrics, &format!("exporters/{id}")),
            id,
            running: Mutex::default(),
        }
    }

    /// Opens the file and starts the thread.
    pub fn start(&self) -> Result<(), BoxError> {
        let sink = open(&self.path, &self.mode)
            .map_err(|error| format!("cannot open {}: {error}", self.path))?;
        let (chunks, queue) = mpsc::channel(QUEUE_CHUNKS);
        let (done, ended) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let work = Work {
            id: self.id.clone(),
            path: self.path.clone(),
            sink,
            sent: self.sent.clone(),
            failed: self.failed.clone(),
            losses: self.losses.clone(),
            waiting: Arc::clone(&waiting),
            broken: false,
        };
        std::thread::Builder::new()
            .name("deeptrace-write".to_owned())
            .spawn(move || {
                work.run(queue);
                // Nobody waits any more if this fails.
                let _ = done.send(());
            })?;
        *self.lock() = Some(Thread {
            chunks,
            ended,
            waiting,
        });
        Ok(())
    }

    /// Hands text with so many spans over; waits for room.
    pub async fn write(&self, bytes: Vec<u8>, spans: usize) -> Result<(), NotTaken> {
        let thread = self
            .lock()
            .as_ref()
            .map(|thread| (thread.chunks.clone(), Arc::clone(&thread.waiting)));
        let Some((chunks, waiting)) = thread else {
            return Err(GONE);
        };
        waiting.fetch_add(spans, Ordering::Relaxed);
        if chunks.send(Chunk { bytes, spans }).await.is_err() {
            waiting.fetch_sub(spans, Ordering::Relaxed);
            return Err(GONE);
        }
        Ok(())
    }

    /// Waits until all is written, at most until the deadline.
    pub async fn shutdown(&self, deadline: Instant) {
        let Some(Thread {
            chunks,
            ended,
            waiting,
        }) = self.lock().take()
        else {
            return;
        };
        drop(chunks);
        if tokio::time::timeout_at(deadline.max(clock::instant()), ended)
            .await
            .is_err()
        {
            self.lose(GONE, waiting.load(Ordering::Relaxed));
        }
    }

    /// Counts spans as given up.
    pub fn lose(&self, NotTaken(loss): NotTaken, spans: usize) {
        self.failed.add_len(spans);
        self.losses.count(loss, spans);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Thread>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Work {
    id: String,
    path: String,
    sink: Sink,
    sent: Counter,
    failed: Counter,
    losses: Losses,
    waiting: Arc<AtomicUsize>,
    broken: bool,
}

impl Work {
    fn run(mut self, mut queue: mpsc::Receiver<Chunk>) {
        while let Some(chunk) = queue.blocking_recv() {
            let result = self
                .sink
                .write_all(&chunk.bytes)
                .and_then(|()| self.sink.flush());
            self.waiting.fetch_sub(chunk.spans, Ordering::Relaxed);
            match result {
                Ok(()) => self.sent.add_len(chunk.spans),
                Err(error) => {
                    self.failed.add_len(chunk.spans);
                    self.losses.count(Loss::Unwritable, chunk.spans);
                    if !self.broken {
                        tracing::error!(exporter = self.id, path = self.path, %error, "cannot write, spans are lost");
                    }
                    self.broken = true;
                }
            }
        }
    }
}

fn open(path: &str, mode: &Open) -> io::Result<Sink> {
    let mut options = OpenOptions::new();
    options.create(true);
    match mode {
        // Not opened anew: a file behind it would be written from its beginning.
        _ if matches!(path, "stdout" | "/dev/stdout") => return Ok(Box::new(io::stdout())),
        _ if matches!(path, "stderr" | "/dev/stderr") => return Ok(Box::new(io::stderr())),
        Open::With(open) => return open(path),
        Open::Append => options.append(true),
        Open::Truncate => options.write(true).truncate(true),
    };
    Ok(Box::new(options.open(path)?))
}
