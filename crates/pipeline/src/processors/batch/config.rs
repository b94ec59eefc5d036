//! Settings of `batch`.

use crate::component::{Check, Settings};
use crate::config::duration;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `processors::batch`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BatchSettings {
    /// Spans that leave without waiting.
    pub send_batch_size: usize,
    /// How long a span waits at most; 0: not at all.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
    /// Spans that one batch may have; 0: any number.
    pub send_batch_max_size: usize,
    /// Not supported.
    metadata_keys: Vec<String>,
    /// Has no effect.
    metadata_cardinality_limit: usize,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            send_batch_size: 8192,
            timeout: Duration::from_millis(200),
            send_batch_max_size: 0,
            metadata_keys: Vec::new(),
            metadata_cardinality_limit: 1000,
        }
    }
}

impl Settings for BatchSettings {
    fn check(&self, check: &mut Check<'_>) {
        check.warn(
            "",
            "\"batch\" is deprecated: exporters join batches themselves (sending_queue::batch)",
        );
        if self.send_batch_max_size > 0 && self.send_batch_max_size < self.send_batch_size {
            check.error(
                "send_batch_max_size",
                "must be 0 or at least send_batch_size",
            );
        }
        if !self.metadata_keys.is_empty() {
            check.error(
                "metadata_keys",
                "not supported: what a client sent beside its spans is not kept",
            );
        }
    }
}
