//! Settings of `memory_limiter`.

use crate::component::{Check, Settings};
use crate::config::duration;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;
/// The spike that is allowed for when none is set: a fifth of the limit, as the Collector does.
const SPIKE_PART: u64 = 5;

/// `processors::memory_limiter`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemoryLimiterSettings {
    /// How often memory is measured.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub check_interval: Duration,
    /// Memory that the process may have, in MiB.
    pub limit_mib: u64,
    /// How much it may grow between two measurements, in MiB.
    pub spike_limit_mib: u64,
    /// Memory that the process may have, in percent of its control group's limit or else of the host's memory.
    pub limit_percentage: u64,
    /// How much it may grow between two measurements, in percent of the same.
    pub spike_limit_percentage: u64,
}

/// From `soft` on nothing is let in; `hard` should never be reached. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub soft: u64,
    pub hard: u64,
}

impl MemoryLimiterSettings {
    /// `available`: bytes that the process may have, asked for when percentages need it.
    pub(super) fn limits(&self, available: impl FnOnce() -> Option<u64>) -> Option<Limits> {
        let (hard, spike) = if self.limit_mib > 0 {
            let bytes = |mib: u64| mib.saturating_mul(MIB);
            (bytes(self.limit_mib), bytes(self.spike_limit_mib))
        } else {
            let available = available()?;
            let bytes = |percent: u64| available / 100 * percent.min(100);
            (
                bytes(self.limit_percentage),
                bytes(self.spike_limit_percentage),
            )
        };
        let spike = if spike == 0 { hard / SPIKE_PART } else { spike };
        let soft = hard.saturating_sub(spike);
        Some(Limits { soft, hard })
    }
}

impl Settings for MemoryLimiterSettings {
    fn check(&self, check: &mut Check<'_>) {
        if self.check_interval.is_zero() {
            check.error("check_interval", "must be set and above 0, such as 1s");
        }
        if self.limit_mib == 0 && self.limit_percentage == 0 {
            check.error("limit_mib", "this or limit_percentage must be above 0");
        }
        if self.limit_mib > 0 && self.limit_percentage > 0 {
            check.warn("limit_percentage", "has no effect, limit_mib decides");
        }
        if self.limit_mib > 0 && self.spike_limit_mib >= self.limit_mib {
            check.error("spike_limit_mib", "must be below limit_mib");
        }
        if self.limit_percentage > 100 {
            check.error("limit_percentage", "must be at most 100");
        }
        if self.limit_percentage > 0 && self.spike_limit_percentage >= self.limit_percentage {
            check.error("spike_limit_percentage", "must be below limit_percentage");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_from_mib_or_else_from_percent_of_what_there_is() {
        let settings = |limit_mib, spike_limit_mib, limit_percentage, spike_limit_percentage| {
            MemoryLimiterSettings {
                limit_mib,
                spike_limit_mib,
                limit_percentage,
                spike_limit_percentage,
                ..MemoryLimiterSettings::default()
            }
        };
        let cases = [
            (settings(100, 0, 0, 0), 80, 100),
            (settings(100, 30, 50, 10), 70, 100),
            (settings(0, 0, 50, 0), 400, 500),
            (settings(0, 0, 80, 15), 650, 800),
        ];
        for (settings, soft, hard) in cases {
            let limits = settings.limits(|| Some(1_000 * MIB)).unwrap();
            let expected = Limits {
                soft: soft * MIB,
                hard: hard * MIB,
            };
            assert_eq!(limits, expected, "{settings:?}");
        }
        assert_eq!(settings(0, 0, 50, 0).limits(|| None), None);
    }
}
