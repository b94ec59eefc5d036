//! Spans for people: a line a batch, a line a span, or a tree a trace.

mod config;
mod shown;
mod waterfall;

pub use config::{DebugSettings, Verbosity};

use super::writer::{Open, Writer};
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Exporter, ExporterSettings};
use crate::receipt::NotTaken;
use async_trait::async_trait;
use shown::ShownSpan;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use waterfall::{Printed, Waterfall};

impl ExporterSettings for DebugSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Exporter>, BoxError> {
        let path = self.output_paths.first().map_or("stdout", String::as_str);
        let shared = Shared {
            id: context.id.to_string(),
            verbosity: self.verbosity,
            writer: Writer::new(&context, path, Open::Append),
            waterfall: Mutex::new(Waterfall::new(self.trace_idle)),
        };
        Ok(Box::new(Debug {
            shared: Arc::new(shared),
            tick: (self.trace_idle / 4).max(MIN_TICK),
            ticker: None,
        }))
    }
}

const MIN_TICK: Duration = Duration::from_millis(20);

struct Debug {
    shared: Arc<Shared>,
    tick: Duration,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    id: String,
    verbosity: Verbosity,
    writer: Writer,
    waterfall: Mutex<Waterfall>,
}

#[async_trait]
impl Exporter for Debug {
    async fn start(&mut self) -> Result<(), BoxError> {
        self.shared.writer.start()?;
        if self.shared.verbosity == Verbosity::Detailed {
            let shared = Arc::clone(&self.shared);
            let tick = self.tick;
            self.ticker = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(tick).await;
                    let printed = shared.waterfall().idle(Monotonic::now());
                    shared.print(printed).await;
                }
            }));
        }
        Ok(())
    }

    async fn consume(&self, batch: Arc<Batch>) -> Result<(), NotTaken> {
        if self.shared.verbosity == Verbosity::Detailed {
            let printed = self.shared.waterfall().add(&batch, Monotonic::now());
            // The spans are ours already, also those that the writer does not take.
            self.shared.print(printed).await;
            return Ok(());
        }
        let lines = self.shared.lines(&batch).into_bytes();
        self.shared.writer.write(lines, batch.span_count()).await
    }

    async fn shutdown(&self, deadline: Instant) {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
        }
        let printed = self.shared.waterfall().all();
        // A full queue in front of a stuck terminal must not hold up the stop.
        let _ = tokio::time::timeout_at(deadline, self.shared.print(printed)).await;
        self.shared.writer.shutdown(deadline).await;
    }
}

impl Shared {
    fn waterfall(&self) -> MutexGuard<'_, Waterfall> {
        self.waterfall
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn print(&self, printed: Printed) {
        if !printed.text.is_empty() {
            let spans = printed.spans;
            if let Err(why) = self.writer.write(printed.text.into_bytes(), spans).await {
                self.writer.lose(why, spans);
            }
        }
    }

    fn lines(&self, batch: &Batch) -> String {
        let resource_spans = batch.resource_spans();
        let mut text = format!(
            "Traces {{\"otelcol.component.id\": {:?}, \"resource spans\": {}, \"spans\": {}}}\n",
            self.id,
            resource_spans.len(),
            batch.span_count(),
        );
        if self.verbosity == Verbosity::Normal {
            for span in ShownSpan::all(&resource_spans) {
                text.push_str(&span.line());
            }
        }
        text
    }
}
