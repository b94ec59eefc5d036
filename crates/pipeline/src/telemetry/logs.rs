//! Own logs go to stderr, so that `debug` and `file` exporters have stdout.

use super::settings::{Encoding, LogSettings};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

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
}

/// Sends the process' logs to stderr at the configured level. Once a process.
pub fn init_logs(settings: &LogSettings) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|source| LogError::Level {
        level: settings.level.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // A log that cannot be written would be told by `eprintln!`, which panics when stderr is
        // a pipe that broke: whoever reads the logs must not be able to end the collector.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let result = match settings.encoding {
        Encoding::Console => builder.try_init(),
        Encoding::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(LogError::Already)
}
