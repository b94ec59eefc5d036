//! Settings of `tail_sampling`.

use super::policy::Policy;
use crate::component::{Check, Settings};
use crate::config::duration;
use crate::processors::condition::{EventCondition, SpanCondition};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::HashSet;
use std::time::Duration;

/// `processors::tail_sampling`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TailSamplingSettings {
    /// How long after its first span a trace is decided about.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub decision_wait: Duration,
    /// Traces that wait at most; beyond it the oldest is decided about early.
    pub num_traces: usize,
    /// Spans that wait at most; beyond it the oldest trace is decided about early.
    pub max_spans: usize,
    /// Traces for which room is made ready, a second.
    pub expected_new_traces_per_sec: usize,
    /// How many decisions are remembered for late spans.
    pub decision_cache: DecisionCache,
    /// Stops asking at the first policy that keeps the trace.
    pub sample_on_first_match: bool,
    /// What decides; a trace is kept if one policy wants it and none drops it.
    policies: Vec<PolicySettings>,
}

/// `decision_cache`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DecisionCache {
    /// Traces that were kept; 0: as many as `num_traces`.
    pub sampled_cache_size: usize,
    /// Traces that were dropped; 0: as many as `num_traces`.
    pub non_sampled_cache_size: usize,
}

impl Default for TailSamplingSettings {
    fn default() -> Self {
        Self {
            decision_wait: Duration::from_secs(30),
            num_traces: 50_000,
            max_spans: 1_000_000,
            expected_new_traces_per_sec: 0,
            decision_cache: DecisionCache::default(),
            sample_on_first_match: false,
            policies: Vec::new(),
        }
    }
}

/// One policy: its type names the key that has its settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct PolicySettings {
    /// A name of your own, for the metrics.
    pub name: String,
    /// What it looks at.
    #[serde(rename = "type")]
    pub kind: Option<PolicyKind>,
    /// Settings of `latency`.
    pub latency: Latency,
    /// Settings of `numeric_attribute`.
    pub numeric_attribute: NumericAttribute,
    /// Settings of `probabilistic`.
    pub probabilistic: Probabilistic,
    /// Settings of `status_code`.
    pub status_code: StatusCodes,
    /// Settings of `string_attribute`.
    pub string_attribute: StringAttribute,
    /// Settings of `boolean_attribute`.
    pub boolean_attribute: BooleanAttribute,
    /// Settings of `rate_limiting`.
    pub rate_limiting: RateLimiting,
    /// Settings of `bytes_limiting`.
    pub bytes_limiting: BytesLimiting,
    /// Settings of `span_count`.
    pub span_count: SpanCount,
    /// Settings of `ottl_condition`.
    pub ottl_condition: OttlCondition,
    /// Settings of `and`.
    pub and: And,
    /// Settings of `drop`.
    pub drop: Dropping,
}

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum PolicyKind {
    /// Every trace.
    AlwaysSample,
    /// By the time from the first start to the last end.
    Latency,
    /// By a number.
    NumericAttribute,
    /// A share, by the trace id.
    Probabilistic,
    /// By the status of spans.
    StatusCode,
    /// By a text.
    StringAttribute,
    /// By a truth.
    BooleanAttribute,
    /// So many spans a second.
    RateLimiting,
    /// So many bytes a second.
    BytesLimiting,
    /// By the number of spans.
    SpanCount,
    /// By conditions.
    OttlCondition,
    /// What all of several want.
    And,
    /// Drops what all of several want.
    Drop,
}

/// `latency`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Latency {
    /// At least so many ms; with an upper threshold more than so many.
    pub threshold_ms: u64,
    /// At most so many ms; 0: no limit.
    pub upper_threshold_ms: u64,
}

/// `numeric_attribute`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct NumericAttribute {
    /// The attribute of a span or resource.
    pub key: String,
    /// The lowest value; none: no limit.
    pub min_value: Option<i64>,
    /// The highest value; none: no limit.
    pub max_value: Option<i64>,
    /// Wants traces in which it is nowhere so.
    pub invert_match: bool,
}

/// `probabilistic`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Probabilistic {
    /// Share of the traces in percent.
    pub sampling_percentage: f64,
    /// Samplers behind each other need different ones.
    pub hash_salt: String,
}

/// `status_code`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct StatusCodes {
    /// One of which a span must have.
    pub status_codes: Vec<StatusCode>,
}

/// A status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum StatusCode {
    /// Not set.
    Unset,
    /// Good.
    Ok,
    /// An error.
    Error,
}

/// `string_attribute`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct StringAttribute {
    /// The attribute of a span or resource.
    pub key: String,
    /// One of which it must be.
    pub values: Vec<String>,
    /// The values are regular expressions.
    pub enabled_regex_matching: bool,
    /// Has no effect.
    pub cache_max_size: usize,
    /// Wants traces in which it is nowhere so.
    pub invert_match: bool,
}

/// `boolean_attribute`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct BooleanAttribute {
    /// The attribute of a span or resource.
    pub key: String,
    /// Its value.
    pub value: bool,
    /// Wants traces in which it is nowhere so.
    pub invert_match: bool,
}

/// `rate_limiting`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct RateLimiting {
    /// Spans a second.
    pub spans_per_second: u64,
    /// Spans at once; 0: twice as many as a second has.
    pub burst_capacity: u64,
}

/// `bytes_limiting`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct BytesLimiting {
    /// Bytes a second, encoded.
    pub bytes_per_second: u64,
    /// Bytes at once; 0: twice as many as a second has.
    pub burst_capacity: u64,
}

/// `span_count`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct SpanCount {
    /// The lowest number.
    pub min_spans: usize,
    /// The highest number; 0: no limit.
    pub max_spans: usize,
}

/// `ottl_condition`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct OttlCondition {
    /// Accepted; a condition that has no answer never holds.
    pub error_mode: crate::processors::filter::ErrorMode,
    /// Conditions on spans, one of which must hold.
    pub span: Vec<SpanCondition>,
    /// Conditions on events, one of which must hold.
    pub spanevent: Vec<EventCondition>,
}

/// `and`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct And {
    /// All of which must want the trace.
    pub and_sub_policy: Vec<PolicySettings>,
}

/// `drop`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Dropping {
    /// All of which must want the trace.
    pub drop_sub_policy: Vec<PolicySettings>,
}

impl TailSamplingSettings {
    /// Ready to be asked: what drops first, since that settles it.
    pub(super) fn policies(&self) -> Result<Vec<Policy>, String> {
        let policies = self.policies.iter().enumerate();
        let policies = policies.map(|(index, settings)| {
            Policy::new(settings).map_err(|(key, message)| format!("{index}::{key}: {message}"))
        });
        let mut policies = policies.collect::<Result<Vec<_>, _>>()?;
        policies.sort_by_key(|policy| !policy.drops());
        Ok(policies)
    }
}

impl Settings for TailSamplingSettings {
    fn check(&self, check: &mut Check<'_>) {
        for (key, value) in [
            ("num_traces", self.num_traces),
            ("max_spans", self.max_spans),
        ] {
            if value == 0 {
                check.error(key, "must be above 0");
            }
        }
        if self.policies.is_empty() {
            check.error("policies", "at least one policy is needed");
        }
        let mut names = HashSet::new();
        for (index, policy) in self.policies.iter().enumerate() {
            let mut check = check.below(&format!("policies::{index}"));
            if policy.name.is_empty() {
                check.error("name", "must be set");
            } else if !names.insert(policy.name.as_str()) {
                check.error("name", "is the name of another policy too");
            }
            if let Err((key, message)) = Policy::new(policy) {
                check.error(&key, message);
            }
        }
    }
}
