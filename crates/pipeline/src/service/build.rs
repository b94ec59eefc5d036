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
            let Pipeline { id, .. } = pipeline;
            let (receivers, exporters) = (&mut parts.receivers, &mut parts.exporters);
            add(receivers, "receiver", &pipeline.receivers, |id| {
                let running = up.receivers.get(id).map(|live| live.fingerprint);
                let new = !is_current(config, Role::Receiver, id, running);
                let settings = config.receivers.get(id).filter(|_| new)?;
                Some(settings.build(context(id)))
            })?;
            add(exporters, "exporter", &pipeline.exporters, |id| {
                let running = up.exporters.get(id).map(|live| live.fingerprint);
                let new = !is_current(config, Role::Exporter, id, running);
                let settings = config.exporters.get(id).filter(|_| new)?;
                Some(settings.build(context(id)))
            })?;
            let processors = parts.processors.entry(id.clone()).or_default();
            add(processors, "processor", &pipeline.processors, |processor| {
                let running = up.pipelines.get(id);
                let running = running.and_then(|live| live.processor(processor));
                let running = running.map(|live| live.fingerprint);
                let new = !is_current(config, Role::Processor, processor, running);
                let settings = config.processors.get(processor).filter(|_| new)?;
                Some(settings.build(context(processor)))
            })?;
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
}

/// Builds those that `build` has something for and that another pipeline has not had built.
fn add<C: ?Sized>(
    built: &mut Built<C>,
    role: &'static str,
    ids: &[ComponentId],
    build: impl Fn(&ComponentId) -> Option<Result<Box<C>, BoxError>>,
) -> Result<(), ServiceError> {
    for id in ids {
        if built.contains_key(id) {
            continue;
        }
        if let Some(new) = build(id) {
            built.insert(id.clone(), new.map_err(building(role, id))?);
        }
    }
    Ok(())
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
