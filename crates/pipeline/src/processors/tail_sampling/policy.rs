//! What decides whether a trace is kept.

use super::config::{PolicyKind, PolicySettings, StatusCode};
use super::rate::Rate;
use super::trace::Trace;
use crate::clock::Monotonic;
use crate::processors::attribute;
use crate::processors::condition::Condition;
use crate::processors::pattern::Pattern;
use crate::proto::common::v1::KeyValue;
use crate::proto::common::v1::any_value::Value;
use crate::proto::trace::v1::status;

/// The key that is wrong, and why.
pub(super) type Wrong = (String, String);

/// What one policy says of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Keep it.
    Sampled,
    /// No opinion.
    NotSampled,
    /// Drop it, whatever others say.
    Dropped,
    /// Keep it unless another has no opinion: an inverted match found nothing.
    InvertSampled,
    /// Drop it unless it is dropped anyway: an inverted match found something.
    InvertNotSampled,
}

/// A policy, ready.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Always,
    Latency {
        above_ms: u64,
        at_most_ms: Option<u64>,
    },
    Share {
        salt: Vec<u8>,
        at_most: u64,
    },
    Status(Vec<StatusCode>),
    Attribute {
        key: String,
        wanted: Wanted,
        invert: bool,
    },
    Spans(Rate),
    Bytes(Rate),
    Count {
        min: usize,
        max: usize,
    },
    Conditions(Vec<Condition>),
    And(Vec<Policy>),
    Drop(Vec<Policy>),
}

#[derive(Debug)]
enum Wanted {
    Number { min: i64, max: i64 },
    Text(Vec<String>),
    Patterns(Vec<Pattern>),
    Truth(bool),
}

fn wrong<T>(key: &str, message: impl Into<String>) -> Result<T, Wrong> {
    Err((key.to_owned(), message.into()))
}

impl Policy {
    pub fn new(settings: &PolicySettings) -> Result<Self, Wrong> {
        let rule = match settings.kind {
            None => return wrong("type", "must be set"),
            Some(PolicyKind::AlwaysSample) => Rule::Always,
            Some(PolicyKind::Latency) => settings.latency()?,
            Some(PolicyKind::NumericAttribute) => settings.numeric_attribute()?,
            Some(PolicyKind::Probabilistic) => settings.probabilistic()?,
            Some(PolicyKind::StatusCode) => settings.status_code()?,
            Some(PolicyKind::StringAttribute) => settings.string_attribute()?,
            Some(PolicyKind::BooleanAttribute) => {
                let boolean = &settings.boolean_attribute;
                let wanted = Wanted::Truth(boolean.value);
                attribute(
                    "boolean_attribute",
                    &boolean.key,
                    wanted,
                    boolean.invert_match,
                )?
            }
            Some(PolicyKind::RateLimiting) => {
                let limit = &settings.rate_limiting;
                let per_second =
                    above_zero("rate_limiting::spans_per_second", limit.spans_per_second)?;
                Rule::Spans(Rate::new(per_second, limit.burst_capacity))
            }
            Some(PolicyKind::BytesLimiting) => {
                let limit = &settings.bytes_limiting;
                let per_second =
                    above_zero("bytes_limiting::bytes_per_second", limit.bytes_per_second)?;
                Rule::Bytes(Rate::new(per_second, limit.burst_capacity))
            }
            Some(PolicyKind::SpanCount) => settings.span_count()?,
            Some(PolicyKind::OttlCondition) => settings.conditions()?,
            Some(PolicyKind::And) => Rule::And(several(
                "and::and_sub_policy",
                &settings.and.and_sub_policy,
            )?),
            Some(PolicyKind::Drop) => Rule::Drop(several(
                "drop::drop_sub_policy",
                &settings.drop.drop_sub_policy,
            )?),
        };
        Ok(Self {
            name: settings.name.clone(),
            rule,
        })
    }

    /// Whether it is there to drop traces.
    pub fn drops(&self) -> bool {
        matches!(self.rule, Rule::Drop(_))
    }

