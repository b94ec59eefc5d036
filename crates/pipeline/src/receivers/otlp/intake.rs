//! What both transports need of the receiver: its limits, its counters and the way in.

use super::body::{Budget, Limits};
use super::metrics::Counts;
use super::rejection::Rejection;
use crate::batch::Batch;
use crate::receiver::BatchSender;

/// For one transport.
#[derive(Clone, Debug)]
pub struct Intake {
    pub limits: Limits,
    pub budget: Budget,
    pub counts: Counts,
    pub output: BatchSender,
}

impl Intake {
    /// Hands a batch over for good. An empty request is a success.
    pub async fn deliver(&self, batch: Batch) -> Result<(), Rejection> {
        if batch.span_count() == 0 {
            return Ok(());
        }
        self.output.deliver(batch).await.map_err(Rejection::from)
    }

    /// Counts and logs a request that is not taken.
    pub fn reject(&self, rejection: &Rejection) {
        self.counts.reject(rejection.reason);
        let (reason, message) = (rejection.reason.as_str(), &rejection.message);
        tracing::debug!(reason, message, "request is not taken");
    }
}
