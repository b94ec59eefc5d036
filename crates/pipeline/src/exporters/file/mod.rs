//! OTLP/JSON lines into a file (specification, protocol/file-exporter.md).

mod config;

pub use config::FileSettings;

use super::writer::{Open, Writer};
use crate::batch::Batch;
use crate::component::{BoxError, Context, Exporter, ExporterSettings};
use crate::otlp_json;
use crate::receipt::NotTaken;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::time::Instant;

impl ExporterSettings for FileSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Exporter>, BoxError> {
        let open = if self.append {
            Open::Append
        } else {
            Open::Truncate
        };
        Ok(Box::new(File {
            writer: Writer::new(&context, &self.path, open),
        }))
    }
}

struct File {
    writer: Writer,
}

#[async_trait]
impl Exporter for File {
    async fn start(&mut self) -> Result<(), BoxError> {
        self.writer.start()
    }

    async fn consume(&self, batch: Arc<Batch>) -> Result<(), NotTaken> {
        let mut line = otlp_json::encode(&batch.resource_spans());
        line.push(b'\n');
        self.writer.write(line, batch.span_count()).await
    }

    async fn shutdown(&self, deadline: Instant) {
        self.writer.shutdown(deadline).await;
    }

    fn holds(&self) -> Option<String> {
        self.writer.holds()
    }

    fn take_over(&mut self) {
        self.writer.take_over();
    }
}
