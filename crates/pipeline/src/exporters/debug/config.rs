//! Settings of `debug`.

use crate::component::{Check, Settings};
use crate::config::duration;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `exporters::debug`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DebugSettings {
    /// How much is printed.
    pub verbosity: Verbosity,
    /// `detailed`: a trace is printed when no span of it has come for this long.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub trace_idle: Duration,
    /// `stdout`, `stderr` or files.
    pub output_paths: Vec<String>,
    // Known from the Collector, without a meaning here.
    pub use_internal_logger: bool,
    pub sampling_initial: u64,
    pub sampling_thereafter: u64,
}

/// `verbosity`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verbosity {
    /// A line a batch.
    Basic,
    /// And a line a span.
    Normal,
    /// A tree a trace.
    Detailed,
}

impl Default for DebugSettings {
    fn default() -> Self {
        Self {
            verbosity: Verbosity::Basic,
            trace_idle: Duration::from_secs(1),
            output_paths: vec!["stdout".to_owned()],
            use_internal_logger: false,
            sampling_initial: 0,
            sampling_thereafter: 0,
        }
    }
}

impl Settings for DebugSettings {
    fn check(&self, check: &mut Check<'_>) {
        match self.output_paths.as_slice() {
            [path] if !path.is_empty() => {}
            _ => check.error(
                "output_paths",
                "expected one path: stdout, stderr or a file",
            ),
        }
        if self.use_internal_logger {
            check.warn(
                "use_internal_logger",
                "has no effect here, output_paths decides",
            );
        }
        if self.sampling_initial > 0 || self.sampling_thereafter > 0 {
            check.warn(
                "sampling_initial",
                "has no effect here, every batch is printed",
            );
        }
    }
}
