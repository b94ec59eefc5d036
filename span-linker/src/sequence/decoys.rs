//! Tells how far timing may be believed in a process: what it gives to requests that never were.
//!
//! Among the requests of a scene decoys are put. Each begins somewhere between a request and the
//! next, before the former ends, and is like it in all else: how long it takes, what it is known to
//! have called, which thread read it. Where timing tells requests apart, decoys get nothing. Where
//! it only guesses, they get their share. (Target and decoy: Elias and Gygi, Nature Methods 4, 207, 2007.)

use super::crowd::Crowd;
use super::joint::{self, Scene};
use super::model::Model;
use super::state::{Call, Request, State};
use crate::hash::mix;
use std::collections::HashMap;
use std::ops::Range;

/// One request in so many has a decoy: more would make the choice harder than it is.
const EVERY: u64 = 4;
/// How often a scene is looked at, each time with other decoys, until it is settled.
const LOOKS: u32 = 2;
/// Only links as sure as that are looked at, and where none may be as sure, timing only guesses.
pub const SURE: f32 = 0.8;
/// What a share of decoys takes from the confidence of all links, and of those of one kind. On the
/// recorded sets and live servers, links were wrong about as often as decoys got their share where
/// that was seldom, and up to three times as often where it was not.
const WEIGHT: f32 = 1.6;
const WEIGHT_OF_KIND: f32 = 1.0;
/// What is assumed as long as little is known, and how many links to decoys by chance that weighs.
const ASSUMED: f32 = 0.15;
const ASSUMED_WEIGHT: f32 = 5.0;
/// So many links to decoys by chance settle it; beyond, the oldest are forgotten by and by.
const ENOUGH: f32 = 100.0;

/// How far timing may be believed in one process.
#[derive(Debug, Default)]
pub struct Doubts {
    all: Share,
    /// The same for calls of one kind.
    by_kind: HashMap<u32, Share, foldhash::fast::FixedState>,
    /// What the model had learned when half was forgotten.
    learned: f32,
    /// What was never forgotten.
    ever: Share,
}

/// What decoys got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Links to decoys.
    pub got: f32,
    /// How many there would be if every request were as likely.
    pub by_chance: f32,
}

impl Share {
    fn add(&mut self, other: Self) {
        self.got += other.got;
        self.by_chance += other.by_chance;
        if self.by_chance > 2.0 * ENOUGH {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.got /= 2.0;
        self.by_chance /= 2.0;
    }

    /// The same quotient, of no more links to decoys by chance than what is assumed weighs.
    fn weigh_little(&mut self) {
        if self.by_chance > ASSUMED_WEIGHT {
            self.got *= ASSUMED_WEIGHT / self.by_chance;
            self.by_chance = ASSUMED_WEIGHT;
        }
    }

    /// The quotient, leaning on another.
    fn of_chance(self, assumed: f32) -> f32 {
        (self.got + ASSUMED_WEIGHT * assumed) / (self.by_chance + ASSUMED_WEIGHT)
    }
}

impl Doubts {
    /// How sure a choice about calls of a kind may be.
    pub fn most_of_kind(&self, kind: u32) -> f32 {
        let all = self.all.of_chance(ASSUMED);
        let own = self.by_kind.get(&kind).copied().unwrap_or_default();
        self.most().min(1.0 - WEIGHT_OF_KIND * own.of_chance(all))
    }

    /// How sure a choice may be.
    pub fn most(&self) -> f32 {
        1.0 - WEIGHT * self.all.of_chance(ASSUMED)
    }

    /// What was seen says less of what comes: it is only where the next links are weighed from.
    pub fn weigh_little(&mut self) {
        self.all.weigh_little();
        self.by_kind.values_mut().for_each(Share::weigh_little);
    }

    /// Begins anew.
    pub fn forget(&mut self) {
        *self = Self {
            ever: self.ever,
            ..Self::default()
        };
    }

    /// What decoys got since the process is known.
    pub fn ever(&self) -> Share {
        self.ever
    }

    /// Enough was looked at.
    pub fn are_settled(&self) -> bool {
        self.all.by_chance >= ENOUGH
    }

    /// Looks who gets the calls that begin in a range of times when there are decoys.
    ///
    /// A model that has learned twice as much is another.
    pub fn look(&mut self, scene: &Scene, model: &Model, range: Range<u64>) {
        if model.learned() > 2.0 * self.learned {
            self.learned = model.learned();
            self.all.halve();
            self.by_kind.values_mut().for_each(Share::halve);
        }
        // It keeps what it has computed.
        let mut model = model.clone();
        let looks = if self.are_settled() { 1 } else { LOOKS };
        for look in 0..looks {
            self.count(Decoyed::new(scene, look), &mut model, &range);
        }
    }

