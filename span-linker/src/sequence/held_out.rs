//! Tells how far timing may be believed about a kind of calls: what it says of those whose parent
//! other evidence knows, had it not been told.
//!
//! That is more than `decoys` can tell where other evidence knows most calls of a kind: those that
//! it leaves are few among many that are settled, and often the odd ones.

use super::joint::{self, Scene};
use super::model::Model;
use crate::hash::mix;
use std::collections::{HashMap, HashSet};

/// One known call in so many is held out.
const EVERY: u64 = 4;
/// Only links as sure as that are counted.
const SURE: f32 = super::decoys::SURE;
/// Beyond so many of a kind the oldest are forgotten by and by.
const ENOUGH: f32 = 200.0;

/// How timing did on calls of each kind that were held out.
#[derive(Debug, Default)]
pub struct HeldOut {
    by_kind: HashMap<u32, Grades, foldhash::fast::FixedState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Grades {
    all: f32,
    wrong: f32,
}

impl HeldOut {
    /// How sure a choice about calls of a kind may be; 1 if no such call was held out.
    pub fn most_of_kind(&self, kind: u32) -> f32 {
        let grades = self.by_kind.get(&kind).copied().unwrap_or_default();
        1.0 - grades.wrong / (grades.all + 1.0)
    }

    /// Chooses once more for a scene, of whose known calls some that began before `until_ns` are
    /// held out.
    pub fn look(&mut self, scene: &Scene, model: &Model, until_ns: u64) {
        let held_out = pick(scene, until_ns);
        if held_out.is_empty() {
            return;
        }
        let mut untold = scene.clone();
        for index in &held_out {
            if let Some(pinned) = untold.pinned.get_mut(*index) {
                *pinned = None;
            }
        }
        // It keeps what it has computed.
        let deal = joint::choose(&untold, &mut model.clone(), false);
        for index in held_out {
            let (Some(call), Some(choice), Some(known)) = (
                scene.calls.get(index),
                deal.choices.get(index),
                scene.pinned.get(index),
            ) else {
                continue;
            };
            if choice.confidence >= SURE {
                self.grade(call.kind, choice.parent == *known);
            }
        }
    }

    fn grade(&mut self, kind: u32, right: bool) {
        let grades = self.by_kind.entry(kind).or_default();
        grades.all += 1.0;
        grades.wrong += f32::from(u8::from(!right));
        if grades.all > ENOUGH {
            grades.all /= 2.0;
            grades.wrong /= 2.0;
        }
    }
}

/// Some of the known calls of those kinds of which others are unknown, by their indexes; the same
/// in the same scene.
fn pick(scene: &Scene, until_ns: u64) -> Vec<usize> {
    let calls = || scene.calls.iter().zip(&scene.pinned);
    let until = calls().take_while(|(call, _)| call.start_ns < until_ns);
    let unknown = until.clone().filter(|(_, pinned)| pinned.is_none());
    let kinds: HashSet<u32, foldhash::fast::FixedState> =
        unknown.map(|(call, _)| call.kind).collect();
    let known = until.enumerate().filter(|(_, (call, pinned))| {
        let id = u64::from_be_bytes(*call.id.as_bytes());
        pinned.is_some() && kinds.contains(&call.kind) && mix(id, 0).is_multiple_of(EVERY)
    });
    known.map(|(index, _)| index).collect()
}
