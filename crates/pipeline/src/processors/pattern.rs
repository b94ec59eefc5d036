//! Regular expressions in settings, compiled where they are read.

use regex::Regex;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error};
use std::ops::Deref;

/// A regular expression. Matches anywhere in a text, unless it says otherwise with `^` and `$`,
/// and takes time in proportion to the text (as RE2 does, which the Collector has).
#[derive(Clone, Debug, JsonSchema)]
#[schemars(transparent)]
pub(super) struct Pattern(#[schemars(with = "String")] Regex);

impl Pattern {
    /// Compiles it, or says in one line what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        Regex::new(text).map(Self).map_err(|error| {
            let error = error.to_string();
            let reason = error.lines().next_back().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ");
            format!("\"{text}\" is no regular expression: {reason}")
        })
    }
}

impl Deref for Pattern {
    type Target = Regex;

    fn deref(&self) -> &Regex {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(D::Error::custom)
    }
}