    fn count(&mut self, decoyed: Decoyed, model: &mut Model, range: &Range<u64>) {
        let Decoyed {
            scene,
            is_decoy,
            decoys,
            all,
        } = decoyed;
        let deal = joint::choose(&scene, model, false);
        let choices = scene.calls.iter().zip(&deal.choices).zip(&scene.pinned);
        for ((call, choice), _) in choices.filter(|(_, pinned)| pinned.is_none()) {
            let sure = choice.confidence >= SURE && range.contains(&call.start_ns);
            let Some(parent) = choice.parent.filter(|_| sure) else {
                continue;
            };
            let got = is_decoy.get(parent as usize) == Some(&true);
            let share = Share {
                got: f32::from(u8::from(got)),
                by_chance: quotient(decoys.open_at(call.start_ns), all.open_at(call.start_ns)),
            };
            self.all.add(share);
            self.ever.got += share.got;
            self.ever.by_chance += share.by_chance;
            self.by_kind.entry(call.kind).or_default().add(share);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn quotient(part: usize, whole: usize) -> f32 {
    part as f32 / whole.max(1) as f32
}

/// A scene with decoys.
struct Decoyed {
    scene: Scene,
    is_decoy: Vec<bool>,
    decoys: Crowd,
    all: Crowd,
}

impl Decoyed {
    fn new(scene: &Scene, look: u32) -> Self {
        let late = lateness(scene, look);
        let mut requests: Vec<(Request, State, Place)> = Vec::new();
        let known = scene.requests.iter().zip(&scene.states).zip(&late);
        for (index, ((request, state), late)) in (0..).zip(known) {
            requests.push((*request, *state, Place::new(index, false)));
            if let Some(late) = *late {
                let place = Place::new(index, true);
                requests.push((request.later(late), state.later(late), place));
            }
        }
        requests.sort_by_key(|(request, ..)| request.start_ns);
        let mut calls: Vec<(Call, Option<Place>)> = Vec::new();
        for (call, pinned) in scene.calls.iter().zip(&scene.pinned) {
            calls.push((*call, pinned.map(|index| Place::new(index, false))));
            let decoy = pinned.and_then(|index| Some((index, (*late.get(index as usize)?)?)));
            if let Some((index, late)) = decoy {
                calls.push((call.later(late), Some(Place::new(index, true))));
            }
        }
        calls.sort_by_key(|(call, _)| call.start_ns);
        let places = requests.iter().map(|(.., place)| *place).zip(0..);
        let places: HashMap<Place, u32, foldhash::fast::FixedState> = places.collect();
        let decoys = requests.iter().filter(|(.., place)| place.is_decoy);
        Self {
            is_decoy: requests.iter().map(|(.., place)| place.is_decoy).collect(),
            decoys: Crowd::new(decoys.map(|(request, ..)| request)),
            all: Crowd::new(requests.iter().map(|(request, ..)| request)),
            scene: Scene {
                requests: requests.iter().map(|(request, ..)| *request).collect(),
                states: requests.iter().map(|(_, state, _)| *state).collect(),
                calls: calls.iter().map(|(call, _)| *call).collect(),
                pinned: calls
                    .iter()
                    .map(|(_, place)| places.get(&(*place)?).copied())
                    .collect(),
            },
        }
    }
}

/// A request of the scene without decoys, or its decoy.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    index: u32,
    is_decoy: bool,
}

impl Place {
    fn new(index: u32, is_decoy: bool) -> Self {
        Self { index, is_decoy }
    }
}

/// How much later than each request its decoy is, ns; none: it has none. The same for the same
/// requests in the same look.
fn lateness(scene: &Scene, look: u32) -> Vec<Option<u64>> {
    let starts = scene.requests.iter().map(|request| request.start_ns);
    let nexts = starts.clone().skip(1).map(Some).chain([None]);
    let requests = scene.requests.iter().zip(starts.zip(nexts));
    let late = requests.map(|(request, (start, next))| {
        let random = mix(u64::from_be_bytes(*request.id.as_bytes()), look);
        let until = [next, request.end_ns].into_iter().flatten().min()?;
        let room = until.saturating_sub(start);
        let late = (u128::from(room) * u128::from(random >> 32)) >> 32;
        u64::try_from(late)
            .ok()
            .filter(|_| random.is_multiple_of(EVERY))
    });
    late.collect()
}
