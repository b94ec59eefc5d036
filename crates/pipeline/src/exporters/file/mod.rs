//! Requests of OTLP into a file, one after the other (specification, protocol/file-exporter.md;
//! what is no line of JSON stands behind its length, four bytes big-endian, as the Collector does).

mod config;
mod rotation;

pub use config::FileSettings;

use super::writer::{Open, Writer};
use crate::batch::Batch;
use crate::component::{BoxError, Context, Exporter, ExporterSettings};
use crate::otlp_json;
use crate::receipt::NotTaken;
use crate::telemetry::Loss;
use async_trait::async_trait;
use config::{Compression, Format};
use rotation::RotatingFile;
use std::path::Path;
use std::sync::Arc;
use tokio::time::Instant;

/// The usual compromise of zstd.
const ZSTD_LEVEL: i32 = 3;

impl ExporterSettings for FileSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Exporter>, BoxError> {
        let open = match (&self.rotation, self.append) {
            (Some(rotation), _) => {
                let rotation = rotation.clone();
                Open::With(Arc::new(move |path| {
                    let file = RotatingFile::open(Path::new(path), rotation.clone())?;
                    Ok(Box::new(file))
                }))
            }
            (None, true) => Open::Append,
            (None, false) => Open::Truncate,
        };
        Ok(Box::new(File {
            writer: Writer::new(&context, &self.path, open),
            format: self.format,
            compression: self.compression,
        }))
    }
}

struct File {
    writer: Writer,
    format: Format,
    compression: Option<Compression>,
}

impl File {
    /// A request as it stands in the file.
    fn encode(&self, batch: &Batch) -> Result<Vec<u8>, NotTaken> {
        let json = || otlp_json::encode(&batch.resource_spans());
        let message = match (self.format, self.compression) {
            (Format::Json, None) => {
                let mut line = json();
                line.push(b'\n');
                return Ok(line);
            }
            (Format::Json, Some(Compression::Zstd)) => compressed(&json())?,
            (Format::Proto, None) => batch.encode().to_vec(),
            (Format::Proto, Some(Compression::Zstd)) => compressed(&batch.encode())?,
        };
        let length = u32::try_from(message.len()).map_err(|_| NotTaken(Loss::TooLarge))?;
        Ok([&length.to_be_bytes()[..], &message].concat())
    }
}

fn compressed(message: &[u8]) -> Result<Vec<u8>, NotTaken> {
    zstd::bulk::compress(message, ZSTD_LEVEL).map_err(|error| {
        tracing::error!(%error, "cannot compress a batch");
        NotTaken(Loss::Unwritable)
    })
}

#[async_trait]
impl Exporter for File {
    async fn start(&mut self) -> Result<(), BoxError> {
        self.writer.start()
    }

    async fn consume(&self, batch: Arc<Batch>) -> Result<(), NotTaken> {
        let chunk = self.encode(&batch)?;
        self.writer.write(chunk, batch.span_count()).await
    }

    async fn shutdown(&self, deadline: Instant) {
        self.writer.shutdown(deadline).await;
    }
}
