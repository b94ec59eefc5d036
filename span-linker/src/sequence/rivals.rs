//! The requests that may have made a call, the likeliest first.

use super::joint::Scene;
use super::model::Model;
use super::state::{Call, State};

/// Requests that a call may compete among.
pub const RIVALS: usize = 10;
/// Open requests that a call is weighed against; beyond, those that began last.
const MAX_OPEN: usize = 512;
/// A request less likely than the best by this much (logarithm) is no rival.
const HOPELESS: f32 = 12.0;
/// What a call costs that ends after the request it is given to, before the request's end is weighed.
const OUTLIVES: f32 = 5.0;

/// Few requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rivals {
    list: [(f32, u32); RIVALS],
    len: usize,
    /// How all requests that could have made the call look by their threads.
    threads: [u16; 4],
}

impl Rivals {
    /// The requests.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let list = self.list.iter().take(self.len);
        list.map(|(_, request)| *request)
    }

    /// The place of a request in the list; the last place if it is not in it.
    pub fn slot(&self, request: u32) -> usize {
        let place = self.iter().position(|rival| rival == request);
        place.unwrap_or(RIVALS - 1)
    }

    /// How many of the requests that could have made the call stand to its thread like that.
    pub fn threads(&self) -> [u16; 4] {
        self.threads
    }

    /// The likeliest.
    pub fn best(&self) -> Option<(f32, u32)> {
        self.list.first().copied().filter(|_| self.len > 0)
    }

    fn add(&mut self, weight: f32, request: u32) {
        let known = self.list.get(..self.len).unwrap_or_default();
        let place = known.partition_point(|(other, _)| *other >= weight);
        if place >= RIVALS {
            return;
        }
        self.len = (self.len + 1).min(RIVALS);
        if let Some(tail) = self.list.get_mut(place..self.len) {
            tail.rotate_right(1);
            if let Some(first) = tail.first_mut() {
                *first = (weight, request);
            }
        }
    }

    fn drop_hopeless(&mut self) {
        let best = self.best().map_or(0.0, |(weight, _)| weight);
        let hopeful = |(weight, _): &(f32, u32)| best - *weight < HOPELESS;
        self.len = self
            .list
            .iter()
            .take(self.len)
            .filter(|r| hopeful(r))
            .count();
    }
}

/// The requests among the open ones that may have made a call, as things stand.
pub fn rivals(
    scene: &Scene,
    model: &mut Model,
    states: &[State],
    open: &[u32],
    call: &Call,
) -> Rivals {
    let mut rivals = Rivals::default();
    let crowd = open.len().saturating_sub(MAX_OPEN);
    for request in open.iter().skip(crowd) {
        let (Some(state), Some(known)) = (
            states.get(*request as usize),
            scene.requests.get(*request as usize),
        ) else {
            continue;
        };
        let event = state.call(call);
        let mut weight = model.weigh(state, &event);
        if let Some(count) = rivals.threads.get_mut(event.thread() as usize) {
            *count = count.saturating_add(1);
        }
        if let (Some(call), Some(request)) = (call.end_ns, known.end_ns)
            && call > request
        {
            weight -= OUTLIVES;
        }
        rivals.add(weight, *request);
    }
    rivals.drop_hopeless();
    rivals
}

/// The request was under way when the call began.
pub fn is_open(scene: &Scene, request: u32, call: &Call) -> bool {
    let request = scene.requests.get(request as usize);
    request.is_some_and(|request| {
        request.start_ns <= call.start_ns && request.end_ns.is_none_or(|end| call.start_ns < end)
    })
}
