//! Which request each goroutine works for.
//!
//! One that has read a request serves it, and so do those that it starts meanwhile. A client often
//! writes by a goroutine of its own for each connection; that was woken by one that had its turn in the
//! scheduler's queue, in whose time slice it writes.

use crate::capture::Goroutine;
use span_model::SpanId;
use std::collections::HashMap;

/// Goroutines, and processors of schedulers, remembered; beyond it those are forgotten that work for no
/// open request, or all, which costs links and not truth.
const MAX_ENTRIES: usize = 65_536;

/// What a goroutine works for.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// The request that it read last.
    Own(SpanId),
    /// The one that its parent was serving when it was seen first.
    Parents(SpanId),
    /// Not known.
    Nothing,
}

/// A time slice of a processor (P) of a scheduler.
#[derive(Clone, Copy, Debug)]
struct Slice {
    number: u64,
    queue_head: u32,
    /// The goroutine that it began with, and the one that started that one.
    first: Option<(u64, u64)>,
}

/// All goroutines that were seen.
#[derive(Debug, Default)]
pub(super) struct Goroutines {
    /// By process and number.
    work: HashMap<(u32, u64), Work>,
    /// The greatest number that was forgotten, by process: whoever is below it may be old, so what its
    /// parent serves now says nothing.
    forgotten: HashMap<u32, u64>,
    /// The last one of each processor, by process and processor.
    slices: HashMap<(u32, u32), Slice>,
}

impl Goroutines {
    /// The goroutine has read a request.
    pub(super) fn reads(
        &mut self,
        tgid: u32,
        number: u64,
        request: SpanId,
        is_open: impl Fn(&SpanId) -> bool,
    ) {
        self.set_work((tgid, number), Work::Own(request), is_open);
    }

    /// The request that a goroutine works for, if it is still open: by what it has read, or by who
    /// started it.
    pub(super) fn serving(
        &mut self,
        tgid: u32,
        goroutine: Goroutine,
        is_open: impl Fn(&SpanId) -> bool,
    ) -> Option<SpanId> {
        self.work_of(tgid, (goroutine.number, goroutine.parent), is_open)
    }

    /// The request that the goroutine works for which began the time slice, likewise; as likely as
    /// that it was the last one that was taken from the queue.
    pub(super) fn serving_in_turn(
        &mut self,
        tgid: u32,
        goroutine: Goroutine,
        is_open: impl Fn(&SpanId) -> bool,
    ) -> Option<SpanId> {
        let slice = self.slices.get(&(tgid, processor(goroutine)))?;
        let first = slice
            .first
            .filter(|_| slice.number == goroutine.time_slice)?;
        self.work_of(tgid, first, is_open)
    }

    fn work_of(
        &mut self,
        tgid: u32,
        (number, parent): (u64, u64),
        is_open: impl Fn(&SpanId) -> bool,
    ) -> Option<SpanId> {
        let known = self.work.get(&(tgid, number)).copied();
        let work = known.unwrap_or_else(|| {
            let is_old = self.forgotten.get(&tgid).is_some_and(|old| number <= *old);
            // Of its parent's own work only: what that inherited may be long over when it starts
            // others, as those that keep a pooled connection.
            let work = match self.work.get(&(tgid, parent)) {
                Some(Work::Own(request)) if is_open(request) && !is_old => Work::Parents(*request),
                _ => Work::Nothing,
            };
            self.set_work((tgid, number), work, &is_open);
            work
        });
        match work {
            Work::Own(request) | Work::Parents(request) => Some(request).filter(is_open),
            Work::Nothing => None,
        }
    }

    fn set_work(&mut self, key: (u32, u64), work: Work, is_open: impl Fn(&SpanId) -> bool) {
        if self.work.len() >= MAX_ENTRIES && !self.work.contains_key(&key) {
            self.forget(is_open);
        }
        self.work.insert(key, work);
    }

    /// Forgets those that work for nothing open, so that half of the room is free, or all.
    fn forget(&mut self, is_open: impl Fn(&SpanId) -> bool) {
        self.forgotten.clear();
        for (tgid, number) in self.work.keys() {
            let greatest = self.forgotten.entry(*tgid).or_default();
            *greatest = (*greatest).max(*number);
        }
        self.work.retain(|_, work| match work {
            Work::Own(request) | Work::Parents(request) => is_open(request),
            Work::Nothing => false,
        });
        if self.work.len() > MAX_ENTRIES / 2 {
            self.work.clear();
        }
    }

