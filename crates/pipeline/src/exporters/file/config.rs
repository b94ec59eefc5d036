//! Settings of `file`.

use crate::component::{Check, Settings};
use schemars::JsonSchema;
use serde::Deserialize;

/// `exporters::file`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FileSettings {
    /// The file; `/dev/stdout` works.
    pub path: String,
    /// What was there stays.
    pub append: bool,
    /// Only `json`.
    pub format: Format,
}

/// `format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OTLP/JSON, one request a line.
    #[default]
    Json,
}

impl Settings for FileSettings {
    fn check(&self, check: &mut Check<'_>) {
        if self.path.is_empty() {
            check.error("path", "must be set");
        }
    }
}
