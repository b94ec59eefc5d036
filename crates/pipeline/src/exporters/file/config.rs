//! Settings of `file`.

use super::rotation::Rotation;
use crate::component::{Check, Settings};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// `exporters::file`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FileSettings {
    /// The file; `/dev/stdout` works.
    pub path: String,
    /// What was there stays; always so with `rotation`.
    pub append: bool,
    /// How a batch is written.
    pub format: Format,
    /// How each batch is compressed; left out: not at all.
    pub compression: Option<Compression>,
    /// Begins a new file when the file is large enough; left out: never.
    pub rotation: Option<Rotation>,
    // Known from the Collector; named here so that it is not called unknown.
    #[schemars(with = "Option<String>")]
    flush_interval: Option<IgnoredAny>,
}

/// `format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OTLP/JSON, one request a line.
    #[default]
    Json,
    /// OTLP, each request behind its length.
    Proto,
}

/// `compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Each request is a frame of its own, behind its length.
    Zstd,
}

impl Settings for FileSettings {
    fn check(&self, check: &mut Check<'_>) {
        if self.path.is_empty() {
            check.error("path", "must be set");
        }
        if self.append && self.compression.is_some() {
            check.error("append", "cannot go with compression, as in the Collector");
        }
        if self.flush_interval.is_some() {
            check.warn(
                "flush_interval",
                "has no effect: every batch is written at once",
            );
        }
        let Some(rotation) = &self.rotation else {
            return;
        };
        if self.path.starts_with("/dev/") || matches!(self.path.as_str(), "stdout" | "stderr") {
            check.error("rotation", "needs a file, not a device");
        }
        rotation.check(&mut check.below("rotation"));
    }
}
