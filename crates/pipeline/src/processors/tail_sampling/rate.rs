//! So many a second: a bucket that is filled steadily and emptied by what is allowed.

use crate::clock::Monotonic;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    capacity: f64,
    tokens: f64,
    /// When tokens were counted last; None: the bucket is full.
    counted: Option<Monotonic>,
}

impl Rate {
    /// `capacity` 0: as much as two seconds bring.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a limit need not be exact beyond 2^53"
    )]
    pub fn new(per_second: u64, capacity: u64) -> Self {
        let capacity = match capacity {
            0 => per_second.saturating_mul(2),
            capacity => capacity,
        };
        Self {
            per_second: per_second as f64,
            capacity: capacity as f64,
            tokens: capacity as f64,
            counted: None,
        }
    }

    /// Takes so many tokens if there are as many.
    pub fn allows(&mut self, wanted: u64, now: Monotonic) -> bool {
        if let Some(counted) = self.counted {
            let new = now.since(counted).as_secs_f64() * self.per_second;
            self.tokens = (self.tokens + new).min(self.capacity);
        }
        self.counted = Some(now);
        #[expect(clippy::cast_precision_loss, reason = "a trace is smaller than 2^53")]
        let wanted = wanted as f64;
        let allowed = wanted <= self.tokens;
        if allowed {
            self.tokens -= wanted;
        }
        allowed
    }
}
