//! Builds what a configuration describes and is not up already, without any IO.

use super::ServiceError;
use super::running::Up;
use crate::component::{BoxError, Context, Exporter, Processor, Receiver};
use crate::config::{ComponentId, Config, Fingerprint, Pipeline, Role};
use crate::extensions::{Extension, Extensions};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Components by id.
type Built<C> = BTreeMap<ComponentId, Box<C>>;

/// What is new in a configuration: built, and not started.
#[derive(Default)]
pub(super) struct Parts {
    /// New, or with other settings than the running ones.
    pub extensions: BTreeMap<ComponentId, Arc<dyn Extension>>,
    /// Likewise.
    pub receivers: Built<dyn Receiver>,
    /// Likewise.
    pub exporters: Built<dyn Exporter>,
    /// Likewise, by pipeline: each has its own.
    pub processors: BTreeMap<ComponentId, Built<dyn Processor>>,
}

impl Parts {
    /// Builds every component that a pipeline refers to and that is not up.
    pub fn build(config: &Config, up: &Up) -> Result<Self, ServiceError> {
        let mut parts = Self::default();
        let extensions = parts.add_extensions(config, up)?;
        let context = |id: &ComponentId| Context {
            id: id.clone(),
            metrics: up.metrics.clone(),
            extensions: extensions.clone(),
        };
        for pipeline in &config.pipelines {
            parts.add_receivers(config, pipeline, up, &context)?;
            parts.add_processors(config, pipeline, up, &context)?;
            parts.add_exporters(config, pipeline, up, &context)?;
        }
        Ok(parts)
    }

    /// Gives all of them, new or not.
    fn add_extensions(&mut self, config: &Config, up: &Up) -> Result<Extensions, ServiceError> {
        let mut all = BTreeMap::new();
        for id in &config.started_extensions {
            let running = up.extensions.get(id);
            if let Some(live) = running
                && is_current(config, Role::Extension, id, Some(live.fingerprint))
            {
                all.insert(id.clone(), Arc::clone(&live.extension));
            } else if let Some(settings) = config.extensions.get(id) {
                let context = Context {
                    id: id.clone(),
                    metrics: up.metrics.clone(),
                    extensions: Extensions::default(),
                };
                let built = settings.build(context).map_err(building("extension", id))?;
                self.extensions.insert(id.clone(), Arc::clone(&built));
                all.insert(id.clone(), built);
            }
        }
        Ok(Extensions::new(all))
    }

    fn add_receivers(
        &mut self,
        config: &Config,
        pipeline: &Pipeline,
        up: &Up,
        context: &impl Fn(&ComponentId) -> Context,
    ) -> Result<(), ServiceError> {
        for id in &pipeline.receivers {
            let running = up.receivers.get(id).map(|live| live.fingerprint);
            if self.receivers.contains_key(id) || is_current(config, Role::Receiver, id, running) {
                continue;
            }
            if let Some(settings) = config.receivers.get(id) {
                let built = settings.build(context(id));
                let built = built.map_err(building("receiver", id))?;
                self.receivers.insert(id.clone(), built);
            }
        }
        Ok(())
    }

    fn add_processors(
        &mut self,
        config: &Config,
        pipeline: &Pipeline,
        up: &Up,
        context: &impl Fn(&ComponentId) -> Context,
    ) -> Result<(), ServiceError> {
        let new = self.processors.entry(pipeline.id.clone()).or_default();
        for id in &pipeline.processors {
            let running = up.pipelines.get(&pipeline.id);
            let running = running.and_then(|live| live.processor(id));
            let running = running.map(|live| live.fingerprint);
            if is_current(config, Role::Processor, id, running) {
                continue;
            }
            if let Some(settings) = config.processors.get(id) {
                let built = settings.build(context(id));
                new.insert(id.clone(), built.map_err(building("processor", id))?);
            }
        }
        Ok(())
    }

    fn add_exporters(
        &mut self,
        config: &Config,
        pipeline: &Pipeline,
        up: &Up,
        context: &impl Fn(&ComponentId) -> Context,
    ) -> Result<(), ServiceError> {
        for id in &pipeline.exporters {
            let running = up.exporters.get(id).map(|live| live.fingerprint);
            if self.exporters.contains_key(id) || is_current(config, Role::Exporter, id, running) {
                continue;
            }
            if let Some(settings) = config.exporters.get(id) {
                let built = settings.build(context(id));
                let built = built.map_err(building("exporter", id))?;
                self.exporters.insert(id.clone(), built);
            }
        }
        Ok(())
    }
}

/// It runs with the settings that the configuration has.
pub(super) fn is_current(
    config: &Config,
    role: Role,
    id: &ComponentId,
    running: Option<Fingerprint>,
) -> bool {
    running == Some(config.fingerprints.get(role, id))
}

fn building(role: &'static str, id: &ComponentId) -> impl FnOnce(BoxError) -> ServiceError {
    let id = id.clone();
    move |source| ServiceError::Build { role, id, source }
}