    pub fn ask(&mut self, trace: &Trace, now: Monotonic) -> Verdict {
        let wants = match &mut self.rule {
            Rule::Attribute {
                key,
                wanted,
                invert,
            } => {
                let found = trace.attributes(key).any(|value| wanted.matches(value));
                return match (*invert, found) {
                    (false, true) => Verdict::Sampled,
                    (false, false) => Verdict::NotSampled,
                    (true, true) => Verdict::InvertNotSampled,
                    (true, false) => Verdict::InvertSampled,
                };
            }
            Rule::Drop(policies) => {
                let all = all_want(policies, trace, now);
                return if all {
                    Verdict::Dropped
                } else {
                    Verdict::NotSampled
                };
            }
            Rule::And(policies) => all_want(policies, trace, now),
            Rule::Always => true,
            Rule::Latency {
                above_ms,
                at_most_ms,
            } => {
                let duration = trace.duration_ms();
                match at_most_ms {
                    None => duration >= *above_ms,
                    Some(at_most) => duration > *above_ms && duration <= *at_most,
                }
            }
            Rule::Share { salt, at_most } => hash(salt, trace.id()) <= *at_most,
            Rule::Status(codes) => trace.spans().any(|span| {
                let code = span.status.as_ref().map_or(0, |status| status.code);
                codes.iter().any(|wanted| wanted.number() == code)
            }),
            Rule::Spans(rate) => rate.allows(trace.span_count() as u64, now),
            Rule::Bytes(rate) => rate.allows(trace.encoded_len(), now),
            Rule::Count { min, max } => (*min..=*max).contains(&trace.span_count()),
            // A condition that has no answer does not hold.
            Rule::Conditions(conditions) => trace.subjects().any(|subject| {
                let mut meant = conditions
                    .iter()
                    .filter(|condition| condition.is_about_event() == subject.event.is_some());
                meant.any(|condition| condition.holds(subject).unwrap_or(false))
            }),
        };
        if wants {
            Verdict::Sampled
        } else {
            Verdict::NotSampled
        }
    }
}

/// All want it. An inverted match is an answer like any other here. Stops at the first that
/// does not, so that a rate is only used up by what the others want: put it last.
fn all_want(policies: &mut [Policy], trace: &Trace, now: Monotonic) -> bool {
    policies.iter_mut().all(|policy| {
        matches!(
            policy.ask(trace, now),
            Verdict::Sampled | Verdict::InvertSampled
        )
    })
}

fn several(key: &str, settings: &[PolicySettings]) -> Result<Vec<Policy>, Wrong> {
    if settings.is_empty() {
        return wrong(key, "at least one policy is needed");
    }
    let numbered = settings.iter().enumerate();
    let policies = numbered.map(|(index, settings)| {
        if matches!(settings.kind, Some(PolicyKind::And | PolicyKind::Drop)) {
            return wrong(
                &format!("{key}::{index}::type"),
                "and, drop cannot stand here",
            );
        }
        let policy = Policy::new(settings);
        policy.map_err(|(below, message)| (format!("{key}::{index}::{below}"), message))
    });
    policies.collect()
}

fn above_zero(key: &str, value: u64) -> Result<u64, Wrong> {
    if value == 0 {
        return wrong(key, "must be above 0");
    }
    Ok(value)
}

fn attribute(section: &str, key: &str, wanted: Wanted, invert: bool) -> Result<Rule, Wrong> {
    if key.is_empty() {
        return wrong(&format!("{section}::key"), "must be set");
    }
    let key = key.to_owned();
    Ok(Rule::Attribute {
        key,
        wanted,
        invert,
    })
}

impl PolicySettings {
    fn latency(&self) -> Result<Rule, Wrong> {
        let (above_ms, upper) = (self.latency.threshold_ms, self.latency.upper_threshold_ms);
        if above_ms == 0 && upper == 0 {
            return wrong("latency::threshold_ms", "must be above 0");
        }
        if upper != 0 && upper <= above_ms {
            return wrong("latency::upper_threshold_ms", "must be above threshold_ms");
        }
        let at_most_ms = (upper != 0).then_some(upper);
        Ok(Rule::Latency {
            above_ms,
            at_most_ms,
        })
    }

    fn numeric_attribute(&self) -> Result<Rule, Wrong> {
        let numeric = &self.numeric_attribute;
        if numeric.min_value.is_none() && numeric.max_value.is_none() {
            return wrong(
                "numeric_attribute::min_value",
                "this or max_value must be set",
            );
        }
        let (min, max) = (
            numeric.min_value.unwrap_or(i64::MIN),
            numeric.max_value.unwrap_or(i64::MAX),
        );
        if min > max {
            return wrong("numeric_attribute::max_value", "must be at least min_value");
        }
        let wanted = Wanted::Number { min, max };
        attribute(
            "numeric_attribute",
            &numeric.key,
            wanted,
            numeric.invert_match,
        )
    }

