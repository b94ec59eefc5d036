//! A loop that reads all that is ready and then runs what waited for it, and who goes on when.

use crate::scene::{Linked, Seen, Stage, client, finished, server};
use span_linker::Config;
use span_linker::window::link::Method;
use std::collections::BTreeMap;

const CLIENTS: u64 = 24;
const REQUESTS: u64 = 600;
/// What the loop's calls are called; the last one is made for every other request.
const CALLS: [&str; 3] = ["stock", "price", "ship"];
/// Ids of requests are their numbers; of calls so many more for each call before it.
const CALL_IDS: u64 = 10_000;

/// How a loop picks who goes on.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Kept,
    Shuffled,
}

/// One loop, and what is under way in it; times in microseconds.
struct Loop {
    now: u64,
    round: u64,
    order: Order,
    chance: u64,
    asked: u64,
    /// When something can be read, of which request, and what it has done so far.
    ready: Vec<(u64, u64, usize)>,
    /// In which round somebody goes on.
    turns: Vec<(u64, u64, usize)>,
    begun: BTreeMap<u64, u64>,
    seen: Vec<Seen>,
}

impl Loop {
    fn run(order: Order, tid: u32) -> Vec<Seen> {
        let mut this = Self {
            now: 1000,
            round: 0,
            order,
            chance: 7,
            asked: 0,
            ready: Vec::new(),
            turns: Vec::new(),
            begun: BTreeMap::new(),
            seen: Vec::new(),
        };
        for _ in 0..CLIENTS {
            this.ask();
        }
        while !this.ready.is_empty() || !this.turns.is_empty() {
            this.go_round();
        }
        let seen = this.seen.into_iter();
        seen.map(|seen| seen.tid(tid)).collect()
    }

    /// A number below a limit that looks like chance.
    fn below(&mut self, limit: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005) + 1;
        (self.chance >> 33) % limit
    }

    fn ask(&mut self) {
        if self.asked < REQUESTS {
            self.asked += 1;
            let at = self.now + 50 + self.below(400);
            self.ready.push((at, self.asked, 0));
        }
    }

    fn go_round(&mut self) {
        self.round += 1;
        self.now += 20;
        if self.turns.is_empty() {
            let first = self.ready.iter().map(|(at, ..)| *at).min();
            self.now = self.now.max(first.unwrap_or(0));
        }
        self.ready.sort_unstable();
        let now = self.now;
        let read = self.ready.partition_point(|(at, ..)| *at <= now);
        for (_, request, done) in self.ready.drain(..read).collect::<Vec<_>>() {
            self.now += 3;
            let now = self.now;
            if done == 0 {
                self.begun.insert(request, now);
            } else if let Some(call) = self.call(request, done - 1) {
                call.times.end = now;
            }
            let waits = match self.order {
                Order::Kept => [1, 0, 1, 0].get(done).copied().unwrap_or(0),
                Order::Shuffled => self.below(4),
            };
            self.turns.push((self.round + waits, request, done));
        }
        let round = self.round;
        let (mut due, later) = self.turns.drain(..).partition(|(at, ..)| *at <= round);
        self.turns = later;
        self.shuffle(&mut due);
        for (_, request, done) in due {
            self.now += 10;
            self.write(request, done);
        }
    }

    fn shuffle(&mut self, due: &mut [(u64, u64, usize)]) {
        if self.order == Order::Kept {
            return;
        }
        for last in (1..due.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1));
            due.swap(last, other.unwrap_or(last));
        }
    }

    fn call(&mut self, request: u64, done: usize) -> Option<&mut Seen> {
        let id = request + CALL_IDS * (done as u64 + 1);
        self.seen.iter_mut().rev().find(|seen| seen.id == id)
    }

    fn write(&mut self, request: u64, done: usize) {
        let calls = if request.is_multiple_of(2) { 3 } else { 2 };
        if done < calls {
            let id = request + CALL_IDS * (done as u64 + 1);
            let name = CALLS.get(done).copied().unwrap_or_default();
            let call = client(id, 1, self.now..self.now).named(name);
            self.seen.push(call);
            let at = self.now + 60 + self.below(300);
            self.ready.push((at, request, done + 1));
        } else {
            let begun = self.begun.remove(&request).unwrap_or(self.now);
            self.seen.push(server(request, 1, begun..self.now));
            self.ask();
        }
    }
}

fn linked(seen: &[Seen]) -> (Linked, [u64; 2]) {
    let mut stage = Stage::new(by_queue_order());
    let linked = stage.at(0, finished(seen)).tick(2000).left();
    let stats = stage.linker.stats();
    let all: u64 = Method::ALL.iter().map(|method| stats.linked(*method)).sum();
    (linked, [stats.linked(Method::QueueOrder), all])
}

/// Calls that were given to the request that made them, and to others.
fn right_and_wrong(linked: &Linked, seen: &[Seen]) -> (usize, usize) {
    let calls = seen.iter().filter(|seen| seen.id > CALL_IDS);
    let parents = calls.filter_map(|call| {
        let parent = linked.parent(call.id)?;
        Some(parent == crate::scene::id(call.id % CALL_IDS))
    });
    let (right, wrong): (Vec<bool>, Vec<bool>) = parents.partition(|right| *right);
    (right.len(), wrong.len())
}

fn by_queue_order() -> Config {
    Config {
        queue_order: true,
        ..Config::default()
    }
}

#[test]
fn a_loop_that_keeps_its_order_has_its_calls_linked_from_the_first_on() {
    let seen = Loop::run(Order::Kept, 5);
    let (linked, [by_queue, all]) = linked(&seen);
    let (right, wrong) = right_and_wrong(&linked, &seen);
    assert_eq!((wrong, by_queue), (0, all));
    assert!(right > 1400, "{right} of 1500");
}

#[test]
fn a_loop_that_keeps_no_order_has_no_calls_linked() {
    let seen = Loop::run(Order::Shuffled, 5);
    let (_, [by_queue, _]) = linked(&seen);
    assert_eq!(by_queue, 0);
}

#[test]
fn threads_that_share_the_work_keep_no_order() {
    let mut seen = Loop::run(Order::Kept, 5);
    for (seen, tid) in seen.iter_mut().step_by(3).zip((6..9).cycle()) {
        *seen = seen.clone().tid(tid);
    }
    let (_, [by_queue, _]) = linked(&seen);
    assert_eq!(by_queue, 0);
}

#[test]
fn spans_may_arrive_in_any_order() {
    let seen = Loop::run(Order::Kept, 5);
    let (expected, _) = linked(&seen);
    let mut other = seen.clone();
    other.sort_by_key(|seen| (seen.id % 7, seen.id));
    let mut stage = Stage::new(by_queue_order());
    for (n, part) in (0..).zip(other.chunks(100)) {
        stage.at(n, finished(part));
    }
    assert!(stage.tick(2100).left() == expected);
}
