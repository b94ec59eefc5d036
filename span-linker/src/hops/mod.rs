//! How far a thread's next write can be believed to belong to what it read last, kind by kind.
//!
//! Where tasks move between threads a thread goes on with another request after some reads and not
//! after others: a write at once after the read that it waited for is right nearly always, the second
//! one of its kind nearly never. Such a pair is a *hop*, and hops of one kind are right alike.
//!
//! How often is learned from *ways*: the hops from a response back to a request. If that is
//! the request which was answered, all of them were right, but for chance; if it is another one, at least
//! one was wrong, and probably one of a kind that is wrong often (expectation maximisation, over the
//! last ways). Chance is measured too: how often ways lead to a request that is next in age is how often wrong
//! ones would lead back, for they lead to what was read lately. Knows nothing of the window.

mod forest;

pub use forest::Forest;

use crate::learned::{Learned, Learns};
use std::collections::{HashMap, VecDeque};

/// Processes whose hops are kept; beyond, those that were idle longest go.
const MAX_PROCESSES: usize = 256;
/// Kinds of hops of a process; with more, all is forgotten.
const MAX_KINDS: usize = 4096;
/// Ways that are learned from, the last ones, and how many new ones there are between two times.
const MAX_WAYS: usize = 2048;
const NEW_WAYS: usize = 32;
/// Turns of the estimate each time; it goes on from the last one.
const TURNS: usize = 10;
/// Before anything is known a hop is as likely right as wrong, and that weighs as much as two.
const PRIOR: f32 = 0.5;
const PRIOR_WEIGHT: f32 = 2.0;
/// Before wrong ways are seen, one in so many leads back.
const PRIOR_WRONG: f32 = 8.0;
/// A kind is believed once it was in so many ways that led back, and not by chance.
const LEAST_BACK: f32 = 8.0;

/// Where fewer than one way in so many leads back, none is believed: it is 1 % in Java's virtual
/// threads, 14 % and more in Go and tokio, at 64 and 256 in flight.
const LEAST_WAYS_BACK: f32 = 20.0;
/// The same of the last so many.
const RECENT_WAYS: usize = 128;
const RECENT_LEAST_BACK: usize = 20;

/// The hops of all processes.
pub type AllHops = Learned<Hops, MAX_PROCESSES>;

/// What hops that are right alike have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// What was read.
    pub read: Message,
    /// What was written.
    pub write: Message,
    /// Which of the writes of this kind that followed the read it was, from 0, up to 2.
    pub place: usize,
    /// How many there were, up to 3.
    pub of: usize,
    /// How long after the read: 0 up to 16 µs, then a step for each factor of 4, up to 4.
    pub pace: usize,
}

/// A message of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Of a request that the process serves, not of a call that it makes.
    pub served: bool,
    /// What it asks for (`Entry::kind`).
    pub kind: u32,
}

/// The hops from what a request caused back to a request.
#[derive(Clone, Debug)]
pub struct Way {
    /// The last one first.
    pub hops: Vec<Kind>,
    /// To which request.
    pub end: End,
    /// Requests that were under way; 0 if its end is known otherwise, which is never by chance.
    pub open: usize,
}

/// Where a way leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Back to the request that was answered.
    Back,
    /// To one of the requests next to it in age, of which there were so many.
    Peer(usize),
    /// To another request.
    Elsewhere,
}

/// What was learned of one process.
#[derive(Debug, Default)]
pub struct Hops {
    numbers: HashMap<Kind, usize, foldhash::fast::RandomState>,
    records: Vec<Record>,
    ways: VecDeque<NumberedWay>,
    /// Since the last estimate.
    new_ways: usize,
    /// How often a wrong way leads back.
    chance: f32,
    /// Enough of all ways do.
    leads_back: bool,
    refused: u64,
}

#[derive(Debug)]
struct NumberedWay {
    hops: Vec<usize>,
    end: End,
    open: usize,
}

/// How hops of one kind did.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    seen: f32,
    right: f32,
    /// In ways that led back and not by chance.
    back: f32,
}

