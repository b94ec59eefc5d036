//! When a new configuration is read, and what becomes of one that cannot be used.

use super::build::Parts;
use super::running::Up;
use super::{Failure, ServiceError};
use crate::component::error_chain;
use crate::config::{Config, ConfigError};
use crate::telemetry::{Counter, Metrics, change_level};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

type Load = Box<dyn FnMut() -> Result<Config, ConfigError> + Send>;

/// Asks for a new configuration, and reads it.
pub struct Reloads {
    wanted: Option<mpsc::Receiver<()>>,
    load: Load,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    taken_over: Counter,
    invalid: Counter,
    failed: Counter,
}

impl Reloads {
    /// The configuration stays as it is.
    pub fn never() -> Self {
        Self {
            wanted: None,
            load: Box::new(|| Err(ConfigError::nothing())),
            counts: Counts::default(),
        }
    }

    /// Whenever something comes in. What comes while a reload is under way is one more reload.
    pub fn new(
        wanted: mpsc::Receiver<()>,
        load: impl FnMut() -> Result<Config, ConfigError> + Send + 'static,
    ) -> Self {
        Self {
            wanted: Some(wanted),
            load: Box::new(load),
            counts: Counts::default(),
        }
    }

    /// At SIGHUP; needs the runtime.
    pub fn at_hangup(
        load: impl FnMut() -> Result<Config, ConfigError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (want, wanted) = mpsc::channel(1);
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // Full: a reload is wanted already.
                if matches!(
                    want.try_send(()),
                    Err(mpsc::error::TrySendError::Closed(()))
                ) {
                    return;
                }
            }
        });
        Ok(Self::new(wanted, load))
    }

    pub(super) fn register(&mut self, metrics: &Metrics) {
        let counter = |result| {
            let help = "Reloads of the configuration, by result.";
            metrics.counter("deeptrace_config_reloads", help, &[("result", result)])
        };
        self.counts = Counts {
            taken_over: counter("taken_over"),
            invalid: counter("invalid"),
            failed: counter("failed"),
        };
    }

    /// The new configuration, once one is wanted.
    pub(super) async fn next(&mut self) -> Result<Config, ConfigError> {
        let wanted = match &mut self.wanted {
            Some(wanted) => wanted.recv().await,
            None => None,
        };
        match wanted {
            Some(()) => (self.load)(),
            None => std::future::pending().await,
        }
    }

    /// Brings it up in place of the old one, or leaves everything as it is.
    pub(super) async fn apply(
        &mut self,
        loaded: Result<Config, ConfigError>,
        config: &mut Config,
        up: &mut Up,
    ) -> Result<(), Failure> {
        let new = match loaded {
            Ok(new) => new,
            Err(error) => {
                self.counts.invalid.inc();
                for finding in &error.findings {
                    tracing::error!("{finding}");
                }
                tracing::error!("the new configuration cannot be used, the old one stays");
                return Ok(());
            }
        };
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        let outcome = match up.take_turn(config).await {
            Ok(()) => switch(up, &new).await,
            busy => busy,
        };
        match outcome {
            Ok(()) => {
                self.counts.taken_over.inc();
                if let Err(error) = change_level(&new.telemetry.logs) {
                    tracing::error!(error = error_chain(&error), "the log level");
                }
                let (old_logs, new_logs) = (&config.telemetry.logs, &new.telemetry.logs);
                if (old_logs.encoding, &old_logs.sampling)
                    != (new_logs.encoding, &new_logs.sampling)
                {
                    tracing::warn!("logs::encoding and logs::sampling change at the next start");
                }
                *config = new;
                tracing::info!("the new configuration is running");
                Ok(())
            }
            Err(error) => {
                self.counts.failed.inc();
                let error = error_chain(&error);
                tracing::error!(
                    error,
                    "the new configuration does not come up, back to the old one"
                );
                switch(up, config).await.map_err(Failure::Reload)
            }
        }
    }
}

async fn switch(up: &mut Up, config: &Config) -> Result<(), ServiceError> {
    let parts = Parts::build(config, up)?;
    up.converge(config, parts).await
}