    /// A goroutine made a call: follows the queue of its processor.
    ///
    /// The last one that was taken from it began the time slice if all slices since the last one that
    /// was seen began so: as many were taken as slices have begun. Else some slice began by
    /// something else, or others of the queue were moved to another processor.
    pub(super) fn saw(&mut self, tgid: u32, goroutine: Goroutine) {
        if goroutine.time_slice == 0 {
            return;
        }
        let key = (tgid, processor(goroutine));
        let mut before = self.slices.get_mut(&key);
        if let Some(slice) = before.as_mut()
            && slice.number == goroutine.time_slice
        {
            // Others may have taken some from the queue meanwhile.
            slice.queue_head = goroutine.queue_head;
            return;
        }
        let in_turn = before.is_some_and(|slice| {
            let slices = goroutine.time_slice.wrapping_sub(slice.number);
            slices == u64::from(goroutine.queue_head.wrapping_sub(slice.queue_head))
        });
        let first = (goroutine.dequeued, goroutine.dequeued_parent);
        let slice = Slice {
            number: goroutine.time_slice,
            queue_head: goroutine.queue_head,
            first: in_turn.then_some(first),
        };
        if self.slices.len() >= MAX_ENTRIES && !self.slices.contains_key(&key) {
            self.slices.clear();
        }
        self.slices.insert(key, slice);
    }
}

/// Number of the scheduler's processor.
fn processor(goroutine: Goroutine) -> u32 {
    (goroutine.time_slice >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goroutine(number: u64, parent: u64) -> Goroutine {
        Goroutine {
            number,
            parent,
            ..Goroutine::NONE
        }
    }

    /// Of the first processor.
    fn in_slice(tick: u64, queue_head: u32, dequeued: (u64, u64)) -> Goroutine {
        Goroutine {
            time_slice: 1 << 32 | tick,
            queue_head,
            dequeued: dequeued.0,
            dequeued_parent: dequeued.1,
            ..goroutine(100, 99)
        }
    }

    #[test]
    fn goroutines_serve_what_they_read_and_what_their_parent_was_serving() {
        let request = SpanId::from_hash(1);
        let mut goroutines = Goroutines::default();
        let all = |_: &SpanId| true;
        goroutines.reads(7, 10, request, all);
        assert_eq!(goroutines.serving(7, goroutine(10, 1), all), Some(request));
        assert_eq!(goroutines.serving(7, goroutine(11, 10), all), Some(request));
        // It may be there for many requests, as one that keeps a connection.
        assert_eq!(goroutines.serving(7, goroutine(12, 11), all), None);
        assert_eq!(goroutines.serving(8, goroutine(10, 1), all), None);
        let next = SpanId::from_hash(2);
        let is_open = |span: &SpanId| *span == next;
        goroutines.reads(7, 10, next, is_open);
        assert_eq!(goroutines.serving(7, goroutine(11, 10), is_open), None);
        assert_eq!(
            goroutines.serving(7, goroutine(13, 10), is_open),
            Some(next)
        );
    }

    #[test]
    fn whose_turn_it_is_is_known_while_all_slices_begin_with_the_next_of_the_queue() {
        let request = SpanId::from_hash(1);
        let mut goroutines = Goroutines::default();
        let all = |_: &SpanId| true;
        goroutines.reads(7, 10, request, all);
        let child = (11, 10);
        for (tick, queue_head, dequeued, expected) in [
            // Nothing was seen before.
            (5, 50, child, None),
            (7, 52, child, Some(request)),
            // Within the slice another processor takes one; that does not change who began it.
            (7, 53, (12, 1), Some(request)),
            // One slice, but nobody left the queue: it began otherwise.
            (8, 53, child, None),
            // Two left it, but one slice began.
            (9, 55, child, None),
            (10, 56, (12, 1), None),
            (11, 57, child, Some(request)),
        ] {
            let seen = in_slice(tick, queue_head, dequeued);
            goroutines.saw(7, seen);
            let serving = goroutines.serving_in_turn(7, seen, all);
            assert_eq!(serving, expected, "{tick} {queue_head}");
        }
    }

    #[test]
    fn when_many_are_forgotten_old_ones_are_given_nothing() {
        let request = SpanId::from_hash(1);
        let mut goroutines = Goroutines::default();
        let is_open = |span: &SpanId| *span == request;
        goroutines.reads(7, 10, request, is_open);
        // One that serves many, and is forgotten among others.
        goroutines.serving(7, goroutine(11, 9), is_open);
        for number in 100..100 + MAX_ENTRIES as u64 {
            goroutines.serving(7, goroutine(number, 1), is_open);
        }
        assert!(goroutines.work.len() < MAX_ENTRIES / 2);
        assert_eq!(
            goroutines.serving(7, goroutine(10, 1), is_open),
            Some(request)
        );
        assert_eq!(goroutines.serving(7, goroutine(11, 10), is_open), None);
        let new = 200 + MAX_ENTRIES as u64;
        assert_eq!(
            goroutines.serving(7, goroutine(new, 10), is_open),
            Some(request)
        );
    }
}
