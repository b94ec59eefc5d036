//! Span ids in the order in which they came into a stage, oldest first.
//!
//! A span that left the stage stays in line as a stale item, which readers skip;
//! `compact` keeps stale items from outnumbering the rest.

use super::Place;
use super::entry::Moment;
use span_model::SpanId;
use std::collections::VecDeque;

/// Spans by age.
#[derive(Debug, Default)]
pub struct Queue {
    items: VecDeque<Item>,
}

/// A span that came into the stage; its place may be another's by now.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub since: Moment,
    pub id: SpanId,
    pub place: Place,
}

impl Queue {
    /// Appends; times do not go back.
    pub fn push(&mut self, id: SpanId, place: Place, since: Moment) {
        self.items.push_back(Item { since, id, place });
    }

    /// Takes the oldest current id, if it came in before the given time.
    pub fn pop(
        &mut self,
        before: Option<Moment>,
        is_current: impl Fn(&Item) -> bool,
    ) -> Option<SpanId> {
        while let Some(item) = self.items.front() {
            let current = is_current(item);
            let (id, since) = (item.id, item.since);
            if current && before.is_some_and(|before| since >= before) {
                return None;
            }
            self.items.pop_front();
            if current {
                return Some(id);
            }
        }
        None
    }

    /// Drops stale items when there are more than `live` could account for twice.
    pub fn compact(&mut self, live: usize, is_current: impl Fn(&Item) -> bool) {
        if self.items.len() > 2 * live + 1024 {
            self.items.retain(is_current);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_current_item_comes_first_and_stale_ones_never() {
        let mut queue = Queue::default();
        for n in 1..=3 {
            queue.push(SpanId::from_hash(n), 0, Moment(n));
        }
        let not_first = |item: &Item| item.id != SpanId::from_hash(1);
        assert_eq!(queue.pop(Some(Moment(2)), not_first), None);
        assert_eq!(
            queue.pop(Some(Moment(3)), not_first),
            Some(SpanId::from_hash(2))
        );
        assert_eq!(queue.pop(None, not_first), Some(SpanId::from_hash(3)));
        assert_eq!(queue.pop(None, not_first), None);
    }

    #[test]
    fn stale_items_do_not_pile_up() {
        let mut queue = Queue::default();
        for n in 1..=5000 {
            queue.push(SpanId::from_hash(n), 0, Moment(n));
        }
        queue.compact(10, |item| item.id == SpanId::from_hash(5000));
        assert_eq!(queue.items.len(), 1);
    }
}
