//! The only clock of the linker, read by `evaluate` alone.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What this thread has worked so far: unlike the time on the wall, it leaves out other programs.
pub fn worked() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
