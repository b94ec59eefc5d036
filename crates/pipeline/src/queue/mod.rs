//! The bounded queue in front of a network exporter, and what empties it.
//!
//! Batches are encoded once when they come in. Encoded requests of OTLP join by putting their
//! bytes behind each other, so small ones leave as one. Where the queue lies, in memory or in a
//! storage, is the business of [`waiting`] alone.

mod retry;
mod sender;
mod settings;
mod split;
mod waiting;

pub use sender::{Accepted, Client, Refusal, Retry, Sender};
pub use settings::{QueueSettings, RetrySettings};

use bytes::Bytes;

/// Bytes that a request may have before compression (OTLP specification, 64 MiB).
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// One or more encoded requests joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// An encoded `ExportTraceServiceRequest`.
    pub body: Bytes,
    /// Spans in it.
    pub spans: usize,
}
