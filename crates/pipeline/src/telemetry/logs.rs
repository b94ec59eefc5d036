//! Own logs go to stderr, so that `debug` and `file` exporters have stdout.

use super::sampling::Sampling;
use super::settings::{Encoding, LogSettings};
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The process has one log, and so one level that can be changed.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no filter.
    #[error("log level {level:?} is not a filter")]
    Level {
        /// As configured.
        level: String,
        /// What the parser says.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    Already(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The level could not be changed.
    #[error("the log level stays as it is")]
    Change(#[source] reload::Error),
}

/// Sends the process' logs to stderr at the configured level. Once a process.
pub fn init_logs(settings: &LogSettings) -> Result<(), LogError> {
    let (filter, level) = reload::Layer::new(filter(settings)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // A log that cannot be written would be told by `eprintln!`, which panics when stderr is
        // a pipe that broke: whoever reads the logs must not be able to end the collector.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let lines = match settings.encoding {
        Encoding::Console => lines.boxed(),
        Encoding::Json => lines.json().flatten_event(true).boxed(),
    };
    let sampling = settings
        .sampling
        .enabled
        .then(|| Sampling::new(&settings.sampling));
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(sampling)
        .with(lines);
    let result = subscriber.try_init();
    result.map_err(|error| LogError::Already(error.into()))?;
    let _ = LEVEL.set(level);
    Ok(())
}

/// Changes the level of logs that [`init_logs`] has set up; encoding and sampling stay.
pub fn change_level(settings: &LogSettings) -> Result<(), LogError> {
    match LEVEL.get() {
        Some(level) => level.reload(filter(settings)?).map_err(LogError::Change),
        None => Ok(()),
    }
}

fn filter(settings: &LogSettings) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(&settings.level).map_err(|source| LogError::Level {
        level: settings.level.clone(),
        source,
    })
}
