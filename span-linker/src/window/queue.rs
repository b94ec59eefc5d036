//! Spans in the order in which they came into a stage, oldest first.
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
    pub place: Place,
    /// Half of the span's id: enough to tell it from whoever took its place.
    id: [u8; 4],
}

impl Item {
    /// The item may be this span's.
    pub fn is_of(&self, id: SpanId) -> bool {
        self.id == half(id)
    }
}

fn half(id: SpanId) -> [u8; 4] {
    let [.., a, b, c, d] = *id.as_bytes();
    [a, b, c, d]
}

impl Queue {
    /// Appends; times do not go back.
    pub fn push(&mut self, id: SpanId, place: Place, since: Moment) {
        let id = half(id);
        self.items.push_back(Item { since, place, id });
    }

    /// Takes the oldest current span, if it came in before the given time.
    pub fn pop(
        &mut self,
        before: Option<Moment>,
        is_current: impl Fn(&Item) -> bool,
    ) -> Option<Place> {
        while let Some(item) = self.items.front().copied() {
            let current = is_current(&item);
            if current && before.is_some_and(|before| item.since >= before) {
                return None;
            }
            self.items.pop_front();
            if current {
                return Some(item.place);
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

    fn queue_of(count: u32) -> Queue {
        let mut queue = Queue::default();
        for n in 1..=count {
            queue.push(SpanId::from_hash(n.into()), n, Moment(n.into()));
        }
        queue
    }

    #[test]
    fn the_oldest_current_item_comes_first_and_stale_ones_never() {
        let mut queue = queue_of(3);
        let not_first = |item: &Item| !item.is_of(SpanId::from_hash(1));
        assert_eq!(queue.pop(Some(Moment(2)), not_first), None);
        assert_eq!(queue.pop(Some(Moment(3)), not_first), Some(2));
        assert_eq!(queue.pop(None, not_first), Some(3));
        assert_eq!(queue.pop(None, not_first), None);
    }

    #[test]
    fn stale_items_do_not_pile_up() {
        let mut queue = queue_of(5000);
        queue.compact(10, |item| item.is_of(SpanId::from_hash(5000)));
        assert_eq!(queue.items.len(), 1);
    }
}
