//! Settings of `redaction`.

use crate::component::{Check, Settings};
use crate::processors::attribute::Literal;
use crate::processors::pattern::Pattern;
use schemars::JsonSchema;
use serde::Deserialize;

/// `processors::redaction`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RedactionSettings {
    /// Keeps attributes of every key.
    pub allow_all_keys: bool,
    /// The keys that are kept; all others are removed.
    pub allowed_keys: Vec<String>,
    /// Keys that are kept, whatever their values are.
    pub ignored_keys: Vec<String>,
    /// As `ignored_keys`, by regular expression.
    pub(super) ignored_key_patterns: Vec<Pattern>,
    /// The values of these keys are masked.
    pub(super) blocked_key_patterns: Vec<Pattern>,
    /// What matches in a value is masked.
    pub(super) blocked_values: Vec<Pattern>,
    /// Values that match are kept as they are.
    pub(super) allowed_values: Vec<Pattern>,
    /// Looks at numbers and all other values too, as text.
    pub redact_all_types: bool,
    /// Puts a hash in place of what is masked, instead of `****`.
    pub hash_function: Option<HashFunction>,
    /// What is told of it on the span.
    pub summary: Summary,
    /// Not supported.
    url_sanitizer: Option<Literal>,
    /// Not supported.
    db_sanitizer: Option<Literal>,
}

/// `hash_function`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HashFunction {
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA3-256.
    Sha3,
}

/// `summary`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Summary {
    /// Keys, and how many.
    Debug,
    /// How many.
    Info,
    /// Nothing.
    #[default]
    Silent,
}

impl Settings for RedactionSettings {
    fn check(&self, check: &mut Check<'_>) {
        let unsupported = [
            ("url_sanitizer", &self.url_sanitizer),
            ("db_sanitizer", &self.db_sanitizer),
        ];
        for (key, value) in unsupported {
            if value.is_some() {
                check.error(
                    key,
                    "not supported: mask what must not be seen with blocked_values",
                );
            }
        }
        if self.allow_all_keys && !self.allowed_keys.is_empty() {
            check.warn("allowed_keys", "has no effect, allow_all_keys is true");
        }
    }
}
