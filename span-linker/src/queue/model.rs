//! What requests do next, and how many rounds after what they waited for.

use crate::hash::mix;
use std::collections::HashMap;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Rounds between a read and a write that are told apart; more count as the last.
pub const LAGS: usize = 32;
/// Views of requests that are kept.
const MAX_VIEWS: usize = 1024;
/// Samples that a view without any is worth, and what it says then.
const PRIOR: f32 = 2.0;
const UNKNOWN: f32 = 0.02;
/// A coarse view counts half of a fine one.
const COARSE: f32 = 0.5;
/// Never seen so late, out of never seen at all: the one who waits longest goes next.
const UNSEEN: (f32, f32) = (0.2, 0.3);
/// How often a round is not seen.
const UNSEEN_ROUND: f32 = 0.06;
/// A lag that was never seen is that likely against the most frequent one.
const LEAST_LIKELY: f32 = 0.02;

/// How a request looks: all it did, and the last two things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub fine: u64,
    pub coarse: u64,
    /// What the request asked for, and its last call.
    kind: u32,
    last: u32,
}

/// What was learned.
#[derive(Debug, Default)]
pub struct Model {
    views: FastMap<u64, Next>,
    /// Samples without room.
    pub refused: u64,
}

/// What follows a view.
#[derive(Debug)]
struct Next {
    count: f32,
    lags: [f32; LAGS],
    events: Vec<(u32, Event)>,
}

/// One thing that follows.
#[derive(Debug)]
struct Event {
    /// While no call was under way, and while one was.
    count: [f32; 2],
    /// Rounds after the last read, on a known connection and on a new one.
    lags: [[f32; LAGS]; 2],
}

/// Something that a request did or may do.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// Kind of the call, or `ANSWER`.
    pub kind: u32,
    /// A call of the request was under way.
    pub beside: bool,
    /// On a new connection.
    pub connects: bool,
}

impl Model {
    /// Adds a sample.
    pub fn learn(&mut self, view: View, act: Act, lag: usize, weight: f32) {
        for key in [view.fine, view.coarse] {
            if self.views.len() >= MAX_VIEWS && !self.views.contains_key(&key) {
                self.refused += 1;
                continue;
            }
            let next = self.views.entry(key).or_insert_with(|| Next {
                count: 0.0,
                lags: [0.0; LAGS],
                events: Vec::new(),
            });
            next.count += weight;
            add(&mut next.lags, lag, weight);
            let known = next.events.iter().position(|(kind, _)| *kind == act.kind);
            let place = known.unwrap_or_else(|| {
                let event = Event {
                    count: [0.0; 2],
                    lags: [[0.0; LAGS]; 2],
                };
                next.events.push((act.kind, event));
                next.events.len() - 1
            });
            let Some((_, event)) = next.events.get_mut(place) else {
                continue;
            };
            if let Some(count) = event.count.get_mut(usize::from(act.beside)) {
                *count += weight;
            }
            if let Some(lags) = event.lags.get_mut(usize::from(act.connects)) {
                add(lags, lag, weight);
            }
        }
    }

    fn event(&self, view: u64, kind: u32) -> Option<&Event> {
        let next = self.views.get(&view)?;
        next.events
            .iter()
            .find_map(|(known, event)| (*known == kind).then_some(event))
    }

    /// How likely a request that looks like this does that next, whenever.
    pub fn likely(&self, view: View, act: Act) -> f32 {
        let mut share = UNKNOWN;
        for key in [view.coarse, view.fine] {
            if let Some(next) = self.views.get(&key) {
                let event = self.event(key, act.kind);
                let count = event.map_or(0.0, |event| event.count.iter().sum());
                share = (count + PRIOR * share) / (next.count + PRIOR);
            }
        }
        share
    }

    /// How likely it does so with, or without, a call under way.
    pub fn likely_beside(&self, view: View, act: Act) -> f32 {
        match self.event(view.fine, act.kind) {
            Some(event) => {
                let count = event.count.get(usize::from(act.beside));
                let all: f32 = event.count.iter().sum();
                (count.unwrap_or(&0.0) + 0.1) / (all + 0.2)
            }
            None if act.beside => 0.3,
            None => 1.0,
        }
    }

    /// It does not wait for the calls that are under way.
    pub fn is_beside(&self, view: View, kind: u32) -> bool {
        self.event(view.fine, kind).is_some_and(|event| {
            let [alone, beside] = event.count;
            beside > alone
        })
    }

    /// How likely it does so in this round, if it has done nothing until now.
    pub fn due(&self, view: View, act: Act, lag: usize) -> f32 {
        let lag = lag.min(LAGS - 1);
        let (mut now, mut later) = UNSEEN;
        for (key, weight) in [(view.fine, 1.0), (view.coarse, COARSE)] {
            let Some(next) = self.views.get(&key) else {
                continue;
            };
            later += weight * next.lags.iter().skip(lag).sum::<f32>();
            let lags = self.event(key, act.kind);
            let lags = lags.and_then(|event| event.lags.get(usize::from(act.connects)));
            now += weight * lags.and_then(|lags| lags.get(lag)).copied().unwrap_or(0.0);
        }
        now / later
    }

    /// How usual the lag is, against the most usual one.
    pub fn usual(&self, view: View, act: Act, lag: usize) -> f32 {
        let lags = [view.fine, view.coarse].into_iter().find_map(|key| {
            let event = self.event(key, act.kind)?;
            let lags = event.lags.get(usize::from(act.connects))?;
            let all: f32 = lags.iter().sum();
            (key == view.coarse || all >= 5.0).then_some(lags)
        });
        let Some(lags) = lags else { return 0.0 };
        let most = lags.iter().copied().fold(0.0, f32::max);
        let own = lags.get(lag.min(LAGS - 1)).copied().unwrap_or(0.0);
        if most > 0.0 {
            (own / most).max(LEAST_LIKELY)
        } else {
            0.0
        }
    }
}

/// A loop that finds nothing to read goes round unseen: what takes so many rounds seems to take one
/// less at times, or one more.
fn add(lags: &mut [f32; LAGS], lag: usize, weight: f32) {
    let lag = lag.min(LAGS - 1);
    for (place, at) in lags.iter_mut().zip(0..) {
        match lag.abs_diff(at) {
            0 => *place += weight,
            1 => *place += weight * UNSEEN_ROUND,
            _ => {}
        }
    }
}

impl View {
    /// A request that has done nothing yet.
    pub fn begun(kind: u32) -> Self {
        let begun = mix(1, kind);
        Self {
            fine: begun,
            coarse: mix(begun, 0),
            kind,
            last: 0,
        }
    }

    /// After a call.
    #[must_use]
    pub fn after(self, kind: u32) -> Self {
        let coarse = mix(mix(mix(2, self.kind), self.last), kind);
        Self {
            fine: mix(self.fine, kind),
            coarse,
            last: kind,
            ..self
        }
    }
}
