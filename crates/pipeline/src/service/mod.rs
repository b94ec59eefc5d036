//! Builds what a configuration describes, runs it, changes it, and stops it in the order of the data.
//!
//! ```text
//! start:  metrics endpoint, extensions, exporters, pipelines, receivers
//! stop:   receivers -> pipelines drain -> exporters drain -> extensions, under one deadline
//! ```
//! A start is a reload of which nothing runs yet: [`converge`] does both.

mod build;
mod converge;
mod outlets;
mod reload;
mod running;

pub use reload::Reloads;

use crate::component::BoxError;
use crate::config::{ComponentId, Config};
use crate::telemetry::{Identity, Metrics, Sample, ServeError, process};
use build::Parts;
use running::Up;

/// The service did not come up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A component could not be built from its settings.
    #[error("cannot build {role} {id}")]
    Build {
        /// `extension`, `receiver`, `processor` or `exporter`.
        role: &'static str,
        /// As configured.
        id: ComponentId,
        /// Why.
        source: BoxError,
    },
    /// A component could not be started.
    #[error("cannot start {role} {id}")]
    Start {
        /// `extension`, `receiver` or `exporter`.
        role: &'static str,
        /// As configured.
        id: ComponentId,
        /// Why.
        source: BoxError,
    },
    /// The metrics endpoint could not be opened.
    #[error(transparent)]
    Metrics(#[from] ServeError),
    /// Own telemetry cannot be sent.
    #[error("cannot send own telemetry (service::telemetry)")]
    Push(#[source] BoxError),
    /// A pipeline waits for an exporter since before the last reload.
    #[error("pipeline {0} has not taken up the reload before, since an exporter holds it up")]
    Busy(ComponentId),
}

/// What ended a service that had come up, other than being told to stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A receiver ended with an error.
    #[error("receiver {id} failed")]
    Receiver {
        /// As configured.
        id: ComponentId,
        /// Why.
        source: BoxError,
    },
    /// Neither the new configuration nor the old one could be brought up.
    #[error("the old configuration does not come up again after a reload that failed")]
    Reload(#[source] ServiceError),
    /// A bug: `receiver` or `pipeline`.
    #[error("a {0} panicked")]
    Panicked(&'static str),
}

/// What there is to say when a service has stopped.
#[derive(Debug)]
pub struct Summary {
    /// All metrics at the end, ordered by name and labels.
    pub samples: Vec<Sample>,
    /// Why it stopped, unless it was told to.
    pub failure: Option<Failure>,
}

/// A configuration, built and not yet running.
pub struct Service {
    config: Config,
    parts: Parts,
    up: Up,
}

impl Service {
    /// Builds every component that a pipeline refers to, and the extensions, without any IO.
    pub fn build(config: &Config, metrics: Metrics) -> Result<Self, ServiceError> {
        let up = Up::new(metrics);
        Ok(Self {
            config: config.clone(),
            parts: Parts::build(config, &up)?,
            up,
        })
    }

    /// Tells of itself by this name.
    #[must_use]
    pub fn named(mut self, identity: Identity) -> Self {
        self.up.identity = identity;
        self
    }

    /// Runs until `until` resolves or something fails, then stops under the deadline.
    pub async fn run(self, until: impl Future<Output = ()>) -> Result<Summary, ServiceError> {
        self.run_with(until, Reloads::never()).await
    }

    /// Runs likewise, and takes over a new configuration whenever one is there.
    pub async fn run_with(
        self,
        until: impl Future<Output = ()>,
        mut reloads: Reloads,
    ) -> Result<Summary, ServiceError> {
        let Self {
            mut config,
            parts,
            mut up,
        } = self;
        let metrics = up.metrics.clone();
        process::register(&metrics);
        reloads.register(&metrics);
        if let Err(error) = up.converge(&config, parts).await {
            up.stop(config.shutdown_timeout).await;
            return Err(error);
        }
        tracing::info!("everything is running");
        let mut until = std::pin::pin!(until);
        let failure = loop {
            tokio::select! {
                () = &mut until => break None,
                failure = up.failure() => break Some(failure),
                loaded = reloads.next() => {
                    let hurry = up.hurry.clone();
                    let mut reload = std::pin::pin!(reloads.apply(loaded, &mut config, &mut up));
                    let done = tokio::select! {
                        done = &mut reload => done,
                        () = &mut until => {
                            // Half a reload cannot be stopped: it comes to its end first.
                            hurry.cancel();
                            break reload.await.err();
                        }
                    };
                    if let Err(failure) = done {
                        break Some(failure);
                    }
                }
            }
        };
        match &failure {
            None => tracing::info!("stopping"),
            Some(failure) => tracing::error!(%failure, "stopping"),
        }
        up.stop(config.shutdown_timeout).await;
        Ok(Summary {
            samples: metrics.samples(),
            failure,
        })
    }
}
