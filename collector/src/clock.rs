//! The only file of the collector that reads a clock.
//!
//! Kernel records carry `CLOCK_MONOTONIC` (what `bpf_ktime_get_ns` gives), spans
//! carry Unix time. [`WallClock`] keeps the difference between the two.

use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

/// A reading of `CLOCK_MONOTONIC`; stands still while the host sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonotonicNs(pub u64);

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNs(pub u64);

/// Reads around one sample; the narrowest of them is taken.
const READS_PER_SAMPLE: usize = 5;
/// A difference up to this is walked off, a larger one is taken at once.
const STEP_NS: i64 = 100_000_000;
/// How far one sample may move the offset while walking.
const WALK_NS: i64 = 1_000_000;

/// The time of kernel records, now.
pub fn now_monotonic() -> MonotonicNs {
    MonotonicNs(unsigned(read(ClockId::Monotonic)))
}

/// The time of spans, now.
pub fn now_unix() -> UnixNs {
    UnixNs(unsigned(read(ClockId::Realtime)))
}

/// When the host booted. Ask once: the answer moves when the wall clock is set.
pub fn booted_at() -> UnixNs {
    UnixNs(unsigned(sample(ClockId::Boottime).offset_ns))
}

/// Turns kernel time into wall time. Share it, and [`WallClock::resample`] once a second.
#[derive(Debug)]
pub struct WallClock {
    offset_ns: AtomicI64,
}

/// One state of the clock. Convert the start and the end of a span by the same
/// offset, so that a step between them does not change the span's duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(i64);

impl WallClock {
    /// Takes a first sample.
    pub fn start() -> Self {
        Self {
            offset_ns: AtomicI64::new(sample(ClockId::Monotonic).offset_ns),
        }
    }

    /// Follows the wall clock. Small corrections arrive in steps of at most 1 ms
    /// so that spans of neighbouring seconds keep their order; after a step of
    /// more than 100 ms (clock set by hand, host was suspended) it jumps.
    pub fn resample(&self) {
        let sample = sample(ClockId::Monotonic);
        let current = self.offset_ns.load(Ordering::Relaxed);
        self.offset_ns
            .store(follow(current, &sample), Ordering::Relaxed);
    }

    /// The difference as it is known now.
    pub fn offset(&self) -> Offset {
        Offset(self.offset_ns.load(Ordering::Relaxed))
    }
}

impl Offset {
    /// Wall time of a kernel time; before the epoch becomes the epoch.
    pub fn to_unix(self, at: MonotonicNs) -> UnixNs {
        UnixNs(at.0.saturating_add_signed(self.0))
    }
}

struct Sample {
    offset_ns: i64,
    /// The offset is wrong by at most this.
    error_ns: i64,
}

fn follow(current_ns: i64, sample: &Sample) -> i64 {
    let difference = sample.offset_ns.saturating_sub(current_ns);
    match difference.saturating_abs() {
        // Within what the sample can tell: moving would only add noise.
        size if size <= sample.error_ns => current_ns,
        size if size <= STEP_NS => current_ns.saturating_add(difference.clamp(-WALK_NS, WALK_NS)),
        _ => sample.offset_ns,
    }
}

/// Wall time minus the given clock. Being interrupted between the reads makes a
/// sample wide, so the narrowest is the best.
fn sample(base: ClockId) -> Sample {
    let mut best = one_sample(base);
    for _ in 1..READS_PER_SAMPLE {
        let next = one_sample(base);
        if next.error_ns < best.error_ns {
            best = next;
        }
    }
    best
}

fn one_sample(base: ClockId) -> Sample {
    let before = read(base);
    let wall = read(ClockId::Realtime);
    let after = read(base);
    let error_ns = after.saturating_sub(before) / 2;
    Sample {
        offset_ns: wall.saturating_sub(before.saturating_add(error_ns)),
        error_ns: error_ns + 1,
    }
}

fn read(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

fn unsigned(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// RFC 3339 in UTC with milliseconds, as `process.creation.time` wants it.
impl fmt::Display for UnixNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0 / 1_000_000;
        let (seconds, milliseconds) = (milliseconds / 1000, milliseconds % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"
        )
    }
}

/// Year, month and day of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_follows_the_wall_clock_without_jitter_and_without_small_jumps() {
        let cases = [
            ("noise", 1000, 1040, 50, 1000),
            ("small correction", 0, 400_000, 50, 400_000),
            ("larger correction is walked", 0, 30_000_000, 50, WALK_NS),
            ("walked back", 0, -30_000_000, 50, -WALK_NS),
            ("clock was set", 0, 3_600_000_000_000, 50, 3_600_000_000_000),
            (
                "clock was set back",
                0,
                -3_600_000_000_000,
                50,
                -3_600_000_000_000,
            ),
            ("extremes do not overflow", i64::MIN, i64::MAX, 1, i64::MAX),
        ];
        for (case, current, offset_ns, error_ns, want) in cases {
            assert_eq!(
                follow(
                    current,
                    &Sample {
                        offset_ns,
                        error_ns
                    }
                ),
                want,
                "{case}"
            );
        }
    }

    #[test]
    fn kernel_time_now_is_wall_time_now() {
        let clock = WallClock::start();
        clock.resample();
        let before = now_unix();
        let converted = clock.offset().to_unix(now_monotonic());
        let after = now_unix();
        let slack = 1_000_000;
        assert!(before.0 - slack <= converted.0 && converted.0 <= after.0 + slack);
    }

    #[test]
    fn a_time_before_the_epoch_becomes_the_epoch() {
        assert_eq!(Offset(-10).to_unix(MonotonicNs(5)), UnixNs(0));
    }

    #[test]
    fn times_print_as_rfc_3339_with_milliseconds() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000Z"),
            (1_795_298_400_250_000_000, "2026-11-21T22:00:00.250Z"),
            (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (time, want) in cases {
            assert_eq!(UnixNs(time).to_string(), want);
        }
    }
}