impl Record {
    fn likely(self) -> f32 {
        (self.right + PRIOR * PRIOR_WEIGHT) / (self.seen + PRIOR_WEIGHT)
    }

    /// How sure it is that such a hop is right; 0: not proven.
    fn sure(self) -> f32 {
        if self.back < LEAST_BACK {
            return 0.0;
        }
        self.right / (self.seen + 1.0)
    }
}

impl Hops {
    /// Learns from the ways of a stretch.
    pub fn learn(&mut self, ways: &[Way]) {
        for way in ways {
            let hops = way.hops.iter().filter_map(|kind| self.number(*kind));
            let hops: Vec<usize> = hops.collect();
            if hops.len() < way.hops.len() {
                self.refused += 1;
                continue;
            }
            if self.ways.len() >= MAX_WAYS {
                self.ways.pop_front();
            }
            self.ways.push_back(NumberedWay {
                hops,
                end: way.end,
                open: way.open,
            });
            self.new_ways += 1;
        }
        if self.new_ways >= NEW_WAYS {
            self.new_ways = 0;
            self.measure_chance();
            for _ in 0..TURNS {
                self.estimate();
            }
        }
    }

    fn number(&mut self, kind: Kind) -> Option<usize> {
        if let Some(number) = self.numbers.get(&kind) {
            return Some(*number);
        }
        if self.records.len() >= MAX_KINDS {
            self.numbers.clear();
            self.records.clear();
            self.ways.clear();
            return None;
        }
        let number = self.records.len();
        self.numbers.insert(kind, number);
        self.records.push(Record::default());
        Some(number)
    }

    fn measure_chance(&mut self) {
        let (mut back, mut wrong, mut to_one) = (0.0, PRIOR_WRONG, 1.0);
        for way in &self.ways {
            match way.end {
                End::Back => {
                    back += 1.0;
                    continue;
                }
                End::Peer(peers) => to_one += share(peers),
                End::Elsewhere => {}
            }
            wrong += 1.0;
        }
        self.chance = to_one / wrong;
        // A first burst, of few requests, leads back far more often than what comes after it.
        let recent = self.ways.iter().rev().take(RECENT_WAYS);
        let led_back = recent.clone().filter(|way| way.end == End::Back).count();
        let all_back = back * LEAST_WAYS_BACK >= wrong;
        self.leads_back = all_back && led_back * RECENT_LEAST_BACK >= recent.count();
    }

    /// How likely a way of so many requests under way leads back though a hop is wrong.
    fn chance(&self, open: usize) -> f32 {
        match open {
            0 => 0.0,
            open => self.chance.max(share(open)),
        }
    }

    /// One turn of expectation maximisation.
    fn estimate(&mut self) {
        let likely: Vec<f32> = self.records.iter().map(|record| record.likely()).collect();
        let likely = |hop: usize| likely.get(hop).copied().unwrap_or(PRIOR);
        let mut records = vec![Record::default(); self.records.len()];
        for way in &self.ways {
            let odds = Odds::of(
                way.hops.iter().map(|hop| likely(*hop)),
                way.end,
                self.chance(way.open),
            );
            for hop in &way.hops {
                if let Some(record) = records.get_mut(*hop) {
                    record.seen += 1.0;
                    record.right += odds.right(likely(*hop));
                    record.back += odds.all_right;
                }
            }
        }
        self.records = records;
    }

    /// How sure it is that a hop of this kind is right, 0 to 1; 0: nothing has proven it.
    pub fn sure(&self, kind: &Kind) -> f32 {
        let number = self.numbers.get(kind).copied();
        let record = number.and_then(|number| self.records.get(number));
        let record = record.filter(|_| self.leads_back);
        record.map_or(0.0, |record| record.sure())
    }

    /// The same of each hop of a way, now that it is known where it leads.
    pub fn sure_of_way(&self, way: &Way) -> Vec<f32> {
        let sure: Vec<f32> = way.hops.iter().map(|kind| self.sure(kind)).collect();
        let odds = Odds::of(sure.iter().copied(), way.end, self.chance(way.open));
        sure.iter().map(|sure| odds.right(*sure)).collect()
    }
}

