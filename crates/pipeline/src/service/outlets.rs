//! How exporters and extensions come and go: beside each other where they can, one after
//! the other where they share a file or a store.

use super::ServiceError;
use super::build::{Parts, is_current};
use super::converge::starting;
use super::running::{LiveExporter, LiveExtension, Up};
use crate::component::Exporter;
use crate::config::{ComponentId, Config, Role};
use crate::extensions::Extension;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

impl Up {
    /// Starts those of which no other with the same id is up.
    pub async fn start_extensions(
        &mut self,
        config: &Config,
        parts: &mut Parts,
    ) -> Result<(), ServiceError> {
        for id in &config.started_extensions {
            if !self.extensions.contains_key(id)
                && let Some(extension) = parts.extensions.remove(id)
            {
                self.start_extension(config, id, extension).await?;
            }
        }
        Ok(())
    }

    async fn start_extension(
        &mut self,
        config: &Config,
        id: &ComponentId,
        extension: Arc<dyn Extension>,
    ) -> Result<(), ServiceError> {
        let started = extension.start().await;
        started.map_err(starting("extension", id))?;
        let last = self.extensions.values().map(|live| live.turn).max();
        let live = LiveExtension {
            fingerprint: config.fingerprints.get(Role::Extension, id),
            extension,
            turn: last.map_or(0, |last| last + 1),
        };
        self.extensions.insert(id.clone(), live);
        Ok(())
    }

    /// Starts the new ones but those that must wait for an old one to let go of a file, or
    /// for an extension.
    pub async fn start_exporters(
        &mut self,
        config: &Config,
        parts: &mut Parts,
        deadline: Instant,
    ) -> Result<BTreeMap<ComponentId, LiveExporter>, ServiceError> {
        let mut fresh = BTreeMap::new();
        let ids: Vec<_> = parts.exporters.keys().cloned().collect();
        for id in ids {
            let held = parts.exporters.get(&id).and_then(|built| built.holds());
            let in_use = |live: &LiveExporter| held.is_some() && live.exporter.holds() == held;
            let settings = config.exporters.get(&id);
            let extension = settings.and_then(|settings| settings.extension());
            let waits = extension.is_some_and(|(_, name)| {
                let extension = ComponentId::parse(name);
                extension.is_ok_and(|id| parts.extensions.contains_key(&id))
            });
            if waits || self.exporters.values().any(in_use) {
                continue;
            }
            let Some(exporter) = parts.exporters.remove(&id) else {
                continue;
            };
            match self.start_exporter(config, &id, exporter).await {
                Ok(live) => fresh.insert(id, live),
                Err(error) => {
                    for live in fresh.into_values() {
                        live.exporter.shutdown(deadline).await;
                    }
                    return Err(error);
                }
            };
        }
        Ok(fresh)
    }

    async fn start_exporter(
        &mut self,
        config: &Config,
        id: &ComponentId,
        mut exporter: Box<dyn Exporter>,
    ) -> Result<LiveExporter, ServiceError> {
        let held = exporter.holds();
        if held.as_ref().is_some_and(|held| self.held.contains(held)) {
            exporter.take_over();
        }
        exporter.start().await.map_err(starting("exporter", id))?;
        self.held.extend(held);
        Ok(LiveExporter {
            fingerprint: config.fingerprints.get(Role::Exporter, id),
            exporter: Arc::from(exporter),
        })
    }

    /// Takes out those that are not wanted, or not with the settings they have.
    pub fn retire_exporters(
        &mut self,
        config: &Config,
        fresh: BTreeMap<ComponentId, LiveExporter>,
    ) -> Vec<LiveExporter> {
        let exporters = std::mem::take(&mut self.exporters);
        let (current, retired): (BTreeMap<_, _>, BTreeMap<_, _>) =
            exporters.into_iter().partition(|(id, live)| {
                let wanted = config
                    .pipelines
                    .iter()
                    .any(|one| one.exporters.contains(id));
                wanted && is_current(config, Role::Exporter, id, Some(live.fingerprint))
            });
        for id in retired.keys() {
            if !config
                .pipelines
                .iter()
                .any(|one| one.exporters.contains(id))
            {
                self.metrics.forget_gauges(("exporter", id.as_str()));
            }
        }
        self.exporters = current;
        self.exporters.extend(fresh);
        retired.into_values().collect()
    }

    /// Ends exporters that have a file or store, and changed extensions; then starts those
    /// that had to wait for that.
    pub async fn change_hands(
        &mut self,
        config: &Config,
        parts: &mut Parts,
        retired: &[LiveExporter],
        deadline: Instant,
    ) -> Result<(), ServiceError> {
        for live in retired {
            if live.exporter.holds().is_some() {
                live.exporter.shutdown(deadline).await;
            }
        }
        for (id, extension) in std::mem::take(&mut parts.extensions) {
            if let Some(old) = self.extensions.remove(&id) {
                old.extension.shutdown(deadline).await;
            }
            self.start_extension(config, &id, extension).await?;
        }
        for (id, exporter) in std::mem::take(&mut parts.exporters) {
            let live = self.start_exporter(config, &id, exporter).await?;
            self.exporters.insert(id, live);
        }
        Ok(())
    }

    /// Lets the old exporters that have not ended yet send what they have, beside the new ones.
    pub fn drain(&mut self, retired: Vec<LiveExporter>, deadline: Instant) {
        for live in retired {
            let exporter = live.exporter;
            if exporter.holds().is_none() {
                let shutdown = async move { exporter.shutdown(deadline).await };
                self.draining.spawn(shutdown);
            }
        }
        while self.draining.try_join_next().is_some() {}
    }

    /// Ends extensions that are not wanted any more.
    pub async fn end_extensions(&mut self, config: &Config, deadline: Instant) {
        let unwanted = |id: &ComponentId| !config.started_extensions.contains(id);
        let ended: Vec<_> = self
            .extensions
            .extract_if(.., |id, _| unwanted(id))
            .collect();
        for (_, live) in ended {
            live.extension.shutdown(deadline).await;
        }
    }
}
