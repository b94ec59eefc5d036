//! What stands beside the pipelines and serves them or their operator: a folder each.
//!
//! Extensions start before everything else and stop after it. What a component may ask of one
//! is a method of [`Extension`] that answers `None` unless that extension offers it.

pub(crate) mod file_storage;
mod health_check;

use crate::component::{BoxError, ExtensionFactory, Factory};
use crate::config::ComponentId;
use async_trait::async_trait;
pub use file_storage::Storage;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::time::Instant;

/// `file_storage`: keeps sending queues on the disk.
pub const FILE_STORAGE: ExtensionFactory =
    Factory::extension::<file_storage::FileStorageSettings>("file_storage");
/// `health_check`: says over HTTP whether the pipelines work.
pub const HEALTH_CHECK: ExtensionFactory =
    Factory::extension::<health_check::HealthCheckSettings>("health_check");

/// Every extension of this crate.
pub const ALL: &[ExtensionFactory] = &[FILE_STORAGE, HEALTH_CHECK];

/// One extension; components that use it share it.
#[async_trait]
pub trait Extension: Send + Sync {
    /// Opens what it needs; an error stops the start of the service.
    async fn start(&self) -> Result<(), BoxError>;

    /// Hears that everything is running (`true`), and that the service begins to stop (`false`).
    fn pipelines_ready(&self, ready: bool) {
        let _ = ready;
    }

    /// Where exporters may keep their queues, if that is what it offers.
    fn storage(&self) -> Option<Storage> {
        None
    }

    /// Closes what it has open; no component uses it any more.
    async fn shutdown(&self, deadline: Instant);
}

/// The extensions of a service that are switched on, by id.
#[derive(Clone, Default)]
pub struct Extensions(Arc<BTreeMap<ComponentId, Arc<dyn Extension>>>);

impl Extensions {
    /// These and no others.
    pub fn new(extensions: BTreeMap<ComponentId, Arc<dyn Extension>>) -> Self {
        Self(Arc::new(extensions))
    }

    /// The extension of this id.
    pub fn get(&self, id: &ComponentId) -> Option<&Arc<dyn Extension>> {
        self.0.get(id)
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
