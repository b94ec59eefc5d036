//! Removes attributes that are not allowed, and masks values.

mod config;

pub use config::RedactionSettings;

use super::attribute::{self, string};
use super::pattern::Pattern;
use crate::batch::Batch;
use crate::clock::Monotonic;
use crate::component::{BoxError, Context, Processor, ProcessorSettings};
use crate::proto::common::v1::KeyValue;
use crate::proto::common::v1::any_value::Value;
use crate::proto::trace::v1::{ScopeSpans, Span};
use crate::telemetry::Counter;
use config::{HashFunction, Summary};
use sha1::Digest as _;
use std::collections::HashSet;

/// What stands in place of a masked text.
const MASK: &str = "****";

/// The attributes of the summary: they survive a second redaction.
const SUMMARY_KEYS: [&str; 7] = [
    "redaction.redacted.keys",
    "redaction.redacted.count",
    "redaction.masked.keys",
    "redaction.masked.count",
    "redaction.allowed.keys",
    "redaction.allowed.count",
    "redaction.ignored.count",
];

impl ProcessorSettings for RedactionSettings {
    fn build(&self, context: Context) -> Result<Box<dyn Processor>, BoxError> {
        let counter = |done: &str| {
            context.metrics.counter(
                "deeptrace_redacted_attributes",
                "Attributes that were removed or masked.",
                &[("processor", context.id.as_str()), ("action", done)],
            )
        };
        let set = |keys: &[String]| keys.iter().cloned().collect::<HashSet<_>>();
        let mut allowed_keys = set(&self.allowed_keys);
        allowed_keys.extend(SUMMARY_KEYS.map(str::to_owned));
        Ok(Box::new(Redaction {
            allowed_keys,
            ignored_keys: set(&self.ignored_keys),
            removed: counter("removed"),
            masked: counter("masked"),
            settings: self.clone(),
        }))
    }
}

struct Redaction {
    settings: RedactionSettings,
    allowed_keys: HashSet<String>,
    ignored_keys: HashSet<String>,
    removed: Counter,
    masked: Counter,
}

/// What was done to one set of attributes, by key.
#[derive(Default)]
struct Done {
    redacted: Vec<String>,
    masked: Vec<String>,
    allowed: Vec<String>,
    ignored: Vec<String>,
}

impl Processor for Redaction {
    fn process(&mut self, mut batch: Batch, _now: Monotonic, out: &mut Vec<Batch>) {
        for resource_spans in batch.resource_spans_mut() {
            if let Some(resource) = &mut resource_spans.resource {
                self.redact(&mut resource.attributes);
            }
            for scope_spans in &mut resource_spans.scope_spans {
                self.redact_scope(scope_spans);
            }
        }
        out.push(batch);
    }
}

impl Redaction {
    fn redact_scope(&self, scope_spans: &mut ScopeSpans) {
        if let Some(scope) = &mut scope_spans.scope {
            self.redact(&mut scope.attributes);
        }
        for span in &mut scope_spans.spans {
            self.redact_span(span);
        }
    }

    /// Links too, which the Collector passes over: what is not allowed should not leave by them.
    fn redact_span(&self, span: &mut Span) {
        self.redact(&mut span.attributes);
        for event in &mut span.events {
            self.redact(&mut event.attributes);
        }
        for link in &mut span.links {
            self.redact(&mut link.attributes);
        }
    }

    fn redact(&self, attributes: &mut Vec<KeyValue>) {
        let mut done = Done::default();
        attributes.retain_mut(|attribute| self.keep(attribute, &mut done));
        self.removed.add_len(done.redacted.len());
        self.masked.add_len(done.masked.len());
        if self.settings.summary != Summary::Silent {
            self.summarize(attributes, done);
        }
    }

    fn keep(&self, attribute: &mut KeyValue, done: &mut Done) -> bool {
        let settings = &self.settings;
        let key = attribute.key.as_str();
        if self.ignored_keys.contains(key) || any(&settings.ignored_key_patterns, key) {
            done.ignored.push(key.to_owned());
            return true;
        }
        if !settings.allow_all_keys && !self.allowed_keys.contains(key) {
            done.redacted.push(key.to_owned());
            return false;
        }
        let value = attribute
            .value
            .as_mut()
            .and_then(|value| value.value.as_mut());
        let Some(value) = value else {
            return true;
        };
        let looked_at = settings.redact_all_types || matches!(value, Value::StringValue(_));
        let text = attribute::text(value).into_owned();
        if looked_at && any(&settings.allowed_values, &text) {
            done.allowed.push(key.to_owned());
        } else if any(&settings.blocked_key_patterns, key) {
            done.masked.push(key.to_owned());
            *value = string(self.mask(&text));
        } else if looked_at {
            let masked = self.mask_parts(&text);
            if masked != text {
                done.masked.push(key.to_owned());
                *value = string(masked);
            }
        }
        true
    }

    fn mask_parts(&self, text: &str) -> String {
        let patterns = self.settings.blocked_values.iter();
        patterns.fold(text.to_owned(), |text, pattern| {
            let mask = |found: &regex::Captures<'_>| {
                self.mask(found.get(0).map_or("", |found| found.as_str()))
            };
            pattern.replace_all(&text, mask).into_owned()
        })
    }

    fn mask(&self, text: &str) -> String {
        match self.settings.hash_function {
            None => MASK.to_owned(),
            Some(HashFunction::Md5) => attribute::hex(&md5::Md5::digest(text)),
            Some(HashFunction::Sha1) => attribute::hex(&sha1::Sha1::digest(text)),
            Some(HashFunction::Sha3) => attribute::hex(&sha3::Sha3_256::digest(text)),
        }
    }

    /// Adds to what an earlier redaction has told.
    fn summarize(&self, attributes: &mut Vec<KeyValue>, done: Done) {
        let told = [
            (
                done.redacted,
                "redaction.redacted.keys",
                "redaction.redacted.count",
            ),
            (
                done.masked,
                "redaction.masked.keys",
                "redaction.masked.count",
            ),
            (
                done.allowed,
                "redaction.allowed.keys",
                "redaction.allowed.count",
            ),
            (done.ignored, "", "redaction.ignored.count"),
        ];
        for (mut keys, keys_key, count_key) in told {
            if keys.is_empty() {
                continue;
            }
            let mut count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
            if let Some(Value::IntValue(before)) = attribute::find(attributes, count_key) {
                count = count.saturating_add(*before);
            }
            if self.settings.summary == Summary::Debug && !keys_key.is_empty() {
                if let Some(Value::StringValue(before)) = attribute::find(attributes, keys_key) {
                    keys.extend(
                        before
                            .split(',')
                            .filter(|key| !key.is_empty())
                            .map(str::to_owned),
                    );
                }
                keys.sort();
                attribute::set(attributes, keys_key, string(keys.join(",")));
            }
            attribute::set(attributes, count_key, Value::IntValue(count));
        }
    }
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(text))
}
