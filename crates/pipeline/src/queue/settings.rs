//! `sending_queue` and `retry_on_failure` as the Collector's exporters have them.

use crate::component::Check;
use crate::config::duration;
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
    /// Spans that leave without waiting.
    pub min_size: usize,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            flush_timeout: Duration::from_millis(200),
            min_size: 8192,
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
    }

    /// The size that counts, of what is in the queue or comes into it.
    pub(super) fn weigh(&self, requests: usize, spans: usize, bytes: usize) -> usize {
        match self.sizer {
            Sizer::Requests => requests,
            Sizer::Items => spans,
            Sizer::Bytes => bytes,
        }
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
