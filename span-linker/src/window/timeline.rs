//! Which requests were under way at a time: intervals in buckets by start.
//!
//! Each bucket knows its latest end, so a look back skips the buckets in which
//! everything had ended. A look back costs the buckets between the oldest
//! interval and the time, plus the intervals of those it cannot skip.

use span_model::SpanId;
use std::collections::BTreeMap;

/// Buckets are 2^27 ns = 134 ms of starts.
const BUCKET_BITS: u32 = 27;

#[derive(Clone, Copy, Debug)]
struct Interval {
    start_ns: u64,
    /// `u64::MAX` while open.
    end_ns: u64,
    id: SpanId,
}

#[derive(Debug, Default)]
struct Bucket {
    latest_end_ns: u64,
    intervals: Vec<Interval>,
}

/// Intervals of the requests that one process, or one of its threads, served.
#[derive(Debug, Default)]
pub struct Timeline {
    buckets: BTreeMap<u64, Bucket>,
}

impl Timeline {
    /// Adds a request; `None` while it is open.
    pub fn insert(&mut self, id: SpanId, start_ns: u64, end_ns: Option<u64>) {
        let end_ns = end_ns.unwrap_or(u64::MAX);
        let bucket = self.buckets.entry(start_ns >> BUCKET_BITS).or_default();
        bucket.intervals.push(Interval {
            start_ns,
            end_ns,
            id,
        });
        bucket.latest_end_ns = bucket.latest_end_ns.max(end_ns);
    }

    /// Takes a request out.
    pub fn remove(&mut self, id: SpanId, start_ns: u64) {
        let key = start_ns >> BUCKET_BITS;
        let Some(bucket) = self.buckets.get_mut(&key) else {
            return;
        };
        bucket.intervals.retain(|interval| interval.id != id);
        bucket.latest_end_ns = bucket.intervals.iter().map(|i| i.end_ns).max().unwrap_or(0);
        if bucket.intervals.is_empty() {
            self.buckets.remove(&key);
        }
    }

    /// The requests under way at a time, those that started last first.
    pub fn open_at(&self, time_ns: u64) -> impl Iterator<Item = SpanId> + '_ {
        self.buckets
            .range(..=time_ns >> BUCKET_BITS)
            .rev()
            .filter(move |(_, bucket)| bucket.latest_end_ns > time_ns)
            .flat_map(|(_, bucket)| bucket.intervals.iter().rev())
            .filter(move |interval| interval.start_ns <= time_ns && time_ns < interval.end_ns)
            .map(|interval| interval.id)
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_back_finds_short_and_long_requests() {
        let mut timeline = Timeline::default();
        let second = 1_000_000_000;
        timeline.insert(SpanId::from_hash(1), second, None);
        timeline.insert(SpanId::from_hash(2), 5 * second, Some(6 * second));
        timeline.insert(SpanId::from_hash(3), 5 * second + 1, Some(5 * second + 2));
        let open = |time| timeline.open_at(time).collect::<Vec<_>>();
        assert_eq!(open(second / 2), []);
        assert_eq!(open(5 * second + 1), [3, 2, 1].map(SpanId::from_hash));
        assert_eq!(open(5 * second + 2), [2, 1].map(SpanId::from_hash));
        assert_eq!(open(6 * second), [SpanId::from_hash(1)]);
    }

    #[test]
    fn what_was_taken_out_is_not_found() {
        let mut timeline = Timeline::default();
        timeline.insert(SpanId::from_hash(1), 10, None);
        timeline.insert(SpanId::from_hash(2), 10, Some(20));
        timeline.remove(SpanId::from_hash(1), 10);
        assert_eq!(
            timeline.open_at(15).collect::<Vec<_>>(),
            [SpanId::from_hash(2)]
        );
        timeline.remove(SpanId::from_hash(2), 10);
        assert!(timeline.is_empty());
    }
}
