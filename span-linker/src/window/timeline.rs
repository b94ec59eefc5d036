//! Which requests were under way at a time: intervals in buckets by start.
//!
//! Each bucket knows its latest end, so a look back skips the buckets in which
//! everything had ended. A look back costs the buckets between the oldest
//! interval and the time, plus the intervals of those it cannot skip. What is
//! taken out stays as a blank until its bucket is empty, what is forgotten as it was.

use super::entry::{Entry, Side};
use span_model::{ProcessKey, SpanId};
use std::collections::BTreeMap;

/// Buckets are 2^27 ns = 134 ms of starts.
const BUCKET_BITS: u32 = 27;

/// What a timeline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    Process(ProcessKey),
    Thread(ProcessKey, u32),
    Calls(ProcessKey),
}

/// The timelines that a span is on.
pub fn lines(entry: &Entry) -> impl Iterator<Item = Line> + use<> {
    let (process, tid) = (entry.process, entry.facts.request_tid);
    let (whole, thread) = match entry.side {
        Side::Ingress => (
            Some(Line::Process(process)),
            (tid != 0).then_some(Line::Thread(process, tid)),
        ),
        Side::Egress => (Some(Line::Calls(process)), None),
        Side::Foreign => (None, None),
    };
    whole.into_iter().chain(thread)
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    start_ns: u64,
    id: SpanId,
    /// `u64::MAX` while open, 0 when taken out.
    end_ns: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Sorted by start and id.
    intervals: Vec<Interval>,
    /// How many are not blank, and how many of those are open.
    live: usize,
    open: usize,
    /// Latest end of those that ended; may be too late when some were taken out.
    latest_end_ns: u64,
}

impl Bucket {
    fn may_be_open_at(&self, time_ns: u64) -> bool {
        self.open > 0 || self.latest_end_ns > time_ns
    }

    fn place(&self, start_ns: u64, id: SpanId) -> Result<usize, usize> {
        self.intervals
            .binary_search_by_key(&(start_ns, id), |i| (i.start_ns, i.id))
    }

    fn begun_in(&self, from_ns: u64, until_ns: u64) -> impl Iterator<Item = &Interval> {
        let before = |time_ns| self.intervals.partition_point(|i| i.start_ns < time_ns);
        let begun = self.intervals.get(before(from_ns)..before(until_ns));
        let begun = begun.unwrap_or_default();
        begun.iter().filter(|interval| interval.end_ns != 0)
    }

    /// Those that began by a time, the last first.
    fn begun_by(&self, time_ns: u64) -> impl Iterator<Item = &Interval> {
        let begun = self
            .intervals
            .partition_point(|interval| interval.start_ns <= time_ns);
        self.intervals.iter().take(begun).rev()
    }
}

/// Intervals of the requests that one process, or one of its threads, served.
#[derive(Debug, Default)]
pub struct Timeline {
    buckets: BTreeMap<u64, Bucket>,
}

impl Timeline {
    /// Adds a request that is not in; `None` while it is open.
    pub fn insert(&mut self, id: SpanId, start_ns: u64, end_ns: Option<u64>) {
        let bucket = self.buckets.entry(start_ns >> BUCKET_BITS).or_default();
        let interval = Interval {
            start_ns,
            id,
            end_ns: end_ns.unwrap_or(u64::MAX),
        };
        match bucket.place(start_ns, id) {
            Ok(blank) => {
                if let Some(place) = bucket.intervals.get_mut(blank) {
                    *place = interval;
                }
            }
            Err(place) => bucket.intervals.insert(place, interval),
        }
        bucket.live += 1;
        match end_ns {
            Some(end_ns) => bucket.latest_end_ns = bucket.latest_end_ns.max(end_ns),
            None => bucket.open += 1,
        }
    }

    /// Takes a request out.
    pub fn remove(&mut self, id: SpanId, start_ns: u64) {
        let Some(bucket) = self.buckets.get_mut(&(start_ns >> BUCKET_BITS)) else {
            return;
        };
        let place = bucket.place(start_ns, id).ok();
        if let Some(interval) = place.and_then(|place| bucket.intervals.get_mut(place)) {
            let end_ns = std::mem::replace(&mut interval.end_ns, 0);
            bucket.live = bucket.live.saturating_sub(usize::from(end_ns != 0));
            bucket.open = bucket.open.saturating_sub(usize::from(end_ns == u64::MAX));
        }
        self.drop_dead(start_ns);
    }

    /// A request that had ended is forgotten: it stays until its whole bucket goes, which costs
    /// no search.
    pub fn forget(&mut self, start_ns: u64) {
        if let Some(bucket) = self.buckets.get_mut(&(start_ns >> BUCKET_BITS)) {
            bucket.live = bucket.live.saturating_sub(1);
        }
        self.drop_dead(start_ns);
    }

    fn drop_dead(&mut self, start_ns: u64) {
        let key = start_ns >> BUCKET_BITS;
        if self
            .buckets
            .get(&key)
            .is_some_and(|bucket| bucket.live == 0)
        {
            self.buckets.remove(&key);
        }
    }

    /// The requests under way at a time, those that started last first.
    pub fn open_at(&self, time_ns: u64) -> impl Iterator<Item = SpanId> + '_ {
        self.buckets
            .range(..=time_ns >> BUCKET_BITS)
            .rev()
            .filter(move |(_, bucket)| bucket.may_be_open_at(time_ns))
            .flat_map(move |(_, bucket)| bucket.begun_by(time_ns))
            .filter(move |interval| time_ns < interval.end_ns)
            .map(|interval| interval.id)
    }

    /// Those that began at or after one time and before another, in that order.
    pub fn begun_in(&self, from_ns: u64, until_ns: u64) -> impl Iterator<Item = SpanId> + '_ {
        let first = from_ns >> BUCKET_BITS;
        let last = (until_ns >> BUCKET_BITS).max(first);
        self.buckets
            .range(first..=last)
            .flat_map(move |(_, bucket)| bucket.begun_in(from_ns, until_ns))
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
