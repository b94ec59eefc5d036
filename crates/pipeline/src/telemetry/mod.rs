//! What the process tells of itself: metrics, their Prometheus endpoint, and logs.

mod histogram;
mod identity;
mod logs;
mod loss;
pub(crate) mod memory;
mod metrics;
pub(crate) mod process;
pub(crate) mod push;
mod sampling;
mod serve;
mod settings;
mod spans;

pub use histogram::{BYTE_BOUNDS, Histogram, SECOND_BOUNDS, SPAN_BOUNDS};
pub use identity::{Identity, ResourceSettings};
pub(crate) use logs::change_level;
pub use logs::{LogError, init_logs};
pub use loss::{Loss, Losses};
pub use metrics::{Counter, Gauge, Labels, Metrics, Sample};
pub(crate) use sampling::left_out;
pub use serve::{MetricsServer, ServeError};
pub use settings::{
    Encoding, Level, LogSettings, MetricSettings, SamplingSettings, TelemetrySettings,
};
pub(crate) use spans::OwnSpan;