    fn string_attribute(&self) -> Result<Rule, Wrong> {
        let string = &self.string_attribute;
        if string.values.is_empty() {
            return wrong("string_attribute::values", "at least one value is needed");
        }
        let wanted = if string.enabled_regex_matching {
            let patterns = string.values.iter().enumerate().map(|(index, text)| {
                let key = format!("string_attribute::values::{index}");
                Pattern::new(text).map_err(|message| (key, message))
            });
            Wanted::Patterns(patterns.collect::<Result<_, _>>()?)
        } else {
            Wanted::Text(string.values.clone())
        };
        attribute("string_attribute", &string.key, wanted, string.invert_match)
    }

    fn probabilistic(&self) -> Result<Rule, Wrong> {
        /// As in the Collector, so that both choose alike.
        const DEFAULT_SALT: &str = "default-hash-seed";
        let percentage = self.probabilistic.sampling_percentage;
        if !(0.0..=100.0).contains(&percentage) || percentage == 0.0 {
            let message = "must be above 0 and at most 100";
            return wrong("probabilistic::sampling_percentage", message);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of all numbers; a float at their end is cut to the highest"
        )]
        let at_most = (u64::MAX as f64 * (percentage / 100.0)) as u64;
        let salt = match self.probabilistic.hash_salt.as_str() {
            "" => DEFAULT_SALT,
            salt => salt,
        };
        Ok(Rule::Share {
            salt: salt.as_bytes().to_vec(),
            at_most,
        })
    }

    fn status_code(&self) -> Result<Rule, Wrong> {
        let codes = &self.status_code.status_codes;
        if codes.is_empty() {
            return wrong(
                "status_code::status_codes",
                "at least one of OK, ERROR, UNSET is needed",
            );
        }
        Ok(Rule::Status(codes.clone()))
    }

    fn span_count(&self) -> Result<Rule, Wrong> {
        let (min, max) = match (self.span_count.min_spans, self.span_count.max_spans) {
            (0, 0) => return wrong("span_count::min_spans", "this or max_spans must be above 0"),
            (min, 0) => (min, usize::MAX),
            both => both,
        };
        if min > max {
            return wrong("span_count::max_spans", "must be at least min_spans");
        }
        Ok(Rule::Count { min, max })
    }

    fn conditions(&self) -> Result<Rule, Wrong> {
        let ottl = &self.ottl_condition;
        let spans = ottl.span.iter().map(|condition| &condition.0);
        let events = ottl.spanevent.iter().map(|condition| &condition.0);
        let conditions: Vec<Condition> = spans.chain(events).cloned().collect();
        if conditions.is_empty() {
            return wrong("ottl_condition::span", "at least one condition is needed");
        }
        Ok(Rule::Conditions(conditions))
    }
}

impl Wanted {
    fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Number { min, max }, Value::IntValue(number)) => (min..=max).contains(&number),
            #[expect(clippy::cast_precision_loss, reason = "compared as doubles")]
            (Self::Number { min, max }, Value::DoubleValue(number)) => {
                (*min as f64..=*max as f64).contains(number)
            }
            (Self::Text(texts), Value::StringValue(text)) => texts.contains(text),
            (Self::Patterns(patterns), Value::StringValue(text)) => {
                !text.is_empty() && patterns.iter().any(|pattern| pattern.is_match(text))
            }
            (Self::Truth(wanted), Value::BoolValue(truth)) => wanted == truth,
            _ => false,
        }
    }
}

impl StatusCode {
    fn number(self) -> i32 {
        let code = match self {
            Self::Unset => status::StatusCode::Unset,
            Self::Ok => status::StatusCode::Ok,
            Self::Error => status::StatusCode::Error,
        };
        code.into()
    }
}

/// FNV-1a in 64 bits.
fn hash(salt: &[u8], id: &[u8]) -> u64 {
    salt.iter()
        .chain(id)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

impl Trace {
    /// The values that an attribute has on its resources and spans.
    fn attributes<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Value> {
        let find = |attributes: &'a [KeyValue]| attribute::find(attributes, key);
        let resources = self.homes().map(|home| home.origin().resource);
        let spans = self.spans().map(|span| span.attributes.as_slice());
        resources.chain(spans).filter_map(find)
    }
}
