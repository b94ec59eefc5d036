//! What the requests of one process do next, and after how long.
//!
//! A request is a sequence: it begins, makes calls, ends. The model counts, for
//! the sequence so far, which event followed and after which gap. Four views of
//! "so far" lean on each other where the finer one has seen little:
//! the whole sequence, the last two calls, the last call, and the last call of
//! whatever request. What is learned is weighted by how sure the links were, so
//! a process under load teaches little and a quiet one much.
//!
//! An event also says whether its thread had just read what this request waited
//! for (`Thread`). How often that is so for true parents is part of the counts;
//! how often it is so by chance is counted beside them, and the quotient is what
//! it weighs. In an event loop it settles everything, in Go it helps.

use super::gap::{ANY_GAP, BINS, Histogram, Table, bin, log_density};
use super::state::{Event, State, VIEWS};
use crate::hash::mix;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

type Map<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
/// Keys of views are hashes already.
type Hashed<V> = HashMap<u64, V, BuildHasherDefault<Keep>>;

/// Takes a hash as it is.
#[derive(Clone, Copy, Debug, Default)]
struct Keep(u64);

impl Hasher for Keep {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Histograms of one process; beyond, sequences that are new are judged by coarser views.
pub const MAX_HISTOGRAMS: usize = 2048;
/// Kinds of calls and requests told apart in one process; beyond, they count as one.
const MAX_KINDS: usize = 256;
/// An event never seen in any view, where nothing else was seen either.
const UNSEEN: f32 = 0.002;
/// How many samples the coarser view counts as, for which event and for which gap.
const LEAN_EVENT: f32 = 2.0;
const LEAN_GAP: [f32; VIEWS] = [12.0, 12.0, 12.0, 2.0];
/// The view that tells how well an event is known.
const SUPPORT_VIEW: usize = 2;
/// Samples of a view after which it forgets half, so that a process can change its ways.
const MEMORY: f32 = 4096.0;
/// Calls of a kind without a parent, a second, before any was seen.
const BACKGROUND_PER_SECOND: f32 = 1e-5;

/// The model of one process.
#[derive(Clone, Debug)]
pub struct Model {
    views: Hashed<View>,
    histograms: Hashed<Gaps>,
    kinds: HashSet<u32, foldhash::fast::FixedState>,
    chance: Chance,
    background: Map<u32, f32>,
    observed_s: f32,
    /// Samples learned, and how many there were when the tables were last thrown away.
    learned: f32,
    compiled: f32,
    version: u32,
    /// Samples whose histogram found no room.
    pub refused: u64,
}

/// Which events followed in one view.
#[derive(Clone, Debug, Default)]
struct View {
    weight: f32,
    next: Vec<(u32, f32)>,
}

#[derive(Clone, Debug, Default)]
struct Gaps {
    seen: Histogram,
    /// Log-likelihood of the event with each gap, made when first asked for.
    table: Option<Box<Table>>,
    version: u32,
}

/// How often requests that are not the parent look, by their threads, as if they were.
#[derive(Clone, Debug)]
struct Chance([f32; 4]);

impl Default for Model {
    fn default() -> Self {
        Self {
            views: Hashed::default(),
            histograms: Hashed::default(),
            kinds: HashSet::default(),
            chance: Chance([1.0, 0.5, 0.5, 9.0]),
            background: Map::default(),
            observed_s: 1.0,
            learned: 0.0,
            compiled: 0.0,
            version: 1,
            refused: 0,
        }
    }
}

impl Model {
    /// A kind as this model knows it: 0 if there are too many.
    pub fn kind(&mut self, kind: u32) -> u32 {
        if self.kinds.contains(&kind) {
            return kind;
        }
        if self.kinds.len() >= MAX_KINDS {
            return 0;
        }
        self.kinds.insert(kind);
        kind
    }

    /// Log-density, per ns, of an event following a state, against chance.
    pub fn weigh(&mut self, state: &State, event: &Event) -> f32 {
        let bin = bin(event.gap_ns);
        for level in 0..VIEWS {
            let key = mix(state.view(level), event.symbol);
            let Some(gaps) = self.histograms.get_mut(&key) else {
                continue;
            };
            if gaps.version == self.version
                && let Some(table) = &mut gaps.table
            {
                return table.log_density(bin);
            }
            let mut table = Box::new(self.table(state, event, level));
            let weight = table.log_density(bin);
            if let Some(gaps) = self.histograms.get_mut(&key) {
                gaps.table = Some(table);
                gaps.version = self.version;
            }
            return weight;
        }
        log_density(bin, UNSEEN * ANY_GAP)
    }

