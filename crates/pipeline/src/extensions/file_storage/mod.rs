//! Keeps what waits in a sending queue on the disk, one file for each exporter that names it.
//!
//! | file | what it does |
//! |---|---|
//! | `worker` | the thread of a file: joins commits, opens anew after errors |
//! | `store` | a file in redb's hands |
//! | `record` | what a record is, with its checksums |
//! | `salvage` | a new file from what can be read of a damaged one |
//! | `reserve` | room for removals on a full disk |

mod backend;
mod config;
mod record;
mod reserve;
mod salvage;
mod store;
#[cfg(test)]
mod tests;
mod worker;

pub use config::FileStorageSettings;
pub use store::Record;
pub use worker::{Contents, Log, Unstored};

use crate::clock;
use crate::component::{BoxError, Context, ExtensionSettings};
use crate::config::ComponentId;
use crate::extensions::Extension;
use crate::telemetry::Metrics;
use async_trait::async_trait;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use tokio::time::Instant;
use worker::{Location, Meters};

/// Between two attempts to open a file that another process has open.
const OPEN_INTERVAL: Duration = Duration::from_millis(50);

impl ExtensionSettings for FileStorageSettings {
    fn build(&self, context: Context) -> Result<Arc<dyn Extension>, BoxError> {
        Ok(Arc::new(FileStorage {
            storage: Storage {
                id: context.id,
                settings: self.clone(),
                metrics: context.metrics,
            },
        }))
    }
}

struct FileStorage {
    storage: Storage,
}

#[async_trait]
impl Extension for FileStorage {
    async fn start(&self) -> Result<(), BoxError> {
        let settings = &self.storage.settings;
        prepare(&settings.directory, settings.create_directory)
    }

    fn storage(&self) -> Option<Storage> {
        Some(self.storage.clone())
    }

    /// Exporters close their files themselves.
    async fn shutdown(&self, _: Instant) {}
}

fn prepare(directory: &Path, create: bool) -> Result<(), BoxError> {
    if create {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)
            .map_err(|error| format!("cannot make directory {}: {error}", directory.display()))?;
    }
    if directory.is_dir() {
        return Ok(());
    }
    let hint = "make it, or set create_directory: true";
    Err(format!("there is no directory {}: {hint}", directory.display()).into())
}

/// What an exporter gets its file from.
#[derive(Clone, Debug)]
pub struct Storage {
    id: ComponentId,
    settings: FileStorageSettings,
    metrics: Metrics,
}

impl Storage {
    /// Opens the file of an exporter, or makes it.
    pub async fn open(&self, exporter: &ComponentId) -> Result<(Log, Contents), BoxError> {
        let path = self.settings.directory.join(file_name(exporter));
        let meters = Meters::new(&self.metrics, self.id.as_str(), exporter.as_str());
        let location = Location {
            path: path.clone(),
            fsync: self.settings.fsync,
            compact: self.settings.compaction.on_start,
        };
        let deadline = clock::instant() + self.settings.timeout;
        loop {
            let (location, meters) = (location.clone(), meters.clone());
            let opened = tokio::task::spawn_blocking(|| worker::start(location, meters)).await?;
            match opened {
                Err(StoreError::InUse) if clock::instant() < deadline => {
                    tokio::time::sleep(OPEN_INTERVAL).await;
                }
                opened => {
                    let failed = |error| format!("cannot open {}: {error}", path.display());
                    return Ok(opened.map_err(failed)?);
                }
            }
        }
    }
}

/// `exporter_type_name`; what is unsafe in a file name is written as `~` and its code point.
fn file_name(exporter: &ComponentId) -> String {
    let id = exporter.as_str();
    let (kind, name) = id.split_once('/').unwrap_or((id, ""));
    let mut file = format!("exporter_{kind}_");
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') {
            file.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(file, "~{:04X}", u32::from(c));
        }
    }
    file
}
