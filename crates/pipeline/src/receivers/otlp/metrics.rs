//! What the receiver counts of requests and connections; spans are counted on their way in.

use super::rejection::Reason;
use crate::telemetry::{Counter, Gauge, Metrics};

/// The counters of one transport.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Requests that were answered well.
    pub success: Counter,
    /// Requests that the pipelines did not take.
    pub refused: Counter,
    /// Requests that nobody could take.
    pub failure: Counter,
    /// Connections there are.
    pub connections: Gauge,
    /// Connections hung up on since there were too many.
    pub over_limit: Counter,
    /// Connections that did not get through the TLS handshake.
    pub tls_failed: Counter,
    /// Connections that ended since nothing came.
    pub idle: Counter,
    rejected: Vec<(Reason, Counter)>,
}

impl Counts {
    /// For a receiver and one of its transports.
    pub fn new(metrics: &Metrics, receiver: &str, transport: &str) -> Self {
        let base = [("receiver", receiver), ("transport", transport)];
        let with = |key, value| [base[0], base[1], (key, value)];
        let requests = |outcome| {
            let help = "Requests answered, by outcome.";
            metrics.counter("otelcol_receiver_requests", help, &with("outcome", outcome))
        };
        let ended = |reason| {
            let help = "Connections that the receiver ended, by reason.";
            let labels = with("reason", reason);
            metrics.counter("deeptrace_receiver_closed_connections", help, &labels)
        };
        let rejected = |reason: Reason| {
            let help = "Requests that were not taken, by reason.";
            let labels = with("reason", reason.as_str());
            metrics.counter("deeptrace_receiver_rejected_requests", help, &labels)
        };
        Self {
            success: requests("success"),
            refused: requests("refused"),
            failure: requests("failure"),
            connections: metrics.gauge(
                "deeptrace_receiver_connections",
                "Connections there are.",
                &base,
            ),
            over_limit: ended("over_limit"),
            tls_failed: ended("tls_failed"),
            idle: ended("idle"),
            rejected: Reason::ALL
                .into_iter()
                .map(|reason| (reason, rejected(reason)))
                .collect(),
        }
    }

    /// Counts a request that was not taken.
    pub fn reject(&self, reason: Reason) {
        match reason {
            Reason::Busy | Reason::Pipelines => self.refused.inc(),
            _ => self.failure.inc(),
        }
        if let Some((_, counter)) = self.rejected.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }
}
