//! What lies around a stretch: calls can be told from what came before them, and from what followed.

use super::stretch::{Bounds, MAX_CALLS, horizon};
use crate::window::Window;
use crate::window::entry::Entry;

/// The spans of a process around a stretch.
pub(super) struct Around<'a> {
    /// From the first request on that was under way when the stretch began.
    pub(super) calls: Vec<&'a Entry>,
    /// Those under way when it began, and those that began since.
    pub(super) requests: Vec<&'a Entry>,
    from: u64,
    until: u64,
    end: u64,
}

impl<'a> Around<'a> {
    pub(super) fn new(window: &'a Window, bounds: &Bounds, look_ns: u64) -> Self {
        let Bounds { key, from, until } = *bounds;
        let end = horizon(window, key, until, look_ns);
        let open = window.open_in_process(key, from.saturating_sub(1));
        let mut requests: Vec<&Entry> = open.filter_map(|id| window.get(id)).collect();
        requests.extend(window.requests_begun_in(key, from, end));
        let first = requests.iter().map(|request| request.start_ns).min();
        let first = first.unwrap_or(from).max(from.saturating_sub(look_ns));
        let calls = window.calls_begun_in(key, first, end);
        Self {
            calls: calls.take(2 * MAX_CALLS).collect(),
            requests,
            from,
            until,
            end,
        }
    }

    /// The request began in the stretch and has ended.
    pub(super) fn is_begun(&self, request: &Entry) -> bool {
        let begun = (self.from..self.until).contains(&request.start_ns);
        begun && request.end_ns().is_some_and(|end_ns| end_ns < self.end)
    }
}
