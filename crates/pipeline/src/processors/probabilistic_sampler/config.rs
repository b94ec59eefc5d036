//! Settings of `probabilistic_sampler`.

use super::threshold::MIN_PROBABILITY;
use crate::component::{Check, Settings};
use schemars::JsonSchema;
use serde::Deserialize;

/// `processors::probabilistic_sampler`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProbabilisticSamplerSettings {
    /// How traces are chosen.
    pub mode: Mode,
    /// Share of the traces that is kept, in percent.
    pub sampling_percentage: f32,
    /// `hash_seed`: samplers behind each other need different ones.
    pub hash_seed: u32,
    /// Drops spans of which the trace id or trace state cannot be used.
    pub fail_closed: bool,
    /// Hexadecimal digits to which a threshold is rounded.
    pub sampling_precision: u32,
}

/// `mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By a hash of the trace id, in 14 bits.
    #[default]
    HashSeed,
    /// The share of what comes in, however it was sampled before.
    Proportional,
    /// The share of what there was before any sampling.
    Equalizing,
}

impl Default for ProbabilisticSamplerSettings {
    fn default() -> Self {
        Self {
            mode: Mode::HashSeed,
            sampling_percentage: 0.0,
            hash_seed: 0,
            fail_closed: true,
            sampling_precision: 4,
        }
    }
}

impl ProbabilisticSamplerSettings {
    /// From 0 to 1.
    pub(super) fn probability(&self) -> f64 {
        (f64::from(self.sampling_percentage) / 100.0).clamp(0.0, 1.0)
    }
}

impl Settings for ProbabilisticSamplerSettings {
    fn check(&self, check: &mut Check<'_>) {
        let percentage = self.sampling_percentage;
        if !percentage.is_finite() || percentage < 0.0 {
            check.error("sampling_percentage", "must be between 0 and 100");
        } else if percentage > 0.0 && self.probability() < MIN_PROBABILITY {
            check.error("sampling_percentage", "is too small to keep any trace");
        }
        if !(1..=14).contains(&self.sampling_precision) {
            check.error("sampling_precision", "must be between 1 and 14");
        }
    }
}
