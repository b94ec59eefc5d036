//! How many requests are under way at a time.

use super::state::Request;

/// Requests by when they begin and end.
pub struct Crowd {
    starts: Vec<u64>,
    ends: Vec<u64>,
}

impl Crowd {
    /// Of these requests, which come by start.
    pub fn new<'a>(requests: impl Iterator<Item = &'a Request> + Clone) -> Self {
        let mut ends: Vec<u64> = requests.clone().filter_map(|r| r.end_ns).collect();
        ends.sort_unstable();
        Self {
            starts: requests.map(|request| request.start_ns).collect(),
            ends,
        }
    }

    /// How many are under way at that time.
    pub fn open_at(&self, time_ns: u64) -> usize {
        let begun = self.starts.partition_point(|start| *start <= time_ns);
        let ended = self.ends.partition_point(|end| *end <= time_ns);
        begun.saturating_sub(ended)
    }
}
