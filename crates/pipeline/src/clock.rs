//! The only clock reads of this crate.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A time that never goes back, counted from a start that means nothing.
///
/// Processors get it as an argument, so that tests choose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// Now, counted from the first call in this process.
    pub fn now() -> Self {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        Self(START.get_or_init(Instant::now).elapsed())
    }

    /// A time of a test's own.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Now for timers of the runtime.
pub(crate) fn instant() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The wall clock, for the dates in HTTP headers.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock in ns since the Unix epoch.
pub fn unix_ns() -> u64 {
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
