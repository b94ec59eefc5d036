//! Builds what a configuration describes and does not run already, without any IO.

use super::ServiceError;
use super::running::Up;
use crate::component::{BoxError, Context, Exporter, Processor, Receiver};
use crate::config::{ComponentId, Config, Fingerprint, Pipeline, Role};
use std::collections::BTreeMap;

/// Components by id.
type Built<C> = BTreeMap<ComponentId, Box<C>>;

/// What is new in a configuration: built, and not started.
#[derive(Default)]
pub(super) struct Parts {
    /// New, or with other settings than the running ones.
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
        for pipeline in &config.pipelines {
            parts.add_receivers(config, pipeline, up)?;
            parts.add_processors(config, pipeline, up)?;
            parts.add_exporters(config, pipeline, up)?;
        }
        Ok(parts)
    }

    fn add_receivers(
        &mut self,
        config: &Config,
        pipeline: &Pipeline,
        up: &Up,
    ) -> Result<(), ServiceError> {
        for id in &pipeline.receivers {
            let running = up.receivers.get(id).map(|live| live.fingerprint);
            if self.receivers.contains_key(id) || is_current(config, Role::Receiver, id, running) {
                continue;
            }
            if let Some(settings) = config.receivers.get(id) {
                let built = settings.build(context(id, up));
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
    ) -> Result<(), ServiceError> {
        let new = self.processors.entry(pipeline.id.clone()).or_default();
        for id in &pipeline.processors {
            let running = up.pipelines.get(&pipeline.id);
            let running = running.and_then(|live| live.processor(id));
            if is_current(config, Role::Processor, id, running) {
                continue;
            }
            if let Some(settings) = config.processors.get(id) {
                let built = settings.build(context(id, up));
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
    ) -> Result<(), ServiceError> {
        for id in &pipeline.exporters {
            let running = up.exporters.get(id).map(|live| live.fingerprint);
            if self.exporters.contains_key(id) || is_current(config, Role::Exporter, id, running) {
                continue;
            }
            if let Some(settings) = config.exporters.get(id) {
                let built = settings.build(context(id, up));
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

fn context(id: &ComponentId, up: &Up) -> Context {
    Context {
        id: id.clone(),
        metrics: up.metrics.clone(),
    }
}

fn building(role: &'static str, id: &ComponentId) -> impl FnOnce(BoxError) -> ServiceError {
    let id = id.clone();
    move |source| ServiceError::Build { role, id, source }
}