    /// How likely an event is with each gap, from the coarsest view down to `finest`.
    fn table(&self, state: &State, event: &Event, finest: usize) -> Table {
        let chance = self.chance.of(event.thread());
        let mut probability = UNSEEN * chance;
        let mut gaps = [ANY_GAP; BINS];
        for level in (finest..VIEWS).rev() {
            let view = state.view(level);
            if let Some(view) = self.views.get(&view) {
                let count = view.count(event.symbol);
                probability = (count + LEAN_EVENT * probability) / (view.weight + LEAN_EVENT);
            }
            if let Some(seen) = self.histograms.get(&mix(view, event.symbol)) {
                let lean = LEAN_GAP.get(level).copied().unwrap_or(1.0);
                seen.seen.blend(&mut gaps, lean);
            }
        }
        Table::new(gaps, probability / chance)
    }

    /// Log-density, per ns, of a call of this kind that no request of the process asked for.
    pub fn background(&self, kind: u32) -> f32 {
        let seen = self.background.get(&kind).copied().unwrap_or(0.0);
        let per_second = seen / self.observed_s + BACKGROUND_PER_SECOND;
        (per_second * 1e-9).ln()
    }

    /// How often an event was seen to follow such a state.
    pub fn support(&self, state: &State, event: &Event) -> f32 {
        let view = self.views.get(&state.view(SUPPORT_VIEW));
        view.map_or(0.0, |view| view.count(event.symbol))
    }

    /// Learns that an event followed a state.
    pub fn learn(&mut self, state: &State, event: &Event, weight: f32) {
        self.learned += weight;
        for level in 0..VIEWS {
            let key = state.view(level);
            let room = self.histograms.len() < MAX_HISTOGRAMS;
            let gaps = match self.histograms.get_mut(&mix(key, event.symbol)) {
                Some(gaps) => gaps,
                None if room => self.histograms.entry(mix(key, event.symbol)).or_default(),
                None => {
                    self.refused += 1;
                    continue;
                }
            };
            gaps.seen.add(event.gap_ns, weight);
            let view = self.views.entry(key).or_default();
            view.add(event.symbol, weight);
            if view.weight > MEMORY {
                view.halve();
                for (symbol, _) in &view.next {
                    if let Some(gaps) = self.histograms.get_mut(&mix(key, *symbol)) {
                        gaps.seen.halve();
                    }
                }
            }
        }
    }

    /// Learns that a call of this kind had no parent.
    pub fn learn_background(&mut self, kind: u32, weight: f32) {
        *self.background.entry(kind).or_default() += weight;
    }

    /// Learns how requests that could have made a call looked by their threads.
    pub fn learn_chance(&mut self, threads: [u16; 4]) {
        for (thread, count) in (0..).zip(threads) {
            self.chance.add(thread, f32::from(count));
        }
    }

    /// Takes the one that did make it out again.
    pub fn learn_no_chance(&mut self, thread: u32) {
        self.chance.add(thread, -1.0);
    }

    /// So much more time was observed.
    pub fn observed(&mut self, time_ns: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs three digits")]
        let seconds = time_ns as f32 / 1e9;
        self.observed_s += seconds;
        if self.observed_s > 7200.0 {
            self.observed_s /= 2.0;
            self.background.values_mut().for_each(|seen| *seen /= 2.0);
        }
    }

    /// What was learned counts from now on.
    pub fn refresh(&mut self) {
        if self.learned > self.compiled * 1.05 + 4.0 {
            self.compiled = self.learned;
            self.version = self.version.wrapping_add(1);
        }
    }

    /// Samples learned so far.
    pub fn learned(&self) -> f32 {
        self.learned
    }
}

impl View {
    fn count(&self, symbol: u32) -> f32 {
        let found = self.next.iter().find(|(known, _)| *known == symbol);
        found.map_or(0.0, |(_, count)| *count)
    }

    fn add(&mut self, symbol: u32, weight: f32) {
        self.weight += weight;
        match self.next.iter_mut().find(|(known, _)| *known == symbol) {
            Some((_, count)) => *count += weight,
            None => self.next.push((symbol, weight)),
        }
    }

    fn halve(&mut self) {
        self.weight /= 2.0;
        self.next.iter_mut().for_each(|(_, count)| *count /= 2.0);
    }
}

impl Chance {
    fn of(&self, thread: u32) -> f32 {
        let [_, rest @ ..] = &self.0;
        let all: f32 = rest.iter().sum();
        match thread {
            0 => 1.0,
            _ => self.0.get(thread as usize).copied().unwrap_or(0.0) / all,
        }
    }

    fn add(&mut self, thread: u32, weight: f32) {
        if thread == 0 {
            return;
        }
        if let Some(count) = self.0.get_mut(thread as usize) {
            *count = (*count + weight).max(0.5);
        }
        let [_, rest @ ..] = &mut self.0;
        if rest.iter().sum::<f32>() > MEMORY {
            for count in rest {
                *count /= 2.0;
            }
        }
    }
}
