//! `sending_queue` and `retry_on_failure` as the Collector's exporters have them.

use super::waiting::Size;
use crate::component::Check;
use crate::config::{ComponentId, duration};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// `sending_queue`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct QueueSettings {
    /// Off: every batch is sent while the pipeline waits.
    pub enabled: bool,
    /// Requests under way at the same time.
    pub num_consumers: usize,
    /// Room, measured by `sizer`.
    pub queue_size: usize,
    /// What `queue_size` counts.
    pub sizer: Sizer,
    /// Wait for room instead of dropping.
    pub block_on_overflow: bool,
    /// The pipeline waits until the backend has answered.
    pub wait_for_result: bool,
    /// The extension that keeps the queue, such as `file_storage`; left out: memory.
    pub storage: Option<String>,
    /// Joins small batches; `null` switches it off.
    pub batch: Option<BatchSettings>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            num_consumers: 10,
            queue_size: 1000,
            sizer: Sizer::Requests,
            block_on_overflow: false,
            wait_for_result: false,
            storage: None,
            batch: Some(BatchSettings::default()),
        }
    }
}

/// `sending_queue::sizer`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sizer {
    /// Batches as they came from the pipeline.
    Requests,
    /// Spans.
    Items,
    /// Encoded bytes.
    Bytes,
}

/// `sending_queue::batch`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BatchSettings {
    /// How long the oldest batch waits for others.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub flush_timeout: Duration,
    /// What leaves without waiting, measured by `sizer`.
    pub min_size: usize,
    /// Larger requests are split; 0: they are not.
    pub max_size: usize,
    /// What `min_size` and `max_size` count.
    pub sizer: BatchSizer,
}

/// `sending_queue::batch::sizer`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BatchSizer {
    /// Spans.
    Items,
    /// Encoded bytes.
    Bytes,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            flush_timeout: Duration::from_millis(200),
            min_size: 8192,
            max_size: 0,
            sizer: BatchSizer::Items,
        }
    }
}

impl BatchSettings {
    /// The size that counts.
    pub(super) fn weigh(&self, spans: usize, bytes: usize) -> usize {
        match self.sizer {
            BatchSizer::Items => spans,
            BatchSizer::Bytes => bytes,
        }
    }
}

impl QueueSettings {
    /// Notes values that cannot work.
    pub fn check(&self, check: &mut Check<'_>) {
        for (key, value) in [
            ("num_consumers", self.num_consumers),
            ("queue_size", self.queue_size),
        ] {
            if value == 0 {
                check.error(key, "must be above 0");
            }
        }
        if self.num_consumers > 1000 {
            check.error("num_consumers", "must be 1000 at most");
        }
        if let Some(batch) = &self.batch
            && batch.max_size > 0
            && batch.max_size < batch.min_size
        {
            check.error(
                "batch::max_size",
                "must not be below min_size, or 0 for no limit",
            );
        }
        let Some(storage) = &self.storage else {
            return;
        };
        if let Err(message) = ComponentId::parse(storage) {
            check.error("storage", message);
        }
        if self.wait_for_result {
            let message = "cannot go with storage, which has the result outlive the process";
            check.error("wait_for_result", message);
        }
        if !self.enabled {
            check.error(
                "storage",
                "needs sending_queue::enabled: there is nothing to store",
            );
        }
    }

    /// The size that counts, of what is in the queue or comes into it.
    pub(super) fn weigh(&self, size: Size) -> usize {
        match self.sizer {
            Sizer::Requests => size.requests,
            Sizer::Items => size.spans,
            Sizer::Bytes => size.bytes,
        }
    }

    /// The extension that is needed, and the key that names it.
    pub fn extension(&self) -> Option<(&'static str, &str)> {
        let storage = self.storage.as_deref()?;
        Some(("sending_queue::storage", storage))
    }
}

/// `retry_on_failure`
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RetrySettings {
    /// Off: what fails is lost.
    pub enabled: bool,
    /// Wait before the first retry.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub initial_interval: Duration,
    /// Longest wait.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub max_interval: Duration,
    /// Time after which a request is given up; 0 = never.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub max_elapsed_time: Duration,
    /// Growth of the wait from one retry to the next.
    pub multiplier: f64,
    /// Random share of the wait, 0 to 1.
    pub randomization_factor: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Duration::from_secs(5),
            max_interval: Duration::from_secs(30),
            max_elapsed_time: Duration::from_mins(5),
            multiplier: 1.5,
            randomization_factor: 0.5,
        }
    }
}

impl RetrySettings {
    /// Notes values that cannot work, also when retries are off, as the Collector does.
    pub fn check(&self, check: &mut Check<'_>) {
        if self.initial_interval.is_zero() {
            check.error("initial_interval", "must be above 0");
        }
        if self.max_interval < self.initial_interval {
            check.error("max_interval", "must not be below initial_interval");
        }
        let longest = self.max_interval.max(self.initial_interval);
        if !self.max_elapsed_time.is_zero() && self.max_elapsed_time < longest {
            check.error(
                "max_elapsed_time",
                "must not be below initial_interval and max_interval, or 0 for no limit",
            );
        }
        if !(1.0..=100.0).contains(&self.multiplier) {
            check.error("multiplier", "must be from 1 to 100");
        }
        if !(0.0..=1.0).contains(&self.randomization_factor) {
            check.error("randomization_factor", "must be from 0 to 1");
        }
    }
}
