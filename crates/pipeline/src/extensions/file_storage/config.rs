//! Settings of `file_storage`, named as in the Collector.

use crate::component::{Check, Settings};
use crate::config::duration;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::path::PathBuf;
use std::time::Duration;

/// `extensions::file_storage`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FileStorageSettings {
    /// Where the files lie, one for each exporter that names this extension.
    pub directory: PathBuf,
    /// Make the directory when it is not there.
    pub create_directory: bool,
    /// How long to wait for a file that another process has open.
    #[serde(with = "duration")]
    #[schemars(with = "duration::Text")]
    pub timeout: Duration,
    /// Wait for the disk at each commit: nothing is lost when the machine fails, not only the process.
    pub fsync: bool,
    /// When files are made smaller than they become by themselves.
    pub compaction: CompactionSettings,
}

/// `extensions::file_storage::compaction`
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CompactionSettings {
    /// When a file is opened.
    pub on_start: bool,
    /// No effect: a file gives space back by itself.
    pub on_rebound: bool,
    // Known from the Collector; named here so that they are not called unknown.
    #[schemars(with = "Option<String>")]
    directory: Option<IgnoredAny>,
    #[schemars(with = "Option<u64>")]
    rebound_needed_threshold_mib: Option<IgnoredAny>,
    #[schemars(with = "Option<u64>")]
    rebound_trigger_threshold_mib: Option<IgnoredAny>,
    #[schemars(with = "Option<u64>")]
    max_transaction_size: Option<IgnoredAny>,
    #[schemars(with = "Option<String>")]
    check_interval: Option<IgnoredAny>,
    #[schemars(with = "Option<bool>")]
    cleanup_on_start: Option<IgnoredAny>,
}

impl Default for FileStorageSettings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/otelcol/file_storage"),
            create_directory: false,
            timeout: Duration::from_secs(1),
            fsync: false,
            compaction: CompactionSettings::default(),
        }
    }
}

impl Settings for FileStorageSettings {
    fn check(&self, check: &mut Check<'_>) {
        if self.directory.as_os_str().is_empty() {
            check.error("directory", "must be set");
        }
        if self.timeout.is_zero() {
            check.error("timeout", "must be above 0");
        }
        let mut check = check.below("compaction");
        if self.compaction.on_rebound {
            check.warn(
                "on_rebound",
                "has no effect: a file gives space back by itself",
            );
        }
        let compaction = &self.compaction;
        let keys = [
            ("directory", &compaction.directory),
            (
                "rebound_needed_threshold_mib",
                &compaction.rebound_needed_threshold_mib,
            ),
            (
                "rebound_trigger_threshold_mib",
                &compaction.rebound_trigger_threshold_mib,
            ),
            ("max_transaction_size", &compaction.max_transaction_size),
            ("check_interval", &compaction.check_interval),
            ("cleanup_on_start", &compaction.cleanup_on_start),
        ];
        for (key, _) in keys.iter().filter(|(_, value)| value.is_some()) {
            check.warn(key, "has no effect: files are compacted in place");
        }
    }
}
