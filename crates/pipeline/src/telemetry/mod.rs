//! What the process tells of itself: metrics, their Prometheus endpoint, and logs.

mod logs;
mod loss;
pub(crate) mod memory;
mod metrics;
pub(crate) mod process;
mod serve;
mod settings;

pub use logs::{LogError, init_logs};
pub use loss::{Loss, Losses};
pub use metrics::{Counter, Gauge, Labels, Metrics, Sample};
pub use serve::{MetricsServer, ServeError};
pub use settings::{Encoding, Level, LogSettings, MetricSettings, TelemetrySettings};
