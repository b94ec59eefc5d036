//! Spans that were given up, by component and reason.

use super::metrics::{Counter, Metrics};

/// Why spans were given up: a closed list, so that nothing is lost for an unnamed reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The queue had no room.
    QueueFull,
    /// More than one request may carry.
    TooLarge,
    /// The backend refused them for good.
    Refused,
    /// The backend took the rest of the request and named these as refused.
    PartlyRefused,
    /// Retried as long as configured.
    RetriesExhausted,
    /// Still there when the time to stop was over.
    Shutdown,
    /// The file, terminal or storage did not take them.
    Unwritable,
    /// The disk under a storage had no room.
    DiskFull,
    /// The storage gave back something else than was stored.
    Damaged,
    /// A condition of a processor had no answer, and was told to fail then.
    NoAnswer,
}

impl Loss {
    const ALL: [Self; 10] = [
        Self::QueueFull,
        Self::TooLarge,
        Self::Refused,
        Self::PartlyRefused,
        Self::RetriesExhausted,
        Self::Shutdown,
        Self::Unwritable,
        Self::DiskFull,
        Self::Damaged,
        Self::NoAnswer,
    ];

    /// The value of the label `reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::PartlyRefused => "partly_refused",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Shutdown => "shutdown",
            Self::Unwritable => "unwritable",
            Self::DiskFull => "disk_full",
            Self::Damaged => "damaged",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// The loss counters of one component.
#[derive(Clone, Debug)]
pub struct Losses(Vec<(Loss, Counter)>);

impl Losses {
    /// Registers `deeptrace_lost_spans` for one component such as `exporters/otlp_grpc`.
    pub fn new(metrics: &Metrics, component: &str) -> Self {
        let counter = |loss: Loss| {
            let labels = [("component", component), ("reason", loss.as_str())];
            metrics.counter(
                "deeptrace_lost_spans",
                "Spans given up, by component and reason.",
                &labels,
            )
        };
        Self(
            Loss::ALL
                .into_iter()
                .map(|loss| (loss, counter(loss)))
                .collect(),
        )
    }

    /// Counts spans as lost.
    pub fn count(&self, loss: Loss, spans: usize) {
        if let Some((_, counter)) = self.0.iter().find(|(known, _)| *known == loss) {
            counter.add_len(spans);
        }
    }
}