impl Learns for Hops {
    fn refused(&self) -> u64 {
        self.refused
    }
}

/// One of so many.
#[expect(clippy::cast_precision_loss, reason = "a count of requests")]
fn share(count: usize) -> f32 {
    1.0 / count.max(1) as f32
}

/// What the end of a way says of its hops.
#[derive(Clone, Copy, Debug)]
struct Odds {
    /// Before the end was known, and with it.
    all_right_before: f32,
    all_right: f32,
}

impl Odds {
    fn of(likely: impl Iterator<Item = f32>, end: End, chance: f32) -> Self {
        let before: f32 = likely.product();
        let by_chance = (1.0 - before) * chance;
        let all_right = if end == End::Back && before > 0.0 {
            before / (before + by_chance)
        } else {
            0.0
        };
        Self {
            all_right_before: before,
            all_right,
        }
    }

    /// How likely a hop of the way is right that is right so often.
    fn right(self, likely: f32) -> f32 {
        let some_wrong = 1.0 - self.all_right_before;
        let though_some_wrong = if some_wrong > 0.0 {
            (likely - self.all_right_before) / some_wrong
        } else {
            likely
        };
        self.all_right + (1.0 - self.all_right) * though_some_wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(number: u32) -> Kind {
        let message = |served| Message {
            served,
            kind: number,
        };
        Kind {
            read: message(true),
            write: message(false),
            place: 0,
            of: 1,
            pace: 0,
        }
    }

    fn way(kinds: &[u32], back: bool) -> Way {
        Way {
            hops: kinds.iter().map(|number| kind(*number)).collect(),
            end: if back { End::Back } else { End::Elsewhere },
            open: 64,
        }
    }

    /// Kind 1 is always right, kind 2 in half of the cases, kind 3 never.
    fn taught() -> Hops {
        let mut hops = Hops::default();
        for n in 0..400 {
            hops.learn(&[
                way(&[1, 2], n % 2 == 0),
                way(&[1], true),
                way(&[3, 1], n % 100 == 0),
                way(&[3], false),
            ]);
        }
        hops
    }

    #[test]
    fn kinds_are_told_apart_by_where_ways_lead() {
        let hops = taught();
        assert!(hops.sure(&kind(1)) > 0.98, "{}", hops.sure(&kind(1)));
        let half = hops.sure(&kind(2));
        assert!((0.45..0.55).contains(&half), "{half}");
        assert!(hops.sure(&kind(3)) < 0.05);
        assert!(hops.sure(&kind(4)) <= 0.0, "never seen");
    }

    #[test]
    fn where_a_way_leads_tells_of_its_hops() {
        let hops = taught();
        let [one, two] = hops.sure_of_way(&way(&[1, 2], true))[..] else {
            panic!("two hops");
        };
        assert!(one > 0.97 && two > 0.97, "{one} {two}");
        let [one, two] = hops.sure_of_way(&way(&[1, 2], false))[..] else {
            panic!("two hops");
        };
        assert!(one > 0.95 && two < 0.05, "{one} {two}");
    }

    #[test]
    fn ways_that_lead_back_no_more_often_than_by_chance_prove_nothing() {
        let mut hops = Hops::default();
        for n in 0..2000 {
            let mut way = way(&[1, 2], n % 8 == 0);
            if n % 8 != 0 {
                way.end = End::Peer(7);
            }
            hops.learn(&[way]);
        }
        assert!(hops.sure(&kind(1)) < 0.8, "{}", hops.sure(&kind(1)));
        assert!(hops.sure(&kind(2)) < 0.8);
    }

    #[test]
    fn memory_is_bounded() {
        let mut hops = Hops::default();
        for n in 0..3 * 4096 {
            hops.learn(&[way(&[n], true)]);
        }
        assert!(hops.records.len() <= MAX_KINDS && hops.ways.len() <= MAX_WAYS);
        assert!(hops.refused() > 0);
    }
}
